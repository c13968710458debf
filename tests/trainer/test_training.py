"""Schedule, optimizers, warm-up, clock and the network's shape."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
import train_gpt
from trainer_kit import TinyData, make_runtime


class Recorder(train_gpt.Log):
    """A log that keeps its lines instead of printing them."""

    def __init__(self) -> None:
        super().__init__("recorder", is_master=False)
        self.lines: list[str] = []

    def __call__(self, line: str, console: bool = True) -> None:
        self.lines.append(line)


def make_trainer(hp: train_gpt.Hyperparameters) -> train_gpt.Trainer:
    torch.manual_seed(hp.seed)
    return train_gpt.Trainer(hp, make_runtime(), train_gpt.shard_files(hp.data_path, "train"))


def test_factor_without_a_time_limit() -> None:
    """1 until the last WARMDOWN_ITERS steps, then a straight line to 0."""
    hp = train_gpt.Hyperparameters(iterations=100, warmdown_iters=20, max_wallclock_seconds=0.0)
    assert [train_gpt.lr_factor(hp, s, 1e9) for s in (0, 80, 90, 99)] == [1.0, 1.0, 0.5, 0.05]
    hp.warmdown_iters = 0
    assert train_gpt.lr_factor(hp, 99, 0.0) == 1.0


@pytest.mark.parametrize(
    ("step", "elapsed_ms", "factor"),
    [
        (0, 0.0, 1.0),  # nothing measured yet
        (100, 10_000.0, 1.0),  # 100 ms a step: the last 1,200 steps take 120 s
        (4800, 480_000.0, 1.0),
        (5400, 540_000.0, 0.5),
        (6001, 600_100.0, 0.0),  # past the limit
        (1, 1_000.0, 599 / 1200),  # a slow machine decays from the first step
    ],
)
def test_factor_with_a_time_limit(step: int, elapsed_ms: float, factor: float) -> None:
    """The warm-down is measured in steps at the average step time so far."""
    hp = train_gpt.Hyperparameters(warmdown_iters=1200, max_wallclock_seconds=600.0)
    assert train_gpt.lr_factor(hp, step, elapsed_ms) == pytest.approx(factor)


def test_momentum_warms_up() -> None:
    """From 0.85 to 0.95 over 500 steps; without warm-up it is 0.95 at once."""
    hp = train_gpt.Hyperparameters()
    found = [train_gpt.muon_momentum(hp, step) for step in (0, 250, 500, 9000)]
    assert found == pytest.approx([0.85, 0.9, 0.95, 0.95])
    hp.muon_momentum_warmup_steps = 0
    assert train_gpt.muon_momentum(hp, 0) == 0.95


def test_optimizers_split_the_parameters(hp: train_gpt.Hyperparameters) -> None:
    """Every parameter has one optimizer: matrices Muon, embedding, head and vectors Adam."""
    hp.tie_embeddings = False
    model = train_gpt.build_model(hp, make_runtime())
    names = {id(p): name for name, p in model.named_parameters()}
    embedding, head, muon, scalars = train_gpt.build_optimizers(model, hp)
    groups = [
        [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
        for optimizer in (embedding, head, muon, scalars)
    ]
    assert groups[:2] == [["tok_emb.weight"], ["lm_head.weight"]]
    assert {n.rsplit(".", 2)[-2] for n in groups[2]} == {"c_q", "c_k", "c_v", "proj", "fc"}
    assert {n.rsplit(".", 1)[-1] for n in groups[3]} == {
        *("attn_scale", "mlp_scale", "resid_mix", "q_gain", "skip_weights")
    }
    assert sorted(name for group in groups for name in group) == sorted(names.values())
    rates = [o.param_groups[0]["base_lr"] for o in (embedding, head, muon, scalars)]
    assert rates == [0.6, 0.008, 0.04, 0.04]


def test_precisions(hp: train_gpt.Hyperparameters) -> None:
    """In bf16 only the embedding is stored in bf16; 2-D control tensors stay fp32 by name."""
    model = train_gpt.set_precision(train_gpt.build_model(hp, make_runtime()), hp, torch.bfloat16)
    low = [name for name, p in model.named_parameters() if p.dtype == torch.bfloat16]
    assert low == ["tok_emb.weight"]


def test_initial_weights(hp: train_gpt.Hyperparameters) -> None:
    """Outputs of attention and MLP start at zero, a tied embedding at std 0.005."""
    model = train_gpt.build_model(hp, make_runtime())
    for name, parameter in model.named_parameters():
        if name.endswith("proj.weight"):
            assert not parameter.any(), name
    assert model.tok_emb.weight.std().item() == pytest.approx(0.005, rel=0.05)


def test_skips_are_last_in_first_out() -> None:
    """Decoder 0 gets the last encoder's output, and the spare decoder none."""
    model = train_gpt.GPT(16, 5, 8, 2, 1, 2, True, 0.5, 30.0, 1e4, 1.5)
    torch.nn.init.normal_(model.skip_weights)
    inputs: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        block.register_forward_hook(lambda _, args, out: outputs.append(out))
    model(torch.arange(8)[None], torch.arange(8)[None])
    weights = model.skip_weights
    assert weights.shape == (2, 8)
    assert torch.equal(inputs[2], outputs[1] + weights[0] * outputs[1])
    assert torch.equal(inputs[3], outputs[2] + weights[1] * outputs[0])
    assert torch.equal(inputs[4], outputs[3])


def test_positions_beyond_256_stay_apart() -> None:
    """Counted in fp32 all 1,024 positions differ; in bf16, the quirk, only 513 do."""
    x = torch.zeros(1, 1024, 8)
    distinct = {}
    for dtype in (torch.float32, torch.bfloat16):
        cos, sin = train_gpt.rotary_table(x, 8, 10000.0, dtype)
        distinct[dtype] = torch.unique(torch.cat((cos, sin), dim=1), dim=0).shape[0]
    assert distinct[torch.float32] == 1024
    assert distinct[torch.bfloat16] <= 513


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"num_heads": 3}, "MODEL_DIM=32 over NUM_HEADS=3"),
        ({"num_kv_heads": 3}, "NUM_KV_HEADS=3 does not divide NUM_HEADS=4"),
        ({"logit_softcap": 0.0}, "LOGIT_SOFTCAP=0.0 is not positive"),
        ({"rope_positions": "int8"}, "ROPE_POSITIONS='int8' is unknown: use fp32 or bf16"),
    ],
)
def test_impossible_shapes_are_named(
    hp: train_gpt.Hyperparameters, change: dict[str, float], complaint: str
) -> None:
    """A shape that cannot be built is one clear line."""
    for name, value in change.items():
        setattr(hp, name, value)
    with pytest.raises(train_gpt.RunError, match=complaint):
        train_gpt.build_model(hp, make_runtime())


def test_warm_up_leaves_no_trace(hp: train_gpt.Hyperparameters) -> None:
    """Weights, optimizer states and stream are as before, and so are the following losses."""
    hp.warmup_steps = 3
    warmed, fresh, log = make_trainer(hp), make_trainer(hp), Recorder()
    warmed.warm_up(log)
    assert log.lines == ["warmup_step:1/3", "warmup_step:2/3", "warmup_step:3/3"]
    for name, tensor in warmed.model.state_dict().items():
        assert torch.equal(tensor, fresh.model.state_dict()[name]), name
    assert [float(warmed.step(s, 1.0)) for s in range(3)] == [
        float(fresh.step(s, 1.0)) for s in range(3)
    ]


def test_long_warm_ups_are_logged_every_tenth_step(hp: train_gpt.Hyperparameters) -> None:
    """More than 20 warm-up steps print every tenth and the last."""
    hp.warmup_steps, log = 23, Recorder()
    make_trainer(hp).warm_up(log)
    assert log.lines == ["warmup_step:10/23", "warmup_step:20/23", "warmup_step:23/23"]


def test_merging_micro_steps_changes_no_loss(hp: train_gpt.Hyperparameters) -> None:
    """Eight micro-steps as one batch give the same training losses to rounding."""
    merged = make_trainer(hp)
    hp.cpu_batch_tokens = 0
    separate = make_trainer(hp)
    assert (merged.merged, separate.merged) == (8, 1)
    for step in range(4):
        assert float(merged.step(step, 1.0)) == pytest.approx(
            float(separate.step(step, 1.0)), abs=1e-4
        )


def test_the_time_limit_ends_the_run(hp: train_gpt.Hyperparameters, tmp_path: Path) -> None:
    """The step that crosses the limit is the last; it is validated and the stop is announced."""
    hp.max_wallclock_seconds, hp.iterations, hp.val_loss_every = 0.2, 10_000, 0
    trainer, log = make_trainer(hp), Recorder()
    files = train_gpt.shard_files(hp.data_path, "val")
    data = train_gpt.load_validation(hp, make_runtime(), files)
    steps, milliseconds = train_gpt.train(trainer, data, log)
    assert 1 <= steps < 10_000
    assert milliseconds >= 200.0
    assert log.lines[-2].startswith(f"step:{steps}/10000 val_loss:")
    assert log.lines[-1] == (
        f"stopping_early: wallclock_cap train_time:{milliseconds:.0f}ms step:{steps}/10000"
    )


def test_validation_is_not_training_time() -> None:
    """Between pause and resume the clock stands still."""
    clock = train_gpt.TrainingClock(make_runtime())
    paused = clock.pause()
    time.sleep(0.2)
    clock.resume()
    assert clock.now_ms() - paused < 150.0


def test_a_diverged_run_has_no_loss_line(
    hp: train_gpt.Hyperparameters, tiny_data: TinyData
) -> None:
    """A loss that is not finite ends the run with its step and a mend."""
    hp.scalar_lr, hp.val_loss_every = 1e38, 0
    trainer, log = make_trainer(hp), Recorder()
    data = train_gpt.load_validation(hp, make_runtime(), train_gpt.shard_files(hp.data_path, "val"))
    with pytest.raises(train_gpt.RunError, match="train_loss is nan at step"):
        train_gpt.train(trainer, data, log)
    assert not any("nan" in line for line in log.lines)
