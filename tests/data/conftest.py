"""A loopback hub that speaks what the real client needs, and runners for the data scripts."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DATA = Path(__file__).parents[2] / "data"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
MAGIC = 20240520


def shard(tokens: int, *, token: int = 7, magic: int = MAGIC, version: int = 1) -> bytes:
    """Make the bytes of a shard of one repeated token, written independently of the product."""
    header = b"".join(n.to_bytes(4, "little") for n in (magic, version, tokens)).ljust(1024, b"\0")
    return header + token.to_bytes(2, "little") * tokens


def manifest(train: int, val: int = 1, **changed: Any) -> dict[str, Any]:
    """Make a manifest like the published one for tiny shards of 100 tokens."""
    dataset = {
        "name": "fineweb10B_sp1024",
        "tokenizer_name": "sp_bpe_1024",
        "stats": {
            "files_train": train,
            "files_val": val,
            "tokens_train": train * 100,
            "tokens_val": val * 100,
        },
    }
    tokenizer = {
        "name": "sp_bpe_1024",
        "model_path": "tokenizers/fineweb_1024_bpe.model",
        "vocab_path": "tokenizers/fineweb_1024_bpe.vocab",
    }
    whole = {"shard_size": 100, "datasets": [dataset], "tokenizers": [tokenizer]}
    return whole | changed


@dataclass
class Hub:
    """What the loopback server serves, how it misbehaves, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut_once: dict[str, int] = field(default_factory=dict)
    hold: dict[str, threading.Event] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    repository: str = "willdepueoai/parameter-golf"
    gated: bool = False
    url: str = ""

    def publish(self, train: int = 2, val: int = 1) -> None:
        """Publish a whole small export below the default root."""
        self.files["datasets/manifest.json"] = json.dumps(manifest(train, val)).encode()
        for split, count in (("train", train), ("val", val)):
            for index in range(count):
                name = f"fineweb_{split}_{index:06d}.bin"
                content = shard(100, token=ord(split[0]) + index)
                self.files[f"datasets/datasets/fineweb10B_sp1024/{name}"] = content
        for suffix in ("model", "vocab"):
            self.files[f"datasets/tokenizers/fineweb_1024_bpe.{suffix}"] = suffix.encode()

    def transfers(self) -> list[str]:
        """Names of the files whose bytes were asked for, in order."""
        return [path.rsplit("/", 1)[1] for method, path, _ in self.asked if method == "GET"]


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test output clean."""

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            if self.path.startswith("/stored/"):
                self.serve(self.path.removeprefix("/stored/"), with_body)
            elif self.path.startswith(prefix := f"/datasets/{hub.repository}/resolve/main/"):
                self.resolve(self.path.removeprefix(prefix), with_body)
            else:
                self.refuse("RepoNotFound")

        def refuse(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def resolve(self, path: str, with_body: bool) -> None:
            """Answer as the hub does: large files are a redirect to where they are stored."""
            if hub.gated:
                self.refuse("GatedRepo")
            elif path not in hub.files:
                self.refuse("EntryNotFound")
            elif path.endswith(".bin"):
                content = hub.files[path]
                self.send_response(302)
                self.send_header("Location", f"{hub.url}/stored/{path}")
                self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Linked-Size", str(len(content)))
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self.serve(path, with_body)

        def serve(self, path: str, with_body: bool) -> None:
            content = hub.files[path]
            asked = self.headers.get("Range", "")
            hub.asked.append((self.command, path, asked))
            start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
            self.send_response(206 if asked else 200)
            if asked:
                span = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", span)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if with_body:
                self.send_body(path, content[start:])

        def send_body(self, path: str, body: bytes) -> None:
            cut = hub.cut_once.pop(path, None)
            if cut is not None:
                self.wfile.write(body[:cut])
                self.close_connection = True
            elif path in hub.hold:
                self.wfile.write(body[: len(body) // 2])
                hub.hold[path].wait(20)
                self.close_connection = True
            else:
                self.wfile.write(body)

    return Handler


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed breaks its connection; that is what some tests are about."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Serve an empty loopback hub."""
    served = Hub()
    server = _QuietServer(("127.0.0.1", 0), _handler(served))
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield served
    for held in served.hold.values():
        held.set()
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass(frozen=True)
class Scripts:
    """Runs the data scripts as people do, with the hub's client pointed at the loopback hub."""

    folder: Path
    environment: dict[str, str]

    def command(self, script: str, *words: object) -> list[str]:
        return [sys.executable, str(DATA / script), *map(str, words)]

    def run(self, script: str, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(script, *words),
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def download(self, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
        words = ("--data-dir", self.folder / "data", *words)
        return self.run("cached_challenge_fineweb.py", *words, **more)

    def build(self, *words: object) -> subprocess.CompletedProcess[str]:
        words = ("--out", self.folder / "data", *words)
        return self.run("build_local_dataset.py", *words)


def _environment(home: Path, url: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "MATCH"))}
    return kept | {"HF_HOME": str(home), "HF_ENDPOINT": url, "HF_HUB_DISABLE_TELEMETRY": "1"}


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    """Scripts that need no hub."""
    return Scripts(tmp_path, _environment(tmp_path / "hub_cache", "http://127.0.0.1:9"))


@pytest.fixture
def online(tmp_path: Path, hub: Hub) -> Scripts:
    """Scripts that talk to the loopback hub."""
    return Scripts(tmp_path, _environment(tmp_path / "hub_cache", hub.url))


@pytest.fixture
def make_shard() -> Callable[..., bytes]:
    """The maker of shard bytes."""
    return shard


@pytest.fixture
def make_manifest() -> Callable[..., dict[str, Any]]:
    """The maker of manifests."""
    return manifest


@pytest.fixture(scope="session")
def build_into() -> Callable[[Path], subprocess.CompletedProcess[str]]:
    """Run the builder with its defaults into a data folder."""

    def run(folder: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(DATA / "build_local_dataset.py"), "--out", str(folder)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture(scope="session")
def documents() -> Iterator[ModuleType]:
    """The module of documents, imported as the scripts import it: from their own folder."""
    sys.path.insert(0, str(DATA))
    yield importlib.import_module("documents")
    sys.path.remove(str(DATA))
