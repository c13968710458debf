"""Measure the house: its size, what it costs to start, and what one trivial experiment enters.

    python tests/benchmarks/house.py [--src PATH] [--json]

``--src`` is the ``src`` folder of another checkout, so that before and after are one command each.
CPU seconds are user and system time, medians of five processes after one to warm up. The experiment
is the second of a campaign on a script of three lines, with an idea from the queue; *experiment*
counts from its first event to its last (review to decision), *turn* from the decision before it, so
with the files that are written and the memory that is read. Functions are those that
``sys.setprofile`` sees, git processes those that the audit event ``subprocess.Popen`` names, bytes
those of files moved to notes.md and results.tsv. Only the public interface is used, so that old and
new releases can be measured.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PRAGMAS = ("# noqa", "# type:", "# fmt:", "# pragma", "# ---", "#!")
REPEATS = 5

SCRIPT = 'WIDTH = 4\nRATE = 0.5\nprint(f"score: {(WIDTH - 7) ** 2 * 0.01 + RATE:.6f}")\n'
SETTINGS = 'preset = "plain"\nscript = "train.py"\n[metric]\nname = "score"\nsd = 0.001\n'
PATCH = "--- a/train.py\n+++ b/train.py\n@@ -1,2 +1,2 @@\n-WIDTH = 4\n+WIDTH = 5\n RATE = 0.5\n"


def main() -> None:
    """Print the measures as a table, or as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--src", type=Path, default=ROOT / "src", help="folder of the package")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--child", choices=("count", "time"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    src = options.src.resolve()
    src = src if (src / "autoresearch").is_dir() else src / "src"
    if options.child:
        print(json.dumps(second_experiment(src / "autoresearch", options.child == "count")))
        return
    found = {**static(src / "autoresearch"), **starting(src), **experiment(src)}
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        width = max(map(len, found))
        print("\n".join(f"{name:{width}}  {value:>12,}" for name, value in found.items()))


# --- what is written ------------------------------------------------------------------------


def static(package: Path) -> dict[str, float]:
    """Count files, lines, functions and comments of the package's Python sources."""
    texts = [path.read_text() for path in sorted(package.rglob("*.py"))]
    lines = [text.count("\n") for text in texts]
    functions = [item for text in texts for item in _functions(text)]
    lengths = [(item.end_lineno or item.lineno) - item.lineno + 1 for item in functions]
    private = [item.name.startswith("_") and not item.name.startswith("__") for item in functions]
    comments = sum(1 for text in texts for _ in _comments(text))
    return {
        "files": len(texts),
        "lines": sum(lines),
        "median lines of a file": statistics.median(lines),
        "longest file": max(lines),
        "functions": len(functions),
        "median lines of a function": statistics.median(lengths),
        "longest function": max(lengths),
        "private functions, %": round(100 * sum(private) / len(private), 1),
        "comments per 100 lines": round(100 * comments / sum(lines), 2),
    }


def _functions(text: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def _comments(text: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith(PRAGMAS):
            yield token.string


# --- what it costs to start -----------------------------------------------------------------


def starting(src: Path) -> dict[str, float]:
    """Count the modules of an import, and the CPU seconds of import, --version and --help."""
    code = (
        "import sys, autoresearch; names = list(sys.modules);"
        "print(len(names), sum(name.split('.')[0] == 'autoresearch' for name in names))"
    )
    _, said = _python(src, "-c", code)
    everything, own = map(int, said.split())
    return {
        "modules loaded by import": everything,
        "own modules loaded by import": own,
        "CPU s of python -c pass": _cpu(src, "-c", "pass"),
        "CPU s of import autoresearch": _cpu(src, "-c", "import autoresearch"),
        "CPU s of --version": _cpu(src, "-m", "autoresearch", "--version"),
        "CPU s of --help": _cpu(src, "-m", "autoresearch", "--help"),
    }


def _cpu(src: Path, *arguments: str) -> float:
    _python(src, *arguments)  # writes the bytecode
    return round(statistics.median(_python(src, *arguments)[0] for _ in range(REPEATS)), 3)


def _python(src: Path, *arguments: str) -> tuple[float, str]:
    """Run Python on the package and return its CPU seconds and its output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(src)},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, done.stdout


# --- what one experiment enters -------------------------------------------------------------


def experiment(src: Path) -> dict[str, float]:
    """Count what the second experiment of a campaign enters, starts, writes and spends."""
    child = (__file__, "--src", str(src), "--child")
    counted = json.loads(_python(src, *child, "count")[1])
    timed = [json.loads(_python(src, *child, "time")[1]) for _ in range(3)]
    for name in timed[0]:
        if name.endswith("own CPU s"):
            counted[name] = round(statistics.median(item[name] for item in timed), 3)
    return dict(counted)


class Counter:
    """What happened since it was started."""

    def __init__(self, package: Path) -> None:
        self._inside = str(package) + os.sep
        self._codes: set[Any] = set()
        self._git = self._others = self._written = 0
        self._cpu = time.process_time()

    def shown(self, what: str) -> dict[str, float]:
        """Return what was counted so far."""
        codes = set(self._codes)
        functions = [code for code in codes if code.co_name[0] != "<"]
        return {
            f"{what}: files entered": len({code.co_filename for code in codes}),
            f"{what}: functions entered": len(functions),
            f"{what}: git processes": self._git,
            f"{what}: other processes": self._others,
            f"{what}: bytes of notes.md and results.tsv": self._written,
            f"{what}: own CPU s": round(time.process_time() - self._cpu, 3),
        }

    def entered(self, frame: FrameType, what: str) -> None:
        """Take in what the profiler saw."""
        if what == "call" and frame.f_code.co_filename.startswith(self._inside):
            self._codes.add(frame.f_code)

    def audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take in what the interpreter is about to do."""
        if event == "subprocess.Popen":
            git = Path(os.fsdecode(arguments[0] or arguments[1][0])).name == "git"
            self._git += git
            self._others += not git
        elif event == "os.rename":
            source, target = (os.fsdecode(path) for path in arguments[:2])
            if Path(target).name in ("notes.md", "results.tsv"):
                self._written += Path(source).stat().st_size


def second_experiment(package: Path, profiled: bool) -> dict[str, float]:
    """Run a campaign of two experiments in this process and return what the second one took."""
    import autoresearch

    running: dict[str, Counter] = {}
    found: dict[str, float] = {}

    class Watch:
        """Starts the counters, and reads them when experiment 1 is decided."""

        @autoresearch.hookimpl
        def event_recorded(self, event: autoresearch.Recorded) -> None:
            about = (event.type, getattr(event.event, "experiment", None))
            if about == ("decided", 0):
                running["turn"] = Counter(package)
            if about == ("memory_reviewed", 1):
                running["experiment"] = Counter(package)
            if about == ("decided", 1):
                for name in ("experiment", "turn"):
                    found.update(running.pop(name).shown(name))

    def profile(frame: FrameType, what: str, _: object) -> None:
        for counter in tuple(running.values()):
            counter.entered(frame, what)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        for counter in tuple(running.values()):
            counter.audited(event, arguments)

    sys.addaudithook(audit)
    # Observers have threads of their own; what is profiled is the loop's.
    sys.setprofile(profile if profiled else None)
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        _prepare(project)
        plugins = (Watch(), "no:script_ideas")
        with autoresearch.start(project, tag="house", plugins=plugins) as campaign:
            campaign.add_idea(
                autoresearch.Idea(
                    direction="width", description="wider", hypothesis="it helps", patch=PATCH
                )
            )
            campaign.run(2, plugins=plugins, wait=False)
            assert [str(item.verdict) for item in campaign.history.experiments] == ["keep"] * 2
    return found


def _prepare(project: Path) -> None:
    for name, text in (("train.py", SCRIPT), ("autoresearch.toml", SETTINGS)):
        (project / name).write_text(text)
    name = ["-c", "user.name=house", "-c", "user.email=house@example.org"]
    for words in (["init", "--quiet"], ["add", "--all"], [*name, "commit", "--quiet", "-mStart"]):
        subprocess.run(["git", *words], cwd=project, check=True)


if __name__ == "__main__":
    main()
