"""A real HTTP server on this machine that speaks chat completions, for tests of language models."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from attrs import frozen


@frozen
class ApiError:
    """An answer with an HTTP error status."""

    status: int
    message: str = "a test says so"
    retry_after: float | None = None


@frozen
class Slow:
    """An answer that comes after ``seconds``."""

    seconds: float
    text: str


Answer = str | ApiError | Slow


class LoopbackOpenAI:
    """Gives scripted answers to ``POST {base_url}/chat/completions`` in their order.

    The last answer is repeated. ``requests`` holds the JSON bodies that came in. Use it as a
    context manager; ``api_key`` is what it wants to be given.
    """

    api_key: str = "sk-loopback"

    def __init__(self, answers: Iterable[Answer], model: str = "loopback") -> None:
        self.answers: list[Answer] = list(answers)
        self.model: str = model
        self.requests: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def base_url(self) -> str:
        """What a client takes as ``base_url``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, body: dict[str, Any]) -> Answer:
        """Remember a request and return its answer."""
        with self._lock:
            self.requests.append(body)
            index = min(len(self.requests), len(self.answers)) - 1
            return self.answers[index] if self.answers else ApiError(500, "no answer is scripted")

    def completion(self, text: str) -> dict[str, Any]:
        """Return a chat completion; tokens are counted as words."""
        prompt = json.dumps(self.requests[-1].get("messages", []))
        used = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(text.split())}
        message = {"role": "assistant", "content": text}
        return {
            "id": f"chatcmpl-{len(self.requests)}",
            "object": "chat.completion",
            "created": 1_767_225_600,
            "model": self.model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {**used, "total_tokens": sum(used.values())},
        }


def _handler(owner: LoopbackOpenAI) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length) or b"{}")
            if not self.path.endswith("/chat/completions"):
                self._send(404, _error(f"no such path: {self.path}"))
                return
            if self.headers.get("Authorization") != f"Bearer {owner.api_key}":
                self._send(401, _error("wrong api key"))
                return
            self._answer(owner.take(body))

        def _answer(self, answer: Answer) -> None:
            if isinstance(answer, ApiError):
                self._send(answer.status, _error(answer.message), answer.retry_after)
                return
            if isinstance(answer, Slow):
                time.sleep(answer.seconds)
                answer = answer.text
            self._send(200, owner.completion(answer))

        def _send(
            self, status: int, content: dict[str, Any], retry_after: float | None = None
        ) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if retry_after is not None:
                self.send_header("Retry-After", f"{retry_after:g}")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the terminal quiet; ``requests`` tells what happened."""

    return Handler


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "test_error", "param": None, "code": None}}
