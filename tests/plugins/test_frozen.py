"""A plugin can change neither what it is given nor what was recorded."""

import inspect
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

import attrs
import pytest

from autoresearch import Config, hookimpl, hookspecs
from autoresearch.config import unstructure
from autoresearch.testing import (
    EXAMPLES,
    candidate,
    change,
    experiment,
    idea,
    run_output,
    run_request,
    story,
    workspace,
)
from autoresearch.testing.story import refold

CONFIG = Config(preset="plain", env={"A": "1"}, plugins={"taker": {"deep": {"list": [1, 2]}}})


class Taker:
    """Takes whatever it is given in any hook, and keeps it."""

    def __init__(self) -> None:
        self.taken: dict[str, Any] = {}


def _taking(hook: str) -> Any:
    """Return an implementation that asks for every argument of a hook."""
    names = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
    scope: dict[str, Any] = {}
    exec(f"def {hook}(self, {names}): self.taken.update(locals())", scope)
    return hookimpl(scope[hook])


for _hook in hookspecs.HOOKS:
    if _hook not in ("register_commands", "configure"):
        setattr(Taker, _hook, _taking(_hook))


@pytest.fixture
def taken(only, tmp_path) -> dict[str, Any]:
    """Every argument of every hook, as a plugin gets it."""
    taker = Taker()
    plugins, failures = only(taker, config=Config(preset="plain"))
    told = EXAMPLES["dead ends, a plateau and a queue"]()
    past, place = told.history, workspace(tmp_path)
    plugins.projections(CONFIG)
    plugins.propose_idea(past, "source", Random(1))
    plugins.review_idea(idea(env={"A": "1"}), past)
    plugins.implement_idea(idea(), place)
    plugins.audit_change(change(), place)
    plugins.should_stop_run(run_request(tmp_path, env={"A": "1"}), {"score": 1.0}, past)
    plugins.extract_metrics(run_output(tmp_path))
    plugins.audit_run(experiment(1.0), run_output(tmp_path), past)
    plugins.backtrack(past)
    for event in told.log.read():
        plugins.event_recorded(event, past)
    assert failures == []
    return {**taker.taken, "candidate": candidate(1.0, past)}


def _inside(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield everything that can be reached from a value through fields, keys and items."""
    if id(value) in seen or isinstance(value, (str, bytes, int, float, type(None), Random)):
        return
    seen.add(id(value))
    yield path, value
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _inside(item, f"{path}[{key!r}]", seen)
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from _inside(getattr(value, field.name), f"{path}.{field.name}", seen)
    elif hasattr(value, "__iter__") and not hasattr(value, "__next__"):
        for index, item in enumerate(value):
            yield from _inside(item, f"{path}[{index}]", seen)


def _reached(taken: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    for name in (*sorted(taken.keys() - {"self", "desk"}), "desk"):  # which leads to the others
        yield from _inside(taken[name], name, seen)


def _is_frozen(value: Any) -> bool:
    if attrs.has(type(value)):
        name = attrs.fields(type(value))[0].name
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(value, name, None)
        return True
    if isinstance(value, dict):
        with pytest.raises(TypeError, match="read-only"):
            value["x"] = 1
        return True
    return not isinstance(value, (list, set, bytearray))


def test_nothing_that_a_plugin_is_given_can_be_changed(taken):
    """From the arguments of every hook only frozen values can be reached."""
    assert {"history", "config", "event", "request", "observed", "change"} <= taken.keys()
    found = list(_reached(taken))
    paths = {path for path, _ in found}
    assert {"history.started.config['metric']", "request.env", "config.plugins['taker']"} <= paths
    assert [path for path, value in found if not _is_frozen(value)] == []


def test_nothing_that_a_plugin_is_given_can_write(taken):
    """No argument leads to the log, a writer or a connection."""
    names = {type(value).__name__ for _, value in _reached(taken)}
    assert {"History", "Recorded"} <= names
    assert names & {"PVector", "PythonPVector"}
    assert not {name for name in names if "Log" in name or "Writer" in name or "Conn" in name}


@pytest.mark.parametrize("how", ["clear", "popitem", "setdefault", "update", "pop", "__ior__"])
def test_tables_refuse_every_change(how):
    """The tables of the configuration refuse all that a dict could do."""
    arguments = {"pop": ("A",), "setdefault": ("B", 1), "update": ({"B": 1},), "__ior__": ({},)}
    with pytest.raises(TypeError, match="read-only; make a copy"):
        getattr(CONFIG.env, how)(*arguments.get(how, ()))
    assert unstructure(CONFIG)["env"] == {"A": "1"}


def test_a_history_stays_what_the_log_says(only):
    """Whatever a plugin tries, the log folds to the same history afterwards."""

    class Vandal:
        @hookimpl
        def event_recorded(self, event, history):
            history.experiments.append("mine")
            history.dead_ends.set("width", "dead")
            object.__getattribute__(history, "started").config["metric"]["name"] = "other"

    told = story([1.1, 1.0])
    plugins, failures = only(Vandal())
    for event in told.log.read():
        plugins.event_recorded(event, told.history)
    assert "read-only" in failures[0].error
    assert refold(told.log) == told.history
