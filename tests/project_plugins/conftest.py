"""The plugins of the folder plugins/, loaded for a contract or copied into a small project."""

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from autoresearch import Campaign, start
from autoresearch.testing import git, make_project

FOLDER = Path(__file__).parents[2] / "plugins"
SETTINGS = 'preset = "plain"\nscript = "train.py"\nnoise.runs = 1\n'
FAKE = "from autoresearch.testing import FakeLauncher\n\nplugin = FakeLauncher({scores})\n"


@pytest.fixture
def single_file() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a plugin of the folder by its name."""
    loaded: list[str] = []

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        loaded.append(name)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in loaded:
        sys.modules.pop(name, None)


@pytest.fixture
def campaign(tmp_path: Path) -> Callable[..., Campaign]:
    """Starts a campaign in a new project with one plugin of the folder and further files.

    With ``scores`` no process is started: they are what the baseline and the experiments give.
    """

    def begin(
        name: str, script: str, settings: str = "", scores: Sequence[float] = (), **others: str
    ) -> Campaign:
        files = {f"plugins/{key}.py": text for key, text in others.items()}
        if scores:
            files["plugins/fake.py"] = FAKE.format(scores=list(scores))
            settings = f'launcher = "fake"\n{settings}'
        project = make_project(tmp_path / "project", script, SETTINGS + settings, files)
        (project / "plugins").mkdir(exist_ok=True)
        shutil.copy(FOLDER / f"{name}.py", project / "plugins")
        git(project, "add", "--all")
        git(project, "commit", "--quiet", "--message", "Take a plugin")
        return start(project, tag="toy")

    return begin
