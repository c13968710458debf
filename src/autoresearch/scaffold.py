"""Writes what people begin with: a plugin with its test, a project from a template, a demo."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from attrs import frozen

from autoresearch.campaign import Campaign
from autoresearch.cycle.kit import Tell
from autoresearch.doctor import own_python
from autoresearch.errors import PluginError, WorkspaceError
from autoresearch.git import Git
from autoresearch.model import Idea
from autoresearch.opening import start
from autoresearch.plugins.discovery import built_ins
from autoresearch.presets import presets
from autoresearch.settings import FILE_NAME
from autoresearch.structure import suggest

_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")


@frozen
class Kind:
    """One kind of plugin: its template, its words for people, and its contract."""

    template: str
    words: str
    contract: str


KINDS = {
    "policy": Kind("policy.py.txt", "decision policy", "DecisionPolicyContract"),
    "generator": Kind("generator.py.txt", "idea generator", "IdeaGeneratorContract"),
    "rule": Kind("rule.py.txt", "backtracking rule", "BacktrackingRuleContract"),
}


def templates() -> Mapping[str, tuple[str, ...]]:
    """Return the files of every template by its name; a preset may bring one of its own."""
    own = {"plain": ("train.py", FILE_NAME), "karpathy": (FILE_NAME,)}
    return own | {item.name: item.template for item in presets().values() if item.template}


def lay_template(
    name: str, folder: Path, *, commit: bool = False, fresh: bool = False
) -> tuple[Path, ...]:
    """Lay the files of a template into a folder and return those that are new.

    A file that is there already is the user's and stays. With ``commit`` the folder becomes a git
    repository unless it is in one, and the new files are committed, nothing else. Raises
    WorkspaceError for a folder that exists although it should be ``fresh``.
    """
    if fresh and folder.exists():
        raise WorkspaceError(f"{folder} exists already; name another folder, or delete it")
    written = []
    for place in templates()[name]:
        path = folder / place
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            text = _of_template(name, place).read_text(encoding="utf-8")
            path.write_text(text.replace("{python}", own_python(folder)), encoding="utf-8")
            written.append(path)
    if commit and written:
        git = Git(folder, as_user=True)
        if git.attempt("rev-parse", "--show-toplevel").returncode != 0:
            git.run("init", "--quiet")
        names = [str(path.relative_to(folder)) for path in written]
        git.run("add", "--", *names)
        who = () if git.attempt("config", "user.email").returncode == 0 else _NOBODY
        git.run(*who, "commit", "--quiet", "-m", f"Begin with the template {name}", "--", *names)
    return tuple(written)


_NOBODY = ("-c", "user.name=autoresearch", "-c", "user.email=autoresearch@localhost")


def _of_template(name: str, place: str) -> Traversable:
    # In a checkout, files that are used there too lie at its top; a wheel has a copy of them.
    own = resources.files("autoresearch").joinpath("templates", name, place)
    return own if own.is_file() else Path(__file__).parents[2] / place


def write_plugin(
    name: str, folder: Path, package: bool = False, kind: str = "policy"
) -> tuple[Path, ...]:
    """Write plugin ``name`` into ``folder`` with its test, and return the files.

    A single file and its test lie side by side; a package gets a folder of its own with
    ``pyproject.toml`` and the entry point. ``kind`` is policy, generator or rule. Raises
    PluginError for a name that cannot be used and for a file that exists.
    """
    _check(name, kind)
    files = _package(name, kind) if package else _single(name, kind)
    paths = {folder / place: text for place, text in files.items()}
    for path in paths:
        if path.exists():
            raise PluginError(f"{path} exists already; choose another name or remove it")
    for path, text in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tuple(paths)


def _check(name: str, kind: str) -> None:
    if kind not in KINDS:
        fix = suggest(kind, KINDS) or f"; kinds are {', '.join(KINDS)}"
        raise PluginError(f"there is no kind of plugin {kind!r}{fix}")
    if not _NAME.fullmatch(name):
        raise PluginError(
            f"a plugin cannot be called {name!r}; use small letters, digits, - and _: my_plugin"
        )
    if name in {item.name for item in built_ins()}:
        raise PluginError(f"{name!r} is a plugin of autoresearch itself; choose another name")


def _single(name: str, kind: str) -> dict[str, str]:
    imports = "from pathlib import Path\n\nimport pytest\n" + _contract_import(kind)
    plugin = f'Path(__file__).with_name("{name}.py")'
    return {
        f"{name}.py": _fill(KINDS[kind].template, name, kind),
        f"test_{name.replace('-', '_')}.py": _test(name, kind, imports, plugin),
    }


def _package(name: str, kind: str) -> dict[str, str]:
    module = _module(name)
    imports = f"import pytest\n{_contract_import(kind)}\nimport {module}\n"
    files = {
        "pyproject.toml": _fill("pyproject.toml.txt", name, kind),
        "README.md": _fill("README.md.txt", name, kind),
        f"src/{module}/__init__.py": _fill(KINDS[kind].template, name, kind),
        f"src/{module}/py.typed": "",
        f"tests/test_{name.replace('-', '_')}.py": _test(name, kind, imports, module),
    }
    return {f"{_folder(name)}/{place}": text for place, text in files.items()}


def _test(name: str, kind: str, imports: str, plugin: str) -> str:
    return _fill("test.py.txt", name, kind, imports=imports, plugin=plugin)


def _contract_import(kind: str) -> str:
    return f"from autoresearch.testing import {KINDS[kind].contract}\n"


def _fill(template: str, name: str, kind: str, **more: str) -> str:
    text = resources.files("autoresearch").joinpath("templates", template).read_text()
    words = re.split("[-_]", name)
    return Template(text).substitute(
        name=name,
        dashed="-".join(words),
        folder=_folder(name),
        module=_module(name),
        title="".join(word.capitalize() for word in words),
        kind=KINDS[kind].words,
        contract=KINDS[kind].contract,
        **more,
    )


def _folder(name: str) -> str:
    return "autoresearch-" + name.replace("_", "-")


def _module(name: str) -> str:
    return "autoresearch_" + name.replace("-", "_")


# --- a campaign of ten seconds: keep, discard, kill, hold back --------------------------------

SETTINGS = {
    # Seeds of the script differ by 0.0005; no honest step halves the baseline's error of 0.15.
    "metric.sd": 0.0005,
    "metric.implausible_gain": 0.1,
    "limits.timeout_seconds": 2.0,
    "active": ("no:script_ideas",),  # what is shown does not depend on chance
}


@frozen
class Edit:
    """One edit of the script, as somebody would propose it; ``gain`` puts it into its place."""

    direction: str
    description: str
    why: str
    old: str
    new: str
    gain: float


EDITS = (
    Edit(
        "model",
        "a polynomial of degree 5",
        "a sine has more turns than a cubic can follow",
        "DEGREE = 3",
        "DEGREE = 5",
        0.04,
    ),
    Edit(
        "schedule",
        "a tenth of the steps",
        "the error falls most in the first steps",
        "STEPS = 60",
        "STEPS = 6",
        0.03,
    ),
    Edit(
        "schedule",
        "train until nothing is left to learn",
        "the error still falls at the last step",
        "for step in range(STEPS):",
        "step = 0\nwhile error(train) > 0:\n    step += 1",
        0.02,
    ),
    Edit(
        "evaluation",
        "measure the error where it is smallest",
        "a polynomial is exact at zero",
        "held_out = [i / 20 - 0.975 for i in range(40)]",
        "held_out = [0.0]",
        0.01,
    ),
)


def run_demo(folder: Path, tell: Tell) -> Campaign:
    """Make a project in ``folder`` and run a campaign of five experiments in it.

    Needs nothing but git: no key, no network, no torch. Raises WorkspaceError where the folder
    exists already.
    """
    lay_template("plain", folder, commit=True, fresh=True)
    campaign = start(folder, tag="demo", overrides=SETTINGS, tell=tell)
    source = (folder / "train.py").read_text(encoding="utf-8")
    for edit in EDITS:
        campaign.add_idea(
            Idea(
                direction=edit.direction,
                description=edit.description,
                hypothesis=edit.why,
                author="demo",
                source=source.replace(edit.old, edit.new),
                expected_gain=edit.gain,
            )
        )
    campaign.run(until=len(EDITS) + 1, wait=False, tell=tell)
    return campaign
