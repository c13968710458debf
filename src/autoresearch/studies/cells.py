"""What one text of a foreign history says: the name of a column, a status, a size, a family."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import lru_cache

from autoresearch.numbers import size_in_bytes
from autoresearch.studies.ledgers import STATUSES, status_of

FLAG = "(is_|was_)?(keep|kept|accepted|improved|better|merged|ok)"  # asks for yes or no
_SIZE_SAID = re.compile(
    r"(?P<at>artifact\D{0,12})?(?P<number>\d[\d,]*(?:\.\d+)?)\s?(?P<unit>[KM]i?B|bytes)\b"
    r"(?P<on>[^,;)]{0,20}\b(?:limit|artifact)|[^,;)]{0,3}OVER)?",
    re.IGNORECASE,
)  # fmt: skip


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
    near = get_close_matches(word.lower(), STATUSES, 1, 0.8) if len(word) > 3 else []
    slip = STATUSES[near[0]] if near and near[0][0] == word[0].lower() else ""
    return status_of(word, flag=flag) or slip


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
