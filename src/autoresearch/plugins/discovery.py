"""Finds plugins without importing any, and decides which are active and in which order asked.

There are built-ins, distributions, the project's files and packages, and what a person names.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from types import ModuleType

from attrs import evolve, field, frozen

from autoresearch.config import Config
from autoresearch.durable import digest
from autoresearch.errors import ConfigError, PluginError
from autoresearch.presets import presets
from autoresearch.structure import suggest
from autoresearch.text import one_line

GROUP = "autoresearch"
BUILT_IN = "built-in"
LOAD = "AUTORESEARCH_LOAD_PLUGINS"
BLOCK = "no:"
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
    given: object = field(default=None, eq=id)  # what a program brought itself
    shadow: str = ""
    needs: str = ""


def find(config: Config, project: Path) -> tuple[Found, ...]:
    """Return every plugin but those of ``--plugin``, the nearest to the user last."""
    found = [_built_in(item, config) for item in built_ins()]
    found += sorted(_distributions(), key=lambda item: item.name)
    found += [from_file(path, project) for path in _files(project / "plugins")]
    return tuple(found)


def wishes(
    extra: Sequence[object], environ: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[Found, ...]]:
    """Return what the environment and then the caller ask for, and the objects among it.

    What is asked for is NAME, file.py or no:NAME; an object is asked for by its name. Raises
    PluginError for an object that cannot be a plugin.
    """
    if isinstance(extra, str):
        raise PluginError(f"plugins is the text {extra!r}; pass a list: plugins=[{extra!r}]")
    asked, given = [], []
    for wish in (*environ.get(LOAD, "").split(","), *extra):
        if isinstance(wish, (str, Path)):
            # A Path is a file, whatever it is called; text may be a name as well.
            asked.append(wish.strip() if isinstance(wish, str) else str(wish.absolute()))
        else:
            given.append(from_object(wish))
            asked.append(given[-1].name)
    return tuple(wish for wish in asked if wish), tuple(given)


def find_all(
    config: Config, project: Path, asked: Iterable[str], given: Iterable[Found] = ()
) -> tuple[Found, ...]:
    """Return every plugin, the files and objects that were asked for among them.

    Raises PluginError for a file that does not exist and for two plugins of one name.
    """
    found = find(config, project)
    known = {item.path.resolve() for item in found if item.path}
    paths = dict.fromkeys(_path(wish, project) for wish in asked if _is_file(wish))
    files = tuple(from_file(path, project) for path in paths if path.resolve() not in known)
    return settle_names([*found, *files, *given], named(config, asked))


def choose(found: Sequence[Found], config: Config, asked: Sequence[str]) -> tuple[Found, ...]:
    """Return the active plugins, first registered first; the last registered answers first.

    What was asked for in the environment or on the command line comes last, in the order asked.
    The last word about a name counts; ``no:plugins/*.py`` blocks every plugin whose source fits.
    Raises PluginError for a name that no plugin has.
    """
    by_name = {item.name: item for item in found if not item.shadow}
    on = {item.name: item.default for item in by_name.values()}
    for wish in (*config.active, *asked):
        for name in _meant(wish, found):
            on[_known(name, by_name)] = not wish.startswith(BLOCK)
    names = [_name(wish) for wish in asked if not wish.startswith(BLOCK)]
    order = [name for name in by_name if name not in names] + list(dict.fromkeys(names))
    return tuple(by_name[name] for name in order if on[name])


def named(config: Config, asked: Iterable[str]) -> frozenset[str]:
    """Return the names that a person asked for, so that their absence is an error."""
    asked_for = (wish for wish in (*config.active, *asked) if not wish.startswith(BLOCK))
    return frozenset(_name(wish) for wish in asked_for)


def check_tables(config: Config, found: Iterable[Found]) -> None:
    """Refuse a table of settings for a plugin that does not exist.

    Raises ConfigError with the nearest name.
    """
    names = [item.name for item in found]
    for name in config.plugins:
        if name not in names:
            fix = suggest(name, names, "plugins are")
            raise ConfigError(f"settings for an unknown plugin: plugins.{name}{fix}")


def settle_names(found: Iterable[Found], asked: Collection[str]) -> tuple[Found, ...]:
    """Give each name to one plugin.

    A distribution that was not asked for by name steps back, since installing it must change
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
    """Return the plugin in a file, named after it, or in the ``__init__.py`` of a package."""
    place = path.relative_to(project) if path.is_relative_to(project) else path
    return Found(
        name=_module_in(path),
        source=str(place),
        version="",
        default=True,
        load=lambda: _execute(path),
        digest=lambda: _digest(_python_files(path.parent) if _is_package(path) else [path]),
        path=path,
    )


def from_anything(plugin: object) -> Found:
    """Return a plugin that is given as the path of a file, as a module, a class or an instance."""
    if isinstance(plugin, (str, Path)):
        path = _path(str(plugin), Path())
        return from_file(path, path.parent)
    return from_object(plugin)


def from_object(plugin: object) -> Found:
    """Return a plugin that a Python program brings itself: a module, a class or an instance.

    Raises PluginError for a value that cannot have hooks.
    """
    home = plugin if isinstance(plugin, (ModuleType, type)) else type(plugin)
    if plugin is None or vars(builtins).get(home.__name__) is home:
        raise PluginError(
            f"{one_line(repr(plugin), 80)} is not a plugin; pass a module, a class, an instance, "
            "the path of a file, or a name"
        )
    name = home.__name__.rpartition(".")[2]
    return Found(
        name=re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower(),
        source=f"object {getattr(home, '__module__', None) or home.__name__}",
        version="",
        default=True,
        load=lambda: plugin,
        given=plugin,
        digest=lambda: digest(_text_of(home)),
    )


def _text_of(home: ModuleType | type) -> str:
    try:
        return inspect.getsource(home)
    except (OSError, TypeError):  # typed at a prompt: its text is nowhere
        return home.__name__


_own_version = cache(partial(metadata.version, "autoresearch"))  # reading it takes a while


def _built_in(item: BuiltIn, config: Config) -> Found:
    return Found(
        name=item.name,
        source=BUILT_IN,
        version=_own_version(),
        default=item.starts_active(config),
        load=lambda: pkgutil.resolve_name(item.module),
        digest=partial(_module_digest, item.module.partition(":")[0]),
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
            digest=partial(_module_digest, package),
        )


def _files(folder: Path) -> list[Path]:
    """Return the plugin files and packages of a folder, in the order of their names."""
    if not folder.is_dir():
        return []
    places = [path for path in folder.iterdir() if not _TESTS.fullmatch(path.stem)]
    files = {path: [path] for path in places if path.suffix == ".py" and path.is_file()}
    packages = {
        path / "__init__.py": _python_files(path)
        for path in places
        if (path / "__init__.py").is_file()
    }
    # A project may keep code of its own in a folder of this name: only what speaks of autoresearch
    # is run.
    found = {**files, **packages}
    mine = [
        path for path in found if any(b"autoresearch" in one.read_bytes() for one in found[path])
    ]
    return sorted(mine, key=_module_in)


def _is_package(path: Path) -> bool:
    return path.name == "__init__.py"


def _module_in(path: Path) -> str:
    """Return the name of the module in a file; a package has that of its folder."""
    return path.parent.name if _is_package(path) else path.stem


def _python_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def _execute(path: Path) -> ModuleType:
    # Types written as text are resolved through sys.modules, so the module must stand there;
    # two files of one name in two projects get two names.
    place = digest(str(path))[:8]
    name = f"autoresearch_plugin_{re.sub(r'[^0-9A-Za-z_]', '_', _module_in(path))}_{place}"
    parts = [str(path.parent)] if _is_package(path) else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=parts)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path.name} is not a Python file; name it NAME.py")
    module = importlib.util.module_from_spec(spec)
    for old in [item for item in sys.modules if item.startswith(f"{name}.")]:
        del sys.modules[old]  # a package's modules of an earlier load belong to that load
    sys.modules[name] = module
    try:
        # Compiled here and not by the loader: a cached .pyc is keyed on whole seconds and the
        # size, so a quick edit could run the old code under the new digest.
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _module_digest(module: str) -> str:
    return _digest(_sources(module))


def _sources(module: str) -> list[Path]:
    spec = importlib.util.find_spec(module)
    if spec is None:
        return []
    if spec.submodule_search_locations:
        places = spec.submodule_search_locations
        return sorted(path for place in places for path in _python_files(Path(place)))
    return [Path(spec.origin)] if spec.origin else []


def _digest(paths: Sequence[Path]) -> str:
    if len(paths) == 1:  # what sha256sum prints
        return digest(paths[0].read_bytes())
    total = hashlib.sha256()
    for path in paths:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _is_file(wish: str) -> bool:
    return not wish.startswith(BLOCK) and (wish.endswith(".py") or "/" in wish)


def _name(wish: str) -> str:
    return _module_in(Path(wish)) if _is_file(wish) else wish.removeprefix(BLOCK)


def _meant(wish: str, found: Iterable[Found]) -> list[str]:
    if wish.startswith(BLOCK) and "*" in wish:
        sources = wish.removeprefix(BLOCK)
        return [item.name for item in found if fnmatchcase(item.source, sources)]
    return [_name(wish)]


def _known(name: str, by_name: Mapping[str, Found]) -> str:
    if name in by_name:
        return name
    fix = suggest(name, by_name, "plugins are")
    raise PluginError(f"there is no plugin {name!r}{fix}")


def _path(wish: str, project: Path) -> Path:
    path = Path(wish).expanduser()
    for place in (path, project / path, path / "__init__.py", project / path / "__init__.py"):
        if place.is_file():
            return place.resolve()
    raise PluginError(f"plugin file {wish!r} does not exist; correct the path")


# --- the built-ins ----------------------------------------------------------------------------


@frozen(kw_only=True)
class BuiltIn:
    """A plugin of this package: the class ``Plugin`` of a module, or ``module:Class``.

    ``needs`` is a module that it cannot do without;
    ``preset`` makes it active in campaigns that start from that preset; ``measures`` only in those
    whose noise is set, or will be measured; ``launches`` only in those whose launcher it is;
    ``promotes`` only in those that have stages.
    """

    name: str
    module: str
    default: bool = True
    preset: str = ""
    needs: str = ""
    measures: bool = False
    launches: bool = False
    promotes: bool = False

    def starts_active(self, config: Config) -> bool:
        """Whether it takes part without being named."""
        if self.measures and config.metric.sd == 0 and config.noise.runs < 2:
            return False
        if self.promotes:
            return len(config.stages) > 1
        if self.launches:
            return config.launcher == self.name
        return self.default or (self.preset != "" and config.preset == self.preset)


# Names alone: nothing here imports them. Later ones answer first, so the order says who wins: a
# person's queue over every other generator, the policies that ask for more evidence over greedy.
_ALWAYS = (
    BuiltIn(name="script_ideas", module="autoresearch.ideas.script"),
    BuiltIn(name="search", module="autoresearch.ideas.search", default=False),
    BuiltIn(name="catalogue", module="autoresearch.ideas.catalogue", default=False),
    BuiltIn(name="openai", module="autoresearch.ideas.openai_ideas", default=False, needs="openai"),
    BuiltIn(name="agent", module="autoresearch.ideas.agent", default=False),
    BuiltIn(name="queue_ideas", module="autoresearch.ideas.queue"),
    BuiltIn(name="crash_fixes", module="autoresearch.ideas.fixes"),
    BuiltIn(name="greedy", module="autoresearch.policies.greedy"),
    BuiltIn(
        name="evidence",
        module="autoresearch.policies.evidence",
        default=False,
        preset="plain",
        measures=True,
    ),
    BuiltIn(
        name="promotion", module="autoresearch.policies.promotion", default=False, promotes=True
    ),
    BuiltIn(name="curves", module="autoresearch.policies.curves", default=False),
    BuiltIn(name="tree", module="autoresearch.policies.tree", default=False),
    BuiltIn(name="plateau", module="autoresearch.rules:Plateau"),
    BuiltIn(name="dead_end", module="autoresearch.rules:DeadEnd"),
    BuiltIn(name="regression", module="autoresearch.rules:Regression"),
    BuiltIn(name="local", module="autoresearch.launchers.local"),
    BuiltIn(
        name="observed",
        module="autoresearch.driving.agents:Plugin",
        default=False,
        launches=True,
    ),
    BuiltIn(name="modal", module="autoresearch.launchers.modal", needs="modal"),
    BuiltIn(name="slurm", module="autoresearch.launchers.cluster:Plugin", needs="submitit"),
    BuiltIn(name="ssh", module="autoresearch.launchers.ssh"),
    BuiltIn(name="analysis", module="autoresearch.policies.analysis"),
    BuiltIn(name="pattern_metrics", module="autoresearch.policies.pattern_metrics"),
)


@cache
def built_ins() -> tuple[BuiltIn, ...]:
    """Return the plugins of this package, those of its presets last."""
    of_presets = (
        BuiltIn(**item._asdict(), default=False, preset=preset.name)
        for preset in presets().values()
        for item in preset.plugins
    )
    return (*_ALWAYS, *of_presets)
