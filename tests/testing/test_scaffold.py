"""What new-plugin writes works as it is: its tests pass, and a package can be installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoresearch.errors import PluginError
from autoresearch.scaffold import KINDS, write_plugin


def run(folder: Path, *arguments: str, **environ: str) -> str:
    """Run Python in a folder as a person would, and return what it printed."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**kept, **environ},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_kind_passes_its_own_test(tmp_path):
    """A policy, a generator and a rule pass the contract that was written beside them."""
    for kind in KINDS:
        written = write_plugin(f"my-{kind}", tmp_path / "plugins", kind=kind)
        assert [path.name for path in written] == [f"my-{kind}.py", f"test_my_{kind}.py"]
    assert "failed" not in run(tmp_path, "-m", "pytest", "-q", "plugins")


def test_a_single_file_takes_part_as_it_is(tmp_path):
    """The file in plugins/ is found, and its test is not taken for a plugin."""
    write_plugin("mine", tmp_path / "plugins")
    listed = run(tmp_path, "-c", LIST)
    assert "mine plugins/mine.py True ('configure', 'decide')" in listed.splitlines()
    assert "test_mine" not in listed


def test_a_package_passes_its_test_before_it_is_installed(tmp_path):
    """pytest in the new folder needs nothing but autoresearch."""
    write_plugin("my_pack", tmp_path, package=True, kind="rule")
    assert "failed" not in run(tmp_path / "autoresearch-my-pack", "-m", "pytest", "-q")


def test_a_package_can_be_installed(tmp_path):
    """pip takes it; it is available, changes nothing until it is named, and then takes part."""
    write_plugin("my_pack", tmp_path, package=True)
    site = tmp_path / "site"
    quiet = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation")
    run(tmp_path, *quiet, "--target", str(site), "./autoresearch-my-pack")
    installed = {"PYTHONPATH": str(site)}
    told = "my_pack distribution autoresearch-my-pack {} ('configure', 'decide')"
    assert told.format(False) in run(tmp_path, "-c", LIST, **installed).splitlines()
    named = run(tmp_path, "-c", LIST, AUTORESEARCH_LOAD_PLUGINS="my_pack", **installed)
    assert told.format(True) in named.splitlines()


LIST = """
from pathlib import Path
from autoresearch import Config
from autoresearch.plugins import Plugins
for item in Plugins.load(Config(preset="plain"), Path()).infos():
    print(item.name, item.source, item.active, item.hooks)
"""


@pytest.mark.parametrize("name", ["My", "1st", "a b", "../up", "", "a__b", "naïve"])
def test_a_name_that_is_no_name_is_refused(tmp_path, name):
    """A plugin's name is a word that can stand in a table, a file and a module."""
    with pytest.raises(PluginError, match="cannot be called"):
        write_plugin(name, tmp_path)


def test_names_of_built_ins_are_taken(tmp_path):
    """A second plugin called greedy could not be loaded."""
    with pytest.raises(PluginError, match="'greedy' is a plugin of autoresearch itself"):
        write_plugin("greedy", tmp_path)


def test_nothing_is_overwritten(tmp_path):
    """A file that exists stays as it is, and nothing else is written."""
    (tmp_path / "test_mine.py").write_text("mine")
    with pytest.raises(PluginError, match=r"test_mine\.py exists already"):
        write_plugin("mine", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]


def test_an_unknown_kind_gets_a_suggestion(tmp_path):
    """A slip in the kind names the nearest."""
    with pytest.raises(PluginError, match=r"no kind of plugin 'polcy'; did you mean 'policy'\?"):
        write_plugin("mine", tmp_path, kind="polcy")


def test_what_is_written_is_formatted(tmp_path):
    """The linter and the formatter of a new project have nothing to say."""
    for kind in KINDS:
        write_plugin(f"my-{kind}", tmp_path / "plugins", kind=kind)
    write_plugin("pack", tmp_path, package=True)
    for folder in (tmp_path / "plugins", tmp_path / "autoresearch-pack"):
        run(folder, "-m", "ruff", "check", "--isolated", "--select", "E,F,I,B,UP", ".")
        run(folder, "-m", "ruff", "format", "--isolated", "--check", ".")
