"""The launcher ``modal``: the script goes to Modal's GPUs and is found there again by its name."""

from __future__ import annotations

import time

from autoresearch.config import Config
from autoresearch.errors import AutoresearchError
from autoresearch.hookspecs import hookimpl
from autoresearch.launchers.folder import RunFolder
from autoresearch.launchers.modal_order import Settings, order_for
from autoresearch.launchers.modal_remote import ModalRemote, Remote
from autoresearch.launchers.modal_run import ModalRun
from autoresearch.model import RunHandle, RunRequest, Workspace


class Plugin:
    """Answers requests for the launcher ``modal``."""

    Settings = Settings

    def __init__(self) -> None:
        self._settings = Settings()

    @hookimpl
    def configure(self, config: Config) -> None:
        """Read the plugin's table."""
        self._settings = config.settings("modal", Settings)

    @hookimpl
    def launch_run(self, request: RunRequest, workspace: Workspace) -> RunHandle | None:
        """Order a run, or find the one that was ordered under the same name."""
        if request.launcher != "modal":
            return None
        module = workspace.project / self._settings.module
        if not module.exists():
            raise AutoresearchError(
                f"the launcher 'modal' finds no {module}; put modal_train.py there or set module"
            )
        remote = ModalRemote(
            script=module,
            app=self._settings.app,
            volume=self._settings.volume,
            claims=self._settings.claims,
        )
        return launch(request, workspace, remote, self._settings)


def launch(
    request: RunRequest, workspace: Workspace, remote: Remote, settings: Settings
) -> ModalRun:
    """Keep the order, then see that it is carried out; both at most once for a name."""
    folder = RunFolder(request.folder.absolute())
    folder.path.mkdir(parents=True, exist_ok=True)
    if folder.read("modal_order.json") is None:
        order = {**order_for(request, workspace, settings), "asked_at": time.time()}
        folder.write("modal_order.json", order)
    run = ModalRun(request.name, folder, remote, settings)
    run.poll()
    return run
