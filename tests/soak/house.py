"""The campaign under test: its project, its loop in a child process, and what must hold of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path
from threading import Thread

import psutil

import autoresearch
from autoresearch.evidence import anchors_in, missing_things
from autoresearch.folding import empty, fold
from autoresearch.model import RunStatus, Verdict
from autoresearch.projections import remembered_history
from autoresearch.projections.files import NotesMd, ResultsTsv
from autoresearch.testing import git, make_project

TAG = "soak"
SCRIPT = """import os
import time
RATE = 0.5
WIDTH = 4
with open(os.environ["SOAK_STARTS"], "a") as file:
    file.write(os.environ["RUN_ID"] + "\\n")
{wait}
print(f"score: {1.0 + 0.01 * (WIDTH % 13 - 7) ** 2 + abs(RATE - 0.3):.6f}")
"""
A_MOMENT = "time.sleep(0.05)"
# However slow the machine: over only when as many as are to be under way have started after it;
# the baseline runs alone.
TILL_OTHERS_START = """
def started():
    return open(os.environ["SOAK_STARTS"]).read().split()
mine = started().index(os.environ["RUN_ID"])
while "-0-" not in os.environ["RUN_ID"] and len(started()) < min(mine + {parallel}, {until}):
    time.sleep(0.1)
"""
SETTINGS = """preset = "plain"
active = [{blocked}]
script = "train.py"
env = {{ SOAK_STARTS = "{starts}" }}
[metric]
name = "score"
[limits]
infra_retries = 5
[boundary]
writes = ["{outside}"]
"""
DECIDED = re.compile(rb'"verdict":"(?!rerun)[a-z]+"\},"schema_version":\d+,"stream":"soak",'
                     rb'"type":"decided"')  # fmt: skip


class House:
    """A project in a folder of its own; everything outside the project stands beside it."""

    def __init__(
        self, folder: Path, *, parallel: int = 1, wait: str = A_MOMENT, blocked: str = ""
    ) -> None:
        self.folder, self.parallel = folder, parallel
        self.trouble = folder / "trouble"
        self.trouble.mkdir(parents=True)
        self.starts = folder / "outside" / "starts.txt"
        self.starts.parent.mkdir()
        mind = Path(__file__).with_name("mind.py").read_text()
        self.project = make_project(
            folder / "project", SCRIPT.replace("{wait}", wait),
            SETTINGS.format(blocked=blocked, starts=self.starts, outside=self.starts.parent),
            {"plugins/mind.py": mind, "README.md": "A toy.\n"},
        )  # fmt: skip
        self.store = self.project / ".autoresearch"
        self.user_commits: list[str] = []
        self.child: subprocess.Popen[str] | None = None
        self.lines: deque[str] = deque()
        self.reader: Thread | None = None
        self.endings: Counter[str] = Counter()
        self.violations: list[str] = []
        self.samples: list[tuple[int, float, int]] = []  # decided, MB, open files of one child
        self.longest: list[tuple[int, float, int]] = []
        self.started_at, self.struck = 0, False
        self._read: dict[Path, int] = {}
        self._decided = 0
        autoresearch.start(self.project, tag=TAG, environ={})

    # --- the child --------------------------------------------------------------------------

    def go_on(self, until: int) -> None:
        """Start the loop as a person does, if it does not run."""
        if self.child is not None and self.child.poll() is None:
            return
        self.child = subprocess.Popen(
            [
                *(sys.executable, "-m", "autoresearch", "run", "--until", str(until), "--no-wait"),
                *("--parallel", str(self.parallel)),
            ],
            cwd=self.project,
            env={**os.environ, "SOAK_TROUBLE": str(self.trouble), "NO_COLOR": "1"},
            stdout=subprocess.PIPE,  # a file would be full when the disk is
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.lines = deque(maxlen=400)
        self.reader = Thread(target=self._listen, args=(self.child, self.lines), daemon=True)
        self.reader.start()
        self.samples, self.started_at, self.struck = [], self.decided(), False

    @staticmethod
    def _listen(child: subprocess.Popen[str], lines: deque[str]) -> None:
        assert child.stdout is not None
        with child.stdout:
            lines.extend(child.stdout)

    @property
    def said(self) -> str:
        """What the newest child printed last."""
        return "".join(list(self.lines)).strip()

    def ended(self) -> str | None:
        """Return how the child ended, None while it runs; count it, and keep what is wrong."""
        if self.child is None or (code := self.child.poll()) is None:
            return None
        self.child = None
        if len(self.samples) > 1 and self._span(self.samples) >= self._span(self.longest):
            self.longest = self.samples
        if self.reader is not None:
            self.reader.join(5)
        said = self.said
        last = said.splitlines()[-1][:300] if said else "nothing"
        if "Traceback (most recent call last):\n" in said:
            self.add("a fault", f"traceback with exit code {code}: {said[-1500:]}")
        kind = {0: "finished or stopped", 1: "error of one line", 130: "interrupted"}.get(
            code, "killed" if code < 0 else f"exit code {code}"
        )
        if code not in (0, 1, 130) and not (self.struck and code < 0):
            self.add("a fault", f"exit code {code}: {last}")
        self.endings[kind] += 1
        return last if code == 1 else ""

    @staticmethod
    def _span(samples: list[tuple[int, float, int]]) -> int:
        return samples[-1][0] - samples[0][0] if samples else 0

    def strike_down(self) -> None:
        """Kill the loop and do not wait."""
        self.struck = True
        if self.child is not None:
            self.child.kill()

    def kill(self, number: int = signal.SIGKILL, patience: float = 60.0) -> None:
        """Send the loop a signal and wait for its end."""
        self.struck = True
        if self.child is not None:
            self.child.send_signal(number)
            try:
                self.child.wait(patience)
            except subprocess.TimeoutExpired:
                self.add(
                    "a fault", f"the loop does not end after signal {number}: {self.said[-300:]}"
                )
                self.child.kill()
                self.child.wait()

    def measure(self) -> None:
        """Note memory and open files of the child, from its first verdict on."""
        ready = self.decided() > self.started_at
        if ready and self.child is not None and self.child.poll() is None:
            with suppress(psutil.Error):
                process = psutil.Process(self.child.pid)
                megabytes = process.memory_info().rss / 1e6
                self.samples.append((self.decided(), megabytes, process.num_fds()))

    def decided(self) -> int:
        """Count the verdicts in the journals, reading only what is new."""
        for path in (self.store / "journal").glob(f"{TAG}@*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                whole, newline, _ = file.read().rpartition(b"\n")
            self._read[path] = self._read.get(path, 0) + len(whole) + len(newline)
            self._decided += len(DECIDED.findall(whole))
        return self._decided

    # --- what must hold ---------------------------------------------------------------------

    def runs(self) -> list[str]:
        """Return the names of the runs that wrote down their start, in its order."""
        return self.starts.read_text().split() if self.starts.exists() else []

    def quick_check(self, after: str) -> None:
        """Check what can be checked at any moment and costs little."""
        for name, count in Counter(self.runs()).items():
            if count > 1:
                self.add(after, f"run {name} was started {count} times")
        reachable = set(git(self.project, "rev-list", "--all").split())
        for commit in self.user_commits:
            if commit not in reachable:
                self.add(after, f"the user's commit {commit} has no ref")

    def check(self, after: str) -> None:
        """Check the log and what it names, while the loop runs or not."""
        self.quick_check(after)
        campaign = autoresearch.open_campaign(self.project)
        report = campaign.log.verify(anchors_in(self.project))
        for finding in report.findings:
            self.add(after, f"verify: {finding}")
        for found in missing_things(campaign.log) if report.ok else ():
            # What is published to the user's repository may come a step later.
            if "this repository" not in str(found):
                self.add(after, f"missing: {found}")
        known = remembered_history(campaign.log, TAG)
        if known != fold(empty(TAG), campaign.log.read(until=known.position)):
            self.add(after, "the history from the snapshot is not that from scratch")
        for item in known.decided:
            run = item.runs[-1] if item.runs else None
            if run is not None and run.status is RunStatus.INFRA_FAILED:
                problem = f"an infra fault became the verdict {item.verdict}: {run.detail[:300]}"
                self.add(after, f"experiment {item.number}: {problem}")
            elif item.verdict in (Verdict.CRASH, Verdict.QUARANTINE):
                detail = run.detail[:300] if run else ""
                self.add(after, f"experiment {item.number}: verdict {item.verdict}: {detail}")

    def check_end(self, until: int) -> None:
        """Check what must hold once the loop has come to its end undisturbed."""
        self.check("the end")
        campaign = autoresearch.open_campaign(self.project)
        history = campaign.history
        ran = len(set(self.runs()))
        if ran < until:
            self.add("the end", f"{ran} runs wrote down their start, fewer than experiments")
        if history.current is not None or len(history.decided) != until:
            self.add("the end", f"{len(history.decided)} of {until} experiments are decided")
        for projection in (ResultsTsv(), NotesMd()):
            for folder in (self.project, campaign.lab.folder):
                path = folder / projection.file_name
                if path.read_text() != projection.render(history):
                    self.add("the end", f"{path} is not what rebuild makes")
        for found in missing_things(campaign.log):
            self.add("the end", f"missing: {found}")
        deadline = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        for line in left:
            self.add("the end", f"stray process: {line}")

    def processes(self) -> list[str]:
        """Return the command lines of processes that belong to the project, the loop's apart."""
        found = []
        for process in psutil.process_iter(["pid", "cmdline"]):
            words = " ".join(process.info["cmdline"] or ())
            if str(self.folder) in words and process.info["pid"] != os.getpid():
                found.append(f"{process.info['pid']} {words[:200]}")
        return found

    def supervisors(self) -> list[psutil.Process]:
        """Return the supervisors of the project's runs."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or ()
            if "autoresearch.launchers.supervisor" in words and str(self.store) in " ".join(words):
                found.append(process)
        return found

    def remove(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, after: str, problem: str) -> None:
        """Remember a violation once, and print it."""
        if not any(problem in known for known in self.violations):
            self.violations.append(f"after {after}: {problem}")
            print(f"VIOLATION {self.violations[-1]}", flush=True)
