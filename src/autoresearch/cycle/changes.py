"""How an idea becomes a commit: write it into a worktree, check its scope, audit, commit."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence

from attrs import evolve

from autoresearch import events
from autoresearch.cycle.kit import Kit, digest
from autoresearch.cycle.proposals import current, drop
from autoresearch.errors import WorkspaceError
from autoresearch.model import Change, Experiment, Idea, IdeaKind, Violation, Workspace
from autoresearch.text import one_line


def change(kit: Kit) -> None:
    """Write the idea into a worktree, audit it and commit it; or drop it, saying why."""
    experiment = current(kit)
    idea = _restored(kit, experiment)
    workspace = kit.lab.worktree(experiment.number, kit.head_commit())
    before = workspace.read_script()
    try:
        idea = _with_code(kit, idea, workspace)
        kit.lab.apply(idea, workspace)
        _check_still_a_file(workspace)
        after = workspace.read_script()
        _check_scope(kit, idea, workspace, before != after)
    except (WorkspaceError, OSError, UnicodeError) as error:
        _reject(kit, str(error))
        return
    problem = syntax_problem(kit.lab.script, after)
    if problem:
        _reject(kit, problem)
        return
    made = _as_change(kit, idea, before, after)
    _record_change(kit, made)
    findings = kit.plugins.audit_change(made, workspace)
    blocking = [item for item in findings if item.blocks]
    if blocking:
        _refuse(kit, blocking)
        return
    _record_passed(kit, findings)
    commit(kit, idea, workspace, after)


def adopt_baseline(kit: Kit) -> None:
    """Let experiment 0 stand at the commit that the campaign starts from, without a new one."""
    assert kit.history.started is not None
    base = kit.history.started.base_commit
    kit.lab.keep(0, base)
    kit.recorder.record(
        events.CommitMade(
            experiment=0,
            commit=base,
            parent=base,
            ref=kit.lab.ref(0),
            source_digest=digest(kit.script_at(base)),
        )
    )


def mend(kit: Kit, idea: Idea) -> bool:
    """Let a plugin mend the crash that ``idea`` describes and commit it; False when none can."""
    experiment = current(kit)
    workspace = kit.lab.worktree(experiment.number, experiment.commit)
    before = workspace.read_script()
    after = kit.plugins.implement_idea(idea, workspace)
    kit.record_costs()
    if after is None or after == before or syntax_problem(kit.lab.script, after):
        return False
    idea = evolve(idea, source=after)
    kit.lab.apply(idea, workspace)
    made = _as_change(kit, idea, before, after)
    findings = kit.plugins.audit_change(made, workspace)
    if any(item.blocks for item in findings):
        kit.lab.worktree(experiment.number, experiment.commit)
        return False
    _record_change(kit, made)
    _record_passed(kit, findings)
    commit(kit, idea, workspace, after)
    return True


def _restored(kit: Kit, experiment: Experiment) -> Idea:
    if not experiment.source_digest:
        return experiment.idea
    return evolve(experiment.idea, source=kit.sources.get(experiment.source_digest))


def _with_code(kit: Kit, idea: Idea, workspace: Workspace) -> Idea:
    if idea.has_code:
        return idea
    source = kit.plugins.implement_idea(idea, workspace)
    kit.record_costs()
    if source is None:
        raise WorkspaceError("no plugin could turn the idea into code; queue it with a patch")
    return evolve(idea, source=source)


def _check_still_a_file(workspace: Workspace) -> None:
    # The next idea would be written through a link, to wherever it points.
    path = workspace.script_path
    if path.is_symlink() or not path.is_file():
        raise WorkspaceError(f"the idea leaves no plain file {workspace.script}; change its text")


def _check_scope(kit: Kit, idea: Idea, workspace: Workspace, differs: bool) -> None:
    outside = [path for path in kit.lab.changed_files(workspace) if path != kit.lab.script]
    if outside:
        raise WorkspaceError(f"the idea changes {outside[0]}; only {kit.lab.script} may change")
    if not differs and not idea.env:
        raise WorkspaceError("the idea changes nothing; propose a change of the script")


def _reject(kit: Kit, reason: str) -> None:
    number = current(kit).number
    kit.recorder.record(events.ChangeRejected(experiment=number, reason=one_line(reason, 1_000)))
    drop(kit, reason)


def syntax_problem(script: str, text: str) -> str | None:
    """Return what is wrong with a Python script that does not compile, else None."""
    if not script.endswith(".py"):
        return None
    try:
        with warnings.catch_warnings():
            # An odd escape in a string is the script's own affair, at most a warning.
            warnings.simplefilter("ignore")
            # As bytes, so that a byte order mark and a coding line count as in a real run.
            compile(text.encode(), script, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = f" line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        return f"{script}{line} does not compile: {said}; mend it"
    except (MemoryError, RecursionError):
        return f"{script} does not compile: an expression is nested too deeply; mend it"
    return None


def _record_change(kit: Kit, made: Change) -> None:
    kit.sources.put(made.after)
    added, removed = _lines(made.before, made.after)
    kit.recorder.record(
        events.ChangeApplied(
            experiment=current(kit).number,
            source_digest=digest(made.after),
            parent_digest=digest(made.before),
            files=made.files,
            added_lines=added,
            removed_lines=removed,
        )
    )


def _as_change(kit: Kit, idea: Idea, before: str, after: str) -> Change:
    assert kit.history.started is not None
    pristine = kit.script_at(kit.history.started.base_commit)
    files = (kit.lab.script,) if before != after else ()
    return Change(idea=idea, before=before, after=after, files=files, pristine=pristine)


def _lines(before: str, after: str) -> tuple[int, int]:
    diff = [line[:1] for line in difflib.ndiff(before.splitlines(), after.splitlines())]
    return diff.count("+"), diff.count("-")


def _refuse(kit: Kit, blocking: list[Violation]) -> None:
    number = current(kit).number
    for item in blocking:
        kit.recorder.record(_failed(number, item))
    drop(kit, f"audit {blocking[0].rule}: {blocking[0].detail}")


def _record_passed(kit: Kit, findings: Sequence[Violation]) -> None:
    warned = tuple(f"{item.rule}: {one_line(item.detail, 300)}" for item in findings)
    kit.recorder.record(events.AuditPassed(experiment=current(kit).number, warnings=warned))


def _failed(number: int, item: Violation) -> events.AuditFailed:
    return events.AuditFailed(
        experiment=number, rule=item.rule, detail=one_line(item.detail, 1_000), line=item.line
    )


def commit(kit: Kit, idea: Idea, workspace: Workspace, after: str) -> None:
    """Commit the change with the log's head in its trailer, and record the commit."""
    number = current(kit).number
    parent = kit.lab.commit_in(workspace)
    made = kit.lab.commit(number, workspace, _message(kit, idea, number))
    kit.recorder.record(
        events.CommitMade(
            experiment=number,
            commit=made,
            parent=parent,
            ref=kit.lab.ref(number),
            source_digest=digest(after),
        )
    )


def _message(kit: Kit, idea: Idea, number: int) -> str:
    fix = "fix: " if idea.kind is IdeaKind.FIX else ""
    env = "".join(f"Autoresearch-Env: {key}={value}\n" for key, value in sorted(idea.env.items()))
    return (
        f"Experiment {number}: {fix}{one_line(idea.description, 100)}\n\n"
        f"{one_line(idea.hypothesis, 500)}\n\n"
        f"Autoresearch-Experiment: {kit.history.campaign}/{number}\n"
        f"Autoresearch-Head: {kit.recorder.head()}\n{env}"
    )
