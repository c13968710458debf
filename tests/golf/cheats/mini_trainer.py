"""A trainer that counts pairs of tokens: the contract of train_gpt.py in a second, without torch.

The tests run it as it is, and with one line replaced where it is to cheat.
"""

import hashlib
import json
import math
import os
import sys
import zlib
from pathlib import Path

import numpy as np
import sentencepiece as spm

DATA = Path(os.environ.get("DATA_PATH", "data"))
TOKENIZER = os.environ.get("TOKENIZER_PATH", "tokenizer.model")
SEQ = int(os.environ.get("TRAIN_SEQ_LEN", "64"))
ARTIFACT = Path("final_model.int8.ptz")


def read(path):
    return np.fromfile(path, dtype="<u2", offset=1024).astype(np.int64)


def byte_tables():
    pieces = spm.SentencePieceProcessor(model_file=TOKENIZER)
    size = pieces.vocab_size()
    base, leading, boundary = np.zeros(size, int), np.zeros(size, bool), np.ones(size, bool)
    for i in range(size):
        if pieces.is_control(i) or pieces.is_unknown(i) or pieces.is_unused(i):
            continue
        boundary[i] = False
        piece = pieces.id_to_piece(i)
        leading[i] = piece.startswith("\u2581")
        base[i] = 1 if pieces.is_byte(i) else len(piece.lstrip("\u2581").encode())
    return base, leading, boundary


def train(vocab):
    tokens = np.concatenate([read(p) for p in sorted(DATA.glob("fineweb_train_*.bin"))])
    counts = np.bincount(tokens, minlength=vocab)
    weights = np.clip(np.log((counts + 400.0) / (counts + 400.0).mean()) * 32, -127, 127)
    ARTIFACT.write_bytes(zlib.compress(weights.astype(np.int8).tobytes(), 9))


def load(artifact, vocab):
    if artifact is None:
        return np.zeros(vocab)
    return np.frombuffer(zlib.decompress(Path(artifact).read_bytes()), np.int8) / 32.0


def distribution(weights, before):
    """Log-probabilities of the next token after the tokens before it in its window."""
    return weights - np.log(np.exp(weights).sum())


# --- evaluation: begin ---
def evaluate(weights, tokens):
    base, leading, boundary = byte_tables()
    scored = (len(tokens) - 1) // SEQ * SEQ
    order = np.arange(1, scored + 1)
    nats = np.zeros(scored)
    for i, position in enumerate(order):
        window = tokens[(position - 1) // SEQ * SEQ : position]
        nats[i] = -distribution(weights, window)[tokens[position]]
    targets, previous = tokens[order], tokens[order - 1]
    spaces = leading[targets] & ~boundary[previous]
    count = int(base[targets].sum() + spaces.sum())
    loss = float(nats.mean())
    return -nats, order, loss, loss / math.log(2) * len(order) / count, count


# --- evaluation: end ---


def sha(*paths):
    digest = hashlib.sha256()
    for path in paths:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def run(vocab):
    train(vocab)
    files = sorted(DATA.glob("fineweb_val_*.bin"))
    tokens = np.concatenate([read(p) for p in files])
    _, order, loss, bpb, count = evaluate(load(ARTIFACT, vocab), tokens)
    print(f"final_int8_zlib_roundtrip_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}")
    code, model = Path(__file__).stat().st_size, ARTIFACT.stat().st_size
    result = {
        "schema": 1,
        "val_loss": loss,
        "val_bpb": bpb,
        "val_tokens": len(order),
        "val_bytes": count,
        "artifact_bytes": code + model,
        "code_bytes": code,
        "model_bytes": model,
        "val_digest": sha(*files),
        "tokenizer_digest": sha(TOKENIZER),
        "code_digest": sha(__file__),
        "artifact_digest": sha(ARTIFACT),
    }
    print("autoresearch_result " + json.dumps(result))


def answer(request, vocab):
    tokens, weights = read(request["tokens"]), load(request["artifact"], vocab)
    log_probs, order, loss, bpb, count = evaluate(weights, tokens)
    asked = np.asarray(request["distribution_at"], dtype=np.int64)
    rows = [
        distribution(weights, tokens[(order[i] - 1) // SEQ * SEQ : order[i]]) for i in asked
    ] or np.zeros((0, vocab))
    np.savez(
        request["output"],
        log_probs=log_probs,
        positions=order,
        distributions=np.asarray(rows, dtype=np.float32),
        distribution_positions=order[asked],
        val_loss=loss,
        val_bpb=bpb,
        val_tokens=len(order),
        val_bytes=count,
    )
    print("model_test:done")


def main():
    vocab = spm.SentencePieceProcessor(model_file=TOKENIZER).vocab_size()
    request = os.environ.get("MODEL_TEST")
    if request:
        answer(json.loads(Path(request).read_text()), vocab)
    else:
        run(vocab)
    return 0


if __name__ == "__main__":
    sys.exit(main())
