"""Download the challenge's FineWeb shards, or any export of the same layout, into this folder.

    python3 data/cached_challenge_fineweb.py --variant sp1024 --train-shards 10

Whole files are kept and never fetched twice; run the same command again after an interruption.
MATCHED_FINEWEB_REPO_ID and MATCHED_FINEWEB_REMOTE_ROOT_PREFIX choose another repository.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from challenge_manifest import Dataset, ManifestError, find_dataset, read_json
from console import INTERRUPTED, DataError, progress, run, say
from files import alone
from hub import Hub, StoppedError
from shards import ShardError, count_tokens

REPOSITORY = "willdepueoai/parameter-golf"
ROOT = "datasets"
DEFAULT_TRAIN_SHARDS = 80  # 8 billion tokens, what the baseline trains on
SECONDS_TO_STOP = 3.0  # transfers clean up when they notice, at their next 10 MiB
MANIFEST = "manifest.json"
DOCS = ("docs_selected.jsonl", "docs_selected.source_manifest.json")

Check = Callable[[Path], object]


class MissingManifestError(DataError, FileNotFoundError):
    """--skip-manifest was given and there is no manifest."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file: its path below the data folder, how to check it, its size as far as known."""

    name: str
    check: Check
    size: int = 0


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("shards", nargs="?", type=int, help=argparse.SUPPRESS)
    add(
        "--train-shards",
        type=int,
        default=DEFAULT_TRAIN_SHARDS,
        metavar="N",
        help="shards of 100 million tokens (default: %(default)s)",
    )
    add("--variant", default="sp1024", help="sp1024, sp8192, byte260 ... (default: %(default)s)")
    add("--skip-manifest", action="store_true", help="use the manifest that is already here")
    add("--with-docs", action="store_true", help="also fetch the documents (48 GB)")
    add("--data-dir", type=Path, default=Path(__file__).parent, help="default: this folder")
    add("--workers", type=int, default=8, help="transfers at a time (default: %(default)s)")
    asked = parser.parse_args(words)
    if asked.shards is not None:
        asked.train_shards = asked.shards
    return asked


def refuse_bad_values(asked: argparse.Namespace) -> None:
    """Raise DataError for values that no repository can satisfy."""
    if not re.fullmatch(r"byte260|sp[0-9]+", asked.variant):
        raise DataError(f"unknown variant {asked.variant!r}; give byte260 or sp and digits: sp1024")
    if asked.train_shards < 0:
        raise DataError(f"--train-shards {asked.train_shards} is negative; give 0 or more")
    if asked.workers < 1:
        raise DataError(f"--workers {asked.workers} is below 1; give 1 or more")


class Download:
    """One run of the downloader: a repository, a data folder, and the files between them."""

    def __init__(self, hub: Hub, folder: Path, workers: int) -> None:
        self._hub = hub
        self._folder = folder
        self._workers = workers

    def dataset(self, name: str, skip_manifest: bool) -> Dataset:
        """Read the manifest, fetching it only where there is none; pick the dataset."""
        path = self._folder / MANIFEST
        if not path.exists() and skip_manifest:
            raise MissingManifestError(f"no manifest at {path}; run without --skip-manifest")
        self.bring("manifest", [Wanted(MANIFEST, not_checked)])
        try:
            return find_dataset(read_json(path), name)
        except ManifestError as error:
            raise DataError(
                f"{path}: {error}; choose another --variant, or delete that file if it is stale"
            ) from error

    def bring(self, label: str, wanted: list[Wanted]) -> None:
        """Fetch those of the files that are not here already, several at a time, in order."""
        missing = [file for file in wanted if not self._is_here(file)]
        if not missing:
            return
        say(f"{label}: fetching {len(missing)} of {len(wanted)} files from {self._hub.repository}")
        with progress(label, sum(file.size for file in missing)) as advance:
            self._fetch_all(missing, advance)

    def _fetch_all(self, missing: list[Wanted], advance: Callable[[int], None]) -> None:
        pool = ThreadPoolExecutor(self._workers)
        futures = [pool.submit(self._fetch, file, advance) for file in missing]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            if not all(future.done() for future in futures):
                self._hub.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            wait(futures, timeout=SECONDS_TO_STOP)
        ended = [future for future in futures if future.done() and not future.cancelled()]
        for future in ended:
            if not isinstance(future.exception(), StoppedError):
                future.result()

    def _fetch(self, file: Wanted, advance: Callable[[int], None]) -> None:
        if not self._hub.stop.is_set():
            self._hub.fetch(file.name, self._folder / file.name, file.check, advance)

    def _is_here(self, file: Wanted) -> bool:
        path = self._folder / file.name
        if path.is_symlink() and not path.exists():
            path.unlink()
        if not path.exists():
            return False
        if not path.is_file():
            raise DataError(f"{path} is not a file; move it away and run again")
        try:
            file.check(path)
        except ShardError as error:
            say(f"{path} is damaged ({error}); fetching it again")
            return False
        return True

    def tokens(self, names: list[str]) -> int:
        """Count the tokens of shards that are here."""
        return sum(count_tokens(self._folder / name) for name in names)


def not_checked(path: Path) -> None:
    """Accept any file: manifests, tokenizers and documents have no header."""


def wanted_shards(dataset: Dataset, split: str, count: int) -> list[Wanted]:
    """List the shards of one split."""
    names = dataset.shards(split, count)
    return [
        Wanted(name, count_tokens, dataset.expected_bytes(split, index))
        for index, name in enumerate(names)
    ]


def download(asked: argparse.Namespace, job: Download) -> None:
    """Fetch everything in the order of the challenge: validation is whole before training."""
    dataset = job.dataset(f"fineweb10B_{asked.variant}", asked.skip_manifest)
    available = dataset.files["train"]
    if asked.train_shards > available:
        raise DataError(
            f"{asked.train_shards} train shards asked, {dataset.name} has {available};"
            f" give --train-shards {available} or fewer"
        )
    if asked.with_docs:
        job.bring("documents", [Wanted(name, not_checked) for name in DOCS])
    job.bring("validation", wanted_shards(dataset, "val", dataset.files["val"]))
    val_tokens = refuse_partial_validation(dataset, job)
    job.bring("training", wanted_shards(dataset, "train", asked.train_shards))
    job.bring("tokenizer", [Wanted(name, not_checked) for name in dataset.tokenizer_files])
    train_tokens = job.tokens(dataset.shards("train", asked.train_shards))
    say(
        f"ready: {dataset.name}, {asked.train_shards} train shards of {train_tokens} tokens,"
        f" {dataset.files['val']} validation shards of {val_tokens} tokens"
    )


def refuse_partial_validation(dataset: Dataset, job: Download) -> int:
    """Return the validation tokens; DataError unless they are as many as the manifest says."""
    found = job.tokens(dataset.shards("val", dataset.files["val"]))
    expected = dataset.tokens["val"]
    if expected and found != expected:
        raise DataError(
            f"validation of {dataset.name} has {found} tokens, its manifest says {expected};"
            f" delete datasets/{dataset.name} and {MANIFEST} from the data folder and run again"
        )
    return found


def main() -> None:
    """Download what the command line asks for."""
    asked = parse_arguments()
    refuse_bad_values(asked)
    hub = Hub(
        os.environ.get("MATCHED_FINEWEB_REPO_ID", REPOSITORY),
        os.environ.get("MATCHED_FINEWEB_REMOTE_ROOT_PREFIX", ROOT).strip("/"),
    )
    folder = asked.data_dir.resolve()
    with alone(folder / "datasets" / ".download.lock"):
        download(asked, Download(hub, folder, asked.workers))


if __name__ == "__main__":
    code = run(main)
    sys.stdout.flush()
    if code == INTERRUPTED:
        os._exit(code)  # a stalled transfer must not hold up the one who pressed Ctrl-C
    raise SystemExit(code)
