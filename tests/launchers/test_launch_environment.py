"""What a run may see of the environment of whoever started it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autoresearch.config import RunsConfig
from autoresearch.launchers import RunFolder
from autoresearch.launchers.environment import clean_environment, visible_gpus
from autoresearch.launchers.far import order_for, spec_here
from autoresearch.testing import run_request, workspace


@pytest.mark.parametrize(
    "name",
    [
        *("GITHUB_TOKEN", "HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "MODAL_TOKEN_ID"),
        *("SSH_AUTH_SOCK", "GIT_ASKPASS", "PGPASSWORD", "CUDA_REGISTRY_TOKEN", "TORCH_APIKEY"),
        *("TORCH_HUB_PASS", "LC_PASSPHRASE", "CUDA_LICENSE_PAT", "NCCL_AUTH", "AWS_PROFILE"),
        *("LD_PRELOAD", "LC_ANYTHING", "NVIDIA_ANYTHING", "OMP_ANYTHING", "CONDA_TOKEN"),
    ],
)
def test_credentials_stay_outside(name: str) -> None:
    """No variable that holds or leads to a credential is passed on."""
    assert clean_environment({name: "hunter2"}, {}) == {}


@pytest.mark.parametrize("name", ["MATRIX_LR", "PYTHONPATH", "RANK", "WORLD_SIZE", "SEED"])
def test_what_would_change_the_score_stays_outside(name: str) -> None:
    """A variable that somebody once exported in a shell does not reach the training script."""
    assert clean_environment({name: "1"}, {}) == {}


@pytest.mark.parametrize(
    "name", ["PATH", "HOME", "LC_ALL", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TMPDIR"]
)
def test_what_the_machine_needs_passes(name: str) -> None:
    """Paths, language, and settings of CUDA and OpenMP reach the run unchanged."""
    assert clean_environment({name: "x"}, {}) == {name: "x"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TORCH_HOME", "https://me:secret@host/"),
        ("HTTPS_PROXY", "http://me:secret@proxy:8080"),
        ("https_proxy", "me:secret@proxy:8080"),
        ("ALL_PROXY", "socks5://me:se/cret@proxy"),
    ],
)
def test_a_password_inside_an_address_stays_outside(name: str, value: str) -> None:
    """A kept variable is left out when its value is an address with a user in it."""
    assert clean_environment({name: value}, {}) == {}
    assert clean_environment({name: "http://proxy:8080"}, {}) == {name: "http://proxy:8080"}


def test_a_person_passes_more_by_name_or_pattern() -> None:
    """An exact name is taken as it is; a pattern never takes what sounds like a secret."""
    environ = {"WANDB_MODE": "offline", "WANDB_API_KEY": "k", "HF_TOKEN": "t", "OTHER": "o"}
    passed = clean_environment(environ, {}, ["WANDB_*", "HF_TOKEN"])
    assert passed == {"WANDB_MODE": "offline", "HF_TOKEN": "t"}
    secret = ["X_PASS", "X_PAT", "X_PAT_2", "X_AUTH", "X_CREDENTIALS", "X_SECRETS", "X_TOKENS"]
    assert clean_environment(dict.fromkeys([*secret, "X_PATH"], "1"), {}, ["*"]) == {"X_PATH": "1"}
    assert clean_environment({"X_URL": "https://me:pw@host"}, {}, ["X_*"]) == {}


def test_the_configuration_is_taken_as_it_is() -> None:
    """What a person wrote into the configuration wins over the surroundings and the rules."""
    extra = {"HF_TOKEN": "wanted", "HOME": "/else"}
    assert clean_environment({"HOME": "/root"}, extra) == extra


@pytest.mark.parametrize(
    ("chosen", "count"), [(None, 3), ("", 0), ("-1", 0), ("0", 1), ("0,2", 2), ("0,1,2,3", 3)]
)
def test_gpus_are_counted_as_cuda_would(tmp_path: Path, chosen: str | None, count: int) -> None:
    """Device files count the GPUs, and CUDA_VISIBLE_DEVICES narrows them."""
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    environ = {} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen}
    assert visible_gpus(environ, tmp_path) == count


def test_a_machine_without_gpus_has_none(tmp_path: Path) -> None:
    """No device file, no GPU, whatever CUDA_VISIBLE_DEVICES says."""
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0,1"}, tmp_path) == 0


@pytest.mark.parametrize(
    "places", [None, {}], ids=["on another machine", "where folders are these"]
)
def test_an_order_says_there_what_was_asked_for_here(
    tmp_path: Path, places: dict[str, str] | None
) -> None:
    """Words that only look like a mark stay as they are; git finds no repository around the run."""
    asked = run_request(tmp_path / "runs", env={"DATA": "HERE/ATMOSPHERE"})
    order = order_for(asked, workspace(tmp_path / "work"), (), RunsConfig(), places)
    spec = spec_here(order, RunFolder(tmp_path / "there" / "run", tmp_path / "there" / "control"))
    assert spec.env["DATA"] == "HERE/ATMOSPHERE"
    assert str(tmp_path / "runs") in spec.env["GIT_CEILING_DIRECTORIES"].split(os.pathsep)
    moved = spec.command[1].startswith(str(tmp_path / "there"))
    assert moved is (places is None)
