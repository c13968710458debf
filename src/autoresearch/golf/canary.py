"""The canary: a script's own evaluation on uniformly random tokens that nobody can predict.

The tokens come from a secret seed, new with every call. A score below their entropy proves that the
evaluation sees its targets or does not normalise its probabilities.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import math
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from autoresearch.errors import DataError
from autoresearch.golf import model_tests as tests
from autoresearch.golf.audits.script import try_parse
from autoresearch.golf.audits.settings import read_settings
from autoresearch.golf.model_job import MARK
from autoresearch.golf.model_tests import (
    OFFLINE,
    SCORED,
    Answer,
    ByteTable,
    NoAnswerError,
    Outcome,
    Streams,
    TestResult,
    byte_table,
    draw_streams,
    read_answer,
    run_script,
)
from autoresearch.golf.plausibility import broken, doubt
from autoresearch.model import RunOutput, Violation
from autoresearch.text import one_line

# A small network, trained for a few careful steps: a fresh one has zero output projections, through
# which no leak in its attention could be seen, and one that learnt the random training tokens by
# heart is so far above the entropy that a small leak would not bring it below.
_SMALL = (
    "NUM_LAYERS=3 MODEL_DIM=64 NUM_HEADS=4 NUM_KV_HEADS=2 MLP_MULT=2 TRAIN_SEQ_LEN=64 "
    "TRAIN_BATCH_TOKENS=2048 VAL_BATCH_SIZE=8192 ITERATIONS=6 WARMUP_STEPS=0 WARMDOWN_ITERS=0 "
    "MATRIX_LR=0.1 SCALAR_LR=0.002 TIED_EMBED_LR=0.0005 EMBED_LR=0.0005 HEAD_LR=0.0005 "
    "VAL_LOSS_EVERY=0 TRAIN_LOG_EVERY=0 MAX_WALLCLOCK_SECONDS=60 "
    "OMP_NUM_THREADS=1"  # more threads than that only wait for each other
)
# Enough to learn by heart that two tokens alternate, and to find any other next to impossible.
_SURE = {"ITERATIONS": "24", "TIED_EMBED_LR": "0.05", "EMBED_LR": "0.05", "HEAD_LR": "0.05"}
_QUIET = "COMPILE=0 RELOAD_CHECK=0 SEED=1337"
_ON_CPU = {"DEVICE": "cpu", "CPU_DTYPE": "fp32", "CUDA_VISIBLE_DEVICES": ""}
_TEXTS = ["base", "flipped", "shorter", "narrow"]
_JOB = Path(__file__).with_name("model_job.py")
_THERE = 600.0  # seconds for everything on the device of the runs, where code is compiled first
DEFAULT_SEQUENCE = 1024
PROTOCOL = "MODEL_TEST"


def run_canary(
    script: Path,
    *,
    tokenizer: Path,
    env: Mapping[str, str] | None = None,
    artifact: Path | None = None,
    timeout_s: float = 120.0,
    tokens: int = SCORED,
    seed: int | None = None,
) -> CanaryReport:
    """Judge the evaluation of a script; takes about 15 seconds of one core without an artifact.

    ``env`` are settings of the script, laid over the canary's own. With an ``artifact`` that is
    judged, and ``env`` has to hold the shape variables of the run that made it where they differ
    from the script's defaults; without one a small network is trained for a few steps first.
    ``timeout_s`` bounds everything together; fewer ``tokens`` see less. ``seed`` repeats an earlier
    canary.

    Raises ``DataError`` where script, tokenizer or artifact cannot be read.
    """
    for path, what in ((script, "the training script"), (artifact, "an artifact of the script")):
        if path is not None and not path.is_file():
            raise DataError(f"{path} is not a file: name {what}")
    started = time.monotonic()
    job = prepare(script.read_text(encoding="utf-8", errors="replace"), tokenizer=tokenizer,
                  env={**_ON_CPU, **(env or {})}, artifact=artifact, timeout_s=timeout_s,
                  tokens=tokens, seed=seed)  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="canary-") as name:
        folder = Path(name)
        (folder / "job.py").write_text(job.source, encoding="utf-8")
        _, output = run_script(folder / "job.py", env={}, folder=folder, timeout_s=timeout_s + 10.0)
    return job.judge(output, script=str(script), seconds=time.monotonic() - started)


@frozen(eq=False, kw_only=True)
class Job:
    """A script that makes another one answer, and what is needed to judge its answers."""

    source: str
    seconds: float
    seed: int
    table: ByteTable
    streams: Streams
    sequence: int
    speaks: bool
    given: bool

    def judge(self, output: str, *, script: str, seconds: float, ended: str = "") -> CanaryReport:
        """Judge what the job printed, as far as it came; ``ended`` says why no further."""
        bird = _Canary(job=self, steps=_steps(output), ended=ended or "the job told nothing")
        results = tuple(bird.judge())
        return CanaryReport(
            script=script,
            tests=results,
            notes=tuple(bird.notes),
            seed=self.seed,
            vocabulary=self.table.vocabulary,
            tokens=self.streams.scored,
            seconds=seconds,
        )


def prepare(
    source: str,
    *,
    tokenizer: Path,
    env: Mapping[str, str],
    artifact: Path | None = None,
    timeout_s: float = 120.0,
    tokens: int = SCORED,
    seed: int | None = None,
) -> Job:
    """Draw the texts, and write the job that asks a script about them; see `run_canary`.

    Raises ``DataError`` where the tokenizer cannot be read.
    """
    seed = secrets.randbits(64) if seed is None else seed
    table, speaks = byte_table(tokenizer), PROTOCOL in source
    small = _QUIET if artifact is not None else f"{_QUIET} {_SMALL}"
    settings = dict(word.split("=") for word in small.split())
    settings |= {"VOCAB_SIZE": str(table.vocabulary), "TOKENIZER_PATH": str(tokenizer.absolute())}
    settings = _with_lengths({**settings, **env}, source)
    streams = draw_streams(seed, table, int(settings["TRAIN_SEQ_LEN"]), tokens)
    sure = np.resize(streams.train[:2], len(streams.train))
    texts = {name: getattr(streams, name) for name in (*_TEXTS, "train")} | {"sure": sure}
    networks = [{"name": "whole", "train": "train", "env": {}, "asks": _TEXTS}]
    if artifact is None:
        networks.append({"name": "sure", "train": "sure", "env": _SURE, "asks": ["base"]})
    plan = {
        "source": source,
        "speaks": speaks,
        "artifact": None if artifact is None else str(artifact.resolve()),
        "env": {**OFFLINE, **settings},
        "seconds": timeout_s,
        "texts": {name: _encoded(ids) for name, ids in texts.items()},
        "asked": streams.asked,
        "networks": networks,
    }
    return Job(
        source=f"{_JOB.read_text(encoding='utf-8')}\n\nmain(json.loads({json.dumps(plan)!r}))\n",
        seconds=timeout_s,
        seed=seed,
        table=table,
        streams=streams,
        sequence=int(settings["TRAIN_SEQ_LEN"]),
        speaks=speaks,
        given=artifact is not None,
    )


def _encoded(ids: tests.Ids) -> str:
    return base64.b64encode(ids.astype("<u2").tobytes()).decode()


def _steps(output: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What a job told, by network and step; a line that is no longer whole is left out."""
    found = {}
    for line in output.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            told = json.loads(line.removeprefix(MARK)) if line.startswith(MARK) else {}
            found[told["network"], told["step"]] = told
    return found


def _with_lengths(settings: dict[str, str], source: str) -> dict[str, str]:
    parsed = try_parse(source)  # the run will say what is wrong with a source that has no tree
    default = read_settings(parsed).get("TRAIN_SEQ_LEN") if parsed is not None else None
    number = (default.number if default is not None else None) or DEFAULT_SEQUENCE
    length = settings.setdefault("TRAIN_SEQ_LEN", str(int(number)))
    if not length.isdigit() or int(length) == 0:
        raise DataError(f"TRAIN_SEQ_LEN is {length!r}, expected a positive number: correct it")
    # Two sequences at once for each of the starter's eight accumulation steps.
    settings.setdefault("VAL_BATCH_SIZE", str(8 * 2 * int(length)))
    return settings


@frozen(eq=False, kw_only=True)
class _Canary:
    """One judgement of what a job told; ``notes`` grow while it goes on."""

    job: Job
    steps: Mapping[tuple[str, str], Mapping[str, Any]]
    ended: str
    notes: list[str] = field(factory=list)

    def judge(self) -> Iterator[TestResult]:
        """Make every test that the script allowed."""
        whole = None
        if not (self.job.given and self.job.speaks):
            whole = self._whole()
            yield from self._on_whole(whole)
        if not self.job.speaks and ("whole", "base") not in self._answered():
            told = self.steps.get(("whole", "run"), {}).get("missing", "")
            self.notes.append(
                "the script does not implement the model-test protocol: only T5 and T6 are possible"
                + (f"; {told}" if told else "")
            )
            return
        try:
            yield from self._with_answers(whole)
        except NoAnswerError as failure:
            yield tests.failed("T3", "model-test protocol", str(failure))

    def _answered(self) -> set[tuple[str, str]]:
        return {key for key, told in self.steps.items() if "answer" in told}

    def _whole(self) -> WholeScore | None:
        """Return what the small network scored on random tokens."""
        told = self.steps.get(("whole", "run"), {"reason": self.ended})
        if told["reason"]:
            self.notes.append(f"the script could not be run whole here: {told['reason']}")
            return None
        return read_score(str(told["output"]))

    def _on_whole(self, whole: WholeScore | None) -> Iterator[TestResult]:
        names = ("whole run on random tokens", "byte count of the whole run")
        if whole is None:
            why = self.notes[-1] if self.notes else "the run printed no val_loss with a val_bpb"
            yield tests.not_possible("T5", names[0], why)
            yield tests.not_possible("T6", names[1], why)
            return
        job = self.job
        base, tokens = job.streams.base, job.streams.scored
        yield tests.random_stream(whole.val_loss, tokens, job.table.vocabulary, names[0])
        expected = job.table.count(base[1:], base[:-1])
        yield tests.implied_bytes(
            tokens, whole.val_loss, whole.val_bpb, expected, whole.val_bytes, names[1]
        )

    def _with_answers(self, whole: WholeScore | None) -> Iterator[TestResult]:
        packed = self.steps.get(("whole", "run"), {}).get("artifact", False)
        if not packed and not self.job.given:
            self.notes.append("no artifact was written: the untrained network is judged")
        streams, sequence, table = self.job.streams, self.job.sequence, self.job.table
        base, flipped = self._answer("base"), self._answer("flipped")
        yield tests.target_flip(base, flipped, streams.first)
        yield tests.normalisation(base)
        yield tests.scored_once(base, sequence)
        yield tests.prefix_truncation(base, self._answer("shorter"))
        yield tests.random_stream(tests.nats(base), streams.scored, table.vocabulary)
        narrow = tests.nats(self._answer("narrow"))
        yield tests.random_stream(narrow, streams.scored, streams.alphabet, "few random tokens")
        yield tests.byte_count(base, table)
        if whole is not None and packed and self.job.speaks:
            yield tests.same_score(whole.val_loss, base.val_loss)
        if ("sure", "base") in self.steps:
            yield from self._sure(sequence)

    def _sure(self, sequence: int) -> Iterator[TestResult]:
        """Judge a network that is sure, and wrong: only there does a cap on losses act."""
        try:
            answer = self._answer("base", "sure")
        except NoAnswerError as error:
            if "not finished after" in str(error):
                return  # the time is over, which proves nothing
            raise
        for result in (
            tests.normalisation(answer),
            tests.scored_once(answer, sequence),
            tests.byte_count(answer, self.job.table),
        ):
            yield evolve(result, name=f"{result.name}, sure network")

    def _answer(self, name: str, network: str = "whole") -> Answer:
        told = self.steps.get((network, name), {"reason": self.ended})
        if "answer" not in told:
            why = told["reason"] or "it wrote no answer"
            raise NoAnswerError(f"the script did not answer a model test: {why}")
        asked = self.job.streams.asked if name in ("base", "flipped") else ()
        stored = io.BytesIO(base64.b64decode(told["answer"]))
        return read_answer(stored, getattr(self.job.streams, name), len(asked))


_PAIR = re.compile(r"val_loss:\s*([-+.\w]+)\s+val_bpb:\s*([-+.\w]+)")
_RESULT = "autoresearch_result "


@frozen(kw_only=True)
class WholeScore:
    """Nats a token and bits a byte; ``val_bytes`` only where the script states it."""

    val_loss: float
    val_bpb: float
    val_bytes: int | None = None


def read_score(output: str) -> WholeScore | None:
    """The last score of an output: of the result line where there is one, else of a printed pair.

    None where there is neither, or where it is no number.
    """
    lines = output.splitlines()
    for line in reversed(lines):
        if line.startswith(_RESULT):
            return _from_json(line.removeprefix(_RESULT))
    found = [match for line in lines if (match := _PAIR.search(line))]
    return _score(found[-1][1], found[-1][2], None) if found else None


def _from_json(text: str) -> WholeScore | None:
    try:
        values = json.loads(text)
        return _score(values["val_loss"], values["val_bpb"], int(values["val_bytes"]))
    except (ValueError, KeyError, TypeError):
        return None


def _score(loss: object, bpb: object, val_bytes: int | None) -> WholeScore | None:
    try:
        score = WholeScore(val_loss=float(str(loss)), val_bpb=float(str(bpb)), val_bytes=val_bytes)
    except ValueError:
        return None
    return score if math.isfinite(score.val_loss + score.val_bpb) else None


@frozen(kw_only=True)
class CanaryReport:
    """The tests in the order they were made; ``passed`` needs T5 to pass and nothing to fail."""

    script: str
    tests: tuple[TestResult, ...]
    notes: tuple[str, ...]
    seed: int
    vocabulary: int
    tokens: int
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the script may be believed, as far as its tests went."""
        proved = any(t.rule == "T5" and t.outcome is Outcome.PASSED for t in self.tests)
        return proved and not self.failures

    @property
    def ordered(self) -> bool:
        """Whether each target was seen to be scored once, before anything was learnt from it."""
        return any(t.rule == "T3" and t.outcome is Outcome.PASSED for t in self.tests)

    @property
    def failures(self) -> tuple[TestResult, ...]:
        """The tests that say no."""
        return tuple(t for t in self.tests if t.outcome is Outcome.FAILED)


def format_report(report: CanaryReport) -> str:
    """One line for each test, the notes, and a last line with the verdict and the seed."""
    width = max((len(t.name) for t in report.tests), default=0)
    lines = [
        f"{t.rule} {t.name:<{width}} {t.outcome.value.replace('_', ' '):<12} {one_line(t.detail)}"
        for t in report.tests
    ]
    lines += [f"note: {one_line(note, 300)}" for note in report.notes]
    verdict = "passed" if report.passed else "nothing was proved"
    if report.failures:
        verdict = "failed " + ", ".join(dict.fromkeys(t.rule for t in report.failures))
    how = (
        f"{report.tokens} random tokens of {report.vocabulary}, {report.seconds:.0f} s, "
        f"repeat with seed {report.seed}"
    )
    return "\n".join([*lines, f"canary: {verdict} ({how})"])


def audit_measuring(
    source: str,
    *,
    tokenizer: Path,
    env: Mapping[str, str] | None = None,
    typed: bool = True,
    run: Callable[..., RunOutput | None] | None = None,
    seed: int | None = None,
) -> tuple[Violation, ...]:
    """Run the canary over a source; each test that fails is a violation.

    ``run`` runs the job where the script runs, by the campaign's launcher; where it gives None, and
    without it, the job runs beside the loop and on the CPU. Where nothing can be proved (no torch,
    no GPU that the script asks for) that is a warning, and for an evaluation change (``typed``) a
    violation: it must not be believed untested, nor where T3 could not be made. Raises
    ``DataError`` where the tokenizer cannot be read.
    """
    report = None
    if run is not None:
        job = prepare(source, tokenizer=tokenizer, env=env or {}, timeout_s=_THERE, seed=seed)
        done = run(job.source, seconds=_THERE + 60.0)
        if done is not None:
            told = done.log_path.read_text("utf-8", "replace") if done.log_path.exists() else ""
            report = job.judge(told, script="train_gpt.py", seconds=done.seconds, ended=done.detail)
    if report is None:
        with tempfile.TemporaryDirectory(prefix="audit-") as folder:
            script = Path(folder) / "train_gpt.py"
            script.write_text(source, encoding="utf-8")
            report = run_canary(script, tokenizer=tokenizer, env=env)
    if report.failures:
        found = (broken(t.rule, f"canary, {t.name}: {t.detail}") for t in report.failures)
        return tuple(violation for violations in found for violation in violations)
    if report.passed and (report.ordered or not typed):
        return ()
    why = "; ".join(report.notes) or "no test was possible"
    lacks = "not that each target is scored once" if report.passed else "nothing"
    return (broken if typed else doubt)("T5", f"the canary proved {lacks}: {why}")
