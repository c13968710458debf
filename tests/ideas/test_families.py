"""What a hyperparameter's name says about how to move it."""

from __future__ import annotations

import pytest

from autoresearch.ideas import Hyperparameter, families


def parameter(name: str, value: bool | int | float | str) -> Hyperparameter:
    """Return a hyperparameter read from the environment."""
    return Hyperparameter(
        name=name, value=value, type=type(value).__name__, line=1, form="environment"
    )


@pytest.mark.parametrize(
    ("name", "value", "family"),
    [
        ("MATRIX_LR", 0.04, "learning rate"),
        ("learning_rate", 6e-4, "learning rate"),
        ("MUON_MOMENTUM", 0.95, "momentum"),
        ("MUON_MOMENTUM_WARMUP_START", 0.85, "momentum"),
        ("MUON_MOMENTUM_WARMUP_STEPS", 500, "schedule"),
        ("BETA2", 0.95, "momentum"),
        ("NUM_LAYERS", 9, "depth"),
        ("n_layer", 12, "depth"),
        ("NUM_KV_HEADS", 4, "heads"),
        ("MODEL_DIM", 512, "width"),
        ("MLP_MULT", 2, "expansion"),
        ("WARMDOWN_ITERS", 1200, "schedule"),
        ("WARMUP_FRAC", 0.1, "fraction"),
        ("WEIGHT_DECAY", 0.0, "weight decay"),
        ("DROPOUT", 0.1, "dropout"),
        ("GRAD_CLIP_NORM", 0.0, "clipping"),
        ("QK_GAIN_INIT", 1.5, "gain"),
        ("LOGIT_SOFTCAP", 30.0, "gain"),
        ("TIED_EMBED_INIT_STD", 0.005, "initial spread"),
        ("ROPE_BASE", 10000.0, "position base"),
        ("ADAM_EPS", 1e-8, "epsilon"),
        ("MUON_BACKEND_STEPS", 5, "count"),
        ("BATCH_SIZE", 64, "batch"),
        ("TIE_EMBEDDINGS", True, "switch"),
        ("ZEBRA", 3.0, "other"),
    ],
)
def test_names_tell_the_family(name: str, value: bool | int | float, family: str) -> None:
    """Names of the challenge's trainer and of other people's scripts are understood."""
    assert families.family(parameter(name, value)).name == family


@pytest.mark.parametrize(
    ("name", "value", "first"),
    [
        ("MATRIX_LR", 0.04, {0.06, 0.0267}),
        ("MUON_MOMENTUM", 0.95, {0.975, 0.9}),
        ("NUM_LAYERS", 9, {10, 8}),
        ("MODEL_DIM", 512, {576, 448}),
        ("MODEL_DIM", 96, {128, 64}),
        ("NUM_KV_HEADS", 4, {8, 2}),
        ("GRAD_CLIP_NORM", 0.0, {0.3, 1.0}),
        ("TIE_EMBEDDINGS", True, {False}),
    ],
)
def test_the_nearest_values_come_first(
    name: str, value: bool | int | float, first: set[float]
) -> None:
    """One step to each side that makes sense for the kind of number."""
    steps = families.values(parameter(name, value))
    assert set(steps[: len(first)]) == first


@pytest.mark.parametrize(
    ("name", "value"),
    [("NUM_LAYERS", 1), ("MLP_MULT", 1), ("MODEL_DIM", 1), ("MUON_MOMENTUM", 0.999), ("X", -3.0)],
)
def test_values_stay_possible(name: str, value: float) -> None:
    """Counts stay at one or more, momentum below one, and the present value is not among them."""
    steps = families.values(parameter(name, value))
    assert steps
    assert value not in steps
    if isinstance(value, int):
        assert all(isinstance(step, int) and step >= 1 for step in steps)
    if "MOMENTUM" in name:
        assert all(0 < step < 1 for step in steps)


@pytest.mark.parametrize(("name", "value"), [("OPTIMIZER", "muon"), ("OFFSET", 0), ("SHIFT", 0.0)])
def test_words_and_bare_zeros_have_no_steps(name: str, value: float | str) -> None:
    """There is no scale on which to move them."""
    assert families.values(parameter(name, value)) == ()


def test_switches_make_names_idle() -> None:
    """With tied embeddings the rates of the untied ones are not read, and the other way round."""
    items = [parameter(name, 0.1) for name in ("EMBED_LR", "HEAD_LR", "TIED_EMBED_LR", "MATRIX_LR")]
    tied = [*items, parameter("TIE_EMBEDDINGS", True)]
    untied = [*items, parameter("TIE_EMBEDDINGS", False)]
    assert families.idle(tied) == {"EMBED_LR", "HEAD_LR"}
    assert families.idle(untied) == {"TIED_EMBED_LR"}
    assert families.idle(items) == frozenset()
