"""Runs the sample campaign, chance beside it, and fresh seeds; packs them as campaign.tar.gz.

``.venv/bin/python docs/sample/make.py`` takes under an hour on a busy core. What it measures is
written to confirmed.csv, which docs/sample-campaign.md tells. The runs of chance are as many as
those of the campaign, so that both spend the same.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import socket
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from random import Random

import autoresearch
from autoresearch import Campaign, Experiment, History, Idea, hookimpl
from autoresearch.studies.worlds import RandomIdeas
from autoresearch.testing import git, make_project

HERE = Path(__file__).parent
SEEDS = (101, 102, 103)  # that no campaign has used
EXPERIMENTS = 30

# Each edit: what stands in the script, and what comes in its place.
BIGRAM = (
    (
        '    "outer_bias": np.zeros(256, np.float32),\n',
        '    "outer_bias": np.zeros(256, np.float32),\n'
        '    "pairs": np.zeros((256, 256), np.float32),\n',
    ),
    (
        "    logits -= logits.max",
        '    logits += weights["pairs"][seen[:, -1]]\n    logits -= logits.max',
    ),
    (
        '        "outer_bias": miss.sum(0),\n',
        '        "outer_bias": miss.sum(0),\n        "pairs": np.zeros((256, 256), np.float32),\n',
    ),
    (
        "    left = 1 - step",
        '    np.add.at(slope["pairs"], seen[:, -1], miss)\n    left = 1 - step',
    ),
)
TANH = (("np.maximum(", "np.tanh("), ('weights["inner_bias"], 0)', 'weights["inner_bias"])'),
        ("* (hidden > 0)", "* (1 - hidden**2)"))  # fmt: skip


class Chance:
    """One value at random, never that of the seed, which is no value of the method."""

    def __init__(self) -> None:
        self._ideas = RandomIdeas()

    @hookimpl
    def propose_idea(self, history: History, source: str, rng: Random) -> Idea | None:
        """Return the first change of another name."""
        drawn = (self._ideas.propose_idea(history, source, rng) for _ in range(50))
        return next((idea for idea in drawn if idea and idea.direction != "seed"), None)


def by_hand(campaign: Campaign, words: str, why: str, edits: tuple[tuple[str, str], ...]) -> None:
    """Queue an edit of the best script so far, as a person would."""
    best = campaign.history.best
    source = git(campaign.lab.folder, "show", f"{best.commit}:train.py") + "\n" if best else ""
    for old, new in edits:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    campaign.add_idea(
        Idea(direction="model", description=words, hypothesis=why, author="ann", source=source)
    )


def runs_of(campaign: Campaign) -> int:
    """Count the runs so far."""
    return sum(len(item.runs) for item in campaign.history.decided)


def confirm(campaign: Campaign, one: Experiment) -> list[list[object]]:
    """Run the script of an experiment once with each fresh seed."""
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "train.py"
        script.write_text(git(campaign.lab.folder, "show", f"{one.commit}:train.py") + "\n")
        for seed in SEEDS:
            env = {**os.environ, "SEED": str(seed), "OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                [sys.executable, str(script)], env=env, check=True, capture_output=True, text=True
            )
            score = float(re.findall(r"val_bpb: ([\d.]+)", done.stdout)[-1])
            rows.append([campaign.tag, one.number, one.commit[:7], seed, score])
    return rows


def pack(project: Path, target: Path) -> None:
    """Write the project as an archive without times and owners, and without what is made again."""
    made_again = (".autoresearch/events.duckdb", ".autoresearch/locks/", ".git/hooks", "run.log")
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(project.rglob("*")):
            inside = str(path.relative_to(project))
            if (
                inside.startswith(made_again)
                or path.name == "request.json"
                or "/.git/hooks" in inside
            ):
                continue
            entry = archive.gettarinfo(str(path), arcname=f"sample/{inside}")
            entry.mtime = entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            with path.open("rb") if path.is_file() else io.BytesIO() as file:
                archive.addfile(entry, file if path.is_file() else None)
    target.write_bytes(gzip.compress(raw.getvalue(), mtime=0))


def main() -> None:
    """Run everything and write the archive and the table."""
    # What is recorded of the machine should not be anybody's.
    os.environ |= {"LOGNAME": "researcher", "SHELL": ""}
    socket.gethostname = lambda: "lab"  # type: ignore[assignment]
    settings, script = ((HERE / name).read_text() for name in ("autoresearch.toml", "train.py"))
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder) / "sample", script=script, settings=settings)
        with autoresearch.start(project, tag="search") as campaign:
            campaign.run(until=10, wait=False, tell=print)
            by_hand(
                campaign,
                "add a table of byte pairs to the logits",
                "the last byte alone says much, and a table learns it at once",
                BIGRAM,
            )
            campaign.run(until=20, wait=False, tell=print)
            by_hand(campaign, "tanh in place of relu", "a small net wants no dead units", TANH)
            campaign.add_note("the rate was far too low; what is left is in the model")
            campaign.run(until=EXPERIMENTS, wait=False, tell=print)
        chosen = {"active": ("no:evidence", "no:script_ideas", "no:search")}
        with autoresearch.start(
            project, tag="chance", overrides=chosen, plugins=[Chance()]
        ) as chance:
            while runs_of(chance) < runs_of(campaign):
                chance.run(1, wait=False, plugins=[Chance()], tell=print)
        rows = [["campaign", "experiment", "commit", "seed", "val_bpb"]]
        told = campaign.history
        for owner, one in (
            (campaign, told.baseline), (campaign, told.best), (chance, chance.history.best)
        ):  # fmt: skip
            assert one is not None
            rows += confirm(owner, one)
        with (HERE / "confirmed.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        for repository in (project, campaign.lab.folder, chance.lab.folder):
            git(repository, "gc", "--quiet", "--prune=now")
        pack(project, HERE / "campaign.tar.gz")


if __name__ == "__main__":
    main()
