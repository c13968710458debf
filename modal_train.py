"""Train on Modal's GPUs: ``modal run modal_train.py > run.log 2>&1``.

The ``train_gpt.py`` that lies here goes along as text with every call, so an edit is picked up
without building anything. Data comes from the volume autoresearch-data (docs/launchers.md says how
it gets there); the output, the verdict and the packed model of every run stay in the volume
autoresearch-runs under the run's name.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import IO, Any

import modal

GPU = "H100:8"  # the challenge is measured on eight of them
COMMAND = "torchrun --standalone --nproc_per_node=8 train_gpt.py"
DATA = {
    "DATA_PATH": "/data/datasets/fineweb10B_sp1024",
    "TOKENIZER_PATH": "/data/tokenizers/fineweb_1024_bpe.model",
}
RUNS = Path(os.environ.get("AUTORESEARCH_RUNS", "/runs"))

app = modal.App("autoresearch-train")
image = (
    modal.Image.debian_slim("3.12")
    .apt_install("g++")  # torch.compile builds its launchers with it
    .pip_install("torch==2.13.0", "numpy==2.4.6", "sentencepiece==0.2.3", "psutil==7.2.2")
)
data = modal.Volume.from_name("autoresearch-data", create_if_missing=True)
runs = modal.Volume.from_name("autoresearch-runs", create_if_missing=True)
claims = modal.Dict.from_name("autoresearch-claims", create_if_missing=True)


@app.function(
    image=image,
    gpu=GPU,
    timeout=1800,  # a net below the deadline that every order brings along
    volumes={"/data": data.read_only(), str(RUNS): runs},
    single_use_containers=True,  # what a run leaves in memory or on disk is gone with it
)
def train(order: str) -> str:
    """Carry out an order once: a preempted call starts over, a second call learns of the first."""
    asked = json.loads(order)
    verdict: Path = RUNS / asked["name"] / "outcome.json"
    if not modal.is_local():
        runs.reload()
        mine = modal.current_function_call_id()
        if not claims.put(asked["name"], mine, skip_if_exists=True):
            owner = claims.get(asked["name"])
            if owner != mine:
                return json.dumps({"status": "duplicate", "call_id": owner})
    if not verdict.exists():
        verdict.parent.mkdir(parents=True, exist_ok=True)
        outcome = perform(asked, verdict.parent)
        part = verdict.with_suffix(".part")
        part.write_text(json.dumps(outcome))
        part.replace(verdict)
    if not modal.is_local():
        runs.commit()
    return verdict.read_text()


def perform(asked: dict[str, Any], kept: Path) -> dict[str, Any]:
    """Run the script in a fresh folder; keep its output and the files that were asked for."""
    work = Path(tempfile.mkdtemp())
    (work / asked["script"]).write_text(asked["source"], encoding="utf-8")
    secret = ("MODAL_", "AWS_", "HF_TOKEN")
    env = {key: value for key, value in os.environ.items() if not key.startswith(secret)}
    env |= {"PYTHONUNBUFFERED": "1", **asked["env"], **(DATA if not modal.is_local() else {})}
    began = time.monotonic()
    with (kept / "run.log").open("wb", buffering=0) as log:
        try:
            status, code, detail = follow(asked, work, env, log)
        except OSError as error:
            status, code, detail = "infra_failed", None, f"cannot run the command: {error}"
    seconds = round(time.monotonic() - began, 3)
    for name in asked.get("keep", ()):
        if (work / name).exists():
            (kept / name).write_bytes((work / name).read_bytes())
    return {"status": status, "exit_code": code, "detail": detail, "seconds": seconds}


def follow(
    asked: dict[str, Any], work: Path, env: dict[str, str], log: IO[bytes]
) -> tuple[str, int | None, str]:
    """Start the command, pass its output on, and end it at its deadline or its limit."""
    end, room = time.monotonic() + asked["timeout_seconds"], asked["max_log_bytes"]
    process = subprocess.Popen(
        asked["command"], cwd=work, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    try:
        while time.monotonic() < end:
            code = process.poll()  # asked before the output is, so that no last line is lost
            ready = select.select([process.stdout], [], [], 0.2)[0]
            piece = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
            if piece:
                log.write(piece[:room])
                print(piece.decode("utf-8", "replace"), end="", flush=True)
                room -= len(piece)
                if room < 0:
                    return "crashed", None, f"printed more than {asked['max_log_bytes']} bytes"
            elif code is not None:
                how = f"exit code {code}" if code > 0 else f"killed by signal {-code}"
                return ("completed", 0, "") if code == 0 else ("crashed", code, how)
            elif ready:
                time.sleep(0.1)  # the output is closed, but the command goes on
        return "timed_out", None, f"killed at its deadline of {asked['timeout_seconds']:g} seconds"
    finally:
        kill_all(process)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill the command and its children; torchrun's workers are in sessions of their own."""
    import psutil

    for member in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@app.local_entrypoint()
def main(
    script: str = "train_gpt.py",
    command: str = COMMAND,
    env: str = "{}",
    gpu: str = GPU,
    timeout: int = 900,
) -> None:
    """Run a script once; ``--env`` takes JSON, as in ``--env '{"ITERATIONS": "500"}'``."""
    order = {
        "name": f"manual-{uuid.uuid4().hex[:12]}",
        "script": Path(script).name,
        "source": Path(script).read_text(encoding="utf-8"),
        "command": command.split(),
        "env": {key: str(value) for key, value in json.loads(env).items()},
        "timeout_seconds": timeout,
        "max_log_bytes": 64_000_000,
    }
    there = train.with_options(gpu=gpu, timeout=timeout + 300)
    outcome = json.loads(there.remote(json.dumps(order)))
    print(f"run:{order['name']} status:{outcome['status']} seconds:{outcome['seconds']}")
    if outcome["status"] != "completed":
        sys.exit(f"{outcome['status']}: {outcome['detail']}")
