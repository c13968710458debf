"""Text from outside made harmless: it may be shown in a terminal, a TSV cell or a Markdown file."""

from __future__ import annotations

import codecs
import re
import unicodedata

# A terminal obeys these, so a whole sequence goes, not only its first byte: CSI, OSC and its
# relatives (ended by BEL, ST, or the end of the text), and the short two-byte escapes.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
_LINE_ENDS = re.compile(r"\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# Cc control, Cf invisible (bidirectional overrides among them), Cs half a surrogate pair,
# Co private use, Cn unassigned: none of them is text that a reader could see.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_MORE = "..."
# Up to the last @ before the path, for a password may hold one.
_USER_IN_ADDRESS = re.compile(r"(?<=://)[^\s/]*@")


def without_users(text: str) -> str:
    """Return `text` with ``***`` for the user and the password of every address in it."""
    return _USER_IN_ADDRESS.sub("***@", text)


def because(reason: str) -> str:
    """Return why a loop stopped without the word itself, for where "stopped" stands before it."""
    return reason.removeprefix("stopped ")


def encoding_of(head: bytes) -> str:
    """Return the encoding of program output, by its first bytes: UTF-16 of some kind, else UTF-8.

    Windows shells and some launchers redirect into UTF-16, with a byte order mark or without.
    """
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    sample = head[:4096]
    for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(sample) >= 8 and sample[start::2].count(0) > 0.4 * len(sample):
            return name
    return "utf-8-sig"


def without_escapes(text: str) -> str:
    """Return text without terminal escapes: colours, cursor moves, titles."""
    return _ESCAPES.sub("", text) if "\x1b" in text or "\x9b" in text else text


def one_line(text: str, limit: int = 200) -> str:
    """Return `text` as one printable line of at most `limit` characters.

    Terminal escapes, control and invisible characters go, and users and passwords in addresses;
    every run of white space, tabs and line ends included, becomes one blank; a longer text ends in
    three dots.
    """
    # Only what can end up in the answer is worth cleaning: a line may have millions of characters.
    head = text[: 16 * max(limit, 1) + 4096]
    cleaned = head
    if not head.isprintable():  # nearly all texts are, and cleaning takes a hundred times longer
        blanks = _LINE_ENDS.sub(" ", _ESCAPES.sub("", head)).replace("\n", " ").replace("\t", " ")
        cleaned = "".join(c if _is_seen(c) else "" for c in blanks)
    words = without_users(" ".join(cleaned.split()))
    return _cut(words, limit, cut_already=len(head) < len(text))


def block(text: str, limit: int = 20_000) -> str:
    """Return `text` as printable lines of at most `limit` characters together.

    Line ends become a plain newline and tabs become blanks; terminal escapes, control and invisible
    characters go, and users and passwords in addresses; trailing blanks go; a longer text ends in
    three dots.
    """
    head = text[: 4 * max(limit, 1) + 4096]
    unified = _LINE_ENDS.sub("\n", _ESCAPES.sub("", head)).expandtabs(4)
    cleaned = "".join(c if c == "\n" or _is_seen(c) else "" for c in unified)
    lines = without_users("\n".join(line.rstrip() for line in cleaned.split("\n")).strip("\n"))
    return _cut(lines, limit, cut_already=len(head) < len(text))


def _is_seen(character: str) -> bool:
    if " " <= character <= "~":
        return True
    return unicodedata.category(character) not in _UNSEEN


def counted(number: int, word: str) -> str:
    """Return a number with its word in the singular or the plural: ``1 run``, ``2 runs``."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _cut(text: str, limit: int, *, cut_already: bool) -> str:
    if len(text) <= limit and not cut_already:
        return text
    if limit < len(_MORE):
        return text[: max(limit, 0)]
    return text[: limit - len(_MORE)].rstrip() + _MORE
