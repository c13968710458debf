"""Every property of every contract can fail, and fails for the plugin that breaks it alone."""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import wrong
from wrong import WRONG

MODULE = """
import pytest
from wrong import WRONG

def case(wrong):
    class Case(wrong.contract):
        @pytest.fixture
        def plugin(self):
            return wrong.make()

        @pytest.fixture
        def projection(self):
            return wrong.make()

        @pytest.fixture
        def launcher(self):
            return "mine"

        @pytest.fixture
        def patience(self):
            return 3.0
    return Case

for number, wrong in enumerate(WRONG):
    globals()[f"Test{number}"] = case(wrong)
"""


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[int, set[str]]:
    """The tests that failed for each entry of the table, from one run of pytest over all."""
    folder = tmp_path_factory.mktemp("contracts")
    (folder / "test_wrong.py").write_text(MODULE)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "--junitxml=report.xml"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(wrong.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return _failed(folder / "report.xml")


def _failed(report: Path) -> dict[int, set[str]]:
    failed: dict[int, set[str]] = {number: set() for number in range(len(WRONG))}
    for case in ElementTree.parse(report).iter("testcase"):
        number = int(case.attrib["classname"].rpartition("Test")[2])
        if case.find("failure") is not None or case.find("error") is not None:
            failed[number].add(case.attrib["name"].partition("[")[0])
    return failed


def _name(number: int) -> str:
    wrong = WRONG[number]
    return f"{number}-{wrong.contract.__name__}-{wrong.breaks or 'right'}"


@pytest.mark.parametrize("number", range(len(WRONG)), ids=_name)
def test_wrong_plugin_breaks_its_property_alone(broken: dict[int, set[str]], number: int) -> None:
    """A right plugin passes its contract; a wrong one fails the property that it breaks."""
    wanted = {WRONG[number].breaks} if WRONG[number].breaks else set()
    assert broken[number] == wanted


@pytest.mark.parametrize(
    "contract", dict.fromkeys(wrong.contract for wrong in WRONG), ids=lambda item: item.__name__
)
def test_every_property_has_a_wrong_plugin(contract: type) -> None:
    """No property of a contract is unproven."""
    properties = {name for name in dir(contract) if name.startswith("test_")}
    implied = {"test_implements_its_hook"}  # without the hook nothing else holds either
    proven = {wrong.breaks for wrong in WRONG if wrong.contract is contract}
    assert properties - proven <= implied
