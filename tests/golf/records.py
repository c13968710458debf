"""How the audits do on other people's scripts: ``python -m tests.golf.records MIRROR [COMMITS]``.

MIRROR is a git directory of openai/parameter-golf with its pull requests, COMMITS how many single
commits are judged (400), in the order of their digests. Nothing of it is in this
repository; the figures of docs/truth.md are what this command prints.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import islice

from autoresearch.golf.audits import audit_source, needs_model_tests
from autoresearch.model import Violation
from autoresearch.python_source import fault, tree

# Entries that reviewers of the challenge found to be invalid, by pull request, and why.
INVALID = {
    "trains on validation": (1376, 1485, 1487, 1488, 1489, 1517, 1735, 1738, 1919, 1972),
    "carries the validation text": (168, 262, 275),
    "counts bytes that are not there": (
        144, 755, 897, 1143, 1184, 1271, 1314, 1545, 1576, 1578, 1632, 1672, 1698, 1707, 1712, 1719,
        1771, 1804, 1873, 1971, 2071,
    ),
    "sees the target": (1240, 1420, 1967, 2018, 2118),
    "gives more than one": (
        727, 770, 776, 797, 982, 1785, 1795, 1835, 1933, 1991, 2080, 2083, 2103,
    ),
    "scores again": (402, 677, 991, 1004, 1082),
    "validates on a part": (1854, 1883, 1923, 1978, 1981, 2109),
    "takes more time": (1908,),
}  # fmt: skip
MOST_LINES = 200  # a commit that changes more is a new script and no edit
_SCRIPT = re.compile(r"(^|/)[^/]*train[^/]*\.py$")
_PACKED = re.compile(r"\b(exec|eval)\(.{0,60}(decompress|b85|b64)")
_MEASURES = re.compile(r"eval|\bval_|_val\b|valid|bpb|ttt|slid|stride|lut|score", re.IGNORECASE)


def git(mirror: str, *words: str, given: str | None = None) -> str:
    """What git prints; empty where it refuses."""
    command = ["git", "-C", mirror, *words]
    done = subprocess.run(
        command, input=given, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    return done.stdout if done.returncode == 0 else ""


def main(mirror: str, most: int = 400) -> None:
    """Print the figures of all parts, each blocked script with its first reason."""
    names = [
        n
        for n in git(mirror, "ls-tree", "-r", "--name-only", "HEAD").splitlines()
        if _SCRIPT.search(n)
    ]
    records = {
        n: git(mirror, "show", f"HEAD:{n}")
        for n in names
        if n.startswith(("records/", "train_gpt"))
    }
    records = {n: s for n, s in records.items() if "val_bpb" in s}
    readable = {n: s for n, s in records.items() if fault(s) is None}
    print(f"records: {len(records)} scripts, {len(records) - len(readable)} need a newer Python")
    with ProcessPoolExecutor(2) as pool:
        tell(
            "records against themselves",
            pool.map(judge, readable, readable.values(), readable.values()),
        )
        pairs = list(islice(commits(mirror), most))
        tell("commits that leave the evaluation alone", pool.map(judge, *zip(*pairs, strict=True)))
        entries = list(invalid(mirror, [s for n, s in readable.items() if "10min" in n]))
        tell("entries known to be invalid", pool.map(judge, *zip(*entries, strict=True)))
        tell(
            "the same as evaluation changes",
            pool.map(partial(judge, typed=True), *zip(*entries, strict=True)),
        )


def judge(
    name: str, after: str, before: str, *, typed: bool = False
) -> tuple[str, tuple[Violation, ...]]:
    """The findings about one script."""
    return name, audit_source(after, pristine=before, evaluation_change=typed)


def tell(title: str, judged: Iterator[tuple[str, tuple[Violation, ...]]]) -> None:
    """Print how many were blocked, by which rules, and the first reason of each."""
    everything = list(judged)
    blocked = [(n, [v for v in found if v.blocks]) for n, found in everything]
    blocked = [(n, found) for n, found in blocked if found]
    asked = sum(
        needs_model_tests(found) and not any(v.blocks for v in found) for _, found in everything
    )
    rules = Counter(rule for _, found in blocked for rule in {v.rule for v in found})
    said = ", ".join(f"{rule} {count}" for rule, count in sorted(rules.items()))
    print(
        f"{title}: {len(blocked)} of {len(everything)} blocked ({said}), "
        f"{asked} left to the model tests"
    )
    for name, found in blocked:
        print(f"  {name[-70:]}: {found[0].rule} line {found[0].line}: {found[0].detail[:110]}")


def commits(mirror: str) -> Iterator[tuple[str, str, str]]:
    """Name, script after and script before of single commits that leave the evaluation alone."""
    log = git(
        mirror,
        "log",
        "--all",
        "--no-merges",
        "--diff-filter=M",
        "--raw",
        "--no-abbrev",
        "--format=%H",
        "--",
        "*train*.py",
    )
    found, commit = {}, ""
    for line in log.splitlines():
        if line.startswith(":") and _SCRIPT.search(line):
            _, _, before, after, rest = line.split(maxsplit=4)
            found[before, after] = f"{commit[:9]} {rest.split(maxsplit=1)[1]}"
        elif line:
            commit = line
    for (before, after), name in sorted(found.items()):  # in the order of digests, which is none
        one, two = blob(mirror, before), blob(mirror, after)
        if one and two and edits(one, two) and not (fault(one) or fault(two)):
            yield name, two, one


@cache
def blob(mirror: str, name: str) -> str:
    """A script of the mirror by its object; empty where it is absent, packed or no script."""
    text = git(mirror, "cat-file", "blob", name)
    return text if "torch" in text and "val_bpb" in text and not _PACKED.search(text) else ""


def edits(before: str, after: str) -> bool:
    """Whether a commit is a small one outside of everything that measures."""
    old, new = Counter(before.splitlines()), Counter(after.splitlines())
    code = [line.strip() for line in ((old - new) + (new - old))]
    code = [line for line in code if line and not line.startswith("#")]
    if not 0 < len(code) <= MOST_LINES or any(map(_MEASURES.search, code)):
        return False
    return measuring(before) == measuring(after)


def measuring(source: str) -> list[str]:
    """The functions that measure, by their names."""
    functions = (
        n for n in ast.walk(tree(source) or ast.Module([], [])) if isinstance(n, ast.FunctionDef)
    )
    return [ast.dump(n) for n in functions if _MEASURES.search(n.name)]


def invalid(mirror: str, valid: list[str]) -> Iterator[tuple[str, str, str]]:
    """Name, script and the nearest valid record's script of each known-invalid entry."""
    for why, numbers in INVALID.items():
        for number in numbers:
            head = f"refs/pull/{number}/head"
            base = git(mirror, "merge-base", "main", head).strip()
            listed = (
                git(mirror, "diff", "--name-only", "--diff-filter=AM", base, head, "--", "records")
                if base
                else ""
            )
            for name in listed.splitlines():
                source = git(mirror, "show", f"{head}:{name}") if _SCRIPT.search(name) else ""
                if source and "val_bpb" in source and fault(source) is None:
                    yield f"#{number} {why}: {name.split('/')[-2]}", source, nearest(source, valid)
                    break


def nearest(source: str, others: list[str]) -> str:
    """The script that shares most lines with a source."""
    lines = set(source.splitlines())
    return max(
        others,
        key=lambda other: (
            len(lines & set(other.splitlines())) / max(len(lines | set(other.splitlines())), 1)
        ),
    )


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
