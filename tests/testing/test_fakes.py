"""The fakes behave as their originals do, without a network, a model or a wait."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from random import Random

import pytest
from openai import AuthenticationError, InternalServerError, OpenAI

from autoresearch.plugins import Plugins
from autoresearch.testing import (
    SOURCE,
    ApiError,
    FakeLauncher,
    LoopbackOpenAI,
    ScriptedIdeas,
    ScriptedSource,
    Slow,
    git,
    idea,
    make_project,
    run_request,
    set_constant,
    story,
    workspace,
)

HELLO = [{"role": "user", "content": "hello"}]


def client(server: LoopbackOpenAI) -> OpenAI:
    """Return the client that people use."""
    return OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0, timeout=5.0)


def test_scripted_ideas_come_in_their_order():
    """Each is proposed once, also by another instance that goes on with the same history."""
    ideas = [idea("one"), idea("two")]
    told = story([1.1])
    seen = []
    for _ in range(3):
        found = Plugins.only(ScriptedIdeas(ideas)).propose_idea(told.history, SOURCE, Random(1))
        seen.append(found and found.description)
        if found:
            told.add(1.2, idea=found)
    assert seen == ["one", "two", None]


def test_a_constant_is_set_in_the_script_at_head():
    """The idea brings the whole source with one line changed."""
    found = set_constant("WIDTH", 9)(SOURCE)
    assert found.source == SOURCE.replace("WIDTH = 4", "WIDTH = 9")
    assert (found.direction, found.description) == ("width", "WIDTH = 9")


def test_a_fake_launcher_gives_the_results_in_order(tmp_path):
    """Experiment n gets result n; None is a crash, text is a whole log."""
    plugins = Plugins.only(FakeLauncher([1.1, None, "odd\n"]))
    outputs = []
    for number in range(4):
        asked = run_request(tmp_path, name=f"run-{number}", experiment=number, launcher="fake")
        outputs.append(plugins.launch_run(asked, workspace(tmp_path / "w")).poll())
    assert [item.status.value for item in outputs] == ["completed", "crashed", *["completed"] * 2]
    assert outputs[0].log_path.read_text() == "score: 1.1\n"
    assert [outputs[n].log_path.read_text() for n in (2, 3)] == ["odd\n", "odd\n"]


def test_a_fake_run_outlives_its_launcher(tmp_path):
    """Another launcher finds the finished run under its name and starts nothing."""
    asked = run_request(tmp_path, launcher="fake")
    first, second = FakeLauncher([1.0]), FakeLauncher([9.0])
    place = workspace(tmp_path / "w")
    before = Plugins.only(first).launch_run(asked, place).poll()
    after = Plugins.only(second).launch_run(asked, place).poll()
    assert before == after
    assert (first.started, second.started) == (["test-1-0"], [])


def test_a_scripted_source_implements_any_idea(tmp_path):
    """An idea in words gets the source that the test wants."""
    plugins = Plugins.only(ScriptedSource("print(1)"))
    assert plugins.implement_idea(idea(env={}), workspace(tmp_path)) == {"train.py": "print(1)"}


def test_the_real_client_talks_to_the_loopback_server():
    """Answers come in order, the last is repeated, and requests are remembered."""
    with LoopbackOpenAI(["one", "two"]) as server:
        chat = client(server).chat.completions
        said = [chat.create(model="m", messages=HELLO) for _ in range(3)]
    assert [item.choices[0].message.content for item in said] == ["one", "two", "two"]
    assert said[0].usage.completion_tokens == 1
    assert [body["messages"] for body in server.requests] == [HELLO] * 3


def test_errors_and_delays_can_be_scripted():
    """An HTTP status comes as the client's own exception; a slow answer still comes."""
    with LoopbackOpenAI([ApiError(500), Slow(0.05, "late")]) as server:
        chat = client(server).chat.completions
        with pytest.raises(InternalServerError, match="a test says so"):
            chat.create(model="m", messages=HELLO)
        assert chat.create(model="m", messages=HELLO).choices[0].message.content == "late"


def test_a_wrong_key_is_refused():
    """The server wants the key that it says."""
    with LoopbackOpenAI(["one"]) as server:
        stranger = OpenAI(base_url=server.base_url, api_key="wrong", max_retries=0)
        with pytest.raises(AuthenticationError):
            stranger.chat.completions.create(model="m", messages=HELLO)
    assert server.requests == []


def test_another_path_is_not_there():
    """Only chat completions are spoken."""
    with LoopbackOpenAI(["one"]) as server:
        asked = urllib.request.Request(f"{server.base_url}/models", data=b"{}")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(asked)
        with caught.value as answer:
            assert json.loads(answer.read())["error"]["message"] == "no such path: /v1/models"


def test_a_project_is_committed_and_quick(tmp_path):
    """Its script prints a score that follows from its constants."""
    project = make_project(tmp_path / "project")
    assert git(project, "status", "--porcelain") == ""
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=project, env={**os.environ, "SEED": "3"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "score: 1.290000"


OPT_IN = """
pytest_plugins = ["autoresearch.testing"]
from autoresearch.testing import KeepBetter

def test_fixtures(project, memory_log, openai_server):
    assert (project / "train.py").exists()
    assert memory_log.tip().position == 0
    assert openai_server.base_url.endswith("/v1")
"""


@pytest.mark.parametrize("opted_in", [True, False])
def test_fixtures_are_opt_in(tmp_path, opted_in):
    """Naming the kit brings its fixtures; installing it changes nobody's test run."""
    lines = OPT_IN.splitlines(keepends=True)
    (tmp_path / "test_it.py").write_text("".join(lines if opted_in else lines[2:]))
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert ("1 passed" in done.stdout) == opted_in, done.stdout
    assert ("fixture 'project' not found" in done.stdout) != opted_in
