"""What is checked before money is spent: rules S1 to S10 over the source of a training script.

Only findings of severity ``violation`` block a run. A finding that the script had before the change
is not held against the change, so that an accepted script is not stopped by a rule it already met.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import PurePosixPath

from autoresearch.golf.audits.doubts import audit_doubts
from autoresearch.golf.audits.forgery import audit_flags, audit_prints
from autoresearch.golf.audits.imports import audit_imports, audit_literals
from autoresearch.golf.audits.region import audit_region, audit_replaced
from autoresearch.golf.audits.script import (
    Script,
    added,
    called,
    finding,
    parse_script,
    try_parse,
    written,
)
from autoresearch.golf.audits.settings import audit_settings, audit_size
from autoresearch.golf.audits.tampering import audit_tampering
from autoresearch.golf.audits.validation import audit_validation
from autoresearch.golf.plausibility import ARTIFACT_LIMIT
from autoresearch.model import Change, IdeaKind, Violation
from autoresearch.python_source import fault
from autoresearch.text import one_line


def audit_source(
    source: str,
    *,
    pristine: str | None = None,
    evaluation_change: bool = False,
    env: Mapping[str, str] | None = None,
    limit: int = ARTIFACT_LIMIT,
    ratio: float | None = None,
) -> tuple[Violation, ...]:
    """Audit a script, against ``pristine`` where there is one; findings come in order of line.

    ``evaluation_change`` says that the experiment is typed as one, so that a changed measuring
    stick is a warning which asks for the model tests. ``env`` holds the run's overrides of the
    defaults; ``limit`` is the artifact's, in bytes, ``ratio`` that of `audit_size`. A script that
    does not compile is a finding.
    """
    refused = fault(source)
    if refused is not None:  # nothing else can be audited then
        return (finding("S2", refused.line or 1, f"does not compile: {refused.message}"),)
    try:
        size = partial(audit_size, env=env or {}, limit=limit, ratio=ratio)
        found = _audited(source, pristine, evaluation_change, size)
    except RecursionError:
        return (finding("S2", 1, "nested too deeply to be audited"),)
    return tuple(sorted(found, key=lambda v: (v.line or 0, v.rule, v.detail)))


def _audited(
    source: str, pristine: str | None, typed: bool, size: Callable[..., Iterator[Violation]]
) -> list[Violation]:
    script, before = parse_script(source), _parsed(pristine)
    found = [*size(script, before), *_findings(script, before, typed)]
    if before is None:
        return found
    # Lines may have moved; everything else about a finding is the same before and after.
    return list(added(found, _inherent(before, typed), lambda v: (v.rule, v.detail, v.severity)))


def audit_change(
    change: Change,
    *,
    allowed: Sequence[str],
    env: Mapping[str, str] | None = None,
    limit: int = ARTIFACT_LIMIT,
    ratio: float | None = None,
    required_calls: Sequence[str] = (),
) -> tuple[Violation, ...]:
    """Audit a change: S1 over its files, the rest over the script after it against before it.

    ``allowed`` are the files that an experiment may touch, relative to the repository; ``env`` are
    the settings that a person gave the whole campaign, which decide about the size, with ``ratio``;
    ``required_calls`` are calls, such as ``dist.barrier``, that the change must not take away.
    """
    scope = tuple(audit_files(tuple(change.files), allowed))
    scope += tuple(audit_required(change.after, change.before or change.pristine, required_calls))
    found = audit_source(
        change.after,
        pristine=change.before or change.pristine or None,
        evaluation_change=change.idea.kind is IdeaKind.EVALUATION,
        env={**(env or {}), **change.idea.env},
        limit=limit,
        ratio=ratio,
    )
    typed = change.idea.kind is IdeaKind.EVALUATION
    return scope + found + tuple(audit_environment(change.idea.env, typed=typed))


def audit_files(files: Sequence[str], allowed: Sequence[str]) -> Iterator[Violation]:
    """S1: yield each changed file that an experiment may not touch."""
    fine = {PurePosixPath(name) for name in allowed}
    for name in files:
        if PurePosixPath(name) not in fine:
            detail = f"changes {name}: only {', '.join(sorted(map(str, fine)))} may change"
            yield Violation(rule="S1", detail=detail)


def audit_required(after: str, before: str, names: Sequence[str]) -> Iterator[Violation]:
    """S5: yield each call that a person named and that a script makes in fewer places than before.

    A name is written as the script writes it, or only its last part: ``synchronize``.
    """
    now, then = _calls(after), _calls(before)
    for name in names:
        if now[name] < then[name]:
            detail = f"{name}() is called {now[name]} times, before it was {then[name]}"
            yield Violation(rule="S5", detail=f"{detail}: keep what required_calls names")


def _calls(source: str) -> Counter[str]:
    script = try_parse(source)
    found: Counter[str] = Counter()
    for node in script.every(ast.Call) if script is not None else ():
        found.update({written(node.func), called(node)})
    return found


def audit_environment(env: Mapping[str, str], *, typed: bool = False) -> Iterator[Violation]:
    """S8 and S7 for overrides: yield those that buy time, spare validation or choose a seed.

    An idea that is ``typed`` as an evaluation change may bring another tokenizer and its data.
    """
    if not env:
        return
    # What a script with these defaults would be told.
    reads = [f"os.environ.get({name!r}, {env[name]!r})" for name in sorted(env)]
    for violation in audit_settings(parse_script("\n".join(["import os", *reads])), None):
        yield Violation(rule=violation.rule, detail=violation.detail, severity=violation.severity)
    for name in sorted(env.keys() & {"SEED", "DATA_PATH", "TOKENIZER_PATH", "MODEL_TEST"}):
        if typed and name in ("DATA_PATH", "TOKENIZER_PATH"):
            detail = f"another {name}: the bytes of its text are held against the baseline's"
            yield Violation(rule="S5", detail=detail, severity="warning")
            continue
        rule = "S7" if name == "SEED" else "S8"
        yield Violation(rule=rule, detail=f"an idea sets {name}: it belongs to the runner")


def needs_model_tests(findings: Sequence[Violation]) -> bool:
    """Whether the way of measuring may have changed, so that the canary has to judge the script."""
    return any(item.rule == "S5" for item in findings)


def format_findings(findings: Sequence[Violation], name: str = "train_gpt.py") -> str:
    """One line for each finding, ``file:line: rule severity: why``, and one that sums up."""
    lines = [
        f"{name}:{v.line or 1}: {v.rule} {v.severity}: {one_line(v.detail, 400)}" for v in findings
    ]
    blocking = sum(v.blocks for v in findings)
    warnings = len(findings) - blocking
    verdict = "must not run" if blocking else "may run"
    return "\n".join([*lines, f"{name}: {verdict}: {blocking} violations, {warnings} warnings"])


@lru_cache(maxsize=8)
def _parsed(source: str | None) -> Script | None:
    return parse_script(source) if source and fault(source) is None else None


@lru_cache(maxsize=8)
def _inherent(script: Script, typed: bool) -> tuple[Violation, ...]:
    """Findings that need no comparison; one script at head is asked for many changes."""
    return (
        *audit_imports(script),
        *audit_validation(script, typed=typed),
        *audit_literals(script),
        *audit_flags(script),
        *audit_settings(script, None),
        *audit_replaced(script, None, typed=typed),
    )


def _findings(script: Script, before: Script | None, typed: bool) -> Iterator[Violation]:
    yield from audit_imports(script)
    yield from audit_validation(script, typed=typed)
    yield from audit_region(script, before, typed=typed)
    yield from audit_replaced(script, before, typed=typed)
    yield from audit_tampering(script, before, typed=typed)
    yield from audit_literals(script)
    yield from audit_settings(script, before)
    yield from audit_prints(script, before, typed=typed)
    yield from audit_flags(script)
    if before is not None:
        yield from audit_doubts(script, before)
