"""The real `codex exec` as the agent, against a server on this machine; only where it is asked for.

AUTORESEARCH_TEST_CODEX=/path/to/codex pytest tests/ideas/test_real_codex.py
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
from autoresearch.testing import make_project

CODEX = os.environ.get("AUTORESEARCH_TEST_CODEX", "")
pytestmark = pytest.mark.skipif(not CODEX, reason="AUTORESEARCH_TEST_CODEX names no codex")
SCRIPT = 'WIDTH = 4\nprint(f"score: {1.0 + 0.01 * (WIDTH - 7) ** 2:.6f}")\n'
SAID = {"direction": "width", "description": "wider", "hypothesis": "wider is better", "cites": [0]}


class Model(BaseHTTPRequestHandler):
    """Answers the first request with a command that edits the script, the second with words."""

    asked: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(body)
        done = any(str(item.get("type", "")).endswith("call_output") for item in body["input"])
        text = f"I made it wider.\n{json.dumps(SAID)}"
        words = {
            "type": "message",
            "id": "m1",
            "role": "assistant",
            "content": [{"type": "output_text", "text": text}],
        }
        command = {
            "type": "function_call",
            "id": "f1",
            "call_id": "c1",
            "name": "exec_command",
            "arguments": json.dumps({"cmd": "sed -i 's/WIDTH = 4/WIDTH = 6/' train.py"}),
        }
        usage = {"input_tokens": 1000, "output_tokens": 20, "total_tokens": 1020}
        stream = [
            {"type": "response.created", "response": {"id": "r1"}},
            {
                "type": "response.output_item.done",
                "output_index": 0,
                "item": words if done else command,
            },
            {"type": "response.completed", "response": {"id": "r1", "usage": usage}},
        ]
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
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def home() -> Iterator[Path]:
    """A home for codex; not in /tmp, which its own sandbox covers together with its helper."""
    with tempfile.TemporaryDirectory(prefix=".codex-test-", dir=Path.home()) as folder:
        yield Path(folder)


@pytest.mark.parametrize("kind", ["none", "auto"])
def test_codex_does_an_experiment(
    tmp_path: Path, home: Path, address: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It reads its task, changes the script with its own tools, and its change is run and kept."""
    monkeypatch.setenv("CODEX_HOME", str(home))
    monkeypatch.setenv("LOCAL_KEY", "none")
    project = make_project(tmp_path / "project", script=SCRIPT)
    provider = f'{{name="local",base_url="{address}",wire_api="responses",env_key="LOCAL_KEY"}}'
    command = [
        *(CODEX, "exec", "--json", "--skip-git-repo-check", "--sandbox", "{sandbox}"),
        *("-m", "test", "-c", 'model_provider="local"', "-c", f"model_providers.local={provider}"),
        "-",
    ]
    overrides = {
        "active": ["agent", "no:script_ideas"],
        "boundary.kind": kind,
        "boundary.reads": [str(Path(CODEX).resolve().parents[2])],
        "plugins.agent.command": command,
        "plugins.agent.pass_env": ["CODEX_HOME", "LOCAL_KEY"],
        "plugins.agent.writes": [str(home)],
        "plugins.agent.timeout_seconds": 120.0,
    }
    campaign = autoresearch.start(project, tag="t1", overrides=overrides)
    reason = campaign.run(2, wait=False)
    assert len(campaign.history.experiments) == 2, (reason, Model.asked[-1]["input"][-1])
    experiment = campaign.history.experiments[1]
    assert (experiment.idea.description, experiment.verdict) == ("wider", Verdict.KEEP)
    assert campaign.history.spent.tokens == 2 * 1020
    assert "autonomous research loop" in json.dumps(Model.asked[0]["input"])
