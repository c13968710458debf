"""A coding agent proposes by changing a copy: a scripted one, a rogue one, those that fail."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import psutil
import pytest
from facts import facts
from two_numbers import SCRIPT

import autoresearch
from autoresearch import Campaign, Verdict, events
from autoresearch.ideas.agent import read
from autoresearch.launchers.environment import no_bubblewrap
from autoresearch.testing import make_project

SAID = {
    "direction": "width",
    "description": "wider",
    "hypothesis": "a wider model scores better",
    "evidence": "experiment 0",
    "risk": "slower",
    "cites": [0],
    "predicted": 1.2,
}
SCRIPTED = f"""
import json, pathlib, sys
task = sys.stdin.read()
assert "1.29" in task and "train.py" in task
assert not pathlib.Path(".git").exists() and not pathlib.Path(".autoresearch").exists()
script = pathlib.Path("train.py")
script.write_text(script.read_text().replace("WIDTH = 4", "WIDTH = 6"))
pathlib.Path("README.md").write_text("mine")
text = "I made it wider.\\n" + json.dumps({SAID!r})
print(json.dumps({{"type": "result", "result": text, "is_error": False, "total_cost_usd": 0.25,
    "usage": {{"input_tokens": 100, "cache_read_input_tokens": 900, "output_tokens": 50}}}}))
"""


def start(tmp_path: Path, agent: str, **settings: object) -> Campaign:
    """A campaign whose only author is the agent, with its baseline run."""
    project = make_project(tmp_path / "project", script=SCRIPT)
    file = tmp_path / "agent.py"
    file.write_text(agent)
    overrides = {
        "active": ["agent", "no:script_ideas"],
        "boundary.reads": [str(file)],
        "plugins.agent.command": [sys.executable, str(file)],
        **{f"plugins.agent.{name}": value for name, value in settings.items()},
    }
    campaign = autoresearch.start(project, tag="t1", overrides=overrides)
    campaign.run(1, wait=False)
    return campaign


def test_a_scripted_agents_change_is_the_idea(tmp_path: Path) -> None:
    """Its change of the script runs; words, price and transcript are kept, the rest is told."""
    campaign = start(tmp_path, SCRIPTED)
    campaign.run(1, wait=False)
    experiment = campaign.history.experiments[1]
    assert experiment.verdict is Verdict.KEEP
    assert (experiment.idea.author, experiment.idea.description) == ("agent", "wider")
    assert (experiment.idea.predicted, experiment.idea.cites) == (1.2, (0,))
    assert campaign.history.spent.usd == 0.25
    assert campaign.history.spent.tokens == 1050
    (answer,) = facts(campaign, events.MindAnswered)
    assert "I made it wider" in campaign.log.sources.get(answer.answer)
    (refused,) = facts(campaign, events.ProposalRefused)
    assert "it changed README.md; only train.py may change" in refused.reason
    assert not (campaign.project / "README.md").exists()


ROGUE = """
import os, pathlib, subprocess, sys, time
sys.stdin.read()
place, marks = sys.argv[1:3]
for target in (place + "/train.py", place + "/.autoresearch/planted", marks + "/planted"):
    try:
        pathlib.Path(target).write_text("planted")
    except OSError:
        pass
seen = []
for entry in os.listdir("/proc"):
    if entry.isdigit():
        try:
            seen.append(pathlib.Path("/proc", entry, "environ").read_text(errors="replace"))
        except OSError:
            pass
pathlib.Path("seen.txt").write_text("leaked" if any("hunter2" in text for text in seen) else "no")
print("ENVIRON", pathlib.Path("seen.txt").read_text(), flush=True)
done = subprocess.run(["git", "push", "origin", "HEAD"], capture_output=True, text=True)
print("PUSH", done.returncode, flush=True)
script = pathlib.Path("train.py")
script.write_text(script.read_text().replace("WIDTH = 4", "WIDTH = 9"))
if os.fork() == 0:
    os.setsid()
    while True:
        time.sleep(0.1)
while True:
    time.sleep(0.1)
"""


def test_a_rogue_agent_gains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It forks, writes elsewhere, looks for keys, pushes and never ends: it is ended and told."""
    monkeypatch.setenv("SOME_API_KEY", "hunter2")
    marks = tmp_path / "marks"
    marks.mkdir()
    campaign = start(tmp_path, ROGUE, timeout_seconds=3.0)
    command = [*campaign.config.plugins["agent"]["command"], str(campaign.project), str(marks)]
    other = {"active": ["agent", "no:script_ideas"], "plugins.agent.command": command}
    overrides = {**other, "plugins.agent.timeout_seconds": 3.0}
    overrides |= {"boundary.reads": [command[1]]}
    campaign = autoresearch.start(campaign.project, tag="t2", overrides=overrides)
    reason = campaign.run(2, wait=False)
    assert "it was not done after 3 s" in reason
    assert len(campaign.history.experiments) == 1
    (answer,) = facts(campaign, events.MindAnswered)
    transcript = campaign.log.sources.get(answer.answer)
    assert "PUSH 0" not in transcript
    time.sleep(0.5)
    commands = [item.info["cmdline"] or () for item in psutil.process_iter(["cmdline"])]
    left = [words for words in commands if str(marks) in words]
    assert not left
    if no_bubblewrap():
        pytest.skip("without bubblewrap nothing keeps it from reading and writing elsewhere")
    assert "ENVIRON no" in transcript
    assert (campaign.project / "train.py").read_text() == SCRIPT
    assert not (campaign.project / ".autoresearch" / "planted").exists()
    assert not (marks / "planted").exists()


@pytest.mark.parametrize(
    ("agent", "told"),
    [
        (
            "import sys; sys.stdin.read(); print('nothing to do')",
            "changed nothing that it may change",
        ),
        ("import sys; sys.stdin.read(); sys.exit('no credit')", "exit code 1: no credit"),
        (
            'import sys; sys.stdin.read(); print(\'{"result": "login first", "is_error": true}\')',
            "login first",
        ),
        (
            "import pathlib, sys; sys.stdin.read(); p = pathlib.Path('train.py'); "
            "p.write_text(p.read_text() + '# more'); print('{\"cites\": [99]}')",
            "cites experiment 99, which is not there",
        ),
    ],
)
def test_an_agent_that_fails_is_told(tmp_path: Path, agent: str, told: str) -> None:
    """Its failure is in the reason why there is no idea, and nothing was proposed."""
    campaign = start(tmp_path, agent)
    assert told in campaign.run(1, wait=False)
    assert len(campaign.history.experiments) == 1


def test_a_missing_agent_is_named(tmp_path: Path) -> None:
    """A program that is not there suspends it, with what to do."""
    campaign = start(tmp_path, "", command=["no-such-agent"])
    assert "no-such-agent cannot be started" in campaign.run(1, wait=False)
    assert "agent" in campaign.history.suspended


def test_words_are_turned_into_code(tmp_path: Path) -> None:
    """A person's words in the queue are made by the agent."""
    campaign = start(tmp_path, SCRIPTED)
    campaign.add_idea(autoresearch.Idea(direction="w", description="go wider", hypothesis="h"))
    campaign.run(1, wait=False)
    experiment = campaign.history.experiments[1]
    assert (experiment.idea.description, experiment.verdict) == ("go wider", Verdict.KEEP)


def test_outputs_are_read() -> None:
    """Events of codex, a result of claude, plain text: words, tokens, dollars, failures."""
    lines = [
        {"type": "thread.started", "thread_id": "1"},
        {"type": "item.completed", "item": {"type": "agent_message", "text": "done"}},
        {"type": "turn.completed", "usage": {"input_tokens": 10, "output_tokens": 5}},
    ]
    codex = read("\n".join(map(json.dumps, lines)))
    assert (codex.text, codex.cost.tokens_in, codex.cost.tokens_out) == ("done", 10, 5)
    failed = read(json.dumps({"type": "turn.failed", "error": {"message": "no key"}}))
    assert "no key" in failed.failed
    claude = read(json.dumps({"result": "ok", "total_cost_usd": 0.5, "is_error": False}))
    assert (claude.text, claude.cost.usd, claude.failed) == ("ok", 0.5, "")
    assert read("just words").text == "just words"
    assert read('{"result": null, "total_cost_usd": -1}').cost.usd == 0.0
