"""How the readers and the audits do on other people's material.

    python -m tests.golf.records MIRROR [PART ...]

MIRROR is a git directory of openai/parameter-golf with its pull requests; nothing of it is in this
repository. PART is one of ``itself``, ``logs``, ``pulls``, ``commits``, ``invalid``, ``typed`` and
``campaigns``, all of them without one; all but the first two take a span, such as ``pulls=0:50``,
so that a long run can be made in pieces. Commits and pull requests come in the order of digests,
so that each is a fair sample. The figures of
docs/truth.md are what this prints. It exits with 1 where loop and `metrics` differ, a record is
blocked by its own audit, or an invalid entry would be believed.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from hashlib import sha256
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pyrsistent import pvector
from tests.golf.test_from_records import campaign, edited
from tests.kit.words import small_tokenizer

from autoresearch import Experiment, History, Idea, RunOutput, RunStatus
from autoresearch.cycle.traces import LINE
from autoresearch.golf.audits import audit_source, needs_model_tests
from autoresearch.golf.canary import audit_measuring
from autoresearch.golf.packing import unpacked
from autoresearch.golf.plugin import Plugin
from autoresearch.golf.reading import read_log
from autoresearch.golf.reading.grammar import base_name
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
_LOG = re.compile(r"(^|/)(?!requirements)[^/]*\.(log|txt)$")
_MEASURES = re.compile(r"eval|\bval_|_val\b|valid|bpb|ttt|slid|stride|lut|score", re.IGNORECASE)
_SUMS = ("seen", "blocked", "asked")
_HEADS = ("--format=%(refname)", "refs/pull/*/head")
IDEA = Idea(direction="-", description="-", hypothesis="-")
T = TypeVar("T")
Judged = tuple[str, tuple[Violation, ...], str]  # name, what the audit says, what the canary says


def git(mirror: str, *words: str) -> bytes:
    """What git prints; empty where it refuses."""
    done = subprocess.run(["git", "-C", mirror, *words], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else b""


def blobs(mirror: str, ref: str, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """The files of a commit, those that a copy lacks left out."""
    for name in names:
        if text := git(mirror, "cat-file", "blob", f"{ref}:{name}"):
            yield name, text


def listed(mirror: str, ref: str = "HEAD", base: str = "") -> list[str]:
    """The files of the records at a commit, or those that it has over another one."""
    what = ("diff", "--diff-filter=AM", "--name-only", "-z", base, ref, "--", "records")
    what = what if base else ("ls-tree", "-r", "--name-only", "-z", ref, "records")
    return git(mirror, *what).decode().split("\0")[:-1]


def pull(mirror: str, number: int) -> tuple[str, list[str]]:
    """The head of a pull request, and the files of records that it brings."""
    head = f"refs/pull/{number}/head"
    base = git(mirror, "merge-base", "main", head).decode().strip()
    return head, listed(mirror, head, base) if base else []


def script(text: bytes) -> str:
    """A script as it is edited: unpacked where it is packed; empty where it measures nothing."""
    source = text.decode("utf-8", "replace")
    source = unpacked(source) or source
    return source if "val_bpb" in source and fault(source) is None else ""


@cache
def records(mirror: str) -> dict[str, str]:
    """The scripts of all records by name."""
    names = [n for n in listed(mirror) if PurePosixPath(n).name.startswith("train")]
    found = blobs(mirror, "HEAD", [n for n in names if n.endswith(".py")])
    return {name: source for name, text in found if (source := script(text))}


def judge(name: str, after: str, before: str, *, typed: str = "") -> Judged:
    """What is said about a change; a ``typed`` one that may run is asked by the canary as well.

    ``typed`` is the tokenizer's path. What stands in the third place is empty where it is blocked.
    """
    found = audit_source(after, pristine=before, evaluation_change=bool(typed))
    if not typed or any(v.blocks for v in found):
        return name, found, ""
    said = audit_measuring(after, tokenizer=Path(typed))
    proved = [v.detail for v in said if v.blocks]
    unproved = any("proved nothing" in detail for detail in proved)
    return name, found, "believed" if not proved else "unproved" if unproved else "proved wrong"


def tell(title: str, everything: Iterable[Judged]) -> Counter[str]:
    """Print what was blocked and why, at once, and then the sums, which are given back."""
    rules: Counter[str] = Counter()
    sums = Counter(seen=0, blocked=0, asked=0)
    for name, found, word in everything:
        reasons = [v for v in found if v.blocks]
        asked = not reasons and needs_model_tests(found)
        sums.update(seen=1, blocked=bool(reasons), asked=asked, **{word: 1} if word else {})
        rules.update({v.rule for v in reasons})
        for first in reasons[:1]:
            print(f"  {name[-70:]}: {first.rule} line {first.line}: {first.detail[:110]}")
        if sums["seen"] % 20 == 0:  # what a run that is ended early has found
            print(f"  {sums['seen']} judged, {sums['blocked']} blocked")
        sys.stdout.flush()
    words = ", ".join(f"{rule} {count}" for rule, count in sorted(rules.items()))
    said = ", ".join(f"{count} {word}" for word, count in sums.items() if word not in _SUMS)
    print(
        f"{title}: {sums['blocked']} of {sums['seen']} blocked ({words}), "
        f"{sums['asked']} left to the model tests{': ' * bool(said)}{said}\n"
    )
    return sums


def itself(mirror: str, pool: ProcessPoolExecutor) -> int:
    """Audit each record against itself."""
    known = records(mirror)
    judged = pool.map(judge, known, known.values(), known.values())
    return tell("records against themselves", judged)["blocked"]


def commits(mirror: str, pool: ProcessPoolExecutor, first: int = 0, past: int = 400) -> int:
    """Audit single commits that leave the evaluation alone."""
    log = git(
        mirror, "log", "--all", "--no-merges", "--diff-filter=M", "--raw", "--no-abbrev",
        "--format=%H", "--", "*train*.py",
    )  # fmt: skip
    found, commit = {}, ""
    for line in log.decode().splitlines():
        if line.startswith(":") and _SCRIPT.search(line):
            _, _, before, after, rest = line.split(maxsplit=4)
            found[before, after] = f"{commit[:9]} {rest.split(maxsplit=1)[1]}"
        elif line:
            commit = line
    pairs = ((mirror, name, *pair) for pair, name in sorted(found.items()))
    edits = (edit for edit in _lazily(pool, edit_of, pairs) if edit is not None)
    judged = _lazily(pool, judge, islice(edits, first, past))
    tell(f"commits {first} to {past} that leave the evaluation alone", judged)
    return 0


def _lazily(
    pool: ProcessPoolExecutor, work: Callable[..., T], rows: Iterator[tuple[object, ...]]
) -> Iterator[T]:
    """What a pool makes of rows, with no more of them under way than it needs."""
    while some := list(islice(rows, 16)):
        yield from pool.map(work, *zip(*some, strict=True))


def edit_of(mirror: str, name: str, before: str, after: str) -> tuple[str, str, str] | None:
    """Name, script after and script before of a commit, where it is a small edit elsewhere."""
    one, two = blob(mirror, before), blob(mirror, after)
    small = one and two and edits(one, two) and not (fault(one) or fault(two))
    return (name, two, one) if small else None


def blob(mirror: str, name: str) -> str:
    """A script of the mirror by its object; empty where it is absent, packed or no script."""
    text = git(mirror, "cat-file", "blob", name).decode("utf-8", "replace")
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


def invalid(
    mirror: str, pool: ProcessPoolExecutor, first: int = 0, past: int = 100, tokenizer: str = ""
) -> int:
    """Audit the entries known to be invalid against the valid record that is nearest."""
    numbers = [(why, number) for why, numbers in INVALID.items() for number in numbers]
    entries = list(_lazily(pool, partial(entry, mirror), iter(numbers[first:past])))
    there = [found for found in entries if found]
    title = "as evaluation changes" if tokenizer else "known to be invalid"
    title = f"entries {first} to {past} {title} ({len(entries) - len(there)} more have no script)"
    return tell(title, _lazily(pool, partial(judge, typed=tokenizer), iter(there)))["believed"]


def typed(mirror: str, pool: ProcessPoolExecutor, first: int = 0, past: int = 100) -> int:
    """The same, each typed as an evaluation change: caught, or said to be unproved."""
    with tempfile.TemporaryDirectory() as folder:
        return invalid(mirror, pool, first, past, str(small_tokenizer(Path(folder))))


def entry(mirror: str, why: str, number: int) -> tuple[str, str, str] | None:
    """Name, script and the nearest valid record's script of an entry; None where it has none."""
    head, names = pull(mirror, number)
    names = sorted(filter(_SCRIPT.search, names), key=lambda n: not n.endswith("/train_gpt.py"))
    for name, text in blobs(mirror, head, names):
        if source := script(text):
            valid = [s for n, s in records(mirror).items() if "10min" in n]
            return f"#{number} {why}: {name.split('/')[-2]}", source, nearest(source, valid)
    return None


def nearest(source: str, others: list[str]) -> str:
    """The script that shares most lines with a source."""
    lines = set(source.splitlines())

    def likeness(other: str) -> float:
        theirs = set(other.splitlines())
        return len(lines & theirs) / max(len(lines | theirs), 1)

    return max(others, key=likeness)


def looped(folder: Path, text: bytes) -> tuple[float | None, float | None]:
    """Return what the loop reads from a log as a baseline's, and as a later experiment's."""
    log = folder / "run.log"
    log.write_bytes(text)
    path = folder / "train_gpt.py"
    path.touch()
    output = RunOutput(
        name="r",
        status=RunStatus.COMPLETED,
        log_path=log,
        folder=folder,
        exit_code=0,
        script_path=path,
    )
    plugin = Plugin()
    first = plugin.extract_metrics(output, History()) or {}
    measured = plugin.measure_run(output, History()) or {}
    baseline = Experiment(number=0, idea=IDEA, measurement=measured)
    later = plugin.extract_metrics(output, History(experiments=pvector([baseline]))) or {}
    return first.get("val_bpb"), later.get("val_bpb")


def official(submission: bytes) -> set[float]:
    """Return every score that a submission states, of all seeds together or of one."""
    found: set[float] = set()

    def look(value: object) -> None:
        for key, item in value.items() if isinstance(value, dict) else ():
            if "bpb" in key and isinstance(item, int | float):
                found.add(round(float(item), 4))
            look(item)

    with contextlib.suppress(ValueError):
        look(json.loads(submission))
    return found


def logs(mirror: str, _: ProcessPoolExecutor) -> int:
    """Read the logs of all records."""
    return read("logs of the records", mirror, "HEAD", listed(mirror))["apart"]


def pulls(mirror: str, _: ProcessPoolExecutor, first: int = 0, past: int = 100) -> int:
    """Read the logs of some pull requests."""
    heads = [line.split("/")[2] for line in git(mirror, "for-each-ref", *_HEADS).decode().split()]
    sums: Counter[str] = Counter()
    for number in sorted(set(heads), key=lambda n: sha256(n.encode()).digest())[first:past]:
        sums += read(f"#{number}", mirror, *pull(mirror, int(number)))
    print(f"pull requests {first} to {past}: {dict(sums)}\n")
    return sums["apart"]


def read(title: str, mirror: str, ref: str, names: Iterable[str]) -> Counter[str]:
    """Read logs with both readers and beside what was handed in; print what is not equal."""
    names = list(names)
    stated = {
        str(PurePosixPath(name).parent): official(text)
        for name, text in blobs(mirror, ref, [n for n in names if n.endswith("submission.json")])
    }
    sums: Counter[str] = Counter(logs=0, read=0, stated=0, apart=0)
    with tempfile.TemporaryDirectory() as place:
        for name, text in blobs(mirror, ref, filter(_LOG.search, names)):
            score = read_log(text)
            both = looped(Path(place), text)
            told = stated.get(str(PurePosixPath(name).parent), set())
            known = score.val_bpb is not None and round(score.val_bpb, 4) in told
            apart = both != (score.val_bpb, score.val_bpb)
            sums.update(logs=1, read=score.val_bpb is not None, stated=known, apart=apart)
            if apart or not known:
                about = f"loop {both}" * apart or f"{sorted(told)[:6]} stated; {score.note}"
                print(f"  {title} {name[-60:]}: {score.val_bpb}, {about[:150]}")
    print(f"{title}: {dict(sums)}" + "\n" * (ref == "HEAD"))
    return sums


# Tells a record's own log again, each score a little better for a script with another rate.
STAND_IN = """
import re, sys
from pathlib import Path
rate = re.search(r"MATRIX_LR['\\"],\\s*([0-9.]+)", Path(sys.argv[1]).read_text())[1]
share = 1.0 if rate == RATE else 0.995
score = re.compile(r"(val_(?:loss|bpb)[:=] *)(\\d+\\.(\\d+))")
for line in Path("log.txt").read_text().splitlines():
    print(score.sub(lambda m: f"{m[1]}{float(m[2]) * share:.{len(m[3])}f}", line))
"""


def campaigns(mirror: str, _: ProcessPoolExecutor, first: int = 0, past: int = 100) -> int:
    """Start a campaign from one record of each score line, its log told by a stand-in for GPUs."""
    names, tried, kept = listed(mirror), dict[str, bool](), 0
    for name, packed in blobs(mirror, "HEAD", [n for n in names if n.endswith("/train_gpt.py")]):
        beside = (n for n in names if n.startswith(name.removesuffix("train_gpt.py")))
        log = next(blobs(mirror, "HEAD", filter(_LOG.search, beside)), ("", b""))[1]
        rate = re.search(r"MATRIX_LR['\"],\s*([0-9.]+)", script(packed))
        line = base_name(read_log(log).score_name or "")
        if line and rate and line not in tried:
            tried[line] = first <= len(tried) < past
            kept += tried[line] and _keeps(line, name, packed.decode(), log, rate)
    count = sum(tried.values())
    print(f"campaigns from records {first} to {past}: {kept} of {count} reach a kept experiment\n")
    return count - kept


def _keeps(line: str, name: str, source: str, log: bytes, rate: re.Match[str]) -> bool:
    beside = {"stand_in.py": f"RATE = {rate[1]!r}\n{STAND_IN}", "log.txt": log.decode()}
    with tempfile.TemporaryDirectory() as place:
        edit = edited(rate[0], rate[0] + "1")
        begun, told = campaign(Path(place) / "project", source, edit(), **beside)
        verdicts = [str(e.verdict) for e in begun.history.experiments]
        lines = {e.measurement.get(LINE) for e in begun.history.experiments}
    good = verdicts == ["keep", "keep"] and lines == {line}
    print(f"  {line} of {name.split('/')[-2][:50]}: {verdicts}", *told[-3:] * (not good))
    sys.stdout.flush()
    return good


PARTS = {part.__name__: part for part in (itself, logs, pulls, commits, invalid, typed, campaigns)}


def main(mirror: str, *asked: str) -> int:
    """Do the parts that are asked for, or all."""
    wrong = 0
    with ProcessPoolExecutor(2) as pool:
        for part in asked or PARTS:
            name, _, span = part.partition("=")
            wrong += PARTS[name](mirror, pool, *map(int, filter(None, span.split(":"))))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
