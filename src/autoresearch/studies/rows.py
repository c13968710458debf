"""What a row of a foreign history says, and the texts in its cells and over its columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache

from attrs import evolve, frozen

from autoresearch.numbers import SCALES, seconds_in, size_in_bytes
from autoresearch.studies.ledgers import STATUSES, Line, status_of

FLAG = "(is_|was_)?(keep|kept|accepted|improved|better|merged|ok)"  # asks for yes or no
_SIZE_SAID = re.compile(
    r"(?P<at>artifact\D{0,12})?(?P<number>\d[\d,]*(?:\.\d+)?)\s?(?P<unit>[KM]i?B|bytes)\b"
    r"(?P<on>[^,;)]{0,20}\b(?:limit|artifact)|[^,;)]{0,3}OVER)?",
    re.IGNORECASE,
)  # fmt: skip
UNJUDGED = ("", "ran")  # statuses that are no verdict
COMMIT = re.compile(r"[0-9a-f]{7,64}")
_PLACEHOLDERS = re.compile(r"(no_?commit|none|n/?a|null|nan|-+|\?|)", re.IGNORECASE)
_PARAMETER = re.compile(r"(?:.*[._/])?(?:params?|config|cfg|hparams?|hyperparameters)[._/](.+)")


# --- the names of columns ---------------------------------------------------------------------


def name_of(column: str) -> str:
    """Return a name with `_` for every sign that is neither letter nor digit."""
    return re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_")


def path_of(column: str) -> list[str]:
    """Return the parts of a nested key such as ``metrics.val.loss``, else the column alone."""
    nested = re.fullmatch(r"[\w/-]+(\.[A-Za-z_][\w/-]*)+", column)
    return column.split(".") if nested else [column]


def names_of(column: str) -> tuple[str, ...]:
    """Return the names under which a column may be known: of a nested key its end as well."""
    parts = path_of(column)
    return tuple(name_of("_".join(parts[-count:])) for count in (1, 2, len(parts)))


@lru_cache(1024)  # it is asked again for every row
def is_named(column: str, name: str) -> bool:
    """Whether a column has a name of this pattern."""
    return any(re.fullmatch(name, key) for key in names_of(column))


def is_flag(column: str) -> bool:
    """Whether a column asks for yes or no, such as ``kept``."""
    return is_named(column, FLAG)


# --- the texts of cells -----------------------------------------------------------------------


@lru_cache(1024)
def status_in(word: str, *, flag: bool) -> str:
    """Return the status that a word stands for; one with a slip is the word that was meant."""
    if (known := status_of(word, flag=flag)) or len(word) < 4:
        return known
    near = get_close_matches(word.lower(), STATUSES, 1, 0.8)
    return STATUSES[near[0]] if near and near[0][0] == word[0].lower() else ""


def size_said(text: str, memory: float | None = None) -> float | None:
    """Return the size of the artifact that a text gives, in bytes.

    A size without that word counts where the column of the memory holds about the same number.
    """
    for match in _SIZE_SAID.finditer(text):
        size = size_in_bytes(float(match["number"].replace(",", "")), match["unit"])
        if match["at"] or match["on"] or (memory and abs(size / 1e6 - memory) < 1):
            return size
    return None


def direction_in(text: str) -> str:
    """Return the family of a change as its words name it: what is set, else its first words."""
    setting = re.search(r"([A-Za-z_][A-Za-z_0-9.]*)\s*=", text)
    if setting:
        return setting[1].lower().replace("_", " ")[:40]
    words = re.findall(r"[^\W\d_][^\W\d]+", text.lower())
    plain = [word for word in words if word not in ("the", "new", "best", "add", "to", "with")]
    return " ".join(plain[:2])[:40] or "other"


# --- rows -------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Past:
    """One row understood. ``size`` is in bytes; ``aside`` says why the row is no experiment.

    ``numbers`` are its other columns that hold numbers, by name.
    """

    source: str
    number: int
    cells: Mapping[str, str]
    status: str = ""
    score: float | None = None
    size: int | None = None
    commit: str = ""
    description: str = ""
    reasoning: str = ""
    direction: str = ""
    stage: str = ""
    seconds: float = 0.0
    usd: float = 0.0
    numbers: Mapping[str, float] = {}
    problems: tuple[str, ...] = ()
    aside: str = ""


def past(source: str, line: Line, columns: Mapping[str, str], *, unit: str, lower: bool) -> Past:
    """Understand one row; ``unit`` is that of its sizes."""
    row = _Row(line, columns)
    status, score = row.verdict(lower=lower)
    commit, size = row.commit(), row.size(unit)
    description = row.text("description") or row.text("reasoning") or parameters(line) or commit
    return Past(
        source=source, number=line.number, cells=line.cells, status=status, score=score,
        size=size, commit=commit, description=description or "no words",
        reasoning=row.text("reasoning"), stage=row.text("stage"),
        direction=row.text("direction") or direction_in(row.text("reasoning") or description),
        seconds=row.seconds(), usd=max(row.number("usd") or 0.0, 0.0),
        numbers=_others(line, columns), problems=tuple(row.problems),
        aside=row.aside(status, score),
    )  # fmt: skip


class _Row:
    """A row while it is understood, by the names of the fields; what is wrong is noted as found."""

    def __init__(self, line: Line, columns: Mapping[str, str]) -> None:
        self.line, self.columns = line, columns
        self.problems = list(line.problems)

    def text(self, name: str) -> str:
        return self.line.cells.get(self.columns.get(name, ""), "")

    def number(self, name: str) -> float | None:
        return self.line.numbers.get(self.columns.get(name, ""))

    def verdict(self, *, lower: bool) -> tuple[str, float | None]:
        """Return the status and the score, which tell of each other: NaN is a crash."""
        word, flag = self.text("status"), is_flag(self.columns.get("status", ""))
        status, score = status_in(word, flag=flag), self.number("metric")
        lost = score is None and status_of(self.text("metric")) == "crash"
        if lost and status in (*UNJUDGED, "discard"):
            status = "crash"
        score = self._score(score, crashed=status == "crash", lower=lower)
        if word and not status_of(word, flag=flag):
            read = f"is read as {status}" if status else "is unknown"
            self.problems.append(f"the status {word[:40]!r} {read}")
        return ("discard" if word and not status else status), score

    def _score(self, score: float | None, *, crashed: bool, lower: bool) -> float | None:
        if score is None and (text := self.text("metric")):
            self.problems.append(f"the score {text[:40]!r} is no number")
        if score != 0 or not (lower or crashed):
            return score
        self.problems += [] if crashed else ["a score of 0 stands for none"]
        return None

    def commit(self) -> str:
        name = self.text("commit")
        if name and not COMMIT.fullmatch(name):
            unnamed = _PLACEHOLDERS.fullmatch(name)
            self.problems.append("no commit" if unnamed else "its commit is a name")
        return name

    def size(self, unit: str) -> int | None:
        """Return the bytes of the artifact: those of its column, else those that the words give."""
        if size := self.number("size"):
            return round(size_in_bytes(size, unit))
        memory = self.number("memory")
        said = size_said(wording(self.line, self.columns), memory)
        if said and memory and abs(said / 1e6 - memory) < 1:
            told = f"{self.columns['memory']} holds the artifact's size, {said:,.0f} B"
            self.problems.append(told)
        return round(said) if said else None

    def seconds(self) -> float:
        seconds = self.number("seconds") or 0.0
        if not seconds_in(self.text("seconds")):  # a bare number: the column's name has the unit
            units = name_of(self.columns.get("seconds", "")).split("_")
            seconds *= next((SCALES[word] for word in units if word in SCALES), 1.0)
        return max(seconds, 0.0)

    def aside(self, status: str, score: float | None) -> str:
        """Return why the row is no experiment; empty for one that is."""
        word = self.text("status")
        if status == "none":
            return f"status {word!r}: no experiment"
        if score is None and status not in ("crash", "backtrack"):
            return f"{word} without a score" if word else "no score"
        return ""


def parameters(line: Line) -> str:
    """Return what was set, of a table whose columns are the parameters of a search."""
    found = ((_PARAMETER.fullmatch(name), cell) for name, cell in line.cells.items() if cell)
    return ", ".join(f"{name[1]}={cell}" for name, cell in found if name)


def wording(line: Line, columns: Mapping[str, str]) -> str:
    """Return what people wrote of a row."""
    return " ".join(line.cells.get(columns.get(f, ""), "") for f in ("description", "reasoning"))


def _others(line: Line, columns: Mapping[str, str]) -> dict[str, float]:
    known = {columns.get(name) for name in ("metric", "size", "commit", "status", "at")}
    named = {
        name_of(column)[:64]: value for column, value in line.numbers.items() if column not in known
    }
    return {name: value for name, value in named.items() if name}


def once(rows: Iterable[Past]) -> tuple[Past, ...]:
    """Leave out what repeats an earlier row in every column: one fact that was logged twice.

    A way back may be taken twice.
    """
    found: dict[tuple[object, ...], Past] = {}
    for row in rows:
        own = row.number if row.status == "backtrack" else None
        found.setdefault((own, *row.cells.values()), row)
    return tuple(found.values())


def with_verdicts(rows: Iterable[Past], lower: bool) -> tuple[Past, ...]:
    """Give rows that nobody judged a status: each improvement on all before is a keep."""
    best: float | None = None
    made = []
    for row in rows:
        if row.score is not None and not row.aside:
            improved = best is None or (row.score < best if lower else row.score > best)
            status = "keep" if improved else "discard"
            row = evolve(row, status=status) if row.status in UNJUDGED else row
            best = row.score if improved and row.status == "keep" else best
        made.append(row)
    return tuple(made)
