"""The real `codex exec` and `claude -p` as the agent, against a server on this machine.

Only where they are asked for: AUTORESEARCH_TEST_CODEX=/path/to/codex
AUTORESEARCH_TEST_CLAUDE=/path/to/claude pytest tests/ideas/test_real_agents.py
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import autoresearch
from autoresearch import Verdict
from autoresearch.ideas.agent import PRESETS
from autoresearch.testing import make_project

CODEX = os.environ.get("AUTORESEARCH_TEST_CODEX", "")
CLAUDE = os.environ.get("AUTORESEARCH_TEST_CLAUDE", "")
SCRIPT = 'WIDTH = 4\nprint(f"score: {1.0 + 0.01 * (WIDTH - 7) ** 2:.6f}")\n'
SAID = {"direction": "width", "description": "wider", "hypothesis": "wider is better", "cites": [0]}
TEXT = f"I made it wider.\n{json.dumps(SAID)}"


def of_codex(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The stream of a Responses interface: first a command that edits the script, then words."""
    done = any(str(item.get("type", "")).endswith("call_output") for item in body["input"])
    words = {
        "type": "message",
        "id": "m1",
        "role": "assistant",
        "content": [{"type": "output_text", "text": TEXT}],
    }
    command = {
        "type": "function_call",
        "id": "f1",
        "call_id": "c1",
        "name": "exec_command",
        "arguments": json.dumps({"cmd": "sed -i 's/WIDTH = 4/WIDTH = 6/' train.py"}),
    }
    usage = {"input_tokens": 1000, "output_tokens": 20, "total_tokens": 1020}
    item = words if done else command
    return [
        {"type": "response.created", "response": {"id": "r1"}},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"id": "r1", "usage": usage}},
    ]


TOOLS: tuple[tuple[str, dict[str, str]], ...] = (
    ("Read", {"file_path": "train.py"}),
    ("Edit", {"file_path": "train.py", "old_string": "WIDTH = 4", "new_string": "WIDTH = 6"}),
)


def of_claude(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The stream of a Messages interface: the script is read, then edited, then words."""
    told = [part for item in body["messages"] for part in item["content"] if isinstance(part, dict)]
    done = sum(part.get("type") == "tool_result" for part in told)
    block: dict[str, Any] = {"type": "text", "text": ""}
    delta = {"type": "text_delta", "text": TEXT}
    if done < len(TOOLS):
        name, given = TOOLS[done]
        block = {"type": "tool_use", "id": f"toolu_{done}", "name": name, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(given)}
    usage = {"input_tokens": 1000, "output_tokens": 20}
    message = {"id": "m1", "type": "message", "role": "assistant", "content": [], "usage": usage}
    reason = "tool_use" if done < len(TOOLS) else "end_turn"
    return [
        {"type": "message_start", "message": {**message, "model": body["model"]}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage},
        {"type": "message_stop"},
    ]


class Model(BaseHTTPRequestHandler):
    """Answers as a model that makes the script wider would."""

    asked: list[str]

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["content-length"])).decode()
        self.asked.append(text)
        stream = (of_claude if "/messages" in self.path else of_codex)(json.loads(text))
        lines = (f"event: {item['type']}\ndata: {json.dumps(item)}\n\n" for item in stream)
        answer = "".join(lines).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def address() -> Iterator[str]:
    """The address of the model."""
    Model.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def home() -> Iterator[Path]:
    """A home for the agent; not in /tmp, which codex's own sandbox covers with its helper."""
    with tempfile.TemporaryDirectory(prefix=".agent-test-", dir=Path.home()) as folder:
        yield Path(folder)


def does_an_experiment(project: Path, program: str, kind: str, **table: Any) -> None:
    """Let an agent propose once: its change is run and kept, and its tokens are counted."""
    overrides = {
        "active": ["agent", "no:script_ideas"],
        "boundary.kind": kind,
        "boundary.reads": [str(Path(program).resolve().parents[2])],
        "plugins.agent.timeout_seconds": 240.0,
        **{f"plugins.agent.{name}": value for name, value in table.items()},
    }
    campaign = autoresearch.start(project, tag="t1", overrides=overrides)
    reason = campaign.run(2, wait=False)
    assert len(campaign.history.experiments) == 2, (reason, Model.asked[-1:])
    experiment = campaign.history.experiments[1]
    assert (experiment.idea.description, experiment.verdict) == ("wider", Verdict.KEEP)
    assert campaign.history.spent.tokens == len(Model.asked) * 1020
    assert "autonomous research loop" in Model.asked[0]


@pytest.mark.skipif(not CODEX, reason="AUTORESEARCH_TEST_CODEX names no codex")
@pytest.mark.parametrize("kind", ["none", "auto"])
def test_codex_does_an_experiment(
    tmp_path: Path, home: Path, address: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It reads its task, changes the script with its own tools, and its change is run and kept."""
    monkeypatch.setenv("CODEX_HOME", str(home))
    monkeypatch.setenv("LOCAL_KEY", "none")
    provider = f'{{name="local",base_url="{address}/v1",wire_api="responses",env_key="LOCAL_KEY"}}'
    command = [
        *(CODEX, "exec", "--json", "--skip-git-repo-check", "--sandbox", "{sandbox}"),
        *("-m", "test", "-c", 'model_provider="local"', "-c", f"model_providers.local={provider}"),
        "-",
    ]
    project, passed = make_project(tmp_path / "p", script=SCRIPT), ["CODEX_HOME", "LOCAL_KEY"]
    does_an_experiment(project, CODEX, kind, command=command, pass_env=passed, writes=[str(home)])


@pytest.mark.skipif(not CLAUDE, reason="AUTORESEARCH_TEST_CLAUDE names no claude")
@pytest.mark.parametrize("kind", ["none", "auto"])
def test_claude_does_an_experiment(
    tmp_path: Path, home: Path, address: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The same with the words of its preset; the dollars that it tells count too."""
    known = {
        "ANTHROPIC_BASE_URL": address,
        "ANTHROPIC_API_KEY": "none",
        "CLAUDE_CONFIG_DIR": str(home),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    project, command = make_project(tmp_path / "p", script=SCRIPT), PRESETS["claude"][0]
    does_an_experiment(
        project,
        CLAUDE,
        kind,
        command=[CLAUDE, *command[1:]],
        pass_env=list(known),
        writes=[str(home)],
    )
    assert len(Model.asked) == 3
