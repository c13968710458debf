"""One run has a GPU at a time, whichever campaign, loop or process it is of."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import autoresearch
from autoresearch.config import RunsConfig
from autoresearch.launchers.environment import devices, lease, share
from autoresearch.testing import make_project


def test_devices_are_the_set_the_visible_or_all(tmp_path: Path) -> None:
    """The setting wins over CUDA_VISIBLE_DEVICES, which wins over the device files."""
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl"):
        (tmp_path / name).touch()
    told = RunsConfig(devices=("a", "b"))
    assert devices(told, {"CUDA_VISIBLE_DEVICES": "0"}, tmp_path) == ("a", "b")
    assert devices(RunsConfig(), {"CUDA_VISIBLE_DEVICES": "1, 10"}, tmp_path) == ("1", "10")
    assert devices(RunsConfig(), {"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == ()
    assert devices(RunsConfig(), {}, tmp_path) == ("0", "1", "10")
    # The second of two equal names would never be free for the run that holds the first.
    assert devices(RunsConfig(devices=("0", "0", "1")), {}, tmp_path) == ("0", "1")


@pytest.mark.parametrize(
    ("parallel", "each", "found", "expected"),
    [
        (1, 0, 8, 8),
        (4, 0, 8, 2),
        (3, 0, 8, 2),
        (16, 0, 8, 1),
        (4, 1, 8, 1),
        (1, 4, 2, 2),
        (2, 0, 0, 0),
    ],
)
def test_devices_are_shared_out(parallel: int, each: int, found: int, expected: int) -> None:
    """Evenly unless the number is set; never more than there are."""
    settings = RunsConfig(parallel=parallel, gpus=each)
    assert share(settings, tuple(map(str, range(found)))) == expected


def test_lease_is_whole_or_none_and_outlives_who_took_it(tmp_path: Path) -> None:
    """A process that inherited the files holds it; with its end the kernel lets go."""
    one = lease(("a", "b", "c"), 2, tmp_path)
    assert one is not None
    assert one.names == ("a", "b")
    assert lease(("a", "b", "c"), 2, tmp_path) is None
    rest = lease(("a", "b", "c"), 1, tmp_path)
    assert rest is not None
    assert rest.names == ("c",)
    rest.let_go()
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=one.files
    ) as child:
        one.let_go()
        assert lease(("a", "b"), 1, tmp_path) is None
        child.communicate(b"\n")
    again = lease(("a", "b"), 2, tmp_path)
    assert again is not None
    again.let_go()


SCRIPT = """
import os
import time
A = 1
B = 2
C = 3
D = 4
print("score:", 1.0)
start = time.time()
time.sleep(0.6)
with open(os.path.join(os.environ["DIARY"], os.environ["RUN_ID"]), "w") as file:
    file.write(f"{os.environ['CUDA_VISIBLE_DEVICES']} {start} {time.time()}")
"""
SETTINGS = """preset = "plain"
env = {{ DIARY = "{diary}" }}
[runs]
parallel = 2
devices = ["{one}", "{other}"]
[metric]
name = "score"
sd = 0.1
[boundary]
kind = "none"
"""


def test_two_campaigns_on_one_machine_never_share_a_gpu(tmp_path: Path) -> None:
    """Four runs at once want two GPUs: each is used by one after the other."""
    names = {"one": f"pretended-{os.getpid()}-0", "other": f"pretended-{os.getpid()}-1"}
    loops, diary = [], tmp_path / "diary"
    diary.mkdir()
    for tag in ("first", "second"):
        settings = SETTINGS.format(diary=diary, **names)
        project = make_project(tmp_path / tag, script=SCRIPT, settings=settings)
        autoresearch.start(project, tag=tag)
        command = [sys.executable, "-m", "autoresearch", "run", "--experiments", "4", "--no-wait"]
        loops.append(subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True))
    for loop in loops:
        said, _ = loop.communicate(timeout=120)
        assert loop.returncode == 0, said
    spans: dict[str, list[tuple[float, float]]] = {}
    for page in diary.iterdir():
        gpu, start, end = page.read_text().split()
        spans.setdefault(gpu, []).append((float(start), float(end)))
    assert sum(map(len, spans.values())) == 8
    assert set(spans) == set(names.values())
    for used in spans.values():
        for (_, end), (start, _) in pairwise(sorted(used)):
            assert end <= start, used
