"""Draws docs/progress.png from the shipped campaign: ``python docs/sample/pictures.py``."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

import autoresearch
from autoresearch.report import draw

HERE = Path(__file__).parent


def unpack(folder: Path) -> Path:
    """Unpack the shipped project into a folder and return it."""
    with tarfile.open(HERE / "campaign.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "sample"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        draw(
            autoresearch.open_campaign(unpack(Path(place)), "search").plot(),
            HERE.parent / "progress.png",
        )
