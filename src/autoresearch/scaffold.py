"""Writes what people begin with: a plugin with its test, a project from a template, a demo."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from attrs import frozen

from autoresearch.campaign import Campaign
from autoresearch.cycle import Tell
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
    WorkspaceError for a folder that exists although it should be ``fresh``, and for one without the
    script that a template is for.
    """
    if fresh and folder.exists():
        raise WorkspaceError(f"{folder} exists already; name another folder, or delete it")
    if name == "karpathy" and not (folder / "train.py").exists():
        raise WorkspaceError(f"{folder} has no train.py; use a clone of karpathy/autoresearch")
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
        fix = suggest(kind, KINDS, "kinds are")
        raise PluginError(f"there is no kind of plugin {kind!r}{fix}")
    if not _NAME.fullmatch(name):
        raise PluginError(
            f"a plugin cannot be called {name!r}; use small letters, digits, - and _: my_plugin"
        )
    if name in {item.name for item in built_ins()}:
        raise PluginError(f"{name!r} is a plugin of autoresearch itself; choose another name")


def _single(name: str, kind: str) -> dict[str, str]:
    place = f'Path(__file__).with_name("{name}.py")'
    first = "from pathlib import Path\n\n"
    return {
        f"{name}.py": _fill(KINDS[kind].template, name, kind),
        _test_file(name): _fill("test.py.txt", name, kind, first=first, last="", plugin=place),
    }


def _package(name: str, kind: str) -> dict[str, str]:
    module = _module(name)
    last = f"\nimport {module}\n"
    files = {
        "pyproject.toml": _fill("pyproject.toml.txt", name, kind),
        "README.md": _fill("README.md.txt", name, kind),
        f"src/{module}/__init__.py": _fill(KINDS[kind].template, name, kind),
        f"src/{module}/py.typed": "",
        f"tests/{_test_file(name)}": _fill(
            "test.py.txt", name, kind, first="", last=last, plugin=module
        ),
    }
    return {f"{_folder(name)}/{place}": text for place, text in files.items()}


def _test_file(name: str) -> str:
    return f"test_{name.replace('-', '_')}.py"


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


def run_demo(folder: Path, tell: Tell) -> Campaign:
    """Make a project in ``folder`` and run a campaign of five experiments in it.

    Needs nothing but git: no key, no network, no torch. Raises WorkspaceError where the folder
    exists already.
    """
    lay_template("plain", folder, commit=True, fresh=True)
    told = resources.files("autoresearch").joinpath("templates", "demo.toml").read_text("utf-8")
    demo = tomllib.loads(told)
    campaign = start(folder, tag="demo", overrides=demo["settings"], tell=tell)
    source = (folder / "train.py").read_text(encoding="utf-8")
    for idea in demo["ideas"]:
        changed = source.replace(idea.pop("old"), idea.pop("new"))
        campaign.add_idea(Idea(**idea, author="demo", source=changed))
    campaign.run(until=len(demo["ideas"]) + 1, wait=False, tell=tell)
    return campaign
