"""Finds plugins without importing any: built-ins, distributions, the project's files."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from types import ModuleType

from attrs import evolve, field, frozen

from autoresearch.config import Config
from autoresearch.errors import PluginError
from autoresearch.plugins.builtins import BuiltIn, built_ins

GROUP = "autoresearch"
BUILT_IN = "built-in"
_TESTS = re.compile(r"test_.*|.*_test|conftest|_.*")


@frozen(kw_only=True)
class Found:
    """A plugin that can be loaded; ``source`` says for people where it is.

    ``digest`` computes the sha256 of its source; ``default`` makes it active without being named.
    ``shadow`` is the source of the plugin that has its name, so that it cannot take part.
    """

    name: str
    source: str
    version: str
    default: bool
    load: Callable[[], object] = field(eq=False)
    digest: Callable[[], str] = field(eq=False)
    path: Path | None = None
    shadow: str = ""
    needs: str = ""


def find(config: Config, project: Path) -> tuple[Found, ...]:
    """Return every plugin but those of ``--plugin``, the nearest to the user last."""
    found = [_built_in(item, config) for item in built_ins()]
    found += sorted(_distributions(), key=lambda item: item.name)
    found += [from_file(path, project) for path in _files(project / "plugins")]
    return tuple(found)


def settle_names(found: Iterable[Found], asked: Collection[str]) -> tuple[Found, ...]:
    """Give each name to one plugin.

    A distribution that nobody asked for by name steps back, since installing it must change
    nothing. Raises PluginError that names both sources otherwise.
    """
    owner: dict[str, Found] = {}
    settled = []
    for item in found:
        first = owner.setdefault(item.name, item)
        if first is not item:
            item = _stepped_back(item, first, asked)
        settled.append(item)
    return tuple(settled)


def _stepped_back(item: Found, first: Found, asked: Collection[str]) -> Found:
    if item.default or item.name in asked:
        raise PluginError(
            f"two plugins are called {item.name!r}: {first.source} and {item.source}; "
            "rename one of them"
        )
    return evolve(item, shadow=first.source)


def from_file(path: Path, project: Path) -> Found:
    """Return the single-file plugin in ``path``, named after the file."""
    place = path.relative_to(project) if path.is_relative_to(project) else path
    return Found(
        name=path.stem,
        source=str(place),
        version="",
        default=True,
        load=lambda: _execute(path),
        digest=lambda: _digest([path]),
        path=path,
    )


def from_object(plugin: object) -> Found:
    """Return a plugin that a Python program brings itself: a module, a class or an instance."""
    home = plugin if isinstance(plugin, (ModuleType, type)) else type(plugin)
    name = home.__name__.rpartition(".")[2]
    return Found(
        name=re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower(),
        source=f"object {getattr(home, '__module__', None) or home.__name__}",
        version="",
        default=True,
        load=lambda: plugin,
        digest=lambda: hashlib.sha256(_text_of(home).encode()).hexdigest(),
    )


def _text_of(home: ModuleType | type) -> str:
    try:
        return inspect.getsource(home)
    except (OSError, TypeError):  # typed at a prompt: nobody has its text
        return home.__name__


def _built_in(item: BuiltIn, config: Config) -> Found:
    return Found(
        name=item.name,
        source=BUILT_IN,
        version=metadata.version("autoresearch"),
        default=item.starts_active(config),
        load=lambda: importlib.import_module(item.module),
        digest=lambda: _digest(_sources(item.module)),
        needs=item.needs,
    )


def _distributions() -> Iterator[Found]:
    for entry in metadata.entry_points(group=GROUP):
        # The whole package, because a plugin's module may import its neighbours.
        package = entry.module.partition(".")[0]
        yield Found(
            name=entry.name,
            source=f"distribution {entry.dist.name}" if entry.dist else "distribution",
            version=entry.dist.version if entry.dist else "",
            default=False,
            load=entry.load,
            digest=partial(_package_digest, package),
        )


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    paths = (path for path in folder.glob("*.py") if not _TESTS.fullmatch(path.stem))
    # A project may keep code of its own in a folder of this name: only what speaks of us is run.
    return sorted(path for path in paths if b"autoresearch" in path.read_bytes())


def _execute(path: Path) -> ModuleType:
    # Types written as text are resolved through sys.modules, so the module must stand there;
    # two files of one name in two projects get two names.
    place = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    name = f"autoresearch_plugin_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{place}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path.name} is not a Python file; name it NAME.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        # Compiled here and not by the loader: a cached .pyc is keyed on whole seconds and the
        # size, so a quick edit could run the old code under the new digest.
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _sources(module: str) -> list[Path]:
    spec = importlib.util.find_spec(module)
    if spec is None:
        return []
    if spec.submodule_search_locations:
        folders = [Path(place) for place in spec.submodule_search_locations]
        return sorted(path for folder in folders for path in folder.rglob("*.py"))
    return [Path(spec.origin)] if spec.origin else []


def _package_digest(package: str) -> str:
    return _digest(_sources(package))


def _digest(paths: Sequence[Path]) -> str:
    if len(paths) == 1:  # what sha256sum prints
        return hashlib.sha256(paths[0].read_bytes()).hexdigest()
    total = hashlib.sha256()
    for path in paths:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
