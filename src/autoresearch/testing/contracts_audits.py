"""What every audit must do, before and after a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from autoresearch.model import Violation
from autoresearch.plugins import PluginFailure, Plugins
from autoresearch.testing.builders import SOURCE, change, experiment, run_output, workspace
from autoresearch.testing.contracts_base import PluginContract, snapshot, sound
from autoresearch.testing.story import history

_ODD_SOURCES = {
    "an empty script": "",
    "a syntax error": "def broken(:\n",
    "a NUL byte": "x = 1\0\n",
    "one endless line": "x = [" + "1, " * 50_000 + "]\n",
    "deep nesting": "x = " + "(" * 150 + "1" + ")" * 150 + "\n",
    "no Python at all": "\N{SNOWMAN} #!/bin/sh\necho {score: 1}\n",
}

_LOGS: Mapping[str, str | bytes] = {
    "an empty log": "",
    "no text": b"\xff\0\xfe",
    "a score": "score: 1\n",
}


class AuditContract(PluginContract):
    """Conformance of ``audit_change`` and ``audit_run``; give ``plugin``.

    ``source`` is the script as the campaign found it, which must pass.
    """

    hooks = ("audit_change", "audit_run")

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
