"""What a run on Modal is told, and the settings behind it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from attrs import Attribute, frozen

from autoresearch.config import setting
from autoresearch.errors import AutoresearchError, ConfigError
from autoresearch.model import RunRequest, Workspace


def _gpu(_: object, attribute: Attribute[str], value: str) -> None:
    if not re.fullmatch(r"([A-Za-z][\w-]*!?(:[1-9]\d*)?)?", value):
        raise ConfigError(f"{attribute.name} is {value!r}; write a type and a number, as in H100:8")


@frozen(kw_only=True)
class Settings:
    """The table ``[tool.autoresearch.plugins.modal]``.

    The price is Modal's list price of one H100, $3.95 an hour, as of May 2026 (modal.com/pricing);
    processor and memory come on top of it.
    """

    module: str = setting("modal_train.py", "script that defines the remote function")
    app: str = setting("autoresearch-train", "app name; a digest of the script is appended")
    volume: str = setting("autoresearch-runs", "volume of run logs and verdicts, as in the script")
    claims: str = setting("autoresearch-claims", "dictionary of started runs, as in the script")
    gpu: str = setting("H100:8", "GPU type and number, or empty for none", validator=_gpu)
    usd_per_gpu_second: float = setting(0.001097, "price of one GPU, USD a second")
    keep: tuple[str, ...] = setting(
        ("final_model.int8.ptz",), "files of a run to bring here beside its log"
    )
    patience_seconds: float = setting(
        3600.0, "longest wait for a machine or an answer beyond the deadline of a run"
    )
    poll_seconds: float = setting(2.0, "time between two questions to Modal")

    @property
    def gpus(self) -> int:
        """How many GPUs a run has."""
        _, _, count = self.gpu.partition(":")
        return int(count) if count else int(bool(self.gpu))


def order_for(request: RunRequest, workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """Return what the remote function is told; places of this machine become those over there."""
    _check_processes(request.command, settings)
    there = {str(workspace.script_path): Path(workspace.script).name, sys.executable: "python"}
    return {
        "name": request.name,
        "script": Path(workspace.script).name,
        "source": workspace.script_path.read_text(encoding="utf-8"),
        "command": [there.get(word, word) for word in request.command],
        "env": {**request.env, "SEED": str(request.seed), "RUN_ID": request.name},
        "timeout_seconds": request.timeout_seconds,
        "max_log_bytes": request.max_log_bytes,
        "keep": list(settings.keep),
    }


def _check_processes(command: tuple[str, ...], settings: Settings) -> None:
    """Refuse a torchrun that would crash, or leave GPUs idle that are paid for."""
    asked = re.search(r"--nproc[_-]per[_-]node[= ](\d+)", " ".join(command))
    if asked and settings.gpus and int(asked[1]) != settings.gpus:
        raise AutoresearchError(
            f"the command starts {asked[1]} processes, but gpu is {settings.gpu!r}; "
            "make them the same number"
        )
