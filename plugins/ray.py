"""Launches runs as jobs of a Ray cluster; needs ``pip install 'autoresearch[ray]'``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from attrs import define, frozen

import autoresearch as ar


@frozen(kw_only=True)
class Settings(ar.ClusterSettings):
    """The table ``[plugins.ray]``; the nodes see this folder."""

    address: str = ar.setting("http://127.0.0.1:8265", "the cluster's dashboard, as Ray takes it")
    python: str = ar.setting("python3", "Python on the nodes that has autoresearch")
    cpus: float = ar.setting(1.0, "cores that a job asks for")


@define
class RayRun(ar.ClusterRun):
    """A job of Ray, under an id that is made of the run's name and that Ray gives once."""

    def hand_in(self, order: Mapping[str, Any]) -> str:
        """Submit the job; where the id is taken, it was this run that took it."""
        self._ask(
            "submit_job",
            submission_id=self.place,
            entrypoint=shlex.join(self.words(self.settings.python)),
            entrypoint_num_gpus=self.settings.gpus,
            entrypoint_num_cpus=self.settings.cpus,
            metadata={"script_digest": order["script_digest"]},
        )
        return self.place if self._ask("get_job_info", self.place) else ""

    def state(self) -> str:
        """Return Ray's word for it."""
        info = self._ask("get_job_info", self.place)
        return str(info.status.value) if info else "UNKNOWN"

    def cancel(self) -> None:
        """Stop the job."""
        self._ask("stop_job", self.place)

    def _ask(self, verb: str, *values: Any, **named: Any) -> Any:
        """Ask the cluster; None where that failed, which is no end of the run."""
        with suppress(Exception):
            if "client" not in self.known:
                self.known["client"] = client(self.settings.address)
            return getattr(self.known["client"], verb)(*values, **named)
        return None


class Plugin(ar.ClusterLauncher[Settings]):
    """Answers requests for the launcher ``ray``."""

    name, Settings, run = "ray", Settings, RayRun

    @ar.hookimpl
    def check_launcher(self, config: ar.Config) -> Sequence[str] | None:
        """Ask the cluster for its version; nothing is submitted."""
        if config.launcher != self.name:
            return None
        address = config.settings(self.name, Settings).address
        try:
            client(address)
        except ImportError:
            return ("the package ray is not installed; pip install 'autoresearch[ray]'",)
        except Exception as error:  # the client has many, of its own and of what it stands on
            said = " ".join(str(error).split())[:200]
            return (f"no Ray cluster answers at {address}: {said}; set plugins.ray.address",)
        return ()


def client(address: str) -> Any:
    """Return the client of a cluster."""
    from ray.job_submission import JobSubmissionClient

    return JobSubmissionClient(address)
