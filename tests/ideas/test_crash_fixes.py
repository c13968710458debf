"""Trivial crashes are repaired from what Python itself says; others are left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from autoresearch.ideas import fixes
from autoresearch.model import Idea, IdeaKind
from autoresearch.testing import workspace


def run(folder: Path, source: str) -> tuple[int, str]:
    """Run a script for real; return its exit code and its output."""
    folder.mkdir(exist_ok=True)
    script = folder / "script.py"
    script.write_text(source)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


TRIVIAL = {
    "a missing module": '"""Doc."""\nfrom __future__ import annotations\nprint(math.floor(2.5))\n',
    "a missing name of the standard library": "import os\nprint(Path('a').name, os.sep)\n",
    "a missing name under a decorator": "@dataclass\nclass A:\n    x: int = 1\nprint(A())\n",
    "a misspelt variable": "model = 3\n\ndef score():\n    return modle + 1\n\nprint(score())\n",
    "a misspelt attribute": "import os\nprint(os.path.basname('a/b'), 'basname')\n",
    "a misspelt function": "def train():\n    return 2\nprint('score:', trian(), 'trian')\n",
}


@pytest.mark.parametrize("name", TRIVIAL)
def test_a_trivial_crash_is_repaired(tmp_path: Path, name: str) -> None:
    """After a typo or a missing import the repaired script runs, and words in texts stay."""
    source = TRIVIAL[name]
    code, log = run(tmp_path, source)
    assert code == 1
    fixed = fixes.repaired(source, log)
    assert fixed is not None
    assert run(tmp_path, fixed)[0] == 0
    assert [line for line in fixed.splitlines() if "'basname'" in line or "'trian'" in line] or (
        "'basname'" not in source and "'trian'" not in source
    )


DEEPER = {
    "a wrong shape": "a = [1, 2]\nprint(a[5])\n",
    "an unknown name": "print(zzzzqqq)\n",
    "an unknown package": "import notinstalledanywhere\n",
    "a value": "int('x')\n",
    "an alias of a package that is not used": "print(np.zeros(3))\n",
}


@pytest.mark.parametrize("name", DEEPER)
def test_other_crashes_are_left(tmp_path: Path, name: str) -> None:
    """What needs thought is not a trivial fix."""
    source = DEEPER[name]
    code, log = run(tmp_path, source)
    assert code == 1
    assert fixes.repaired(source, log) is None


def test_two_faults_are_repaired_one_after_the_other(tmp_path: Path) -> None:
    """Each attempt fixes what the last run complained about."""
    source = "value = math.floor(2.5)\nprint(vlaue)\n"
    for _ in range(2):
        code, log = run(tmp_path, source)
        assert code == 1
        repaired = fixes.repaired(source, log)
        assert repaired is not None
        source = repaired
    assert run(tmp_path, source)[0] == 0


def test_prefixes_of_several_processes_do_not_matter(tmp_path: Path) -> None:
    """The launcher of several GPUs writes the rank before every line."""
    source = TRIVIAL["a misspelt variable"]
    log = run(tmp_path, source)[1]
    ranked = "".join(f"[rank0]: {line}\n" for line in log.splitlines())
    assert fixes.repaired(source, ranked) == fixes.repaired(source, log) is not None


def test_a_traceback_of_other_code_changes_nothing() -> None:
    """A line that does not stand in the script as shown belongs to another file."""
    log = (
        'Traceback (most recent call last):\n  File "x/lib.py", line 1, in f\n    modle + 1\n'
        "NameError: name 'modle' is not defined. Did you mean: 'model'?\n"
    )
    assert fixes.repaired("model = 1\nprint(model)\n", log) is None


@pytest.mark.parametrize("log", ["", "Killed", "NameError: name '", "score: 1", "\0" * 99])
def test_a_log_without_a_traceback_has_no_crash_to_fix(log: str) -> None:
    """Nothing is guessed."""
    assert fixes.repaired("x = 1\n", log) is None


def test_only_fixes_are_answered(tmp_path: Path) -> None:
    """An ordinary idea in words is left to other plugins; a fix reads the worktree's script."""
    place = workspace(tmp_path, "print(math.pi)\n")
    log = run(tmp_path / "run", "print(math.pi)\n")[1]
    said = {"direction": "d", "description": "fix: NameError", "hypothesis": log}
    fix, idea = Idea(**said, kind=IdeaKind.FIX), Idea(**said)
    assert fixes.Plugin().implement_idea(fix, place) == "import math\nprint(math.pi)\n"
    assert fixes.Plugin().implement_idea(idea, place) is None
