"""The hooks reference cannot drift: headings are signatures, examples run, every hook is tried."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from random import Random

import click
import pytest

from autoresearch import Config, Notice, hookspecs
from autoresearch.plugins import Plugins
from autoresearch.testing import (
    SOURCE,
    FakeLauncher,
    KeepBetter,
    PlainAnalysis,
    candidate,
    change,
    experiment,
    history,
    idea,
    run_output,
    run_request,
    story,
    workspace,
)

PAGE = Path(__file__).parents[2] / "docs" / "hooks.md"
PAST = history([1.1, 1.0, None])


def sections() -> dict[str, tuple[str, str]]:
    """Return for each hook its heading and the text below it."""
    parts = re.split(r"^## `(\w+)(.*)`$", PAGE.read_text(), flags=re.MULTILINE)[1:]
    return {
        name: (name + rest, body)
        for name, rest, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


def example(hook: str) -> str:
    """Return the one example of a hook."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", sections()[hook][1], re.DOTALL | re.MULTILINE)
    return block


def _observe(plugins: Plugins, folder: Path) -> object:
    told = story([1.1])
    for event in told.log.read():
        plugins.event_recorded(event, told.history)
    return told.history.position


CALLS: dict[str, Callable[[Plugins, Path], object]] = {
    "configure": lambda plugins, _: plugins.active["example"],
    "check_launcher": lambda plugins, folder: plugins.check_launcher(
        Config(launcher="dry"), folder
    ),
    "unpack_script": lambda plugins, _: plugins.unpack_script("# base64 WCA9IDEK"),
    "register_commands": lambda plugins, _: _commands(plugins),
    "register_projections": lambda plugins, _: plugins.projections(Config())[0].render(PAST),
    "propose_idea": lambda plugins, _: plugins.propose_idea(PAST, SOURCE, Random(1)),
    "explain_no_idea": lambda plugins, _: plugins.explain_no_idea(PAST, SOURCE, {}),
    "review_idea": lambda plugins, _: plugins.review_idea(
        idea(), story([1.1]).declare_dead("width").history
    ),
    "implement_idea": lambda plugins, folder: plugins.implement_idea(
        idea("RATE = 0.1", env={}), workspace(folder)
    ),
    "audit_change": lambda plugins, folder: plugins.audit_change(
        change(after="import socket\n"), workspace(folder)
    ),
    "launch_run": lambda plugins, folder: plugins.launch_run(
        run_request(folder, launcher="dry"), workspace(folder)
    ).poll(),
    "quote_run": lambda plugins, folder: plugins.quote_run(run_request(folder, launcher="dry")),
    "quote_call": lambda plugins, _: plugins.quote_call(),
    "extract_metrics": lambda plugins, folder: plugins.extract_metrics(run_output(folder)),
    "measure_run": lambda plugins, folder: plugins.measure_run(run_output(folder)),
    "explain_no_score": lambda plugins, folder: plugins.explain_no_score(run_output(folder), PAST),
    "should_stop_run": lambda plugins, folder: plugins.should_stop_run(
        run_request(folder), {"loss": 1e9}, PAST
    ),
    "audit_run": lambda plugins, folder: plugins.audit_run(
        experiment(-1.0), run_output(folder), PAST
    ),
    "analyze_run": lambda plugins, _: plugins.analyze_run(experiment(), PAST),
    "promote_run": lambda plugins, _: plugins.promote_run(experiment(0.9), PAST),
    "decide": lambda plugins, _: plugins.decide(
        candidate(0.9, PAST, artifact_bytes=2_000_000), PAST
    ),
    "backtrack": lambda plugins, _: plugins.backtrack(
        history([1.1, experiment(1.3, verdict="keep"), 1.4, 1.4, 1.4])
    ),
    "choose_parent": lambda plugins, _: plugins.choose_parent(
        history([1.1, 1.0, *[1.2] * 5]), Random(1)
    ),
    "summarize": lambda plugins, _: plugins.summarize(PAST, 1),
    "report_costs": lambda plugins, _: plugins.report_costs(),
    "event_recorded": _observe,
    "notify": lambda plugins, folder: _notice(plugins, folder),
}


def _commands(plugins: Plugins) -> list[str]:
    cli = click.Group()
    plugins.register_commands(cli)
    return list(cli.commands)


def _notice(plugins: Plugins, folder: Path) -> str:
    plugins.notify(Notice(kind="stuck", campaign="mar18", text="no idea"))
    return (folder / "notices.txt").read_text()


def test_headings_are_the_hooks_in_their_order():
    """Every hook has its section, and there is none for anything else."""
    assert list(sections()) == list(hookspecs.HOOKS)


@pytest.mark.parametrize("hook", hookspecs.HOOKS)
def test_headings_are_exact_signatures(hook):
    """Arguments, types and result stand in the heading as they stand in the code."""
    signature = str(inspect.signature(getattr(hookspecs, hook))).replace("'", "")
    assert sections()[hook][0] == hook + signature


@pytest.mark.parametrize("hook", hookspecs.HOOKS)
def test_kinds_are_told(hook):
    """Each section says whether the hook stops at the first result."""
    text = sections()[hook][1]
    if hookspecs.HOOKS[hook].first_result:
        assert "First result" in text
    else:
        assert "ollecting" in text or hook == "configure"


@pytest.mark.parametrize("hook", hookspecs.HOOKS)
def test_examples_run(hook, tmp_path, monkeypatch):
    """Each example is a whole plugin; called through the facade it answers something."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "example.py"
    path.write_text(example(hook))
    failures = []
    plugins = Plugins.only(KeepBetter, PlainAnalysis, FakeLauncher([1.0]), path)
    plugins.on_failure = failures.append
    assert plugins.infos()[-1].hooks == (hook,)
    assert CALLS[hook](plugins, tmp_path)
    plugins.close()
    assert failures == []


def test_every_hook_is_called_by_the_facade():
    """Each hook but configure has a method of its name with the same arguments."""
    for hook in list(hookspecs.HOOKS)[1:]:
        name = {"register_projections": "projections"}.get(hook, hook)
        method = inspect.signature(getattr(Plugins, name)).parameters
        wanted = inspect.signature(getattr(hookspecs, hook)).parameters
        own = {"skip"}  # whose turn it is not
        assert [item for item in list(method)[1:] if item not in own] == list(wanted), hook
