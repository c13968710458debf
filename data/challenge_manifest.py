"""What the challenge's manifest says about one dataset: its shards and its tokenizer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from console import DataError
from shards import SHARD_TOKENS, shard_bytes, shard_name


class ManifestError(DataError):
    """The manifest does not say what the downloader needs to know."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """One dataset of a manifest: file counts, token counts (0 where unknown), tokenizer files."""

    name: str
    files: dict[str, int]
    tokens: dict[str, int]
    shard_tokens: int
    tokenizer_files: tuple[str, ...]

    def shards(self, split: str, count: int) -> list[str]:
        """Paths, below the data folder, of the first shards of a split."""
        return [f"datasets/{self.name}/{shard_name(split, index)}" for index in range(count)]

    def expected_bytes(self, split: str, index: int) -> int:
        """Size that one shard probably has, for showing progress."""
        left = (self.tokens[split] or self.shard_tokens * self.files[split]) - (
            index * self.shard_tokens
        )
        return shard_bytes(max(0, min(left, self.shard_tokens)))


def read_json(path: Path) -> dict[str, Any]:
    """Read a manifest file; ManifestError, without the file's name, when it is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ManifestError(f"not JSON ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("datasets"), list):
        raise ManifestError("not a manifest, it has no list of datasets")
    return content


def find_dataset(manifest: dict[str, Any], name: str) -> Dataset:
    """Pick one dataset and its tokenizer out of a manifest."""
    entry = _named(manifest, "datasets", name)
    tokenizer = _named(manifest, "tokenizers", entry.get("tokenizer_name"))
    stats = entry.get("stats") or {}
    try:
        files = {split: int(stats[f"files_{split}"]) for split in ("train", "val")}
        tokens = {split: int(stats.get(f"tokens_{split}") or 0) for split in files}
        shard_tokens = int(manifest.get("shard_size") or SHARD_TOKENS)
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(f"dataset {name} has no usable stats ({error!r})") from error
    if files["val"] < 1:
        raise ManifestError(f"dataset {name} has {files['val']} validation shards, expected 1")
    return Dataset(name, files, tokens, shard_tokens, _artifacts(tokenizer))


def _named(manifest: dict[str, Any], kind: str, name: object) -> dict[str, Any]:
    entries = [entry for entry in manifest.get(kind) or [] if isinstance(entry, dict)]
    for entry in entries:
        if entry.get("name") == name:
            return entry
    known = ", ".join(sorted(str(entry.get("name")) for entry in entries)) or "none"
    raise ManifestError(f"no {name} among its {kind} (it has: {known})")


def _artifacts(tokenizer: dict[str, Any]) -> tuple[str, ...]:
    paths = [tokenizer.get(key) for key in ("model_path", "vocab_path", "path")]
    found = tuple(str(path) for path in paths if path)
    if not found:
        raise ManifestError(f"tokenizer {tokenizer['name']} names no file")
    for path in found:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ManifestError(f"tokenizer file {path} lies outside the data folder")
    return found
