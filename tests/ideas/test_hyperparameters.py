"""Finding hyperparameters and changing one literal, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.errors import AutoresearchError
from autoresearch.ideas import hyperparameters, with_value, with_values

SCRIPT = '''\
"""A script — with a dash."""
import os

RATE = 3e-4  # comment
BATCH = 2**19
lower = 7
total = 0
total += 1
NAME = "text"
PAIR = (1, 2)


class Settings:
    data = os.environ.get("DATA_PATH", "./data")
    layers = int(os.environ.get("NUM_LAYERS", 9))
    lr = float(os.environ.get('MATRIX_LR', '0.04'))
    tie = bool(int(os.environ.get("TIE", "1")))
    clip = float(os.getenv("CLIP", default=0.0))
    width: int = 512
    offset = -2


def run():
    local = 3
    seed = env_int("SEED", 1_337)
    flag = env_bool("FLAG", False)
    name = env_str("WORD", "muon")
    return local
'''


def found(source: str) -> dict[str, tuple[object, str, str]]:
    """Return value, type and form by name."""
    return {item.name: (item.value, item.type, item.form) for item in hyperparameters(source)}


def test_every_form_is_found() -> None:
    """Look-ups, helpers and constants are settings; locals, texts and counters are not."""
    environment, constant = "environment", "constant"
    assert found(SCRIPT) == {
        "RATE": (3e-4, "float", constant),
        "BATCH": (2**19, "int", constant),
        "lower": (7, "int", constant),
        "DATA_PATH": ("./data", "str", environment),
        "NUM_LAYERS": (9, "int", environment),
        "MATRIX_LR": (0.04, "float", environment),
        "TIE": (True, "bool", environment),
        "CLIP": (0.0, "float", environment),
        "width": (512, "int", constant),
        "offset": (-2, "int", constant),
        "SEED": (1337, "int", environment),
        "FLAG": (False, "bool", environment),
        "WORD": ("muon", "str", environment),
        "PAIR.0": (1, "int", constant),
        "PAIR.1": (2, "int", constant),
    }


def test_lines_are_those_of_the_file() -> None:
    """The line of a hyperparameter is where its value stands."""
    lines = SCRIPT.splitlines()
    for item in hyperparameters(SCRIPT):
        assert item.name.partition(".")[0] in lines[item.line - 1]


@pytest.mark.parametrize(
    ("name", "value", "old", "new"),
    [
        ("RATE", 0.002, "RATE = 3e-4  # comment", "RATE = 0.002  # comment"),
        ("RATE", 2.0, "RATE = 3e-4", "RATE = 2.0"),
        ("RATE", 1e-9, "RATE = 3e-4", "RATE = 1e-09"),
        ("BATCH", 1024, "2**19", "1024"),
        ("NUM_LAYERS", 10, '"NUM_LAYERS", 9', '"NUM_LAYERS", 10'),
        ("MATRIX_LR", 0.05, "'0.04'", "'0.05'"),
        ("TIE", False, '"TIE", "1"', '"TIE", "0"'),
        ("CLIP", 1.0, "default=0.0", "default=1.0"),
        ("offset", 3, "offset = -2", "offset = 3"),
        ("SEED", 20000, "1_337", "20_000"),
        ("FLAG", True, '"FLAG", False', '"FLAG", True'),
        ("WORD", "it's", '"muon"', '"it\'s"'),
    ],
)
def test_one_literal_changes_and_nothing_else(
    name: str, value: bool | int | float | str, old: str, new: str
) -> None:
    """The literal keeps its way of writing: quotes, underscores, flags."""
    assert SCRIPT.count(old) == 1
    assert with_value(SCRIPT, name, value) == SCRIPT.replace(old, new)


def test_several_at_once() -> None:
    """Changes of several names are one edit, and the order does not matter."""
    both = with_values(SCRIPT, {"RATE": 0.1, "SEED": 1})
    assert both == with_values(SCRIPT, {"SEED": 1, "RATE": 0.1})
    assert both == with_value(with_value(SCRIPT, "RATE", 0.1), "SEED", 1)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_wide_characters_stay(end: str) -> None:
    """Byte ranges hold for every line end and for characters of several bytes."""
    source = SCRIPT.replace("\n", end)
    changed = with_value(source, "MATRIX_LR", 0.05)
    assert changed == source.replace("0.04", "0.05")


def test_a_name_with_two_values_is_left_out() -> None:
    """No one could say which of them counts; the same value twice changes in both places."""
    twice = 'a = int(os.environ.get("A", 1))\nb = int(os.environ.get("A", {}))\n'
    assert hyperparameters(twice.format(2)) == ()
    assert with_value(twice.format(1), "A", 3) == twice.format(3).replace('"A", 1', '"A", 3')
    assert hyperparameters("X = 1\nX = 2\n") == ()


@pytest.mark.parametrize(
    "source",
    ["", "def", "\0", "x = \ud800", "(" * 500, "x = 9**9**9\n", "import os\nprint('hello')\n"],
)
def test_a_script_without_hyperparameters_has_none(source: str) -> None:
    """Neither broken nor plain scripts are an error."""
    assert hyperparameters(source) == ()


def test_an_unknown_name_is_an_error_that_lists_the_known() -> None:
    """A misspelt name is refused with the names that exist."""
    with pytest.raises(AutoresearchError, match=r"no hyperparameter 'RAT'.*RATE"):
        with_value(SCRIPT, "RAT", 1.0)


@pytest.mark.parametrize(("name", "value"), [("RATE", "fast"), ("TIE", 2), ("NUM_LAYERS", True)])
def test_a_value_of_another_type_is_refused(name: str, value: object) -> None:
    """A number stays a number and a flag a flag."""
    with pytest.raises(AutoresearchError, match="of type"):
        with_value(SCRIPT, name, value)  # type: ignore[arg-type]


@given(st.floats(min_value=1e-12, max_value=1e12), st.integers(-(10**9), 10**9))
def test_what_is_written_is_read_back(rate: float, layers: int) -> None:
    """A changed script has the new value, to six digits, and all others as before."""
    changed = with_values(SCRIPT, {"RATE": rate, "NUM_LAYERS": layers})
    before, after = found(SCRIPT), found(changed)
    assert after.pop("NUM_LAYERS") == (layers, "int", "environment")
    value, kind, _ = after.pop("RATE")
    assert value == pytest.approx(rate, rel=1e-5)
    assert kind == "float"
    assert {name: before[name] for name in after} == after


def test_the_project_s_own_trainer_can_be_edited(request: pytest.FixtureRequest) -> None:
    """Each number of train_gpt.py changes where its name stands, and the script still compiles."""
    source = (Path(request.config.rootpath) / "train_gpt.py").read_text()
    numbers = [item for item in hyperparameters(source) if item.type in ("int", "float")]
    assert {"NUM_LAYERS", "MATRIX_LR", "MUON_MOMENTUM", "WARMDOWN_ITERS"} <= {
        item.name for item in numbers
    }
    for item in numbers:
        changed = with_value(source, item.name, 3 if item.type == "int" else 3.25)
        compile(changed, "train_gpt.py", "exec")
        pairs = zip(source.splitlines(), changed.splitlines(), strict=True)
        differing = [old for old, new in pairs if old != new]
        assert source.splitlines()[item.line - 1] in differing
        own = {item.name.partition(".")[0], item.name.rpartition(".")[2]}
        assert all(any(name in line for name in own) for line in differing), item.name
