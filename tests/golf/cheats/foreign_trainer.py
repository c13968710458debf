"""A trainer as the public records are: torch, one function that evaluates, and no protocol."""

import math
import os
import sys
from pathlib import Path

import numpy as np
import sentencepiece as spm
import torch
from torch import nn

SEQ = int(os.environ.get("TRAIN_SEQ_LEN", "64"))


class Net(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.emb, self.head = nn.Embedding(vocab, 32), nn.Linear(32, vocab)

    def forward(self, ids, targets):
        hidden = self.emb(ids).cumsum(1) / torch.arange(1, ids.size(1) + 1)[:, None]
        logits = self.head(hidden).flatten(0, 1)
        return nn.functional.cross_entropy(logits.float(), targets.reshape(-1))


def read(split):
    files = sorted(Path(os.environ["DATA_PATH"]).glob(f"fineweb_{split}_*.bin"))
    parts = [np.fromfile(path, dtype="<u2", offset=1024).astype(np.int64) for path in files]
    return torch.from_numpy(np.concatenate(parts))


def byte_tables(pieces):
    size = pieces.vocab_size()
    base, leading, boundary = np.zeros(size, int), np.zeros(size, bool), np.ones(size, bool)
    for i in range(size):
        if not (pieces.is_control(i) or pieces.is_unknown(i) or pieces.is_unused(i)):
            piece = pieces.id_to_piece(i)
            boundary[i], leading[i] = False, piece.startswith("\u2581")
            base[i] = 1 if pieces.is_byte(i) else len(piece.lstrip("\u2581").encode())
    return torch.from_numpy(base), torch.from_numpy(leading), torch.from_numpy(boundary)


def eval_val(model, val_tokens, tables):
    base, leading, boundary = tables
    usable = (len(val_tokens) - 1) // SEQ * SEQ
    loss, count = 0.0, 0
    with torch.inference_mode():
        for start in range(0, usable, SEQ):
            ids = val_tokens[start : start + SEQ + 1]
            x, y = ids[:-1], ids[1:]
            loss += model(x[None], y[None]).item() * SEQ
            count += int(base[y].sum() + (leading[y] & ~boundary[x]).sum())
    mean = loss / usable
    return mean, mean / math.log(2.0) * usable / count


def main():
    torch.manual_seed(1)
    pieces = spm.SentencePieceProcessor(model_file=os.environ["TOKENIZER_PATH"])
    train, val = read("train"), read("val")
    val = val[: (len(val) - 1) // SEQ * SEQ + 1]
    model = Net(pieces.vocab_size())
    optimizer = torch.optim.Adam(model.parameters(), lr=float(os.environ.get("EMBED_LR", "0.001")))
    for step in range(int(os.environ["ITERATIONS"])):
        ids = train[step * 1024 : step * 1024 + 1025]
        model(ids[:-1].view(-1, SEQ), ids[1:].view(-1, SEQ)).backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.save(model.state_dict(), "final_model.ptz")
    loss, bpb = eval_val(model, val, byte_tables(pieces))
    print(f"final_int8_zlib_roundtrip_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
