"""What holds for plugins holds in a real campaign: failures are facts, and the loop goes on."""

import sys
import threading
from pathlib import Path

import pytest
from attrs import evolve

import autoresearch
from autoresearch import Campaign, Verdict, events, hookimpl
from autoresearch.errors import PluginError
from autoresearch.testing import (
    FakeLauncher,
    RecordingObserver,
    ScriptedIdeas,
    make_project,
    set_constant,
)

SETTINGS = 'preset = "plain"\nlauncher = "fake"\nactive = ["no:script_ideas"]\nnoise.runs = 1\n'
IDEAS = [set_constant("WIDTH", 5), set_constant("RATE", 0.4), set_constant("WIDTH", 6)]


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """A project whose runs a fake launcher answers at once."""
    return make_project(tmp_path / "project", settings=SETTINGS)


def campaign(ground: Path, count: int, *more: object, scores=(1.10, 1.08, 1.09)) -> Campaign:
    """Run a campaign with scripted ideas, fake runs and some more plugins."""
    plugins = [ScriptedIdeas(IDEAS), FakeLauncher(scores), *more]
    made = autoresearch.start(ground, tag="test", plugins=plugins)
    made.run(count, plugins=plugins, wait=False)
    return made


def failures(made: Campaign) -> list[events.PluginFailed]:
    """Return the plugin_failed events of a campaign."""
    return [item.event for item in made.log.read() if isinstance(item.event, events.PluginFailed)]


class Broken:
    """Raises in everything that it is asked."""

    @hookimpl
    def propose_idea(self):
        raise ValueError("no idea")

    @hookimpl
    def review_idea(self):
        raise ValueError("no opinion")

    @hookimpl
    def should_stop_run(self):
        raise ValueError("no nerve")

    @hookimpl
    def extract_metrics(self):
        raise ValueError("no numbers")

    @hookimpl
    def analyze_run(self):
        raise ValueError("no thought")

    @hookimpl
    def decide(self):
        raise ValueError("no verdict")

    @hookimpl
    def backtrack(self):
        raise ValueError("no way back")

    @hookimpl
    def event_recorded(self):
        raise ValueError("no eyes")

    @hookimpl
    def notify(self):
        raise ValueError("no voice")


def test_a_plugin_that_always_fails_changes_no_verdict(ground, tmp_path):
    """The campaign ends as without it; every failure is in the log with its traceback."""
    with_it = campaign(ground, 3, Broken())
    without = campaign(make_project(tmp_path / "other", settings=SETTINGS), 3)
    verdicts = [item.verdict for item in with_it.history.experiments]
    assert verdicts == [item.verdict for item in without.history.experiments]
    assert verdicts == ["keep", "keep", "discard"]
    found = failures(with_it)
    assert {item.plugin for item in found} == {"broken"}
    hooks = {item.hook for item in found}
    assert hooks >= {"propose_idea", "extract_metrics", "analyze_run", "decide", "backtrack"}
    assert hooks >= {"review_idea", "event_recorded", "notify"}
    assert all("raise ValueError" in item.traceback for item in found)


def test_failures_do_not_drown_the_log(ground):
    """An observer that fails at every event has a handful of failures, not one an event."""
    made = campaign(ground, 3, Broken())
    watched = [item for item in failures(made) if item.hook == "event_recorded"]
    assert 3 <= len(watched) <= 8
    assert "times by now" in watched[-1].error


def test_an_observer_that_hangs_costs_five_seconds_once(ground):
    """The loop goes on without it, and the others see everything."""
    release = threading.Event()

    class Hangs:
        @hookimpl
        def event_recorded(self):
            release.wait(60)

    seen = RecordingObserver()
    made = campaign(ground, 2, Hangs(), seen)
    release.set()
    assert [item.error for item in failures(made)] == [
        "HungError: took over 5 seconds; it is switched off for the rest of this process"
    ]
    assert seen.types.count("decided") == 2


def test_observers_see_what_is_recorded(ground):
    """Each event comes after it is durable and once; a new best is told."""
    seen = RecordingObserver()
    made = campaign(ground, 2, seen)
    logged = [item.event_id for item in made.log.read()]
    watched = [item.event_id for item in seen.events]
    assert watched == [item for item in logged if item in set(watched)]
    assert {"idea_proposed", "run_requested", "run_finished", "decided"} <= set(seen.types)
    assert ("new_best", 1) in [(item.kind, item.experiment) for item in seen.notices]


def test_a_veto_decides_in_the_log(ground):
    """The verdict of a wrapper is recorded under its own name."""

    class Veto:
        @hookimpl(wrapper=True)
        def decide(self, candidate):
            decision = yield
            if candidate.experiment.number:
                return evolve(decision, verdict=Verdict.DISCARD, reason="vetoed")
            return decision

    made = campaign(ground, 2, Veto())
    decided = [item.event for item in made.log.read() if isinstance(item.event, events.Decided)]
    assert [(item.author, item.verdict) for item in decided] == [
        ("greedy", "keep"),
        ("veto", "discard"),
    ]


def test_an_audit_that_breaks_stops_the_change(ground):
    """A script does not pass because its auditor failed; the campaign goes on."""

    class Breaks:
        @hookimpl
        def audit_change(self, change):
            if "WIDTH = 5" in change.after:
                raise RecursionError("too deep")

    made = campaign(ground, 2, Breaks())
    rejected = [item.reason for item in made.history.rejected]
    assert any("audit_change of breaks failed" in reason for reason in rejected)
    assert made.history.experiments[1].idea.description == "RATE = 0.4"


def test_a_launcher_that_fails_once_is_tried_again(ground):
    """A cloud that was away for a moment costs a run, not the night."""

    class Shaky:
        calls = 0

        @hookimpl(tryfirst=True)
        def launch_run(self):
            self.calls += 1
            if self.calls == 2:
                raise ConnectionError("the cloud is away")

    class Silent(FakeLauncher):
        @hookimpl
        def launch_run(self, request):
            return None if shaky.calls == 2 else super().launch_run(request)

    shaky = Shaky()
    plugins = [ScriptedIdeas(IDEAS), Silent([1.10, 1.08]), shaky]
    made = autoresearch.start(ground, tag="test", plugins=plugins)
    made.run(2, plugins=plugins, wait=False)
    assert [item.verdict for item in made.history.experiments] == ["keep", "keep"]
    statuses = [run.status for run in made.history.experiments[1].runs]
    assert statuses == ["infra_failed", "completed"]


def test_a_projection_that_breaks_does_not_stop_the_loop(ground):
    """Its file says what happened; results.tsv is written as ever."""

    class Page:
        file_name = "page.md"

        def render(self, history):
            raise KeyError("best")

    class Offers:
        @hookimpl
        def register_projections(self):
            return [Page()]

    made = campaign(ground, 2, Offers())
    assert len(made.history.decided) == 2
    assert (ground / "page.md").read_text().startswith("page.md could not be made by plugin offers")
    assert (ground / "results.tsv").read_text().count("\n") == 3


def test_other_plugins_are_refused(ground):
    """Going on with a plugin more is refused with the difference, unless it is accepted."""
    plugins = [ScriptedIdeas(IDEAS), FakeLauncher([1.1, 1.0, 0.9])]
    made = autoresearch.start(ground, tag="test", plugins=plugins)
    made.run(1, plugins=plugins, wait=False)
    more = [*plugins, RecordingObserver()]
    with pytest.raises(PluginError, match=r"\(added recording_observer 0 [0-9a-f]{12}\)"):
        made.run(1, plugins=more, wait=False)
    made.run(1, plugins=more, wait=False, accept_plugin_changes=True)
    resumed = [e.event for e in made.log.read() if isinstance(e.event, events.CampaignResumed)]
    assert resumed[-1].accepted_changes[0].startswith("added recording_observer")
    assert len(made.history.decided) == 2


def test_threads_end_with_the_run(ground):
    """A notebook that runs many campaigns does not gather threads."""
    campaign(ground, 1, RecordingObserver())
    for thread in threading.enumerate():
        if thread.name.startswith("observer recording"):
            thread.join(5)
    assert not [t for t in threading.enumerate() if t.name.startswith("observer recording")]


def test_a_plugin_that_prints_does_not_reach_the_terminal(ground, capsys):
    """What an observer prints stays with it."""

    class Prints:
        @hookimpl
        def event_recorded(self):
            print("look at me")
            print("look at me", file=sys.stderr)

    campaign(ground, 1, Prints())
    printed = capsys.readouterr()
    assert "look at me" not in printed.out + printed.err


COUNTS = """
import sys
from autoresearch import hookimpl
sys.counted.append("imported")

class Plugin:
    @hookimpl
    def configure(self):
        sys.counted.append("configured")
"""


@pytest.fixture
def counted(ground: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a file in plugins/ did: it counts its imports and its configurations."""
    monkeypatch.setattr(sys, "counted", [], raising=False)
    (ground / "plugins").mkdir()
    (ground / "plugins" / "counts.py").write_text(COUNTS)
    return sys.counted  # type: ignore[attr-defined]


def test_a_plugin_is_imported_and_configured_once_for_a_run(ground: Path, counted: list[str]):
    """Starting a campaign and running it is one import and one configuration, not two."""
    made = campaign(ground, 1)
    assert counted == ["imported", "configured"]
    made.run(1, plugins=[ScriptedIdeas(IDEAS), FakeLauncher((1.1,))], wait=False,
             accept_plugin_changes=True)  # fmt: skip
    assert counted == ["imported", "configured"] * 2


def test_a_plugin_that_changed_since_the_start_is_loaded_again(ground: Path, counted: list[str]):
    """What start loaded serves a run only while the sources are the same."""
    plugins = [ScriptedIdeas(IDEAS), FakeLauncher((1.1,))]
    made = autoresearch.start(ground, tag="test", plugins=plugins)
    (ground / "plugins" / "counts.py").write_text(COUNTS + "# changed")
    with pytest.raises(PluginError, match="changed counts"):
        made.run(1, plugins=plugins, wait=False)
