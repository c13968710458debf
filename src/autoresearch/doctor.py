"""Looks at a project without settings: finds its script, tries it once, and proposes settings."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from attrs import evolve, field, frozen

from autoresearch.durable import end_of
from autoresearch.errors import WorkspaceError
from autoresearch.git import SERVED, Git
from autoresearch.ideas import Hyperparameter, knobs
from autoresearch.ideas.script import is_protected
from autoresearch.launchers.environment import clean_environment
from autoresearch.numbers import GROWING, NAMED, NUMBER, Tail, grows
from autoresearch.python_source import imported, tree
from autoresearch.text import one_line, without_escapes

TRY_SECONDS = 60.0
_SHOWN = 12  # values of the script that the proposal lists
_NAMES = ("train.py", "train_*.py", "*train*.py", "main.py", "run.py", "*.py")  # likeliest first
# What a number is worth as the metric of a campaign, by the parts of its name.
_WORTH = {
    **dict.fromkeys(("val", "valid", "validation", "eval", "test", "dev", "heldout"), 4),
    **dict.fromkeys(("bpb", "bpc", "score", "metric"), 4),
    **dict.fromkeys(("loss", "error", "err", "ppl", "perplexity", "mse", "rmse", "mae", "nll"), 3),
    **dict.fromkeys(("train", "training", "smooth"), -3),
    **dict.fromkeys(("lr", "time", "seconds", "ms", "s", "step", "steps", "epoch", "iter"), -9),
    **dict.fromkeys(("tokens", "params", "parameters", "mb", "bytes", "size", "mfu", "seed"), -9),
}
_SEED_OPTION = re.compile(
    r"""(?:add_argument|option)\(\s*(?:["']-\w["'],\s*)?["'](--(?:random[_-])?seed)["']"""
)
_VALUE = r"([-+]?(?i:(?:\d+(?:,\d{3})*)?\.?\d+(?:e[-+]?\d+)?|nan|inf(?:inity)?))"
_LOOSE = re.compile(
    r"(?P<told>\b(?:(?:val|valid|validation|eval|test)\w*[ _/-]+)?(?:bpb|loss|acc\w*|score|error|"
    rf"f1|auc|perplexity|ppl|r?mse|mae|reward)\b[^\d\n+-]{{0,12}}){NUMBER}(?!\.?\w|,\d)",
    re.IGNORECASE,
)


@frozen(kw_only=True)
class Trial:
    """One run of a script: ``exit_code`` is None where it was stopped after its time."""

    seconds: float
    exit_code: int | None
    numbers: Mapping[str, float]
    log: str
    detail: str = ""


@frozen(kw_only=True)
class Proposal:
    """Settings for a project, each with what it was found from; ``pattern`` is mostly empty."""

    script: str
    command: tuple[str, ...]
    metric: str
    better: str
    pattern: str = ""
    data: tuple[str, ...] = ()
    env: Mapping[str, str] = field(factory=dict)
    editable: tuple[str, ...] = ()
    knobs: Sequence[Hyperparameter] = ()
    others: Sequence[str] = ()
    trial: Trial | None = None
    problems: Sequence[str] = field(factory=tuple)

    @property
    def timeout_seconds(self) -> float:
        """Five times what the run took, at least a minute; 900 where its end was not seen."""
        ended = self.trial is not None and self.trial.exit_code is not None
        return max(60.0, round(5 * self.trial.seconds)) if ended and self.trial else 900.0

    def told(self) -> Iterator[tuple[str, str]]:
        """Yield what was found, for people."""
        yield "script", self.script
        yield "command", " ".join(self.command)
        if self.trial is not None:
            ended = f"exit code {self.trial.exit_code}"
            ended = "stopped there" if self.trial.exit_code is None else ended
            more = f"; {one_line(self.trial.detail)}" if self.trial.detail else ""
            yield "tried", f"{self.trial.seconds:.1f} s, {ended}{more}"
        yield "metric", f"{self.metric}{self._value()}, {self.better} is better{self._also()}"
        if self.editable:
            yield "editable", f"{', '.join(self.editable)}, beside the script"
        shown = [f"{item.key} = {item.value}" for item in self.knobs[:_SHOWN]]
        yield "values", ", ".join(shown) or "none found: ideas need a patch or a mind"
        if self.data:
            yield "data", f"{', '.join(self.data)} (not committed; lent to the runs)"

    def _value(self) -> str:
        found = self.trial.numbers.get(self.metric) if self.trial else None
        return "" if found is None else f" = {found:g}"

    def _also(self) -> str:
        return f"; also printed: {', '.join(self.others[:6])}" if self.others else ""

    def toml(self) -> str:
        """Return autoresearch.toml, with a comment behind each choice that a person should see."""
        how = "one run of it" if self.trial else "its text alone; it was not tried"
        lines = [
            f"# Proposed by autoresearch init from {self.script} and {how}.",
            "# What else can be set: autoresearch config",
            'preset = "plain"',
            f"script = {json.dumps(self.script)}",
            f"command = {json.dumps(self.command)}",
            *(f'env = {{ {name} = "{text}" }}' for name, text in self.env.items()),
            f"editable = {json.dumps(self.editable)}  # files that ideas may change as well",
            f"data = {json.dumps(self.data)}  # not committed; lent to the runs",
            "",
            "[metric]",
            f"name = {json.dumps(self.metric)}{self._comment(self._value() + self._also())}",
            f"better = {json.dumps(self.better)}  # check this",
            f"pattern = {json.dumps(self.pattern)}",
            "# sd = 0.001  # seed-to-seed deviation; without it the baseline is repeated",
            "",
            "[limits]",
            f"timeout_seconds = {self.timeout_seconds}",
            "# hours = 8.0  # stop after so many hours of runs",
            "",
            f"# Values that ideas can change:{'' if self.knobs else ' none found'}",
        ]
        lines += [f"#   {item.key} = {item.value}" for item in self.knobs]
        kept = [line for line in lines if line not in ('pattern = ""',) and "= []" not in line]
        return "\n".join([*kept, ""])

    @staticmethod
    def _comment(text: str) -> str:
        text = one_line(text.strip(" =;"), 120)
        return f"  # printed: {text}" if text else ""


def examine(root: Path) -> Proposal:
    """Return what can be proposed from the committed files alone, without running anything.

    Raises WorkspaceError where no committed Python file looks like a training script.
    """
    git = Git(root)
    base = git.commit_of("HEAD")
    if base is None:
        raise WorkspaceError(f"{root} has no commit yet; commit your training script first")
    files = git.run("ls-tree", "-r", "--name-only", "-z", "--full-tree", base).split("\0")
    script = _script(root, [name for name in files if name.endswith(".py")])
    source = git.run("show", f"{base}:{script}")
    told = re.findall(rf"([^\W\d]{NAMED}*)\s*[=:]\s*(?:\{{|%[.\d]*[dfge])", _texts(source))
    metric, others = _metric(dict.fromkeys(told, 0.0))
    settings = tuple(_settings(source, files))
    texts = {name: git.run("show", f"{base}:{name}") for name in settings} | {script: source}
    command, env = _command(root, script, source)
    return Proposal(
        script=script,
        command=command,
        env=env,
        editable=settings,
        metric=metric or "score",
        better="higher" if grows(metric or "") else "lower",
        data=tuple(_data(root, source, files)),
        knobs=[item for item in knobs(texts, script) if not is_protected(item.name)],
        others=others,
        problems=() if metric else (f"{script} prints no number under a name that was found",),
    )


def try_once(root: Path, found: Proposal, seconds: float = TRY_SECONDS) -> Proposal:
    """Run the script once in a copy of its commit, and propose from what it printed.

    It sees the machine as the runs of a campaign do, without keys and tokens, and is stopped with
    all its children after ``seconds``.
    """
    with tempfile.TemporaryDirectory(prefix="autoresearch-try-") as folder:
        copy = Path(folder) / "copy"
        Git(root).run("clone", "--quiet", "--shared", "--no-tags", SERVED, str(root), str(copy))
        for name in found.data:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).symlink_to(root / name)
        trial = _run(root, found, copy, Path(folder) / "log", seconds)
    metric, others = _metric(trial.numbers)
    pattern, problems = "", []
    if metric is None:
        metric, pattern, value = _loose(trial.log)
        trial = evolve(trial, numbers={**trial.numbers, **({metric: value} if metric else {})})
    if metric is None:
        problems.append(f"{found.script} printed no number under a name; set metric.pattern")
    if trial.exit_code:
        problems.append(f"{found.script} ended with exit code {trial.exit_code}: {trial.detail}")
    return evolve(
        found,
        metric=metric or found.metric,
        better="higher" if grows(metric or found.metric or "") else "lower",
        pattern=pattern,
        others=others,
        trial=trial,
        problems=tuple(problems),
    )


def _run(root: Path, found: Proposal, copy: Path, log: Path, seconds: float) -> Trial:
    words = {"{python}": sys.executable, "{script}": found.script, "{seed}": "1337"}
    command = [words.get(word, word.replace("{project}", str(root))) for word in found.command]
    environ = clean_environment(os.environ, {"SEED": "1337", "PYTHONUNBUFFERED": "1", **found.env})
    began = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=copy, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environ,
            start_new_session=True,
        )  # fmt: skip
        try:
            code: int | None = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    took = time.monotonic() - began
    tail = Tail(log)
    tail.finish()
    told = tail.error or (tail.last_line if code else "")
    text = without_escapes(end_of(log, 200_000))
    return Trial(seconds=took, exit_code=code, numbers=tail.numbers, log=text, detail=told)


def _script(root: Path, names: Sequence[str]) -> str:
    """Return the likeliest training script: by its name, then by how deep it lies."""
    tests = re.compile(r"(^|/)(tests?|docs?|examples?)/|(^|/)(test_|conftest|setup\.py|__init__)")
    left = [name for name in names if not tests.search(name) and (root / name).is_file()]
    told = [name for name in left if re.search(rb"print\(|log", (root / name).read_bytes())]

    def rank(name: str) -> tuple[int, int, str]:
        path = PurePosixPath(name)
        return (next(i for i, like in enumerate(_NAMES) if path.match(like)), name.count("/"), name)

    if not told:
        raise WorkspaceError(
            f"no committed Python file of {root} looks like a training script; name yours with "
            "--set script=PATH, or begin with autoresearch init --template plain"
        )
    return min(told, key=rank)


def _command(root: Path, script: str, source: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return how to run a script, with its environment: as a module where it imports its package.

    A seed that it takes as an option is given to it, since a noise is measured with several.
    """
    folder = root / PurePosixPath(script).parent
    lacking = [name for name in imported(source) if not _is_package(folder, name)]
    relative = re.search(r"^from \.", source, re.MULTILINE)
    tops = [
        top
        for top in ("src/", "")
        if (relative and script.startswith(top))
        or any(_is_package(root / top, name) for name in lacking)
    ]
    parts = script.removeprefix(tops[0] if tops else "").removesuffix(".py").split("/")
    as_module = tops and script.startswith(tops[0]) and len(parts) > 1
    named = as_module and all(map(str.isidentifier, parts))
    words = ("-m", ".".join(parts)) if named else ("{script}",)
    seed = _SEED_OPTION.search(source)
    told = (own_python(root), *words, *((seed[1], "{seed}") if seed else ()))
    return told, {"PYTHONPATH": "src"} if tops[:1] == ["src/"] else {}


def _is_package(folder: Path, name: str) -> bool:
    return (folder / name).is_dir() or (folder / f"{name}.py").is_file()


def _settings(source: str, committed: Sequence[str]) -> Iterator[str]:
    """Yield the committed TOML and YAML files that a script names."""
    for text in dict.fromkeys(_texts(source).splitlines()):
        name = text.strip().removeprefix("./")
        if name in committed and PurePosixPath(name).suffix in (".toml", ".yaml", ".yml"):
            yield name


def own_python(root: Path) -> str:
    """Return the project's own interpreter where it has one that is not this one."""
    own = root.absolute() / ".venv" / "bin" / "python"
    here = not own.exists() or str(own) == sys.executable
    return "{python}" if here else "{project}/.venv/bin/python"


def _texts(source: str) -> str:
    """Return the text of every string in a script, with {} for what f-strings fill in."""
    parsed = tree(source)
    return "\n".join(
        "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        if isinstance(node, ast.JoinedStr)
        else str(node.value)
        for node in (ast.walk(parsed) if parsed else ())
        if isinstance(node, ast.JoinedStr | ast.Constant)
    )


def _data(root: Path, source: str, committed: Sequence[str]) -> Iterator[str]:
    """Yield the paths that a script names and that are there without being committed."""
    folders = {str(parent) for name in committed for parent in PurePosixPath(name).parents}
    for text in dict.fromkeys(_texts(source).splitlines()):
        name = text.strip().removeprefix("./").rstrip("/")
        if name and len(name) < 200 and name not in folders and name not in committed:
            path = root / name
            inside = not name.startswith(("/", "~", "..")) and name not in (".", ".git")
            if inside and os.path.exists(path) and shutil.which(name) is None:
                yield name


def _metric(numbers: Mapping[str, float]) -> tuple[str | None, tuple[str, ...]]:
    """Return the name that is most likely to be the metric, and the others; the last of equals."""
    worth = {}
    for name in numbers:
        parts = re.split(r"[^a-z0-9]+", name.lower())
        worth[name] = sum(_WORTH.get(part, 2 if GROWING.fullmatch(part) else 0) for part in parts)
        worth[name] += 3 * any(part.startswith("acc") for part in parts)
    best = max(worth, key=lambda name: (worth[name], list(worth).index(name)), default=None)
    if best is None or worth[best] < 0:
        return None, tuple(worth)
    return best, tuple(name for name in worth if name != best)


def _loose(log: str) -> tuple[str | None, str, float]:
    """Return name, pattern and value of the last number that stands behind a metric's name."""
    match = next(reversed(list(_LOOSE.finditer(log))), None)
    if match is None:
        return None, "", 0.0
    words = re.findall(r"\w+", match["told"])
    pattern = r"\s+".join(map(re.escape, match["told"].split()))
    gap = r"\s*" if match["told"][-1:].isspace() else ""
    value = float(match["number"].replace(",", ""))
    return "_".join(words).lower(), rf"{pattern}{gap}{_VALUE}", value
