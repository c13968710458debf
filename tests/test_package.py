"""The wheel and the source distribution have all that a project needs, without the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from autoresearch.presets import presets

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel, built from the source distribution as an index would have it."""
    folder = tmp_path_factory.mktemp("package")

    def build(kind: str, place: Path) -> None:
        words = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), "-t", kind]
        subprocess.run(words, cwd=place, check=True, capture_output=True)

    build("sdist", ROOT)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    source = next(path for path in folder.iterdir() if path.is_dir())
    build("wheel", source)
    shutil.rmtree(source)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extractall(folder / "there")
    return folder / "there"


def test_the_wheel_lays_the_challenges_files_and_runs_the_demo(wheel: Path, tmp_path: Path) -> None:
    """Every template, byte for byte, and a campaign, with nothing of the checkout on the path."""
    for name in presets()["golf"].template:
        laid = wheel / "autoresearch" / "templates" / "golf" / name
        own = ROOT / "src" / "autoresearch" / "templates" / "golf" / name
        assert laid.read_bytes() == (own if own.exists() else ROOT / name).read_bytes(), name
    env = {**os.environ, "PYTHONPATH": str(wheel)}

    def call(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "autoresearch", *words], cwd=tmp_path, env=env,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import autoresearch; print(autoresearch.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, env=env, capture_output=True
    )
    assert str(wheel) in found.stdout.decode()
    assert "quarantine" in call("demo", "--folder", "d")
    call("report", "--project", "d", "--out", "report.html")
    assert (tmp_path / "report.html").stat().st_size > 20_000
