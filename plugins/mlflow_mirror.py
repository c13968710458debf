"""Mirrors every decided experiment as a run of an MLflow server; needs nothing but its address."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from attrs import frozen

from autoresearch import Config, Experiment, History, Recorded, Verdict, hookimpl, setting

_TAG = "autoresearch_run"  # a person may rename a run, so it is found by this


@frozen(kw_only=True)
class Settings:
    """Where the server is; MLFLOW_TRACKING_TOKEN is sent to it, as MLflow's own client does."""

    tracking_uri: str = setting("", "such as http://localhost:5000; empty: mirror nothing")
    experiment: str = setting("autoresearch", "name of the MLflow experiment that holds the runs")
    seconds: float = setting(3.0, "time for one verdict; what is left over follows with the next")


class Plugin:
    """Asks the server what it lacks and sends that, so that nothing is doubled nor forgotten."""

    @hookimpl
    def configure(self, config: Config) -> None:
        """Read ``[plugins.mlflow_mirror]``."""
        self._settings = config.settings("mlflow_mirror", Settings)

    @hookimpl
    def event_recorded(self, event: Recorded, history: History) -> None:
        """Bring the server up to date after a verdict or a stop, the newest experiment first."""
        if event.type not in ("decided", "campaign_stopped") or not self._settings.tracking_uri:
            return
        self._deadline = time.monotonic() + self._settings.seconds
        name = self._settings.experiment
        found = self._call("experiments/search", filter=f"name = '{name}'", max_results=1)
        [place] = found.get("experiments") or [self._call("experiments/create", name=name)]
        runs = self._runs(place["experiment_id"], history.campaign)
        for experiment in reversed(history.decided):
            run = runs.get(f"{history.campaign}/{experiment.number}", {"status": "RUNNING"})
            if run["status"] == "RUNNING" and time.monotonic() < self._deadline:  # new, or cut off
                self._mirror(place["experiment_id"], run.get("run_id"), experiment, history)

    def _runs(self, place: str, campaign: str) -> dict[str, Any]:
        asked = {"experiment_ids": [place], "filter": f"tags.{_TAG} LIKE '{campaign}/%'"}
        runs, token = {}, ""
        while token is not None:
            page = self._call("runs/search", **asked, page_token=token)
            for run in page.get("runs", []):
                tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
                runs[tags[_TAG]] = run["info"]
            token = page.get("next_page_token")
        return runs

    def _mirror(self, place: str, run: str | None, done: Experiment, history: History) -> None:
        end = int(datetime.fromisoformat(done.ended_at).timestamp() * 1000)  # milliseconds
        if run is None:
            tags = _pairs({_TAG: f"{history.campaign}/{done.number}"})
            asked = {"experiment_id": place, "start_time": end - int(done.seconds * 1000)}
            run = self._call("runs/create", **asked, tags=tags)["run"]["info"]["run_id"]
        about = {"verdict": str(done.verdict), "direction": done.idea.direction}
        about["mlflow.runName"] = f"{history.campaign} {done.number}: {done.idea.description}"
        values = [(key, value, 0) for key, value in sorted(done.metrics.items())]
        for one in done.runs:  # the server takes 1,000 values at once
            seen = sorted(one.observed.items())[-300:]
            values += [(f"{history.metric} seen", value, step) for step, value in seen]
        metrics = [
            {"key": re.sub(r"[^\w. :/-]", "_", key), "value": value, "step": step, "timestamp": end}
            for key, value, step in values
        ]
        params = _pairs(done.idea.env)
        self._call("runs/log-batch", run_id=run, metrics=metrics, tags=_pairs(about), params=params)
        status = "FAILED" if done.verdict is Verdict.CRASH else "FINISHED"
        self._call("runs/update", run_id=run, status=status, end_time=end)

    def _call(self, path: str, **body: Any) -> Any:
        address = f"{self._settings.tracking_uri.rstrip('/')}/api/2.0/mlflow/{path}"
        request = Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
        request.add_header("Authorization", f"Bearer {os.environ.get('MLFLOW_TRACKING_TOKEN', '')}")
        try:
            with urlopen(request, timeout=max(0.1, self._deadline - time.monotonic())) as answer:
                return json.load(answer)
        except HTTPError as error:
            error.close()  # it holds the connection
            raise


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value[:5000]} for key, value in values.items()]
