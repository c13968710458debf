"""The generator that asks language models, against a real server on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import pytest
from attrs import evolve

import autoresearch
from autoresearch.config import Config, LimitsConfig, MetricConfig
from autoresearch.desk import Desk, Hands
from autoresearch.errors import (
    AutoresearchError,
    ConfigError,
    OutageError,
    PluginError,
    SuspendedError,
)
from autoresearch.events import BudgetReserved, MindAnswered, ProposalRefused
from autoresearch.history import History
from autoresearch.ideas import digest_of, openai_ideas, prompts
from autoresearch.ideas.client import Reply, Settings, price
from autoresearch.ideas.edits import Edit, EditError, edited
from autoresearch.ideas.openai_ideas import Plugin
from autoresearch.ideas.script import menu
from autoresearch.model import Analysis, Idea, IdeaKind, Remark
from autoresearch.plugins import Plugins
from autoresearch.testing import (
    ApiError,
    LoopbackOpenAI,
    PlainAnalysis,
    Raw,
    experiment,
    idea,
    make_project,
    story,
    workspace,
)

pytestmark = pytest.mark.skipif(find_spec("openai") is None, reason="needs the extra openai")

SOURCE = 'import os\nrate = float(os.environ.get("RATE", 0.5))\nprint("score:", rate)\n'
ANSWER: dict[str, Any] = {
    "direction": "rate",
    "description": "halve the rate",
    "hypothesis": "experiment 0 used 0.5",
    "evidence": [],
    "cites": [0],
    "risk": "slow",
    "predicted": 1.0,
    "expected_gain": 0.1,
    "edits": [{"search": "0.5", "replace": "0.25"}],
    "source": None,
    "env": [],
}
GOOD = json.dumps(ANSWER)
PAST = story([1.1]).history
KEY = LoopbackOpenAI.api_key


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def config(url: str, usd: float = 0.0, **settings: Any) -> Config:
    """Return a configuration that points the plugin at a server."""
    table = {"base_url": url, "api_key_env": "TEST_KEY", "retries": 0, **settings}
    metric, limits = MetricConfig(sd=0.001), LimitsConfig(usd=usd)
    return Config(preset="plain", metric=metric, limits=limits, plugins={"openai": table})


def plugin(url: str, **settings: Any) -> Plugin:
    """Return the plugin pointed at a server."""
    made = Plugin()
    made.configure(config(url, **settings))
    return made


def propose(made: Plugin, past: History = PAST, hands: Hands | None = None) -> Idea | None:
    """Return what the plugin proposes after a history."""
    desk = Desk(history=past, author="openai", hook="propose_idea", hands=hands or Hands())
    return made.propose_idea(past, SOURCE, Random(1), {}, desk)


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_good_answer_becomes_an_idea(api: str) -> None:
    """Either interface carries the schema, the edit is applied, and the tokens are counted."""
    hands = Hands()
    with LoopbackOpenAI([GOOD]) as server:
        made = propose(plugin(server.base_url, model="tiny", api=api), hands=hands)
        request, path = server.requests[0], server.paths[0]
    assert made is not None
    assert made.source == SOURCE.replace("0.5", "0.25")
    assert made.author == "openai"
    assert request["model"] == "tiny"
    assert path == {"chat": "/v1/chat/completions", "responses": "/v1/responses"}[api]
    form = request["text"]["format"] if api == "responses" else request["response_format"]
    schema = form["schema"] if api == "responses" else form["json_schema"]["schema"]
    assert schema == prompts.idea_schema(["train.py"], ["RATE"], 0)
    (answered,) = [fact for fact in hands.facts if isinstance(fact, MindAnswered)]
    assert answered.tokens_in > 100
    assert answered.tokens_out == len(GOOD.split())


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_settings_reach_the_request(api: str) -> None:
    """Temperature, length, effort, headers, query and further fields are sent as they are set."""
    chosen = {
        "temperature": 0.3,
        "max_tokens": 99,
        "schema": False,
        "reasoning_effort": "low",
        "headers": {"x-team": "seven"},
        "query": {"api-version": "2026"},
        "body": {"top_k": 5},
    }
    with LoopbackOpenAI([GOOD]) as server:
        propose(plugin(server.base_url, api=api, **chosen))
        request, path, headers = server.requests[0], server.paths[0], server.headers[0]
    length, effort = (
        ("max_tokens", request.get("reasoning_effort"))
        if api == "chat"
        else ("max_output_tokens", request.get("reasoning", {}).get("effort"))
    )
    assert (request["temperature"], request[length], effort) == (0.3, 99, "low")
    assert request["top_k"] == 5
    assert headers["x-team"] == "seven"
    assert path.endswith("?api-version=2026")
    assert not {"response_format", "text"} & request.keys()


@pytest.mark.parametrize(
    ("settings", "interface"),
    [
        ({}, "responses"),
        ({"base_url": "https://api.openai.com/v1"}, "responses"),
        ({"base_url": "http://127.0.0.1:8000/v1"}, "chat"),
        ({"base_url": "https://x.openai.azure.com/openai/v1"}, "chat"),
        ({"base_url": "http://127.0.0.1:8000/v1", "api": "responses"}, "responses"),
        ({"api": "chat"}, "chat"),
    ],
)
def test_the_interface_goes_with_the_server(settings: dict[str, Any], interface: str) -> None:
    """OpenAI's own server is asked through Responses, others through chat, unless it is set."""
    assert Settings(**settings).interface == interface


def test_an_incomplete_response_is_paid_for_and_refused() -> None:
    """The Responses interface says in its own way that an answer ended early, or was refused."""
    used = {"input_tokens": 11, "output_tokens": 7, "input_tokens_details": {"cached_tokens": 5}}
    early = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    part = {"type": "refusal", "refusal": "no"}
    refusal = {"output": [{"type": "message", "content": [part]}]}
    hands = Hands()
    with LoopbackOpenAI([Raw({**early, "usage": used}), Raw(refusal), GOOD]) as server:
        assert propose(plugin(server.base_url, api="responses"), hands=hands) is not None
    facts = [fact for fact in hands.facts if isinstance(fact, ProposalRefused)]
    assert "max_output_tokens" in facts[0].reason
    assert "the model refused: no" in facts[1].reason
    first = next(fact for fact in hands.facts if isinstance(fact, MindAnswered))
    assert (first.tokens_in, first.tokens_cached, first.tokens_out) == (11, 5, 7)


def test_prices() -> None:
    """The table knows dated names, settings win, and what is not known is None."""
    reply = Reply(text="", tokens_in=1_000_000, tokens_cached=400_000, tokens_out=100_000)
    assert reply.usd("gpt-5-mini", Settings()) == pytest.approx(0.6 * 0.25 + 0.4 * 0.025 + 0.2)
    assert price("openai/gpt-5-mini-2025-08-07", Settings()) == price("gpt-5-mini", Settings())
    own = Settings(usd_per_million_in=1.0, usd_per_million_out=2.0)
    assert reply.usd("mine", own) == pytest.approx(1.2)
    assert price("mine", Settings()) is None


def test_an_unknown_price_with_a_money_limit_is_an_error() -> None:
    """A limit that cannot hold is refused when the campaign opens; a free model is said to be."""
    with pytest.raises(ConfigError, match=r"the price of mine is not known, so limits\.usd"):
        plugin("http://127.0.0.1:1/v1", usd=5.0, model="mine")
    free = {"usd_per_million_in": 0.0, "usd_per_million_out": 0.0}
    plugin("http://127.0.0.1:1/v1", usd=5.0, model="mine", **free)
    plugin("http://127.0.0.1:1/v1", model="mine")
    with pytest.raises(ConfigError, match="attempts is 0"):
        plugin("http://127.0.0.1:1/v1", attempts=0)
    with pytest.raises(ConfigError, match="api is 'soap'"):
        plugin("http://127.0.0.1:1/v1", api="soap")
    with pytest.raises(AutoresearchError, match="tempratur"):
        plugin("http://127.0.0.1:1/v1", tempratur=1.0)


def test_no_money_no_question() -> None:
    """Within one experiment too, the budget is asked before each answer."""
    told = story([1.1], config=config("http://127.0.0.1:1/v1", usd=0.01, model="gpt-5-mini"))
    spent = evolve(told.history, spent=evolve(told.history.spent, usd=0.01))
    with LoopbackOpenAI([GOOD]) as server:
        with pytest.raises(AutoresearchError, match=r"limits\.usd is used up"):
            propose(plugin(server.base_url), spent)
        assert server.requests == []


def test_models_share_the_questions_by_their_success() -> None:
    """The one whose ideas are kept is asked most, and the other one still now and then."""
    told = story([2.0])
    for number in range(4):
        author = "openai/good" if number % 2 else "openai/bad"
        score = 2.0 - number / 100 if number % 2 else 3.0
        told.add(experiment(score, idea=evolve(idea(str(number)), author=author)))
    made = plugin("http://127.0.0.1:1/v1", models=["good", "bad"])
    chosen = [made._choose(told.history, Random(seed)) for seed in range(300)]
    assert 200 < chosen.count("good") < 300


def test_no_key_for_openai_itself_is_said_before_any_request() -> None:
    """Without a key and without another server the error tells what to set."""
    with pytest.raises(SuspendedError, match="NO_KEY is empty; put an API key into it"):
        propose(plugin("", api_key_env="NO_KEY"))


def test_a_server_without_keys_needs_none() -> None:
    """A local server is asked without an environment variable."""
    with LoopbackOpenAI([GOOD]) as server:
        server.api_key = "none"  # what is sent where there is no key
        assert propose(plugin(server.base_url, api_key_env="NO_KEY")) is not None


def test_a_server_that_does_not_listen_is_named() -> None:
    """A server that is down is one error, at once."""
    with LoopbackOpenAI([]) as server:
        gone = server.base_url
    with pytest.raises(OutageError, match="APIConnectionError"):
        propose(plugin(gone))


def test_the_client_tries_again_after_a_rate_limit() -> None:
    """Repeating is left to the client, as often as configured."""
    with LoopbackOpenAI([ApiError(429, retry_after=0.01), GOOD]) as server:
        assert propose(plugin(server.base_url, retries=1)) is not None


def small(name: Any = "RATE", value: Any = 0.25, **more: Any) -> str:
    """What a small model answers: one value of its menu, and why."""
    change = {"name": name, "value": value}
    return json.dumps({"hypothesis": "it falls with the rate", "change": change, **more})


def test_a_small_model_chooses_one_value() -> None:
    """It is offered values that were not tried; what the change is and does, the change says."""
    with LoopbackOpenAI([small()]) as server:
        made = propose(plugin(server.base_url, compact=True))
        request = server.requests[0]
    assert made is not None
    assert made.source == SOURCE.replace("0.5", "0.25")
    assert (made.direction, made.description, made.cites) == ("rate", "RATE 0.5 -> 0.25", (0,))
    assert made.hypothesis == "it falls with the rate"
    schema = request["response_format"]["json_schema"]["schema"]
    (offered,) = schema["properties"]["change"]["anyOf"]
    values = offered["properties"]["value"]["enum"]
    assert offered["properties"]["name"]["enum"] == ["RATE"]
    assert {0.25, 0.333, 0.75} < {*values}
    assert 0.5 not in values
    assert max(values) < 1  # a share stays one
    assert "`change`: the `name`" in request["messages"][0]["content"]


SMALL = {
    "no such value": (small("SEED", 1), "no value 'SEED'"),
    "a name that is none": (small(["RATE"]), "no value"),
    "out of reach": (small(value=40), "give one of 0.0312, 0.0625"),
    "another type": (small(value="0.25"), "RATE is '0.25'"),
    "a flag": (small(value=True), "RATE is True"),
    "nothing": (small(value=None), "RATE is None"),
    "a change that is a word": (small(change="RATE"), "no value None"),
    "two kinds of change": (small(source="x = 1"), "source and change"),
    "no reason": (small(hypothesis=" "), "hypothesis is ' '"),
    "as it is": (small(value=0.5), "leaves the files as they are"),
}


@pytest.mark.parametrize("name", SMALL)
def test_what_a_small_model_gets_wrong_is_refused(name: str) -> None:
    """A server that holds its model to no schema may answer anything."""
    answer, why = SMALL[name]
    with LoopbackOpenAI([answer]) as server, pytest.raises(AutoresearchError, match=why):
        propose(plugin(server.base_url, compact=True, attempts=1))


def test_a_small_model_is_not_offered_what_was_tried() -> None:
    """No value that was tried and none of a dead end; without a menu it is asked for edits."""
    tried = digest_of({"train.py": SOURCE.replace("0.5", "0.25")})
    past = evolve(PAST, tried_sources=PAST.tried_sources.add(tried))
    offered = menu(past, {"train.py": SOURCE}, Config(), 40)["RATE"][1]
    assert 0.25 not in offered
    assert 0.125 in offered
    two = {"train.py": "RATE = 0.5\nWIDTH = 4\nprint(RATE, WIDTH)\n"}
    assert [len(menu(past, two, Config(), most)) for most in (40, 1)] == [2, 1]
    dead = story([1.1, 1.2], directions=["rate"]).declare_dead("rate").history
    with LoopbackOpenAI([GOOD]) as server:
        with pytest.raises(AutoresearchError, match="is a dead end"):
            propose(plugin(server.base_url, compact=True, attempts=1), dead)
        schema = server.requests[0]["response_format"]["json_schema"]["schema"]
    assert "edits" in schema["properties"]


def test_a_dead_end_can_be_challenged_once() -> None:
    """Other words do not revive it; what would tell why it failed does, until that fails too."""
    told = story([1.1, 1.2, 1.2, 1.2], directions=["learning rate"]).declare_dead("learning rate")
    plain = json.dumps({**ANSWER, "direction": "tune the LR", "cites": [1]})
    said = "with a warmup of 100 steps the loss should not spike"
    bold = json.dumps({**ANSWER, "direction": "LR", "cites": [1], "challenge": said})
    with LoopbackOpenAI([plain, bold, bold]) as server:
        made = plugin(server.base_url)
        proposed = propose(made, told.history)
        assert proposed is not None
        assert proposed.evidence[0] == f"challenges the dead end 'learning rate': {said}"
        assert "is a dead end" in server.requests[1]["messages"][-1]["content"]
        told.add(1.3, direction="LR")
        with pytest.raises(AutoresearchError, match="challenged in vain"):
            propose(made, told.history)


REMARKS = {"remarks": [{"text": "a smaller rate helps", "cites": [1, 2]}]}


def test_a_model_looks_back_once() -> None:
    """It sees the ten experiments, its remarks come back, and a bad answer is not sent back."""
    told = story([1.1, 1.0, 0.9], directions=["rate"]).history
    desk = Desk(history=told, author="openai", hook="summarize", hands=Hands())
    with LoopbackOpenAI([json.dumps(REMARKS), '{"remarks": [{"text": "x"}]}']) as server:
        made = plugin(server.base_url)
        assert made.summarize(told, 1, desk) == [Remark(text="a smaller rate helps", cites=(1, 2))]
        asked = server.requests[0]["messages"][1]["content"]
        assert "experiment 1 (keep)" in asked
        assert "experiment 0" not in asked.partition("the ten experiments")[2]
        with pytest.raises(AutoresearchError, match="cites no experiments"):
            made.summarize(told, 1, desk)
        assert len(server.requests) == 2
        for off in ({"digest": False}, {"compact": True}):
            assert plugin(server.base_url, **off).summarize(told, 1, desk) is None


# --- code and analyses ----------------------------------------------------------------------------

CHANGE = json.dumps({"edits": [{"search": "0.5", "replace": "0.25"}], "source": None})


def implement(made: Plugin, wanted: Idea, folder: Path) -> Any:
    """Return what the plugin writes for an idea in words."""
    return made.implement_idea(wanted, workspace(folder, SOURCE), Desk(history=PAST))


@pytest.mark.parametrize("kind", [IdeaKind.CHANGE, IdeaKind.FIX])
def test_an_idea_in_words_is_written_into_the_script(tmp_path: Path, kind: IdeaKind) -> None:
    """Words and crashes become the whole new script; the file itself is not touched."""
    wanted = Idea(direction="rate", description="halve it", hypothesis="KeyError: 'x'", kind=kind)
    with LoopbackOpenAI([CHANGE]) as server:
        made = implement(plugin(server.base_url), wanted, tmp_path)
        request = server.requests[0]
    assert list(made.values()) == [SOURCE.replace("0.5", "0.25")]
    form = request["response_format"]["json_schema"]["schema"]
    assert form == prompts.change_schema(list(made))
    assert "rate: halve it\nKeyError: 'x'" in request["messages"][1]["content"]


@pytest.mark.parametrize("answer", ["{}", '{"edits": []}', '{"source": "def"}', GOOD[:9]])
def test_code_that_cannot_be_used_is_refused(tmp_path: Path, answer: str) -> None:
    """No change, a broken script and junk are one error each, after three answers."""
    wanted = Idea(direction="rate", description="halve it", hypothesis="h")
    with LoopbackOpenAI([answer]) as server:
        with pytest.raises(AutoresearchError, match="not used"):
            implement(plugin(server.base_url), wanted, tmp_path)
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("answer", "why"),
    [('{"why": "the rate was too high", "lesson": "stay low"}', "the rate was too high"), ("", "")],
)
def test_a_model_says_why_and_the_numbers_say_what(answer: str, why: str) -> None:
    """Result and comparison are computed; a model that fails leaves the analysis as it was."""
    past = story([1.1, 1.2]).history
    with LoopbackOpenAI([answer or "junk"]) as server:
        settings = config(server.base_url, analyze=True)
        plugins = Plugins.only(PlainAnalysis, openai_ideas, config=settings)
        plugins.on_failure = lambda _: None
        plain = Plugins.only(PlainAnalysis).analyze_run(past.experiments[1], past)
        made = plugins.analyze_run(past.experiments[1], past)
        plugins.close()
    assert isinstance(made, Analysis)
    assert (made.result, made.versus_expected) == (plain.result, plain.versus_expected)
    assert made.why == (why or plain.why)
    assert made.author == ("openai" if why else plain.author)


# --- edits ----------------------------------------------------------------------------------------

LINES = "a = 1\nb = 2\nc = 3"


@pytest.mark.parametrize(
    ("text", "search", "replace", "after"),
    [
        (LINES, "b = 2", "b = 9", "a = 1\nb = 9\nc = 3"),
        (LINES, "b = 2\n", "b = 9", "a = 1\nb = 9\nc = 3"),
        (LINES, "c = 3\n", "c = 9\n", "a = 1\nb = 2\nc = 9"),
        (LINES, "b = 2\n", "", "a = 1\nc = 3"),
        ("a = 1\r\nb = 2\r\n", "a = 1\nb = 2\n", "b = 3\n", "b = 3\r\n"),
        ("a = 1\r\nb = 2\r\n", "a = 1", "a = 1\nz = 0", "a = 1\r\nz = 0\r\nb = 2\r\n"),
        ("a = 1\n", "a = 1\r\n", "a = 2\r\n", "a = 2\n"),
    ],
)
def test_line_ends_are_those_of_the_file(text: str, search: str, replace: str, after: str) -> None:
    """A forgotten line end glues nothing together, and no file gets mixed ends."""
    assert edited({"f.py": text}, [Edit(search, replace)], "f.py") == {"f.py": after}


def test_a_miss_is_answered_with_the_nearest_passages() -> None:
    """The passage that was meant is shown with its line; nonsense is told as such."""
    text = "".join(f"layer_{n} = Linear({n}, {n * 2})\n" for n in range(400))
    with pytest.raises(EditError, match="line 8:\nlayer_7 = Linear") as caught:
        edited({"f.py": text}, [Edit("layer_7  = Linear(7,14)", "x")], "f.py")
    assert str(caught.value).count("line ") == 2
    with pytest.raises(EditError, match="copy text that occurs once"):
        edited({"f.py": text}, [Edit("~~~~", "x")], "f.py")


def test_it_can_be_imported_without_the_packages(tmp_path: Path) -> None:
    """Without the extra only a question fails, and says what to install."""
    for name in ("openai", "jinja2"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not here')\n")
    code = (
        "from random import Random\n"
        "from autoresearch.ideas.openai_ideas import Plugin\n"
        "from autoresearch.testing import story\n"
        "from autoresearch.desk import Desk\n"
        "past = story([1.1]).history\n"
        "try:\n    Plugin().propose_idea(past, 'x = 1', Random(1), {}, Desk(history=past))\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (
        "SuspendedError the package jinja2 is not installed; pip install 'autoresearch[openai]'\n"
    )


def test_the_quote_is_the_worst_case_of_the_next_answer() -> None:
    """The whole question and the longest answer by the dearest model; what is paid is less."""
    names = ("gpt-5-nano", "gpt-5-mini")
    hands = Hands()
    desk = Desk(history=PAST, author="openai", hands=hands)
    with LoopbackOpenAI([GOOD]) as server:
        made = plugin(server.base_url, usd=5.0, models=names, max_tokens=1000)
        (cost,) = made.quote_call(PAST, {"train.py": SOURCE}, desk)
        assert server.requests == []
        propose(made, hands=hands)
    assert cost.tokens_out == 1000
    assert cost.usd == pytest.approx((cost.tokens_in * 0.25 + 1000 * 2.0) / 1e6)
    (answered,) = [fact for fact in hands.facts if isinstance(fact, MindAnswered)]
    assert 100 < answered.tokens_in <= cost.tokens_in
    assert answered.usd is not None
    assert answered.usd < cost.usd


@pytest.mark.parametrize(("left", "asked"), [(0.0039, 0), (0.0061, 1)])
def test_every_answer_has_to_fit_into_what_is_left(left: float, asked: int) -> None:
    """Beside what was spent and what runs have reserved; the line says both figures."""
    told = story([1.1], config=config("http://127.0.0.1:1/v1", usd=1.0)).history
    held = BudgetReserved(run="r", experiment=1, seconds=1.0, gpu_seconds=1.0, usd=0.5)
    past = evolve(
        told, spent=evolve(told.spent, usd=0.5 - left), reserved=told.reserved.set("r", held)
    )
    with LoopbackOpenAI([GOOD]) as server:
        made = plugin(server.base_url, usd=1.0, model="gpt-5-mini", max_tokens=2000)
        if asked:
            propose(made, past)
        else:
            with pytest.raises(PluginError, match=r"an answer of gpt-5-mini may take 0\.00[45]"):
                propose(made, past)
        assert len(server.requests) == asked


def test_budget_too_small_for_the_next_answer_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The baseline runs; the first idea would cost more than is left, and the loop says so."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    settings = (
        'preset = "plain"\nactive = ["openai"]\n[metric]\nname = "score"\nsd = 0.001\n'
        '[limits]\nusd = 0.01\n[plugins.openai]\napi_key_env = "TEST_KEY"\nbase_url = "{url}"\n'
    )
    with LoopbackOpenAI([GOOD]) as server:
        project = make_project(
            tmp_path / "project", script=SOURCE, settings=settings.replace("{url}", server.base_url)
        )
        plugins = ("no:script_ideas",)
        made = autoresearch.start(project, tag="t1", plugins=plugins)
        reason = made.run(3, plugins=plugins, wait=False)
        assert server.requests == []
    assert len(made.history.decided) == 1
    assert reason.startswith(
        "the budget of 0.01 usd has 0.01 left, and the next run with its idea (0.01"
    )
    assert reason.endswith("or have shorter answers of a cheaper model")
