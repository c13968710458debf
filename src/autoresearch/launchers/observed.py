"""Launches nothing: the runs of an observed campaign were made by somebody else's loop.

How a run ended is told beforehand, in a file of the campaign, and taken from there once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from autoresearch.durable import replace_file
from autoresearch.errors import PluginError
from autoresearch.hookspecs import hookimpl
from autoresearch.launchers.folder import InFolder, Outcome, RunFolder
from autoresearch.model import RunOutput, RunRequest, RunStatus

LAUNCHER = "observed"
_TOLD = "told.json"


def tell(campaign_folder: Path, experiment: int, told: Mapping[str, Any]) -> None:
    """Keep how the next run of an experiment ended: status, metrics, seconds, log, detail."""
    facts = json.dumps({"experiment": experiment, **told}, ensure_ascii=False)
    replace_file(campaign_folder / _TOLD, facts.encode())


@frozen
class ObservedRun(InFolder):
    """A run that was over before it was recorded."""

    name: str
    folder: RunFolder
    reference: str = LAUNCHER

    def poll(self) -> RunOutput | None:
        """Return how it ended."""
        outcome = self.folder.read_outcome()
        return None if outcome is None else self.folder.output(self.name, outcome)

    def stop(self, reason: str) -> None:
        """Do nothing: the run is over."""


class Plugin:
    """Has no settings; answers to ``launcher = "observed"``."""

    @hookimpl
    def launch_run(self, request: RunRequest) -> ObservedRun | None:
        """Take what was told of the run, once; PluginError where nothing was."""
        if request.launcher != LAUNCHER:
            return None
        folder = RunFolder.of(request.folder)
        if folder.read_outcome() is None:
            place = request.folder.parent.parent / _TOLD
            told = json.loads(place.read_text()) if place.is_file() else {}
            if told.get("experiment") != request.experiment:
                raise PluginError(
                    f"the runs of {request.campaign} are made elsewhere; log each with "
                    "autoresearch observe"
                )
            _take(folder, told)
            place.unlink()
        return ObservedRun(request.name, folder)

    @hookimpl
    def extract_metrics(self, output: RunOutput) -> Mapping[str, float] | None:
        """Return the numbers that were told of an observed run."""
        found = RunFolder.of(output.folder).read("metrics.json")
        return found or None


def _take(folder: RunFolder, told: Mapping[str, Any]) -> None:
    folder.make()
    metrics = told.get("metrics", {})
    numbers = "".join(f"{name}: {value!r}\n" for name, value in metrics.items())
    folder.log.write_text(told.get("log") or numbers or told.get("detail", ""), encoding="utf-8")
    folder.write("metrics.json", metrics)
    crashed = told.get("status") == "crash"
    folder.write_outcome(
        Outcome(
            status=RunStatus.CRASHED if crashed else RunStatus.COMPLETED,
            exit_code=int(crashed),
            detail=told.get("detail", ""),
            seconds=told.get("seconds", 0.0),
            gpu_seconds=told.get("gpu_seconds", 0.0),
            cost_usd=told.get("usd", 0.0),
        )
    )
