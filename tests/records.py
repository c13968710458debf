"""What the readers and the audits say of all public records, given as a checkout or a git folder.

    python -m tests.records PATH

PATH is a copy of the challenge's repository; a bare one will do. Nothing of it is kept. Exits with
1 where the loop reads another score than `metrics`, or a record is blocked by its own audit.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pyrsistent import pvector

from autoresearch import Experiment, History, Idea, RunOutput, RunStatus
from autoresearch.golf.audits import audit_source
from autoresearch.golf.plugin import Plugin
from autoresearch.golf.reading import read_log

IDEA = Idea(direction="-", description="-", hypothesis="-")


def files(place: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield the files of all records with their paths, from a work tree or the newest commit."""
    if (place / "records").is_dir():
        for path in sorted((place / "records").rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield PurePosixPath(path.relative_to(place).as_posix()), path.read_bytes()
        return
    git = ("git", "-C", str(place))
    listed = subprocess.run(
        [*git, "ls-tree", "-rz", "HEAD", "records"], capture_output=True, check=True
    )
    for entry in listed.stdout.decode().split("\0")[:-1]:
        about, _, name = entry.partition("\t")
        if about.startswith("120000"):
            continue
        shown = subprocess.run(
            [*git, "cat-file", "blob", about.split()[2]], capture_output=True, check=False
        )
        if shown.returncode == 0:  # a copy may lack large files
            yield PurePosixPath(name), shown.stdout


def is_log(path: PurePosixPath) -> bool:
    """Whether a file of a record is the log of a run."""
    return path.suffix in (".log", ".txt") and not path.name.startswith("requirements")


def looped(folder: Path, text: bytes) -> tuple[float | None, float | None]:
    """Return what the loop reads from a log as a baseline's, and as a later experiment's."""
    log = folder / "run.log"
    log.write_bytes(text)
    script = folder / "train_gpt.py"
    script.touch()
    output = RunOutput(
        name="r",
        status=RunStatus.COMPLETED,
        log_path=log,
        folder=folder,
        exit_code=0,
        script_path=script,
    )
    plugin = Plugin()
    first = plugin.extract_metrics(output, History()) or {}
    measured = plugin.measure_run(output, History()) or {}
    baseline = Experiment(number=0, idea=IDEA, measurement=measured)
    later = plugin.extract_metrics(output, History(experiments=pvector([baseline]))) or {}
    return first.get("val_bpb"), later.get("val_bpb")


def official(submission: bytes) -> set[float]:
    """Return every score that a submission states, of all seeds together or of one."""
    found: set[float] = set()

    def look(value: object) -> None:
        for key, item in value.items() if isinstance(value, dict) else ():
            if "bpb" in key and isinstance(item, int | float):
                found.add(round(float(item), 4))
            look(item)

    with contextlib.suppress(ValueError):
        look(json.loads(submission))
    return found


def main(place: Path) -> int:
    """Print one line for each log and script that is not as it should be, then the figures."""
    everything = list(files(place))
    stated = {
        path.parent: official(text) for path, text in everything if path.name == "submission.json"
    }
    logs = [(path, text) for path, text in everything if is_log(path)]
    nulls = differences = listed = 0
    with tempfile.TemporaryDirectory() as name:
        for path, text in logs:
            read = read_log(text)
            both = looped(Path(name), text)
            listed += read.val_bpb is not None and round(read.val_bpb, 4) in stated.get(
                path.parent, ()
            )
            if read.val_bpb is None:
                nulls += 1
                print(f"{path}: {read.note}")
            if both != (read.val_bpb, read.val_bpb):
                differences += 1
                print(f"{path}: metrics {read.val_bpb}, loop {both}")
    scripts = [
        (p, text.decode("utf-8", "replace"))
        for p, text in everything
        if p.name.startswith("train") and p.suffix == ".py" and text.strip()
    ]
    blocked = 0
    for path, source in scripts:
        found = [item for item in audit_source(source, pristine=source) if item.blocks]
        blocked += bool(found)
        print(
            *(f"{path}: {item.rule} {item.detail}" for item in found),
            sep="\n",
            end="\n" * bool(found),
        )
    print(
        f"{len(logs)} logs: {len(logs) - nulls} scores read, {nulls} not in the log, "
        f"{listed} of them stated by submission.json; loop and metrics differ in {differences}"
    )
    print(f"{len(scripts)} scripts audited against themselves: {blocked} blocked")
    return int(bool(differences or blocked))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
