"""Logs written for the tests: each says what a run of the family would say, in few lines."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from attrs import evolve, field, frozen

TEXT_BYTES = 151_080_363


@frozen(kw_only=True)
class Sketch:
    """A run to be printed as a log; `with_` changes what a test is about."""

    dataset: str = "fineweb10B_sp1024"
    tokens: int = 62_021_632
    text_bytes: int = TEXT_BYTES
    in_training: float = 1.2172
    train_loss: float = 2.06
    cap: float = 600.0
    train_ms: int = 600_038
    world_size: int = 8
    config: tuple[str, ...] = ()
    sizes: tuple[str, ...] = (
        "Serialized model: 67224983 bytes",
        "Code size: 47642 bytes",
        "Total submission size: 67272625 bytes",
        "Serialized model int8+zlib: 15815847 bytes (payload:17178912 payload_ratio:3.91x)",
        "Total submission size int8+zlib: 15863489 bytes",
    )
    finals: tuple[str | tuple[str, float], ...] = (
        ("final_int8_zlib_roundtrip", 1.2244),
        ("final_int8_zlib_roundtrip_exact", 1.22436570),
    )
    after: tuple[str, ...] = ()
    header: tuple[str, ...] = field(default=())

    def with_(self, **changes: object) -> Sketch:
        """Return the same run but for some changes."""
        return evolve(self, **changes)  # type: ignore[arg-type]

    def loss(self, bpb: float) -> float:
        """Return the loss in nats per token that goes with a score on this text."""
        return bpb * math.log(2) * self.text_bytes / self.tokens

    def metric(self, name: str, bpb: float, extras: str = "") -> str:
        """Return a final metric line; `_exact` names print eight decimals, others four."""
        digits = 8 if "exact" in name else 4
        line = f"{name} val_loss:{self.loss(bpb):.{digits}f} val_bpb:{bpb:.{digits}f}"
        return line if digits == 8 else f"{line} eval_time:{extras or '1401ms'}"

    def lines(self) -> list[str]:
        """Return the lines of the log."""
        steps = [(s, self.in_training + 0.4 * (1 - s / 13780)) for s in (4000, 8000, 12000)]
        body = [f"step:0/20000 val_loss:6.9357 val_bpb:{6.9357 / self.loss(1):.4f} train_time:0ms"]
        for step, bpb in [*steps, (13780, self.in_training)]:
            ms = self.train_ms * step // 13780
            nats = self.train_loss * bpb / self.in_training
            body += [
                f"step:{step}/20000 train_loss:{nats:.4f} train_time:{ms}ms step_avg:43.54ms",
                f"step:{step}/20000 val_loss:{self.loss(bpb):.4f} val_bpb:{bpb:.4f} "
                f"train_time:{ms}ms step_avg:43.54ms",
            ]
        return [
            *self.header,
            f"train_loader:dataset:{self.dataset} train_shards:80",
            f"val_loader:shards pattern=./data/datasets/{self.dataset}/fineweb_val_*.bin "
            f"tokens:{self.tokens}",
            "model_params:17059912",
            f"world_size:{self.world_size} grad_accum_steps:1",
            f"train_seq_len:1024 iterations:20000 max_wallclock_seconds:{self.cap:.3f}",
            "seed:1337",
            *self.config,
            "warmup_step:1/20",
            "warmup_step:20/20",
            *body,
            f"stopping_early: wallclock_cap train_time:{self.train_ms}ms step:13780/20000",
            *self.sizes,
            *(f if isinstance(f, str) else self.metric(*f) for f in self.finals),
            *self.after,
        ]

    def text(self) -> str:
        """Return the log."""
        return "\n".join(self.lines()) + "\n"


@pytest.fixture
def sketch() -> Sketch:
    """An honest run of the baseline; tests change it with `with_`."""
    return Sketch()


@pytest.fixture
def metric(sketch: Sketch) -> Callable[..., str]:
    """Write a final metric line that conserves the bytes of the published split."""
    return sketch.metric
