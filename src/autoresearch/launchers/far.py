"""The other end of launchers that reach another machine: ``python -m autoresearch.launchers.far``.

A run has one folder there, with what the local launcher has: `run`, `run.control`, and `work`, the
checkout. Each verb answers with one line of JSON, and with bytes after it where there are some.
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import asdict, fields

from autoresearch.errors import AutoresearchError
from autoresearch.launchers.environment import clean_environment, devices, share
from autoresearch.launchers.folder import Outcome, RunFolder, Spec
from autoresearch.launchers.local_run import (
    LocalRun,
    command_of,
    environ_with_this_python_first,
    start_supervisor,
)
from autoresearch.launchers.supervisor import RUN_MARKER
from autoresearch.model import RunRequest, Workspace

if TYPE_CHECKING:
    from autoresearch.config import RunsConfig

MARK = "HERE"
"""What stands in a word of an order for the folder of the run on the machine where it runs."""


def order_for(
    request: RunRequest, workspace: Workspace, passed: Sequence[str], runs: RunsConfig,
    places: Mapping[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return what the far end is told; ``places`` are folders of this machine, as over there."""
    if places is None:
        places = {
            str(workspace.path.absolute()): f"{MARK}/work",
            str(request.folder.absolute()): f"{MARK}/run",
            sys.executable: "{python}",
        }
    env = {name: _filled(text, places) for name, text in request.env.items()}
    return {
        "name": request.name,
        "script_digest": request.script_digest,
        "command": [_filled(word, places) for word in command_of(request, workspace)],
        "env": {"PYTHONUNBUFFERED": "1", **env, "SEED": str(request.seed), "RUN_ID": request.name},
        "pass_env": list(passed),
        "cwd": _filled(str(request.cwd.absolute()), places) if request.cwd else "",
        "timeout_seconds": request.timeout_seconds,
        "max_log_bytes": request.max_log_bytes,
        "runs": asdict(runs),
    }


def spec_here(order: Mapping[str, Any], folder: RunFolder) -> Spec:
    """Return what is to be run, with the environment, the GPUs and the folder of this machine."""
    from autoresearch.config import RunsConfig  # which a question to a run does without

    here = str(folder.path.parent)
    runs = RunsConfig(**order["runs"])
    extra = {name: text.replace(MARK, here) for name, text in order["env"].items()}
    extra[RUN_MARKER] = str(folder.path)
    env = clean_environment(environ_with_this_python_first(), extra, order["pass_env"])
    found = devices(runs, env)
    count = share(runs, found)
    fill = {MARK: here, "{gpus}": str(max(count, 1)), "{python}": sys.executable}
    return Spec(
        name=order["name"],
        command=tuple(_filled(word, fill) for word in order["command"]),
        env=env,
        timeout_seconds=order["timeout_seconds"],
        max_log_bytes=order["max_log_bytes"],
        script_digest=order["script_digest"],
        cwd=order["cwd"].replace(MARK, here),
        devices=found,
        gpus=count,
    )


def _filled(word: str, names: Mapping[str, str]) -> str:
    """Return a word with each of the names replaced by what it stands for."""
    for name, text in names.items():
        word = word.replace(name, text)
    return word


def start(folder: RunFolder) -> dict[str, Any]:
    """Unpack the order and the checkout from standard input and start the run, once."""
    folder.make()
    place = folder.path.parent
    known = folder.read_spec()
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        for member in archive:
            if member.name == "order.json":
                file = archive.extractfile(member)
                assert file is not None
                order = json.load(file)
                if known is not None:
                    folder.check_digest(order["name"], known.script_digest, order["script_digest"])
            elif known is None:
                archive.extract(member, place, filter="data")
    if known is None:
        folder.write_spec(spec_here(order, folder))
    start_supervisor(folder)
    return {"reference": LocalRun(order["name"], folder).reference}


def look(folder: RunFolder, offset: int) -> tuple[dict[str, Any], bytes]:
    """Return how the run ended, None while it goes on, and its output from a byte on."""
    found = LocalRun(folder.path.name, folder).poll()
    data = b""
    if folder.log.exists():
        with folder.log.open("rb") as file:
            file.seek(offset)
            data = file.read(4 << 20)
    outcome = None
    if found is not None:
        outcome = {item.name: getattr(found, item.name) for item in fields(Outcome)}
    size = folder.log.stat().st_size if folder.log.exists() else 0
    return {"outcome": outcome, "log_bytes": size}, data


def main(arguments: list[str]) -> int:
    """Carry out one verb; an error is one line of JSON too."""
    verb, place, *rest = arguments
    path = Path(os.path.expanduser(place), "run").absolute()
    folder = RunFolder(path, path.with_name("run.control"))
    data = b""
    try:
        if verb == "start":
            told = start(folder)
        elif verb == "look":
            told, data = look(folder, int(rest[0]))
        elif verb == "stop":
            LocalRun(folder.path.name, folder).stop(rest[0])
            told = {}
        else:  # fetch
            told = {}
    except (AutoresearchError, OSError, ValueError) as error:
        told = {"error": str(error)}
    sys.stdout.buffer.write(json.dumps(told).encode() + b"\n" + data)
    sys.stdout.buffer.flush()
    if verb == "fetch" and folder.path.is_dir():
        with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
            archive.add(folder.path, arcname=".")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
