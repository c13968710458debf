"""Train one small language model, score it in bits per byte, and write an artifact under 16 MB.

Run it in one of four ways; everything is configured through the environment:

    torchrun --standalone --nproc_per_node=8 train_gpt.py     # 1, 2, 4 or 8 GPUs or processes
    python train_gpt.py                                       # one GPU, or the CPU without one
    EVAL_ARTIFACT=final_model.int8.ptz python train_gpt.py    # score an artifact, train nothing
    MODEL_TEST=request.json python train_gpt.py               # per-token probabilities

What comes out: `final_model.pt`, `final_model.int8.ptz`, `logs/<RUN_ID>.txt`, and on stdout the
lines of the challenge followed by one last line `autoresearch_result {json}`.

Model test. The request is {"schema": 1, "artifact": PATH or null, "tokens": PATH of a shard,
"distribution_at": [indexes among the scored targets], "output": PATH of an .npz}. The answer holds
`log_probs` (natural log, float64, in order of scoring), `positions` (index of each scored target
in the token file), `distributions` (float32, one row of log-probabilities per requested index),
`distribution_positions`, `val_loss`, `val_bpb`, `val_tokens`, `val_bytes`. A null artifact means
the untrained weights of SEED. The shape variables have to be those of the artifact's run.

Read from top to bottom: settings, data, model, optimizer, artifact, evaluation, training.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import json
import math
import os
import platform
import random
import resource
import subprocess
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__" and os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1):
    # On a busy machine a thread that waits for work spins for some 60 microseconds and then sleeps.
    # The default, milliseconds, is 1.3 times faster on an idle machine and 7 times slower here.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy as np
import sentencepiece as spm
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class RunError(ValueError):
    """Something that the person who started the run can mend; printed as one line, exit code 1."""


# --- Settings ----------------------------------------------------------------------------------

unreadable_settings: list[str] = []  # reported by main(), so that importing this file never fails


def _env(name: str, default: Any, parse: Callable[[str], Any], kind: str) -> Any:
    text = os.environ.get(name)
    if text is None:
        return default
    try:
        return parse(text)
    except (ValueError, KeyError):
        unreadable_settings.append(f"{name}={text!r} is not {kind}: set it to {kind} or unset it")
        return default


def env_int(name: str, default: int) -> int:
    return int(_env(name, default, int, "an integer"))


def env_float(name: str, default: float) -> float:
    return float(_env(name, default, float, "a number"))


def env_str(name: str, default: str) -> str:
    return os.environ.get(name, default)


def env_bool(name: str, default: bool) -> bool:
    return bool(_env(name, default, lambda text: {"0": False, "1": True}[text], "0 or 1"))


# The challenge's default for both pattern settings: substrings of the names of control tensors.
CONTROL_NAMES = "attn_scale,attn_scales,mlp_scale,mlp_scales,resid_mix,resid_mixes"
CONTROL_NAMES += ",q_gain,skip_weight,skip_weights"


class Hyperparameters:
    """One setting a line: name, environment variable, default; keyword arguments override both."""

    # Where things are
    data_path = env_str("DATA_PATH", "./data/datasets/fineweb10B_sp1024")
    tokenizer_path = env_str("TOKENIZER_PATH", "./data/tokenizers/fineweb_1024_bpe.model")
    run_id = env_str("RUN_ID", "")  # empty: a random UUID
    seed = env_int("SEED", 1337)

    # Length of the run
    iterations = env_int("ITERATIONS", 20000)
    warmdown_iters = env_int("WARMDOWN_ITERS", 1200)
    warmup_steps = env_int("WARMUP_STEPS", 20)  # rolled back; they only trigger compilation
    max_wallclock_seconds = env_float("MAX_WALLCLOCK_SECONDS", 600.0)  # <= 0: no limit
    train_batch_tokens = env_int("TRAIN_BATCH_TOKENS", 524288)
    train_seq_len = env_int("TRAIN_SEQ_LEN", 1024)
    grad_accum_steps = env_int("GRAD_ACCUM_STEPS", 0)  # 0: 8 // world size

    # Reports
    val_batch_size = env_int("VAL_BATCH_SIZE", 524288)
    val_loss_every = env_int("VAL_LOSS_EVERY", 1000)
    train_log_every = env_int("TRAIN_LOG_EVERY", 200)

    # Shape of the model
    vocab_size = env_int("VOCAB_SIZE", 1024)
    num_layers = env_int("NUM_LAYERS", 9)
    model_dim = env_int("MODEL_DIM", 512)
    num_heads = env_int("NUM_HEADS", 8)
    num_kv_heads = env_int("NUM_KV_HEADS", 4)
    mlp_mult = env_int("MLP_MULT", 2)
    tie_embeddings = env_bool("TIE_EMBEDDINGS", True)
    tied_embed_init_std = env_float("TIED_EMBED_INIT_STD", 0.005)
    rope_base = env_float("ROPE_BASE", 10000.0)
    logit_softcap = env_float("LOGIT_SOFTCAP", 30.0)
    qk_gain_init = env_float("QK_GAIN_INIT", 1.5)

    # Optimizers
    embed_lr = env_float("EMBED_LR", 0.6)
    head_lr = env_float("HEAD_LR", 0.008)
    tied_embed_lr = env_float("TIED_EMBED_LR", 0.05)
    matrix_lr = env_float("MATRIX_LR", 0.04)
    scalar_lr = env_float("SCALAR_LR", 0.04)
    muon_momentum = env_float("MUON_MOMENTUM", 0.95)
    muon_backend_steps = env_int("MUON_BACKEND_STEPS", 5)
    muon_momentum_warmup_start = env_float("MUON_MOMENTUM_WARMUP_START", 0.85)
    muon_momentum_warmup_steps = env_int("MUON_MOMENTUM_WARMUP_STEPS", 500)
    beta1 = env_float("BETA1", 0.9)
    beta2 = env_float("BETA2", 0.95)
    adam_eps = env_float("ADAM_EPS", 1e-8)
    grad_clip_norm = env_float("GRAD_CLIP_NORM", 0.0)  # 0: off

    # Which tensors are vectors in spirit, and which of those the artifact keeps in fp32
    control_tensor_name_patterns = env_str("CONTROL_TENSOR_NAME_PATTERNS", CONTROL_NAMES)
    keep_fp32_name_patterns = env_str("INT8_KEEP_FLOAT_FP32_NAME_PATTERNS", CONTROL_NAMES)

    # Where this script departs from the challenge's, with a switch back for comparisons
    rms_norm_eps = env_float("RMS_NORM_EPS", 1.1920929e-07)
    rope_positions = env_str("ROPE_POSITIONS", "fp32")  # or bf16

    # The machine
    device = env_str("DEVICE", "auto")  # auto, cuda, cpu
    compile = env_str("COMPILE", "auto")  # auto (on for CUDA), 0, 1
    cpu_dtype = env_str("CPU_DTYPE", "auto")  # auto (the faster one, measured), bf16, fp32
    cpu_batch_tokens = env_int("CPU_BATCH_TOKENS", 2048)  # micro-steps are merged up to this
    reload_check = env_bool("RELOAD_CHECK", True)  # score the artifact again in a fresh process

    def __init__(self, **changes: Any) -> None:
        for name, value in changes.items():
            if not hasattr(type(self), name):
                raise TypeError(f"unknown setting {name!r}: use a field of Hyperparameters")
            setattr(self, name, value)


# RMSNorm's epsilon is stated because PyTorch's default for bf16 changed in 2.7 (0.0078 before),
# which makes another network out of the same weights. This is the fp32 machine epsilon.
RMS_NORM_EPS = 1.1920929e-07
# Rotary positions are counted in fp32. In bf16 the integers above 256 collapse and only 513 of
# 1,024 positions stay distinct; ROPE_POSITIONS=bf16 brings that back for an A/B run.
ROPE_POSITIONS_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

ALLOWED_WORLD_SIZES = (1, 2, 4, 8)
RAW_MODEL_FILE = Path("final_model.pt")
ARTIFACT_FILE = Path("final_model.int8.ptz")


def one_of(name: str, value: str, *allowed: str) -> str:
    if value not in allowed:
        raise RunError(f"{name}={value!r} is unknown: use {' or '.join(allowed)}")
    return value


def name_patterns(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


# --- Data: shards of uint16 token ids behind a 1,024-byte header -------------------------------

SHARD_MAGIC = 20240520
SHARD_VERSION = 1
SHARD_HEADER_BYTES = 1024


def open_shard(path: str | Path) -> np.ndarray:
    """The token ids of one shard, memory-mapped, after its header and size have been checked."""
    path = Path(path)
    if not path.is_file():
        raise RunError(f"{path} is not a file: name a token shard")
    header = np.fromfile(path, dtype="<i4", count=3)
    if header.size < 3 or header[0] != SHARD_MAGIC or header[1] != SHARD_VERSION:
        raise RunError(
            f"{path} is not a token shard: its header starts with {header[:2].tolist()}, expected "
            f"{[SHARD_MAGIC, SHARD_VERSION]}: delete the file and get the data again"
        )
    size, expected = path.stat().st_size, SHARD_HEADER_BYTES + 2 * int(header[2])
    if size != expected:
        raise RunError(
            f"{path} has {size} bytes, its header promises {expected} ({header[2]} tokens): "
            "it is truncated or damaged, delete the file and get the data again"
        )
    if header[2] == 0:
        return np.zeros(0, dtype=np.uint16)
    return np.memmap(path, dtype="<u2", mode="r", offset=SHARD_HEADER_BYTES)


def shard_files(data_path: str, split: str) -> list[str]:
    """Files of one split in order of name; per-token byte sidecars are not token shards."""
    pattern = os.path.join(data_path, f"fineweb_{split}_*.bin")
    files = sorted(name for name in glob.glob(pattern) if "_bytes_" not in Path(name).name)
    if not files:
        raise RunError(f"no file matches {pattern}: get the data or set DATA_PATH")
    return files


def check_token_ids(tokens: np.ndarray, vocab_size: int, where: str) -> None:
    if tokens.size and int(tokens.max()) >= vocab_size:
        raise RunError(
            f"{where} holds token id {int(tokens.max())}, expected ids below {vocab_size}: "
            "set VOCAB_SIZE and TOKENIZER_PATH to the ones the data was made with"
        )


class TokenStream:
    """One endless stream over the shards in order, wrapping from the last to the first."""

    def __init__(self, files: list[str]) -> None:
        self.files = files
        self.shards = [open_shard(name) for name in files]
        self.ends = np.cumsum([shard.size for shard in self.shards])
        self.total = int(self.ends[-1])
        if self.total == 0:
            raise RunError(f"{files[0]} and its siblings hold no tokens: get the data again")
        self.position = 0

    def read(self, start: int, count: int) -> np.ndarray:
        """`count` ids from position `start` of the stream, whatever was read before."""
        pieces = []
        while count > 0:
            start %= self.total
            shard = int(np.searchsorted(self.ends, start, side="right"))
            offset = start - int(self.ends[shard]) + self.shards[shard].size
            pieces.append(self.shards[shard][offset : offset + count])
            start += pieces[-1].size
            count -= pieces[-1].size
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


class TrainLoader:
    """Batches of one rank; all ranks walk the same stream and each keeps its own slice."""

    def __init__(self, files: list[str], hp: Hyperparameters, runtime: Runtime) -> None:
        self.stream = TokenStream(files)
        self.rank, self.world_size, self.device = runtime.rank, runtime.world_size, runtime.device
        self.seq_len, self.vocab_size = hp.train_seq_len, hp.vocab_size
        self.local_tokens = hp.train_batch_tokens // (runtime.world_size * runtime.grad_accum_steps)
        if self.local_tokens < self.seq_len or self.local_tokens % self.seq_len:
            raise RunError(
                f"TRAIN_BATCH_TOKENS={hp.train_batch_tokens} over {runtime.world_size} ranks x "
                f"{runtime.grad_accum_steps} steps is {self.local_tokens} tokens, "
                f"expected a multiple of TRAIN_SEQ_LEN={self.seq_len}: change one of the three"
            )

    def next_batch(self, micro_steps: int = 1) -> tuple[Tensor, Tensor]:
        """Inputs and targets of so many micro-steps, (sequences, TRAIN_SEQ_LEN) int64 each."""
        tokens = torch.from_numpy(np.stack([self._micro_step() for _ in range(micro_steps)]))
        if self.device.type == "cuda":
            tokens = tokens.pin_memory().to(self.device, non_blocking=True)
        return tokens[:, :-1].reshape(-1, self.seq_len), tokens[:, 1:].reshape(-1, self.seq_len)

    def _micro_step(self) -> np.ndarray:
        span = self.local_tokens + 1
        ids = self.stream.read(self.stream.position + self.rank * span, span)
        self.stream.position += span * self.world_size
        check_token_ids(ids, self.vocab_size, str(Path(self.stream.files[0]).parent))
        return ids.astype(np.int64)


# --- Model -------------------------------------------------------------------------------------


def rotary_table(
    x: Tensor, head_dim: int, base: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """cos and sin of position x frequency, counted in dtype, (length, head_dim / 2) like x."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=x.device) / head_dim
    positions = torch.arange(x.shape[1], device=x.device).to(dtype)
    angles = torch.outer(positions, (1.0 / base**exponents).to(dtype))
    return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (first half, second half) of the last axis by the angles of the table."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos + second * sin, second * cos - first * sin), dim=-1)


class Linear(nn.Linear):
    """No bias; the weight lives in fp32 and is cast to the dtype of the activation at use."""

    def __init__(self, fan_in: int, fan_out: int, zero_init: bool = False) -> None:
        super().__init__(fan_in, fan_out, bias=False)
        if zero_init:
            nn.init.zeros_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight.to(input.dtype))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention; a CPU computes it in fp32, where PyTorch's kernel is two times faster."""
    grouped = q.shape[1] != k.shape[1]
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    dtype, (q, k, v) = q.dtype, (x.float() for x in (q, k, v))
    with torch.autocast("cpu", enabled=False):
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    return y.to(dtype)


class Attention(nn.Module):
    """Causal grouped-query attention with normalised queries and keys and a gain per head."""

    def __init__(self, dim: int, heads: int, kv_heads: int, gain: float, eps: float) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim, self.eps = heads, kv_heads, dim // heads, eps
        self.c_q = Linear(dim, dim)
        self.c_k = Linear(dim, kv_heads * self.head_dim)
        self.c_v = Linear(dim, kv_heads * self.head_dim)
        self.proj = Linear(dim, dim, zero_init=True)
        self.q_gain = nn.Parameter(torch.full((heads,), gain))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, dim = x.shape
        q = self.c_q(x).view(batch, length, self.heads, self.head_dim).transpose(1, 2)
        k = self.c_k(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.c_v(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        q = rotate(F.rms_norm(q, (self.head_dim,), eps=self.eps), cos, sin)
        k = rotate(F.rms_norm(k, (self.head_dim,), eps=self.eps), cos, sin)
        q = q * self.q_gain.to(q.dtype)[:, None, None]
        y: Tensor = self.proj(attend(q, k, v).transpose(1, 2).reshape(batch, length, dim))
        return y


class MLP(nn.Module):
    """Two layers around a squared ReLU."""

    def __init__(self, dim: int, mult: int) -> None:
        super().__init__()
        self.fc = Linear(dim, mult * dim)
        self.proj = Linear(mult * dim, dim, zero_init=True)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.fc(x)).square()
        return self.proj(hidden)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Mix the state with the first layer's input, then attend, then transform."""

    def __init__(self, dim: int, attn: Attention, mlp: MLP, eps: float) -> None:
        super().__init__()
        self.dim, self.eps, self.attn, self.mlp = dim, eps, attn, mlp
        self.attn_scale = nn.Parameter(torch.ones(dim))
        self.mlp_scale = nn.Parameter(torch.ones(dim))
        self.resid_mix = nn.Parameter(torch.stack((torch.ones(dim), torch.zeros(dim))))

    def forward(self, x: Tensor, x0: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        mix = self.resid_mix.to(x.dtype)
        x = mix[0] * x + mix[1] * x0
        attended = self.attn(F.rms_norm(x, (self.dim,), eps=self.eps), cos, sin)
        x = x + self.attn_scale.to(x.dtype) * attended
        transformed: Tensor = self.mlp(F.rms_norm(x, (self.dim,), eps=self.eps))
        return x + self.mlp_scale.to(x.dtype) * transformed


class GPT(nn.Module):
    """A U-Net of blocks over token embeddings; the forward pass returns the loss in nats."""

    def __init__(
        self,
        vocab_size: int,
        num_layers: int,
        model_dim: int,
        num_heads: int,
        num_kv_heads: int,
        mlp_mult: int,
        tie_embeddings: bool,
        tied_embed_init_std: float,
        logit_softcap: float,
        rope_base: float,
        qk_gain_init: float,
        rms_norm_eps: float = RMS_NORM_EPS,
        rope_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        check_shape(model_dim, num_heads, num_kv_heads, logit_softcap)
        self.dim, self.head_dim, self.eps = model_dim, model_dim // num_heads, rms_norm_eps
        self.softcap, self.rope_base, self.rope_dtype = logit_softcap, rope_base, rope_dtype
        self.tok_emb = nn.Embedding(vocab_size, model_dim)
        self.num_encoders = num_layers // 2  # never more than the decoders: each skip has a taker
        self.skip_weights = nn.Parameter(torch.ones(self.num_encoders, model_dim))
        self.blocks = nn.ModuleList()
        for _ in range(num_layers):
            attn = Attention(model_dim, num_heads, num_kv_heads, qk_gain_init, rms_norm_eps)
            self.blocks.append(Block(model_dim, attn, MLP(model_dim, mlp_mult), rms_norm_eps))
        self.lm_head = None if tie_embeddings else Linear(model_dim, vocab_size, zero_init=True)
        if tie_embeddings:
            nn.init.normal_(self.tok_emb.weight, mean=0.0, std=tied_embed_init_std)

    def logits(self, input_ids: Tensor) -> Tensor:
        """Capped logits (batch, length, vocab) in the dtype of the activations."""
        x = F.rms_norm(self.tok_emb(input_ids), (self.dim,), eps=self.eps)
        cos, sin = rotary_table(x, self.head_dim, self.rope_base, self.rope_dtype)
        x0, skips = x, []
        for block in self.blocks[: self.num_encoders]:
            x = block(x, x0, cos, sin)
            skips.append(x)
        for i, block in enumerate(self.blocks[self.num_encoders :]):
            if skips:
                x = x + self.skip_weights[i].to(x.dtype) * skips.pop()
            x = block(x, x0, cos, sin)
        x = F.rms_norm(x, (self.dim,), eps=self.eps)
        head = self.tok_emb.weight if self.lm_head is None else self.lm_head.weight
        z = F.linear(x, head.to(x.dtype))
        return self.softcap * torch.tanh(z / self.softcap)

    def forward(self, input_ids: Tensor, target_ids: Tensor, reduction: str = "mean") -> Tensor:
        """Cross-entropy in fp32: its mean, or with reduction="none" one value for each target."""
        logits = self.logits(input_ids).flatten(0, 1).float()
        return F.cross_entropy(logits, target_ids.flatten(), reduction=reduction)


def check_shape(dim: int, heads: int, kv_heads: int, logit_softcap: float) -> None:
    if dim % heads or (dim // heads) % 2:
        raise RunError(
            f"MODEL_DIM={dim} over NUM_HEADS={heads} heads is no even head size: "
            "make MODEL_DIM a multiple of 2 x NUM_HEADS"
        )
    if heads % kv_heads:
        raise RunError(f"NUM_KV_HEADS={kv_heads} does not divide NUM_HEADS={heads}: use a divisor")
    if logit_softcap <= 0:
        raise RunError(f"LOGIT_SOFTCAP={logit_softcap} is not positive: the challenge uses 30")


MODEL_SETTINGS = (
    *("vocab_size", "num_layers", "model_dim", "num_heads", "num_kv_heads", "mlp_mult"),
    *("tie_embeddings", "tied_embed_init_std", "logit_softcap", "rope_base", "qk_gain_init"),
    "rms_norm_eps",
)


def build_model(hp: Hyperparameters, runtime: Runtime) -> GPT:
    """A freshly initialised model on the device, in the precisions of the challenge."""
    rope_dtype = ROPE_POSITIONS_DTYPES[one_of("ROPE_POSITIONS", hp.rope_positions, "fp32", "bf16")]
    shape = {name: getattr(hp, name) for name in MODEL_SETTINGS}
    model = GPT(**shape, rope_dtype=rope_dtype)
    return set_precision(model, hp, runtime.dtype).to(runtime.device)


def set_precision(model: GPT, hp: Hyperparameters, dtype: torch.dtype) -> GPT:
    """Activations and embedding in `dtype`; linear weights, vectors and control tensors in fp32."""
    controls = name_patterns(hp.control_tensor_name_patterns)
    model.to(dtype)
    for module in model.modules():
        if isinstance(module, Linear):
            module.float()
    for name, parameter in model.named_parameters():
        if is_control(name, parameter, controls):
            parameter.data = parameter.data.float()
    return model


def is_control(name: str, tensor: Tensor, patterns: tuple[str, ...]) -> bool:
    return tensor.ndim < 2 or any(pattern in name for pattern in patterns)


# --- Optimizers --------------------------------------------------------------------------------

# Coefficients of the quintic iteration that Muon's author tuned for speed over exactness.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalize(directions: Tensor, steps: int) -> Tensor:
    """Replace every matrix of a stack by a nearly orthogonal one, in bf16.

    Takes (..., m, n) with m <= n or m > n; the iteration runs on the flat side.
    """
    a, b, c = NEWTON_SCHULZ
    x: Tensor = directions.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + (c * gram) @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal, for 2-D weights; matrices of one shape are processed as a stack.

    Matrix number i belongs to rank i mod world size; the ranks share their updates through one flat
    bf16 buffer, summed, so that every rank applies exactly the same ones.
    """

    def __init__(
        self, params: list[nn.Parameter], lr: float, momentum: float, backend_steps: int
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "backend_steps": backend_steps}
        super().__init__(params, defaults)
        self.orthogonalize: Callable[[Tensor, int], Tensor] = orthogonalize

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params = group["params"]
            own = self._updates(params, group["momentum"], group["backend_steps"])
            updates = share_updates(params, own) if distributed() else own
            ordered = [updates[i] for i in range(len(params))]
            torch._foreach_add_(params, ordered, alpha=-group["lr"])

    def _updates(self, params: list[nn.Parameter], mu: float, steps: int) -> dict[int, Tensor]:
        rank, world_size = (dist.get_rank(), dist.get_world_size()) if distributed() else (0, 1)
        stacks: dict[torch.Size, list[int]] = {}
        for i in range(rank, len(params), world_size):
            stacks.setdefault(params[i].shape, []).append(i)
        updates: dict[int, Tensor] = {}
        for shape, members in stacks.items():
            stack = self._direction([params[i] for i in members], mu)
            stack = self.orthogonalize(stack, steps) * max(1.0, shape[0] / shape[1]) ** 0.5
            updates.update(zip(members, stack.float().unbind(0), strict=True))
        return updates

    def _direction(self, params: list[nn.Parameter], momentum: float) -> Tensor:
        """Nesterov's direction of each matrix; the buffers of a stack are kept as one tensor."""
        grads = torch.stack([gradient(p) for p in params])
        state = self.state[params[0]]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grads)
        buffer: Tensor = state["momentum_buffer"]
        buffer.mul_(momentum).add_(grads)
        return grads.add_(buffer, alpha=momentum)


def gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def share_updates(params: list[nn.Parameter], own: dict[int, Tensor]) -> dict[int, Tensor]:
    """Everybody's updates from one sum over a flat buffer in which each rank fills its own."""
    flat = params[0].new_zeros(sum(p.numel() for p in params), dtype=torch.bfloat16)
    for i, view in enumerate(views_like(flat, params)):
        if i in own:
            view.copy_(own[i])
    dist.all_reduce(flat)
    return dict(enumerate(views_like(flat.float(), params)))


def views_like(flat: Tensor, params: list[nn.Parameter]) -> list[Tensor]:
    pieces = torch.split(flat, [p.numel() for p in params])
    return [piece.view_as(p) for piece, p in zip(pieces, params, strict=True)]


def build_optimizers(model: GPT, hp: Hyperparameters) -> list[torch.optim.Optimizer]:
    """Embedding, (untied) head and vectors by Adam, block matrices by Muon; each with `base_lr`."""
    controls = name_patterns(hp.control_tensor_name_patterns)
    named = list(model.blocks.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and not is_control(name, p, controls)]
    vectors = [p for name, p in named if p.ndim != 2 or is_control(name, p, controls)]
    vectors.append(model.skip_weights)
    embed_lr = hp.tied_embed_lr if model.lm_head is None else hp.embed_lr
    adam: dict[str, Any] = {"betas": (hp.beta1, hp.beta2), "eps": hp.adam_eps, "fused": True}
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Adam([model.tok_emb.weight], lr=embed_lr, **adam),
        Muon(matrices, hp.matrix_lr, hp.muon_momentum, hp.muon_backend_steps),
        torch.optim.Adam(vectors, lr=hp.scalar_lr, **adam),
    ]
    if model.lm_head is not None:
        optimizers.insert(1, torch.optim.Adam([model.lm_head.weight], lr=hp.head_lr, **adam))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers


def lr_factor(hp: Hyperparameters, step: int, elapsed_ms: float) -> float:
    """What every learning rate is multiplied by: 1, then a linear fall to 0 over the warm-down."""
    if hp.warmdown_iters <= 0:
        return 1.0
    if hp.max_wallclock_seconds <= 0:
        remaining = hp.iterations - step
        return min(1.0, max(remaining, 0) / hp.warmdown_iters)
    window_ms = hp.warmdown_iters * elapsed_ms / max(step, 1)
    remaining_ms = max(1000.0 * hp.max_wallclock_seconds - elapsed_ms, 0.0)
    return remaining_ms / window_ms if remaining_ms <= window_ms else 1.0


def muon_momentum(hp: Hyperparameters, step: int) -> float:
    if hp.muon_momentum_warmup_steps <= 0:
        return hp.muon_momentum
    f = min(step / hp.muon_momentum_warmup_steps, 1.0)
    return (1 - f) * hp.muon_momentum_warmup_start + f * hp.muon_momentum


# --- The machine: ranks, devices, precision, logging -------------------------------------------


@dataclass(frozen=True)
class Runtime:
    """What the process runs on; `dtype` is that of activations and embedding."""

    rank: int
    world_size: int
    grad_accum_steps: int
    device: torch.device
    dtype: torch.dtype
    compile: bool

    @property
    def is_master(self) -> bool:
        return self.rank == 0

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        enabled = self.dtype is torch.bfloat16
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def setup_runtime(hp: Hyperparameters) -> Runtime:
    """Choose device and precision, seed every generator, join the other ranks if there are any."""
    in_group = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    rank = int(os.environ["RANK"]) if in_group else 0
    world_size = int(os.environ["WORLD_SIZE"]) if in_group else 1
    if world_size not in ALLOWED_WORLD_SIZES:
        raise RunError(f"WORLD_SIZE={world_size} does not divide 8: start 1, 2, 4 or 8 processes")
    device = choose_device(hp.device, int(os.environ.get("LOCAL_RANK", "0")) if in_group else 0)
    if device.type == "cuda":
        setup_cuda(device)
    random.seed(hp.seed)
    np.random.seed(hp.seed % 2**32)
    torch.manual_seed(hp.seed)  # every device
    if in_group:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, device_id=device if device.type == "cuda" else None)
        dist.barrier()
    dtype = torch.bfloat16 if device.type == "cuda" else choose_cpu_dtype(hp.cpu_dtype)
    wanted = one_of("COMPILE", hp.compile, "auto", "0", "1")
    compiled = wanted == "1" or (wanted == "auto" and device.type == "cuda")
    accumulation = hp.grad_accum_steps if hp.grad_accum_steps > 0 else 8 // world_size
    return Runtime(rank, world_size, accumulation, device, dtype, compiled)


def choose_device(wanted: str, local_rank: int) -> torch.device:
    one_of("DEVICE", wanted, "auto", "cuda", "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise RunError("DEVICE=cuda but no CUDA device is visible: use DEVICE=cpu")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank)


def choose_cpu_dtype(wanted: str) -> torch.dtype:
    """The faster of bf16 and fp32 on this CPU; rank 0 measures for everybody."""
    if one_of("CPU_DTYPE", wanted, "auto", "bf16", "fp32") != "auto":
        return torch.bfloat16 if wanted == "bf16" else torch.float32
    choice = torch.tensor(float(bf16_is_faster()))
    if distributed():
        dist.broadcast(choice, src=0)
    return torch.bfloat16 if choice else torch.float32


def bf16_is_faster() -> bool:
    """Time one linear layer in both, on one thread, where the best of 20 tries is stable.

    Instruction flags do not answer this: one CPU with avx512_bf16 multiplies 1.5 times faster in
    bf16, another 2 times slower.
    """
    best = {torch.bfloat16: math.inf, torch.float32: math.inf}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(20):
        for dtype in best:
            x, weight = torch.ones(512, 128, dtype=dtype), torch.ones(512, 128, dtype=dtype)
            started = time.perf_counter()
            F.linear(x, weight)
            best[dtype] = min(best[dtype], time.perf_counter() - started)
    torch.set_num_threads(threads)
    return best[torch.bfloat16] * 1.1 < best[torch.float32]


def setup_cuda(device: torch.device) -> None:
    torch.cuda.set_device(device)
    torch.set_float32_matmul_precision("high")  # TF32
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.enable_flash_sdp(True)
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_math_sdp(False)


def hardware_name(runtime: Runtime) -> str:
    if runtime.device.type == "cuda":
        return f"{runtime.world_size}x {torch.cuda.get_device_name(runtime.device)}"
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
        name = (names or [name])[0]
    return f"{runtime.world_size}x cpu {name} ({torch.get_num_threads()} threads)"


def peak_memory_mib(runtime: Runtime) -> tuple[int, int]:
    """Allocated and reserved; without a GPU both are the largest resident size of the process."""
    if runtime.device.type == "cuda":
        allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        return allocated // 2**20, reserved // 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20
    return peak, peak


class Log:
    """Lines of rank 0, to stdout and `logs/<RUN_ID>.txt`; the other ranks are silent."""

    def __init__(self, run_id: str, is_master: bool) -> None:
        self.path = f"logs/{run_id}.txt"
        self.is_master = is_master
        if is_master:
            os.makedirs("logs", exist_ok=True)
            print(self.path, flush=True)

    def __call__(self, line: str, console: bool = True) -> None:
        if not self.is_master:
            return
        if console:
            print(line, flush=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def nvidia_smi() -> str:
    try:
        return subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi: not available ({error})"


# --- Artifact: int8 codes with fp16 row scales, serialised by torch, compressed by zlib --------

ARTIFACT_FORMAT = "int8_clean_per_row_v1"  # the challenge's tag; its artifacts load here and back
SMALL_TENSOR_LIMIT = 65_536  # tensors up to this many elements are stored as they are
CLIP_QUANTILE = 99.99984 / 100.0
ZLIB_LEVEL = 9


def quantize_tensor(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes and their scale: fp16 for each row of a matrix, else one fp32 for the tensor."""
    values = tensor.float()
    if values.ndim == 2:
        clip = torch.quantile(values.abs(), CLIP_QUANTILE, dim=1)
        scale = (clip / 127.0).clamp_min(1.0 / 127.0)[:, None]
        codes = torch.round(values.clamp(-clip[:, None], clip[:, None]) / scale)
        return codes.clamp(-127, 127).to(torch.int8), scale[:, 0].to(torch.float16)
    bound = float(torch.quantile(values.abs().flatten(), CLIP_QUANTILE))
    single = torch.tensor(bound / 127.0 if bound > 0 else 1.0)
    codes = torch.round(values.clamp(-bound, bound) / single)
    return codes.clamp(-127, 127).to(torch.int8), single


def quantize_state_dict(
    state: dict[str, Tensor], keep_fp32: tuple[str, ...]
) -> tuple[dict[str, Any], int]:
    """The container of the artifact, and how many bytes its tensors have."""
    quantized, scales, dtypes, meta = {}, {}, {}, {}
    passthrough, original_dtypes = {}, {}
    for name, value in state.items():
        tensor = value.detach().cpu().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        if tensor.is_floating_point() and tensor.numel() > SMALL_TENSOR_LIMIT:
            quantized[name], scales[name] = quantize_tensor(tensor)
            dtypes[name] = dtype
            if scales[name].ndim > 0:
                meta[name] = {"scheme": "per_row", "axis": 0}
        elif any(pattern in name for pattern in keep_fp32) and tensor.is_floating_point():
            passthrough[name] = tensor.float()
        elif tensor.dtype in (torch.float32, torch.bfloat16):
            passthrough[name], original_dtypes[name] = tensor.to(torch.float16), dtype
        else:
            passthrough[name] = tensor
    container: dict[str, Any] = {
        "__quant_format__": ARTIFACT_FORMAT,
        "quantized": quantized,
        "scales": scales,
        "dtypes": dtypes,
        "passthrough": passthrough,
    }
    if meta:
        container["qmeta"] = meta
    if original_dtypes:
        container["passthrough_orig_dtypes"] = original_dtypes
    stored = [*quantized.values(), *scales.values(), *passthrough.values()]
    return container, tensor_bytes(stored)


def tensor_bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def dequantize_state_dict(container: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict that an artifact's container stands for, in the recorded dtypes."""
    state: dict[str, Tensor] = {}
    for name, codes in container["quantized"].items():
        scale = container["scales"][name].float()
        if scale.ndim > 0:
            scale = scale.view(-1, *([1] * (codes.ndim - 1)))
        state[name] = (codes.float() * scale).to(getattr(torch, container["dtypes"][name]))
    original_dtypes = container.get("passthrough_orig_dtypes", {})
    for name, tensor in container["passthrough"].items():
        dtype = original_dtypes.get(name)
        state[name] = tensor.to(getattr(torch, dtype)) if dtype else tensor.clone()
    return state


def write_whole(path: Path, data: bytes) -> None:
    """Write so that `path` holds all of `data` or does not exist, whenever we are killed."""
    unfinished = path.with_name(path.name + ".unfinished")
    with open(unfinished, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def remove_stale_outputs() -> None:
    for path in (RAW_MODEL_FILE, ARTIFACT_FILE):
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".unfinished").unlink(missing_ok=True)


def torch_bytes(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def load_artifact(model: GPT, path: Path) -> None:
    """Decompress, dequantise and put into the model, every name and shape equal."""
    try:
        container = torch.load(io.BytesIO(zlib.decompress(path.read_bytes())), map_location="cpu")
        found = container["__quant_format__"]
    except (OSError, zlib.error, EOFError, KeyError, TypeError, RuntimeError) as error:
        raise RunError(f"{path} is no readable artifact ({error!r}): train again") from None
    if found != ARTIFACT_FORMAT:
        raise RunError(f"{path} has format {found!r}, expected {ARTIFACT_FORMAT!r}: train again")
    try:
        model.load_state_dict(dequantize_state_dict(container), strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise RunError(f"{path} does not fit ({reason}): set its run's shape variables") from None


# --- evaluation: begin ---
# Everything between the two marker lines decides the score: which bytes a token stands for, which
# tokens are scored, how the loss becomes bits per byte, how the artifact is scored and what is
# printed at the end. Research changes belong outside of it; tools compare this region by its digest
# and treat a change as a change of the measuring stick.

RELOAD_TOLERANCE_BPB = 1e-4  # between this process and a fresh one


@dataclass(frozen=True)
class Validation:
    """The scored text: one contiguous run of token ids, and the byte tables of the tokenizer."""

    tokens: np.ndarray  # uint16, a whole number of sequences plus one
    base_bytes: Tensor  # int16, vocabulary
    leading_space: Tensor  # bool, vocabulary
    boundary: Tensor  # bool, vocabulary

    @property
    def scored(self) -> int:
        return self.tokens.size - 1


@dataclass(frozen=True)
class Score:
    """Nats for each token, bits for each byte, and the two counts that connect them."""

    val_loss: float
    val_bpb: float
    val_tokens: int
    val_bytes: int


Collector = Callable[[int, Tensor, Tensor], None]  # first target, ids (n, seq), nats (n, seq)


def load_tokenizer(hp: Hyperparameters) -> spm.SentencePieceProcessor:
    path = hp.tokenizer_path
    if not path.endswith(".model"):
        raise RunError(f"TOKENIZER_PATH={path} does not end in .model: name a SentencePiece model")
    if not Path(path).is_file():
        raise RunError(f"TOKENIZER_PATH={path} does not exist: get the data or set TOKENIZER_PATH")
    try:
        tokenizer = spm.SentencePieceProcessor(model_file=path)
    except (RuntimeError, OSError):
        raise RunError(f"TOKENIZER_PATH={path} is no SentencePiece model: get it again") from None
    if tokenizer.vocab_size() != hp.vocab_size:
        raise RunError(
            f"VOCAB_SIZE={hp.vocab_size} but the tokenizer has {tokenizer.vocab_size()} pieces: "
            "set VOCAB_SIZE to the tokenizer's"
        )
    return tokenizer


def byte_tables(
    tokenizer: spm.SentencePieceProcessor, vocab_size: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """For each id: bytes without a leading space, has it one, is it a boundary.

    Control, unknown and unused pieces, and ids outside the tokenizer, stand for no byte and are
    boundaries; a byte piece stands for one byte. The space of a piece counts one byte only where
    the token before it is no boundary, which is why the sum adds it and not the table.
    """
    size = max(int(tokenizer.vocab_size()), vocab_size)
    base, leading, boundary = [0] * size, [False] * size, [True] * size
    for i in range(int(tokenizer.vocab_size())):
        if tokenizer.is_control(i) or tokenizer.is_unknown(i) or tokenizer.is_unused(i):
            continue
        boundary[i] = False
        piece = tokenizer.id_to_piece(i)
        leading[i] = piece.startswith("\u2581") and not tokenizer.is_byte(i)
        text = piece[1:] if leading[i] else piece
        base[i] = 1 if tokenizer.is_byte(i) else len(text.encode("utf-8"))
    return (
        torch.tensor(base, dtype=torch.int16, device=device),
        torch.tensor(leading, dtype=torch.bool, device=device),
        torch.tensor(boundary, dtype=torch.bool, device=device),
    )


def load_validation(hp: Hyperparameters, runtime: Runtime, files: list[str]) -> Validation:
    """All shards end to end, cut to a whole number of sequences plus the first input."""
    tokenizer = load_tokenizer(hp)
    shards = [open_shard(name) for name in files]
    for name, shard in zip(files, shards, strict=True):
        check_token_ids(shard, hp.vocab_size, name)
    tokens = shards[0] if len(shards) == 1 else np.concatenate(shards)
    sequences = (tokens.size - 1) // hp.train_seq_len
    if sequences <= 0:
        raise RunError(
            f"{files[0]} has {tokens.size} tokens, expected more than TRAIN_SEQ_LEN="
            f"{hp.train_seq_len}: use a longer file or shorter sequences"
        )
    cut = tokens[: sequences * hp.train_seq_len + 1]
    return Validation(cut, *byte_tables(tokenizer, hp.vocab_size, runtime.device))


def evaluation_rows(hp: Hyperparameters, runtime: Runtime) -> int:
    """How many sequences one rank scores at once."""
    slots = runtime.world_size * runtime.grad_accum_steps
    rows = hp.val_batch_size // slots // hp.train_seq_len
    if rows <= 0:
        raise RunError(
            f"VAL_BATCH_SIZE={hp.val_batch_size} over WORLD_SIZE={runtime.world_size} and "
            f"grad_accum_steps={runtime.grad_accum_steps} is below TRAIN_SEQ_LEN="
            f"{hp.train_seq_len}: raise VAL_BATCH_SIZE"
        )
    if runtime.device.type == "cpu":
        return min(rows, max(hp.cpu_batch_tokens // hp.train_seq_len, 1))
    return rows


def token_batches(
    hp: Hyperparameters, runtime: Runtime, data: Validation
) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """(first sequence, sequences that count, inputs, targets) for the sequences of this rank.

    Windows do not overlap. A compiled model always sees one shape: the last batch is filled up with
    sequences that do not count.
    """
    seq = hp.train_seq_len
    total = data.scored // seq
    first = total * runtime.rank // runtime.world_size
    last = total * (runtime.rank + 1) // runtime.world_size
    rows = min(evaluation_rows(hp, runtime), -(-total // runtime.world_size))
    for start in range(first, last, rows):
        count = min(rows, last - start)
        ids = np.asarray(data.tokens[start * seq : (start + count) * seq + 1], dtype=np.int64)
        if runtime.compile and count < rows:
            ids = np.pad(ids, (0, (rows - count) * seq))
        batch = torch.from_numpy(ids).to(runtime.device)
        yield start, count, batch[:-1].view(-1, seq), batch[1:].view(-1, seq)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    hp: Hyperparameters,
    runtime: Runtime,
    data: Validation,
    collect: Collector | None = None,
) -> Score:
    """Score the model on the validation text; `collect` is shown the loss of every single token."""
    totals = torch.zeros(3, dtype=torch.float64, device=runtime.device)  # nats, tokens, bytes
    model.eval()
    for start, count, inputs, targets in token_batches(hp, runtime, data):
        with runtime.autocast():
            nats = model(inputs, targets, reduction="none")
        nats, inputs, targets = nats.view(targets.shape)[:count], inputs[:count], targets[:count]
        spaces = data.leading_space[targets] & ~data.boundary[inputs]
        totals[0] += nats.sum(dtype=torch.float64)
        totals[1] += targets.numel()
        totals[2] += data.base_bytes[targets].sum() + spaces.sum()
        if collect is not None:
            collect(start * hp.train_seq_len, inputs, nats)
    model.train()
    if distributed():
        dist.all_reduce(totals)
    nats_sum, tokens, byte_count = totals.tolist()
    if byte_count == 0:
        raise RunError("the validation text stands for 0 bytes: its tokens are control pieces only")
    val_loss = nats_sum / tokens
    if not math.isfinite(val_loss):
        raise RunError(f"val_loss is {val_loss}: the run has no score, lower the learning rates")
    val_bpb = val_loss / math.log(2.0) * tokens / byte_count
    return Score(val_loss, val_bpb, int(tokens), int(byte_count))


def save_and_score(
    model: GPT,
    compiled: nn.Module,
    hp: Hyperparameters,
    runtime: Runtime,
    data: Validation,
    log: Log,
) -> tuple[Score, float]:
    """Write the artifact, read it back into the model and score that; lines 23 to 30 of the log."""
    source_bytes = Path(__file__).stat().st_size
    if runtime.is_master:
        allocated, reserved = peak_memory_mib(runtime)
        log(f"peak memory allocated: {allocated} MiB reserved: {reserved} MiB")
        write_whole(RAW_MODEL_FILE, torch_bytes(model.state_dict()))
        raw_bytes = RAW_MODEL_FILE.stat().st_size
        log(f"Serialized model: {raw_bytes} bytes")
        log(f"Code size: {source_bytes} bytes")
        log(f"Total submission size: {raw_bytes + source_bytes} bytes")
        keep_fp32 = name_patterns(hp.keep_fp32_name_patterns)
        container, payload = quantize_state_dict(model.state_dict(), keep_fp32)
        ratio = tensor_bytes(list(model.state_dict().values())) / max(payload, 1)
        serialized = torch_bytes(container)
        write_whole(ARTIFACT_FILE, zlib.compress(serialized, ZLIB_LEVEL))
        model_bytes = ARTIFACT_FILE.stat().st_size
        log(
            f"Serialized model int8+zlib: {model_bytes} bytes (payload:{payload} "
            f"raw_torch:{len(serialized)} payload_ratio:{ratio:.2f}x)"
        )
        log(f"Total submission size int8+zlib: {model_bytes + source_bytes} bytes")
    if distributed():
        dist.barrier()
    load_artifact(model, ARTIFACT_FILE)
    runtime.synchronize()
    started = time.perf_counter()
    score = evaluate(compiled, hp, runtime, data)
    runtime.synchronize()
    eval_ms = 1000.0 * (time.perf_counter() - started)
    loss, bpb = score.val_loss, score.val_bpb
    stage = "final_int8_zlib_roundtrip"
    log(f"{stage} val_loss:{loss:.4f} val_bpb:{bpb:.4f} eval_time:{eval_ms:.0f}ms")
    log(f"{stage}_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}")
    return score, eval_ms


def score_in_fresh_process(runtime: Runtime) -> float:
    """Bits per byte of the artifact according to a new process that has no training data."""
    ranks = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    environment = {k: v for k, v in os.environ.items() if k not in ("MODEL_TEST", *ranks)}
    environment["EVAL_ARTIFACT"] = str(ARTIFACT_FILE)
    environment["CPU_DTYPE"] = "bf16" if runtime.dtype is torch.bfloat16 else "fp32"
    environment["GRAD_ACCUM_STEPS"] = str(runtime.grad_accum_steps * runtime.world_size)
    command = [sys.executable, os.path.abspath(__file__)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("artifact_score "):
            return float(json.loads(line.removeprefix("artifact_score "))["val_bpb"])
    last = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
    raise RunError(f"a fresh process could not score {ARTIFACT_FILE} ({last}): mend the artifact")


def check_reload(score: Score, runtime: Runtime, log: Log) -> float:
    started = time.perf_counter()
    reloaded = score_in_fresh_process(runtime)
    difference = abs(reloaded - score.val_bpb)
    if not difference <= RELOAD_TOLERANCE_BPB:
        raise RunError(
            f"the artifact scores {reloaded:.8f} in a fresh process and {score.val_bpb:.8f} here, "
            f"expected at most {RELOAD_TOLERANCE_BPB} apart: the score is not the artifact's"
        )
    spent = 1000.0 * (time.perf_counter() - started)
    log(f"reload_check:passed difference:{difference:.8f} reload_time:{spent:.0f}ms")
    return reloaded


def sha256_of(*files: str | Path) -> str:
    digest = hashlib.sha256()
    for name in files:
        digest.update(Path(name).read_bytes())
    return digest.hexdigest()


def result_line(score: Score, facts: dict[str, Any], hp: Hyperparameters, runtime: Runtime) -> str:
    """The canonical last line: what was measured, on what, with what, from what."""
    code_bytes, model_bytes = Path(__file__).stat().st_size, ARTIFACT_FILE.stat().st_size
    libraries = (torch, np, spm)
    versions = {library.__name__: library.__version__ for library in libraries}
    result = {
        "schema": 1,
        "script_stage": "int8_zlib_roundtrip",
        **vars(score),
        **facts,
        "artifact_bytes": code_bytes + model_bytes,
        "code_bytes": code_bytes,
        "model_bytes": model_bytes,
        "val_digest": sha256_of(*shard_files(hp.data_path, "val")),
        "tokenizer_digest": sha256_of(hp.tokenizer_path),
        "code_digest": sha256_of(__file__),
        "artifact_digest": sha256_of(ARTIFACT_FILE),
        "seed": hp.seed,
        "world_size": runtime.world_size,
        "dtype": str(runtime.dtype).removeprefix("torch."),
        "hardware": hardware_name(runtime),
        "versions": {"python": platform.python_version(), **versions},
        "data_dir": Path(hp.data_path).resolve().name,
    }
    text = json.dumps(result, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"autoresearch_result {text}"


def score_artifact(hp: Hyperparameters, runtime: Runtime, artifact: Path) -> None:
    """EVAL_ARTIFACT: score a file and print one line; needs no training data."""
    data = load_validation(hp, runtime, shard_files(hp.data_path, "val"))
    model = build_model(hp, runtime)
    load_artifact(model, artifact)
    score = evaluate(compile_model(model, runtime), hp, runtime, data)
    if runtime.is_master:
        print("artifact_score " + json.dumps(vars(score), sort_keys=True), flush=True)


def read_model_test(path: Path) -> dict[str, Any]:
    mend = "see the docstring of this script"
    try:
        request = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"MODEL_TEST={path} is no readable request ({error}): {mend}") from None
    kinds = {"schema": int, "artifact": str, "tokens": str, "distribution_at": list, "output": str}
    if not isinstance(request, dict) or set(request) != set(kinds):
        raise RunError(f"{path} does not have exactly the keys {sorted(kinds)}: {mend}")
    for key, kind in kinds.items():
        if type(request[key]) is not kind and not (key == "artifact" and request[key] is None):
            raise RunError(f"{path} has {key}={request[key]!r}, expected {kind.__name__}: {mend}")
    if request["schema"] != 1:
        raise RunError(f"{path} has schema {request['schema']}, expected 1: {mend}")
    return request


def answer_model_test(hp: Hyperparameters, runtime: Runtime, request_path: Path) -> None:
    """MODEL_TEST: the evaluation above on a given token file, with each token's probability."""
    request = read_model_test(request_path)
    if runtime.world_size != 1:
        raise RunError(f"a model test runs alone, not in {runtime.world_size} ranks: no torchrun")
    data = load_validation(hp, runtime, [request["tokens"]])
    wanted: list[int] = request["distribution_at"]
    outside = [i for i in wanted if type(i) is not int or not 0 <= i < data.scored]
    if outside:
        raise RunError(
            f"distribution_at holds {outside[0]!r}, expected integers from 0 to {data.scored - 1}, "
            f"the scored targets of {request['tokens']}: ask for others"
        )
    model = build_model(hp, runtime)
    if request["artifact"] is not None:
        load_artifact(model, Path(request["artifact"]))
    nats = np.zeros(data.scored, dtype=np.float64)
    distributions = np.zeros((len(wanted), hp.vocab_size), dtype=np.float32)

    def collect(first: int, inputs: Tensor, losses: Tensor) -> None:
        nats[first : first + losses.numel()] = losses.flatten().double().cpu().numpy()
        here = [k for k, index in enumerate(wanted) if first <= index < first + losses.numel()]
        if here:
            with runtime.autocast():
                logits = model.logits(inputs).flatten(0, 1).float()
            rows = torch.log_softmax(logits[[wanted[k] - first for k in here]], dim=-1)
            distributions[here] = rows.cpu().numpy()

    score = evaluate(compile_model(model, runtime), hp, runtime, data, collect)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        log_probs=-nats,
        positions=np.arange(1, data.scored + 1, dtype=np.int64),
        distributions=distributions,
        distribution_positions=np.asarray(wanted, dtype=np.int64) + 1,
        **vars(score),
    )
    write_whole(Path(request["output"]), buffer.getvalue())
    print(f"model_test:done tokens:{data.scored} distributions:{len(wanted)}", flush=True)


# --- evaluation: end ---


# --- Training ----------------------------------------------------------------------------------


def compile_model(model: GPT, runtime: Runtime) -> nn.Module:
    """The model itself, or one static graph of it that shares its weights."""
    if not runtime.compile:
        return model
    compiled: Any = torch.compile(model, dynamic=False, fullgraph=True)
    return compiled  # type: ignore[no-any-return]


class TrainingClock:
    """Milliseconds spent on training; it stands still while a validation runs."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.accumulated_ms = runtime, 0.0
        self.resume()

    def now_ms(self) -> float:
        return self.accumulated_ms + 1000.0 * (time.perf_counter() - self.started)

    def pause(self) -> float:
        self.runtime.synchronize()
        self.accumulated_ms = self.now_ms()
        return self.accumulated_ms

    def resume(self) -> None:
        self.runtime.synchronize()
        self.started = time.perf_counter()


def agree_on_ms(milliseconds: float, runtime: Runtime) -> float:
    """The slowest rank's clock, so that all ranks stop together and use the same learning rates."""
    if not distributed():
        return milliseconds
    shared = torch.tensor(milliseconds, dtype=torch.float64, device=runtime.device)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return float(shared)


def average_gradients(parameters: list[nn.Parameter], world_size: int) -> None:
    """Mean over the ranks, with one message for each dtype."""
    by_dtype: dict[torch.dtype, list[nn.Parameter]] = {}
    for parameter in parameters:
        by_dtype.setdefault(parameter.dtype, []).append(parameter)
    for members in by_dtype.values():
        flat = torch.cat([gradient(p).flatten() for p in members])
        dist.all_reduce(flat)
        flat.div_(world_size)
        for p, mean in zip(members, views_like(flat, members), strict=True):
            p.grad = mean


class Trainer:
    """One optimizer step at a time; owns the model, its optimizers and the data stream."""

    def __init__(self, hp: Hyperparameters, runtime: Runtime, files: list[str]) -> None:
        self.hp, self.runtime, self.files = hp, runtime, files
        self.model = build_model(hp, runtime)
        self.parameters = list(self.model.parameters())
        self.compiled = compile_model(self.model, runtime)
        self.optimizers = build_optimizers(self.model, hp)
        self.muon = next(o for o in self.optimizers if isinstance(o, Muon))
        if runtime.compile:
            self.muon.orthogonalize = torch.compile(orthogonalize, dynamic=False)
        self.loader = TrainLoader(files, hp, runtime)
        self.merged = self.merged_micro_steps()

    def merged_micro_steps(self) -> int:
        """How many micro-steps run as one batch: the mean is the same, a CPU is faster at it."""
        steps, tokens = self.runtime.grad_accum_steps, self.loader.local_tokens
        limit = self.hp.cpu_batch_tokens if self.runtime.device.type == "cpu" else 0
        divisors = (k for k in range(steps, 1, -1) if steps % k == 0)
        return next((k for k in divisors if k * tokens <= limit), 1)

    def step(self, step: int, factor: float) -> Tensor:
        """One step of all optimizers; returns this rank's mean loss without waiting for it."""
        loss = self.backward()
        for group in self.muon.param_groups:
            group["momentum"] = muon_momentum(self.hp, step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
        if self.hp.grad_clip_norm > 0:
            nn.utils.clip_grad_norm_(self.parameters, self.hp.grad_clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self.clear_gradients()
        return loss

    def backward(self) -> Tensor:
        passes = self.runtime.grad_accum_steps // self.merged
        total = torch.zeros((), device=self.runtime.device)
        for _ in range(passes):
            inputs, targets = self.loader.next_batch(self.merged)
            with self.runtime.autocast():
                loss = self.compiled(inputs, targets) / passes
            loss.backward()
            total += loss.detach()
        if distributed():
            average_gradients(self.parameters, self.runtime.world_size)
        return total

    def clear_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def warm_up(self, log: Log) -> None:
        """Run real steps to trigger compilation, then put everything back as it was."""
        steps = self.hp.warmup_steps
        if steps <= 0:
            return
        weights = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}
        states = [torch_bytes(optimizer.state_dict()) for optimizer in self.optimizers]
        for step in range(steps):
            self.step(0, 1.0)
            if steps <= 20 or (step + 1) % 10 == 0 or step + 1 == steps:
                log(f"warmup_step:{step + 1}/{steps}")
        self.model.load_state_dict(weights, strict=True)
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(torch.load(io.BytesIO(state)))
        self.loader = TrainLoader(self.files, self.hp, self.runtime)


def train(trainer: Trainer, data: Validation, log: Log) -> tuple[int, float]:
    """The main loop; returns the number of steps and the training milliseconds."""
    hp, runtime = trainer.hp, trainer.runtime
    cap_ms = 1000.0 * hp.max_wallclock_seconds if hp.max_wallclock_seconds > 0 else math.inf
    clock = TrainingClock(runtime)
    elapsed_ms, stop_step, step = 0.0, None, 0
    while True:
        last = step == hp.iterations or (stop_step is not None and step >= stop_step)
        if last or (hp.val_loss_every > 0 and step % hp.val_loss_every == 0):
            elapsed_ms = clock.pause()
            score = evaluate(trainer.compiled, hp, runtime, data)
            log(
                f"step:{step}/{hp.iterations} val_loss:{score.val_loss:.4f} "
                f"val_bpb:{score.val_bpb:.4f} train_time:{elapsed_ms:.0f}ms "
                f"step_avg:{elapsed_ms / max(step, 1):.2f}ms"
            )
            elapsed_ms = agree_on_ms(elapsed_ms, runtime)
            clock.resume()
        if last:
            if stop_step is not None and step < hp.iterations:
                log(
                    f"stopping_early: wallclock_cap train_time:{elapsed_ms:.0f}ms "
                    f"step:{step}/{hp.iterations}"
                )
            return step, elapsed_ms
        loss = trainer.step(step, lr_factor(hp, step, elapsed_ms))
        step += 1
        now_ms = clock.now_ms()
        listed = step <= 10 or step % max(hp.train_log_every, 1) == 0 or stop_step is not None
        if hp.train_log_every > 0 and listed and runtime.is_master:
            if not math.isfinite(float(loss)):
                raise RunError(
                    f"train_loss is {float(loss)} at step {step}: lower the rates or clip"
                )
            log(
                f"step:{step}/{hp.iterations} train_loss:{float(loss):.4f} "
                f"train_time:{now_ms:.0f}ms step_avg:{now_ms / step:.2f}ms"
            )
        elapsed_ms = agree_on_ms(now_ms, runtime)
        if stop_step is None and elapsed_ms >= cap_ms:
            stop_step = step


def log_settings(
    hp: Hyperparameters, runtime: Runtime, data: Validation, trainer: Trainer, log: Log
) -> int:
    """Lines 8 to 17 of the log and one of our own; returns the number of parameters."""
    model_params = sum(p.numel() for p in trainer.parameters)
    tied, data_dir = trainer.model.lm_head is None, Path(hp.data_path).resolve().name
    pattern = os.path.join(hp.data_path, "fineweb_val_*.bin")
    log(f"val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path={hp.tokenizer_path}")
    log(f"train_loader:dataset:{data_dir} train_shards:{len(trainer.files)}")
    log(f"val_loader:shards pattern={pattern} tokens:{data.scored}")
    log(f"model_params:{model_params}")
    log(f"world_size:{runtime.world_size} grad_accum_steps:{runtime.grad_accum_steps}")
    log("sdp_backends:cudnn=False flash=True mem_efficient=False math=False")
    log(f"attention_mode:gqa num_heads:{hp.num_heads} num_kv_heads:{hp.num_kv_heads}")
    log(
        f"tie_embeddings:{tied} embed_lr:{hp.tied_embed_lr if tied else hp.embed_lr} "
        f"head_lr:{0.0 if tied else hp.head_lr} matrix_lr:{hp.matrix_lr} scalar_lr:{hp.scalar_lr}"
    )
    log(
        f"train_batch_tokens:{hp.train_batch_tokens} train_seq_len:{hp.train_seq_len} "
        f"iterations:{hp.iterations} warmup_steps:{hp.warmup_steps} "
        f"max_wallclock_seconds:{hp.max_wallclock_seconds:.3f}"
    )
    log(f"seed:{hp.seed}")
    dtype = str(runtime.dtype).removeprefix("torch.")
    log(
        f"runtime:device={runtime.device.type} dtype={dtype} compile={runtime.compile} "
        f"hardware={hardware_name(runtime)}"
    )
    return model_params


def log_source(log: Log) -> None:
    """Lines 2 to 7: what ran, for whoever finds the log file later."""
    source, rule = Path(__file__).read_text(encoding="utf-8"), "=" * 100
    versions = f"Running Python {sys.version}\nRunning PyTorch {torch.__version__}"
    log("\n".join((source, rule, versions, nvidia_smi(), rule)), console=False)


def run_training(hp: Hyperparameters, runtime: Runtime) -> None:
    """Train, score, check, report."""
    log = Log(hp.run_id or str(uuid.uuid4()), runtime.is_master)
    if runtime.is_master:
        remove_stale_outputs()
        log_source(log)
    train_files = shard_files(hp.data_path, "train")
    evaluation_rows(hp, runtime)
    data = load_validation(hp, runtime, shard_files(hp.data_path, "val"))
    trainer = Trainer(hp, runtime, train_files)
    model_params = log_settings(hp, runtime, data, trainer, log)
    trainer.warm_up(log)
    steps, train_ms = train(trainer, data, log)
    score, eval_ms = save_and_score(trainer.model, trainer.compiled, hp, runtime, data, log)
    if distributed():
        dist.destroy_process_group()
    if runtime.is_master:
        facts = {
            "reload_val_bpb": check_reload(score, runtime, log) if hp.reload_check else None,
            "model_params": model_params,
            "steps": steps,
            "train_time_ms": train_ms,
            "eval_time_ms": eval_ms,
            "train_shards": len(train_files),
        }
        log(result_line(score, facts, hp, runtime))


def main() -> int:
    hp = Hyperparameters()
    model_test, artifact = env_str("MODEL_TEST", ""), env_str("EVAL_ARTIFACT", "")
    try:
        if unreadable_settings:
            raise RunError(unreadable_settings[0])
        runtime = setup_runtime(hp)
        if model_test:
            answer_model_test(hp, runtime, Path(model_test))
        elif artifact:
            score_artifact(hp, runtime, Path(artifact))
        else:
            run_training(hp, runtime)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
