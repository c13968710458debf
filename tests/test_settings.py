"""Settings come from several places; each value knows which, and each mistake is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import frozen

from autoresearch.config import Config, setting, unstructure
from autoresearch.errors import ConfigError
from autoresearch.settings import from_record, load


def write(folder: Path, text: str, name: str = "autoresearch.toml") -> Path:
    """Write a settings file."""
    (folder / name).write_text(text)
    return folder


def test_nearer_source_wins(tmp_path: Path) -> None:
    """Command line over environment over file over preset over default."""
    write(
        tmp_path,
        "preset = 'golf'\nseed = 1\n[limits]\nhours = 1.0\nusd = 1.0\ntimeout_seconds = 60.0\n",
    )
    loaded = load(
        tmp_path,
        environ={"AUTORESEARCH_LIMITS_HOURS": "2", "AUTORESEARCH_LIMITS_USD": "2"},
        overrides={"limits.usd": 3.0},
    )
    limits = loaded.config.limits
    assert (limits.timeout_seconds, limits.hours, limits.usd) == (60.0, 2.0, 3.0)
    assert limits.artifact_bytes == 16_000_000
    assert limits.crash_fixes == 2


def test_every_value_says_where_it_came_from(tmp_path: Path) -> None:
    """The origin of a value is its file, variable, preset, the command line, or the default."""
    write(tmp_path, "preset = 'golf'\nseed = 1\n")
    loaded = load(
        tmp_path,
        environ={"AUTORESEARCH_LAUNCHER": "local"},
        overrides={"limits.usd": 3.0},
    )
    origins = {name: origin for name, _, origin in loaded.rows()}
    assert origins["seed"] == "autoresearch.toml"
    assert origins["launcher"] == "environment AUTORESEARCH_LAUNCHER"
    assert origins["limits.usd"] == "command line"
    assert origins["metric.name"] == "preset golf"
    assert origins["limits.crash_fixes"] == "default"


def test_table_in_pyproject_counts_where_there_is_no_own_file(tmp_path: Path) -> None:
    """[tool.autoresearch] is read; autoresearch.toml beside it wins."""
    write(tmp_path, '[tool.autoresearch]\nscript = "a.py"\npreset = "plain"\n', "pyproject.toml")
    assert load(tmp_path).config.script == "a.py"
    write(tmp_path, 'script = "b.py"\npreset = "plain"\n')
    assert load(tmp_path).config.script == "b.py"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('scrpt = "x"', "unknown setting scrpt; did you mean 'script'"),
        ('[metric]\nbettr = "higher"', "unknown setting metric.bettr; did you mean 'better'"),
        ('[metric]\nbetter = "up"', "metric.better is 'up'; set it to lower or higher"),
        ("[limits]\nhours = nan", "limits.hours is nan, but must be 0 or more"),
        ("[limits]\nexperiments = -1", "limits.experiments is -1, but must be 0 or more"),
        ("[limits]\ntimeout_seconds = inf", "limits.timeout_seconds is inf, but must be over 0"),
        ("[rules]\ndead_end_discards = 0", "rules.dead_end_discards is 0, but must be over 0"),
        ("[limits]\nhours = 1e300", "limits.hours is 1e+300, but must be 0 or more and below 9e15"),
        (f"[limits]\nexperiments = {10**30}", "but must be 0 or more and below 9e15"),
        (f"seed = {10**16}", "seed is 10000000000000000; set one of at most 15 digits"),
        ("command = []", "command is empty; write what it is"),
        ('[metric]\nname = ""', "metric.name is empty; write what it is"),
        ('seed = "one"', "seed: 'one' is not of type int"),
        ("seed = true", "seed: True is not of type int"),
        ('command = "python train.py"', "command: 'python train.py' is not a list of strings"),
        ("[limits]\ntimeout_seconds = -5", "limits.timeout_seconds is -5.0, but must be over 0"),
        ('preset = "gulf"', "unknown preset 'gulf'; did you mean 'golf'"),
        ("metric = 3", "metric: not a table"),
        ("seed = ", "is not valid TOML"),
    ],
)
def test_mistake_is_one_line_that_names_the_key(tmp_path: Path, text: str, said: str) -> None:
    """Unknown keys, wrong types and bad values are told with the key and what to do."""
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["tool = 3", "[tool]\nautoresearch = 'x'", "[[tool]]\na = 1"])
def test_what_should_be_a_table_of_pyproject_is_told(tmp_path: Path, text: str) -> None:
    """Whatever stands in the place of [tool.autoresearch] is named, not tripped over."""
    with pytest.raises(ConfigError, match=r"tool\.autoresearch in .* is .*; make it a table"):
        load(write(tmp_path, text, "pyproject.toml"))


def test_settings_that_are_a_link_to_nowhere_are_told(tmp_path: Path) -> None:
    """Defaults in the place of somebody's settings would be another campaign."""
    (tmp_path / "autoresearch.toml").symlink_to("gone.toml")
    with pytest.raises(ConfigError, match="No such file or directory; name a file"):
        load(tmp_path)


def test_an_empty_table_takes_nothing_away(tmp_path: Path) -> None:
    """A heading whose lines are all commented out, or a table by hand, leaves the preset's rest."""
    write(tmp_path, "preset = 'golf'\n[limits]\n# hours = 8\n[metric]\n")
    config = load(tmp_path, overrides={"limits": {"usd": 3.0}}).config
    assert (config.limits.artifact_bytes, config.limits.usd) == (16_000_000, 3.0)
    assert config.metric.name == "val_bpb"


def test_a_key_may_have_a_dot_in_it(tmp_path: Path) -> None:
    """Of a plugin's table, where "block.0" is a name and no table."""
    write(tmp_path, '[plugins.x.rates]\n"block.0" = 0.1\n')
    assert dict(load(tmp_path).config.plugins["x"]["rates"]) == {"block.0": 0.1}


def test_environment_variable_of_a_wrong_type_is_told(tmp_path: Path) -> None:
    """A number that is none names the variable."""
    with pytest.raises(ConfigError, match="AUTORESEARCH_LIMITS_HOURS is 'long'"):
        load(tmp_path, environ={"AUTORESEARCH_LIMITS_HOURS": "long"})


def test_missing_file_is_told(tmp_path: Path) -> None:
    """--config of a file that does not exist is an error, not a default."""
    with pytest.raises(ConfigError, match="name a file that exists"):
        load(tmp_path, file=tmp_path / "none.toml")


def test_recorded_configuration_comes_back_the_same(tmp_path: Path) -> None:
    """What campaign_started holds gives the same Config again."""
    write(tmp_path, 'env = { A = "1" }\n[plugins.x]\ny = [1, 2]\n')
    config = load(tmp_path).config
    assert from_record(unstructure(config)) == config


def test_a_record_takes_other_settings_by_their_names() -> None:
    """A replay asks what another setting would have done; all the others stay as recorded."""
    recorded = unstructure(Config(preset="plain", script="a.py"))
    found = from_record(recorded, {"limits.hours": 3.0, "plugins.x": {"y.z": 1}})
    assert (found.script, found.limits.hours) == ("a.py", 3.0)
    assert dict(found.plugins["x"]) == {"y.z": 1}


def test_a_setting_newer_than_the_record_comes_from_the_recorded_preset(tmp_path: Path) -> None:
    """A campaign of an earlier version goes on as before; what was recorded is never replaced."""
    table = unstructure(load(tmp_path, overrides={"preset": "golf", "metric.sd": 0.5}).config)
    newer = (table.pop("knowledge"), table["metric"].pop("reader"))
    again = from_record(table)
    assert (
        (again.knowledge, again.metric.reader) == newer == ("autoresearch.golf:known.csv", "golf")
    )
    assert again.metric.sd == 0.5
    assert from_record({**table, "preset": "of another time"}).knowledge == ""


def test_plugin_table_is_checked_against_its_own_class() -> None:
    """A plugin's settings get the same care as ours."""

    @frozen(kw_only=True)
    class Mine:
        width: int = setting(3, "how wide")

    assert Config(plugins={"p": {"width": 4}}).settings("p", Mine).width == 4
    assert Config().settings("p", Mine).width == 3
    with pytest.raises(ConfigError, match=r"plugins\.p\.widht; did you mean 'width'"):
        Config(plugins={"p": {"widht": 4}}).settings("p", Mine)


def test_config_cannot_be_changed() -> None:
    """A plugin that is handed the configuration cannot write into it."""
    with pytest.raises((AttributeError, TypeError)):
        Config(env={"A": "1"}).env["A"] = "2"  # type: ignore[index]


def test_byte_order_mark_of_an_editor_is_passed_over(tmp_path: Path) -> None:
    """Some editors begin every file with one."""
    (tmp_path / "autoresearch.toml").write_text('\ufeffpreset = "plain"\nseed = 3\n')
    assert load(tmp_path).config.seed == 3


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('[plugins.openai]\nbase_url = "https://me:hunter2@host/v1"', "plugins.openai.base_url"),
        ('[env]\nHTTPS_PROXY = "http://me:hunter2@proxy"', "env.HTTPS_PROXY"),
        ('command = ["sh", "-c", "curl ftp://me:hunter2@host"]', "command"),
    ],
)
def test_a_password_in_an_address_is_refused(tmp_path: Path, text: str, name: str) -> None:
    """Settings are recorded for ever; the line that refuses does not show the password."""
    (tmp_path / "autoresearch.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{name} from autoresearch.toml has a user or password in ")
    assert "hunter2" not in said
    assert "pass_env" in said


def test_a_campaign_of_before_the_boundary_stays_without(tmp_path: Path) -> None:
    """What a campaign was started with is not changed under it."""
    recorded = unstructure(Config())
    del recorded["boundary"]
    assert from_record(recorded).boundary.kind == "none"
    assert Config().boundary.kind == "auto"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("AUTORESEARCH_LIMITS_HOURZ", "did you mean 'AUTORESEARCH_LIMITS_HOURS'"),
        ("AUTORESEARCH_COMMAND", "use the file or --set"),
    ],
)
def test_misspelt_environment_setting_is_an_error(tmp_path: Path, name: str, problem: str) -> None:
    """A setting that is not read would be missed after a whole night."""
    with pytest.raises(ConfigError, match=f"cannot set {name}.*{problem}"):
        load(tmp_path, environ={name: "8"})
    others = {"AUTORESEARCH_RUN": "/x", "AUTORESEARCH_LOAD_PLUGINS": "", "AUTORESEARCH_SEED": "7"}
    assert load(tmp_path, environ=others).config.seed == 7
