"""How an idea becomes a commit: write it into a worktree, check its scope, audit, commit."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from attrs import evolve

from autoresearch import events
from autoresearch.cycle import Kit, proposals
from autoresearch.cycle.proposals import current, drop, put_back, refusal
from autoresearch.cycle.recorder import passes
from autoresearch.durable import digest, tree_digest
from autoresearch.errors import AutoresearchError, WorkspaceError
from autoresearch.frozen import alike
from autoresearch.ideas import differences, with_changes
from autoresearch.model import Change, Experiment, Idea, IdeaKind, Violation, Workspace
from autoresearch.python_source import fault
from autoresearch.text import one_line


class _NoCodeError(Exception):
    """Words that no plugin turned into code: none can (``plugin``), or one failed (``outage``)."""

    def __init__(self, said: str, waits_for: str) -> None:
        super().__init__(said)
        self.waits_for = waits_for


def change(kit: Kit) -> None:
    """Write the idea into a worktree, audit it and commit it; or drop it, saying why."""
    try:
        made = prepare(kit, kit.lab.worktree(current(kit).number, kit.head_commit()))
    except _NoCodeError as error:
        put_back(kit, str(error), error.waits_for)
    except (WorkspaceError, OSError, UnicodeError) as error:
        if passes(error):
            raise  # the disk or git is to blame, and the idea is not
        reason = one_line(str(error), 1_000)
        rejected = events.ChangeRejected(experiment=current(kit).number, reason=reason)
        drop(kit, reason, "patch", rejected)
    else:
        submit(kit, made)


def prepare(
    kit: Kit, workspace: Workspace, texts: Mapping[str, str] | None = None, empty: bool = False
) -> Change:
    """Write the idea into a clean worktree, with ``texts`` as its code where they are given.

    Raises WorkspaceError for what cannot be tried; only an ``empty`` change may change nothing.
    """
    idea = _restored(kit, current(kit))
    idea = evolve(idea, files=texts) if texts else idea
    idea = idea if empty else _with_code(kit, idea, workspace)
    kit.lab.apply(idea, workspace)
    made = _as_change(kit, idea, kit.files_at_head(), kit.lab.changed_files(workspace))
    problem = None if empty and not made.files else _problem(kit, made)
    if problem:
        raise WorkspaceError(problem)
    return made


def submit(kit: Kit, made: Change) -> None:
    """Audit a change and commit it, or drop it for what was found."""
    number = current(kit).number
    workspace = kit.lab.workspace(number)
    applied = _applied(kit, made, kit.files_at_head(), number)
    findings = kit.plugins.audit_change(made, workspace, kit.history)
    if any(item.blocks for item in findings):
        _refuse(kit, applied, findings)
    else:
        _commit(kit, made, workspace, kit.head_commit(), applied, _passed(number, findings))


def reapply(kit: Kit, number: int) -> list[events.Event]:
    """Make the change of an experiment again on head, which moved, and return what to record.

    Raises WorkspaceError with the conflict where that cannot be.
    """
    experiment, head = kit.history.experiments[number], kit.head_commit()
    before, own = kit.files_at_head(), kit.files_of(experiment)
    below = kit.files_of(kit.history.experiments[experiment.built_on or 0])
    differing = {path: text for path, text in own.items() if text != below.get(path)}
    idea = evolve(experiment.idea, source=None, files={}, patch=None)
    workspace = kit.lab.worktree(number, head)
    if texts := _moved_values(below, differing, before, kit.lab.script):
        kit.lab.apply(evolve(idea, files=texts), workspace)
    elif differing:
        kit.lab.apply(evolve(idea, patch=kit.lab.as_patch(below, differing)), workspace)
    made = _as_change(kit, idea, before, kit.lab.changed_files(workspace))
    refused, findings = _checked(kit, made, workspace)
    if refused:
        raise WorkspaceError(refused)
    applied = _applied(kit, made, before, number)
    committed = _committed(kit, made, workspace, head, applied)
    return [applied, _passed(number, findings), committed]


def _moved_values(
    below: Mapping[str, str], own: Mapping[str, str], head: Mapping[str, str], script: str
) -> Mapping[str, str]:
    """Return head's files with the values that a change moved, where it is nothing but values.

    A merge of lines takes neighbours for a clash, and settings are neighbours. Empty where the
    change is more than that, or head has other values than those that it began with.
    """
    try:
        moved = differences(below, own, script)
        if with_changes(below, moved, script) != own:
            return {}
        back = [evolve(item, new=item.old) for item in moved]
        return {} if with_changes(head, back, script) else with_changes(head, moved, script)
    except AutoresearchError:
        return {}


def adopt_baseline(kit: Kit) -> None:
    """Let the baseline stand at the commit that the campaign starts from, without a new one."""
    assert kit.history.started is not None
    base, number = kit.history.started.base_commit, current(kit).number
    kit.lab.keep(number, base)
    kit.publish()
    kit.recorder.record(
        events.CommitMade(
            experiment=number,
            commit=base,
            parent=base,
            ref=kit.lab.ref(number),
            source_digest=current(kit).source_digest,
        )
    )


def fix(
    kit: Kit, number: int, idea: Idea, attempt: int, problem: str,
    texts: Mapping[str, str] | None = None,
) -> str:  # fmt: skip
    """Commit the fix of a crash, ``texts`` or a plugin's; return why there is none, or nothing."""
    experiment = kit.history.experiments[number]
    workspace = kit.lab.worktree(experiment.number, experiment.commit)
    before = kit.files_of(experiment)
    texts = texts or _implemented(kit, idea, workspace)
    if not texts:
        return "no plugin has a fix"
    idea = evolve(idea, files=texts)
    kit.lab.apply(idea, workspace)
    made = _as_change(kit, idea, before, kit.lab.changed_files(workspace))
    refused, findings = _checked(kit, made, workspace)
    if refused:
        kit.lab.worktree(experiment.number, experiment.commit)
        kit.recorder.record(refusal(experiment, "fix", refused))
        return refused
    applied = _applied(kit, made, before, number)
    attempted = events.FixAttempted(
        experiment=experiment.number,
        attempt=attempt,
        problem=problem,
        fix=one_line(idea.description, 300),
        source_digest=applied.source_digest,
    )
    passed = _passed(number, findings)
    _commit(kit, made, workspace, experiment.commit, applied, passed, attempted)
    return ""


def _restored(kit: Kit, experiment: Experiment) -> Idea:
    """Give an idea back the texts that the log holds of it by digest alone."""
    digests = dict(experiment.sources)
    if not digests and experiment.source_digest:
        digests = {kit.lab.script: experiment.source_digest}
    if not digests:
        return experiment.idea
    return evolve(experiment.idea, files={p: kit.sources.get(name) for p, name in digests.items()})


def _with_code(kit: Kit, idea: Idea, workspace: Workspace) -> Idea:
    if idea.has_code:
        return idea
    texts = _implemented(kit, idea, workspace)
    if texts is not None:
        return evolve(idea, files=texts)
    failed = ", ".join(name for name, error in kit.plugins.calls.outcomes.items() if error)
    if failed:
        raise _NoCodeError(f"{failed} failed to turn the idea into code", "outage")
    said = "no plugin turns words into code; queue a patch, or make such a plugin active"
    if idea.author in kit.plugins.active:
        raise WorkspaceError(said)  # a plugin's own words are no one's wish
    raise _NoCodeError(said, "plugin")


def _implemented(kit: Kit, idea: Idea, workspace: Workspace) -> Mapping[str, str] | None:
    texts = kit.plugins.implement_idea(idea, workspace, proposals.resting(kit), proposals.desk(kit))
    proposals.answered(kit)
    kit.record_costs()
    return texts


def _as_change(
    kit: Kit, idea: Idea, before: Mapping[str, str], files: Mapping[str, str | None]
) -> Change:
    script = kit.lab.script
    gone = [path for path, text in files.items() if text is None]
    if gone:
        raise WorkspaceError(f"the idea deletes {gone[0]}; an idea changes files or adds some")
    new = {path: text for path, text in files.items() if text is not None}
    return Change(
        idea=idea,
        before=before[script],
        after=new.get(script, before[script]),
        files=new,
        pristine=kit.pristine()[script],
        originals={path: before[path] for path in new if path in before},
    )


def _problem(kit: Kit, made: Change) -> str | None:
    if not made.files and (not made.idea.env or made.idea.kind is IdeaKind.FIX):
        return f"the idea changes nothing; propose a change of {kit.lab.script}"
    problems = (syntax_problem(path, text) for path, text in made.files.items())
    return next((problem for problem in problems if problem), None)


def _checked(
    kit: Kit, made: Change, workspace: Workspace
) -> tuple[str | None, Sequence[Violation]]:
    """Return why a change cannot be tried or must not run, None where it may, and the findings."""
    if problem := _problem(kit, made):
        return problem, ()
    findings = kit.plugins.audit_change(made, workspace, kit.history)
    return next((_why(item) for item in findings if item.blocks), None), findings


def syntax_problem(script: str, text: str) -> str | None:
    """Return what is wrong with a Python script that does not compile, else None."""
    found = fault(text, as_file=True) if script.endswith(".py") else None
    if found is None:
        return None
    line = f" line {found.line}" if found.line else ""
    return f"{script}{line} does not compile: {found.message}; correct it"


def _applied(
    kit: Kit, made: Change, before: Mapping[str, str], number: int
) -> events.ChangeApplied:
    sources = kit.store({**before, **made.files})
    changed = [_lines(made.originals.get(path, ""), text) for path, text in made.files.items()]
    return events.ChangeApplied(
        experiment=number,
        source_digest=tree_digest(sources),
        parent_digest=tree_digest({path: digest(text) for path, text in before.items()}),
        files=tuple(made.files),
        added_lines=sum(added for added, _ in changed),
        removed_lines=sum(removed for _, removed in changed),
        sources=sources,
    )


def _lines(before: str, after: str) -> tuple[int, int]:
    diff = [line[:1] for line in difflib.ndiff(before.splitlines(), after.splitlines())]
    return diff.count("+"), diff.count("-")


def _refuse(kit: Kit, applied: events.ChangeApplied, findings: Sequence[Violation]) -> None:
    blocking = [item for item in findings if item.blocks]
    failed = [broken(applied.experiment, item) for item in blocking]
    drop(kit, _why(blocking[0]), "audit", applied, *failed)


def broken(number: int, found: Violation, **more: str) -> events.AuditFailed:
    """Return the fact that an experiment broke a rule."""
    detail = one_line(found.detail, 1_000)
    return alike(events.AuditFailed, found, experiment=number, detail=detail, **more)


def _why(found: Violation) -> str:
    return f"audit {found.rule}: {found.detail}"


def _passed(number: int, findings: Sequence[Violation]) -> events.AuditPassed:
    warned = tuple(f"{item.rule}: {one_line(item.detail, 300)}" for item in findings)
    return events.AuditPassed(experiment=number, warnings=warned)


def _commit(
    kit: Kit, made: Change, workspace: Workspace, parent: str, applied: events.ChangeApplied,
    *before: events.Event,
) -> None:  # fmt: skip
    """Commit the change with the log's tip in its trailer, and record all of it together.

    Until then the experiment stands at its earlier commit, where a resumed loop starts again.
    """
    committed = _committed(kit, made, workspace, parent, applied)
    kit.recorder.record_together(applied, *before, committed)


def _committed(
    kit: Kit, made: Change, workspace: Workspace, parent: str, applied: events.ChangeApplied
) -> events.CommitMade:
    number, runs = applied.experiment, len(kit.history.experiments[applied.experiment].runs)
    # A ref that a fact names is not moved: a kill before the next fact would leave it wrong.
    ref = kit.lab.later_ref(number, runs) if runs else kit.lab.ref(number)
    done = kit.lab.commit(ref, workspace, made, _message(kit, made.idea, number))
    kit.publish()
    return events.CommitMade(
        experiment=number,
        commit=done,
        parent=parent,
        ref=ref,
        source_digest=applied.source_digest,
    )


def _message(kit: Kit, idea: Idea, number: int) -> str:
    fix = "fix: " if idea.kind is IdeaKind.FIX else ""
    env = "".join(
        # One line each: a value with a line break could pose as a trailer of its own.
        f"Autoresearch-Env: {one_line(f'{key}={value}')}\n"
        for key, value in sorted(idea.env.items())
    )
    return (
        f"Experiment {number}: {fix}{one_line(idea.description, 100)}\n\n"
        f"{one_line(idea.hypothesis, 500)}\n\n"
        f"Autoresearch-Experiment: {kit.history.campaign}/{number}\n"
        f"Autoresearch-Tip: {kit.recorder.tip()}\n{env}"
    )
