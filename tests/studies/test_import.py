"""Histories that other tools kept, in all the shapes that people leave them in."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from autoresearch.cli import cli
from autoresearch.errors import WorkspaceError
from autoresearch.evidence import missing_things
from autoresearch.export import the_night
from autoresearch.model import Verdict
from autoresearch.opening import open_campaign
from autoresearch.studies import columns, imported, ledgers
from autoresearch.testing import git, make_project

SIX = "commit\tval_bpb\tartifact_mb\tstatus\treasoning\tdescription\n"
FIVE = "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "histories"


@pytest.fixture
def read(tmp_path: Path):
    """Return how a text is understood: ``read(text, name="x.tsv", **options)``."""

    def call(text: str | bytes, name: str = "x.tsv", **options: object) -> columns.Reading:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return columns.interpret(ledgers.read(str(path), tmp_path), **options)  # type: ignore[arg-type]

    return call


def told(reading: columns.Reading) -> list[tuple[object, ...]]:
    """The status, score and bytes of every row."""
    return [(row.status, row.score, row.size) for row in reading.rows]


def test_six_columns(read) -> None:
    """The protocol's own: megabytes are decimal, a crash has no score, a word is no commit."""
    found = read(
        SIX
        + "7df4c4b\t1.2283\t15.86\tkeep\tbaseline\tas it is\n"
        + "nocommit\t0.000000\t0.0\tcrash\tfaster\tmatrix_lr=0.06, it broke\n"
        + "48832eb\t1.2256\t15.87\tkeep\tgentler end\twarmdown=6000\n"
    )
    assert told(found) == [
        ("keep", 1.2283, 15_860_000),
        ("crash", None, None),
        ("keep", 1.2256, 15_870_000),
    ]
    assert found.metric == "val_bpb"
    assert found.rows[1].problems == ("no commit",)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_marks_and_line_ends(read, ends: str, mark: bytes) -> None:
    """A byte order mark and the line ends of Windows are no part of a name or a text."""
    text = (FIVE + "aaaaaaa\t0.99\t44.0\tkeep\tbaseline\n").replace("\n", ends)
    found = read(mark + text.encode())
    assert found.columns["commit"] == "commit"
    assert found.rows[0].description == "baseline"


def test_utf16(read) -> None:
    """What a Windows shell redirected is read as well."""
    text = (FIVE + "aaaaaaa\t0.99\t44.0\tkeep\tbaseline\n").encode("utf-16")
    assert told(read(text)) == [("keep", 0.99, None)]


def test_without_header(read) -> None:
    """Six bare columns are the protocol's, and that is said."""
    row = "7df4c4b\t1.2283\t15.86\tkeep\tbaseline\tas it is\n"
    found = read(row + row.replace("7df", "8df"))
    assert told(found)[0] == ("keep", 1.2283, 15_860_000)
    assert len(found.rows) == 2
    assert "no header" in found.table.problems[0]


def test_broken_rows_are_put_in_place_by_their_status(read) -> None:
    """Fewer fields, more fields, and tabs that were written as two characters."""
    found = read(
        "commit\ttier\tval_bpb\tbytes_total\tstatus\tcost_usd\tdescription\tsource\n"
        "aaaaaaa\tlocal\t9.3\t1000\tkeep\t0.5\tfirst\ta list\n"
        "bbbbbbb\tlocal\t9.2\t1000\tkeep\t0.5\tsecond\n"
        "ccccccc\\tlocal\\t9.1\\t1000\\tdiscard\\t1.5\\tthird\\tx\n"
        "ddddddd\tlocal\t9.0\tdiscard\t0.5\tfourth\tx\n"
        "eeeeeee\tlocal\t8.9\t1000\tkeep\t0.5\tfifth\tx\tand more\n"
        "fffffff\tlocal\tn/a\t0\tinfra\t0\tno machine\tx\n"
        "0000000\tlocal\t\t\tkeep\t0\t\t\n"
    )
    assert [row.score for row in found.rows[:5]] == [9.3, 9.2, 9.1, 9.0, 8.9]
    assert [row.usd for row in found.rows[:4]] == [0.5, 0.5, 1.5, 0.5]
    assert found.rows[3].description == "fourth"
    assert [bool(row.problems) for row in found.rows[:5]] == [False, True, True, True, True]
    assert found.rows[5].aside == "status 'infra': no experiment"
    assert found.rows[6].aside == "keep without a score"


@pytest.mark.parametrize(
    ("column", "cells", "size"),
    [
        ("artifact_mb", ("15.86", "15.9"), 15_860_000),
        ("artifact_mib", ("15", "15"), 15 * 2**20),
        ("artifact_mb", ("15863489", "15863000"), 15_863_489),
        ("artifact_bytes", ("15,863,489", "15,863,000"), 15_863_489),
        ("size", ("15863489", "15863000"), 15_863_489),
        ("artifact_kb", ("15863", "15863"), 15_863_000),
    ],
)
def test_units_of_sizes(read, column: str, cells: tuple[str, str], size: int) -> None:
    """The name of the column says the unit, unless its numbers say that it cannot be."""
    rows = "".join(f"aaaaaaa\t1.2\t{cell}\tkeep\tx\n" for cell in cells)
    assert read(f"commit\tval_bpb\t{column}\tstatus\tdescription\n{rows}").rows[0].size == size


def test_bytes_in_the_texts_settle_the_megabyte(read) -> None:
    """Where a text gives the bytes, a column called MB that counts in 1,048,576 is found out."""
    found = read(SIX + "aaaaaaa\t1.2\t15.128\tkeep\tx\tbytes_total 15863489\n")
    assert found.told["size"].startswith("MiB")
    assert found.rows[0].size == round(15.128 * 2**20)


def test_size_under_the_name_of_memory(read) -> None:
    """A text that says what the artifact weighs proves what the other column holds."""
    found = read(
        FIVE
        + "aaaaaaa\t1.20\t11.2\tkeep\tsmall (artifact 14.3MB)\n"
        + "bbbbbbb\t1.18\t20.0\tkeep\tall int8, 20.75MB over limit\n"
        + "ccccccc\t1.17\t22.0\tkeep\tbetween the two, 22MB\n"
    )
    assert [row.size for row in found.rows] == [14_300_000, 20_750_000, 22_000_000]
    assert ["holds the artifact's size" in str(row.problems) for row in found.rows] == [
        False,
        True,
        True,
    ]


def test_higher_is_better_is_seen_by_what_was_kept(read) -> None:
    """Percentages become fractions, and the direction is that of the keeps."""
    rows = "".join(f"run{n}\t{90 + n}.5%\tkept\ttry {n}\n" for n in range(5))
    found = read(f"id\taccuracy\toutcome\tnotes\n{rows}run9\t0.0\tfailed\tit broke\n")
    assert not found.lower
    assert found.rows[0].score == pytest.approx(0.905)
    assert told(found)[-1] == ("crash", None, None)


@pytest.mark.parametrize("name", ["psnr", "rouge", "auroc", "recall", "top_5", "f1", "val_acc1"])
def test_higher_is_better_is_seen_by_the_name(read, name: str) -> None:
    """As `init --try` sees it, where nobody said what was kept."""
    found = read(f"id,{name},notes\nrun1,31.2,wider\nrun2,30.9,deeper\n", "x.csv")
    assert (found.metric, found.lower) == (name, False)


def test_decimal_commas_and_thousands(read) -> None:
    """A comma is decimal where it is not followed by three digits, and else parts thousands."""
    text = "commit;val_loss;size_bytes;status;description\naaaaaaa;1,2283;15.863.489;keep;x\n"
    assert read(text.replace("15.863.489", "15,863,489"), "x.csv").rows[0].score == 1.2283
    found = read("commit\tppl\tstatus\tdescription\naaaaaaa\t1,228\tkeep\tx\n")
    assert found.rows[0].score == 1228
    mixed = "commit\tppl\tstatus\tdescription\naaaaaaa\t{}\tkeep\tx\nbbbbbbb\t1,005\tkeep\ty\n"
    assert [row.score for row in read(mixed.format("0.998")).rows] == [0.998, 1.005]
    assert [row.score for row in read(mixed.format("998.5")).rows] == [998.5, 1005]


def test_csv_without_a_status(read) -> None:
    """Quoted commas stay in their cell; an improvement on all before counts as kept."""
    found = read(
        'timestamp,run_id,val_bpb,lr,notes\n2026-03-23,a_1,2.25,0.1,"one, two"\n'
        "2026-03-23,a_2,2.30,0.2,three\n2026-03-23,a_3,2.20,0.3,four\n",
        "x.csv",
    )
    assert [row.status for row in found.rows] == ["keep", "discard", "keep"]
    assert found.rows[0].description == "one, two"
    assert found.rows[0].numbers["lr"] == 0.1


def test_columns_of_any_name(read) -> None:
    """A column of verdicts is known by its words."""
    found = read(
        "Experiment,Accuracy,Result,Comment\n1,91.2,accepted,base\n2,0.0,failed,oom\n", "x.csv"
    )
    assert found.columns["status"] == "Result"
    assert [(row.status, row.description) for row in found.rows] == [
        ("keep", "base"),
        ("crash", "oom"),
    ]


def test_json_lines(read) -> None:
    """Nested numbers are found under their path, and a torn last line is kept."""
    lines = [
        {"name": "a", "metrics": {"final": {"val_bpb": 1.2}, "last": {"val_bpb": 1.1}}},
        {"name": "b", "metrics": {"final": {"val_bpb": 1.3}, "last": {"val_bpb": 1.2}}},
    ]
    found = read("\n".join(map(json.dumps, lines)) + '\n{"name": "c", "met', "x.jsonl")
    assert found.columns["metric"] == "metrics.final.val_bpb"
    assert [row.score for row in found.rows] == [1.2, 1.3, None]
    assert found.rows[2].problems == ("the line is not JSON",)
    assert found.rows[2].aside


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        (  # Excel in Europe: a mark, a named separator, decimal commas, a line of totals
            "eu.csv",
            "\ufeffsep=;\r\nDatum;Beschreibung;Status;val_loss;Commit\r\n"
            "01.03.2026 10:00;wie es ist;keep;3,2801;a1b2c3d\r\n"
            "01.03.2026 11:00;lr 0,02 und 0,04;discard;3,3012;b1b2c3d\r\n"
            "Summe;;;;\r\n",
            [("keep", 3.2801, "wie es ist"), ("discard", 3.3012, "lr 0,02 und 0,04")],
        ),
        (  # sessions that were put together: comments, the header again, in another order
            "two.tsv",
            "# session 1\n\ncommit\tval_bpb\tstatus\tdescription\naaaaaaa\t1.23\tkeep\tbase\n"
            "# session 2\nstatus\tdescription\tcommit\tval_bpb\nkeep\tlower\tbbbbbbb\t1.22\n",
            [("keep", 1.23, "base"), ("keep", 1.22, "lower")],
        ),
        (  # signs for words, numbers with their error, a word for a score
            "signs.csv",
            "step,what,bpb,ok?\n1,base,1.2301 ± 0.0004,✅\n2,wider,~1.2402,❌\n"
            "3,longer,1.2250,✅ kept\n4,huge,OOM,💥 crash\n",
            [("keep", 1.2301, "base"), ("discard", 1.2402, "wider"), ("keep", 1.225, "longer"),
             ("crash", None, "huge")],
        ),
        (  # yes and no in a column that asks for them, and a score that is none
            "nested.jsonl",
            '{"sha": "aaaaaaa", "m": {"val_bpb": "1.23"}, "d": {"kept": true, "why": "x"}}\n'
            '{"sha": "bbbbbbb", "m": {"val_bpb": NaN}, "d": {"kept": false, "why": "y"}}\n',
            [("keep", 1.23, "x"), ("crash", None, "y")],
        ),
        (  # a tracker's export, newest first: it knows what ran, not what was good
            "wandb.csv",
            "Name,State,Created,Runtime,train/loss,val/loss\n"
            "d,crashed,2026-05-04T10:00:00.000Z,9,3,\n"
            "c,finished,2026-05-03T10:00:00.000Z,60,2.0,2.1\n"
            "b,finished,2026-05-02T10:00:00.000Z,60,2.1,2.3\n"
            "a,finished,2026-05-01T10:00:00.000Z,60,2.1,2.2\n",
            [("keep", 2.2, "a"), ("discard", 2.3, "b"), ("keep", 2.1, "c"), ("crash", None, "d")],
        ),
        (  # trials of a search: what was set says what was tried; a fraction of a second is a time
            "trials.csv",
            "number,value,duration,params_lr,params.wd,state\n"
            "0,0.5,0 days 00:00:40.4,0.1,0,COMPLETE\n"
            "1,0.6,0 days 00:00:40.4,0.2,0,PRUNED\n2,,0 days 00:01:40.4,0.3,0,FAIL\n",
            [("keep", 0.5, "lr=0.1, wd=0"), ("discard", 0.6, "lr=0.2, wd=0"),
             ("crash", None, "lr=0.3, wd=0")],
        ),
        (  # two days of a notebook, whose columns moved, and a table of something else
            "notebook.md",
            "Day one. | not a table\n\nrun | change | acc | verdict\n-- | :-- | --: | --\n"
            "1 | [base](x) | **93.1%** | keep\n2 | lr | **diverged** | crash\n"
            "\n| name | value |\n|-|-|\n"
            "| lr | 2 |\n\n| acc | run | change |\n"
            "|---|---|---|\n| 92% ± 1 | 3 | mixup |\n| 94% | 4 | b\\|c |\n",
            [("keep", 0.931, "base"), ("crash", None, "lr"), ("discard", 0.92, "mixup"),
             ("keep", 0.94, "b|c")],
        ),
        (  # slips in the words, and a score of a held-out set behind that of the training set
            "slips.jsonl",
            '{"d": "a", "desc": "a", "m": {"train": {"loss": 1}'
            ', "val": {"loss": 2}}, "status": "keep"}\n'
            '{"d": "b", "desc": "b", "m": {"train": {"loss": 1}'
            ', "val": {"loss": 3}}, "status": "discrd"}\n'
            '{"d": "c", "desc": "c", "m": {"train": {"loss": 1}}, "status": "crahs"}\n'
            '{"d": "d", "desc": "d", "m": {"train": {"loss": 1}}, "status": "crash"}\n',
            [("keep", 2, "a"), ("discard", 3, "b"), ("crash", None, "c"), ("crash", None, "d")],
        ),
    ],
)  # fmt: skip
def test_dirty_tables(read, name: str, text: str, rows: list[tuple[object, ...]]) -> None:
    """What spreadsheets, sessions and hands leave in a table does not hide what it says."""
    found = [row for row in read(text, name).rows if not row.aside]
    assert [(row.status, row.score, row.description) for row in found] == rows


def test_how_long_it_took_is_a_score_too(read) -> None:
    """Times in words are seconds, as a score or beside one; a number has the unit of its column."""
    text = (
        "# of 2026, on one GPU\nattempt,time to 3.28,comment,kept\n1,1h02m,base,y\n2,58m30s,b,y\n"
    )
    found = read(text + "3,OOM,c,n\n4,2.5 minutes (retimed),d,y\n", "speed.csv")
    assert [row.score for row in found.rows] == [3720, 3510, None, 150]
    assert (found.metric, found.lower) == ("time_to_3.28", True)
    beside = read("ppl,wall_minutes,what\n9.5,2,x\n", "x.csv")
    assert beside.rows[0].seconds == 120
    assert read("ppl,Duration\n9.5,0:12:03\n", "x.csv").rows[0].seconds == 723


def test_a_comma_is_decimal_in_every_column(read) -> None:
    """Of a file that Excel saved in Europe, in the code page of its Windows."""
    text = (
        "Änderung;val_bpb;artifact_mb;seconds;status;description\nx;1,22;15,9;600,5;keep;größer\n"
    )
    row = read(text.encode("cp1252"), "x.csv").rows[0]
    assert (row.size, row.seconds, row.description) == (15_900_000, 600.5, "größer")


def test_words_that_nobody_knows_are_told(read) -> None:
    """A column of verdicts in another language is named, and the scores decide."""
    found = read("Status,val_loss\nbehalten,3.2\nverworfen,3.3\n", "x.csv")
    assert "the words of Status are unknown" in found.told["status"]
    assert [row.status for row in found.rows] == ["keep", "discard"]


def test_notes(read) -> None:
    """Of a notes.md the experiment log counts, with its blocks."""
    found = read(
        "## Best Known Config\nx\n## Experiment Log\n### Experiment 0: baseline\n"
        "=== REASONING ===\nHypothesis: it runs\nEvidence: none\nRisk: none\n===\n"
        "=== ANALYSIS ===\nResult: val_bpb=1.2244 artifact=15.9MB (keep)\nvs Expected: same\n"
        "Why: nothing changed\nLesson: the bar is set\n===\n"
        "### Experiment 1: wider\nHypothesis: more room\n"
        "Result: val_bpb=none artifact=none (crash)\nLesson: it does not fit\n",
        "notes.md",
    )
    assert told(found) == [("keep", 1.2244, 15_900_000), ("crash", None, None)]
    assert found.rows[1].reasoning == "more room"


def test_markdown_table(read) -> None:
    """A table in prose is a table."""
    found = read(
        "# Log\n\n| commit | val_loss | status | what |\n|---|--:|---|---|\n"
        "| `aaaaaaa` | 3.28 | keep | base |\n| `bbbbbbb` | 3.30 | revert | worse |\n",
        "log.md",
    )
    assert told(found) == [("keep", 3.28, None), ("discard", 3.3, None)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no row that can be read"),
        ("name\tcolour\nx\tred\n", "no column with a score"),
    ],
)
def test_what_is_no_history_is_refused(read, text: str, said: str) -> None:
    """In one line that says what would help."""
    with pytest.raises(WorkspaceError, match=said):
        read(text)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"\x7fELF\x02\x01\x01\x00" + bytes(64), "is not a text file"),
        (b"a,b\n\x93\x8f\x00\rx,", "is not a text file"),
        (b"commit,val_bpb\nabc,1.2\rdef,1.1\n", "is not valid CSV"),
    ],
)
def test_file_that_is_no_table_is_refused(tmp_path: Path, raw: bytes, said: str) -> None:
    """A binary file, or one that the reader of CSV gives up on, is one line too."""
    path = tmp_path / "results.csv"
    path.write_bytes(raw)
    with pytest.raises(WorkspaceError, match=said):
        ledgers.read(str(path), tmp_path)


def test_wrong_mapping_is_refused(read) -> None:
    """An unknown field or column is named with those that exist."""
    text = SIX + "aaaaaaa\t1.2\t15.1\tkeep\tx\ty\n"
    with pytest.raises(WorkspaceError, match="no column 'loss'"):
        read(text, asked={"metric": "loss"})
    with pytest.raises(WorkspaceError, match="no field 'colour'"):
        read(text, asked={"colour": "val_bpb"})


# --- as a campaign ------------------------------------------------------------------------------

HISTORY = SIX + (
    "aaaaaaa\t1.2283\t15.86\tkeep\tground truth\tbaseline\n"
    "bbbbbbb\t1.2446\t15.63\tdiscard\tfaster\tmatrix_lr=0.06\n"
    "nocommit\t0.0000\t0.0\tcrash\tmore\twarmdown=6000\n"
    "ccccccc\t1.2200\t25.00\tkeep\tall int8\tover 16MB, kept all the same\n"
    "ddddddd\t1.2196\t15.80\tkeep\tgentler\ttied_embed_lr=0.03\n"
    "aaaaaaa\t1.2283\t15.86\tbacktrack\tit got worse\tback to the baseline\n"
    "\t\t\tkeep\t\tsome words\n"
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a history beside it."""
    (tmp_path / "mar18.tsv").write_text(HISTORY)
    return make_project(tmp_path / "project")


def taken(project: Path, name: str = "mar18.tsv", **options: object):
    """Plan and write the import of the file beside the project."""
    made = imported.plan([str(project.parent / name)], project, **options)  # type: ignore[arg-type]
    return made, imported.write(made, project)


def test_import_makes_a_campaign(project: Path) -> None:
    """Every row is a fact, every experiment has its verdict, and the log is whole."""
    made, campaign = taken(project)
    history = open_campaign(project, "mar18").history
    verdicts = [item.verdict for item in history.experiments]
    keep, discard = Verdict.KEEP, Verdict.DISCARD
    assert verdicts == [keep, discard, Verdict.CRASH, discard, keep]
    assert "must be under 16,000,000 B" in history.experiments[3].decision.reason
    assert history.best_number == 4
    assert history.head == 0  # the row of a backtrack moves it
    assert [row.aside for row in made.lacking] == ["keep without a score"]
    assert list(missing_things(campaign.log)) == []
    assert campaign.log.verify().ok
    rows = campaign.connect().execute(
        "SELECT count(*), count(experiment), count(DISTINCT commit) FROM history_imported"
    )
    assert rows.fetchone() == (7, 5, 6)
    shown = (project / "results.tsv").read_text().splitlines()
    assert shown[1].split("\t")[:4] == ["aaaaaaa", "1.228300", "15.9", "keep"]
    assert shown[-1].split("\t")[3] == "backtrack"


def test_import_is_idempotent_and_takes_new_rows(project: Path) -> None:
    """A second time nothing is new; a file that grew adds what it grew by."""
    _, campaign = taken(project)
    before = campaign.log.tip()
    made, _ = taken(project)
    assert (made.new, made.known) == (0, 7)
    assert campaign.log.tip() == before
    with (project.parent / "mar18.tsv").open("a") as file:
        file.write("eeeeeee\t1.2150\t15.80\tkeep\tlonger\tseq_len=2048\n")
    made, _ = taken(project)
    assert (made.new, made.known) == (1, 7)
    assert open_campaign(project, "mar18").history.best_number == 5


def test_a_row_that_was_logged_twice_is_one_experiment(project: Path) -> None:
    """One that differs in its commit is another; so are ways back. The mapping says how many."""
    row, back = "aaaaaaa\t1.2\t15.1\tkeep\tx\ty\n", "aaaaaaa\t1.2\t15.1\tbacktrack\tx\tz\n"
    text = SIX + row * 2 + row.replace("aaaaaaa", "bbbbbbb") + row + back * 2
    (project.parent / "twice.tsv").write_text(text)
    words = ["import", "--project", str(project), str(project.parent / "twice.tsv")]
    out = CliRunner().invoke(cli, words).output
    assert "twice.tsv: TSV, 6 rows" in out
    assert "2 of 6 repeat another in every column: taken once" in out
    made, campaign = taken(project, "twice.tsv")
    assert [item.commit for item in made.history.experiments] == ["aaaaaaa", "bbbbbbb"]
    assert len(campaign.history.timeline) == 4
    assert "campaign twice has all of it" in CliRunner().invoke(cli, words).output


def test_plan_writes_nothing(project: Path) -> None:
    """Before it is written, a person sees what would be."""
    made = imported.plan([str(project.parent / "mar18.tsv")], project)
    assert made.verdicts == Counter(keep=2, discard=2, crash=1)
    assert made.problems["no commit"] == 1
    assert not (project / ".autoresearch").exists()


def test_repository_without_a_commit_is_refused(tmp_path: Path) -> None:
    """A campaign stands on a commit; the refusal says how to make one, and writes nothing."""
    (tmp_path / "mar18.tsv").write_text(HISTORY)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    with pytest.raises(WorkspaceError, match="has no commit yet; make one first: git commit"):
        imported.plan([str(tmp_path / "mar18.tsv")], tmp_path)
    assert not (tmp_path / ".autoresearch").exists()


def test_own_results_are_left_alone(project: Path) -> None:
    """A results.tsv of the user's own is neither overwritten now nor taken for ours later."""
    (project / "results.tsv").write_text(HISTORY)
    made = imported.plan([str(project / "results.tsv")], project, tag="mine")
    imported.write(made, project)
    assert (project / "results.tsv").read_text() == HISTORY
    assert not list((project / ".autoresearch").glob("*/results.tsv"))


def test_tag_of_a_campaign_that_ran_here_is_refused(project: Path) -> None:
    """Nobody else's rows get between those that were measured here."""
    import autoresearch

    autoresearch.start(project, tag="mar18")
    with pytest.raises(WorkspaceError, match="run here"):
        imported.plan([str(project.parent / "mar18.tsv")], project)


def test_imported_campaign_does_not_run(project: Path) -> None:
    """Its scripts are not here, which is said at once."""
    _, campaign = taken(project)
    for ask in (partial(campaign.run, 1), campaign.pause, partial(campaign.steer, "wider")):
        with pytest.raises(WorkspaceError, match=r"imported from mar18\.tsv"):
            ask()
    asked = ["--project", str(project), "1"]
    out = CliRunner().invoke(cli, ["show", *asked]).output
    assert "kept as" not in out
    out = CliRunner().invoke(cli, ["status", *asked[:2]]).output
    assert "loop:         none: imported from mar18.tsv, to read and to replay" in out
    assert not {"boundary:", "budgets:"} & {*out.split()}
    out = CliRunner().invoke(cli, ["watch", "--once", *asked[:2]]).output
    assert "none: imported from" in out
    assert "ends" not in out
    assert list(the_night(campaign.history))[-1] == "imported from mar18.tsv, to read and to replay"
    words = ["replay", "--policy", "greedy", "--set", "metric.sd=0.5", *asked[:2]]
    assert "0.5, as set" in CliRunner().invoke(cli, words).output
    out = CliRunner().invoke(cli, ["show", *asked]).output
    assert "output" not in out
    for verb, *more in (["checkout", str(project / "new")], ["export", "new"], ["log"], ["diff"]):
        said = str(CliRunner().invoke(cli, [verb, *asked, *more]).exception)
        assert "imported from mar18.tsv, without files and outputs" in said
    assert not (project / "new").exists()


def test_replay_says_where_nobody_measured_the_noise(tmp_path: Path) -> None:
    """Unless it is set: evidence cannot tell luck from gain then."""
    project, file = make_project(tmp_path / "p", settings='preset = "plain"\n'), tmp_path / "r.csv"
    file.write_text("id,accuracy,notes\nrun1,0.91,wider\nrun2,0.92,deeper\n")
    words = ["replay", "--policy", "evidence", "--project", str(project), str(file)]
    assert "nobody measured the noise" in CliRunner().invoke(cli, words).output
    out = CliRunner().invoke(cli, [*words, "--set", "metric.sd=0.5"]).output
    assert "0.5, as set" in out
    assert "nobody measured" not in out


def test_branch_of_experiments(project: Path) -> None:
    """Commits that a branch has and the trunk has not, with the scores in their messages."""
    git(project, "checkout", "--quiet", "-b", "exp/mar8")
    texts = ("wider, val_bpb 1.21", "faster: val_bpb=1.20", "lr 1: val_bpb=1.3 discard")
    for text in (*texts, "lr 9 -> crash", "no score here"):
        git(project, "commit", "--quiet", "--allow-empty", "--message", text)
    tip = git(project, "rev-parse", "HEAD~3")
    git(project, "checkout", "--quiet", "-b", "side", "main")
    git(project, "commit", "--quiet", "--allow-empty", "--message", "side: val_bpb 1.19 (kept)")
    git(project, "checkout", "--quiet", "exp/mar8")
    git(project, "merge", "--quiet", "--no-ff", "side", "--message", "merge side")
    git(project, "checkout", "--quiet", "main")
    made = imported.plan(["exp/mar8"], project)
    campaign = imported.write(made, project)
    told = {campaign.history.score(i): str(i.verdict) for i in campaign.history.experiments}
    assert told == {1.21: "keep", 1.2: "keep", 1.3: "discard", None: "crash", 1.19: "keep"}
    number = next(i.number for i in campaign.history.experiments if i.commit == tip)
    assert git(project, "rev-parse", f"refs/autoresearch/{made.tag}/{number}") == tip
    assert list(missing_things(campaign.log)) == []


EXPECTED = {
    "exp-H100-mar8.results.tsv": (126, Counter(discard=102, keep=23, crash=1), 0),
    "autoresearch_frug2_results.csv": (174, Counter(discard=168, keep=6), 0),
    "pr1211.results.tsv": (178, Counter(discard=119, keep=53, crash=6), 0),
    "pr1651.results.tsv": (51, Counter(discard=29, keep=12, crash=10), 0),
    "pr47.ledger.jsonl": (50, Counter(discard=47, keep=1), 2),
    "golf-autoresearch/results.tsv": (50, Counter(keep=21, crash=12, discard=6), 11),
    "sofiabod__parameter-golf/results.tsv": (59, Counter(keep=31, discard=26, crash=2), 0),
}  # fmt: skip


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the histories are not beside the checkout")
@pytest.mark.parametrize("name", EXPECTED)
def test_public_histories(project: Path, name: str) -> None:
    """Seven histories of other people, each with its quirks; one of two equal rows is left out."""
    path = next(path for path in SHARED.rglob("*.*") if str(path).endswith(name))
    made = imported.plan([str(path)], project, tag="shared")
    rows, verdicts, aside = EXPECTED[name]
    assert made.new == rows
    assert made.verdicts == verdicts
    assert len(made.lacking) == aside
    campaign = imported.write(made, project)
    assert campaign.log.verify().ok
