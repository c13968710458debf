"""Numbers recorded from the challenge's own script; ours have to be the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import train_gpt
from trainer_kit import PARITY, SHARED, make_runtime, training_tokens, write_shard

MODELS = ["tied_gqa", "tied_3layer", "untied_mha"]


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(PARITY / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def recorded_model(name: str) -> tuple[train_gpt.GPT, dict[str, np.ndarray]]:
    recorded = arrays(name)
    model = train_gpt.GPT(**json.loads(str(recorded["config"])))
    weights = {k[6:]: torch.from_numpy(v) for k, v in recorded.items() if k.startswith("param/")}
    model.load_state_dict(weights, strict=True)
    return model, recorded


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_are_the_recorded_ones(name: str) -> None:
    """The loss agrees within 1e-5 and every gradient within 1e-4 of its size."""
    model, recorded = recorded_model(name)
    loss = model(torch.from_numpy(recorded["x"]), torch.from_numpy(recorded["y"]))
    loss.backward()
    assert loss.item() == pytest.approx(float(recorded["loss"]), abs=1e-5)
    for parameter_name, parameter in model.named_parameters():
        expected = torch.from_numpy(recorded[f"grad/{parameter_name}"])
        assert parameter.grad is not None
        assert (parameter.grad - expected).norm() <= 1e-4 * expected.norm(), parameter_name


@pytest.mark.parametrize("i", [0, 1, 2])
def test_orthogonalisation_is_the_recorded_one(i: int) -> None:
    """Five iterations in bf16 give the recorded matrix to the bit: square, tall and wide."""
    recorded = arrays("muon")
    found = train_gpt.orthogonalize(torch.from_numpy(recorded[f"ns{i}/in"]), 5)
    assert np.array_equal(found.float().numpy(), recorded[f"ns{i}/out"])


def test_muon_walks_the_recorded_path() -> None:
    """Four steps at rate 0.04 and momentum 0.95, all three shapes in one optimizer."""
    recorded = arrays("muon")
    params = [torch.nn.Parameter(torch.from_numpy(recorded[f"muon{i}/init"])) for i in range(3)]
    muon = train_gpt.Muon(params, lr=0.04, momentum=0.95, backend_steps=5)
    for step in range(4):
        for i, parameter in enumerate(params):
            parameter.grad = torch.from_numpy(recorded[f"muon{i}/grads"][step])
        muon.step()
        for i, parameter in enumerate(params):
            expected = torch.from_numpy(recorded[f"muon{i}/after"][step])
            assert torch.allclose(parameter.detach(), expected, atol=1e-6, rtol=0)


def test_a_stack_is_orthogonalised_like_its_matrices() -> None:
    """Processing equal shapes together changes no bit of the result."""
    stack = torch.randn(5, 24, 16, generator=torch.Generator().manual_seed(1))
    together = train_gpt.orthogonalize(stack, 5)
    for one, alone in zip(together, stack, strict=True):
        assert torch.equal(one, train_gpt.orthogonalize(alone, 5))


@pytest.mark.parametrize("name", ["blocks.0.attn.c_q.weight", "blocks.0.mlp.fc.weight"])
def test_rows_are_quantised_as_recorded(name: str) -> None:
    """Codes and fp16 scales of single rows, one of them with an outlier."""
    recorded = arrays("quant_rows")
    codes, scale = train_gpt.quantize_tensor(torch.from_numpy(recorded[f"in/{name}"]))
    assert np.array_equal(codes.numpy(), recorded[f"q/{name}"])
    assert np.array_equal(scale.float().numpy(), recorded[f"scale/{name}"])


def test_small_tensors_pass_as_recorded() -> None:
    """Control tensors stay fp32, other small tensors go through fp16."""
    recorded = arrays("quant_rows")
    names = ["blocks.0.attn.q_gain", "blocks.0.resid_mix", "small"]
    state = {name: torch.from_numpy(recorded[f"in/{name}"]) for name in names}
    patterns = train_gpt.name_patterns(train_gpt.CONTROL_NAMES)
    container, _ = train_gpt.quantize_state_dict(state, patterns)
    assert container["passthrough"]["small"].dtype == torch.float16
    for name, tensor in train_gpt.dequantize_state_dict(container).items():
        assert tensor.dtype == torch.float32
        assert np.array_equal(tensor.numpy(), recorded[f"out/{name}"])


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is not beside the checkout")
def test_the_whole_recorded_quantisation_agrees() -> None:
    """Every code, scale, restored tensor and the payload of the full recording."""
    with np.load(SHARED / "quant.npz") as file:
        recorded = {key: file[key] for key in file.files}
    state = {k[3:]: torch.from_numpy(v) for k, v in recorded.items() if k.startswith("in/")}
    patterns = train_gpt.name_patterns(train_gpt.CONTROL_NAMES)
    container, payload = train_gpt.quantize_state_dict(state, patterns)
    restored = train_gpt.dequantize_state_dict(container)
    assert payload == json.loads(str(recorded["stats"]))["int8_payload_bytes"]
    for name, codes in container["quantized"].items():
        assert np.array_equal(codes.numpy(), recorded[f"q/{name}"])
        scale = container["scales"][name].float().numpy()
        assert np.array_equal(scale, recorded[f"scale/{name}"])
    for name, tensor in restored.items():
        assert np.array_equal(tensor.numpy(), recorded[f"out/{name}"])


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is not beside the checkout")
@pytest.mark.parametrize("name", [*MODELS, "muon"])
def test_our_copies_of_the_recordings_are_faithful(name: str) -> None:
    """The copies that the other tests use hold the same arrays as the originals."""
    with np.load(SHARED / f"{name}.npz") as original:
        copy = arrays(name)
        assert set(original.files) == set(copy)
        assert all(np.array_equal(original[key], copy[key]) for key in copy)


def test_default_parameters_have_the_challenges_names_and_shapes() -> None:
    """In the same order, 17,059,912 numbers in all, so that checkpoints can be exchanged."""
    expected = json.loads((PARITY / "baseline_parameter_names.json").read_text())
    with torch.device("meta"):
        hp = train_gpt.Hyperparameters()
        model = train_gpt.GPT(**{name: getattr(hp, name) for name in train_gpt.MODEL_SETTINGS})
    found = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert list(found.items()) == list(expected.items())
    assert sum(p.numel() for p in model.parameters()) == 17_059_912


@pytest.mark.parametrize("case", ["tied", "untied_clipped"])
def test_training_losses_follow_the_recorded_ones(case: str, tmp_path: Path) -> None:
    """The same seed gives the challenge's loss at each of twelve steps, after a warm-up."""
    recorded = json.loads((PARITY / "training_losses.json").read_text())[case]
    tokens = training_tokens()
    write_shard(tmp_path / "fineweb_train_000000.bin", tokens[:3000])
    write_shard(tmp_path / "fineweb_train_000001.bin", tokens[3000:])
    hp = train_gpt.Hyperparameters(**recorded["settings"])
    torch.manual_seed(1337)
    files = train_gpt.shard_files(str(tmp_path), "train")
    trainer = train_gpt.Trainer(hp, make_runtime(), files)
    trainer.warm_up(train_gpt.Log("none", is_master=False))
    found = [
        float(trainer.step(step, train_gpt.lr_factor(hp, step, 0.0)))
        for step in range(hp.iterations)
    ]
    assert found == pytest.approx(recorded["train_losses"], abs=2e-3)
    # Sums over hidden units are taken in another order on a processor with other vectors: an error
    # of sqrt(n) units in the last place of fp32 for each of the n = 4,096 terms of a step, relative
    # to the loss, and four steps of it.
    one_step = 4096**0.5 * 2**-24
    assert found[:4] == pytest.approx(recorded["train_losses"][:4], rel=4 * one_step)
