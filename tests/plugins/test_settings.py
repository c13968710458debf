"""A plugin's settings are an attrs class; its table is checked even if nobody reads it."""

import json

import pytest

from autoresearch.errors import ConfigError

SETTINGS = """
@frozen(kw_only=True)
class Settings:
    threshold: float = setting(0.5, "least gain, in metric units")
    words: tuple[str, ...] = setting((), "words to look for")

@hookimpl
def configure(config):
    seen.append(config.settings("mine", Settings))

@hookimpl
def notify(notice): ...

seen = []
"""


def test_values_reach_the_plugin(load, write):
    """configure is called with the whole configuration and reads its own table from it."""
    write("mine", SETTINGS)
    plugins = load(plugins={"mine": {"threshold": 1}})
    told = next(item for item in plugins.infos() if item.name == "mine")
    assert [(item.name, item.type, item.value, item.default) for item in told.settings] == [
        ("threshold", "float", 1.0, 0.5),
        ("words", "tuple[str, ...]", (), ()),
    ]
    assert told.settings[0].doc == "least gain, in metric units"


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"treshold": 1.0}, r"plugins\.mine\.treshold; did you mean 'threshold'\?"),
        ({"threshold": "much"}, r"plugins\.mine\.threshold: 'much' is not of type float"),
        ({"words": "one"}, r"plugins\.mine\.words: 'one' is not a list of strings"),
    ],
)
def test_a_wrong_table_is_refused(load, write, table, problem):
    """Unknown keys and wrong types are told by name, before the campaign starts."""
    write("mine", SETTINGS.replace("seen.append", "lambda _: None  # "))
    with pytest.raises(ConfigError, match=problem):
        load(plugins={"mine": table})


def test_a_slip_in_an_idle_table_is_a_slip(load):
    """The table of a built-in is checked although the built-in takes no part."""
    with pytest.raises(ConfigError, match=r"catalogue\.unmesured; did you mean 'unmeasured"):
        load(plugins={"catalogue": {"unmesured": True}})
    assert "catalogue" not in load(plugins={"catalogue": {"unmeasured": True}}).active


def test_settings_for_a_plugin_without_any_are_refused(load, write):
    """A table that nobody could read is a mistake."""
    write("mine", "@hookimpl\ndef notify(notice): ...")
    with pytest.raises(ConfigError, match=r"mine takes no settings, but plugins\.mine has some"):
        load(plugins={"mine": {"threshold": 1}})


def test_a_plugin_may_refuse_its_configuration(load, write):
    """A ConfigError out of configure names the plugin."""
    refuse = "from autoresearch.errors import ConfigError\n@hookimpl\ndef configure(config):\n"
    write("mine", refuse + "    raise ConfigError('launcher must be modal; set it')")
    with pytest.raises(ConfigError, match="plugin mine: launcher must be modal; set it"):
        load()


def test_a_bug_in_configure_names_the_way_round(load, write):
    """A plugin that cannot be configured does not take part silently unconfigured."""
    write("mine", "@hookimpl\ndef configure(config):\n    config.nothing")
    with pytest.raises(Exception, match=r"mine cannot be configured: AttributeError.*no:mine"):
        load()


def test_defaults_of_every_kind_are_told(load, write):
    """A default may be missing, made by a function, or follow from another setting."""
    text = """
    from pathlib import Path
    from attrs import Factory, field

    @frozen
    class Settings:
        folder: str
        words: tuple[str, ...] = field(factory=tuple)
        place: str = field(default=Factory(lambda self: self.folder + "/x", takes_self=True))

    @hookimpl
    def notify(notice): ...
    """
    write("mine", text)
    told = next(
        item for item in load(plugins={"mine": {"folder": "a"}}).infos() if item.name == "mine"
    )
    assert [(item.default, item.value) for item in told.settings] == [
        (None, "a"),
        ((), ()),
        ("a/x", "a/x"),
    ]


def test_everything_about_a_plugin_is_json(load, write):
    """What autoresearch plugins --json prints can be read by any program."""
    write("mine", SETTINGS, summary="Looks for words")
    told = [json.loads(json.dumps(item.as_json())) for item in load().infos()]
    mine = next(item for item in told if item["name"] == "mine")
    assert (mine["summary"], mine["hooks"]) == ("Looks for words.", ["configure", "notify"])
    assert (mine["source"], mine["active"]) == ("plugins/mine.py", True)
