"""What every launcher, metric extractor, audit, projection and observer must do."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import pytest
from attrs import evolve

from autoresearch.config import Config
from autoresearch.errors import PluginError
from autoresearch.history import History
from autoresearch.log import Recorded
from autoresearch.model import (
    Notice,
    RunHandle,
    RunOutput,
    RunRequest,
    RunStatus,
    Violation,
    Workspace,
)
from autoresearch.plugins import PluginFailure, Plugins
from autoresearch.projections import Projection
from autoresearch.testing.builders import (
    SOURCE,
    change,
    experiment,
    idea,
    run_output,
    run_request,
    workspace,
)
from autoresearch.testing.contracts import PluginContract, situations, snapshot, sound
from autoresearch.testing.story import EXAMPLES, history

# A handle that needs longer than this to say "not yet" would hold up the whole loop.
POLL_SECONDS = 0.5
_SLEEPER = "import time\nprint('asleep', flush=True)\ntime.sleep(120)\n"
_SECRETS = {"GITHUB_TOKEN": "contract-secret-1", "AWS_SECRET_ACCESS_KEY": "contract-secret-2"}

Launch = Callable[..., tuple[RunHandle, RunRequest]]


class LauncherContract(PluginContract):
    """Conformance of ``launch_run`` for launchers that run commands; give ``plugin``.

    ``launcher`` is the name in the configuration to which it answers, by default the plugin's own.
    ``patience`` is how many seconds a short run may take in all.
    """

    @pytest.fixture
    def launcher(self, plugins: Plugins) -> str:
        """The name to which the launcher answers."""
        return plugins.infos()[-1].name

    @pytest.fixture
    def patience(self) -> float:
        """Seconds within which a short run is over."""
        return 30.0

    @pytest.fixture
    def launch(self, plugins: Plugins, launcher: str, tmp_path: Path) -> Launch:
        """Launches a script and returns the handle and the request."""

        def start(source: str, **fields: Any) -> tuple[RunHandle, RunRequest]:
            asked = run_request(tmp_path, source, launcher=launcher, **fields)
            return plugins.launch_run(asked, _place(tmp_path)), asked

        return start

    def test_leaves_other_launchers_alone(
        self, plugins: Plugins, tmp_path: Path, failures: list[PluginFailure]
    ) -> None:
        """A request that names another launcher is not its business."""
        asked = run_request(tmp_path, "", launcher="somebody else's")
        with pytest.raises(PluginError, match="no launcher answers"):
            plugins.launch_run(asked, _place(tmp_path))
        sound(failures, "a request for another launcher")

    def test_runs_to_the_end(self, launch: Launch, patience: float) -> None:
        """A script that ends is completed, and what it printed is in the log."""
        handle, _ = launch("import sys\nprint('out')\nprint('err', file=sys.stderr)\n")
        output = finished(handle, patience)
        log = output.log_path.read_text()
        assert (output.status, output.exit_code) == (RunStatus.COMPLETED, 0), log
        assert "out" in log, f"what the script printed is not in the log: {log!r}"
        assert "err" in log, f"what the script printed on stderr is not in the log: {log!r}"

    def test_reports_a_crash(self, launch: Launch, patience: float) -> None:
        """A script that fails is crashed, with its exit code and its last words."""
        handle, _ = launch("raise SystemExit(3)")
        output = finished(handle, patience)
        assert (output.status, output.exit_code) == (RunStatus.CRASHED, 3)

    def test_gives_the_environment(self, launch: Launch, patience: float) -> None:
        """The script sees the request's variables and its seed as SEED."""
        source = "import os\nprint(os.environ['CONTRACT'], os.environ['SEED'])"
        handle, _ = launch(source, env={"CONTRACT": "given"}, seed=4711)
        log = finished(handle, patience).log_path.read_text()
        assert "given 4711" in log, f"CONTRACT=given and SEED=4711 did not arrive: {log!r}"

    def test_gives_no_credentials(
        self, launch: Launch, patience: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The script does not see the secrets of the one who started the loop."""
        for name, value in _SECRETS.items():
            monkeypatch.setenv(name, value)
        handle, _ = launch("import os\nprint(dict(os.environ))")
        log = finished(handle, patience).log_path.read_text()
        assert "contract-secret" not in log, f"the script saw a secret: {sorted(_SECRETS)}"

    def test_starts_a_name_once(
        self, launch: Launch, plugins: Plugins, patience: float, tmp_path: Path
    ) -> None:
        """Asked twice for one name, it returns the same run; nothing is paid twice."""
        handle, asked = launch("open('count', 'a').write('x')\nopen('count').read()")
        again = plugins.launch_run(asked, _place(tmp_path))
        finished(handle, patience)
        output = finished(again, patience)
        later = finished(plugins.launch_run(asked, _place(tmp_path)), patience)
        counts = [path.read_text() for path in tmp_path.rglob("count")]
        assert counts == ["x"], f"asked three times, the script ran {counts}"
        assert output == later, f"two handles of one run gave {output} and {later}"

    def test_finds_a_run_after_a_restart(
        self, plugin: object, config: Config, launch: Launch, patience: float, tmp_path: Path
    ) -> None:
        """A new process attaches to a run that goes on, and reads one that is over."""
        handle, asked = launch(f"open('count', 'a').write('x')\n{_SLEEPER}")
        _wait_for(handle.log_path, "asleep", patience)
        found = Plugins.only(plugin, config=config).launch_run(asked, _place(tmp_path))
        going_on = found.poll()
        found.stop("the test wants it")
        ended = finished(found, patience)
        handle.poll()
        later = Plugins.only(plugin, config=config).launch_run(asked, _place(tmp_path))
        counts = [path.read_text() for path in tmp_path.rglob("count")]
        assert counts == ["x"], f"after a restart the script had run {counts}"
        assert going_on is None, f"a run that sleeps was said to be {going_on}"
        assert finished(later, patience) == ended, "a run that was over came out differently"

    def test_polls_without_waiting(self, launch: Launch, patience: float) -> None:
        """``poll`` says at once that a run still goes on."""
        handle, _ = launch(_SLEEPER)
        start = time.monotonic()
        answer = handle.poll()
        took = time.monotonic() - start
        handle.stop("the test is over")
        finished(handle, patience)
        assert answer is None, f"a run that sleeps was said to be {answer}"
        assert took < POLL_SECONDS, f"poll took {took:.1f} seconds"

    def test_stops_a_run(self, launch: Launch, patience: float) -> None:
        """A stopped run is over soon, and is reported as stopped."""
        handle, _ = launch(_SLEEPER)
        handle.stop("the test wants it")
        assert finished(handle, patience).status is RunStatus.STOPPED_EARLY

    def test_ends_a_run_at_its_deadline(self, launch: Launch, patience: float) -> None:
        """A run that exceeds ``timeout_seconds`` is killed and reported as timed out."""
        handle, _ = launch(_SLEEPER, timeout_seconds=0.5)
        assert finished(handle, patience).status is RunStatus.TIMED_OUT


def finished(handle: RunHandle, patience: float) -> RunOutput:
    """Wait for the end of a run."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if (output := handle.poll()) is not None:
            return output
        time.sleep(0.02)
    handle.stop("the test waits no longer")
    pytest.fail(f"run {handle.reference} was not over after {patience:g} seconds")


def _wait_for(path: Path, word: str, patience: float) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if path.exists() and word in path.read_text(errors="replace"):
            return
        time.sleep(0.02)
    pytest.fail(f"{path.name} had no {word!r} after {patience:g} seconds")


def _place(folder: Path) -> Workspace:
    return workspace(folder / "work")


class MetricExtractorContract(PluginContract):
    """Conformance of ``extract_metrics``; give ``plugin``, and ``log`` for another log format."""

    @pytest.fixture
    def log(self) -> str:
        """The log of a completed run that the extractor can read."""
        return "step: 1 loss: 2.5\nscore: 1.0701\n"

    def test_reads_numbers(
        self, plugins: Plugins, log: str, tmp_path: Path, failures: list[PluginFailure]
    ) -> None:
        """It finds finite numbers in a log that it can read."""
        found = plugins.extract_metrics(run_output(tmp_path, log))
        sound(failures, "a log of its kind")
        assert found, f"it found nothing in {log!r}"

    def test_invents_nothing(self, plugins: Plugins, tmp_path: Path) -> None:
        """What a log does not give is left out: never 0, never NaN."""
        for text in ("", "Traceback (most recent call last):\nValueError: no\n"):
            found = plugins.extract_metrics(run_output(tmp_path, text, status="crashed"))
            assert not found, f"in the log {text!r} it found {dict(found)}"

    def test_gives_only_finite_numbers(
        self, plugins: Plugins, log: str, tmp_path: Path, failures: list[PluginFailure]
    ) -> None:
        """A score that is NaN or infinite is absent."""
        for word in ("nan", "inf", "-inf"):
            found = plugins.extract_metrics(run_output(tmp_path, _NUMBER.sub(word, log)))
            sound(failures, f"a log full of {word}")
            assert all(map(math.isfinite, found.values())), f"{word}: {dict(found)}"

    def test_believes_the_last_word(self, plugins: Plugins, log: str, tmp_path: Path) -> None:
        """The final lines count, whatever the script printed before them."""
        wanted = plugins.extract_metrics(run_output(tmp_path / "plain", log))
        echoed = re.sub(r"\d", "9", log) + log
        found = plugins.extract_metrics(run_output(tmp_path / "echoed", echoed))
        differing = {name: value for name, value in wanted.items() if found.get(name) != value}
        assert not differing, f"an earlier number won over the last one: {dict(found)}"

    def test_survives_garbage(
        self, plugins: Plugins, log: str, tmp_path: Path, failures: list[PluginFailure]
    ) -> None:
        """Bytes that are no text, a line without end and a missing log are no reason to fail."""
        for name, data in _GARBAGE.items():
            plugins.extract_metrics(run_output(tmp_path, data))
            sound(failures, name)
        gone = run_output(tmp_path, log)
        gone.log_path.unlink()
        plugins.extract_metrics(gone)
        sound(failures, "a log that does not exist")

    def test_only_reads(self, plugins: Plugins, log: str, tmp_path: Path) -> None:
        """It writes nothing, and reads the same numbers twice."""
        output = run_output(tmp_path, log)
        before = snapshot(tmp_path)
        first, second = plugins.extract_metrics(output), plugins.extract_metrics(output)
        assert snapshot(tmp_path) == before, "it changed the folder of the run"
        assert first == second, f"asked twice, it read {dict(first)} and then {dict(second)}"


_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])")
_GARBAGE: Mapping[str, bytes] = {
    "bytes that are no UTF-8": b"score: \xff\xfe\x00 1.0\xc3\n",
    "one line of a megabyte": b"score: " + b"9" * 1_000_000,
    "terminal escapes": b"\x1b[2Jscore\x1b[0m: \x1b[31m1.0\r\n",
    "half a number": b"score: 1.0e\nscore:\nscore: --1\nscore: 1.2.3\n",
}


_ODD_SOURCES = {
    "an empty script": "",
    "a syntax error": "def broken(:\n",
    "a NUL byte": "x = 1\0\n",
    "one endless line": "x = [" + "1, " * 50_000 + "]\n",
    "deep nesting": "x = " + "(" * 150 + "1" + ")" * 150 + "\n",
    "not Python at all": "\N{SNOWMAN} #!/bin/sh\necho {score: 1}\n",
}

_LOGS: Mapping[str, str | bytes] = {
    "an empty log": "",
    "not text": b"\xff\0\xfe",
    "a score": "score: 1\n",
}


class AuditContract(PluginContract):
    """Conformance of ``audit_change`` and ``audit_run``; give ``plugin``.

    ``source`` is the script as the campaign found it, which must pass.
    """

    @pytest.fixture
    def source(self) -> str:
        """A script that is as it must be."""
        return SOURCE

    def test_passes_what_was_not_changed(
        self, plugins: Plugins, source: str, tmp_path: Path, failures: list[PluginFailure]
    ) -> None:
        """The script as it was found breaks no rule."""
        found = plugins.audit_change(change(source), workspace(tmp_path, source))
        sound(failures, "an unchanged script")
        assert not _blocking(found), f"the unchanged script is refused: {_blocking(found)}"

    def test_survives_every_change(
        self, plugins: Plugins, source: str, tmp_path: Path, failures: list[PluginFailure]
    ) -> None:
        """It does not fail on whatever a generator may write."""
        for name, odd in _ODD_SOURCES.items():
            plugins.audit_change(change(source, odd), workspace(tmp_path, odd))
            sound(failures, name)

    def test_same_change_same_findings(self, plugins: Plugins, source: str, tmp_path: Path) -> None:
        """The findings follow from the change alone."""
        for name, odd in {**_ODD_SOURCES, "no change": source}.items():
            place, made = workspace(tmp_path, odd), change(source, odd)
            first, second = plugins.audit_change(made, place), plugins.audit_change(made, place)
            assert first == second, f"{name}: asked twice, it found {first} and then {second}"

    def test_only_reads(self, plugins: Plugins, source: str, tmp_path: Path) -> None:
        """It writes neither into the workspace nor into the folder of the run."""
        place = workspace(tmp_path / "work", source)
        output = run_output(tmp_path / "run")
        before = snapshot(tmp_path)
        plugins.audit_change(change(source, source + "# more\n"), place)
        plugins.audit_run(experiment(1.07), output, history([1.1]))
        assert snapshot(tmp_path) == before, "it changed what it was given to judge"

    def test_survives_every_run(
        self, plugins: Plugins, tmp_path: Path, failures: list[PluginFailure]
    ) -> None:
        """It does not fail on a run without a log, without numbers, or without a past."""
        past = history([1.1, 1.08])
        for name, log in _LOGS.items():
            plugins.audit_run(experiment(1.07), run_output(tmp_path, log), past)
            sound(failures, name)
        gone = run_output(tmp_path)
        gone.log_path.unlink()
        for made, known in ((experiment(), past), (experiment(1.07), history())):
            plugins.audit_run(made, gone, known)
            sound(failures, "a run that left nothing")


def _blocking(found: tuple[Violation, ...]) -> list[str]:
    return [f"{item.rule}: {item.detail}" for item in found if item.blocks]


_NOTICES = ("new_best", "stuck", "budget_gone", "needs_human")
_ESCAPE = "\x1b[2Jcleared\x1b]0;title\x07"


class ProjectionContract:
    """Conformance of a projection; give the fixture ``projection``."""

    @pytest.fixture
    def projection(self) -> Projection:
        """The projection under test."""
        pytest.fail(f"{type(self).__name__} has no projection; give it a fixture of this name")

    def test_has_a_file_name(self, projection: Projection) -> None:
        """Its file has a name and no folder."""
        name = projection.file_name
        bare = isinstance(name, str) and name != "" and PurePath(name).name == name
        assert bare, f"file_name is {name!r}; give a name without a folder"

    def test_renders_every_history(self, projection: Projection) -> None:
        """There is no campaign that it cannot show."""
        for name, past in situations():
            text = projection.render(past)
            assert isinstance(text, str), f"{name}: it rendered {text!r}; return text"

    def test_same_history_same_text(
        self, projection: Projection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The text follows from the history alone: not from time, place or what came before."""
        texts = {name: _shown(projection, past) for name, past in situations()}
        monkeypatch.chdir(tmp_path)
        for name, past in reversed(list(situations())):
            assert _shown(projection, past) == texts[name], f"{name}: the second text differs"

    def test_shows_foreign_text_safely(self, projection: Projection) -> None:
        """Terminal escapes in an idea do not reach the file."""
        told = experiment(1.05, idea=idea(_ESCAPE, hypothesis=_ESCAPE, direction=_ESCAPE))
        text = projection.render(history([1.1, told]))
        assert "\x1b" not in text, "an escape sequence of an idea stands in the file"

    def test_writes_nothing(
        self, projection: Projection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It returns its text and leaves writing to the loop."""
        monkeypatch.chdir(tmp_path)
        for _, past in situations():
            _shown(projection, past)
        assert os.listdir(tmp_path) == [], f"it wrote {os.listdir(tmp_path)}"


def _shown(projection: Projection, past: History) -> str:
    """Return the text, or the error: that it fails at all is told by one test and not by all."""
    try:
        return projection.render(past)
    except Exception as error:
        return repr(error)


class ObserverContract(PluginContract):
    """Conformance of ``event_recorded`` and ``notify``; give ``plugin``.

    It must not need more than two seconds for any event.
    """

    def test_sees_every_event(self, plugins: Plugins, failures: list[PluginFailure]) -> None:
        """It neither raises nor hangs, whatever happens in a campaign."""
        for event, past in _watched():
            plugins.event_recorded(event, past)
            sound(failures, f"event {event.type}")

    def test_sees_events_of_newer_releases(
        self, plugins: Plugins, failures: list[PluginFailure]
    ) -> None:
        """An event type that it does not know is no reason to fail."""
        event, past = next(_watched())
        plugins.event_recorded(evolve(event, type="from_the_future", payload='{"x":1}'), past)
        sound(failures, "an event of an unknown type")

    def test_takes_every_notice(self, plugins: Plugins, failures: list[PluginFailure]) -> None:
        """It can tell a person about everything there is to tell, with and without a number."""
        for kind in _NOTICES:
            for number in (None, 3):
                plugins.notify(
                    Notice(kind=kind, campaign="test", text=f"{kind} 1.07", experiment=number)
                )
                sound(failures, f"notice {kind}")


def _watched() -> Iterator[tuple[Recorded, History]]:
    for make in EXAMPLES.values():
        told = make()
        for event in told.log.read():
            yield event, told.history
