"""Bytes, bits for each byte, and the model test, which is the same evaluation."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece as spm
import torch
import train_gpt
from trainer_kit import TinyData, make_runtime, write_shard


def load(hp: train_gpt.Hyperparameters) -> train_gpt.Validation:
    return train_gpt.load_validation(hp, make_runtime(), train_gpt.shard_files(hp.data_path, "val"))


def model_with_opinions(hp: train_gpt.Hyperparameters) -> train_gpt.GPT:
    """A model whose predictions differ from token to token, which an untrained one's hardly do."""
    torch.manual_seed(5)
    model = train_gpt.build_model(hp, make_runtime())
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_byte_tables(tiny_data: TinyData) -> None:
    """Control pieces count nothing, byte pieces one, a leading space is kept apart."""
    tokenizer = spm.SentencePieceProcessor(model_file=str(tiny_data.tokenizer))
    vocabulary = tokenizer.vocab_size()
    cpu = torch.device("cpu")
    base, leading, boundary = train_gpt.byte_tables(tokenizer, vocabulary + 3, cpu)
    assert base.dtype == torch.int16
    assert base.shape == leading.shape == boundary.shape == (vocabulary + 3,)
    for i in range(vocabulary + 3):
        if i < 4 or i >= vocabulary:
            expected = (0, False, True)
        elif tokenizer.is_byte(i):
            expected = (1, False, False)
        else:
            piece = tokenizer.id_to_piece(i)
            has_space = piece[0] == "▁"
            expected = (len(piece[has_space:].encode()), has_space, False)
        assert (int(base[i]), bool(leading[i]), bool(boundary[i])) == expected


def test_bytes_are_those_of_the_documents(
    hp: train_gpt.Hyperparameters, tiny_data: TinyData
) -> None:
    """The scored bytes are the UTF-8 size of the validation documents, whatever the model."""
    data = load(hp)
    tokenizer = spm.SentencePieceProcessor(model_file=str(tiny_data.tokenizer))
    documents = " ".join(str(i) for i in data.tokens).split(" 1 ")
    texts = [tokenizer.decode([int(i) for i in d.split() if int(i) != 1]) for d in documents]
    assert texts[:-1] == list(tiny_data.val_documents[: len(texts) - 1])
    expected = sum(len(text.encode()) for text in texts)
    for model in (train_gpt.build_model(hp, make_runtime()), model_with_opinions(hp)):
        score = train_gpt.evaluate(model, hp, make_runtime(), data)
        assert score.val_bytes == expected
        implied = score.val_tokens * score.val_loss / (math.log(2) * score.val_bpb)
        assert implied == pytest.approx(expected, rel=1e-12)


def test_score_is_the_plain_mean(hp: train_gpt.Hyperparameters) -> None:
    """The batched evaluation equals one pass over all windows, and does not depend on batches."""
    data, model = load(hp), model_with_opinions(hp)
    ids = torch.from_numpy(data.tokens.astype(np.int64))
    inputs, targets = ids[:-1].view(-1, 64), ids[1:].view(-1, 64)
    with torch.no_grad():
        logits = model.logits(inputs).double()
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).item()
    for batch in (512, 2048, 1 << 20):
        hp.val_batch_size = batch
        score = train_gpt.evaluate(model, hp, make_runtime(), data)
        assert score.val_loss == pytest.approx(expected, abs=1e-6)
        assert score.val_tokens == targets.numel()


def test_ranks_score_every_sequence_once(hp: train_gpt.Hyperparameters) -> None:
    """At 1, 2, 4 and 8 ranks the contiguous parts make up the whole text."""
    data = load(hp)
    total = data.scored // hp.train_seq_len
    for world_size in (1, 2, 4, 8):
        seen: list[int] = []
        for rank in range(world_size):
            batches = train_gpt.token_batches(hp, make_runtime(rank, world_size), data)
            for start, count, inputs, targets in batches:
                seen.extend(range(start, start + count))
                assert torch.equal(inputs[:, 1:], targets[:, :-1])
        assert seen == list(range(total))


def test_a_compiled_model_sees_one_shape(hp: train_gpt.Hyperparameters) -> None:
    """The last batch is filled up, and the filling is not counted."""
    data, runtime = load(hp), make_runtime()
    hp.val_batch_size = 8 * 64 * 7
    compiled = train_gpt.Runtime(0, 1, 8, runtime.device, runtime.dtype, compile=True)
    batches = list(train_gpt.token_batches(hp, compiled, data))
    assert {batch[2].shape for batch in batches} == {(7, 64)}
    assert sum(batch[1] for batch in batches) == data.scored // 64
    model = model_with_opinions(hp)
    padded = train_gpt.evaluate(model, hp, compiled, data)
    plain = train_gpt.evaluate(model, hp, runtime, data)
    assert padded.val_loss == pytest.approx(plain.val_loss, abs=1e-6)
    assert (padded.val_tokens, padded.val_bytes) == (plain.val_tokens, plain.val_bytes)


def test_an_evaluation_needs_a_whole_sequence(hp: train_gpt.Hyperparameters) -> None:
    """The line names the four numbers that do not fit."""
    hp.val_batch_size = 511
    words = "VAL_BATCH_SIZE=511 over WORLD_SIZE=1 and grad_accum_steps=8 .*TRAIN_SEQ_LEN=64"
    with pytest.raises(ValueError, match=words):
        train_gpt.evaluation_rows(hp, make_runtime())


def test_a_score_is_finite_or_absent(hp: train_gpt.Hyperparameters) -> None:
    """A model that answers nan has no score."""
    model = train_gpt.build_model(hp, make_runtime())
    torch.nn.init.constant_(model.tok_emb.weight, math.nan)
    with pytest.raises(train_gpt.RunError, match="val_loss is nan"):
        train_gpt.evaluate(model, hp, make_runtime(), load(hp))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"vocab_size": 300}, "holds token id|VOCAB_SIZE=300 but the tokenizer has 320"),
        ({"tokenizer_path": "pieces.txt"}, "does not end in .model"),
        ({"tokenizer_path": "absent.model"}, "absent.model does not exist"),
        ({"tokenizer_path": __file__ + ".model"}, "does not exist"),
        ({"train_seq_len": 1 << 20}, "use a longer file or shorter sequences"),
    ],
    ids=["vocabulary", "name", "missing", "beside", "short"],
)
def test_validation_that_cannot_be_scored(
    hp: train_gpt.Hyperparameters, change: dict[str, Any], complaint: str
) -> None:
    """Each of these is one clear line before any training."""
    for name, value in change.items():
        setattr(hp, name, value)
    with pytest.raises(ValueError, match=complaint):
        load(hp)


def ask(tmp_path: Path, hp: train_gpt.Hyperparameters, **changes: Any) -> dict[str, np.ndarray]:
    """Send one model-test request and read the answer."""
    write_shard(tmp_path / "tokens.bin", np.random.default_rng(3).integers(4, 320, 1000))
    request = {
        "schema": 1,
        "artifact": None,
        "tokens": str(tmp_path / "tokens.bin"),
        "distribution_at": [0, 63, 64, 700, 5],
        "output": str(tmp_path / "answer.npz"),
    } | changes
    (tmp_path / "request.json").write_text(json.dumps(request))
    train_gpt.answer_model_test(hp, make_runtime(), tmp_path / "request.json")
    with np.load(tmp_path / "answer.npz") as answer:
        return {name: answer[name] for name in answer.files}


def test_model_test_answers_with_the_scored_probabilities(
    hp: train_gpt.Hyperparameters, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mean of `log_probs` is the loss, distributions sum to 1 and hold the same numbers."""
    torch.manual_seed(hp.seed)
    answer = ask(tmp_path, hp)
    assert capsys.readouterr().out == "model_test:done tokens:960 distributions:5\n"
    assert answer["log_probs"].dtype == np.float64
    assert answer["positions"].tolist() == list(range(1, 961))
    assert -answer["log_probs"].mean() == pytest.approx(float(answer["val_loss"]), abs=1e-9)
    assert int(answer["val_tokens"]) == 960
    assert np.exp(answer["distributions"].astype(np.float64)).sum(1) == pytest.approx(1, abs=1e-5)
    assert answer["distribution_positions"].tolist() == [1, 64, 65, 701, 6]
    tokens = train_gpt.open_shard(tmp_path / "tokens.bin")
    for row, position in zip(answer["distributions"], [1, 64, 65, 701, 6], strict=True):
        expected = answer["log_probs"][position - 1]
        assert row[tokens[position]] == pytest.approx(expected, abs=1e-5)
    bits = float(answer["val_loss"]) * 960 / math.log(2)
    assert float(answer["val_bpb"]) == pytest.approx(bits / int(answer["val_bytes"]))


def test_uniform_tokens_cannot_be_predicted(hp: train_gpt.Hyperparameters, tmp_path: Path) -> None:
    """An honest model needs at least the entropy of uniformly random tokens, about ln 316."""
    assert float(ask(tmp_path, hp)["val_loss"]) > math.log(316)


def test_a_model_test_does_not_look_ahead(hp: train_gpt.Hyperparameters, tmp_path: Path) -> None:
    """Other tokens after a position leave its log-probability as it was."""
    torch.manual_seed(hp.seed)
    before = ask(tmp_path, hp)["log_probs"]
    tokens = np.array(train_gpt.open_shard(tmp_path / "tokens.bin"))
    tokens[501:] = 4 + (tokens[501:] + 1) % 300
    write_shard(tmp_path / "changed.bin", tokens)
    torch.manual_seed(hp.seed)
    after = ask(tmp_path, hp, tokens=str(tmp_path / "changed.bin"))["log_probs"]
    assert before[:500] == pytest.approx(after[:500], abs=1e-6)
    assert before[500:] != pytest.approx(after[500:], abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"schema": 2}, "has schema 2, expected 1"),
        ({"extra": 1}, "does not have exactly the keys"),
        ({"tokens": 7}, "tokens=7, expected str"),
        ({"tokens": "/absent.bin"}, "/absent.bin is not a file"),
        ({"artifact": "/absent.ptz"}, "/absent.ptz is no readable artifact"),
        ({"distribution_at": [960]}, "holds 960, expected integers from 0 to 959"),
        ({"distribution_at": ["1"]}, "holds '1', expected integers"),
    ],
    ids=["schema", "keys", "kind", "tokens", "artifact", "range", "index"],
)
def test_bad_requests_are_named(
    hp: train_gpt.Hyperparameters, tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    """A request that cannot be answered writes no answer and says what is wrong with it."""
    with pytest.raises(train_gpt.RunError, match=complaint):
        ask(tmp_path, hp, **changes)
    assert not (tmp_path / "answer.npz").exists()
