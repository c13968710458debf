"""The instructions for agents: whoever follows their text alone does whole experiments."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import autoresearch
from autoresearch.cli import main
from autoresearch.driving.agents import PLACES, program, write
from autoresearch.errors import WorkspaceError

Say = Callable[..., str]


@pytest.fixture
def say(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command line in the project and return what it printed; it has to succeed."""

    def call(*words: str) -> str:
        monkeypatch.chdir(project)
        monkeypatch.setattr(sys, "argv", [*words])
        capsys.readouterr()
        main()
        return capsys.readouterr().out

    return call


class Reader:
    """Knows nothing but the text: its commands in their order, and where it says to edit."""

    def __init__(self, text: str, say: Say) -> None:
        self.say = say
        blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
        self.commands = [block.replace("\\\n", " ") for block in blocks]
        found = re.search(r"You may change: `([^`]+)`", text)
        assert found is not None
        self.file = found[1]
        self.next = "review"

    def experiment(self, change: Callable[[str], str], words: dict[str, str]) -> None:
        """Do one experiment; angle brackets are filled in, the folder is what was printed."""
        for command in self.commands:
            while command.split()[2] == self.next:
                told = re.sub(r"<([^>]+)>", lambda found: words.get(found[1], "as told"), command)
                said = self.say(*shlex.split(told))
                found = re.search(r"^next: (\w+) \(experiment (\d+)\)", said, re.MULTILINE)
                assert found is not None, said
                self.next = found[1]
                if folder := re.search(r"change the files in (\S+), then", said):
                    file = Path(folder[1], self.file)
                    file.write_text(change(file.read_text()))


def test_a_script_that_follows_the_text_completes_three_experiments(
    project: Path, say: Say
) -> None:
    """The printed instructions are enough: baseline and two changes come to their verdicts."""
    say("autoresearch", "init", "--tag", "t1", "--set", "limits.experiments=9")
    text = say("autoresearch", "program", "--as", "reader")
    reader = Reader(text, say)
    assert [command.split()[2] for command in reader.commands] == [
        "review", "reason", "edit", "run", "analyze", "decide",
    ]  # fmt: skip
    words = {"number of an experiment": "0"}
    reader.experiment(lambda text: text, words)
    reader.experiment(lambda text: text.replace("WIDTH = 4", "WIDTH = 6"), words)
    reader.experiment(lambda text: text.replace("RATE = 0.5", "RATE = 0.9"), words)
    history = autoresearch.open_campaign(project).history
    assert [item.verdict for item in history.experiments] == ["keep", "keep", "discard"]
    assert {item.analysis.author for item in history.experiments if item.analysis} == {"reader"}
    assert "the campaign ends after 9 experiments" in text


def test_what_the_text_says_is_the_campaigns(project: Path) -> None:
    """Script, files, metric, limits and rules are those of the settings."""
    overrides = {
        "metric.name": "val_bpb",
        "metric.better": "higher",
        "limits.artifact_bytes": 16_000_000,
        "limits.timeout_seconds": 600.0,
        "rules.dead_end_discards": 7,
    }
    text = program(autoresearch.start(project, tag="t1", overrides=overrides), "ann")
    for part in (
        *("the highest `val_bpb`", "16,000,000 bytes"),
        *("after 600 seconds", "7 discards in a row", "step review --tag t1 --as ann"),
    ):
        assert part in text
    assert "{" not in text


@pytest.mark.parametrize("place", PLACES)
def test_it_is_written_where_agents_look(project: Path, place: str) -> None:
    """A file of the user's own stays; one that was written before is replaced; git ignores it."""
    campaign = autoresearch.start(project, tag="t1")
    path = project / PLACES[place]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine\n")
    with pytest.raises(WorkspaceError, match="is a file of your own"):
        write(campaign, place)
    assert path.read_text() == "mine\n"
    path.unlink()
    assert write(campaign, place) == path
    first = path.read_text()
    assert first.startswith("---\nname: autoresearch\n" if place == "skill" else "<!-- written")
    write(campaign, place, by="ann")
    assert path.read_text() != first
    assert len(path.read_bytes()) < 32_768  # what agents read of it
    path.write_text("mine\n")
    write(campaign, place, force=True)
    assert "# Research in campaign t1" in path.read_text()
