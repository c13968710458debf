"""Where plugins are found, which of them take part, and who answers first."""

import sys
from pathlib import Path

import pytest

from autoresearch.config import Config
from autoresearch.errors import ConfigError, PluginError
from autoresearch.history import History
from autoresearch.plugins import Plugins
from autoresearch.plugins.discovery import built_ins
from autoresearch.testing import KeepBetter, candidate

DECIDE = """
@hookimpl
def decide(candidate):
    return Decision(verdict="discard", reason="{reason}")
"""


def said(plugins: Plugins) -> str:
    """Return the reason of whoever decides."""
    return plugins.decide(candidate(1.0), History()).reason


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a distribution with one plugin on the path, as an installer would lay it out."""

    def install(name: str, text: str, version: str = "1.2") -> None:
        place = tmp_path / "site" / name
        place.mkdir(parents=True)
        module = f"{name.replace('-', '_')}_module"
        (place / f"{module}.py").write_text(text)
        info = place / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[autoresearch]\n{name} = {module}\n")
        monkeypatch.syspath_prepend(place)
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


def entry(plugins: Plugins, name: str):
    """Return what is told about one plugin."""
    return next(item for item in plugins.infos() if item.name == name)


def test_built_ins_take_part_without_being_named(load):
    """A campaign has a policy, rules and a launcher before anybody chose one."""
    assert {"greedy", "dead_end", "regression", "plateau", "local"} <= set(load().active)


@pytest.mark.parametrize("built_in", built_ins(), ids=lambda item: item.name)
def test_every_built_in_can_be_loaded(load, built_in):
    """Each name in the table leads to a module that implements a hook."""
    assert entry(load(built_in.name), built_in.name).hooks


def test_presets_make_built_ins_active(tmp_path):
    """The challenge's own plugin is active in its preset and only available elsewhere."""
    golf = Plugins.load(Config(preset="golf"), tmp_path, (), {})
    plain = Plugins.load(Config(preset="plain"), tmp_path, (), {})
    assert "golf" in golf.active
    assert "golf" not in plain.active


def test_files_of_the_project_answer_before_built_ins(load, write):
    """A file in plugins/ is active as it lies there, and nearer to the user than any built-in."""
    write("mine", DECIDE.format(reason="mine"))
    assert said(load()) == "mine"


def test_what_the_command_line_names_answers_first(load, write):
    """A file given with --plugin stands before the project's own."""
    write("mine", DECIDE.format(reason="mine"))
    other = write("other", DECIDE.format(reason="other"), folder="elsewhere")
    assert said(load(str(other))) == "other"
    assert said(load(str(other), "greedy")).endswith("of the baseline, with another seed")


def test_files_are_asked_in_the_order_of_their_names(load, write):
    """Of two files in plugins/ the last in the alphabet answers first."""
    write("a", DECIDE.format(reason="a"))
    write("b", DECIDE.format(reason="b"))
    assert said(load()) == "b"


@pytest.mark.parametrize("name", ["_helper", "test_mine", "mine_test", "conftest"])
def test_helpers_and_tests_are_no_plugins(load, write, name):
    """A file with a leading underscore or of a test may lie beside the plugins."""
    write(name, "raise RuntimeError('imported')")
    assert name not in load().active


def test_files_that_have_nothing_to_do_with_us_are_not_run(load, tmp_path):
    """A project's own folder called plugins is left alone."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "theirs.py").write_text("raise RuntimeError('imported')")
    assert "theirs" not in load().active


def test_a_distribution_is_available_and_changes_nothing(load, distribution, capsys):
    """An installed plugin is listed with its version, and is not even imported by a campaign."""
    distribution("ext", "print('imported')\nfrom autoresearch import *\n" + DECIDE)
    plugins = load()
    assert "ext" not in plugins.active
    assert capsys.readouterr().out == ""
    told = entry(plugins, "ext")
    assert (told.source, told.version, told.active) == ("distribution ext", "1.2", False)
    assert told.hooks == ("decide",)


@pytest.mark.parametrize("how", ["configuration", "command line", "environment"])
def test_naming_a_distribution_makes_it_active(load, distribution, how):
    """The configuration, --plugin and AUTORESEARCH_LOAD_PLUGINS all name what takes part."""
    distribution("ext", '"""Says ext."""\nfrom autoresearch import *\n' + DECIDE.format(reason="e"))
    plugins = {
        "configuration": lambda: load(active=("ext",)),
        "command line": lambda: load("ext"),
        "environment": lambda: load(environ={"AUTORESEARCH_LOAD_PLUGINS": "no:greedy, ext"}),
    }[how]()
    assert said(plugins) == "e"
    assert entry(plugins, "ext").summary == "Says ext."
    assert ("greedy" in plugins.active) == (how != "environment")


def test_the_command_line_has_the_last_word(load):
    """--plugin NAME undoes the configuration's no:NAME, and the other way round."""
    assert "greedy" in load("greedy", active=("no:greedy",)).active
    assert "evidence" not in load("no:evidence", active=("evidence",)).active


def test_one_word_blocks_a_folder(load, write):
    """no:plugins/*.py leaves files that are there to be copied, and one of them can be named."""
    write("a", DECIDE.format(reason="a"))
    write("b", DECIDE.format(reason="b"))
    assert not {"a", "b"} & load(active=("no:plugins/*.py",)).active.keys()
    assert said(load("a", active=("no:plugins/*.py",))) == "a"


def test_a_program_brings_plugins_as_objects(load):
    """A class or an instance from a notebook is active under its own name."""
    plugins = load(KeepBetter)
    assert "keep_better" in plugins.active
    assert said(plugins) == "better than None"


def test_two_plugins_of_one_name_are_refused(load, write):
    """The error names both places, also for a name that a built-in has."""
    write("greedy", DECIDE)
    with pytest.raises(PluginError, match=r"'greedy': built-in and plugins/greedy\.py; rename"):
        load()


def test_an_installed_namesake_changes_nothing(load, distribution):
    """A distribution with a built-in's name steps back until somebody asks for that name."""
    distribution("greedy", "from autoresearch import *\n" + DECIDE.format(reason="theirs"))
    plugins = load()
    assert said(plugins).endswith("of the baseline, with another seed")
    told = [item for item in plugins.infos() if item.name == "greedy"]
    assert [item.active for item in told] == [True, False]
    assert told[1].problem == "its name is taken by built-in; rename one of them"
    with pytest.raises(PluginError, match="'greedy': built-in and distribution greedy; rename"):
        load("greedy")


def test_one_file_named_twice_is_one_plugin(load, write):
    """--plugin plugins/mine.py names the file that is there anyway."""
    path = write("mine", DECIDE.format(reason="mine"))
    assert list(load(str(path), "plugins/mine.py").active).count("mine") == 1


@pytest.mark.parametrize("wish", ["gredy", "no:gredy"])
def test_a_name_that_nobody_has_gets_a_suggestion(load, wish):
    """A slip in --plugin is an error, not a plugin less."""
    with pytest.raises(PluginError, match=r"no plugin 'gredy'; did you mean 'greedy'\?"):
        load(wish)


def test_a_file_that_is_not_there_is_named(load):
    """The error repeats the path as it was given."""
    with pytest.raises(PluginError, match=r"'plugins/none\.py' does not exist; correct the path"):
        load("plugins/none.py")


def test_state_is_not_shared_between_two_loads(load, write):
    """Two campaigns in one process each have their own instance of a plugin's class."""
    text = """
    class Plugin:
        count = 0

        @hookimpl
        def decide(self, candidate):
            self.count += 1
            return Decision(verdict="discard", reason=f"call {self.count}")
    """
    write("mine", text)
    first, second = load(), load()
    assert [said(first), said(first), said(second)] == ["call 1", "call 2", "call 1"]


def test_a_table_for_nobody_is_refused(load):
    """Settings of a plugin that does not exist are a slip, and the nearest name is offered."""
    with pytest.raises(ConfigError, match=r"plugins\.evidnce; did you mean 'evidence'\?"):
        load(plugins={"evidnce": {"sds": 2.0}})


def test_a_package_in_the_folder_is_a_plugin(load, tmp_path):
    """A folder with an __init__.py is loaded with its modules, and known by all of them."""
    package = tmp_path / "plugins" / "mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('"""Mine."""\nfrom .policy import decide\n')
    policy = package / "policy.py"
    policy.write_text("from autoresearch import *\n" + DECIDE.format(reason="first"))
    plugins = load()
    assert said(plugins) == "first"
    assert entry(plugins, "mine").source == "plugins/mine/__init__.py"
    policy.write_text("from autoresearch import *\n" + DECIDE.format(reason="the second"))
    assert said(load()) == "the second"
    assert load().active["mine"] != plugins.active["mine"]
    assert "mine" not in load(active=("no:plugins/*.py",)).active
    assert said(load("plugins/mine", active=("no:plugins/*.py",))) == "the second"


def test_files_and_packages_are_asked_in_the_order_of_their_names(load, write, tmp_path):
    """A package stands among the files by its own name."""
    write("a", DECIDE.format(reason="a"))
    write("c", DECIDE.format(reason="c"))
    (tmp_path / "plugins" / "b").mkdir()
    text = "from autoresearch import *\n" + DECIDE.format(reason="b")
    (tmp_path / "plugins" / "b" / "__init__.py").write_text(text)
    assert list(load().active)[-3:] == ["a", "b", "c"]


def test_a_program_names_a_file_as_the_command_line_does(load, write):
    """Text and Path both are the path of a file."""
    path = write("mine", DECIDE.format(reason="mine"), folder="elsewhere")
    assert said(load(str(path))) == said(load(path)) == "mine"
    assert said(Plugins.only(path)) == said(Plugins.only(str(path))) == "mine"


@pytest.mark.parametrize("value", [3, None, ["mine.py"], dict])
def test_what_cannot_be_a_plugin_is_told_in_one_line(load, value):
    """The error says what to pass."""
    with pytest.raises(PluginError, match="is not a plugin; pass a module, a class, an instance"):
        load(value)


def test_one_text_where_a_list_is_due_is_told(tmp_path):
    """A program that passes plugins="x.py" would otherwise load a plugin for each letter."""
    with pytest.raises(PluginError, match=r"pass a list: plugins=\['x\.py'\]"):
        Plugins.load(Config(preset="plain"), tmp_path, "x.py", {})
