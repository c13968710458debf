"""Where ideas come from, and what most of them change: the hyperparameters of a script.

Literals are found in a script and in other files, and changed with nothing else. In Python these
forms are understood: helpers such as ``env_int("NAME", 3)``; environment look-ups such as
``int(os.environ.get("NAME", 3))``, also with the default as text; defaults of argparse and click
options; plain constants at the top of the module or of a class, dictionaries and short tuples among
them; and what a class is made with. In TOML and YAML it is numbers and flags. What lies within
something has a dotted name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import PurePosixPath

from attrs import evolve, field, frozen

from autoresearch.durable import digest, tree_digest
from autoresearch.errors import AutoresearchError
from autoresearch.frozen import alike
from autoresearch.ideas import literals
from autoresearch.ideas.literals import Literal
from autoresearch.model import Value, ValueChange

_READERS: Mapping[str, Callable[[str], Iterator[Literal]]] = {
    ".py": literals.in_python,
    ".toml": literals.in_toml,
    ".yaml": literals.in_yaml,
    ".yml": literals.in_yaml,
}
_FACTORS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 2 / 3, 0.8, 0.9, 1.1, 1.25, 1.5, 2, 4, 8, 16)


@frozen(kw_only=True)
class Hyperparameter:
    """A named number, flag or word; ``line`` counts from 1, ``file`` is empty for the script.

    ``form`` is ``environment`` when a variable of that name replaces the value at run time,
    ``constant`` for another literal of Python, ``setting`` in TOML and YAML. ``spans`` are the byte
    ranges of the literal, several when it is repeated.
    """

    name: str
    value: Value
    type: str
    line: int
    form: str
    spans: tuple[tuple[int, int], ...] = field(default=(), repr=False)
    file: str = ""

    @property
    def key(self) -> str:
        """The name, with its file where that is not the script: unique within a campaign."""
        return key(self.name, self.file)

    @property
    def last(self) -> str:
        """The last part of a dotted name in lower case, which says what it is."""
        return self.name.rpartition(".")[2].lower()

    @property
    def ladder(self) -> tuple[Value, ...]:
        """Other values of a number or a flag, from a sixteenth to sixteen times as much.

        A share, between 0 and 1, stays one.
        """
        value, whole = self.value, self.type == "int"
        if isinstance(value, bool | str):
            return (not value,) if self.type == "bool" else ()
        rungs = [value * factor for factor in _FACTORS]
        if not value:
            rungs = [1, 2, 4, 8, 16] if whole else [0.01, 0.03, 0.1, 0.3, 1.0]
        elif 0 < value < 1:
            rungs = [rung for rung in rungs if rung < 1]
        rounded = dict.fromkeys(round(rung) if whole else float(f"{rung:.3g}") for rung in rungs)
        return tuple(rung for rung in rounded if rung not in (0, value))


def key(name: str, file: str) -> str:
    """Return what names a hyperparameter among those of several files."""
    return f"{file}:{name}" if file else name


def hyperparameters(source: str) -> tuple[Hyperparameter, ...]:
    """Return the hyperparameters of a Python script in the order of the file; none if it is broken.

    A name that is given two different values is left out: no one could say which one counts.
    """
    return _read(source, ".py", "")


def knobs(files: Mapping[str, str], script: str = "") -> tuple[Hyperparameter, ...]:
    """Return the hyperparameters of several files (path to text), those of the ``script`` first.

    Python, TOML and YAML are read; other files have none.
    """
    paths = sorted(files, key=lambda path: (path != script, path))
    found: list[Hyperparameter] = []
    for path in paths:
        own = path == script
        found += _read(
            files[path], ".py" if own else PurePosixPath(path).suffix, "" if own else path
        )
    return tuple(found)


@lru_cache(maxsize=64)
def _read(text: str, suffix: str, file: str) -> tuple[Hyperparameter, ...]:
    grouped: dict[str, list[Hyperparameter]] = defaultdict(list)
    reader = _READERS.get(suffix.lower())
    for item in reader(text) if reader else ():
        grouped[item.name].append(
            alike(
                Hyperparameter,
                item,
                type=type(item.value).__name__,
                spans=((item.start, item.end),),
                file=file,
            )
        )
    merged = (_merge(group) for group in grouped.values())
    return tuple(sorted((item for item in merged if item), key=lambda item: item.line))


def _merge(group: list[Hyperparameter]) -> Hyperparameter | None:
    first = group[0]
    if any((item.value, item.type) != (first.value, first.type) for item in group):
        return None
    return evolve(first, spans=tuple(span for item in group for span in item.spans))


def with_value(source: str, name: str, value: Value) -> str:
    """Return the script with one hyperparameter changed; see `with_values`."""
    return with_values(source, {name: value})


def with_values(source: str, values: Mapping[str, Value]) -> str:
    """Return a script with the named literals replaced and every other byte as it was.

    Raises AutoresearchError for a name that is not a hyperparameter or a value of another type.
    """
    return _written(source, ".py", "the script", values)


def with_changes(
    files: Mapping[str, str], changes: Iterable[ValueChange], script: str = ""
) -> dict[str, str]:
    """Return the files (path to new text) that differ once the values are changed.

    Every other byte stays as it was. A change without a file is one of the ``script``. Raises
    AutoresearchError as `with_values` does, and for a file that is not there.
    """
    wanted: dict[str, dict[str, Value]] = defaultdict(dict)
    for change in changes:
        wanted[change.file or script][change.name] = change.new
    changed: dict[str, str] = {}
    for path, values in wanted.items():
        if path not in files:
            raise AutoresearchError(f"there is no file {path!r}; use one of {', '.join(files)}")
        suffix = ".py" if path == script else PurePosixPath(path).suffix
        text = _written(files[path], suffix, path or "the script", values)
        if text != files[path]:
            changed[path] = text
    return changed


def differences(
    before: Mapping[str, str], after: Mapping[str, str], script: str = ""
) -> tuple[ValueChange, ...]:
    """Return the hyperparameters that have another value in ``after``, which may lack files."""
    old = {item.key: item for item in knobs(before, script)}
    return tuple(
        ValueChange(name=item.name, old=old[item.key].value, new=item.value, file=item.file)
        for item in knobs({**before, **after}, script)
        if item.key in old and old[item.key].value != item.value
    )


def digest_of(files: Mapping[str, str]) -> str:
    """Return the sha256 that stands for editable files (path to text) in ``tried_sources``."""
    return tree_digest({path: digest(text) for path, text in files.items()})


def describe(changes: Iterable[ValueChange]) -> str:
    """Return ``NAME old -> new, ...`` for people; nothing reads it back."""
    return ", ".join(f"{item} in {item.file}" if item.file else str(item) for item in changes)


def _written(text: str, suffix: str, where: str, values: Mapping[str, Value]) -> str:
    known = {item.name: item for item in _read(text, suffix, "")}
    data, places = text.encode(), []
    for name, value in values.items():
        if name not in known:
            raise AutoresearchError(
                f"{where} has no hyperparameter {name!r}; use one of "
                f"{', '.join(known) or 'none: it has none'}"
            )
        places += [(span, known[name], value) for span in known[name].spans]
    for (start, end), item, value in sorted(places, key=lambda place: place[0], reverse=True):
        literal = _literal(item, value, data[start:end].decode(), suffix)
        data = data[:start] + literal.encode() + data[end:]
    changed = data.decode()
    if suffix == ".toml" and literals.toml(changed) != literals.toml_with(
        literals.toml(text) or {}, {n: _as_read(value, known[n]) for n, value in values.items()}
    ):
        raise AutoresearchError(
            f"{where} would change elsewhere too; edit {', '.join(values)} by hand"
        )
    return changed


def _as_read(value: Value, parameter: Hyperparameter) -> Value:
    if isinstance(value, bool):
        return value
    return int(value) if parameter.type == "int" else float(short(float(value)))


def _literal(parameter: Hyperparameter, value: Value, old: str, suffix: str) -> str:
    """Return ``value`` written the way the old literal was: quoted, as a flag, with underscores."""
    quote = old[0] if old[:1] in {'"', "'"} else ""
    if parameter.type == "str":
        return repr(str(value))
    if isinstance(value, str) or isinstance(value, bool) != (parameter.type == "bool"):
        raise AutoresearchError(
            f"{parameter.name} is of type {parameter.type}, but {value!r} was given; "
            f"give one of type {parameter.type}"
        )
    if isinstance(value, bool):
        text = str(value) if old in {"True", "False"} else str(int(value))
        text = str(value).lower() if old in {"true", "false"} else text
    elif parameter.type == "int":
        text = f"{int(value):_}" if "_" in old else str(int(value))
    else:
        text = short(float(value))
        if suffix in {".yaml", ".yml"} and "e" in text and "." not in text:
            text = text.replace("e", ".0e")  # readers of YAML 1.1 take 1e-05 for text
    return f"{quote}{text}{quote}"


def short(value: float) -> str:
    """Return a float literal with six significant digits that stays a float when read back."""
    text = f"{value:.6g}"
    return text if any(mark in text for mark in ".en") else f"{text}.0"
