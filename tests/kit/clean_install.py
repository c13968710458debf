"""Installs packages in clean environments, one for each Python there is, and runs the demo there.

``python tests/kit/clean_install.py dist/*.whl dist/*.tar.gz``: needs an index for the dependencies.
Says which versions are not at hand; exits with 1 when one that is fails.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13", "3.14")
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def interpreters() -> Iterator[tuple[str, str | None]]:
    """Yield each version with a Python that runs, or None: a shim alone does not run."""
    managed = Path.home() / ".pyenv" / "versions"
    for version in VERSIONS:
        places = [shutil.which(f"python{version}"), *managed.glob(f"{version}.*/bin/python")]
        works = (
            str(place)
            for place in places
            if place and subprocess.run([place, "-c", ""], capture_output=True).returncode == 0
        )
        yield version, next(works, None)


def tried(python: str, package: str) -> str:
    """Return what went wrong with a package in an environment of its own, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "venv" / "bin"
        for words in (
            (python, "-m", "venv", there.parent),
            (there / "python", "-m", "pip", "install", "-q", "-c", CONSTRAINTS, package),
            (there / "autoresearch", "--version"),
            (there / "autoresearch", "demo", "--folder", Path(folder) / "demo"),
            (there / "autoresearch", "verify", "--project", Path(folder) / "demo"),
            (there / "autoresearch", "init", "--template", "plain", "--project", folder),
        ):
            done = subprocess.run([*map(str, words)], capture_output=True, text=True, cwd=folder)
            if done.returncode:
                return f"{words[0]}: {done.stderr.strip() or done.stdout.strip()}"
    return ""


def main(packages: list[str]) -> int:
    """Try each package on each Python, and say how it went."""
    failed = False
    for (version, python), package in itertools.product(interpreters(), packages):
        problem = "" if python is None else tried(python, str(Path(package).resolve()))
        told = problem or ("installs and runs" if python else "not at hand, not tried")
        print(f"Python {version}, {Path(package).name}: {told}", flush=True)
        failed |= bool(problem)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
