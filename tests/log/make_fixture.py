"""Writes a store with event types in version 1; tests/fixtures/log_v1 has the first release's.

Such a fixture is what people have on their disks: it is never written again, and must be read for
ever. Types that are added later come into a fixture of their own, in the same way: ``python
tests/log/make_fixture.py log_control paused resumed stop_requested``.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs

from autoresearch.events import EVENT_TYPES, Event
from autoresearch.log import open_log

FIXTURES = Path(__file__).parents[1] / "fixtures"
AT = "2026-03-18T02:00:00.000000Z"
PLAIN = {str: 'text with é, ☃ and "quotes"\n', int: 7, float: 0.00064, bool: True}


def example(hint: Any, *, absent: bool) -> Any:
    """Return a value of a field's type: rich, or as absent as the type allows."""
    if get_origin(hint) in (Union, UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return None if absent else example(kinds[0], absent=False)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        return () if absent else (example(arguments[0], absent=False),) * 2
    if origin is not None and issubclass(origin, Mapping):
        kind = arguments[1]
        inner = {"nested": [1, None, True, 1e-7]} if kind is Any else example(kind, absent=False)
        return {} if absent else {"key": inner, "another key": inner}
    return PLAIN[hint]


def examples(shape: type[Event]) -> list[Event]:
    """Return an event with everything and one with as little as possible."""
    hints, kind = get_type_hints(shape), shape
    names = [item.name for item in attrs.fields(kind)]  # type: ignore[arg-type]
    return [
        shape(**{name: example(hints[name], absent=absent) for name in names})
        for absent in (False, True)
    ]


def main() -> None:
    """Write the fixture that is named first with the types that are named after it."""
    name_of_fixture, *names = sys.argv[1:]
    fixture = FIXTURES / name_of_fixture
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        log = open_log(store)
        with log.writer("v1", actor="the past") as writer:
            for name in sorted(names):
                for number, event in enumerate(examples(EVENT_TYPES[name])):
                    writer.append(event, event_id=f"{name}-{number}", at=AT)
        (path,) = (store / "journal").iterdir()
        (store / "manifest.jsonl").unlink()
        path.rename(path.with_name("v1@fixture-1.jsonl"))
        open_log(store).tip()
        shutil.rmtree(store / "locks")
        shutil.copytree(store, fixture)
    print(f"{len(names)} types in {fixture}", file=sys.stderr)


if __name__ == "__main__":
    main()
