"""What every file of plugins/ has to observe, so that anybody can copy it into a project."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

import autoresearch
from autoresearch import Config
from autoresearch.plugins import Plugins

# One of the services that apprise imports still uses a module that Python 3.13 removes.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "plugins").glob("*.py"))
SETTINGS = ("demo.toml", "autoresearch.toml")


def imported(tree: ast.Module) -> list[tuple[str, str]]:
    """Return (module, name) of everything that a file imports; the name is empty for a module."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            found += [(node.module or ".", alias.name) for alias in node.names]
    return found


def private_names(tree: ast.Module) -> list[str]:
    """Return what a file takes from autoresearch that its front door does not offer."""
    aliases = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "autoresearch"
    }
    used = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in aliases
    ]
    ours = [pair for pair in imported(tree) if pair[0].partition(".")[0] in ("autoresearch", "")]
    used += [name if module == "autoresearch" else module for module, name in ours if name]
    used += [module for module, name in ours if not name and module != "autoresearch"]
    return [name for name in used if name not in autoresearch.__all__]


def test_there_are_at_least_six():
    """The folder holds what people really ask for."""
    assert len(FILES) >= 6


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_plugin_uses_only_public_names(path):
    """Everything a plugin takes from autoresearch stands in autoresearch.__all__."""
    assert private_names(ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    "text",
    [
        "from autoresearch.model import Idea",
        "import autoresearch.history",
        "from autoresearch import hookspecs",
        "import autoresearch as ar\nar.folding",
        "import autoresearch\nautoresearch._private",
    ],
)
def test_a_private_name_is_noticed(text):
    """The rule sees submodules and what only happens to be reachable, under any alias."""
    assert private_names(ast.parse(text)) != []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_plugin_is_short(path):
    """A plugin has less than a hundred lines."""
    assert len(path.read_text().splitlines()) < 100


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_plugin_has_a_contract_test_and_a_how_to(path):
    """Each file has its tests beside this one, and a section in the how-to page."""
    assert (Path(__file__).parent / f"test_{path.stem}.py").exists()
    assert f"## `{path.stem}`" in (ROOT / "docs" / "plugins-howto.md").read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_setting_is_described(path):
    """The how-to page names every setting of a plugin."""
    infos = {item.name: item for item in Plugins.load(quiet(), ROOT, (), {}).infos()}
    page = (ROOT / "docs" / "plugins-howto.md").read_text()
    section = page.partition(f"## `{path.stem}`")[2].partition("\n## ")[0]
    for setting in infos[path.stem].settings:
        assert f"`{setting.name}`" in section


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_settings_of_the_how_to_are_valid(path):
    """The example of each section starts the plugin as it stands."""
    page = (ROOT / "docs" / "plugins-howto.md").read_text()
    section = page.partition(f"## `{path.stem}`")[2].partition("\n## ")[0]
    tables = [tomllib.loads(text) for text in re.findall(r"```toml\n(.*?)```", section, re.DOTALL)]
    for table in tables:
        config = Config(preset="plain", active=("no:plugins/*.py",), **table)
        assert path.stem in Plugins.load(config, ROOT, (path.stem,), {}).active
    assert tables or path.stem == "human_queue"


def quiet() -> Config:
    """The configuration under which the repository's own campaigns run."""
    return Config(preset="plain", active=("no:plugins/*.py",))


@pytest.mark.parametrize("name", SETTINGS)
def test_campaigns_of_this_repository_use_none_of_them(name):
    """The demo's and the repository's own settings block the folder as a whole."""
    table = tomllib.loads((ROOT / name).read_text())
    active = Plugins.load(
        Config(preset="plain", active=tuple(table["active"])), ROOT, (), {}
    ).active
    assert not {path.stem for path in FILES} & active.keys()


def test_one_that_is_named_takes_part_all_the_same():
    """The last word counts: a blocked folder, and then one name of it."""
    plugins = Plugins.load(quiet(), ROOT, ("simplicity_veto",), {})
    assert {path.stem for path in FILES} & plugins.active.keys() == {"simplicity_veto"}
