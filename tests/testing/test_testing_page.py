"""The page on testing cannot drift: its examples run, its lists are those of the code."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from autoresearch import testing

PAGE = Path(__file__).parents[2] / "docs" / "testing-plugins.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
MARKS = re.compile(r"(<!-- properties:.*?-->\n)(.*?)(<!-- end of properties -->)", re.DOTALL)
CONTRACTS = sorted(
    name
    for name in testing.__all__
    if name.endswith("Contract") and name not in ("PluginContract", "EventLogContract")
)


def properties() -> str:
    """Return what each contract holds a plugin to, from the docstrings of its tests."""
    parts = []
    for name in CONTRACTS:
        contract = getattr(testing, name)
        tests = [item for item in dir(contract) if item.startswith("test_")]
        if name != "PluginContract" and tests:
            lines = [
                f"* {' '.join((getattr(contract, item).__doc__ or '').split())}" for item in tests
            ]
            parts.append("\n".join([f"`{name}`", "", *lines]))
    return "\n" + "\n\n".join(parts) + "\n\n"


@pytest.mark.parametrize("block", [block for block in BLOCKS if "class Test" not in block])
def test_examples_run(block, tmp_path):
    """Each example is a program whose assertions hold."""
    exec(compile(block, str(PAGE), "exec"), {"folder": tmp_path})


def test_the_example_of_a_contract_passes(tmp_path):
    """The class on the page is a test module of its own."""
    (block,) = [block for block in BLOCKS if "class Test" in block]
    (tmp_path / "test_example.py").write_text(block)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_properties_are_those_of_the_contracts():
    """The lists on the page are the docstrings; UPDATE_DOCS=1 writes them."""
    text = PAGE.read_text()
    wanted = MARKS.sub(lambda found: found[1] + properties() + found[3], text)
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(wanted)
        text = wanted
    assert text == wanted, "run this test with UPDATE_DOCS=1"


@pytest.mark.parametrize("name", [*CONTRACTS, "LoopbackOpenAI", "RecordingObserver", "story"])
def test_what_the_kit_offers_is_on_the_page(name):
    """A contract that is not told of is not found."""
    assert f"`{name}" in PAGE.read_text()
