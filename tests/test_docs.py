"""Docs that cannot drift: generated pages are as generated, links lead somewhere, examples run."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from autoresearch.settings import load
from autoresearch.testing import make_project

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "data" / "README.md"])


def generator() -> ModuleType:
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["cli.md", "settings.md", "sql.md"])
def test_generated_page_is_up_to_date(name: str) -> None:
    """A changed option, setting or column needs ``.venv/bin/python docs/generate.py``."""
    assert (ROOT / "docs" / name).read_text() == generator().PAGES[name]()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link is a file."""
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_index_lists_every_page() -> None:
    """Each page under docs/ can be found from the index."""
    listed = (ROOT / "docs" / "index.md").read_text().split()
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages <= set(listed)


def test_readme_is_short() -> None:
    """A newcomer reads under 120 lines."""
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def test_readme_settings_and_python_run_as_they_stand(tmp_path: Path) -> None:
    """The ten lines of settings start a campaign, and the Python beside them runs it."""
    settings = blocks(ROOT / "README.md", "toml")[0]
    assert tomllib.loads(settings)["metric"]["better"] == "higher"
    script = "RATE = 0.5\nprint(f'accuracy={1 - abs(RATE - 0.3):.4f}')\n"
    project = make_project(tmp_path / "project", script=script, settings=settings)
    python, plugin = blocks(ROOT / "README.md", "python")
    (project / "plugins").mkdir()
    (project / "plugins" / "strict.py").write_text(plugin)
    done = subprocess.run(
        [sys.executable, "-c", python], cwd=project, capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert "experiment" in done.stdout


def test_tutorial_runs_step_by_step(tmp_path: Path) -> None:
    """The first campaign of the tutorial works as written, in order."""
    page = ROOT / "docs" / "tutorial.md"
    project = make_project(
        tmp_path / "project", script=blocks(page, "python")[0], settings=blocks(page, "toml")[0]
    )
    (project / "depth.patch").write_text(
        "--- a/train.py\n+++ b/train.py\n@@ -1,4 +1,4 @@\n # train.py\n LEARNING_RATE = 0.3\n"
        "-DEPTH = 3\n+DEPTH = 4\n"
        " score = 1.0 - (LEARNING_RATE - 0.1) ** 2 - 0.01 * (DEPTH - 4) ** 2\n"
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in blocks(page, "console"):
        for line in block.splitlines():
            words = shlex.split(line.removeprefix("$ "))
            done = subprocess.run(
                words, cwd=project, capture_output=True, text=True, env={**os.environ, "PATH": path}
            )
            assert done.returncode == 0, (line, done.stdout, done.stderr)
    assert (project / "results.tsv").read_text().count("\n") == 6


def test_demo_settings_are_valid() -> None:
    """demo.toml names only settings that exist, and runs locally."""
    config = load(ROOT, file=ROOT / "demo.toml").config
    assert config.launcher == "local"
    assert config.env["ITERATIONS"].isdigit()
