"""A model's server that misbehaves in every way that was thought of, under a campaign that goes on.

In each case the mind is asked first and a generator without a model stands behind it. What must
hold: the failure is told in one line and stands in the log and in ``status``, an idea that is
refused costs three answers at the most, the key is told to nobody, and the experiments are done.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from click.testing import CliRunner
from facts import facts
from thinned import thinned

import autoresearch
from autoresearch import Campaign, Change, Violation, events, hookimpl
from autoresearch.cli import cli
from autoresearch.testing import ApiError, LoopbackOpenAI, Raw, Slow, make_project

pytestmark = pytest.mark.skipif(find_spec("openai") is None, reason="needs the extra openai")

SCRIPT = """import os
RATE = float(os.environ.get("RATE", "0.5"))
WIDTH = 4
print(f"score: {1.0 + 0.01 * (WIDTH - 7) ** 2 + abs(RATE - 0.3):.6f}")
"""
KEY = LoopbackOpenAI.api_key


def idea(**changes: Any) -> str:
    """A good answer with some fields replaced; the change is new for the first experiment."""
    told = {
        "direction": "rate",
        "description": "a smaller rate",
        "hypothesis": "experiment 0 used 0.5, which is far from the best",
        "evidence": [],
        "cites": [0],
        "risk": "slow",
        "challenge": None,
        "predicted": 1.1,
        "expected_gain": 0.1,
        "edits": [{"file": None, "search": '"RATE", "0.5"', "replace": '"RATE", "0.4"'}],
        "source": None,
        "env": [],
        **changes,
    }
    return json.dumps(told)


def edit(search: str, replace: str, file: str | None = None) -> str:
    """An answer with one edit."""
    return idea(edits=[{"file": file, "search": search, "replace": replace}])


def body(content: Any, reason: str = "stop", **message: Any) -> Raw:
    """A chat completion with odd parts."""
    told = {"role": "assistant", "content": content, **message}
    choice = {"index": 0, "finish_reason": reason, "message": told}
    used = {"prompt_tokens": 11, "completion_tokens": 7}
    return Raw({"id": "x", "model": "m", "choices": [choice], "usage": used})


@frozen
class Case:
    """``answer`` is repeated; ``told`` stands in the log; ``calls`` are paid at the most."""

    answer: Any
    told: str
    calls: int = 3


# What no server answers to: the mind rests or is suspended, and is asked once.
SILENT = {
    "400": Case(ApiError(400, f"bad {KEY}"), "BadRequestError", 5),
    "401": Case(ApiError(401), "AuthenticationError", 1),
    "402, no credit": Case(ApiError(402), "APIStatusError", 1),
    "403": Case(ApiError(403), "PermissionDeniedError", 1),
    "404, no such model": Case(ApiError(404, "no model m"), "NotFoundError", 1),
    "408": Case(ApiError(408), "APIStatusError", 1),
    "409": Case(ApiError(409), "ConflictError", 1),
    "413": Case(ApiError(413), "APIStatusError", 1),
    "418": Case(ApiError(418), "APIStatusError", 1),
    "422": Case(ApiError(422), "UnprocessableEntityError", 5),
    "429": Case(ApiError(429), "RateLimitError", 1),
    "429, out of quota": Case(ApiError(429, "insufficient_quota"), "insufficient_quota", 1),
    "500": Case(ApiError(500), "InternalServerError", 1),
    "503": Case(ApiError(503, "two\nlines"), "two lines", 1),
    "a prompt that is too long": Case(ApiError(400, "maximum context length"), "context", 1),
    "400, no valid key, told as a list": Case(
        Raw([{"error": {"message": "API key not valid"}}], status=400), "API key not valid", 5
    ),
    "a page of a proxy": Case(Raw("<html>busy</html>", kind="text/html"), "gave no answer", 1),
    "half a body": Case(Raw({"a": "x" * 999}, cut=50), "gave no answer", 1),
    "a closed connection": Case(Raw("", cut=0), "APIConnectionError", 1),
    "a body that is no JSON": Case(Raw("{nope"), "gave no answer", 1),
    "an empty body": Case(Raw(""), "gave no answer", 1),
    "a body without end": Case(Raw(json.dumps("x" * 5_000_000)), "characters", 1),
    "brackets without end": Case(Raw("[" * 100_000), "gave no answer", 1),
    "a router's error, sent as a success": Case(
        Raw({"error": {"message": "Provider returned error", "code": 429}}), "error 429: Provid", 1
    ),
    "an error in a choice": Case(
        Raw({"choices": [{"message": {"content": ""}, "error": {"message": "upstream"}}]}),
        "upstream",
        1,
    ),
    "a wrong path, sent as a success": Case(Raw({"error": "Unexpected endpoint"}), "endpoint", 1),
    "no answer in time": Case(Slow(1.0, idea()), "APITimeoutError", 1),
}

# What answers, and unusably: it goes back with the reason, and then the next author has the turn.
REFUSED = {
    "null": Case(Raw(None), "no choices"),
    "a word": Case(Raw('"hello"'), "no choices"),
    "a list": Case(Raw([1, 2]), "no choices"),
    "no choices": Case(Raw({"choices": []}), "no choices"),
    "choices that are a word": Case(Raw({"choices": "none"}), "no choices"),
    "a choice without a message": Case(Raw({"choices": [{}]}), "empty"),
    "nothing": Case(body(None), "empty"),
    "blanks": Case(body(" \n"), "empty"),
    "a tool call": Case(body(None, "tool_calls", tool_calls=[]), "empty"),
    "cut off": Case(body(idea(), "length"), "ended early (length)"),
    "filtered": Case(body(None, "content_filter"), "content_filter"),
    "a refusal": Case(body(None, refusal="I would\nrather not"), "refused: I would rather not"),
    "junk": Case("junk", "not JSON"),
    "an answer cut in its middle": Case(idea()[:90], "not JSON"),
    "a number that is none": Case(idea(predicted=1).replace("1,", "NaN,", 1), "NaN"),
    "an enormous number": Case(idea(predicted=1e15), "out of range"),
    "an answer of a megabyte": Case('{"edits": "' + "x" * 1_100_000 + '"}', "give at most"),
    "brackets": Case("{" * 50_000, "not JSON"),
    "no direction": Case(idea(direction=" "), "give a sentence"),
    "words that are a list": Case(idea(hypothesis=["x"]), "give a sentence"),
    "an invented citation": Case(idea(cites=[99]), "cites experiment 99"),
    "a citation that is text": Case(idea(cites="0"), "cites is"),
    "no change": Case(idea(edits=[]), "no change"),
    "two kinds of change": Case(idea(source="x = 1"), "edits and source"),
    "a passage that is not there": Case(edit("RATE = 0.7", "x"), "occurs 0 times"),
    "a passage that is there twice": Case(edit("RATE", "x"), "times in train.py"),
    "an empty passage": Case(edit("", "x"), "is empty"),
    "another file": Case(edit("a", "b", "../../etc/passwd"), "may not be changed"),
    "an edit that changes nothing": Case(edit("WIDTH = 4", "WIDTH = 4"), "change something"),
    "an edit of a comment": Case(edit("WIDTH = 4", "WIDTH = 4  # four"), "comments aside"),
    "a script that does not compile": Case(edit("WIDTH = 4", "WIDTH = ("), "does not compile"),
    "prose for a script": Case(
        idea(edits=[], source="Rest of the code unchanged"), "does not compile"
    ),
    "a variable that is not read": Case(
        idea(edits=[], env=[{"name": "WIDTHX", "value": "8"}]), "reads no variable"
    ),
    "a variable that loads code": Case(
        idea(edits=[], env=[{"name": "LD_PRELOAD", "value": "x.so"}]), "reads no variable"
    ),
    "an edit without replacement": Case(idea(edits=[{"search": "WIDTH"}]), "lacks search"),
    "what an audit forbids": Case(edit("print(", "print('forbidden') or print("), "too_loud"),
}


class Loud:
    """An audit that refuses one word."""

    @hookimpl
    def audit_change(self, change: Change) -> list[Violation]:
        loud = "forbidden" in change.after
        return [Violation(rule="too_loud", detail="it prints what it must not")] if loud else []


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose script prints its score at once."""
    monkeypatch.setenv("TEST_KEY", KEY)
    return make_project(tmp_path / "project", script=SCRIPT)


Run = Callable[..., tuple[Campaign, list[str], LoopbackOpenAI]]


@pytest.fixture
def run(project: Path) -> Run:
    """Run three experiments against a server that repeats one answer."""

    def go(answers: list[Any], experiments: int = 3, refuses: tuple[str, ...] = (), **told: Any):
        lines: list[str] = []
        table = {"api_key_env": "TEST_KEY", "retries": 0, "timeout_seconds": 0.5, **told}
        with LoopbackOpenAI(answers, refuses=refuses) as server:
            settings = {"plugins": {"openai": {"base_url": server.base_url, **table}}}
            plugins = (Loud(), "openai")
            made = autoresearch.start(project, tag="t1", plugins=plugins, overrides=settings)
            made.run(experiments, plugins=plugins, wait=False, tell=lines.append)
        return made, lines, server

    return go


def everything(campaign: Campaign) -> str:
    """Whatever the store holds in text."""
    folder = campaign.project / ".autoresearch"
    texts = [path for path in folder.rglob("*") if path.suffix in (".jsonl", ".md", ".tsv")]
    stored = list((folder / "sources").iterdir())
    return "".join(path.read_text(errors="replace") for path in (*texts, *stored))


@pytest.mark.parametrize("name", thinned(SILENT, 6))
def test_a_server_that_gives_no_answer(name: str, run: Run, project: Path) -> None:
    """The mind rests or is suspended, which is told, and the next author does the research."""
    case = SILENT[name]
    made, lines, server = run([case.answer], experiments=2)
    assert len(made.history.decided) == 2
    assert len(server.requests) <= case.calls
    (rested, *_) = facts(made, events.MindSuspended)
    assert case.told in rested.reason
    assert rested.permanent is (
        name[:3] in ("401", "402", "403", "404") or "quota" in name or "valid key" in name
    )
    assert any("openai" in line and case.told in line for line in lines)
    shown = CliRunner().invoke(cli, ["status", "--project", str(project)]).output
    assert "minds:" in shown
    assert "suspended until" in shown or "openai rests" in shown
    assert KEY not in everything(made) + "".join(lines) + shown


@pytest.mark.parametrize("name", thinned(REFUSED, 6))
def test_an_answer_that_cannot_be_used(name: str, run: Run, project: Path) -> None:
    """It goes back with the reason, costs three answers at the most, and starves nobody."""
    case = REFUSED[name]
    made, lines, server = run([case.answer], experiments=2)
    assert len(made.history.decided) == 2
    assert 1 < len(server.requests) <= case.calls
    refused = facts(made, events.ProposalRefused)
    assert any(case.told in item.reason for item in refused)
    assert len(facts(made, events.MindAnswered)) == len(server.requests)
    assert any(case.told in line for line in lines)
    messages = server.requests[-1]["messages"]
    assert messages[:3] == server.requests[0]["messages"]
    assert any(case.told in item["content"] for item in messages[3:] if item["role"] == "user")
    assert made.history.experiments[1].idea.author == "script_ideas"


GOOD = {
    "thought aloud": f'<think>{{"edits": 1}} hm</think>\n{idea()}',
    "a fence in capitals": f"```JSON\n{idea()}\n```",
    "prose around": f"Here it is:\n{idea()}\nI hope this helps {{you}}.",
    "two answers": f"{idea(direction='first')}\n{idea()}",
    "parts": body([{"type": "text", "text": idea()}]),
}


@pytest.mark.parametrize("name", GOOD)
def test_an_answer_in_odd_clothes_is_used(name: str, run: Run) -> None:
    """Thoughts, fences and prose cost nothing."""
    made, _, server = run([GOOD[name]], experiments=2)
    assert made.history.experiments[1].idea.author == "openai"
    assert made.history.experiments[1].idea.direction == "rate"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "refuses",
    [
        ("json_schema",),
        ("json_schema", "json_object"),
        ("max_tokens",),
        ("max_tokens", "max_completion_tokens"),
        ("temperature",),
        ("reasoning_effort",),
    ],
    ids=" and ".join,
)
def test_what_a_server_refuses_is_left_out(run: Run, refuses: tuple[str, ...]) -> None:
    """The next request is another one, and the one after that starts where it ended."""
    chosen = {"temperature": 0.5, "reasoning_effort": "low"}
    second = edit("WIDTH = 4", "WIDTH = 6").replace('"rate"', '"width"')
    made, _, server = run([idea(), second], experiments=3, refuses=refuses, **chosen)
    assert [item.idea.author for item in made.history.experiments[1:]] == ["openai", "openai"]
    assert len(server.requests) == 2 + len(refuses)


def test_a_corrected_answer_becomes_the_experiment(run: Run) -> None:
    """The passage that was meant is shown, and the second answer is used."""
    made, _, server = run([edit("RATE = float(os.environ)", "x"), idea()], experiments=2)
    assert made.history.experiments[1].idea.author == "openai"
    said = server.requests[1]["messages"][-1]["content"]
    assert "line 2:\nRATE = float(os.environ.get(" in said


def test_after_an_audit_the_conversation_goes_on(run: Run) -> None:
    """The model hears what the audit found, in the conversation in which it proposed."""
    made, _, server = run([REFUSED["what an audit forbids"].answer, idea()], experiments=2)
    assert made.history.experiments[1].idea.author == "openai"
    first, second = (request["messages"] for request in server.requests)
    assert second[: len(first)] == first
    assert "audit too_loud" in second[-1]["content"]


def test_money_and_prompts_are_recorded(run: Run) -> None:
    """Model, digests, tokens, price and request id of each answer are in the log."""
    prices = {"usd_per_million_in": 1.0, "usd_per_million_out": 10.0}
    made, _, server = run(["junk", idea()], experiments=2, **prices)
    asked, answered = facts(made, events.MindAsked), facts(made, events.MindAnswered)
    assert made.log.sources.get(answered[0].answer) == "junk"
    sent = [item["content"] for item in server.requests[1]["messages"]]
    assert [made.log.sources.get(name) for name in asked[1].prompt] == sent
    assert answered[0].request == "req-1"
    assert answered[0].usd == pytest.approx(
        (answered[0].tokens_in + 10 * answered[0].tokens_out) / 1e6
    )
    assert made.history.spent.usd == pytest.approx(sum(item.usd for item in answered))


def test_several_models_and_one_that_is_gone(run: Run, project: Path) -> None:
    """A model that the server does not have is left out; the other one does the work."""
    second = edit("WIDTH = 4", "WIDTH = 6").replace('"rate"', '"width"')
    made, _, server = run([ApiError(404, "no such model"), idea(), second], models=["a", "b"])
    gone, *rest = (request["model"] for request in server.requests)
    assert set(rest) == {"a", "b"} - {gone}
    assert made.history.experiments[1].idea.author == f"openai/{rest[0]}"
    assert not made.history.suspended


def test_prompts_are_shown_to_the_letter(run: Run, project: Path) -> None:
    """``show N --prompt`` prints what was asked and answered; without a mind it says so."""
    made, _, server = run(["junk", idea()], experiments=2)
    command = ["show", "1", "--prompt", "--project", str(project)]
    shown = CliRunner().invoke(cli, command).output
    assert shown.count("=== ") == 4
    assert "openai asked gpt-5-mini" in shown
    assert "junk" in shown
    told = json.loads(CliRunner().invoke(cli, [*command, "--json"]).output)
    sent = [item["content"] for item in server.requests[1]["messages"]]
    assert told[2]["texts"] == sent
    command[1] = "0"
    assert "no mind was asked" in CliRunner().invoke(cli, command).output
    assert len(made.history.decided) == 2
