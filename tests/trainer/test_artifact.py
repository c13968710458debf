"""The artifact: what it stores, what it loses, and that half of one never has its name."""

from __future__ import annotations

import hashlib
import os
import signal
import time
import zlib
from pathlib import Path

import pytest
import torch
import train_gpt
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer_kit import make_runtime

PATTERNS = train_gpt.name_patterns(train_gpt.CONTROL_NAMES)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(1e-3, 1e3), st.booleans())
def test_codes_are_within_half_a_step(seed: int, size: float, matrix: bool) -> None:
    """Inside the clip range a weight moves by at most half a step; the codes use -127 to 127."""
    values = size * torch.randn(8, 40, generator=torch.Generator().manual_seed(seed))
    values = values if matrix else values.flatten()
    codes, scale = train_gpt.quantize_tensor(values)
    step = scale.float()[:, None] if matrix else scale
    assert codes.dtype == torch.int8
    assert codes.abs().max() <= 127
    error = (codes.float() * step - values).abs()
    clipped = (values.abs() - 127 * step).clamp_min(0)
    assert (error <= 0.5 * step * 1.001 + clipped + 127 * step * 2**-11).all()


def test_zeros_survive() -> None:
    """A row or a vector of zeros has a usable scale and comes back as zeros."""
    for values in (torch.zeros(3, 50), torch.zeros(50)):
        codes, scale = train_gpt.quantize_tensor(values)
        assert not codes.any()
        assert (scale > 0).all()


def test_container_of_the_default_model() -> None:
    """17,178,912 payload bytes: 17,039,360 codes, 57,344 of scales, 82,208 of fp32 vectors."""
    hp = train_gpt.Hyperparameters()
    with torch.device("meta"):
        model = train_gpt.GPT(**{name: getattr(hp, name) for name in train_gpt.MODEL_SETTINGS})
    train_gpt.set_precision(model, hp, torch.bfloat16)
    # Zeros of the right shapes: the quantiser sorts every row, and equal values sort fast.
    state = {k: torch.zeros(v.shape, dtype=v.dtype) for k, v in model.state_dict().items()}
    container, payload = train_gpt.quantize_state_dict(state, PATTERNS)
    assert train_gpt.tensor_bytes(list(container["quantized"].values())) == 17_039_360
    assert train_gpt.tensor_bytes(list(container["scales"].values())) == 57_344
    assert train_gpt.tensor_bytes(list(container["passthrough"].values())) == 82_208
    assert payload == 17_178_912
    assert train_gpt.tensor_bytes(list(state.values())) == 67_191_072
    assert container["dtypes"]["tok_emb.weight"] == "bfloat16"
    assert set(container) == {
        *("__quant_format__", "quantized", "scales", "dtypes", "passthrough", "qmeta")
    }


def packed(state: dict[str, torch.Tensor]) -> bytes:
    container, _ = train_gpt.quantize_state_dict(state, PATTERNS)
    return zlib.compress(train_gpt.torch_bytes(container), 9)


def test_what_is_loaded_is_what_was_packed(hp: train_gpt.Hyperparameters, tmp_path: Path) -> None:
    """Small tensors go through fp16, the rest of the model comes back by name and shape."""
    source = train_gpt.build_model(hp, make_runtime())
    path = tmp_path / "model.ptz"
    path.write_bytes(packed(source.state_dict()))
    target = train_gpt.build_model(hp, make_runtime())
    train_gpt.load_artifact(target, path)
    for name, tensor in source.state_dict().items():
        stored = tensor if any(p in name for p in PATTERNS) else tensor.half().float()
        assert torch.equal(target.state_dict()[name], stored), name


def test_what_is_no_artifact_is_named(hp: train_gpt.Hyperparameters, tmp_path: Path) -> None:
    """A missing, cut, foreign or misfitting file is one clear line each."""
    model, path = train_gpt.build_model(hp, make_runtime()), tmp_path / "model.ptz"
    whole = packed(model.state_dict())
    foreign = zlib.compress(train_gpt.torch_bytes({"__quant_format__": "int6"}), 9)
    bare = zlib.compress(train_gpt.torch_bytes([1, 2]), 9)
    with pytest.raises(train_gpt.RunError, match="no readable artifact"):
        train_gpt.load_artifact(model, path)
    for content in (whole[:-100], b"not compressed", bare):
        path.write_bytes(content)
        with pytest.raises(train_gpt.RunError, match=r"no readable artifact .*: train again"):
            train_gpt.load_artifact(model, path)
    path.write_bytes(foreign)
    with pytest.raises(train_gpt.RunError, match="has format 'int6'"):
        train_gpt.load_artifact(model, path)
    path.write_bytes(whole)
    hp.num_layers = 2
    with pytest.raises(train_gpt.RunError, match="does not fit"):
        train_gpt.load_artifact(train_gpt.build_model(hp, make_runtime()), path)


def write_for_ever(path: Path) -> None:
    """Replace the file by a larger and larger one whose first 32 bytes are the rest's digest."""
    for round_number in range(1_000_000):
        body = os.urandom(1 << 20) * (1 + round_number % 8)
        train_gpt.write_whole(path, hashlib.sha256(body).digest() + body)


def test_a_killed_write_leaves_no_half_file(tmp_path: Path) -> None:
    """SIGKILL at ten different moments of writing: the file is whole or absent."""
    path = tmp_path / "final_model.int8.ptz"
    for attempt in range(10):
        child = os.fork()
        if child == 0:
            write_for_ever(path)
        time.sleep(0.01 + 0.013 * attempt)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if path.exists():
            content = path.read_bytes()
            assert content[:32] == hashlib.sha256(content[32:]).digest()
    assert path.exists()
