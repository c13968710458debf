"""Reads the histories that people keep: TSV, CSV, JSON lines, Markdown, notes.md, a branch.

Whatever a file is, it becomes a table of texts, each row with what is wrong with it; what the
columns mean is decided in `columns`.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from autoresearch.errors import WorkspaceError
from autoresearch.git import Git
from autoresearch.numbers import named
from autoresearch.text import counted, encoding_of

# What people write for a verdict. What ran, as trackers say, was judged by nobody; what is neither
# kept, lost, crashed nor ran never was an experiment.
STATUSES: Mapping[str, str] = {
    word: status
    for status, words in {
        "keep": "keep kept accept accepted improved success win best new_best merged baseline pass "
        "promote ✅ ✔ ✓ 👍",
        "discard": "discard discarded revert reverted reject rejected worse drop dropped no_change "
        "neutral loss pruned no_improvement not_improved ❌ ✗ ✘ 👎",
        "crash": "crash crashed fail failed error oom killed timeout timed_out diverged nan 💥",
        "backtrack": "backtrack rollback reset",
        "quarantine": "quarantine quarantined suspicious",
        "ran": "ran finished complete completed done succeeded terminated ok",
        "none": "infra infra_failed rate_limited skipped pending running queued cancelled aborted",
    }.items()
    for word in words.split()
}
# What stands for a verdict only in a column that asks for yes or no, such as "kept".
_FLAGS = {
    **dict.fromkeys(("yes", "y", "true", "1"), "keep"),
    **dict.fromkeys(("no", "n", "false", "0"), "discard"),
}
# In the subject of a commit: at its beginning, or at its end behind a sign or a number.
_SAID = r"(keep|kept|discard|discarded|reject|rejected|crash|crashed)"
_VERDICT = re.compile(rf"^\W*{_SAID}\s*[:|\])-]|[|:;,(\[>\d-]\s*{_SAID}\W*$", re.IGNORECASE)
# Files without a header: the columns of the protocol, and of the program that it came from.
_BARE = {
    6: ("commit", "metric", "artifact_mb", "status", "reasoning", "description"),
    5: ("commit", "metric", "memory_gb", "status", "description"),
}
_EXCEL = re.compile(r"\A\s*sep=.[ \t\r]*\n")
_SIGNS = "\t,;|"
_RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(\|\s*:?-*:?\s*)+")  # below the header of a Markdown table
_NUMBER = re.compile(r"[-+]?[\d.,_ ]*\d[\d.,_]*(?:e[-+]?\d+)?\s?%?", re.IGNORECASE)
_HEADING = re.compile(r"^### Experiment (\d+):\s*(.*)$")
_BLOCK_LINE = re.compile(r"^(Hypothesis|Evidence|Risk|Result|vs Expected|Why|Lesson):\s*(.*)$")
_RESULT = re.compile(r"(?P<rest>.*?)\((?P<status>[a-z_]+)\)\s*$")


@frozen(kw_only=True)
class Line:
    """One row as texts by column; ``number`` counts from 1 below the header.

    ``numbers`` are the cells that hold one, as `columns` reads them.
    """

    number: int
    cells: Mapping[str, str]
    numbers: Mapping[str, float] = {}
    problems: tuple[str, ...] = ()


@frozen(kw_only=True)
class Table:
    """A file as rows of texts; ``kind`` says what it was taken for."""

    source: str
    kind: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    problems: tuple[str, ...] = field(default=())


def status_of(text: str, *, flag: bool = False) -> str:
    """Return keep, discard, crash, backtrack, quarantine, ran or none; empty for no such word.

    In a column that is a ``flag``, yes and no are words too.
    """
    word = re.sub(r"[\s-]+", "_", text.strip().strip("*`!?.\ufe0f").lower())
    known = {**STATUSES, **_FLAGS} if flag else STATUSES
    return known.get(word, "") or known.get(re.sub(r"^\W*_|_\W*$", "", word), "")


def read(source: str, project: Path) -> Table:
    """Read a file, or a branch of experiments of the repository ``project``.

    Raises WorkspaceError for what is neither, for a file that is not text, and for one without a
    single row.
    """
    path = Path(source)
    if path.is_file():
        table = _of_text(path, path.name)
    elif not (path.exists() or source.startswith("-")) and Git(project).commit_of(source):
        table = _of_branch(project, source)
    else:
        raise WorkspaceError(f"{source} is neither a file nor a branch; name a history to import")
    if not table.lines:
        raise WorkspaceError(f"{source} has no row that can be read; name a table of experiments")
    return table


def _of_text(path: Path, name: str) -> Table:
    text, problems = _decoded(path)
    if "\0" in text:
        raise WorkspaceError(f"{path} is not a text file; name a table of experiments")
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return Table(source=name, kind="empty file", columns=(), lines=())
    if lines[0].lstrip()[:1] in "[{" and (objects := _objects(text)):
        return _table(name, "JSON", objects, problems)
    if any(_HEADING.match(line) for line in lines):
        return _table(name, "notes", list(enumerate(_notes(lines), 1)), problems)
    if tables := list(_tables(text)):
        return _joined([_grid(name, "Markdown table", rows, problems) for rows in tables])
    text = _without_preface(_EXCEL.sub("", text))
    lines = [line for line in text.splitlines() if line.strip()]
    head = lines[0] if lines else ""
    if "\t" in head or "\\t" in head:
        return _grid(name, "TSV", [_cells(line) for line in lines], problems)
    counts = Counter(sign for sign in head if sign in _SIGNS)
    sign = counts.most_common(1)[0][0] if counts else ","
    try:
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=sign) if any(row)]
    except csv.Error as error:
        raise WorkspaceError(f"{path} is not valid CSV: {error}; correct the file") from None
    return _grid(name, "CSV", [(row, ()) for row in rows], problems)


def _decoded(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the text of a file, and what is to be told of its encoding."""
    raw = path.read_bytes()
    encoding = encoding_of(raw[:4096])
    try:
        return raw.decode(encoding).removeprefix("\ufeff"), ()
    except UnicodeDecodeError:
        if encoding != "utf-8-sig":
            return raw.decode(encoding, "replace").removeprefix("\ufeff"), ()
        told = "it is not UTF-8; read as Windows-1252, in which Excel saves CSV"
        return raw.decode("cp1252", "replace"), (told,)


def _without_preface(text: str) -> str:
    """Leave out the comments above a header: lines that have not as many separators as the next."""
    lines = text.splitlines(keepends=True)
    while len(lines) > 1 and (not lines[0].strip() or lines[0].lstrip().startswith("# ")):
        mine, other = (sum(map(line.count, _SIGNS)) for line in lines[:2])
        if lines[0].strip() and mine and mine == other:
            break  # a header that is written as a comment
        del lines[0]
    return "".join(lines)


# --- grids ----------------------------------------------------------------------------------

Split = tuple[Sequence[str], tuple[str, ...]]


def _cells(line: str) -> Split:
    if "\t" not in line and "\\t" in line:
        return _unquoted(line.split("\\t")), ("its tabs were written as \\t",)
    return _unquoted(line.split("\t")), ()


def _unquoted(cells: Iterable[str]) -> list[str]:
    quoted = re.compile(r'\s*"(.*)"\s*')
    found = ((cell, quoted.fullmatch(cell)) for cell in cells)
    return [match[1].replace('""', '"') if match else cell.strip() for cell, match in found]


def _tables(text: str) -> Iterator[list[Split]]:
    """Yield the tables of a Markdown text, each with its header first."""
    lines = text.splitlines()
    rules = [at for at, line in enumerate(lines) if at and _RULE.fullmatch(line)]
    for at in rules:
        if "|" in lines[at - 1]:
            rows = takewhile(lambda line: "|" in line, lines[at + 1 :])
            yield [(_of_markdown(line), ()) for line in (lines[at - 1], *rows)]
    bare = [line for line in lines if line.lstrip().startswith("|")]
    if not rules and len(bare) > 2:
        yield [(_of_markdown(line), ()) for line in bare]


def _of_markdown(line: str) -> list[str]:
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", line.strip())  # of a link its words
    cells = re.split(r"(?<!\\)\|", text.removeprefix("|").removesuffix("|").replace("**", ""))
    return [cell.strip().strip("`*~").replace("\\|", "|") for cell in cells]


def _joined(tables: list[Table]) -> Table:
    """Put tables of experiments together; one that shares no two columns with them is another."""
    main = max(tables, key=lambda table: len(table.lines))
    like = [each for each in tables if each is main or len({*each.columns} & {*main.columns}) > 1]
    columns = tuple(dict.fromkeys(name for each in like for name in each.columns))
    rows = enumerate((line for each in like for line in each.lines), 1)
    lines = [
        evolve(line, number=number, cells={name: line.cells.get(name, "") for name in columns})
        for number, line in rows
    ]
    others = len(tables) - len(like)
    told = (f"left out, for other columns: {counted(others, 'table')}",) if others else ()
    return evolve(main, columns=columns, lines=tuple(lines), problems=(*main.problems, *told))


def _grid(name: str, kind: str, rows: list[Split], problems: tuple[str, ...]) -> Table:
    """Make a table of rows whose first may be the header; a status mends a broken row."""
    head = [cell.strip() for cell in rows[0][0]]
    bare = any(_NUMBER.fullmatch(cell) for cell in head if cell)
    if bare:
        width = Counter(len(cells) for cells, _ in rows).most_common(1)[0][0]
        columns = _BARE.get(width) or tuple(f"column_{n}" for n in range(1, width + 1))
        problems = (*problems, f"there is no header; read as {', '.join(columns)}")
    else:
        columns, rows = _distinct(head), rows[1:]
    anchor = _status_column(columns, rows)
    lines, order = [], columns
    for number, (raw, told) in enumerate(rows, 1):
        cells = [cell.strip() for cell in raw]
        if not bare and sorted(cells) == sorted(head):
            order = _distinct(cells)  # the header again, where two files were put together
            continue
        if "".join(cells).startswith("# ") and sum(map(bool, cells)) == 1:
            continue
        at = order.index(columns[anchor]) if anchor >= 0 else -1
        mended, found = _fitted(cells, len(columns), at)
        named_cells = dict(zip(order, mended, strict=True))
        lines.append(Line(number=number, cells=named_cells, problems=(*told, *found)))
    return Table(source=name, kind=kind, columns=columns, lines=tuple(lines), problems=problems)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    seen: Counter[str] = Counter()
    made = []
    for index, name in enumerate(names, 1):
        name = name or f"column_{index}"
        seen[name] += 1
        made.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return tuple(made)


def _status_column(columns: Sequence[str], rows: Sequence[Split]) -> int:
    """Return the column in whose place most rows of full width have a status; -1 for none."""
    full = [cells for cells, _ in rows if len(cells) == len(columns)] or [c for c, _ in rows]
    hits = Counter(i for cells in full for i, cell in enumerate(cells) if status_of(cell))
    named_so = [i for i, name in enumerate(columns) if re.search("status|verdict|decision", name)]
    if named_so and (hits[named_so[0]] or not hits):
        return named_so[0]
    most, count = hits.most_common(1)[0] if hits else (-1, 0)
    return most if 2 * count >= len(full) else -1


def _fitted(cells: list[str], width: int, anchor: int) -> tuple[list[str], tuple[str, ...]]:
    """Bring a row to the width of the table: what stands before and behind its status stays so."""
    if len(cells) == width and (anchor < 0 or status_of(cells[anchor], flag=True)):
        return cells, ()
    at = next((i for i, cell in enumerate(cells) if status_of(cell)), -1)
    told = f"{len(cells)} fields instead of {width}"
    if anchor < 0 or at < 0 or at == anchor or at > anchor:
        at = anchor
    if at != anchor:
        told += f", put in place by its status {cells[at]!r}"
        cells = [*cells[:at], *[""] * (anchor - at), *cells[at:]]
    if len(cells) > width:  # a separator inside the last text
        cells = [*cells[: width - 1], " ".join(cells[width - 1 :])]
    return [*cells, *[""] * (width - len(cells))], () if told.startswith(f"{width} ") else (told,)


# --- other shapes -----------------------------------------------------------------------------


def _objects(text: str) -> list[tuple[int, dict[str, Any]]]:
    """Return the objects of JSON lines, or of one array, with their numbers; broken lines too."""
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    if isinstance(whole, dict):  # an array inside an object is the only list worth reading
        lists = [value for value in whole.values() if isinstance(value, list)]
        whole = max(lists, key=len, default=[whole])
    if isinstance(whole, list):
        return [(n, item) for n, item in enumerate(whole, 1) if isinstance(item, dict)]
    found = []
    for number, line in enumerate(filter(str.strip, text.splitlines()), 1):
        try:
            item = json.loads(line)
        except ValueError:
            item = {"unreadable": line}
        if isinstance(item, dict):
            found.append((number, item))
    return found if any("unreadable" not in item for _, item in found) else []


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            plain = all(isinstance(item, (str, int, float)) for item in value)
            yield f"{prefix}{key}", ", ".join(map(str, value)) if plain else f"{len(value)} items"
        else:
            yield f"{prefix}{key}", "" if value is None else str(value)


def _table(
    name: str, kind: str, objects: list[tuple[int, dict[str, Any]]], problems: tuple[str, ...]
) -> Table:
    rows = [(number, dict(_flat(item))) for number, item in objects]
    columns = tuple(dict.fromkeys(key for _, row in rows for key in row))
    lines = [
        Line(
            number=number,
            cells={key: row.get(key, "") for key in columns},
            problems=("the line is not JSON",) if "unreadable" in row else (),
        )
        for number, row in rows
    ]
    return Table(source=name, kind=kind, columns=columns, lines=tuple(lines), problems=problems)


def _notes(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the experiments of a notes.md by their blocks; what it lacks is not made up."""
    entry: dict[str, Any] = {}
    for line in lines:
        heading, told = _HEADING.match(line), _BLOCK_LINE.match(line.strip())
        if heading:
            if entry:
                yield entry
            entry = {"number": heading[1], "description": heading[2]}
        elif told and entry:
            label, text = told.groups()
            entry[{"Hypothesis": "reasoning"}.get(label, label.lower())] = text
            if label == "Result":
                parts = _RESULT.match(text)
                numbers = named(parts["rest"] if parts else text).numbers
                entry |= {"status": parts["status"] if parts else "", **numbers}
                size = re.search(r"artifact=([\d.]+)\s?(M|Mi)B", text)
                entry |= {f"artifact_{size[2].lower()}b": size[1]} if size else {}
                entry.pop("artifact", None)
    if entry:
        yield entry


def _of_branch(project: Path, name: str) -> Table:
    """Read the commits that only the branch has: subject, and the numbers that messages give."""
    git = Git(project)
    trunk = next((b for b in ("main", "master", "HEAD") if git.commit_of(b)), "HEAD")
    fork = git.attempt("merge-base", trunk, name).stdout.strip()
    span = f"{fork}..{name}" if fork and fork != git.commit_of(name) else name
    log = git.run("log", "--reverse", "--no-merges", "-z", "--format=%H%x01%cI%x01%s%x01%b", span)
    commits = [entry.split("\x01") for entry in log.split("\0") if entry]
    undone = {found for *_, body in commits for found in re.findall(r"reverts commit (\w+)", body)}
    rows = []
    for number, (commit, at, subject, body) in enumerate(commits, 1):
        numbers: dict[str, float] = {}
        for line in (subject, *body.splitlines()):
            numbers |= named(re.sub(r"\b([A-Za-z_]\w*) (\d+\.\d+)", r"\1=\2", line)).numbers
        if subject.startswith("Revert "):
            continue
        kept = not any(commit.startswith(one) for one in undone)
        said = _VERDICT.search(subject)
        status = status_of((said[1] or said[2]) if said else "keep") if kept else "discard"
        row = {"commit": commit, "status": status, "description": subject}
        rows.append((number, {**row, "timestamp": at, **numbers}))
    told = f"{len(commits)} commits of {span}"
    return _table(name, "branch", rows, (told,))
