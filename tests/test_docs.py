"""Docs that cannot drift: generated pages are as generated, links lead somewhere, examples run."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

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


@pytest.mark.parametrize("name", ["cli.md", "reference.md", "settings.md", "sql.md"])
def test_generated_page_is_up_to_date(name: str) -> None:
    """A changed option, setting or column needs ``.venv/bin/python docs/generate.py``."""
    assert (ROOT / "docs" / name).read_text() == generator().PAGES[name]()


def test_help_speaks_of_numbers_not_of_types() -> None:
    """INTEGER RANGE is a word of the parser."""
    assert " RANGE" not in generator().PAGES["cli.md"]()


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


def pyproject() -> dict[str, Any]:
    """pyproject.toml as a table."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def rows(page: str) -> list[list[str]]:
    """The cells of every table of a page, without headings."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    return [
        row for here, row in enumerate(cells) if not is_heading(row, cells[here + 1 : here + 2])
    ]


def is_heading(row: list[str], after: list[list[str]]) -> bool:
    """Whether a row of a table is its heading, or the line below it."""
    return any(set("".join(each)) <= {"-"} for each in (row, *after))


def test_files_that_the_architecture_names_exist() -> None:
    """Whoever follows the way of an idea, an event or a setting finds every file."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`([\w/]+\.py)`", text)
    missing = [name for name in named if not (ROOT / "src" / "autoresearch" / name).is_file()]
    assert len(set(named)) > 20
    assert not missing


def test_storeys_are_those_that_are_held() -> None:
    """The table has every room once, and no room above one that may import it."""
    layers = pyproject()["tool"]["importlinter"]["contracts"][0]["layers"]
    height = {
        room.strip().removeprefix("autoresearch."): -place
        for place, layer in enumerate(layers)
        for room in layer.split("|")
    }
    told = [re.findall(r"`(\w+)`", row[1]) for row in rows("architecture.md")]
    rooms = [room for storey in told for room in storey]
    assert len(rooms) == len(set(rooms))
    assert {*rooms} ^ {*height} == set()
    for lower, upper in itertools.pairwise(told):
        assert max(height[room] for room in lower) < min(height[room] for room in upper)


def name_of(requirement: str) -> str:
    """The distribution that a requirement asks for."""
    return re.split(r"[^\w-]", requirement, maxsplit=1)[0]


def test_every_dependency_says_why_it_is_there() -> None:
    """No distribution is installed without a reason, and no reason outlives its distribution."""
    project = pyproject()["project"]
    needed = {("", name_of(item)) for item in project["dependencies"]}
    for extra, items in project["optional-dependencies"].items():
        needed |= {(extra, name_of(item)) for item in items}
    told = {("", row[0]) if len(row) == 2 else (row[0], row[1]) for row in rows("dependencies.md")}
    assert told == needed


def test_what_is_always_installed_is_imported() -> None:
    """A dependency that nothing imports would only cost people time."""
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    for item in pyproject()["project"]["dependencies"]:
        module = name_of(item).removeprefix("py") if name_of(item) == "pyyaml" else name_of(item)
        assert re.search(rf"^\s*(import|from) {module}\b", source, re.MULTILINE), item


def test_glossary_has_each_word_once() -> None:
    """Two meanings of one word would be the confusion that the page is there to end."""
    words = [word for row in rows("glossary.md") for word in row[0].split(", ")]
    assert len(words) == len(set(words)) > 30


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
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in blocks(page, "console"):
        for line in block.splitlines():
            done = subprocess.run(
                ["sh", "-c", line.removeprefix("$ ")],
                cwd=project,
                capture_output=True,
                text=True,
                env={**os.environ, "PATH": path},
            )
            assert done.returncode == 0, (line, done.stdout, done.stderr)
    told = (project / "results.tsv").read_text()
    assert told.count("\n") == 7
    assert told.endswith("learning rate 0.1\n")


def test_demo_settings_are_valid() -> None:
    """demo.toml names only settings that exist, and runs locally."""
    config = load(ROOT, file=ROOT / "demo.toml").config
    assert config.launcher == "local"
    assert config.env["ITERATIONS"].isdigit()
