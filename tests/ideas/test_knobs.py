"""Numbers and flags in every editable file: found where it is certain, changed and nothing else."""

from __future__ import annotations

import tomllib
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.config import Config, MetricConfig
from autoresearch.errors import AutoresearchError
from autoresearch.ideas import (
    describe,
    differences,
    digest_of,
    families,
    knobs,
    script,
    with_changes,
)
from autoresearch.model import Value, ValueChange
from autoresearch.testing import experiment, idea, story

TOML = """\
# lr = 1
lr = 3e-4  # keep\r
steps = 1_000
[optim."odd name"]
momentum = 0.5
[optim . sgd]
a.b = 0.5
flag = true
word = "x = 5"
list = [
  1,
]
note = '''
lr = 5
'''
[[layers]]
width = 1
"""
YAML = """\
---
# lr: 9
lr: 3e-4   # rate
model:
  dim: 128
  drop: 0.10
  act: plain words
    that go 7
  names: ["a: 1", 'b']
  sub: {x: 1}
  deep:
    on_top: true
  layers:
  - width: 1
    depth: 2
  - 3
  text: |
    z: 5

    w: 6
  quoted: "5"
last: 1.5
"""


def found(text: str, path: str) -> dict[str, Value]:
    """Return the knobs of one file by name."""
    return {item.name: item.value for item in knobs({path: text}, "train.py")}


def change(name: str, old: Value, new: Value, file: str = "") -> ValueChange:
    """Return one change."""
    return ValueChange(name=name, old=old, new=new, file=file)


def test_toml_has_dotted_names() -> None:
    """Comments, texts, lists, odd keys and arrays of tables are passed over."""
    assert found(TOML, "a.toml") == {
        "lr": 3e-4,
        "steps": 1000,
        "optim.sgd.a.b": 0.5,
        "optim.sgd.flag": True,
    }


def test_yaml_has_dotted_names() -> None:
    """Sequences, flow collections, texts and quoted numbers are passed over."""
    expected = {"lr": 3e-4, "model.dim": 128, "model.drop": 0.1, "model.deep.on_top": True}
    assert found(YAML, "a.yml") == {**expected, "last": 1.5}


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb:\t2\n",
        "a: 1\n b: 2\n",
        "a: 1\n  2\n",
        "a: 1\na: 1\n",
        "a: 1\n---\nb: 2\n",
        "a: {b: 1,\n c: 2}\n",
        "base: &b\n  a: 1\n<<: *b\n",
        "a: 1\u2028b: 2\n",
        "- a: 1\n",
        "a:\n    b: 1\n  c: 2\n",
    ],
)
def test_yaml_that_is_not_understood_has_none(text: str) -> None:
    """One line that may mean something else, and the whole file is left alone."""
    assert found(text, "a.yaml") == {}


@pytest.mark.parametrize(
    "text",
    [
        'a: "x\n  b: 1"\nc: 2\n',
        "a: !!int 5\nc: 2\n",
        "a: &x 5\nb: *x\nc: 2\n",
        "base: &b\n  a: 1\nother: *b\nc: 2\n",
        "a: &b {x: 1}\nd:\n  <<: *b\nc: 2\n",
        "? c\n: 2\n",
        "'a': 1\n1: 3\n[a, b]: 4\nc: 2\n",
    ],
)
def test_yaml_that_is_more_than_a_value_is_passed_over(text: str) -> None:
    """Tags, anchors, aliases, texts of several lines and odd keys, and what stands beside them."""
    assert found(text, "a.yaml") == {"c": 2}


@pytest.mark.parametrize(
    "word", ["yes", "1_000", "0x10", "010", "1:30", "1e5", "nan", ".inf", "-.5", "5 apples", "~"]
)
def test_yaml_scalars_that_readers_disagree_on_are_left(word: str) -> None:
    """YAML 1.1 and 1.2 read them differently, or they are no numbers."""
    assert found(f"a: {word}\nb: 2\n", "a.yaml") == {"b": 2}


def test_the_script_comes_first_and_other_files_know_their_place() -> None:
    """In the script a name is its own key; elsewhere the file stands before it."""
    files = {"a.toml": "lr = 1\n", "train.py": "lr = 2\n", "b.py": "lr = 3\n", "c.txt": "lr = 4\n"}
    keys = [(item.key, item.file, item.form) for item in knobs(files, "train.py")]
    assert keys == [
        ("lr", "", "constant"),
        ("a.toml:lr", "a.toml", "setting"),
        ("b.py:lr", "b.py", "constant"),
    ]


def test_every_other_byte_stays() -> None:
    """Comments, line ends, underscores and the way of writing a flag are kept."""
    files = {"a.toml": TOML, "b.yaml": YAML, "train.py": "lr = 1.0  # é\r\n"}
    changes = [
        change("lr", 1.0, 2.0),
        change("steps", 1000, 2000, "a.toml"),
        change("optim.sgd.flag", True, False, "a.toml"),
        change("lr", 3e-4, 1e-5, "b.yaml"),
        change("model.deep.on_top", True, False, "b.yaml"),
    ]
    assert with_changes(files, changes, "train.py") == {
        "train.py": "lr = 2.0  # é\r\n",
        "a.toml": TOML.replace("1_000", "2_000").replace("true", "false"),
        "b.yaml": YAML.replace("3e-4", "1.0e-05").replace("true", "false"),
    }
    assert differences(files, with_changes(files, changes, "train.py"), "train.py") == tuple(
        changes
    )
    assert describe(changes[:2]) == "lr 1.0 -> 2.0, steps 1000 -> 2000 in a.toml"


def test_a_wrong_name_or_file_is_named() -> None:
    """The error says what there is."""
    with pytest.raises(AutoresearchError, match="no hyperparameter 'x'; use one of a"):
        with_changes({"a.toml": "a = 1\n"}, [change("x", 1, 2, "a.toml")])
    with pytest.raises(AutoresearchError, match=r"no file .b\.toml"):
        with_changes({"a.toml": "a = 1\n"}, [change("a", 1, 2, "b.toml")])


_KEYS = st.from_regex(r"[a-z][a-z_]{0,5}", fullmatch=True).filter(
    lambda key: key not in {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
)
_LEAVES = (
    st.booleans()
    | st.integers(-1000, 1000)
    | st.floats(-1000, 1000).map(lambda value: round(value, 3))
    | st.text(max_size=12)
    | st.lists(st.integers(0, 9) | st.text("ab: #-", max_size=4), max_size=3)
)
_TREES = st.recursive(
    st.dictionaries(_KEYS, _LEAVES, max_size=4),
    lambda inner: st.dictionaries(_KEYS, _LEAVES | inner, max_size=4),
    max_leaves=12,
)


def leaves(tree: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Return what is no table, by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= leaves(value, f"{path}{name}.") if isinstance(value, dict) else {path + name: value}
    return flat


def check(text: str, path: str, load: Any) -> None:
    """Each knob has the value that a reader of the format sees; another value changes it alone."""
    before = leaves(load(text))
    for name, value in found(text, path).items():
        assert (before[name], type(before[name])) == (value, type(value))
        new: Value = (
            not value if isinstance(value, bool) else type(value)(78 if value == 77 else 77)
        )
        after = with_changes({path: text}, [change(name, value, new, path)], "train.py")
        assert leaves(load(after[path])) == {**before, name: new}


@settings(deadline=None, max_examples=60)
@given(_TREES, st.sampled_from([2, 4]), st.sampled_from([20, 80]))
def test_yaml_is_read_as_its_own_reader_does(tree: dict[str, Any], indent: int, width: int) -> None:
    """Whatever a writer of YAML makes, what is found is right and an edit changes one value."""
    check(
        yaml.safe_dump(tree, indent=indent, width=width),
        "a.yaml",
        lambda t: yaml.safe_load(t) or {},
    )


@settings(deadline=None, max_examples=60)
@given(_TREES, st.sampled_from(["\n", "\r\n"]))
def test_toml_is_read_as_its_own_reader_does(tree: dict[str, Any], end: str) -> None:
    """Every number and flag of a table is found, and an edit changes one value."""
    text = "".join(f"{line}{end}" for line in toml_lines(tree))
    numbers = {n: v for n, v in leaves(tree).items() if isinstance(v, (bool, int, float))}
    assert found(text, "a.toml") == numbers
    check(text, "a.toml", tomllib.loads)


def toml_lines(tree: dict[str, Any], path: str = "") -> list[str]:
    """Write a tree as TOML, texts over several lines."""
    lines = []
    for name, value in tree.items():
        if isinstance(value, str):
            lines += [f'{name} = """', *(f"{word}" for word in ["lr = 1"]), '""" # = 2']
        elif isinstance(value, list):
            lines.append(f"{name} = [")
            lines += [f"  {number}," for number in value if isinstance(number, int)]
            lines.append("]")
        elif not isinstance(value, dict):
            lines.append(f"{name} = {str(value).lower()}  # {name} = 3")
    for name, value in tree.items():
        if isinstance(value, dict):
            lines += [f"[{path}{name}]", *toml_lines(value, f"{path}{name}.")]
    return lines


FILES = {"train.py": "print(1)\n", "conf/a.yaml": "optimizer:\n  lr: 0.04\nseed: 3\n"}


def propose(past: Any, files: dict[str, str], seed: int = 1) -> Any:
    """Return the generator's idea for several files."""
    made = script.Plugin()
    made.configure(Config(preset="plain", metric=MetricConfig(sd=0.001)))
    return made.propose_idea(past, files["train.py"], Random(seed), files)


def test_ideas_come_from_every_editable_file() -> None:
    """The number in the settings moves as its last name says; the script stays as it is."""
    idea = propose(story([1.1]).history, FILES)
    (moved,) = idea.changes
    assert (moved.name, moved.old, moved.file) == ("optimizer.lr", 0.04, "conf/a.yaml")
    assert idea.source is None
    assert idea.files == {"conf/a.yaml": FILES["conf/a.yaml"].replace("0.04", str(moved.new))}
    assert idea.direction == "optimizer lr"
    assert families.family(knobs(FILES, "train.py")[0]) is families.LEARNING_RATE


def test_what_was_tried_is_known_by_the_digest_of_all_files() -> None:
    """The same texts are not proposed again, whatever experiment they came from."""
    first = propose(story([1.1]).history, FILES)
    digest = digest_of({**FILES, **first.files})
    told = story([1.1, experiment(1.2, source_digest=digest)])
    assert propose(told.history, FILES).files != first.files


def test_what_was_learned_in_a_file_counts_there() -> None:
    """After a loss in one file the same step is not proposed there again."""
    first = propose(story([1.1]).history, FILES)
    told = story([1.1, experiment(1.3, idea=first)])
    for seed in range(5):
        (moved,) = propose(told.history, FILES, seed).changes
        assert (moved.new > 0.04) != (first.changes[0].new > 0.04)


PEOPLE = """\
import argparse, click, torch
from dataclasses import dataclass

parser = argparse.ArgumentParser()
parser.add_argument("--learning-rate", type=float, default=3e-4)
parser.add_argument("-b", "--batch", dest="bs", default=32)
args = parser.parse_args()

@click.command()
@click.option("--dropout", default=0.1)
def main(dropout): ...

@dataclass
class Model:
    depth: int = 4
    width: int = 128

DEPTH = 8
model = Model(depth=DEPTH)
CONFIG = {"lr": 0.1, "model": {"dim": 64, "act": "relu"}, "betas": (0.9, 0.95)}
OTHER = dict(wd=0.01)
table = (1, 2, 3, 4, 5)
made = torch.optim.AdamW([], lr=CONFIG["lr"], betas=(0.8, 0.99), eps=1e-8)
print(CONFIG, OTHER, model.width, args.bs, table, sorted([2, 1], key=abs, reverse=True))
"""


def test_knobs_are_found_where_people_keep_them() -> None:
    """Options, dictionaries, keyword arguments and short tuples count."""
    found = {item.name: item.value for item in knobs({"t.py": PEOPLE}, "t.py")}
    assert found == {
        "learning_rate": 3e-4,
        "bs": 32,
        "dropout": 0.1,
        "width": 128,
        "DEPTH": 8,
        "CONFIG.lr": 0.1,
        "CONFIG.model.dim": 64,
        "CONFIG.betas.0": 0.9,
        "CONFIG.betas.1": 0.95,
        "OTHER.wd": 0.01,
        "AdamW.betas.0": 0.8,
        "AdamW.betas.1": 0.99,
        "AdamW.eps": 1e-8,
    }
    for name, value in found.items():
        new: Value = value + 1 if isinstance(value, int) else value * 2
        change = ValueChange(name=name, old=value, new=new)
        after = with_changes({"t.py": PEOPLE}, [change], "t.py")["t.py"]
        assert differences({"t.py": PEOPLE}, {"t.py": after}, "t.py") == (change,)


def test_a_knob_without_effect_is_moved_once() -> None:
    """A move alone that leaves the score exactly as it was says that nothing reads the value."""
    source = "LR = 0.1\nWIDTH = 64\nprint(LR, WIDTH)\n"
    moved = ValueChange(name="WIDTH", old=64, new=72)
    told = story([1.0]).add(1.0, idea=idea(direction="width", changes=(moved,)))
    plugin = script.Plugin()
    plugin.configure(Config(preset="plain", metric=MetricConfig(sd=0.01)))
    for seed in range(20):
        found = plugin.propose_idea(told.history, source, Random(seed), {})
        assert found is not None
        assert {change.name for change in found.changes} == {"LR"}
