"""Train on Modal's GPUs: ``modal run modal_train.py > run.log 2>&1``.

The ``train_gpt.py`` that lies here goes along as text with every call, so an edit is picked up
without building anything. Data comes from the volume autoresearch-data (docs/launchers.md says how
it gets there); the output, the verdict and the packed model of every run stay in the volume
autoresearch-runs under the run's name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
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
EXAMPLE = '{"ITERATIONS": "500"}'
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
    """Carry out an order once, and raise nothing: whoever asks could not tell it from Modal's."""
    try:
        return json.dumps(once(json.loads(order)))
    except Exception as error:
        said = f"the remote function failed, {type(error).__name__}: {error}"
        return json.dumps({"status": "infra_failed", "exit_code": None, "detail": said})


def once(asked: dict[str, Any]) -> dict[str, Any]:
    """Answer with the verdict; a preempted call starts over, a second call learns of the first."""
    verdict: Path = RUNS / asked["name"] / "outcome.json"
    if not modal.is_local():
        runs.reload()
        mine = {"call": modal.current_function_call_id(), "script_digest": digest(asked)}
        if not claims.put(asked["name"], mine, skip_if_exists=True):
            owner = claims.get(asked["name"])
            if owner["script_digest"] != mine["script_digest"]:
                return refusal(asked, owner["script_digest"])
            if owner["call"] != mine["call"]:
                return {"status": "duplicate", "call_id": owner["call"]}
    if not verdict.exists():
        verdict.parent.mkdir(parents=True, exist_ok=True)
        outcome = {**perform(asked, verdict.parent), "script_digest": digest(asked)}
        save()  # the log and the model are there before the verdict is
        part = verdict.with_suffix(".part")
        part.write_text(json.dumps(outcome))
        part.replace(verdict)
    save()
    found: dict[str, Any] = json.loads(verdict.read_text())
    known = found.get("script_digest", digest(asked))
    return found if known == digest(asked) else refusal(asked, known)


def digest(asked: dict[str, Any]) -> str:
    """Return the digest by which two orders under one name are told apart."""
    given: str = asked.get("script_digest", "")
    return given or hashlib.sha256(asked["source"].encode()).hexdigest()


def refusal(asked: dict[str, Any], known: str) -> dict[str, Any]:
    """Answer an order whose name was given to another script."""
    detail = (
        f"the run {asked['name']!r} was started with script {known[:12]}, "
        f"not with {digest(asked)[:12]}; use another tag"
    )
    return {"status": "refused", "detail": detail}


def save() -> None:
    """Make what is in the volume visible outside this container."""
    if not modal.is_local():
        runs.commit()


def perform(asked: dict[str, Any], kept: Path) -> dict[str, Any]:
    """Run the script in a fresh folder; keep its output and the files that were asked for."""
    work = Path(tempfile.mkdtemp())
    (work / asked["script"]).write_text(asked["source"], encoding="utf-8", newline="")
    secret = ("MODAL_", "AWS_", "HF_TOKEN")
    env = {key: value for key, value in os.environ.items() if not key.startswith(secret)}
    # A campaign's paths are those of another machine; what a person typed for this run is meant.
    env |= {"PYTHONUNBUFFERED": "1", **asked["env"], **({} if modal.is_local() else DATA)}
    env |= asked.get("typed", {})
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
        "source": source_of(script),
        "command": command.split(),
        "env": {},
        "typed": variables(env),
        "timeout_seconds": timeout,
        "max_log_bytes": 64_000_000,
        "keep": ["final_model.int8.ptz"],
    }
    check_gpus(command, gpu)
    there = train.with_options(gpu=gpu, timeout=timeout + 300)
    outcome = json.loads(there.remote(json.dumps(order)))
    print(f"run:{order['name']} status:{outcome['status']} seconds:{outcome.get('seconds', 0)}")
    if outcome["status"] != "completed":
        sys.exit(f"{outcome['status']}: {outcome['detail']}")


def source_of(script: str) -> str:
    """Return the text of the script, or end with one line."""
    try:
        return Path(script).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"cannot read the script {script}: {error}; name a file with --script")


def variables(env: str) -> dict[str, str]:
    """Return what --env says, or end with one line."""
    try:
        found = json.loads(env)
    except ValueError as error:
        found = error
    if not isinstance(found, dict):
        sys.exit(f"--env is {env!r}, not a JSON object; write it as in --env '{EXAMPLE}'")
    return {key: str(value) for key, value in found.items()}


def check_gpus(command: str, gpu: str) -> None:
    """End with one line where torchrun would crash, or leave GPUs idle that are paid for."""
    if not re.fullmatch(r"[A-Za-z][\w-]*!?(:[1-9]\d*)?", gpu):
        sys.exit(f"--gpu is {gpu!r}; write a type and a number, as in H100:8")
    count = int(gpu.partition(":")[2] or 1)
    asked = re.search(r"--nproc[_-]per[_-]node[= ](\d+)", command)
    if asked and int(asked[1]) != count:
        sys.exit(
            f"--command starts {asked[1]} processes, but --gpu is {gpu!r}; "
            "make them the same number"
        )
