"""What a language model is told: templates, and what fills them.

The messages come in the order in which a provider's cache can use them: rules, which never change;
then the campaign, its rules, what is known and the files at head, which change with head; then
what changes with every experiment. A person replaces a template by a file of its name.

Everything that comes from a log, a note or another plugin is cleaned of control characters, cut to
a length, and put between marks with the word that it is data: text there must not give orders.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from autoresearch.desk import CHARACTERS, Desk
from autoresearch.errors import AutoresearchError, ConfigError, SuspendedError, needs
from autoresearch.history import History
from autoresearch.ideas import describe
from autoresearch.ideas.client import Message, Settings
from autoresearch.ideas.script import Menu
from autoresearch.model import Analysis, Experiment, Idea, IdeaKind, RunStatus
from autoresearch.text import block, one_line

RECENT = 8  # experiments that are shown with their reasons and their changes
_DIFF = 1_200  # characters of the change of each
_DOCUMENT = 12_000
_TAIL = 40  # lines of the output of a crash

# --- the shape of an answer -----------------------------------------------------------------------


def _text(longest: int, *, null: bool = False) -> dict[str, Any]:
    kind: Any = ["string", "null"] if null else "string"
    return {"type": kind, "maxLength": longest}


_NUMBER = {"type": ["number", "null"]}


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _list(items: Mapping[str, Any], most: int) -> dict[str, Any]:
    return {"type": "array", "items": dict(items), "maxItems": most}


def change_schema(paths: Sequence[str]) -> dict[str, Any]:
    """Return the shape of a change of files: edits, or the whole script."""
    place = {"type": ["string", "null"], "enum": [*paths, None]}
    edit = _object(file=place, search=_text(4_000), replace=_text(8_000))
    return _object(edits=_list(edit, 12), source=_text(200_000, null=True))


def idea_schema(paths: Sequence[str], variables: Sequence[str], decided: int) -> dict[str, Any]:
    """Return the shape of an idea; ``decided`` is the newest experiment that may be cited."""
    change = change_schema(paths)["properties"]
    name = {"type": "string", "enum": list(variables)} if variables else _text(60)
    return _object(
        direction=_text(60),
        description=_text(200),
        hypothesis=_text(600),
        evidence=_list(_text(300), 6),
        cites=_cites(decided),
        risk=_text(300),
        challenge=_text(300, null=True),
        predicted=_NUMBER,
        expected_gain=_NUMBER,
        edits=change["edits"],
        source=change["source"],
        env=_list(_object(name=name, value=_text(100)), 8 if variables else 0),
    )


def remarks_schema(decided: int) -> dict[str, Any]:
    """Return the shape of what ten experiments show."""
    return _object(remarks=_list(_object(text=_text(160), cites=_cites(decided)), 3))


def _cites(decided: int) -> dict[str, Any]:
    return _list({"type": "integer", "minimum": 0, "maximum": decided}, 8)


def compact_schema(menu: Menu) -> dict[str, Any]:
    """Return the shape of an idea that a small model can fill: why, and one value of the menu."""
    change = [
        _object(name={"type": "string", "enum": [name]}, value={"enum": list(values)})
        for name, (_, values) in menu.items()
    ]
    return _object(hypothesis={**_text(160), "minLength": 16}, change={"anyOf": change})


ANALYSIS = _object(why=_text(600), lesson=_text(300))

# --- templates ------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _environment(folder: str) -> Any:
    with needs("jinja2", SuspendedError):
        import jinja2
    own = jinja2.PackageLoader("autoresearch.ideas")
    loaders: list[jinja2.BaseLoader] = [own]
    if folder:
        if not Path(folder).is_dir():
            raise ConfigError(
                f"plugins.openai.templates is {folder!r}, which is no folder; write "
                f"{', '.join(own.list_templates())} into one"
            )
        loaders.insert(0, jinja2.FileSystemLoader(folder))
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        cache_size=0,  # a person may write a template meanwhile
    )


def rendered(name: str, settings: Settings, **known: Any) -> str:
    """Return a template with its blanks filled; ConfigError where a person's own one is broken."""
    environment = _environment(settings.templates)
    import jinja2

    try:
        text = environment.get_template(f"{name}.jinja").render(**known)
    except jinja2.TemplateError as error:
        raise ConfigError(
            f"the template {name}.jinja cannot be filled: {one_line(str(error))}; correct it in "
            f"{settings.templates or 'the package'}"
        ) from None
    return str(text).strip()


# --- messages -------------------------------------------------------------------------------------


def question(
    desk: Desk,
    settings: Settings,
    files: Mapping[str, str],
    fixed: Sequence[str],
    facts: Sequence[str],
    schema: Mapping[str, Any] = {},
    rules: str = "system",
) -> list[Message]:
    """Return the messages that ask for an idea, by the template named ``rules``.

    ``files`` maps paths to texts, the script first; ``fixed`` are the variables that the campaign
    sets, ``facts`` what is known beforehand. The ``schema`` of the answer is written out for a
    model that is not held to it.
    """
    history = desk.history
    stable = rendered(
        "stable",
        settings,
        metric=history.metric,
        better="lower" if history.lower_is_better else "higher",
        limits=list(_limits(history)),
        fixed=", ".join(sorted(fixed)) or "none",
        documents=[
            (name, data(text, _DOCUMENT))
            for name in settings.documents
            if (text := desk.document(name))
        ],
        known=facts,
        files=_shown(files, settings.max_source_chars),
    )
    volatile = rendered(
        "volatile",
        settings,
        memory=data(desk.review(settings.prompt_tokens), settings.prompt_tokens * CHARACTERS),
        recent=[data(line, 4 * _DIFF) for line in _recent(desk, history.decided[-RECENT:])],
        crash=data(_crash(desk), 4_000),
        refused=[data(one_line(f"{x.stage}: {x.reason}", 400), 400) for x in desk.refused],
        plateau=on_a_plateau(history),
    )
    return [_system(rules, settings, schema), _user(stable), _user(volatile)]


def task(
    idea: Idea,
    settings: Settings,
    files: Mapping[str, str],
    schema: Mapping[str, Any] = {},
) -> list[Message]:
    """Return the messages that ask for the code of an idea in words, or for a crash's repair."""
    text = rendered(
        "implement",
        settings,
        files=_shown(files, settings.max_source_chars),
        what="crash" if idea.kind is IdeaKind.FIX else "idea",
        wish=data(f"{idea.direction}: {idea.description}\n{idea.hypothesis}", 10_000),
    )
    return [_system("implement_system", settings, schema), _user(text)]


def analysis(
    experiment: Experiment,
    desk: Desk,
    settings: Settings,
    told: Analysis,
    schema: Mapping[str, Any] = {},
) -> list[Message]:
    """Return the messages that ask why an experiment came out as it ``told`` by its numbers."""
    history, best = desk.history, desk.history.best
    run = experiment.runs[-1].name if experiment.runs else ""
    other = best.runs[-1].name if best is not None and best.runs else ""
    text = rendered(
        "analysis",
        settings,
        number=experiment.number,
        description=data(experiment.idea.description, 300),
        hypothesis=data(experiment.idea.hypothesis, 600),
        numbers=[f"{name}: {value:.6g}" for name, value in sorted(experiment.metrics.items())],
        diff=data(attempt(desk.diff, experiment.number), 3 * _DIFF),
        metric=history.metric,
        curve=_points(attempt(desk.curve, run)),
        best_curve=_points(attempt(desk.curve, other)),
        tail=data(desk.log_tail(run, _TAIL) if run else "", 4_000),
        result=data(told.result, 300),
        versus_expected=data(told.versus_expected, 400),
    )
    return [_system("analysis_system", settings, schema), _user(text)]


def digest(
    desk: Desk, settings: Settings, since: int, schema: Mapping[str, Any] = {}
) -> list[Message]:
    """Return the messages that ask what the experiments from one on show together."""
    items = [item for item in desk.history.decided if item.number >= since]
    memory = desk.review(settings.prompt_tokens // 2)
    text = rendered(
        "digest",
        settings,
        recent=[data(line, 4 * _DIFF) for line in _recent(desk, items)],
        memory=data(memory, settings.prompt_tokens * CHARACTERS),
    )
    return [_system("digest_system", settings, schema), _user(text)]


def correction(settings: Settings, stage: str, reason: str, *, last: bool) -> Message:
    """Return the message that sends a refusal back; ``last``: no further answer is paid for."""
    return _user(rendered("refused", settings, stage=stage, reason=data(reason, 4_000), last=last))


def attempt(look: Any, *given: Any) -> Any:
    """Return what the desk finds, nothing where it is gone."""
    try:
        return look(*given)
    except (AutoresearchError, OSError):
        return ""


def data(text: str, limit: int) -> str:
    """Return text from outside, cleaned and cut, that cannot end its own block."""
    return block(text, limit).replace("END DATA", "END-DATA").replace("BEGIN DATA", "BEGIN-DATA")


def on_a_plateau(history: History) -> bool:
    """Whether one was declared so lately that something bold is due."""
    since = max(history.plateaus[-1].experiments, default=0) if history.plateaus else None
    return since is not None and since >= len(history.experiments) - 2


def _system(name: str, settings: Settings, schema: Mapping[str, Any]) -> Message:
    written = schema and not settings.is_held
    told = json.dumps(schema, separators=(",", ":")) if written else ""
    return {"role": "system", "content": rendered(name, settings, schema_text=told)}


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _shown(files: Mapping[str, str], room: int) -> list[tuple[str, str]]:
    """Return the files, the script first, up to the number of characters that are shown."""
    shown = []
    for path, text in files.items():
        more = "" if len(text) <= room else f"\n[{len(text) - room:,} further characters]"
        shown.append((data(one_line(path), 300), text[:room] + more))
        room = max(0, room - len(text))
    return shown


def _limits(history: History) -> Iterator[str]:
    """Yield what a run and its artifact may use, and the noise that a person set."""
    config = history.started.config if history.started else {}
    limits, metric = config.get("limits") or {}, config.get("metric") or {}
    if isinstance(limits, Mapping) and limits.get("artifact_bytes"):
        yield f"an artifact must be smaller than {limits['artifact_bytes']:,} bytes"
    if isinstance(limits, Mapping) and limits.get("timeout_seconds"):
        yield f"a run is ended after {limits['timeout_seconds']:g} seconds"
    if isinstance(metric, Mapping) and metric.get("sd"):
        yield f"noise: seed to seed {history.metric} has a standard deviation of {metric['sd']:g}"


def _recent(desk: Desk, items: Iterable[Experiment]) -> Iterator[str]:
    """Yield experiments with what was expected, what came out, why, and the change."""
    history = desk.history
    for item in items:
        if item.number <= history.baseline_number:
            continue
        told = item.analysis
        lines = [
            f"experiment {item.number} ({item.verdict}): {one_line(item.idea.description, 160)}",
            f"  expected: {one_line(item.idea.hypothesis, 240)}",
        ]
        if changed := one_line(describe(item.idea.changes), 160):
            lines.append(f"  changed: {changed}")
        if told is not None:
            lines += [
                f"  why: {one_line(told.why, 300)}",
                f"  lesson: {one_line(told.lesson, 240)}",
            ]
        diff = attempt(desk.diff, item.number) if item.source_digest else ""
        yield "\n".join(lines) + (f"\n{block(diff, _DIFF)}" if diff else "")


def _crash(desk: Desk) -> str:
    """Return the end of the output of the newest experiment, where it crashed."""
    decided = desk.history.decided[-3:]
    crashed = [i for i in decided if i.runs and i.runs[-1].status is RunStatus.CRASHED]
    return desk.log_tail(crashed[-1].runs[-1].name, _TAIL) if crashed else ""


def _points(curve: Mapping[int, float] | str, most: int = 20) -> str:
    """Return a curve as pairs, thinned out evenly."""
    if not curve or isinstance(curve, str):
        return "none"
    points = sorted(curve.items())
    stride = max(1, -(-len(points) // most))
    kept = [*points[:-1:stride], points[-1]]
    return " ".join(f"{step}:{value:.5g}" for step, value in kept)
