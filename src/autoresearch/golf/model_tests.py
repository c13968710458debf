"""Asks a script's own evaluation for the probability of each token, and tests what it answers.

That is the model-test protocol. The script is started with ``MODEL_TEST=request.json``. The request
holds ``schema`` (1), ``artifact`` (a path, or null for untrained weights), ``tokens`` (a shard),
``distribution_at`` (indexes among the scored targets) and ``output`` (an ``.npz``). The answer
holds ``log_probs`` (float64, natural logarithm, in order of scoring), ``positions`` (int64, index
of each scored target in the shard), ``distributions`` (float32, a row of log-probabilities for each
index asked for), ``distribution_positions``, and the scalars ``val_loss``, ``val_bpb``,
``val_tokens`` and ``val_bytes``. The script ends with status 0.

The tests T1 to T6 are pure functions from answers to one result. Uniformly random tokens are the
ground: nothing honest can predict them, so whatever a script gains on them, it gains from the
targets themselves. The bytes that tokens stand for are counted from the tokenizer and not by the
script.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
from attrs import asdict, field, frozen
from numpy.typing import NDArray

from autoresearch.errors import AutoresearchError, DataError
from autoresearch.golf.measurement import Files, join_shards
from autoresearch.golf.model_job import request_in, run_whole

_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX")
_KEPT_PREFIXES = ("CUDA_", "NVIDIA_", "OMP_", "MKL_", "OPENBLAS_")
# A port that no one listens on: a client that honours proxies fails at once instead of waiting.
_NOWHERE = "http://127.0.0.1:9"
OFFLINE = {
    **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), _NOWHERE),
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), _NOWHERE),
    **dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1"),
    "no_proxy": "",
    "NO_PROXY": "",
}


def run_script(
    script: Path, *, env: Mapping[str, str], folder: Path, timeout_s: float
) -> tuple[str, str]:
    """Run a script by this Python in ``folder`` with ``env`` over a bare environment.

    The network is taken away by a namespace of its own where the system allows that, and made
    useless through the proxy variables everywhere. At the deadline the whole process group dies.
    Returns why it did not end well, empty where it did, and its output.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return run_whole(
        [*network_off(), sys.executable, str(script.resolve())],
        env=bare_environment(os.environ, folder, env),
        cwd=folder,
        logs=folder,
        seconds=timeout_s,
    )


def bare_environment(
    environ: Mapping[str, str], folder: Path, extra: Mapping[str, str]
) -> dict[str, str]:
    """What a judged script may see: paths, language, threads; its home is its own folder."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    return {**kept, **OFFLINE, "HOME": str(folder), "PYTHONUNBUFFERED": "1", **extra}


@lru_cache(maxsize=1)
def network_off() -> tuple[str, ...]:
    """The command in front that takes the network away; empty where the system refuses."""
    tool = shutil.which("unshare")
    for flags in (("-n",), ("-rn",)):
        if tool is not None and _works([tool, *flags, "true"]):
            return (tool, *flags)
    return ()


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


_ARRAYS = {"log_probs": 1, "positions": 1, "distributions": 2, "distribution_positions": 1}
_SCALARS = ("val_loss", "val_bpb", "val_tokens", "val_bytes")


class NoAnswerError(AutoresearchError):
    """A script did not answer a model test, or answered something that is no answer."""


@frozen(eq=False, kw_only=True)
class Scalars:
    """What an evaluation says of a whole shard: nats a token, bits a byte, and two counts."""

    val_loss: float
    val_bpb: float
    val_tokens: int
    val_bytes: int


@frozen(eq=False, kw_only=True)
class Answer(Scalars):
    """What the script's own evaluation says of one shard; arrays as the protocol describes them."""

    tokens: NDArray[np.int64]
    log_probs: NDArray[np.float64]
    positions: NDArray[np.int64]
    distributions: NDArray[np.float64]
    distribution_positions: NDArray[np.int64]


def _scalars(values: Mapping[str, NDArray[np.generic]]) -> Scalars:
    loss, bpb, tokens, count = (float(_numbers(name, values[name])) for name in _SCALARS)
    return Scalars(val_loss=loss, val_bpb=bpb, val_tokens=round(tokens), val_bytes=round(count))


def _load(path: Path | IO[bytes], names: Iterable[str]) -> dict[str, NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: np.asarray(stored[name]) for name in names}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise NoAnswerError(f"what it wrote is not an answer: {error}") from None


def read_answer(path: Path | IO[bytes], tokens: NDArray[np.int64], asked: int) -> Answer:
    """Read and check an answer; pickled values are refused, because they could run code."""
    values = _load(path, (*_ARRAYS, *_SCALARS))
    for name, dimensions in _ARRAYS.items():
        if values[name].ndim != dimensions or not np.isfinite(_numbers(name, values[name])).all():
            raise NoAnswerError(f"the answer's {name} is not {dimensions}-dimensional numbers")
    counts = len(values["log_probs"]), len(values["positions"])
    if counts[0] != counts[1] or len(values["distributions"]) != asked:
        raise NoAnswerError(f"the answer has {counts[0]} log_probs for {counts[1]} positions")
    return Answer(
        **asdict(_scalars(values)),
        tokens=tokens,
        log_probs=values["log_probs"].astype(np.float64),
        positions=values["positions"].astype(np.int64),
        distributions=values["distributions"].astype(np.float64),
        distribution_positions=values["distribution_positions"].astype(np.int64),
    )


def _numbers(name: str, values: NDArray[np.generic]) -> NDArray[np.float64]:
    if not np.issubdtype(values.dtype, np.number) or (name in _SCALARS and values.size != 1):
        raise NoAnswerError(f"the answer's {name} is no number")
    flat = values.reshape(()) if name in _SCALARS else values
    # Minus infinity is an honest log-probability of an impossible token.
    numbers = flat.astype(np.float64)
    return np.where(np.isneginf(numbers), -1e9, numbers)


def reload_score(
    files: Files,
    *,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 900.0,
) -> Scalars:
    """D7: score an artifact in a new process that has a copy of the script and nothing else.

    ``env`` are the overrides of the run that wrote the artifact. The script is asked through the
    model-test protocol; it finds no training data, because ``DATA_PATH`` names an empty folder.
    Raises ``NoAnswerError`` where it does not answer, ``DataError`` where a file is missing.
    """
    shards = files.shards("the artifact cannot be scored")
    with tempfile.TemporaryDirectory(prefix="reload-") as name:
        folder = Path(name)
        alone = folder / files.script.name
        alone.write_bytes(files.script.read_bytes())
        (folder / "nothing").mkdir()
        tokenizer = str(files.tokenizer.resolve())
        place = {"DATA_PATH": str(folder / "nothing"), "TOKENIZER_PATH": tokenizer}
        text = shards[0] if len(shards) == 1 else join_shards(shards, folder / "validation.bin")
        here = folder / "reload"
        here.mkdir()
        asking = request_in(here, text.resolve(), str(files.artifact.resolve()))
        reason, _ = run_script(
            alone,
            env={**(env or {}), **place, **asking},
            folder=here,
            timeout_s=timeout_s,
        )
        if reason:
            raise NoAnswerError(f"the script did not answer a model test: {reason}")
        return _scalars(_load(here / "answer.npz", _SCALARS))


_SPACE = "\u2581"  # SentencePiece writes a space in front of a word as this character
Ids = NDArray[np.int64]


@frozen(eq=False, kw_only=True)
class ByteTable:
    """For each id its bytes without a leading space, whether it has one, and whether it bounds."""

    base: NDArray[np.int64]
    leading: NDArray[np.bool_]
    boundary: NDArray[np.bool_]

    @property
    def vocabulary(self) -> int:
        """Number of ids of the tokenizer."""
        return len(self.base)

    def count(self, targets: Ids, previous: Ids) -> int:
        """Bytes of the targets, each after its previous token.

        The space in front of a word counts one byte, but not after a boundary: a control, unknown
        or unused piece, which stands for no text itself.
        """
        spaces = self.leading[targets] & ~self.boundary[previous]
        return int(self.base[targets].sum() + spaces.sum())


def byte_table(tokenizer: Path) -> ByteTable:
    """Read the table from a SentencePiece model; raises ``DataError`` where it is none."""
    try:
        import sentencepiece
    except ImportError:
        raise DataError("sentencepiece is missing: pip install 'autoresearch[train]'") from None
    try:
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    except (RuntimeError, OSError, TypeError):
        raise DataError(f"{tokenizer} is not a SentencePiece model: get the data again") from None
    size = int(pieces.vocab_size())
    base, leading, boundary = np.zeros(size, np.int64), np.zeros(size, bool), np.zeros(size, bool)
    for token in range(size):
        if pieces.is_control(token) or pieces.is_unknown(token) or pieces.is_unused(token):
            boundary[token] = True
        elif pieces.is_byte(token):
            base[token] = 1
        else:
            piece: str = pieces.id_to_piece(token)
            leading[token] = piece.startswith(_SPACE)
            base[token] = len(piece.removeprefix(_SPACE).encode("utf-8"))
    return ByteTable(base=base, leading=leading, boundary=boundary)


SCORED = 16_384  # the allowance of T5 is then 0.002 bits a token
NARROW = 16  # ids of the narrow text: contexts recur in it, as a cache needs them to
DISTRIBUTIONS = 48
TRAINING = 40_000


@frozen(eq=False, kw_only=True)
class Streams:
    """``flipped`` equals ``base`` up to the token ``first``; ``shorter`` is a prefix of ``base``.

    ``narrow`` is uniform over a few ids only, ``asked`` are target indexes for distributions.
    """

    base: Ids
    flipped: Ids
    shorter: Ids
    narrow: Ids
    train: Ids
    first: int
    asked: tuple[int, ...]
    alphabet: int

    @property
    def scored(self) -> int:
        """Targets of the base text."""
        return len(self.base) - 1


def draw_streams(seed: int, table: ByteTable, sequence: int, scored: int = SCORED) -> Streams:
    """Draw the texts for a tokenizer and a sequence length; the same seed draws the same ones.

    Texts are whole sequences plus the first input. The flip is in the middle of a sequence, so that
    tokens on both sides of it share a window.
    """
    rng = np.random.default_rng(seed)
    sequences = max(scored // sequence, 8)
    length = sequences * sequence + 1
    base = rng.integers(0, table.vocabulary, length)
    index = sequence * (sequences * 3 // 5) + sequence // 2
    flipped = base.copy()
    flipped[index + 1 :] = rng.integers(0, table.vocabulary, length - index - 1)
    flipped[index + 1] = (
        base[index + 1] + 1 + rng.integers(table.vocabulary - 1)
    ) % table.vocabulary
    others = rng.choice(sequences * sequence, size=DISTRIBUTIONS - 1, replace=False)
    ids = np.flatnonzero(table.base > 0)
    few = rng.choice(ids, size=min(NARROW, len(ids)), replace=False)
    return Streams(
        base=base,
        flipped=flipped,
        shorter=base[: (sequences * 5 // 8) * sequence + 1],
        narrow=rng.choice(few, size=length),
        train=rng.integers(0, table.vocabulary, TRAINING),
        first=index + 1,
        asked=tuple(sorted({int(i) for i in others} | {index - 1, index})),
        alphabet=len(few),
    )


# An honest predictor q of n independent uniform tokens has E[prod q / (1/V)] <= 1, so by Markov's
# inequality the sum of its gains exceeds a nats with probability at most exp(-a), however it adapts
# to what it has read. 20.7 nats: one false alarm in a thousand million canaries.
FALSE_ALARM_NATS = math.log(1e9)
ROUNDING_NATS = 1e-4  # per token: fp32 averages and printed decimals
SAME_LOG_PROB = 1e-4  # nats; the same weights on the same prefix are the same, but for rounding
SUM_TOLERANCE = 1e-4  # rule T2
AGREEMENT = 5e-3  # nats between a token's log-probability and its distribution's entry


class Outcome(StrEnum):
    """What a test says; ``not_possible`` proves nothing either way."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_POSSIBLE = "not_possible"


@frozen(kw_only=True)
class TestResult:
    """One test with its numbers; ``rule`` is its id in the rules (T1 to T6, D7)."""

    __test__ = False  # not a test of pytest's, whatever its name

    rule: str
    name: str
    outcome: Outcome
    detail: str
    numbers: Mapping[str, float] = field(factory=dict)


def target_flip(one: Answer, other: Answer, first: int) -> TestResult:
    """T1: two streams that differ from token ``first`` on score everything before it the same.

    The distributions for tokens up to and including ``first`` must be the same as well, so a
    predictor that looks at its target is seen even where it looks at nothing else.
    """
    worst = _apart(_before(one, first), _before(other, first))
    rows, others = _rows_until(one, first), _rows_until(other, first)
    shared = sorted(rows.keys() & others.keys())
    worst = max([worst, *(float(np.abs(rows[p] - others[p]).max()) for p in shared)])
    good = worst <= SAME_LOG_PROB
    detail = f"what comes later changes what came before by up to {worst:.2g} nats"
    return _result("T1", "target flip", good, detail, difference_nats=worst, tokens=first)


def normalisation(answer: Answer) -> TestResult:
    """T2: each distribution sums to 1, and the scored probability is the distribution's own."""
    if len(answer.distributions) == 0:
        return not_possible("T2", "normalisation", "the script gave no distributions")
    sums = np.exp(answer.distributions).sum(axis=1)
    worst = float(np.abs(sums - 1.0).max())
    where = {int(p): i for i, p in enumerate(answer.positions)}
    indexes = [where[int(p)] for p in answer.distribution_positions if int(p) in where]
    if len(indexes) != len(answer.distributions):
        return _result("T2", "normalisation", False, "distributions of tokens never scored")
    targets = answer.tokens[answer.distribution_positions]
    said = answer.distributions[np.arange(len(targets)), targets]
    apart = float(np.abs(said - answer.log_probs[indexes]).max())
    good = worst <= SUM_TOLERANCE and apart <= AGREEMENT
    detail = f"sums are off by up to {worst:.2g}, scored tokens by up to {apart:.2g} nats"
    return _result("T2", "normalisation", good, detail, sum_error=worst, score_error_nats=apart)


def scored_once(answer: Answer, longest_sequence: int) -> TestResult:
    """T3: each target once, in order, all but a tail shorter than a sequence, and counted right."""
    unique = len(np.unique(answer.positions))
    count, total = len(answer.positions), len(answer.tokens) - 1
    inside = count > 0 and int(answer.positions.min()) >= 1 and int(answer.positions.max()) <= total
    ordered = bool((np.diff(answer.positions) > 0).all())
    mean = nats(answer)
    faults = [
        (unique != count, f"{count - unique} targets are scored more than once"),
        (not inside, "targets outside of the text are scored"),
        (not ordered, "targets are not scored from left to right"),
        (total - unique >= longest_sequence, f"{total - unique} of {total} targets are left out"),
        (answer.val_tokens != count, f"val_tokens says {answer.val_tokens}, {count} were scored"),
        (not abs(mean - answer.val_loss) <= 1e-3, f"val_loss is not the mean, {mean:.6f}"),
    ]
    found = [text for broken, text in faults if broken]
    detail = "; ".join(found) or f"{count} targets, each once and from left to right"
    return _result("T3", "scored once", not found, detail, tokens=count, left_out=total - unique)


def prefix_truncation(whole: Answer, part: Answer) -> TestResult:
    """T4: a text that ends earlier gives the same losses for the tokens that it has."""
    last = len(part.tokens)
    worst = _apart(_before(whole, last), _before(part, last))
    detail = f"the rest of the text changes earlier tokens by up to {worst:.2g} nats"
    return _result("T4", "prefix truncation", worst <= SAME_LOG_PROB, detail, difference_nats=worst)


def random_stream(
    nats_per_token: float, tokens: int, alphabet: int, name: str = "random tokens"
) -> TestResult:
    """T5: nothing predicts uniformly random tokens in fewer bits than log2 of their alphabet."""
    allowance = (FALSE_ALARM_NATS / max(tokens, 1) + ROUNDING_NATS) / math.log(2.0)
    bits, entropy = nats_per_token / math.log(2.0), math.log2(alphabet)
    good = bits >= entropy - allowance  # false for NaN as well
    detail = f"{bits:.4f} bits a token, nothing honest is below {entropy - allowance:.4f}"
    return _result("T5", name, good, detail, bits=bits, entropy=entropy, allowance=allowance)


def byte_count(answer: Answer, table: ByteTable) -> TestResult:
    """T6: the bytes that the score was divided by are those of the scored tokens."""
    inside = answer.positions[(answer.positions >= 1) & (answer.positions < len(answer.tokens))]
    expected = table.count(answer.tokens[inside], answer.tokens[inside - 1])
    return implied_bytes(
        answer.val_tokens, answer.val_loss, answer.val_bpb, expected, answer.val_bytes
    )


def implied_bytes(
    tokens: int,
    val_loss: float,
    val_bpb: float,
    expected: int,
    stated: int | None = None,
    name: str = "byte count",
) -> TestResult:
    """T6: the bytes that follow from loss and score are those that the tokens stand for."""
    implied = tokens * val_loss / (math.log(2.0) * val_bpb) if val_bpb > 0 else math.nan
    good = abs(implied - expected) <= 1e-5 * expected + 0.5 and stated in (None, expected)
    said = "" if stated is None else f", val_bytes says {stated}"
    detail = f"the score implies {implied:.1f} bytes{said}, the tokens have {expected}"
    return _result("T6", name, good, detail, implied=implied, expected=expected)


def same_score(whole_nats: float, answered_nats: float) -> TestResult:
    """D7: a new process that has only code and artifact finds the score that the run printed."""
    apart = abs(whole_nats - answered_nats)
    detail = f"the run printed {whole_nats:.6f} nats, its artifact scores {answered_nats:.6f}"
    return _result("D7", "reloaded artifact", apart <= SAME_LOG_PROB, detail, difference_nats=apart)


def nats(answer: Answer) -> float:
    """Mean nats a target, from the log-probabilities and not from what the script says of them."""
    return -float(answer.log_probs.mean()) if len(answer.log_probs) else math.nan


def failed(rule: str, name: str, why: str) -> TestResult:
    """A test that failed before it gave numbers."""
    return _result(rule, name, False, why)


def not_possible(rule: str, name: str, why: str) -> TestResult:
    """A test that could not be made, with the reason; it proves nothing either way."""
    return TestResult(rule=rule, name=name, outcome=Outcome.NOT_POSSIBLE, detail=why)


def _result(rule: str, name: str, good: bool, detail: str, **numbers: float) -> TestResult:
    outcome = Outcome.PASSED if good else Outcome.FAILED
    finite = {key: float(value) for key, value in numbers.items() if math.isfinite(value)}
    return TestResult(rule=rule, name=name, outcome=outcome, detail=detail, numbers=finite)


def _before(answer: Answer, first: int) -> dict[int, float]:
    """Log-probabilities by position, for the targets in front of ``first``."""
    pairs = zip(answer.positions.tolist(), answer.log_probs.tolist(), strict=True)
    return {position: value for position, value in pairs if position < first}


def _rows_until(answer: Answer, first: int) -> dict[int, NDArray[np.float64]]:
    pairs = zip(answer.distribution_positions.tolist(), answer.distributions, strict=True)
    return {position: row for position, row in pairs if position <= first}


def _apart(one: Mapping[int, float], other: Mapping[int, float]) -> float:
    """The largest difference; targets that only one side scored are as far apart as can be."""
    if one.keys() != other.keys():
        return math.inf
    return max((abs(one[p] - other[p]) for p in one), default=0.0)
