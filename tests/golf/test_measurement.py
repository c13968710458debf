"""What a run left is measured from its files, scored again from its artifact, and named."""

from __future__ import annotations

import base64
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from attrs import evolve, frozen

from autoresearch.desk import Desk, Hands
from autoresearch.errors import DataError
from autoresearch.golf.canary import WholeScore, read_score
from autoresearch.golf.measurement import (
    Clocks,
    Files,
    Measured,
    compare_baseline,
    compare_clocks,
    compare_run,
    compare_training,
    evaluation_digest,
    join_shards,
    longest_sequence,
    measure_files,
    measurement_of,
    shard_tokens,
)
from autoresearch.golf.model_job import write_shard
from autoresearch.golf.model_tests import NoAnswerError, bare_environment, reload_score, run_script
from autoresearch.golf.plausibility import reload
from autoresearch.golf.plugin import score_again, score_there
from autoresearch.golf.reading.own import OwnResult
from autoresearch.history import History
from autoresearch.model import RunOutput, RunStatus

pytest.importorskip("numpy")
spm = pytest.importorskip("sentencepiece")

MINI = Path(__file__).parent / "cheats" / "mini_trainer.py"
SCRIPT = Path(__file__).parents[2] / "train_gpt.py"


@frozen
class Finished:
    """A real run of the mini trainer, with everything that it read and wrote."""

    script: Path
    artifact: Path
    data_dir: Path
    tokenizer: Path
    score: WholeScore

    @property
    def files(self) -> Files:
        """What it read and wrote."""
        return Files(self.script, self.artifact, self.data_dir, self.tokenizer)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The mini trainer, run on random words in two validation shards."""
    folder = tmp_path_factory.mktemp("run")
    rng = random.Random(2)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 6))) for _ in range(200)]
    text = folder / "text.txt"
    text.write_text("\n".join(" ".join(rng.choices(words, k=12)) for _ in range(400)))
    spm.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "words"), vocab_size=300, model_type="bpe",
        byte_fallback=True, add_dummy_prefix=False, minloglevel=2,
    )  # fmt: skip
    ids = spm.SentencePieceProcessor(model_file=str(folder / "words.model")).encode(
        text.read_text().replace("\n", " ")
    )
    data = folder / "data"
    data.mkdir()
    shards = {"train_000000": ids[3000:], "val_000000": ids[:1000], "val_000001": ids[1000:2000]}
    for name, part in shards.items():
        packed = base64.b64encode(struct.pack(f"<{len(part)}H", *part)).decode()
        write_shard(data / f"fineweb_{name}.bin", packed)
    place = {"DATA_PATH": str(data), "TOKENIZER_PATH": str(folder / "words.model")}
    reason, output = run_script(MINI, env=place, folder=folder / "here", timeout_s=60.0)
    score = read_score(output)
    assert score is not None, reason
    artifact = folder / "here" / "final_model.int8.ptz"
    return Finished(MINI, artifact, data, folder / "words.model", score)


@pytest.fixture
def measured(finished: Finished) -> Measured:
    """The facts of that run."""
    return measure_files(finished.files)


@pytest.fixture
def honest(measured: Measured, finished: Finished) -> OwnResult:
    """The result line of a run that says what the files say."""
    return OwnResult(
        val_bpb=finished.score.val_bpb,
        val_loss=finished.score.val_loss,
        val_tokens=(measured.val_tokens - 1) // 64 * 64,
        val_bytes=finished.score.val_bytes or 0,
        artifact_bytes=measured.artifact_bytes,
        code_bytes=measured.code_bytes,
        model_bytes=measured.model_bytes,
        model_params=300,
        steps=100,
        train_time_ms=400_000.0,
        eval_time_ms=20_000.0,
        seed=1337,
        world_size=1,
        val_digest=measured.val_digest,
        tokenizer_digest=measured.tokenizer_digest,
        code_digest=measured.code_digest,
        artifact_digest=measured.artifact_digest,
        script_stage="int8_zlib_roundtrip",
        hardware="1x cpu",
        dtype="float32",
        versions={},
        reload_val_bpb=None,
        data_dir="data",
        train_shards=1,
    )


def test_an_honest_result_agrees_with_its_files(measured: Measured, honest: OwnResult) -> None:
    """Sizes, digests and tokens come out of the files as the script says them."""
    assert measured.val_tokens == 2000
    assert measured.artifact_bytes == measured.code_bytes + measured.model_bytes
    assert compare_run(measured, honest) == ()


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({"artifact_bytes": 1}, {"D6"}),
        ({"model_bytes": 1}, {"D6"}),
        ({"code_bytes": 1}, {"D6"}),
        ({"val_tokens": 64}, {"D8"}),
        ({"val_tokens": 4000}, {"D8"}),
        ({"val_digest": "0" * 64}, {"D8"}),
        ({"tokenizer_digest": "0" * 64}, {"D8"}),
        ({"code_digest": "0" * 64}, {"D8"}),
        ({"artifact_digest": "0" * 64}, {"D8"}),
    ],
)
def test_each_disagreement_is_a_violation(
    changes: dict[str, object], rules: set[str], measured: Measured, honest: OwnResult
) -> None:
    """A script that says something else than the files say is not believed."""
    found = compare_run(measured, evolve(honest, **changes))
    assert {v.rule for v in found if v.blocks} == rules


def test_an_artifact_over_the_limit_is_a_violation(measured: Measured, honest: OwnResult) -> None:
    """The limit is held against the files, and the limit itself is over it already."""
    exact = measured.artifact_bytes
    assert [v.rule for v in compare_run(measured, honest, limit=exact)] == ["D6"]
    assert compare_run(measured, honest, limit=exact + 1) == ()


def test_a_missing_or_damaged_file_cannot_be_measured(finished: Finished, tmp_path: Path) -> None:
    """Nothing is guessed where a file is not there, or not what its header says."""
    with pytest.raises(DataError, match="cannot be measured"):
        measure_files(evolve(finished.files, artifact=tmp_path / "absent"))
    with pytest.raises(DataError, match="no fineweb_val"):
        measure_files(evolve(finished.files, data_dir=tmp_path))
    (tmp_path / "fineweb_val_000000.bin").write_bytes(
        (finished.data_dir / "fineweb_val_000000.bin").read_bytes()[:-100]
    )
    with pytest.raises(DataError, match="header promises"):
        measure_files(evolve(finished.files, data_dir=tmp_path))


def test_shards_are_joined_without_loss(finished: Finished, tmp_path: Path) -> None:
    """Two shards become one that has the tokens of both."""
    shards = sorted(finished.data_dir.glob("fineweb_val_*.bin"))
    joined = join_shards(shards, tmp_path / "joined.bin")
    assert shard_tokens(joined) == 2000
    assert joined.read_bytes()[1024:] == b"".join(s.read_bytes()[1024:] for s in shards)


def test_how_much_may_be_left_out_comes_from_the_script() -> None:
    """A tail shorter than the longest sequence is honest; the environment counts as well."""
    source = SCRIPT.read_text(encoding="utf-8")
    assert longest_sequence(source, {}) == 1024
    assert longest_sequence(source, {"TRAIN_SEQ_LEN": "4096"}) == 4096


def test_clocks_are_compared_with_the_launcher(honest: OwnResult) -> None:
    """A script cannot have worked longer than it ran, nor rest for long where nobody counts."""
    assert compare_clocks(honest, 500.0) == ()
    assert [(v.rule, v.blocks) for v in compare_clocks(honest, 300.0)] == [("D3", True)]
    assert [(v.rule, v.blocks) for v in compare_clocks(honest, 1100.0)] == [("D3", False)]
    slow = evolve(honest, train_time_ms=640_000.0, eval_time_ms=610_000.0)
    assert [v.rule for v in compare_clocks(slow, 1300.0)] == ["D3", "D5"]


STARTER = Clocks(seconds=20.0, train=4.0, evaluation=2.0, steps=100)


@pytest.mark.parametrize(
    ("run", "blocks"),
    [
        (STARTER, False),
        (evolve(STARTER, seconds=40.0, train=0.0176, steps=600), True),  # the clock was paused
        (evolve(STARTER, seconds=40.0, steps=600), True),  # or set back
        (evolve(STARTER, steps=220), False),  # a network that is twice as fast
        (evolve(STARTER, steps=400, seconds=24.0), False),  # and needs longer to start
        (evolve(STARTER, seconds=45.0), False),  # a busy machine
        (evolve(STARTER, seconds=80.0), True),  # a minute of nobody knows what
        (evolve(STARTER, train=8.0, steps=190, seconds=80.0), True),
    ],
)
def test_training_off_the_clock_is_found_by_its_effect(run: Clocks, blocks: bool) -> None:
    """Steps that cost nothing stand in the launcher's clock; a faster network does not."""
    assert [v.rule for v in compare_training(run, STARTER)] == ["D3"] * blocks


SCORED = {"val_tokens": 62_021_632, "val_loss": 2.0727, "val_bpb": 1.22754}


@pytest.mark.parametrize(
    ("bent", "text", "rule"),
    [
        ({}, True, None),
        ({"val_tokens": 62_021_632 - 512}, True, None),  # a tail of another sequence length
        ({"val_tokens": 62_021_632 - 200_000}, True, "D8"),
        ({"val_tokens": 40_540_160, "val_loss": 3.171}, False, None),  # another vocabulary
        ({"val_tokens": 40_540_160}, False, "D9"),
        ({"val_bpb": 1.13}, True, "D9"),
        ({"val_tokens": 31_010_816}, True, "D9"),
    ],
)
def test_the_text_of_the_baseline_is_scored_whatever_its_tokens(
    bent: dict[str, float], text: bool, rule: str | None
) -> None:
    """Bytes are conserved; tokens only under one tokenizer, and up to a tail."""
    found = compare_baseline({**SCORED, **bent}, SCORED, tail=1024, text=text)
    assert [v.rule for v in found] == ([rule] if rule else [])


def test_without_token_counts_the_bytes_of_a_token_are_held() -> None:
    """A log that states no tokens still says how many bytes one of them has."""
    told = {"val_loss": 2.0727, "val_bpb": 1.22754}
    assert compare_baseline(told, told, tail=1024) == ()
    more = {**told, "val_bpb": 1.15}
    assert [v.rule for v in compare_baseline(more, told, tail=1024)] == ["D9"]


def test_libraries_are_told_by_the_names_they_know_that_there_is_no_network(tmp_path: Path) -> None:
    """A hub's client that is told nothing waits for a network that was taken away."""
    environ = {"HF_TOKEN": "secret", "HF_HUB_OFFLINE": "0", "CUDA_HOME": "/cuda"}
    seen = bare_environment(environ, tmp_path, {})
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        assert seen[name] == "1"
    assert seen["CUDA_HOME"] == "/cuda"
    assert "HF_TOKEN" not in seen


def test_the_artifact_alone_gives_the_score(finished: Finished) -> None:
    """A new process with code and artifact only, and no training data, scores the same."""
    reloaded = reload_score(finished.files, timeout_s=60.0)
    assert reloaded.val_bpb == pytest.approx(finished.score.val_bpb, abs=1e-9)
    assert reloaded.val_tokens == 1984
    assert reload(finished.score.val_bpb, reloaded.val_bpb) == ()


def test_a_score_that_is_not_the_artifacts_is_a_violation(finished: Finished) -> None:
    """A printed score that the artifact does not give is D7, and so is no second scoring."""
    reloaded = reload_score(finished.files, timeout_s=60.0)
    assert [v.rule for v in reload(finished.score.val_bpb - 0.01, reloaded.val_bpb)] == ["D7"]
    assert [v.rule for v in reload(finished.score.val_bpb, None)] == ["D7"]


@pytest.mark.parametrize(
    "needs",
    [
        "    np.fromfile(next(DATA.glob('fineweb_train_*.bin')))\n",
        "    Path('ngrams.npz').read_bytes()\n",
        "    import urllib.request; urllib.request.urlopen('http://example.org', timeout=5)\n",
    ],
    ids=["training data", "a file beside the artifact", "the network"],
)
def test_an_evaluation_that_needs_more_than_the_artifact_fails(
    needs: str, finished: Finished, tmp_path: Path
) -> None:
    """Training data, a sidecar or a download are not there in the new process."""
    source = finished.script.read_text(encoding="utf-8")
    script = tmp_path / "needs.py"
    anchor = "def evaluate(weights, tokens):\n"
    assert anchor in source
    script.write_text(source.replace(anchor, anchor + needs), encoding="utf-8")
    with pytest.raises(NoAnswerError, match="did not answer"):
        reload_score(evolve(finished.files, script=script), timeout_s=60.0)


def test_an_artifact_that_gives_no_score_is_a_violation(
    finished: Finished, honest: OwnResult, tmp_path: Path
) -> None:
    """What was put in the artifact's place after the run cannot be kept."""
    (tmp_path / "weights.zst").write_bytes(b"small")
    env = {"DATA_PATH": str(finished.data_dir), "TOKENIZER_PATH": str(finished.tokenizer)}
    output = RunOutput(
        name="t-0-0",
        status=RunStatus.COMPLETED,
        log_path=tmp_path / "run.log",
        folder=tmp_path,
        exit_code=0,
        seconds=3.0,
        script_path=finished.script,
        env=env,
    )
    found = list(score_again(evolve(honest, model_bytes=5), output))
    assert [(v.rule, v.blocks) for v in found] == [("D7", True)]
    assert "gives no score" in found[0].detail


class There(Hands):
    """Hands whose jobs run in a folder of their own, as on another machine."""

    def job(
        self, beside: RunOutput, name: str, source: str, seconds: float, files: Sequence[Path]
    ) -> RunOutput:
        folder = beside.folder / name
        folder.mkdir()
        for file in files:
            shutil.copy(file, folder)
        log = folder / "run.log"
        done = subprocess.run(
            [sys.executable, "-c", source], cwd=folder, env={**os.environ, **beside.env},
            capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        log.write_text(done.stdout)
        status = RunStatus.CRASHED if done.returncode else RunStatus.COMPLETED
        return RunOutput(name=name, status=status, log_path=log, folder=folder)


@pytest.mark.parametrize(
    ("score", "said"),
    [
        ("1.2244", ""),
        ("1.2344", "the reloaded artifact scores 1.234400, the run said 1.224400"),
        ("", "the artifact alone gives no score"),
    ],
)
def test_where_runs_go_elsewhere_the_artifact_is_scored_in_a_job_there(
    honest: OwnResult, tmp_path: Path, score: str, said: str
) -> None:
    """The job has the script, the artifact and nothing else of the run."""
    script = tmp_path / "train.py"
    script.write_text(
        "import json, os\n"
        "score = float(open(os.environ['EVAL_ARTIFACT']).read())\n"
        "print('artifact_score', json.dumps({'val_bpb': score, 'val_bytes': 7}))\n"
    )
    (tmp_path / "weights").write_text(score)
    output = RunOutput(
        name="t-0-0", status=RunStatus.COMPLETED, log_path=tmp_path / "run.log", folder=tmp_path,
        script_path=script,
    )  # fmt: skip
    result = evolve(honest, val_bpb=1.2244, model_bytes=len(score))
    desk = Desk(history=History(), hands=There())
    found = list(score_there(result, output, desk))
    assert [item.blocks for item in found] == [True] * bool(said)
    assert said in "".join(item.detail for item in found)


def test_a_measurement_tells_what_two_scores_do_not_share(honest: OwnResult) -> None:
    """Scores are comparable under one measurement only, and a person is told what differs."""
    source = SCRIPT.read_text(encoding="utf-8")
    one = measurement_of(source, honest)
    assert one == measurement_of(source.replace('"NUM_LAYERS", 9', '"NUM_LAYERS", 10'), honest)
    elsewhere = measurement_of(source, evolve(honest, hardware="8x H100", tokenizer_digest="0"))
    assert {name for name in one if one[name] != elsewhere[name]} == {"tokenizer", "hardware"}


def test_the_evaluation_digest_sees_code_and_not_layout() -> None:
    """Comments, blank lines and prose leave the digest alone; one operator does not."""
    source = SCRIPT.read_text(encoding="utf-8")
    digest = evaluation_digest(source)
    assert len(digest) == 64
    laid_out = source.replace(
        "# --- evaluation: begin ---\n", "# --- evaluation: begin ---\n\n\n#\n"
    )
    assert evaluation_digest(laid_out) == digest
    assert "math.log(2.0) * tokens / byte_count" in source
    changed = source.replace(
        "math.log(2.0) * tokens / byte_count", "math.log(2.0) * tokens // byte_count"
    )
    assert evaluation_digest(changed) != digest
    assert evaluation_digest("def broken(:") == ""
