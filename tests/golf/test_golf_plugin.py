"""The challenge's plugin: what a campaign of the golf preset believes of its runs."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import sys
from pathlib import Path

import pytest
from attrs import evolve
from pyrsistent import pvector

from autoresearch import Change, Experiment, History, Idea, RunOutput, RunStatus, Workspace
from autoresearch.config import Config, LimitsConfig
from autoresearch.desk import Desk
from autoresearch.golf import reading
from autoresearch.golf.audits.script import parse_script
from autoresearch.golf.audits.settings import audit_size
from autoresearch.golf.plugin import Plugin, _compiled, _measured_ratio

TOKENS, LOSS = 640, 2.5
BYTES = 1600
DESK = Desk(history=History())
SCRIPT = 'import os\ntrain_seq_len = int(os.environ.get("TRAIN_SEQ_LEN", 64))\n'


def sha(data: bytes) -> str:
    """The sha256 of some bytes."""
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def run(tmp_path: Path):
    """A finished local run with all its files; keyword arguments bend its result line."""
    shard = struct.pack("<256i", 20240520, 1, TOKENS + 1, *[0] * 253) + b"\1\0" * (TOKENS + 1)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "fineweb_val_000000.bin").write_bytes(shard)
    (tmp_path / "bpe.model").write_bytes(b"tokenizer")
    (tmp_path / "train_gpt.py").write_text(SCRIPT)
    (tmp_path / "final_model.int8.ptz").write_bytes(b"model" * 100)
    honest = {
        "schema": 1,
        "val_bpb": TOKENS * LOSS / (math.log(2) * BYTES),
        "val_loss": LOSS,
        "val_tokens": TOKENS,
        "val_bytes": BYTES,
        "artifact_bytes": len(SCRIPT) + 500,
        "code_bytes": len(SCRIPT),
        "model_bytes": 500,
        "model_params": 10,
        "steps": 5,
        "train_time_ms": 1000.0,
        "eval_time_ms": 500.0,
        "seed": 1337,
        "world_size": 1,
        "val_digest": sha(shard),
        "tokenizer_digest": sha(b"tokenizer"),
        "code_digest": sha(SCRIPT.encode()),
        "artifact_digest": sha(b"model" * 100),
        "script_stage": "int8_zlib_roundtrip",
        "hardware": "cpu",
        "dtype": "float32",
        "versions": {"python": "3.11"},
        "reload_val_bpb": None,
        "data_dir": "data",
        "train_shards": 1,
    }

    def make(**bent: object) -> RunOutput:
        stated = {**honest, **bent}
        line = json.dumps(stated, sort_keys=True, separators=(",", ":"))
        loss, bpb = stated["val_loss"], stated["val_bpb"]
        pair = (
            f"final_int8_zlib_roundtrip val_loss:{loss:.4f} val_bpb:{bpb:.4f} eval_time:500ms\n"
            f"final_int8_zlib_roundtrip_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}\n"
        )
        log = tmp_path / "run.log"
        log.write_text(f"step:5/5 train_loss:2.6\n{pair}autoresearch_result {line}\n")
        return RunOutput(
            name="t-0-0",
            status=RunStatus.COMPLETED,
            log_path=log,
            folder=tmp_path,
            exit_code=0,
            seconds=3.0,
            script_path=tmp_path / "train_gpt.py",
            env={
                "DATA_PATH": str(tmp_path / "data"),
                "TOKENIZER_PATH": str(tmp_path / "bpe.model"),
                "TRAIN_SEQ_LEN": "64",
            },
        )

    return make


def plugin(**settings: object) -> Plugin:
    """The plugin as a local campaign of the challenge configures it."""
    made = Plugin()
    limits = LimitsConfig(artifact_bytes=16_000_000)
    made.configure(Config(launcher="local", limits=limits, plugins={"golf": settings}))
    return made


def rules(output: RunOutput, number: int = 0) -> list[str]:
    """The rules that a run breaks."""
    idea = Idea(direction="d", description="d", hypothesis="h")
    experiment = Experiment(number=number, idea=idea, source_digest=sha(SCRIPT.encode()))
    found = plugin().audit_run(experiment, output, History(), DESK) or ()
    return sorted({item.rule for item in found if item.blocks})


def test_honest_run_passes_and_gives_its_numbers(run) -> None:
    """The canonical line is read, and nothing about the run is doubted."""
    assert rules(run()) == []
    metrics = plugin().extract_metrics(run(), History())
    assert metrics is not None
    assert metrics["val_bpb"] == pytest.approx(1.4427, abs=1e-4)
    assert metrics["artifact_bytes"] == len(SCRIPT) + 500


@pytest.mark.parametrize(
    ("bent", "rule"),
    [
        ({"artifact_bytes": 400}, "D6"),
        ({"model_bytes": 400, "artifact_bytes": len(SCRIPT) + 400}, "D6"),
        ({"val_tokens": 320}, "D8"),
        ({"val_digest": "0" * 64}, "D8"),
        ({"tokenizer_digest": "0" * 64}, "D8"),
        ({"code_digest": "0" * 64}, "D8"),
        ({"val_bpb": 1.0}, "D9"),
        ({"reload_val_bpb": 1.9}, "D7"),
        ({"train_time_ms": 9_000_000.0}, "D3"),
        ({"eval_time_ms": 700_000.0}, "D5"),
    ],
)
def test_result_line_that_disagrees_with_the_files_is_a_violation(run, bent, rule: str) -> None:
    """Whatever the script says, its files, the clock and arithmetic are asked."""
    assert rule in rules(run(**bent))


def test_missing_artifact_is_a_violation(run) -> None:
    """A run that left nothing to measure is not believed."""
    output = run()
    (output.folder / "final_model.int8.ptz").unlink()
    assert "D6" in rules(output)


@pytest.mark.parametrize("status", [s for s in RunStatus if s is not RunStatus.COMPLETED])
def test_run_that_did_not_complete_has_no_score(run, status: RunStatus) -> None:
    """A result line before a crash or a kill does not count."""
    assert plugin().extract_metrics(evolve(run(), status=status), History()) is None


def test_echoed_result_line_does_not_count(run) -> None:
    """A result line that is not the last line of the output is no score."""
    output = run()
    output.log_path.write_text(output.log_path.read_text() + "and something after it\n")
    assert not plugin().extract_metrics(output, History())


def test_one_experiment_reads_its_log_once(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics, measurement and audit share one reading; another log or exit status is read."""
    opened, open_source = [], reading.open_source
    monkeypatch.setattr(
        reading, "open_source", lambda path: opened.append(path) or open_source(path)
    )
    output, asked = run(), plugin()
    experiment = Experiment(number=0, idea=Idea(direction="d", description="d", hypothesis="h"))
    for _ in range(2):
        assert asked.extract_metrics(output, History())
        assert asked.measure_run(output, History())
        assert not [v for v in asked.audit_run(experiment, output, History(), DESK) if v.blocks]
    assert opened == [output.log_path]
    assert asked.measure_run(evolve(output, exit_code=1), History()) is None
    output.log_path.write_text("another\n")
    assert asked.measure_run(output, History()) is None
    assert len(opened) == 3


def test_own_script_of_the_challenge_is_read_by_its_canonical_pair(run) -> None:
    """A log without a result line has a score where its last line is the exact pair."""
    output = run()
    lines = output.log_path.read_text().splitlines(keepends=True)
    output.log_path.write_text("".join(lines[:-1]))
    assert plugin().extract_metrics(output, History())["val_bpb"] == pytest.approx(1.4427, abs=1e-4)
    locked = plugin().measure_run(output, History())
    assert locked["score"] == "final_int8_zlib_roundtrip"


def judged_by(**measurement: str) -> History:
    """The history of a campaign whose baseline was measured so."""
    idea = Idea(direction="d", description="d", hypothesis="h")
    first = Experiment(number=0, idea=idea, measurement=measurement, metrics={"val_bpb": 1.2})
    return History(experiments=pvector([first]))


FOREIGN = """step:5/5 val_loss:2.6000 val_bpb:1.5000 train_time:1000ms
Serialized model int6+zstd: 600 bytes
Total submission size int6+zstd: {size} bytes
final_int6_sliding_window val_loss:2.0000 val_bpb:1.1800 eval_time:500ms
quantized_ttt val_loss:1.9800 val_bpb:1.1682 eval_time:900ms
"""


def foreign(run, text: str) -> RunOutput:
    """A run of a public record's script, which has no result line."""
    output = run()
    output.log_path.write_text(text)
    return output


def test_baseline_of_a_record_settles_the_line_of_its_campaign(run) -> None:
    """The last line of the evaluation is the score, and its name is recorded."""
    output = foreign(run, FOREIGN.format(size=1000))
    found = plugin().extract_metrics(output, History())
    assert (found["val_bpb"], found["artifact_bytes"]) == (1.1682, 1000)
    assert plugin().measure_run(output, History())["score"] == "quantized_ttt"


def test_line_of_a_campaign_is_kept(run) -> None:
    """Another stage after it, or before it, changes nothing about which line counts."""
    output = foreign(run, FOREIGN.format(size=1000))
    history = judged_by(score="final_int6_sliding_window")
    assert plugin().extract_metrics(output, history)["val_bpb"] == 1.18
    assert plugin().explain_no_score(output, history) is None
    assert plugin().measure_run(output, history)["score"] == "final_int6_sliding_window"


def test_log_without_the_line_of_its_campaign_says_so(run) -> None:
    """No other line stands in for it, and both are named."""
    output = foreign(run, FOREIGN.format(size=1000))
    for history in (judged_by(score="legal_ttt"), judged_by(tokenizer="0" * 64)):
        assert plugin().extract_metrics(output, history) is None
        said = plugin().explain_no_score(output, history)
        assert "which the score is read from" in said
        assert "quantized_ttt" in said


def test_result_line_does_not_replace_the_line_of_a_campaign(run) -> None:
    """A change that prints a result line is still read from the line that was settled."""
    history = judged_by(score="final_int8_zlib_roundtrip")
    output = run()
    found = plugin().extract_metrics(output, history)
    assert found["val_bpb"] == pytest.approx(1.4427, abs=1e-4)
    assert "val_digest" not in plugin().measure_run(output, history)


def test_run_over_the_limit_keeps_its_score(run) -> None:
    """Its size is what it is discarded for, and it is no fraud."""
    output = foreign(run, FOREIGN.format(size=16_000_001))
    found = plugin().extract_metrics(output, History())
    assert (found["val_bpb"], found["artifact_bytes"]) == (1.1682, 16_000_001)
    assert "D6" not in rules(output)


def test_nan_loss_stops_the_run() -> None:
    """There is nothing to wait for once the loss is no number."""
    assert plugin().should_stop_run({"train_loss": math.nan}) == "train_loss is nan"
    assert plugin().should_stop_run({"train_loss": 2.0, "step_avg": math.inf}) is None


def test_unproved_evaluation_change_waits_for_a_person(run) -> None:
    """It ran, and its result is quarantined with what was missing and what to do."""
    idea = Idea(direction="d", description="d", hypothesis="h", kind="evaluation")
    experiment = Experiment(number=3, idea=idea, source_digest=sha(SCRIPT.encode()))
    found = [v for v in plugin().audit_run(experiment, run(), History(), DESK) if v.blocks]
    assert [v.rule for v in found] == ["T5"]
    assert "the canary could not run: " in found[0].detail
    assert found[0].detail.endswith("check it, then autoresearch accept 3 --reason WHY")


def test_unproved_evaluation_change_may_run(tmp_path: Path) -> None:
    """Nothing but the canary stands against it before the run, and that only warns."""
    (tmp_path / "data" / "tokenizers").mkdir(parents=True)
    idea = Idea(direction="d", description="d", hypothesis="h", kind="evaluation")
    before = "def eval_val(x):\n    return x\n\nprint('val_bpb:', eval_val(1))\n"
    after = before.replace("return x", "return 2 * x / 2")
    change = Change(idea=idea, before=before, after=after, pristine=before)
    place = Workspace(path=tmp_path, script="train_gpt.py", project=tmp_path)
    found = plugin().audit_change(change, place, History())
    assert {"S5", "T5"} <= {v.rule for v in found}
    assert not [v for v in found if v.blocks]


STARTER = (Path(__file__).parents[2] / "train_gpt.py").read_text(encoding="utf-8")


def sized(before: str, after: str, measured: int | None) -> list[bool]:
    """Whether the size of an edit is found too large (True blocks), over a measured baseline."""
    ratio = _measured_ratio(measured_history(measured), before, {})
    scripts = parse_script(after), parse_script(before)
    return [item.blocks for item in audit_size(*scripts, {}, 16_000_000, ratio)]


def measured_history(size: int | None) -> History:
    """A history whose baseline has an artifact of a size."""
    known = {} if size is None else {"artifact_bytes": float(size)}
    idea = Idea(direction="d", description="d", hypothesis="h")
    return History(experiments=pvector([Experiment(number=0, idea=idea, metrics=known)]))


def test_size_of_an_edit_is_judged_by_what_the_baseline_measured() -> None:
    """A record packs better than the starter: its own ratio decides, once there is one."""
    large = STARTER.replace('"MLP_MULT", 2', '"MLP_MULT", 4')
    larger = STARTER.replace('"MLP_MULT", 2', '"MLP_MULT", 5')
    assert large != larger != STARTER
    assert sized(large, large.replace("SEED", "SEED "), None) == []  # as it began
    assert sized(large, larger, None) == []  # nothing is known of its packing
    assert sized(large, larger, 12_000_000) == []
    assert sized(large, larger, 13_600_000) == [False]
    assert sized(large, larger, 15_900_000) == [True]
    idea = Idea(direction="d", description="d", hypothesis="h")
    change = Change(idea=idea, before=large, after=larger, pristine=large)
    place = Workspace(path=Path(), script="train_gpt.py", project=Path())
    found = plugin().audit_change(change, place, measured_history(15_900_000))
    assert [item.blocks for item in found if item.rule == "S2"] == [True]
    huge = large.replace('"NUM_LAYERS", 9', '"NUM_LAYERS", 12')
    assert sized(STARTER, huge, None) == [True]
    for packing in ("import lzma", "INT6_PATTERNS = ()", "LIMITS = (-31, 31)"):
        both = f"{STARTER}\n{packing}\n", f"{huge}\n{packing}\n"
        assert sized(*both, None) == []  # nobody knows its ratio
    wide = STARTER.replace('"MLP_MULT", 2', '"MLP_MULT", 3')
    assert sized(STARTER, wide, None) == [False]  # small networks were measured 3 % apart


NEWER = 'name = {\'a\': 1}\nprint(f"{name["a"]}")\n'  # the grammar of Python 3.12


def compiled(**settings: object) -> list[bool]:
    """Whether S2 blocks (True) or warns of a script in a newer grammar."""
    config = evolve(Config(), **settings)
    return [found.blocks for found in _compiled(NEWER, config, Path())]


def test_a_script_is_compiled_by_the_interpreter_that_runs_it(tmp_path: Path) -> None:
    """The loop's own, another one, the one that a program names; else it is told."""
    before = sys.version_info < (3, 12)
    assert compiled() == compiled(launcher="torchrun") == [True] * before
    torchrun = tmp_path / "torchrun"
    torchrun.write_text(f"#!{sys.executable}\nraise SystemExit\n")
    torchrun.chmod(0o755)
    assert compiled(command=(str(torchrun), "{script}")) == [True] * before
    assert compiled(command=("env", "python3")) == compiled(launcher="modal") == [False] * before
    assert _compiled("x = 1\n", evolve(Config(), launcher="modal"), Path()) == ()


@pytest.mark.parametrize(("version", "blocks"), [("3.10", [True]), ("3.13", [])])
def test_another_interpreter_decides(version: str, blocks: list[bool]) -> None:
    """A newer one reads what ours may not, an older one does not."""
    places = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    if not places:
        pytest.skip(f"no Python {version} of pyenv's here")
    assert compiled(command=(str(places[0]), "{script}")) == blocks
