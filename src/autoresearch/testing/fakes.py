"""What stands in for others in tests: ideas by script, runs without processes, a model's server."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from attrs import field, frozen

from autoresearch.history import History
from autoresearch.hookspecs import hookimpl
from autoresearch.ideas.script import is_new
from autoresearch.log import Recorded
from autoresearch.model import (
    Analysis,
    Candidate,
    Decision,
    Experiment,
    Idea,
    Notice,
    RunHandle,
    RunOutput,
    RunRequest,
    RunStatus,
    Verdict,
)

Scripted = Idea | Callable[[str], Idea]


class ScriptedIdeas:
    """An idea generator that proposes a given list in its order, each idea once.

    An item may be a function from the script at head to an idea, see :func:`set_constant`. What
    was proposed is read from the History, so a resumed campaign goes on where it was.
    """

    def __init__(self, ideas: Iterable[Scripted]) -> None:
        self.ideas: tuple[Scripted, ...] = tuple(ideas)

    @hookimpl
    def propose_idea(self, history: History, source: str) -> Idea | None:
        """Return the first idea that was neither tried nor dropped."""
        for item in self.ideas:
            idea = item if isinstance(item, Idea) else item(source)
            if is_new(history, idea.id):
                return idea
        return None


def set_constant(name: str, value: object, **fields: str) -> Callable[[str], Idea]:
    """Return a scripted idea that rewrites the line ``name = ...`` of the script at head."""

    def propose(source: str) -> Idea:
        lines = source.splitlines(keepends=True)
        changed = [
            f"{name} = {value!r}\n" if line.startswith(f"{name} = ") else line for line in lines
        ]
        given: dict[str, Any] = {
            "direction": name.lower(),
            "description": f"{name} = {value!r}",
            "hypothesis": f"{name} = {value!r} scores better",
        }
        return Idea(source="".join(changed), **{**given, **fields})

    return propose


@frozen
class FakeRun:
    """A run that is over as soon as it was started; all of it stands in its folder."""

    name: str
    log_path: Path
    reference: str = "fake"

    def poll(self) -> RunOutput | None:
        """Return what the launcher wrote down."""
        kept = json.loads((self.log_path.parent / "fake.json").read_text())
        return RunOutput(
            name=self.name, log_path=self.log_path, folder=self.log_path.parent, **kept
        )

    def stop(self, reason: str) -> None:
        """Do nothing: the run is over."""


class FakeLauncher:
    """A launcher in this process: ``FakeLauncher([1.10, 1.08, None])`` gives experiment 1 1.08.

    A number is printed as ``metric: number``, text is the whole log, None is a crash; experiments
    beyond the list repeat the last. It answers to ``launcher = "fake"``; ``started`` lists the
    runs that it really started.
    """

    def __init__(self, results: Sequence[float | str | None], metric: str = "score") -> None:
        self.results: tuple[float | str | None, ...] = tuple(results)
        self.metric: str = metric
        self.started: list[str] = []

    @hookimpl
    def launch_run(self, request: RunRequest) -> RunHandle | None:
        """Write the run's log, once for every name."""
        if request.launcher != "fake":
            return None
        handle = FakeRun(request.name, request.folder / "run.log")
        if not handle.log_path.exists():
            self.started.append(request.name)
            self._write(request)
        return handle

    def _write(self, request: RunRequest) -> None:
        result = self.results[min(request.experiment, len(self.results) - 1)]
        log = result if isinstance(result, str) else f"{self.metric}: {result}\n"
        status, code = (RunStatus.COMPLETED, 0)
        if result is None:
            log, status, code = "ZeroDivisionError: division by zero\n", RunStatus.CRASHED, 1
        request.folder.mkdir(parents=True, exist_ok=True)
        kept = {"status": status.value, "exit_code": code, "seconds": 1.0}
        (request.folder / "fake.json").write_text(json.dumps(kept))
        (request.folder / "run.log").write_text(log)


@frozen
class RecordingObserver:
    """An observer that remembers: ``events`` and ``notices`` are lists in their order."""

    events: list[Recorded] = field(factory=list)
    notices: list[Notice] = field(factory=list)

    @hookimpl
    def event_recorded(self, event: Recorded) -> None:
        """Remember an event."""
        self.events.append(event)

    @hookimpl
    def notify(self, notice: Notice) -> None:
        """Remember a notice."""
        self.notices.append(notice)

    @property
    def types(self) -> tuple[str, ...]:
        """The type names of what was seen, in order."""
        return tuple(event.type for event in self.events)


class KeepBetter:
    """The smallest decision policy: what scores better than the best is kept."""

    @hookimpl
    def decide(self, candidate: Candidate, history: History) -> Decision:
        """Compare with the best kept score."""
        best = history.best_metric
        if candidate.metric is None:
            return Decision(verdict=Verdict.CRASH, reason="no score")
        if best is None or history.better(candidate.metric, best):
            return Decision(verdict=Verdict.KEEP, reason=f"better than {best}")
        return Decision(verdict=Verdict.DISCARD, reason=f"not better than {best}")


class PlainAnalysis:
    """The smallest analysis: it says what the run gave."""

    @hookimpl
    def analyze_run(self, experiment: Experiment) -> Analysis:
        """Fill the four lines."""
        return Analysis(
            result=f"metrics {dict(experiment.metrics)}",
            versus_expected="not predicted",
            why="this fake does not think",
            lesson=f"{experiment.idea.direction} was tried",
        )


class FixedMetrics:
    """A metric extractor that gives the same numbers for every completed run."""

    def __init__(self, metrics: Mapping[str, float]) -> None:
        self.metrics: dict[str, float] = dict(metrics)

    @hookimpl
    def extract_metrics(self, output: RunOutput) -> Mapping[str, float] | None:
        """Return the numbers, none for a run that did not complete."""
        return self.metrics if output.status is RunStatus.COMPLETED else None


class ScriptedSource:
    """An implementer that turns every idea without code into one given source."""

    def __init__(self, source: str) -> None:
        self.source: str = source

    @hookimpl
    def implement_idea(self) -> str:
        """Return the source."""
        return self.source


# --- a real HTTP server on this machine that speaks as OpenAI's does --------------------------


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


@frozen
class Raw:
    """A body as it is: text, or a value that is sent as JSON; ``cut`` ends it after so many bytes.

    A ``cut`` of 0 closes the connection without a word.
    """

    body: Any
    status: int = 200
    kind: str = "application/json"
    headers: Mapping[str, str] = field(factory=dict)
    cut: int | None = None


Answer = str | ApiError | Slow | Raw


class LoopbackOpenAI:
    """Gives scripted answers to chat completions and to the Responses interface, in their order.

    The last answer is repeated. ``requests`` holds the JSON bodies that came in, ``paths`` where
    to and ``headers`` with what. Use it as a context manager; ``api_key`` is what it wants to be
    given. ``refuses`` are fields of a request, such as ``response_format``, that it answers with
    status 400.
    """

    api_key: str = "sk-loopback"

    def __init__(
        self, answers: Iterable[Answer], model: str = "loopback", refuses: Iterable[str] = ()
    ) -> None:
        self.answers: list[Answer] = list(answers)
        self.model: str = model
        self.refuses: tuple[str, ...] = tuple(refuses)
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self._answered = 0
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

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, body: dict[str, Any], path: str = "", headers: Any = None) -> Answer:
        """Remember a request and return its answer."""
        with self._lock:
            self.requests.append(body)
            self.paths.append(path)
            self.headers.append({k.lower(): v for k, v in (headers or {}).items()})
            for name in self.refuses:
                if _has(body, name):
                    return ApiError(400, f"Unsupported parameter: {name!r} is not supported")
            self._answered += 1
            index = min(self._answered, len(self.answers)) - 1
            return self.answers[index] if self.answers else ApiError(500, "no answer is scripted")

    def completion(self, text: str, path: str = "") -> dict[str, Any]:
        """Return an answer as the interface of a path gives it; tokens are counted as words."""
        body = self.requests[-1]
        prompt = json.dumps(body.get("messages") or body.get("input") or [])
        read, written = len(prompt.split()), len(text.split())
        name = f"answer-{len(self.requests)}"
        if path.partition("?")[0].endswith("/responses"):
            content = [{"type": "output_text", "text": text, "annotations": []}]
            message = {"type": "message", "role": "assistant", "content": content}
            used = {"input_tokens": read, "output_tokens": written}
            return {
                "id": name,
                "object": "response",
                "status": "completed",
                "model": self.model,
                "output": [{"type": "reasoning", "summary": []}, message],
                "usage": {**used, "input_tokens_details": {"cached_tokens": 0}},
            }
        message = {"role": "assistant", "content": text}
        return {
            "id": name,
            "object": "chat.completion",
            "created": 1_767_225_600,
            "model": self.model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": read,
                "completion_tokens": written,
                "total_tokens": read + written,
            },
        }


def _has(body: Any, name: str) -> bool:
    """Whether a field, or a value that is a word, occurs anywhere in a request but its messages."""
    if isinstance(body, dict):
        return any(
            key == name or (key not in ("messages", "input") and _has(value, name))
            for key, value in body.items()
        )
    return bool(body == name) if isinstance(body, str) else False


def _handler(owner: LoopbackOpenAI) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length) or b"{}")
            path = self.path.partition("?")[0]
            if not path.endswith(("/chat/completions", "/responses")):
                self._send(404, _error(f"no such path: {self.path}"))
                return
            if self.headers.get("Authorization") != f"Bearer {owner.api_key}":
                self._send(401, _error("wrong api key"))
                return
            self._answer(owner.take(body, self.path, self.headers))

        def _answer(self, answer: Answer) -> None:
            if isinstance(answer, ApiError):
                self._send(answer.status, _error(answer.message), answer.retry_after)
                return
            if isinstance(answer, Raw):
                self._send_raw(answer)
                return
            if isinstance(answer, Slow):
                time.sleep(answer.seconds)
                answer = answer.text
            self._send(200, owner.completion(answer, self.path))

        def _send(
            self, status: int, content: dict[str, Any], retry_after: float | None = None
        ) -> None:
            told = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
            name = f"req-{len(owner.requests)}"
            self._send_raw(Raw(content, status, headers={"x-request-id": name, **told}))

        def _send_raw(self, raw: Raw) -> None:
            text = raw.body if isinstance(raw.body, str) else json.dumps(raw.body)
            data = text.encode("utf-8", "surrogatepass")
            if raw.cut == 0:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(raw.status)
            self.send_header("Content-Type", raw.kind)
            self.send_header("Content-Length", str(len(data)))
            for name, value in raw.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data[: raw.cut])
            if raw.cut is not None:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Keep the terminal quiet; ``requests`` tells what happened."""

    return Handler


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "test_error", "param": None, "code": None}}
