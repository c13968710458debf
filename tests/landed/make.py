"""Writes tests/landed/project.tar.gz and tests/landed/expected: a campaign of release 0.1.0.

Run ``python tests/landed/make.py`` with that release only (commit 8d6ddc5). What it left is what
people have on their disks: it is never written again, and must be read for ever. The archive is a
whole project with its store; events.duckdb, the locks and the link run.log are left out, since they
are made again. ``expected`` holds what that release showed of it.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import duckdb

import autoresearch
from autoresearch import Campaign, Idea, Verdict
from autoresearch.projections import remembered
from autoresearch.testing import git, make_project

HERE = Path(__file__).parent
VIEWS = (
    "campaigns", "runs", "decisions", "experiments", "metrics", "ideas", "lessons", "dead_ends",
    "costs", "sources",
)  # fmt: skip

SCRIPT = """import os
import time

WIDTH = 4
RATE = 0.5
BONUS = 0.0
STEPS = 1

rate = float(os.environ.get("RATE", RATE))
seed = int(os.environ.get("SEED", "1337"))
noise = (seed % 3 - 1) * 0.0002
score = 1.0 + 0.01 * (WIDTH - 7) ** 2 + abs(rate - 0.3) + noise - BONUS
for step in range(STEPS):
    print(f"step:{step + 1}/{STEPS} score:{score + 1 / (step + 1):.6f}", flush=True)
    time.sleep(0.2 if STEPS > 1 else 0.0)
print(f"artifact_bytes: {100_000 + 1_000 * WIDTH}")
print(f"score: {score:.6f}")
"""

SETTINGS = """preset = "plain"
script = "train.py"
active = ["evidence", "no:script_ideas"]

[metric]
name = "score"
better = "lower"
sd = 0.0005
implausible_gain = 0.3

[limits]
timeout_seconds = 60.0
"""

PATCH = """--- a/train.py
+++ b/train.py
@@ -5,4 +5,4 @@
 WIDTH = math.floor(7.9)
 RATE = 0.499
-BONUS = 0.0
+BONUS = 0.01
 STEPS = 1
"""

PLUGIN = '''"""The ideas of this campaign in order, an audit, an early stop, and their costs."""

from autoresearch import Cost, Idea, Violation, hookimpl

STEPS = (
    ("width", "WIDTH = 4", "WIDTH = 6", 1.209),
    ("width", "WIDTH = 6", "WIDTH = 1", None),
    ("edit", "import time", "import time\\n1 / 0", None),
    ("width", "WIDTH = 6", "WIDTH = math.floor(7.9)", 1.2),
    ("edit", "STEPS = 1", "STEPS = (", None),
    ("edit", "STEPS = 1", "STEPS = 1  # socket", None),
    ("rate", "RATE = 0.5", "RATE = 0.499", None),
    ("bonus", "BONUS = 0.0", "BONUS = 0.45", None),
    ("bonus", "BONUS = 0.0", "BONUS = 0.5", None),
    ("bonus", "BONUS = 0.0", "BONUS = -0.5", None),
    ("edit", "STEPS = 1", "STEPS = 40\\nprint('hopeless: 1', flush=True)", None),
    ("wide", "math.floor(7.9)", "12", None),
    ("wide", "math.floor(7.9)", "13", None),
    ("wide", "math.floor(7.9)", "14", None),
    ("steps", "STEPS = 1", "STEPS = 2", None),
    ("steps", "STEPS = 1", "STEPS = 3", None),
    ("steps", "STEPS = 1", "STEPS = 4", None),
    ("steps", "STEPS = 1", "STEPS = 5", None),
)


class Plugin:
    def __init__(self):
        self.costs = []

    @hookimpl
    def propose_idea(self, history, source):
        if history.queue:
            return None
        gone = {getattr(item, "idea", None) for item in history.rejected}
        for direction, old, new, predicted in STEPS:
            idea = Idea(
                direction=direction,
                description=f"{old!r} becomes {new!r}",
                hypothesis=f"{new!r} scores better\\nthan {old!r}",
                evidence=("the shape of the bowl",),
                source=source.replace(old, new, 1),
                predicted=predicted,
            )
            told = {item.idea.description for item in history.experiments}
            if old in source and idea.description not in told and idea.id not in gone:
                self.costs.append(Cost(tokens_in=120, tokens_out=30, usd=0.002))
                return idea
        return None

    @hookimpl
    def audit_change(self, change):
        found = "socket" in change.after
        return [Violation(rule="net", detail="opens a socket", line=7)] if found else []

    @hookimpl
    def should_stop_run(self, observed):
        return "it said so" if observed.get("hopeless") else None

    @hookimpl
    def report_costs(self):
        costs, self.costs = self.costs, []
        return costs

    @hookimpl
    def notify(self, notice):
        if notice.kind == "stuck":
            raise RuntimeError("the pager is down")
'''


def tell(campaign: Campaign) -> None:
    """Run the campaign in three sittings, with a person's doings in between."""
    campaign.run(experiments=6, wait=False, tell=print)
    campaign.add_note("look at the rate;\tit matters")
    campaign.add_idea(
        Idea(
            direction="rate",
            description="a lower rate",
            hypothesis="0.4 is nearer to the floor",
            env={"RATE": "0.4"},
            expected_gain=0.1,
        )
    )
    campaign.add_idea(
        Idea(
            direction="bonus",
            description="a small bonus by patch",
            hypothesis="a bonus is a bonus",
            patch=PATCH,
            expected_gain=0.01,
        )
    )
    campaign.run(experiments=5, wait=False, tell=print)
    doubted = [
        item.number for item in campaign.history.experiments if item.verdict is Verdict.QUARANTINE
    ]
    campaign.resolve_quarantine(doubted[0], release=False, reason="too good")
    campaign.resolve_quarantine(doubted[1], release=True, reason="the bonus is real")
    campaign.run(until=15, wait=False, tell=print)
    (dropped, _) = (
        campaign.add_idea(
            Idea(direction="rate", description=f"rate {rate}", hypothesis="h", env={"RATE": rate})
        )
        for rate in ("0.9", "0.35")
    )
    campaign.drop_idea(dropped, "a slip of the keys")
    campaign.add_note("the rest tomorrow")


def shown(project: Path) -> dict[str, list[dict[str, object]]]:
    """Return the rows of every view, as JSON has them."""
    with autoresearch.connect(project) as connection:
        return {name: rows(connection, name) for name in VIEWS}


def rows(connection: duckdb.DuckDBPyConnection, name: str) -> list[dict[str, object]]:
    """Return the rows of one view in a fixed order; times are text."""
    found = connection.execute(f'SELECT * FROM "{name}"')
    names = [column[0] for column in found.description]
    made = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    return sorted(
        (json.loads(json.dumps(row, default=str)) for row in made),
        key=lambda row: json.dumps(row, sort_keys=True),
    )


def pack(project: Path, target: Path) -> None:
    """Write the project as an archive without times and owners."""
    made_again = (".autoresearch/events.duckdb", ".autoresearch/locks/", ".git/hooks", "run.log")
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(project.rglob("*")):
            inside = path.relative_to(project)
            if str(inside).startswith(made_again):
                continue
            entry = archive.gettarinfo(str(path), arcname=str(inside))
            entry.mtime = entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            with path.open("rb") if path.is_file() else io.BytesIO() as file:
                archive.addfile(entry, file if path.is_file() else None)
    target.write_bytes(gzip.compress(raw.getvalue(), mtime=0))


def main() -> None:
    """Write the archive and what is expected of it."""
    # What is recorded of the machine should not be anybody's.
    os.environ |= {"LOGNAME": "researcher", "HOME": "/tmp", "PATH": "/usr/bin:/bin", "SHELL": ""}
    socket.gethostname = lambda: "lab"  # it stands in the names of journals
    remembered.WORTH = 1  # a short history gets a snapshot as well
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(
            Path(folder) / "project", SCRIPT, SETTINGS, {"plugins/steps.py": PLUGIN}
        )
        with autoresearch.start(project, tag="old") as campaign:
            tell(campaign)
        autoresearch.open_campaign(project, "old").history  # noqa: B018  (this makes a snapshot)
        for repository in (project, project / ".autoresearch" / "old" / "lab"):
            git(repository, "gc", "--quiet", "--prune=now")
        command = [sys.executable, "-m", "autoresearch"]
        subprocess.run([*command, "rebuild"], cwd=project, check=True)
        done = subprocess.run(
            [*command, "verify", "--json"], cwd=project, check=True, capture_output=True
        )
        expected = HERE / "expected"
        shutil.rmtree(expected, ignore_errors=True)
        expected.mkdir()
        (expected / "verify.json").write_bytes(done.stdout)
        (expected / "views.json").write_text(json.dumps(shown(project), indent=1) + "\n")
        for name in ("results.tsv", "notes.md"):
            shutil.copy(project / name, expected / name)
        pack(project, HERE / "project.tar.gz")


if __name__ == "__main__":
    main()
