"""Train on Modal's GPUs: ``modal run modal_train.py > run.log 2>&1``.

The ``train_gpt.py`` that lies here goes along as text with every call, so an edit is picked up
without building anything. ``modal run modal_train.py::prepare_data`` fills the volume
autoresearch-data once; the output, the verdict and the packed model of every run stay in the volume
autoresearch-runs under the run's name, and what was compiled in autoresearch-cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import modal

GPU = "H100:8"  # the challenge is measured on eight of them
COMMAND = "torchrun --standalone --nproc_per_node=8 train_gpt.py"
# Two cores and 8 GiB for each process of eight; unasked it is 0.125 cores and 128 MiB for them all.
CPU, MEMORY_MIB = 16.0, 65_536
# That of most public logs of the challenge; another version is worth thousandths of the score.
TORCH = os.environ.get("AUTORESEARCH_TORCH", "2.9.1")
DATASET, TOKENIZER = "fineweb10B_sp1024", "fineweb_1024_bpe.model"
ARTIFACT = "final_model.int8.ptz"
EXAMPLE = '{"ITERATIONS": "500"}'
BEFORE_SECONDS = 900  # start and compilation took 300 to 500 s in public logs, evaluation the rest
FIRST_STEP = r"(?m)^\s*(step|iter)[ :=]*[1-9]"
SCORE_LINE = r"(?m)^(final_\w+ .*val_bpb:\s*\d|autoresearch_result \{)"
SAME_BPB = 1e-4  # between two processes that score one artifact
HERE = Path(__file__).parent
RUNS = Path(os.environ.get("AUTORESEARCH_RUNS", "/runs"))
DATA = Path("/data")

app = modal.App("autoresearch-train")
image = (
    modal.Image.debian_slim("3.12")
    .apt_install("g++")  # torch.compile builds its launchers with it
    .pip_install(f"torch=={TORCH}", "numpy==2.4.6", "sentencepiece==0.2.3", "psutil==7.2.2")
)
fetching = modal.Image.debian_slim("3.12").pip_install("huggingface_hub==2.4.0", "numpy==2.4.6")
if (HERE / "data").is_dir():
    only_scripts = lambda path: path.suffix != ".py"  # noqa: E731
    fetching = fetching.add_local_dir(HERE / "data", "/root/data", ignore=only_scripts)
data = modal.Volume.from_name("autoresearch-data", create_if_missing=True)
runs = modal.Volume.from_name("autoresearch-runs", create_if_missing=True)
cache = modal.Volume.from_name("autoresearch-cache", create_if_missing=True)
claims = modal.Dict.from_name("autoresearch-claims", create_if_missing=True)


@app.function(image=fetching, volumes={str(DATA): data}, cpu=8.0, timeout=6 * 3600)
def prepare_data(variant: str = "sp1024", train_shards: int = 80) -> None:
    """Fill the volume with the challenge's data; what is whole there is not fetched again."""
    partial = DATA / "datasets" / f"fineweb10B_{variant}.partial"
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.touch()  # no run takes a part for the whole
    command = [sys.executable, str(HERE / "data" / "cached_challenge_fineweb.py")]
    command += ["--data-dir", str(DATA), "--variant", variant, "--train-shards", str(train_shards)]
    code = subprocess.run(command, check=False).returncode
    if code == 0:
        partial.unlink()
    if not modal.is_local():
        data.commit()  # also of what was cut short: it is gone on with from there
    if code:
        raise RuntimeError(f"the data could not be fetched (exit code {code}); run it again")


@app.function(
    image=image,
    gpu=GPU,
    cpu=CPU,
    memory=MEMORY_MIB,
    timeout=2400,  # a net below the deadline that every order brings along
    volumes={str(DATA): data.read_only(), str(RUNS): runs, "/cache": cache},
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
    if asked.get("beside"):  # a job on what an earlier run left
        for file in (RUNS / asked["beside"]).iterdir():
            if file.name not in ("run.log", "outcome.json"):
                shutil.copy(file, work)
    began = time.monotonic()
    with (kept / "run.log").open("wb", buffering=0) as log:
        try:
            ended = follow(asked, work, environment(asked), log)
        except OSError as error:
            detail = f"cannot run the command: {error}"
            ended = {"status": "infra_failed", "exit_code": None, "detail": detail}
    for name in asked.get("keep", ()):
        if (work / name).exists():
            (kept / name).write_bytes((work / name).read_bytes())
    return {**ended, "seconds": round(time.monotonic() - began, 3)}


def environment(asked: dict[str, Any]) -> dict[str, str]:
    """Return what the script sees: nothing of Modal's, its data near, its compilations kept."""
    secret = ("MODAL_", "AWS_", "HF_TOKEN")
    env = {key: value for key, value in os.environ.items() if not key.startswith(secret)}
    # Seven GPUs would wait for the one that scores the artifact again: that is a job of its own.
    env |= {"PYTHONUNBUFFERED": "1", "RELOAD_CHECK": "0"}
    typed = asked.get("typed", {})  # what a person typed for this run is meant
    env |= asked["env"] | typed
    if not modal.is_local():
        env |= {"TORCHINDUCTOR_CACHE_DIR": "/cache/inductor", "TRITON_CACHE_DIR": "/cache/triton"}
        tokenizer = named(env, "TOKENIZER_PATH", TOKENIZER)
        env["TOKENIZER_PATH"] = str(DATA / "tokenizers" / tokenizer)
        if "DATA_PATH" not in typed:
            shards = DATA / "datasets" / named(env, "DATA_PATH", DATASET)
            env["DATA_PATH"] = str(shards if asked.get("beside") else near(shards))
    return env | typed


def named(env: dict[str, str], variable: str, usual: str) -> str:
    """Return the last part of a path: its folders are those of another machine."""
    return Path(env.get(variable, usual)).name


def near(shards: Path) -> Path:
    """Copy shards to this machine's disk: over the network each new one makes slow steps."""
    if not shards.is_dir() or shards.with_name(f"{shards.name}.partial").exists():
        raise OSError(f"no whole {shards}; fill the volume: modal run modal_train.py::prepare_data")
    there = Path(tempfile.mkdtemp()) / shards.name
    there.mkdir()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda file: shutil.copy(file, there), sorted(shards.iterdir())))
    return there


def follow(
    asked: dict[str, Any], work: Path, env: dict[str, str], log: IO[bytes]
) -> dict[str, Any]:
    """Start the command, pass its output on, and end it at its deadline or its limit.

    The deadline counts from the first training step: what comes before is the machine's time, and
    has a limit of its own. A script that was killed behind its score has one.
    """
    seconds, room = asked["timeout_seconds"], asked["max_log_bytes"]
    whole = seconds + asked.get("before_seconds", 0)
    end, why = time.monotonic() + whole, f"killed at its deadline of {whole:g} seconds"
    steps = asked.get("first_step", FIRST_STEP).encode()
    score, scored, heard = asked.get("score_line", SCORE_LINE).encode(), False, b""
    told: dict[str, Any] = {"exit_code": None, "detail": ""}
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
                    detail = f"printed more than {asked['max_log_bytes']} bytes"
                    return {**told, "status": "crashed", "detail": detail}
                heard = heard[heard.rfind(b"\n") + 1 :][:4096] + piece  # a line in two pieces
                if steps and re.search(steps, heard):
                    steps, end = b"", min(end, time.monotonic() + seconds)
                    why = f"killed {seconds:g} seconds after its first training step"
                scored = scored or bool(re.search(score, heard))
                for value in re.findall(rb'val_bpb"?:\s*(\d+\.\d+)', heard):
                    told["val_bpb"] = float(value)
            elif code is not None:
                how = f"exit code {code}" if code > 0 else f"killed by signal {-code}"
                ended = {"status": "crashed", "detail": how} if code else {"status": "completed"}
                return {**told, **ended, "exit_code": code}
            elif ready:
                time.sleep(0.1)  # the output is closed, but the command goes on
        if scored:
            return {**told, "status": "completed", "detail": f"{why}, its score was printed"}
        return {**told, "status": "timed_out", "detail": why}
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
        "before_seconds": BEFORE_SECONDS,
        "max_log_bytes": 64_000_000,
        "keep": [ARTIFACT],
    }
    check_gpus(command, gpu)
    score = ordered(order, gpu)
    if "EVAL_ARTIFACT" in order["source"] and "EVAL_ARTIFACT" not in order["typed"]:
        again = {"EVAL_ARTIFACT": ARTIFACT, **order["typed"]}
        job = {"name": f"{order['name']}-reload", "beside": order["name"], "typed": again}
        job |= {"command": ["python", order["script"]], "keep": []}
        reloaded = ordered({**order, **job}, gpu.partition(":")[0])
        if score is None or reloaded is None or abs(reloaded - score) > SAME_BPB:
            sys.exit(f"the artifact alone scores {reloaded}, the run said {score}")


def ordered(order: dict[str, Any], gpu: str) -> float | None:
    """Have an order carried out and return the score; end with one line where it failed."""
    there = train.with_options(gpu=gpu, timeout=order["timeout_seconds"] + BEFORE_SECONDS + 300)
    outcome = json.loads(there.remote(json.dumps(order)))
    print(f"run:{order['name']} status:{outcome['status']} seconds:{outcome.get('seconds', 0)}")
    if outcome["status"] != "completed":
        sys.exit(f"{outcome['status']}: {outcome['detail']}")
    score: float | None = outcome.get("val_bpb")
    return score


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


def check_reachable() -> None:
    """End with one line where there is no way to Modal: its client goes on trying in silence."""
    if not modal.config.config.get("token_id"):
        return  # which it says at once
    server = urlsplit(modal.config.config["server_url"])
    where = (server.hostname or "", server.port or 443)
    try:
        socket.create_connection(where, timeout=20).close()
    except OSError as error:
        sys.exit(f"modal cannot be reached at {where[0]}:{where[1]}: {error}; check the network")


if sys.argv[1:2] in (["run"], ["deploy"]) and modal.is_local():
    check_reachable()
