"""What the columns of a foreign history mean: which is the score, in which unit a size is.

Nothing is corrected in silence: every guess about a column is told before it is used, and a row
that is not what its columns promise keeps its texts and says so.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import pairwise
from statistics import median

from attrs import evolve, frozen

from autoresearch.errors import WorkspaceError
from autoresearch.numbers import GROWING, SPAN, grows, has_decimal_commas, number_in, seconds_in
from autoresearch.presets import metric_columns
from autoresearch.studies.ledgers import Line, Table, status_of
from autoresearch.studies.rows import (
    COMMIT,
    FLAG,
    UNJUDGED,
    Past,
    is_flag,
    is_named,
    name_of,
    names_of,
    once,
    parameters,
    past,
    path_of,
    size_said,
    status_in,
    with_verdicts,
    wording,
)

# Field: names of its column, most telling first; `_` stands for every other sign.
_NAMES = {
    field: tuple(names.split())
    for field, names in {
        "commit": "(git_)?(commit|sha|rev|revision)(_(hash|id|sha))? hash",
        "status": f"status verdict decision outcome state {FLAG}",
        "description": "description desc change what summary message title overrides (run_?)?name "
        "(notes?|comments?) candidate_id run_id experiment id",
        "reasoning": "reasoning hypothesis rationale reason why idea",
        "direction": "direction (primary_)?family category area",
        "size": "artifact_(mb|mib|bytes|kb|size|size_mb) artifact (total|size)_bytes bytes_total "
        "(model_|artifact_)?size(_mb|_mib)?",
        "memory": "(peak_)?(memory|vram|mem)(_gb|_mb|_gib|_mib)?",
        "seconds": "((wall|run|total)_)?(seconds|secs|minutes|hours|duration|elapsed|runtime)"
        "(_(s|ms|min|h))? (wall_|total_|train(ing)?_)?time_(total_)?(s|ms|min|minutes|h|hours) "
        "train(ing)?_seconds",
        "usd": "cost_usd usd cost",
        "at": "created(_at)? start_time datetime_start timestamp ts datetime date time",
        "stage": "tier stage",
    }.items()
}
FIELDS = ("metric", *_NAMES)
_METRICS = (
    r"\w*bpb\w*", r"val(idation)?_loss", "values?|objective|fitness|target",
    r"(val|valid|validation|test|eval)_\w+", r"\w*(loss|perplexity|ppl|error|mse|rmse|mae|wer)\w*",
    r"\w*(accuracy|acc|f1|auc|bleu|reward|score|metric|map|iou)\w*", r"top_?\d\w*",
    rf"(\w+_)?({GROWING.pattern})",
)  # fmt: skip
_TRAINING = re.compile(r"(^|_)train")
_VALIDATION = re.compile("val|valid|validation|test|eval|dev")
_LOWER = re.compile(r"bpb|loss|perplexity|ppl|error|mse|mae|wer|time|seconds|minutes|hours")
_NO_METRIC = re.compile(r"(time|_ms|_s|bytes|cap|tokens|steps)$")
_FINAL = re.compile(r"final|exact|post_quant")


@frozen(kw_only=True)
class Reading:
    """A table with the meaning of its columns; ``told`` says of each field how it was read."""

    table: Table
    columns: Mapping[str, str]
    told: Mapping[str, str]
    metric: str
    lower: bool
    rows: tuple[Past, ...]


def interpret(table: Table, asked: Mapping[str, str] = {}, better: str = "") -> Reading:
    """Find out what the columns of a table mean.

    ``asked`` names the column of a field against the guess, ``better`` is lower or higher. Raises
    WorkspaceError for an unknown field or column, and for a table without a score.
    """
    _check(table, asked)
    table = _numbered(table)
    columns = _columns(table, asked)
    metric = _plain(columns["metric"])
    scores = [
        (_status(line, columns.get("status", "")), line.numbers[columns["metric"]])
        for line in table.lines
        if columns["metric"] in line.numbers
    ]
    lower, why = _direction(metric, scores, better)
    unit, of_size = _unit(table, columns.get("size"))
    ordered = _in_time(table, columns.get("at"))
    rows = once(past(table.source, line, columns, unit=unit, lower=lower) for line in ordered.lines)
    told = dict.fromkeys(columns, "") | {"metric": why} | dict(_told(table, columns, of_size))
    if ordered != table:
        told["at"] = "rows are put in its order"
    if why := _lacks_verdicts(table, columns, rows):
        told["status"] = f"{why}: a row that is better than all before it counts as kept"
    if again := len(table.lines) - len(rows):
        told["rows"] = f"{again} of {len(table.lines)} repeat another in every column: taken once"
    return Reading(
        table=table, columns=columns, told=told, metric=metric, lower=lower,
        rows=with_verdicts(rows, lower),
    )  # fmt: skip


def _check(table: Table, asked: Mapping[str, str]) -> None:
    for name, column in asked.items():
        if name not in FIELDS:
            raise WorkspaceError(f"there is no field {name!r}; name one of {', '.join(FIELDS)}")
        if column not in table.columns:
            known = ", ".join(table.columns)
            raise WorkspaceError(f"{table.source} has no column {column!r}; it has {known}")


def _columns(table: Table, asked: Mapping[str, str]) -> dict[str, str]:
    """Return the column of each field that has one: as asked, by its name, or by what it holds."""
    columns = {name: found for name in _NAMES if (found := _named_so(table, _NAMES[name]))}
    columns.pop("status", None)  # its words decide, not its name alone
    if judged := _status_column(table, columns):
        columns["status"] = judged
    columns |= asked
    columns["metric"] = asked.get("metric") or _score_column(table, columns)
    if "seconds" not in columns and (found := _named_so(table, [r"\w*(time|duration)\w*"])):
        columns |= {"seconds": found} if _holds_spans(table, found) else {}
    described = columns.keys() & {"description", "reasoning"} or any(map(parameters, table.lines))
    if not described and (found := _wordy(table, columns)):
        columns["description"] = found
    return columns


def _told(table: Table, columns: Mapping[str, str], of_size: str) -> Iterator[tuple[str, str]]:
    """Yield how sizes and commits are read."""
    if "size" in columns:
        yield "size", of_size
    elif any(size_said(wording(line, columns)) for line in table.lines):
        yield "size", "as the texts give it"
    if "commit" in columns:
        good = sum(bool(COMMIT.fullmatch(line.cells[columns["commit"]])) for line in table.lines)
        yield "commit", f"{good} of {len(table.lines)} are commits"


def _lacks_verdicts(table: Table, columns: Mapping[str, str], rows: Iterable[Past]) -> str:
    """Return why the verdicts of some rows are not the table's own; empty where all are."""
    if "status" in columns:
        unjudged = any(row.status in UNJUDGED and not row.aside for row in rows)
        return "it judges not every row" if unjudged else ""
    unknown = _named_so(table, _NAMES["status"])
    return f"the words of {unknown} are unknown" if unknown else "there is none"


def _plain(column: str) -> str:
    """Return the name of a metric: of a nested key the last part, and of what it is measured on."""
    parts = path_of(column.strip())
    of_held_out = len(parts) > 1 and _VALIDATION.fullmatch(parts[-2])
    name = "_".join(parts[-2 if of_held_out else -1 :])
    return re.sub(r"[^\w/.-]+", "_", name)[:64].strip("_") or "score"


def _named_so(table: Table, names: Sequence[str]) -> str:
    """Return the column that one of the names fits, the first name first; empty for none."""
    least = 0.3 * len(table.lines)
    for name in names:
        for column in table.columns:
            filled = sum(bool(line.cells[column]) for line in table.lines)
            if filled >= least and is_named(column, name):
                return column
    return ""


def _wordy(table: Table, columns: Mapping[str, str]) -> str:
    """Return the column with the most words of those that are not taken; empty for none."""
    words = {
        column: sum(len(re.findall("[^\\W\\d]{2,}", line.cells[column])) for line in table.lines)
        for column in table.columns
        if column not in columns.values()
    }
    most = max(words, key=lambda column: words[column], default="")
    return most if words.get(most, 0) > 1.5 * len(table.lines) else ""


def _status_column(table: Table, columns: Mapping[str, str]) -> str:
    """Return the column of verdicts, by its words and its name; empty for none.

    A column that says of every row only that it ran or crashed, as those of trackers, is the next
    best where its name is that of a status.
    """
    named = [c for name in _NAMES["status"] for c in table.columns if is_named(c, name)]
    others = (column for column in table.columns if column not in columns.values())
    known = [c for c in dict.fromkeys((*named, *others)) if _statuses(table, c)]
    judged = [c for c in known if {"keep", "discard"} & {_status(x, c) for x in table.lines}]
    return next(iter((*judged, *(c for c in known if c in named))), "")


def _status(line: Line, column: str) -> str:
    return status_in(line.cells.get(column, ""), flag=is_flag(column))


def _statuses(table: Table, column: str) -> bool:
    cells = [line.cells[column] for line in table.lines if line.cells[column]]
    flag = is_flag(column)
    return bool(cells) and 2 * sum(bool(status_of(cell, flag=flag)) for cell in cells) >= len(cells)


def _score_column(table: Table, columns: Mapping[str, str]) -> str:
    """Return the best of the columns that are named like a metric and hold usable numbers."""
    taken = {column for name, column in columns.items() if name != "description"}
    ranked = []
    # The metric of a preset first, then one that ends like it: a final, a quantised one.
    of_presets = [pattern for name in metric_columns() for pattern in (name, rf"\w+_{name}")]
    patterns = (*of_presets, *_METRICS)
    for column in table.columns:
        keys = names_of(column)
        fits = [i for i, pattern in enumerate(patterns) if is_named(column, pattern)]
        usable = sum(bool(line.numbers.get(column)) for line in table.lines)
        if fits and usable and column not in taken and not _NO_METRIC.search(keys[0]):
            # From nine tenths on the name decides: a crash has no score, a final one is the result.
            full = min(10 * usable // len(table.lines), 9)
            held_out = not any(map(_TRAINING.search, keys))
            final = len(_FINAL.findall(keys[-1]))
            ranked.append((held_out, full, -fits[0], final, usable, column))
    ranked = ranked or [(True, 0, 0, 0, 0, c) for c in table.columns if _holds_spans(table, c)][:1]
    if not ranked:
        raise WorkspaceError(
            f"{table.source} has no column with a score; name it with --map metric=COLUMN "
            f"({', '.join(table.columns[:12])})"
        )
    return max(ranked, key=lambda rank: rank[:-1])[-1]


def _holds_spans(table: Table, column: str) -> bool:
    """Whether a column says how long something took, in words such as 1h02m."""
    cells = [cell for line in table.lines if (cell := line.cells[column])]
    return 2 * sum(bool(SPAN.fullmatch(cell.strip())) for cell in cells) > len(cells)


def _numbered(table: Table) -> Table:
    """Read the cells that hold numbers, each with the comma of its column; times are seconds."""
    readers = {}
    for column in table.columns:
        comma = has_decimal_commas(line.cells[column] for line in table.lines)
        span = _holds_spans(table, column)
        readers[column] = seconds_in if span else partial(number_in, decimal_comma=comma)
    lines = []
    for line in table.lines:
        found = ((column, readers[column](cell)) for column, cell in line.cells.items())
        lines.append(evolve(line, numbers={c: value for c, value in found if value is not None}))
    return evolve(table, lines=tuple(lines))


def _in_time(table: Table, column: str | None) -> Table:
    """Put rows in the order of their times, in which the exports of trackers are not."""
    try:
        at = [datetime.fromisoformat(line.cells[column or ""]).timestamp() for line in table.lines]
    except (KeyError, ValueError):
        return table
    if table.kind == "branch":
        return table
    back = -1 if at[0] > at[-1] else 1  # those of one moment stay as they stand to each other
    order = sorted(range(len(at)), key=lambda row: (at[row], back * row))
    return evolve(table, lines=tuple(table.lines[row] for row in order))


def _direction(metric: str, scores: Sequence[tuple[str, float]], better: str) -> tuple[bool, str]:
    """Return whether lower is better, and why: as asked, by what was kept, or by the name."""
    if better:
        return better == "lower", f"{better} is better, as asked"
    kept = [value for status, value in scores if status == "keep" and value]
    down = sum(new < old for old, new in pairwise(kept))
    up = sum(new > old for old, new in pairwise(kept))
    if down + up >= 3 and max(down, up) >= 0.7 * (down + up):
        lower = down > up
        way = "down" if lower else "up"
        word = "lower" if lower else "higher"
        return lower, f"{word} is better: {max(down, up)} of {down + up} keeps went {way}"
    if grows(metric):
        return False, "higher is better, by its name"
    known = _LOWER.search(name_of(metric))
    return True, f"lower is better, {'by its name' if known else 'unless --better higher says so'}"


def _unit(table: Table, column: str | None) -> tuple[str, str]:
    """Return the unit of the sizes and how it is known: by the name, by the texts, by magnitude."""
    if not column:
        return "", ""
    marks = {"mib": "MiB", "kb": "kB", "bytes": "B", "mb": "MB"}
    unit = next((unit for mark, unit in marks.items() if mark in name_of(column)), "")
    if unit not in ("", "MB"):
        return unit, "MiB of 1,048,576 bytes" if unit == "MiB" else unit
    if median([v for line in table.lines if (v := line.numbers.get(column))] or [0]) >= 100_000:
        return "B", "bytes, whatever the name says: MB would be terabytes" if unit else (
            "bytes, by their size"
        )  # fmt: skip
    if unit and _binary(table, column):
        return "MiB", "MiB: bytes in the texts agree with 1,048,576"
    return "MB", f"MB of 1,000,000 bytes{'' if unit else ', by their size'}"


def _binary(table: Table, column: str) -> bool:
    """Whether rows that also tell their bytes say that a megabyte is 1,048,576 of them."""
    votes: Counter[bool] = Counter()
    for line in table.lines:
        value = line.numbers.get(column)
        for text in line.cells.values():
            for digits in re.findall(r"\b\d{1,3}(?:,\d{3}){2}\b|\b\d{7,9}\b", text):
                share = float(digits.replace(",", "")) / (value or 1e99) / 1e6
                if abs(share - 1) < 0.01 or abs(share - 1.048576) < 0.01:
                    votes[share > 1.02] += 1
    return votes[True] > votes[False]
