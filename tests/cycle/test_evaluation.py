"""A campaign whose score comes from a command that the changed script cannot touch."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import pytest

import autoresearch
from autoresearch import Campaign, History, Idea, RunOutput, RunStatus, Verdict, events, hookimpl
from autoresearch.cli import main
from autoresearch.cycle.recorder import Clock
from autoresearch.desk import Desk
from autoresearch.errors import BlockedError, WorkspaceError
from autoresearch.evidence import missing_things
from autoresearch.launchers.supervisor import RUN_MARKER
from autoresearch.testing import ScriptedIdeas, make_project, set_constant
from autoresearch.testing.builders import SETTINGS, run_output


class Time(Clock):
    """A clock that does not wait."""

    def sleep(self, seconds: float) -> None:
        """Let what really runs go on."""
        time.sleep(min(seconds, 0.05))


SCRIPT = """import os
WIDTH = 4
with open("model.txt", "w") as file:
    file.write(str(WIDTH))
print("loss: 3")
"""
EVALUATE = """import sys
from pathlib import Path
from limits import PERFECT
width = int(Path(sys.argv[1], "model.txt").read_text())
print(f"score: {1.0 + 0.01 * (width - PERFECT) ** 2:.6f}")
"""
HIDDEN = EVALUATE.replace("1.0 +", "0.7654321 +")
COMMAND = '[evaluation]\ncommand = ["{python}", "evaluate.py", "{run}"]\n'
BOTH = COMMAND + 'hidden_command = ["{python}", "hidden.py", "{run}"]\n'
FILES = {"evaluate.py": EVALUATE, "hidden.py": HIDDEN, "limits.py": "PERFECT = 7\n"}


def run(
    tmp_path: Path, *ideas: object, settings: str = COMMAND, top: str = "", script: str = SCRIPT,
    files: dict[str, str] = FILES, plugins: tuple[object, ...] = (), clock: Time | None = None,
) -> Campaign:  # fmt: skip
    """Run the baseline and these ideas."""
    project = make_project(
        tmp_path / "project", script=script, settings=top + SETTINGS + settings, files=files
    )
    active = (ScriptedIdeas(list(ideas)), "no:script_ideas", *plugins)  # type: ignore[arg-type]
    made = autoresearch.start(project, tag="t1", plugins=active)
    made.run(1 + len(ideas), plugins=active, wait=False, clock=clock)
    return made


def rewritten(source: str) -> Idea:
    """An idea that prints its own score and tampers with the files that judge it."""
    forged = "for name in ('evaluate.py', 'limits.py'):\n"
    forged += "    open(name, 'w').write('print(\"score: 0\")')\n"
    forged += f"print('score:', 1 - 1)\n{source}"
    return Idea(direction="cheat", description="cheat", hypothesis="lower", source=forged)


def test_the_score_is_the_evaluations_and_the_script_cannot_fake_it(tmp_path: Path) -> None:
    """What the script prints under the metric's name and writes into its checkout is void."""
    made = run(tmp_path, rewritten, set_constant("WIDTH", 6))
    scores = [made.history.score(item) for item in made.history.experiments]
    assert scores == pytest.approx([1.09, 1.09, 1.01])
    assert made.history.experiments[1].verdict is Verdict.DISCARD
    assert made.history.experiments[2].runs[0].metrics["loss"] == 3.0
    told = [r.event for r in made.log.read() if isinstance(r.event, events.Evaluated)]
    assert [item.value for item in told] == pytest.approx([1.09, 1.09, 1.01])
    assert all(item.log_digest and item.seconds > 0 for item in told)


def test_editable_modules_come_from_the_pristine_commit(tmp_path: Path) -> None:
    """An idea that changes what the evaluation imports changes nothing of its judge."""
    easier = Idea(
        direction="limits", description="easier", hypothesis="lower",
        files={"limits.py": "PERFECT = 4\n"},
    )  # fmt: skip
    made = run(tmp_path, easier, top='editable = ["limits.py"]\n')
    assert made.history.score(made.history.experiments[1]) == pytest.approx(1.09)


def test_a_failed_evaluation_is_not_the_ideas_crash(tmp_path: Path) -> None:
    """It is told with its last line and made again, and nothing else is: the run was good."""
    count = tmp_path / "count"
    broken = f"""
from pathlib import Path
count = Path({str(count)!r})
count.write_text(count.read_text() + "x" if count.exists() else "x")
if len(count.read_text()) < 3:
    raise ValueError("no tokens")
"""
    settings = COMMAND + '[boundary]\nkind = "none"\n'
    made = run(tmp_path, settings=settings, files={**FILES, "evaluate.py": broken + EVALUATE})
    only = made.history.experiments[0]
    assert count.read_text() == "xxx"
    assert [item.status for item in only.runs] == [RunStatus.COMPLETED]
    assert made.history.score(only) == pytest.approx(1.09)
    assert made.log.verify().ok
    assert not list(missing_things(made.log))


def test_an_evaluation_that_always_fails_is_waited_for(tmp_path: Path) -> None:
    """Told not to wait, the loop ends with the evaluation's last line, and without a verdict."""
    broken = {**FILES, "evaluate.py": "raise ValueError('no tokens')\n"}
    problem = "the evaluation of t1-0-0 failed: exit code 1; ValueError: no tokens"
    with pytest.raises(BlockedError, match=problem):
        run(tmp_path, files=broken, clock=Time())
    made = autoresearch.open_campaign(tmp_path / "project")
    assert made.history.experiments[0].verdict is None
    facts = [record.event for record in made.log.read()]
    paused = [item.reason for item in facts if isinstance(item, events.Paused)]
    assert paused == [problem]


def test_a_run_that_leaves_nothing_to_evaluate_has_crashed(tmp_path: Path) -> None:
    """Missing outputs are the script's fault."""
    made = run(tmp_path, script="print('score: 1')\n")
    run_made = made.history.experiments[0].runs[-1]
    assert run_made.status is RunStatus.CRASHED
    assert "left nothing to evaluate" in run_made.detail


class Spy:
    """Keeps the text of everything that any hook is given."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl
    def event_recorded(self, event: Any, history: Any) -> None:
        """Keep the event and the History."""
        self.seen.append(f"{event!r} {history!r}")

    @hookimpl
    def propose_idea(self, history: Any, source: str) -> None:
        """Keep the History."""
        self.seen.append(repr(history))

    @hookimpl
    def extract_metrics(self, output: Any) -> None:
        """Keep what the output says."""
        self.seen.append(f"{output!r} {output.log_path.read_text()}")


def test_the_hidden_score_is_in_the_log_and_in_nothing_that_a_mind_reads(tmp_path: Path) -> None:
    """People find it in SQL; no plugin, prompt or file of the memory holds it."""
    spy = Spy()
    made = run(tmp_path, set_constant("WIDTH", 6), settings=BOTH, plugins=(spy,))
    with made.connect() as sql:
        found = sql.sql(
            "SELECT name, value FROM evaluated WHERE hidden ORDER BY position"
        ).fetchall()
    assert found == [
        ("hidden/score", pytest.approx(0.8554321)),
        ("hidden/score", pytest.approx(0.7754321)),
    ]
    files = [(made.project / name).read_text() for name in ("notes.md", "results.tsv")]
    assert spy.seen
    for text in (*spy.seen, *files, repr(made.history)):
        assert "0.85543" not in text
        assert "0.77543" not in text


@pytest.mark.parametrize("word", ["train.py", "{script}", "./limits.py"])
def test_what_an_idea_may_change_cannot_be_the_judge(tmp_path: Path, word: str) -> None:
    """The campaign does not start."""
    settings = f'[evaluation]\ncommand = ["{{python}}", "{word}"]\n'
    with pytest.raises(WorkspaceError, match="which an idea may change"):
        run(tmp_path, settings=settings, top='editable = ["limits.py"]\n')


def test_status_says_when_the_hidden_score_disagrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gain that the hidden evaluation does not see is told to people."""
    upside_down = EVALUATE.replace("1.0 + 0.01", "1.0 - 0.01")
    made = run(
        tmp_path, set_constant("WIDTH", 6), settings=BOTH, files={**FILES, "hidden.py": upside_down}
    )
    monkeypatch.chdir(made.project)

    def said(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["autoresearch", *words])
        capsys.readouterr()
        with contextlib.suppress(SystemExit):
            main()
        return capsys.readouterr().out

    assert "visible and hidden scores disagree: experiment 0 has 0.91" in said("status")
    assert "hidden score 0.91, for you alone" in said("show", "0")
    monkeypatch.setenv(RUN_MARKER, str(tmp_path))
    assert "hidden score" not in said("show", "0")


class Looks:
    """A plugin that runs a script of its own beside each run, and asks for it twice."""

    name = "looks"

    def __init__(self) -> None:
        self.found: list[RunOutput] = []

    @hookimpl
    def audit_run(self, output: RunOutput, desk: Desk) -> None:
        """Look at the run from a job."""
        job = "import os\nopen('count', 'a').write('x')\nprint('beside', os.environ['RUN_ID'])\n"
        self.found += [desk.job(output, "look", job, seconds=60.0) for _ in range(2)]


def test_a_job_beside_a_run_is_started_once(tmp_path: Path) -> None:
    """The launcher of the campaign runs it under a name of its own, and it is paid for once."""
    looks = Looks()
    made = run(tmp_path, settings="", script="print('score: 1', 'loss: 3')\n", plugins=(looks,))
    assert [item.status for item in looks.found] == [RunStatus.COMPLETED] * 2
    assert {item.name for item in looks.found} == {"t1-0-0-look"}
    assert looks.found[0].log_path.read_text() == "beside t1-0-0-look\n"
    assert (looks.found[1].folder / "count").read_text() == "x"
    costs = [r.event for r in made.log.read() if isinstance(r.event, events.CostIncurred)]
    assert [(item.kind, item.experiment) for item in costs] == [("run", 0)] * 2
    assert len(made.history.experiments[0].runs) == 1


def test_without_a_loop_there_is_no_job(tmp_path: Path) -> None:
    """A desk that no loop lends hands runs nothing."""
    assert Desk(history=History()).job(run_output(tmp_path), "look", "print()") is None
