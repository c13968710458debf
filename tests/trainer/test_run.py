"""Whole runs of the script, as a person or the product starts them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import train_gpt
from trainer_kit import SCRIPT, Finished, TinyData, clean_environment, run_script, write_shard

NUMBER = r"\d+\.\d{4}"
VALIDATED = rf"val_loss:{NUMBER} val_bpb:{NUMBER} train_time:\d+ms step_avg:\d+\.\d\dms"
TRAINED = rf"train_loss:{NUMBER} train_time:\d+ms step_avg:\d+\.\d\dms"
STAGE = "final_int8_zlib_roundtrip"


def expected_lines(data: TinyData) -> list[str]:
    """Section 11 of the challenge's description, with two lines of ours, as patterns."""
    steps = [rf"step:0/12 {VALIDATED}"]
    for step in range(1, 11):
        steps.append(rf"step:{step}/12 {TRAINED}")
        if step % 5 == 0:
            steps.append(rf"step:{step}/12 {VALIDATED}")
    return [
        "logs/tiny.txt",
        f"val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path={data.tokenizer}",
        f"train_loader:dataset:{data.home.name} train_shards:2",
        rf"val_loader:shards pattern={data.home}/fineweb_val_\*\.bin tokens:\d+",
        r"model_params:\d+",
        "world_size:1 grad_accum_steps:8",
        "sdp_backends:cudnn=False flash=True mem_efficient=False math=False",
        "attention_mode:gqa num_heads:4 num_kv_heads:2",
        "tie_embeddings:True embed_lr:0.05 head_lr:0.0 matrix_lr:0.04 scalar_lr:0.04",
        "train_batch_tokens:1024 train_seq_len:64 iterations:12 warmup_steps:2 "
        r"max_wallclock_seconds:0\.000",
        "seed:1337",
        r"runtime:device=cpu dtype=float32 compile=False hardware=1x cpu .+",
        "warmup_step:1/2",
        "warmup_step:2/2",
        *steps,
        rf"step:12/12 {VALIDATED}",
        r"peak memory allocated: \d+ MiB reserved: \d+ MiB",
        r"Serialized model: \d+ bytes",
        r"Code size: \d+ bytes",
        r"Total submission size: \d+ bytes",
        r"Serialized model int8\+zlib: \d+ bytes "
        r"\(payload:\d+ raw_torch:\d+ payload_ratio:\d\.\d\dx\)",
        r"Total submission size int8\+zlib: \d+ bytes",
        rf"{STAGE} val_loss:{NUMBER} val_bpb:{NUMBER} eval_time:\d+ms",
        rf"{STAGE}_exact val_loss:\d\.\d{{8}} val_bpb:\d\.\d{{8}}",
        r"reload_check:passed difference:0\.0000\d{4} reload_time:\d+ms",
        r"autoresearch_result \{.+\}",
    ]


def test_every_line_of_the_log(tiny_run: Finished, tiny_data: TinyData) -> None:
    """The lines of the challenge to the letter and in order, then the canonical line."""
    patterns = expected_lines(tiny_data)
    assert len(tiny_run.lines) == len(patterns)
    for line, pattern in zip(tiny_run.lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), (line, pattern)
    assert tiny_run.stderr == ""


def test_the_protocols_grep_finds_the_score(tiny_run: Finished) -> None:
    """The last `val_bpb:` of the log is the score of the artifact."""
    hits = [line for line in tiny_run.lines if re.search(f"val_bpb|{STAGE}|model_params", line)]
    assert [line.split(" ")[0] for line in hits[-3:]] == [
        *(STAGE, f"{STAGE}_exact", "autoresearch_result")
    ]
    last = re.findall(r"val_bpb:(\d\.\d+)", tiny_run.stdout)[-1]
    assert float(last) == pytest.approx(tiny_run.result["val_bpb"], abs=1e-8)


def test_the_log_file_starts_with_the_source(tiny_run: Finished) -> None:
    """File-only lines first: the source, a rule, versions, the GPU's state, a rule."""
    text = (tiny_run.cwd / "logs" / "tiny.txt").read_text(encoding="utf-8")
    source, rule = SCRIPT.read_text(encoding="utf-8"), "=" * 100
    assert text.startswith(f"{source}\n{rule}\nRunning Python {sys.version}\nRunning PyTorch ")
    after = text[len(source) :].split(f"{rule}\n")[2].splitlines()
    assert after == tiny_run.lines[1:]


def test_the_canonical_line_says_what_was_measured(tiny_run: Finished, tiny_data: TinyData) -> None:
    """Sizes and digests are those of the files, the byte count is conserved."""
    result = tiny_run.result
    artifact, code = tiny_run.cwd / "final_model.int8.ptz", SCRIPT.read_bytes()
    shards = [Path(p).read_bytes() for p in train_gpt.shard_files(str(tiny_data.home), "val")]
    assert result["model_bytes"] == artifact.stat().st_size
    assert result["artifact_bytes"] == artifact.stat().st_size + len(code)
    assert result["code_digest"] == hashlib.sha256(code).hexdigest()
    assert result["artifact_digest"] == hashlib.sha256(artifact.read_bytes()).hexdigest()
    assert result["val_digest"] == hashlib.sha256(b"".join(shards)).hexdigest()
    tokenizer = tiny_data.tokenizer.read_bytes()
    assert result["tokenizer_digest"] == hashlib.sha256(tokenizer).hexdigest()
    assert result["reload_val_bpb"] == pytest.approx(result["val_bpb"], abs=1e-4)
    bits = result["val_tokens"] * result["val_loss"] / np.log(2)
    assert bits / result["val_bpb"] == pytest.approx(result["val_bytes"])
    assert (result["steps"], result["seed"], result["world_size"]) == (12, 1337, 1)
    assert (result["schema"], result["script_stage"]) == (1, "int8_zlib_roundtrip")
    assert set(result["versions"]) == {"python", "torch", "numpy", "sentencepiece"}
    text = tiny_run.lines[-1].partition(" ")[2]
    assert text == json.dumps(result, sort_keys=True, separators=(",", ":"))


def test_only_whole_files_are_left(tiny_run: Finished) -> None:
    """The two model files and the log; the rest of a killed run's writing is gone."""
    assert sorted(path.name for path in tiny_run.cwd.iterdir()) == [
        *("final_model.int8.ptz", "final_model.pt", "logs")
    ]


def test_training_learns(tiny_run: Finished) -> None:
    """Twelve steps take a good part of the first loss away."""
    losses = [float(x) for x in re.findall(r"val_loss:([\d.]+)", tiny_run.stdout)]
    assert losses[0] == pytest.approx(np.log(320), abs=0.05)
    assert losses[-1] < losses[0] - 1.0


@pytest.fixture
def here(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """The script's main() in this process, in an empty folder, with the tiny settings."""
    monkeypatch.chdir(tmp_path)
    for name, value in tiny_data.settings.items():
        monkeypatch.setattr(train_gpt.Hyperparameters, name, value)
    return monkeypatch


def test_the_model_test_switch(
    tiny_run: Finished,
    tiny_data: TinyData,
    tmp_path: Path,
    here: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Asked about the validation text itself, the artifact gives the score of the run."""
    tokens = np.concatenate(
        [train_gpt.open_shard(p) for p in train_gpt.shard_files(str(tiny_data.home), "val")]
    )
    write_shard(tmp_path / "tokens.bin", tokens)
    request = {
        "schema": 1,
        "artifact": str(tiny_run.cwd / "final_model.int8.ptz"),
        "tokens": "tokens.bin",
        "distribution_at": [0, 100],
        "output": "answer.npz",
    }
    (tmp_path / "request.json").write_text(json.dumps(request))
    here.setenv("MODEL_TEST", "request.json")
    here.setattr(train_gpt.Hyperparameters, "data_path", "absent")
    assert train_gpt.main() == 0
    expected = f"model_test:done tokens:{tiny_run.result['val_tokens']} distributions:2\n"
    assert capsys.readouterr().out == expected
    with np.load(tmp_path / "answer.npz") as answer:
        assert float(answer["val_bpb"]) == pytest.approx(tiny_run.result["val_bpb"], abs=1e-7)
        assert -answer["log_probs"].mean() == pytest.approx(float(answer["val_loss"]), abs=1e-9)


def test_two_ranks_train_like_one(tiny_run: Finished, tiny_data: TinyData, tmp_path: Path) -> None:
    """torchrun with two gloo processes ends at the validation losses of a single process."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    settings = tiny_data.environment | {"RELOAD_CHECK": "0"}
    done = run_script(tmp_path, settings, *launcher)
    assert done.code == 0, done.stderr
    assert "world_size:2 grad_accum_steps:4" in done.lines
    assert (done.result["world_size"], done.result["reload_val_bpb"]) == (2, None)
    one, two = (re.findall(r"val_loss:([\d.]+)", run.stdout) for run in (tiny_run, done))
    assert [float(x) for x in two] == pytest.approx([float(x) for x in one], abs=3e-3)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"data_path": "absent"}, "no file matches absent/fineweb_train_*.bin"),
        ({"scalar_lr": 1e38, "val_loss_every": 0}, "train_loss is nan at step"),
        ({"scalar_lr": 1e38, "train_log_every": 0}, "val_loss is nan"),
    ],
    ids=["data", "diverged", "no score"],
)
def test_what_a_person_can_mend_is_one_line(
    here: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    complaint: str,
) -> None:
    """Exit code 1, one line on stderr, no canonical line, and no artifact of an earlier run."""
    (tmp_path / "final_model.int8.ptz").write_bytes(b"of an earlier run")
    for name, value in changes.items():
        here.setattr(train_gpt.Hyperparameters, name, value)
    assert train_gpt.main() == 1
    said = capsys.readouterr()
    assert re.fullmatch(rf"error: {re.escape(complaint)}.*\n", said.err), said.err
    assert "autoresearch_result" not in said.out
    assert not (tmp_path / "final_model.int8.ptz").exists()


def test_a_killed_run_leaves_no_artifact(tiny_data: TinyData, tmp_path: Path) -> None:
    """SIGKILL while training: the artifact of an earlier run is gone and no new one is there."""
    artifact = tmp_path / "final_model.int8.ptz"
    artifact.write_bytes(b"of an earlier run")
    environment = clean_environment(tiny_data.environment | {"ITERATIONS": "1000000"})
    command = [sys.executable, str(SCRIPT)]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("step:2/"):
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not artifact.exists()
