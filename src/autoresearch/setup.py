"""The checks before a campaign: everything that would spoil it later is one clear line now."""

from __future__ import annotations

import filecmp
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from importlib import metadata
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from attrs import evolve, frozen

from autoresearch.config import RUN_FOLDER, Config
from autoresearch.cycle import Tell
from autoresearch.cycle.changes import syntax_problem
from autoresearch.durable import is_editable
from autoresearch.errors import ConfigError, DataError, WorkspaceError
from autoresearch.git import Git
from autoresearch.launchers.environment import expanded
from autoresearch.launchers.local import missing_program
from autoresearch.plugins import Plugins
from autoresearch.python_source import imported
from autoresearch.report import DRAWN_BY
from autoresearch.structure import suggest
from autoresearch.workspace import Lab, check_tag, texts_at

# Beside the user's own.
FILES = ("results.tsv", "notes.md", "run.log", "progress.png", "report.html")
_POINTER = b"version https://git-lfs"
_REPORTED = ("autoresearch", "duckdb", "numpy", "torch", "sentencepiece", "modal", "openai")


@frozen(kw_only=True)
class Ground:
    """What a campaign will stand on: the base commit and its editable files' texts by path.

    ``unpacked``: the base is a commit of its own, in which the script's text is not packed.
    """

    base: str
    files: Mapping[str, str]
    unpacked: bool = False


def free_tag(project: Path, wanted: str | None, today: date) -> str:
    """Return the run tag: the one wanted, or today's date like ``mar18`` (``mar18-2`` if taken).

    Raises WorkspaceError when the branch of a wanted tag exists already.
    """
    git = Git(project)
    if git.commit_of("refs/heads/autoresearch") is not None:
        raise WorkspaceError(
            "a branch called autoresearch is in the way of autoresearch/<tag>; "
            "rename it with git branch -m autoresearch <name>"
        )
    if wanted is not None:
        check_tag(wanted)
        if _taken(git, project, wanted):
            raise WorkspaceError(
                f"branch autoresearch/{wanted} already exists; choose another --tag, "
                f"or continue it with autoresearch run --tag {wanted}"
            )
        return wanted
    stem = today.strftime("%b%d").lower()
    number = 1
    tag = stem
    while _taken(git, project, tag):
        number += 1
        tag = f"{stem}-{number}"
    return tag


def _taken(git: Git, project: Path, tag: str) -> bool:
    # Also branches below it, autoresearch/<tag>/<more>, are in its way.
    branches = git.run("for-each-ref", f"refs/heads/autoresearch/{tag}")
    return bool(branches) or (project / ".autoresearch" / tag).exists()


def check_ground(project: Path, config: Config) -> Ground:
    """Check the repository, the files in scope and the data; return what to start from.

    Raises WorkspaceError or DataError with the first thing that is wrong and how to fix it.
    """
    git = Git(project)
    base = git.commit_of("HEAD")
    if base is None:
        raise WorkspaceError(f"{project} has no commit yet; commit {config.script} first")
    for name in dict.fromkeys((*config.in_scope, config.script)):
        if git.attempt("cat-file", "-e", f"{base}:{name}").returncode != 0:
            raise WorkspaceError(f"{name} is not in commit {base[:7]}; add it and commit")
    _check_script(git, base, config.script)
    _check_evaluation(project, config)
    _check_clean(git)
    if not os.access(project, os.W_OK):
        raise WorkspaceError(f"{project} cannot be written; make it writable or copy it elsewhere")
    files = texts_at(git, base, config.script, config.editable)
    for path, text in files.items():
        problem = syntax_problem(path, text)
        if problem:
            raise WorkspaceError(problem)
    return Ground(base=base, files=files)


def unpack(project: Path, tag: str, config: Config, ground: Ground, plugins: Plugins) -> Ground:
    """Return the ground with a packed script unpacked, in a commit over the user's.

    The commit is kept by a ref of the campaign; the user's branch and files stay as they are.
    """
    packed = ground.files[config.script]
    text = plugins.unpack_script(packed)
    if text is None or text == packed:
        return ground
    if problem := syntax_problem(config.script, text):
        raise WorkspaceError(f"{config.script} was unpacked, and {problem}")
    git = Git(project)
    with TemporaryDirectory(prefix="autoresearch-") as folder:
        index = Git(project, variables={"GIT_INDEX_FILE": str(Path(folder, "index"))})
        index.run("read-tree", ground.base)
        mode = git.run("ls-tree", "--full-tree", ground.base, "--", config.script).split()[0]
        blob = git.run("hash-object", "-w", "--stdin", stdin=text)
        index.run("update-index", "--cacheinfo", f"{mode},{blob},{config.script}")
        tree = index.run("write-tree")
    message = f"Unpack {config.script}"
    base = git.run("commit-tree", tree, "-p", ground.base, "-m", message)
    git.run("update-ref", f"refs/autoresearch/{tag}/unpacked", base)
    return Ground(base=base, files={**ground.files, config.script: text}, unpacked=True)


def _check_evaluation(project: Path, config: Config) -> None:
    """What judges a change must be there, and not be what the change may touch."""
    for word in (*config.evaluation.command, *config.evaluation.hidden_command):
        path = word.removeprefix("./")
        if path in (config.script, "{script}") or is_editable(path, config.editable):
            raise WorkspaceError(
                f"the evaluation command names {word}, which an idea may change; evaluate with a "
                "file that is not editable"
            )
    if config.evaluation.hidden_command and not config.evaluation.command:
        raise WorkspaceError("evaluation.hidden_command needs evaluation.command; set both")
    for command in filter(None, (config.evaluation.command, config.evaluation.hidden_command)):
        for problem in missing_program(evolve(config, command=command, cwd="."), project):
            raise ConfigError(f"evaluation: {problem}")


def _check_script(git: Git, base: str, script: str) -> None:
    listed = git.run("ls-tree", "--full-tree", "-z", base, "--", script).split("\0")[0]
    kind, _, path = listed.partition("\t")
    if path != script:
        wanted = path or "its path from the top of the repository"
        raise WorkspaceError(f"script is {script!r}; write {wanted}")
    if not kind.startswith("100"):
        what = "a symbolic link" if kind.startswith("120000") else "not a file"
        raise WorkspaceError(f"{script} is {what} in commit {base[:7]}; name the script itself")


def _check_clean(git: Git) -> None:
    listed = Git(git.path, as_user=True).run(
        "status", "--porcelain", "--untracked-files=no", "--ignore-submodules"
    )
    if listed:
        name = listed.splitlines()[0][3:]
        raise WorkspaceError(
            f"{name} has changes that are not committed; commit or stash them, since experiments "
            "start from the last commit"
        )


def check_files(project: Path, names: Iterable[str]) -> None:
    """Raise WorkspaceError for a projection's file that is there and that no campaign wrote."""
    for name in names:
        if not (project / name).exists() or any((project / ".autoresearch").glob(f"*/{name}")):
            continue
        if _tracked(project, name):
            raise WorkspaceError(
                f"{name} is in git, and a campaign writes a file of that name; git mv it to "
                "another one and commit"
            )
        raise WorkspaceError(
            f"{name} exists already and no campaign wrote it; move it away (what it has can be "
            "taken over with autoresearch import)"
        )


def _tracked(project: Path, name: str) -> bool:
    return Git(project).attempt("ls-files", "--error-unmatch", "--", name).returncode == 0


def check_free(out: Path) -> None:
    """Raise WorkspaceError for a file that git tracks or that this package did not draw."""
    if out.exists():
        tracked = _tracked(out.absolute().parent, out.name)
        if tracked or DRAWN_BY.encode() not in out.read_bytes()[:1000]:
            why = "is tracked by git" if tracked else "was not drawn by autoresearch"
            raise WorkspaceError(f"{out} exists and {why}; choose another --out, or --overwrite it")


def hide(project: Path, names: Iterable[str]) -> None:
    """Keep files that a campaign writes beside the user's out of `git add .`, for this clone."""
    listed = project / Git(project).run("rev-parse", "--git-path", "info/exclude")
    try:
        text = listed.read_text(encoding="utf-8") if listed.exists() else ""
        lines = [f"/{name}" for name in names if f"/{name}" not in text.splitlines()]
        if lines:
            listed.parent.mkdir(parents=True, exist_ok=True)
            start = text if not text or text.endswith("\n") else f"{text}\n"
            listed.write_text(start + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return  # a convenience


def check_reader(config: Config, plugins: Plugins) -> None:
    """Refuse a reader of the metric that takes no part: no run would have a score.

    Raises ConfigError.
    """
    reader, names = config.metric.reader, [item.name for item in plugins.found]
    if not reader or reader in plugins.active:
        return
    if reader in names:
        raise ConfigError(f"metric.reader is {reader!r}, which is not active; add it to active")
    fix = suggest(reader, names, "plugins are")
    raise ConfigError(f"metric.reader is {reader!r}, which is no plugin{fix}")


def check_launcher(project: Path, config: Config, plugins: Plugins, tell: Tell) -> None:
    """Check that runs can be launched, and that their data is there.

    Raises ConfigError or DataError with the first thing that is missing. Data that runs elsewhere
    do not need here, since their launcher looks after it, is told.
    """
    for name in [item.name for item in config.stages] or [""]:
        problems = plugins.check_launcher(config.in_stage(name), project, tell)
        if problems:
            raise ConfigError(f"stage {name}: {problems[0]}" if name else problems[0])
    elsewhere = problems is not None and config.launcher != "local"
    for name in config.data:
        if (project / expanded(name)).exists():
            continue
        missing = f"{name} does not exist; get the data with: {config.data_command or 'a copy'}"
        if not elsewhere:
            raise DataError(missing)
        tell(f"{missing} (runs go elsewhere, but checks that need it here are left out)")


def check_checkout(lab: Lab, config: Config, ground: Ground, tell: Tell) -> None:
    """Check that the lab's checkout holds what the user's holds, and tell what cannot be imported.

    Raises WorkspaceError for the first tracked file that a run would not find as it is in the
    project: a large file that is a pointer, a submodule, a link that leads out, a filtered text.
    """
    checkout = lab.clone.path
    for path, text in ground.files.items():
        if plain(checkout / path) != text.encode().replace(b"\r\n", b"\n"):
            raise WorkspaceError(
                f"{path} is checked out in another form than it is committed; remove its "
                "encoding or filter from .gitattributes, since ideas are written as committed"
            )
    for path, why in differences(Git(lab.project), ground.base, checkout):
        lent = any(PurePosixPath(path).is_relative_to(name) for name in config.data)
        lent = lent or (ground.unpacked and path == config.script)
        if not lent and not is_editable(path, config.ignore_differences):
            raise WorkspaceError(
                f"{path} {why}, so a run would not find what you have; name it in data to lend it "
                "to the runs, or in ignore_differences if no run reads it"
            )
    place = checkout / config.cwd
    lent = any(PurePosixPath(config.cwd).is_relative_to(name) for name in config.data)
    if config.cwd != RUN_FOLDER and not place.is_dir() and not lent:
        raise WorkspaceError(
            f"cwd is {config.cwd!r}, but the commit has no such folder; correct it"
        )
    if config.launcher == "local":
        for problem in _imports(lab, config, ground.files[config.script]):
            tell(problem)


def differences(project: Git, base: str, checkout: Path) -> Iterator[tuple[str, str]]:
    """Yield each file of a commit that a checkout lacks and the project has, and why.

    Line ends are no difference, nor is a file that is not in the project's own (sparse) checkout.
    """
    for entry in project.run("ls-tree", "-r", "-z", "--full-tree", base).split("\0"):
        told, _, path = entry.partition("\t")
        mine, copy = project.path / path, checkout / path
        if told.startswith("160000"):
            if mine.is_dir() and any(mine.iterdir()):
                yield path, "is a submodule"
        elif mine.is_symlink() or copy.is_symlink():
            if mine.exists() and not copy.exists():
                yield path, "is a symbolic link to what is not committed"
        elif path and mine.is_file() and not _same(mine, copy):
            pointer = copy.is_file() and copy.read_bytes()[:40].startswith(_POINTER)
            yield path, "is a Git LFS pointer in the commit" if pointer else "is not as committed"


def _same(mine: Path, copy: Path) -> bool:
    if not copy.is_file():
        return False
    if mine.stat().st_size == copy.stat().st_size:
        return filecmp.cmp(mine, copy, shallow=False)
    return plain(mine) == plain(copy)


def plain(path: Path) -> bytes:
    """Return the bytes of a file with plain line ends; nothing where there is none."""
    return path.read_bytes().replace(b"\r\n", b"\n") if path.is_file() else b""


def _imports(lab: Lab, config: Config, source: str) -> Iterator[str]:
    """Yield what the script imports and the Python of its command does not find."""
    python = config.command[0].replace("{python}", sys.executable)
    if not Path(python).name.startswith("python") or shutil.which(python) is None:
        return
    place = Path(config.script).parent
    names = sorted(imported(source) - sys.stdlib_module_names)
    ask = "import sys, importlib.util as u; sys.path[:0] = [sys.argv[1]]; "
    ask += "print(*(n for n in sys.argv[2:] if not u.find_spec(n)))"
    asked = [python, "-c", ask, str(lab.clone.path / place), *names]
    paths = config.env.get("PYTHONPATH", "").replace("{project}", str(lab.project))
    try:
        done = subprocess.run(
            asked, cwd=lab.clone.path, capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "PYTHONPATH": paths} if paths else None,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return
    for name in done.stdout.split():
        here = [lab.project / place / name, lab.project / place / f"{name}.py"]
        if any(path.exists() for path in here):
            yield f"{config.script} imports {name}, which is not committed; commit it"
        elif not any(lab.clone.path.rglob(f"{name}.py")):  # or else its sys.path may lead there
            yield f"{config.script} imports {name}, which {python} does not have; install it"


def environment() -> dict[str, str]:
    """Return what the results depend on: the machine and the versions of its packages."""
    found = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
    }
    for name in _REPORTED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
