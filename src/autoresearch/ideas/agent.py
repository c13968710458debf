"""Lets a coding agent change a copy of the project; its change of the editable files is the idea.

The agent is any command that reads its task on standard input: `codex exec`, `claude -p`, `aider`,
or one's own. The copy has no repository, remote, key or log in it and is thrown away.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from autoresearch.config import BoundaryConfig, Config, setting
from autoresearch.desk import Desk
from autoresearch.durable import is_editable
from autoresearch.errors import OutageError, PluginError, SuspendedError
from autoresearch.history import History
from autoresearch.hookspecs import WithTable, hookimpl
from autoresearch.ideas.answers import objects
from autoresearch.model import Cost, Idea, Workspace
from autoresearch.text import block, one_line

_SANDBOXES = {False: "workspace-write", True: "danger-full-access"}  # codex's own words
# The words of each known agent, and the places of its own login, which it may use in a boundary.
PRESETS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "codex": (
        (
            *("codex", "exec", "--json", "--skip-git-repo-check"),
            *("--sandbox", "{sandbox}", "-"),
        ),
        ("~/.codex",),
    ),
    "claude": (
        ("claude", "-p", "--output-format", "json", "--permission-mode", "acceptEdits"),
        ("~/.claude", "~/.claude.json"),
    ),
    "aider": (
        ("aider", "--yes-always", "--no-git", "--message-file", "/dev/stdin", "{script}"),
        ("~/.aider.conf.yml",),
    ),
}
_COMPLETED = "turn.completed"  # codex's own word
_WORDS = {"direction": 80, "description": 300, "hypothesis": 2_000, "risk": 1_000}

_TASK = """\
You are one step of an autonomous research loop: you propose the next experiment by making it.
You stand in a copy of a project. Change {editable}, and nothing else: other changes are thrown
away. Make one change that you expect to give a {better} `{metric}`. Do not run the training, do
not install anything, do not use git. The loop runs your change and measures it.

{limits}
{refused}
What is known; what people steer stands in it, follow that:

{review}

End your last message with one JSON object, alone on its lines:
{{"direction": "family of the change", "description": "the change in a few words",
"hypothesis": "what you expect and why", "evidence": "earlier results or theory",
"risk": "what could go wrong", "cites": [numbers of the experiments it rests on],
"predicted": expected {metric} or null}}
"""


@frozen(kw_only=True)
class Settings:
    """Which agent, how long, and what it may reach."""

    preset: str = setting("codex", "codex, claude or aider; where no command is set")
    command: tuple[str, ...] = setting(
        (),
        "program and arguments; the task is on standard input, {script} is the script's path, "
        "{sandbox} codex's word for what it may do, which is more where bubblewrap holds it",
    )
    timeout_seconds: float = setting(1_800.0, "it is ended with all its children after this")
    review_tokens: int = setting(12_000, "of the memory that it is shown")
    pass_env: tuple[str, ...] = setting(
        (), "variables of your environment that it sees, such as its own key"
    )
    network: bool = setting(True, "it may use the network; held by bubblewrap alone")
    writes: tuple[str, ...] = setting(
        (), "further paths that it may write in bubblewrap; its own login is among them"
    )


@frozen(kw_only=True)
class Said:
    """What an agent's output says: its last words, its price, and whether it failed."""

    text: str
    cost: Cost = field(factory=Cost)
    failed: str = ""


class Plugin(WithTable[Settings]):
    """Proposes by an agent's change, turns words into code, and repairs crashes."""

    name, Settings = "agent", Settings

    @hookimpl
    def configure(self, config: Config) -> None:
        """Read ``[tool.autoresearch.plugins.agent]``; a preset has to be known."""
        super().configure(config)
        if not self._settings.command and self._settings.preset not in PRESETS:
            raise PluginError(
                f"plugins.agent.preset is {self._settings.preset!r}; use one of "
                f"{', '.join(PRESETS)}, or set plugins.agent.command"
            )

    @hookimpl
    def propose_idea(self, history: History, files: Mapping[str, str], desk: Desk) -> Idea:
        """Return the agent's change; PluginError for none, OutageError where it gave no answer."""
        texts, said = self._work(desk, files, self._task(desk))
        told = [{}, *objects(said.text, json.JSONDecoder())][-1]
        number = history.best_number or 0
        cites = told.get("cites")
        cites = cites if isinstance(cites, list) and cites else [number]
        unknown = [n for n in cites if not isinstance(n, int) or not 0 <= n < history.next_number]
        if unknown:
            raise PluginError(f"the agent cites experiment {unknown[0]!r}, which is not there")
        predicted = told.get("predicted")
        last = one_line(said.text.strip().rpartition("\n")[2], 300) or "a change by the agent"
        words = {key: one_line(str(told.get(key) or ""), room) for key, room in _WORDS.items()}
        return Idea(
            direction=words["direction"] or "agent",
            description=words["description"] or last,
            hypothesis=words["hypothesis"] or f"the agent said: {last}",
            risk=words["risk"] or "none told",
            evidence=(one_line(str(told.get("evidence") or "none told"), 500),),
            cites=tuple(cites),
            predicted=float(predicted) if isinstance(predicted, int | float) else None,
            files=texts,
        )

    @hookimpl
    def implement_idea(self, idea: Idea, workspace: Workspace, desk: Desk) -> Mapping[str, str]:
        """Return the files into which the agent wrote an idea in words, or repaired a crash."""
        files = workspace.read_editable()
        task = f"{self._task(desk)}\nMake this change, and no other: "
        return self._work(desk, files, f"{task}{idea.description}\n\n{idea.hypothesis}\n")[0]

    def _task(self, desk: Desk) -> str:
        config = self._config
        refused = [f"- {one_line(item.reason, 300)}" for item in desk.refused[-5:]]
        limit = config.limits.artifact_bytes
        limits = f"A run is killed after {config.limits.timeout_seconds:g} seconds."
        return _TASK.format(
            editable=", ".join(dict.fromkeys((config.script, *config.editable))),
            better=config.metric.better,
            metric=config.metric.name,
            limits=f"{limits} The artifact must be under {limit:,} bytes." if limit else limits,
            refused=_listed("Refused of your earlier changes:", refused),
            review=desk.review(self._settings.review_tokens),
        )

    def _work(self, desk: Desk, files: Mapping[str, str], task: str) -> tuple[dict[str, str], Said]:
        """Let the agent work in a copy, and return the texts that it changed and what it said."""
        with desk.scratch() as copy:
            for path, text in files.items():
                (copy / path).parent.mkdir(parents=True, exist_ok=True)
                (copy / path).write_bytes(text.encode("utf-8"))
            before = _marks(copy)
            name, said = self._told(desk, copy, task)
            texts = {path: text for path, text in self._texts(copy) if files.get(path) != text}
            self._tell_others(desk, copy, before)
        if not texts:
            raise PluginError(f"{name} changed nothing that it may change")
        return texts, said

    def _told(self, desk: Desk, copy: Path, task: str) -> tuple[str, Said]:
        """Give the agent its task in a copy, and return its name and what it said at its end."""
        settings, boundary = self._settings, self._boundary()
        command = self._command(held=desk.holds(copy, boundary))
        name = command[0]
        desk.asked(name, task)
        if shutil.which(name) is None:  # bubblewrap would start: an exit code is all
            raise SuspendedError(
                f"{name} cannot be started: no such program; install it, or set "
                "plugins.agent.command"
            )
        limit, passed = settings.timeout_seconds, settings.pass_env
        ended = desk.run(command, copy, text=task, seconds=limit, passed=passed, boundary=boundary)
        said = read(ended.output)
        desk.answered(name, f"{ended.output}\n{ended.errors}", said.cost)
        if ended.stopped or ended.exit_code or said.failed:
            why = ended.stopped or said.failed or one_line(ended.errors[-300:], 300)
            raise OutageError(f"{name} ended with exit code {ended.exit_code}: {why}")
        return name, said

    def _command(self, *, held: bool) -> list[str]:
        """Return the words of the program. One sandbox cannot be set up inside another."""
        words = self._settings.command or PRESETS[self._settings.preset][0]
        names = {"{script}": self._config.script, "{sandbox}": _SANDBOXES[held]}
        return [names.get(word, word) for word in words]

    def _boundary(self) -> BoundaryConfig:
        """Return what holds the agent: it may write its login, where a preset has one."""
        login = () if self._settings.command else PRESETS[self._settings.preset][1]
        writes = (*self._settings.writes, *(str(Path(place).expanduser()) for place in login))
        return evolve(self._config.boundary, network=self._settings.network, writes=writes)

    def _texts(self, folder: Path) -> Iterator[tuple[str, str]]:
        """Yield the editable files in a folder; a link, or what is no text, is none."""
        for path, place in _walk(folder):
            if path != self._config.script and not is_editable(path, self._config.editable):
                continue
            if not place.is_symlink():
                try:
                    yield path, place.read_bytes().decode("utf-8")
                except (OSError, UnicodeDecodeError):
                    continue

    def _tell_others(self, desk: Desk, copy: Path, before: Mapping[str, tuple[int, ...]]) -> None:
        """Record which other files were changed; none of that leaves the copy."""
        now = _marks(copy)
        changed = sorted(path for path in before.keys() | now if before.get(path) != now.get(path))
        own = (self._config.script, *self._config.editable)
        others = [
            path
            for path in changed
            if path != own[0] and not is_editable(path, own[1:]) and "__pycache__" not in path
        ]
        gone = [path for path in changed if path not in now and path not in others]
        if others or gone:
            named = one_line(", ".join([*others, *gone][:5]), 300)
            desk.refuse(f"it changed {named}; only {', '.join(own)} may change", "change")


def _listed(title: str, lines: list[str]) -> str:
    return "\n".join([title, *lines, ""]) if lines else ""


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    for place in sorted(folder.rglob("*")):
        if place.is_symlink() or place.is_file():
            yield place.relative_to(folder).as_posix(), place


def _marks(folder: Path) -> dict[str, tuple[int, ...]]:
    found = ((path, place.lstat()) for path, place in _walk(folder))
    return {path: (at.st_mode, at.st_size, at.st_mtime_ns, at.st_ino) for path, at in found}


def read(output: str) -> Said:
    """Read an agent's output: one JSON result, JSON lines of events, or plain text.

    Dollars are taken where the agent tells them; tokens always.
    """
    try:
        whole = json.loads(output)
    except ValueError:
        whole = None
    if isinstance(whole, dict) and "result" in whole:
        cost = _cost(whole.get("usage"), whole.get("total_cost_usd"))
        failed = one_line(str(whole["result"]), 300) if whole.get("is_error") else ""
        return Said(text=str(whole["result"] or ""), cost=cost, failed=failed)
    events = [item for line in output.splitlines() if (item := _event(line)) is not None]
    if not events:
        return Said(text=block(output, 100_000))
    inner = [item["item"] for item in events if isinstance(item.get("item"), dict)]
    messages = [str(one.get("text", "")) for one in inner if one.get("type") == "agent_message"]
    turns = [_cost(item.get("usage"), None) for item in events if item["type"] == _COMPLETED]
    cost = Cost(
        tokens_in=sum(turn.tokens_in for turn in turns),
        tokens_out=sum(turn.tokens_out for turn in turns),
    )
    ends = [item for item in events if item["type"] in (_COMPLETED, "turn.failed", "error")]
    last = ends[-1] if ends else {"type": _COMPLETED}  # a failure may be followed by a success
    said = last.get("error") or last.get("message") or last["type"]
    failed = "" if last["type"] == _COMPLETED else one_line(str(said), 300)
    return Said(text="\n".join(messages), cost=cost, failed=failed)


def _event(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line) if line.startswith("{") else None
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("type"), str) else None


def _cost(usage: object, usd: object) -> Cost:
    table = usage if isinstance(usage, dict) else {}

    def count(*names: str) -> int:
        found = (table.get(name) for name in names)
        return sum(n for n in found if type(n) is int and n > 0)

    money = float(usd) if isinstance(usd, int | float) and 0 <= usd < 1e6 else 0.0
    read_in = count("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return Cost(tokens_in=read_in, tokens_out=count("output_tokens"), usd=money)
