"""Before a campaign, and before its first score: what is missing is told, and can be corrected."""

from __future__ import annotations

import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from attrs import frozen

import autoresearch
from autoresearch import Verdict
from autoresearch.cli import main
from autoresearch.errors import AutoresearchError, ConfigError, WorkspaceError
from autoresearch.testing import git, make_project

PLAIN = 'preset = "plain"\nscript = "train.py"\n'
SCORE = '[metric]\nname = "score"\n'
SETTINGS = PLAIN + SCORE
SCRIPT = "print('score: 1.0')\n"


def start(project: Path, tag: str = "t1") -> list[str]:
    """Start a campaign and return the warnings."""
    told: list[str] = []
    autoresearch.start(project, tag=tag, tell=told.append)
    return told


@frozen
class Said:
    """What a command printed, and its exit code."""

    exit_code: int
    output: str


def call(project: Path, *words: str) -> Said:
    """Call the command line on a project as a person does."""
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(StringIO()) as out,
        redirect_stderr(out),
    ):
        patch.chdir(project)
        patch.setattr(sys, "argv", ["autoresearch", *words])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Said(code, out.getvalue())


def commit(project: Path, **files: str) -> None:
    """Write files and commit them; __ in a name is a dot."""
    for name, text in files.items():
        (project / name.replace("__", ".")).write_text(text)
    git(project, "add", "-A")
    git(project, "commit", "-qm", "more")


def no_campaign(project: Path) -> bool:
    """Whether nothing of a campaign is left."""
    lab = project / ".autoresearch" / "t1"
    return not lab.exists() and "autoresearch/t1" not in git(project, "branch", "-a")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ('command = ["no-such-program"]', "'no-such-program' is not installed"),
        ('command = ["./train.sh"]', "'./train.sh' cannot be executed"),
        ('launcher = "modal"', "finds no .*modal_train.py"),
        ('launcher = "moon"', "no launcher answers to 'moon'"),
        ('data = ["corpus"]', "corpus does not exist"),
        ('data = ["~/corpus"]', "~/corpus does not exist"),
        ('cwd = "src"', "cwd is 'src', but the commit has no such folder"),
        ('evaluation.command = ["judge"]', "evaluation: the program 'judge' is not installed"),
        ('env = { "A=B" = "1" }', "env holds 'A=B', which no program can be given"),
        ('command = ["{python}", "a\\u0000b"]', r"holds 'a\\x00b', which no program can be given"),
        (
            'metric = { name = "score", reader = "golff" }',
            "metric.reader is 'golff', which is no plugin; did you mean",
        ),
        (
            'metric = { name = "score", reader = "openai" }',
            "metric.reader is 'openai', which is not active; add it to active",
        ),
    ],
)
def test_what_runs_need_is_missed_before_anything_is_recorded(
    tmp_path: Path, settings: str, problem: str
) -> None:
    """Program, launcher and data; nothing of the campaign exists afterwards."""
    files = {"train.sh": "echo score: 1\n"}
    project = make_project(
        tmp_path / "p", script=SCRIPT, files=files,
        settings=f"{settings}\n{PLAIN if settings.startswith('metric') else SETTINGS}",
    )  # fmt: skip
    with pytest.raises(AutoresearchError, match=problem):
        start(project)
    assert no_campaign(project)


@pytest.mark.parametrize("kind", ["auto", "none"])
def test_a_store_may_be_a_link_to_another_disk(tmp_path: Path, kind: str) -> None:
    """What a run reads and writes is found through the link, and none of it looks planted."""
    project = make_project(tmp_path / "p", script=SCRIPT, settings=SETTINGS)
    (tmp_path / "disk").mkdir()
    (project / ".autoresearch").symlink_to(tmp_path / "disk")
    told: list[str] = []
    made = autoresearch.start(project, tag="t1", overrides={"boundary.kind": kind, "noise.runs": 1})
    made.run(1, wait=False, tell=told.append)
    assert made.history.best_metric == 1.0
    assert not any("changed during the run" in line for line in told), told
    (tmp_path / "disk").rename(tmp_path / "away")
    with pytest.raises(WorkspaceError, match=r"cannot write .*/\.autoresearch: File exists"):
        autoresearch.open_campaign(project)


@pytest.mark.parametrize("more", [{"experiments": 1, "until": 9}, {"experiments": 9, "until": 1}])
def test_whichever_number_is_reached_first_ends_the_loop(tmp_path: Path, more: dict) -> None:
    """Neither of two numbers is passed over in silence."""
    project = make_project(tmp_path / "p", script="LR = 1\n" + SCRIPT, settings=SETTINGS)
    made = autoresearch.start(project, tag="t1", overrides={"noise.runs": 1})
    made.run(**more, wait=False)
    assert len(made.history.decided) == 1


def test_data_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` and variables are what a shell makes of them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CORPUS", str(tmp_path))
    settings = f'data = ["~/c.txt", "$CORPUS/c.txt"]\n{SETTINGS}'
    project = make_project(tmp_path / "p", script=SCRIPT, settings=settings)
    (tmp_path / "c.txt").write_text("")
    assert start(project) == []


def test_no_token_burns_no_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line and exit code 1; with the token the same command starts the campaign."""
    pytest.importorskip("modal")
    for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("modal.config._user_config", {})
    settings = f'launcher = "modal"\n{SETTINGS}'
    files = {"modal_train.py": ""}
    project = make_project(tmp_path / "p", script=SCRIPT, settings=settings, files=files)
    result = call(project, "run", "--tag", "t1")
    assert result.exit_code == 1
    assert (
        result.output.strip().splitlines()[-1].startswith("autoresearch: modal has no valid token")
    )
    assert no_campaign(project)
    monkeypatch.setenv("MODAL_TOKEN_ID", "ak-1")
    monkeypatch.setenv("MODAL_TOKEN_SECRET", "as-1")
    assert call(project, "init", "--tag", "t1").exit_code == 0


def test_imports_that_will_fail_are_told(tmp_path: Path) -> None:
    """A package that is not installed, a module that is not committed; one that is, is fine."""
    text = "import far, helper, local, json\nfrom nowhere.to.be import found\n" + SCRIPT
    # The script's own sys.path may lead to far.
    files = {"local.py": "", "libs/far.py": "", ".gitignore": "helper.py\n"}
    project = make_project(tmp_path / "p", script=text, settings=SETTINGS, files=files)
    (project / "helper.py").write_text("")
    assert start(project) == [
        "train.py imports helper, which is not committed; commit it",
        f"train.py imports nowhere, which {sys.executable} does not have; install it",
    ]


def lfs(project: Path) -> None:
    """Commit a pointer, and have the content in the tree as git-lfs leaves it."""
    commit(project, weights__bin="version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    (project / "weights.bin").write_text("the weights\n")
    git(project, "update-index", "--assume-unchanged", "weights.bin")


def submodule(project: Path) -> None:
    """Add a submodule that is checked out."""
    other = make_project(project.parent / "other", script=SCRIPT, settings=SETTINGS)
    git(
        project,
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "add",
        "-q",
        str(other),
        "weights.bin",
    )
    git(project, "commit", "-qm", "submodule")


def link(project: Path) -> None:
    """Commit a link to what lies beside the repository."""
    (project.parent / "outside").write_text("x")
    (project / "weights.bin").symlink_to("../outside")
    commit(project)


@pytest.mark.parametrize("make", [lfs, submodule, link])
def test_what_a_clone_lacks_is_named(tmp_path: Path, make: object) -> None:
    """A pointer, a submodule, a link out of the repository: refused by path, unless settled."""
    project = make_project(tmp_path / "p", script=SCRIPT, settings=SETTINGS)
    make(project)  # type: ignore[operator]
    with pytest.raises(WorkspaceError, match=r"^weights\.bin is a .*name it in data"):
        start(project)
    assert no_campaign(project)
    commit(project, autoresearch__toml=f'ignore_differences = ["weights.bin"]\n{SETTINGS}')
    start(project)
    if make is not submodule:
        reads = "open('weights.bin').read(4)\n" + SCRIPT
        commit(project, train__py=reads, autoresearch__toml=f'data = ["weights.bin"]\n{SETTINGS}')
        made = autoresearch.start(project, tag="t2")
        made.run(1, wait=False)
        assert made.history.best_metric == 1.0


def test_sparse_checkout_and_byte_order_mark_are_no_difference(tmp_path: Path) -> None:
    """What the project's own tree leaves out is no loss; a script may begin with a mark."""
    files = {"big/data.txt": "x", "small/y.txt": "y"}
    project = make_project(tmp_path / "p", script="\ufeff" + SCRIPT, settings=SETTINGS, files=files)
    git(project, "sparse-checkout", "set", "small")
    assert not (project / "big").exists()
    made = autoresearch.start(project, tag="t1")
    made.run(1, wait=False)
    assert made.history.best_metric == 1.0


def test_script_that_git_recodes_is_refused(tmp_path: Path) -> None:
    """An idea is written as it is committed, which such a checkout is not."""
    files = {".gitattributes": "*.yaml working-tree-encoding=UTF-16\n", "a.yaml": "x"}
    settings = f'editable = ["a.yaml"]\n{SETTINGS}'
    project = make_project(tmp_path / "p", script=SCRIPT, settings=settings)
    for name, text in files.items():
        (project / name).write_bytes(text.encode("utf-16" if name == "a.yaml" else "utf-8"))
    commit(project)
    with pytest.raises(WorkspaceError, match=r"a\.yaml is checked out in another form"):
        start(project)


def test_crashed_baseline_is_corrected_under_its_tag(tmp_path: Path) -> None:
    """Neither the tag is burnt, nor is it said in circles what to do; both tries stay recorded."""
    project = make_project(tmp_path / "p", script="1 / 0\n", settings=SETTINGS)
    first = call(project, "run", "--tag", "t1", "--experiments", "1")
    assert first.exit_code == 1
    assert "run again: the campaign starts again under its tag" in first.output
    commit(
        project,
        train__py="print('loss: 2.0')\n",
        autoresearch__toml=PLAIN + '[metric]\nname = "loss"\n',
    )
    again = call(project, "run", "--experiments", "1")
    assert again.exit_code == 0, again.output
    assert (
        "metric.name is 'loss' now, and was 'score' when the campaign was started" in again.output
    )
    assert "the last commit is" in again.output
    made = autoresearch.open_campaign(project)
    history = made.history
    assert [item.verdict for item in history.experiments] == [Verdict.CRASH, Verdict.KEEP]
    assert (history.baseline, history.best_metric) == (history.experiments[1], 2.0)
    assert git(project, "rev-parse", "autoresearch/t1") == git(project, "rev-parse", "HEAD")
    rows = (
        made.connect().execute("SELECT experiment, status FROM experiments ORDER BY 1").fetchall()
    )
    assert [row[0] for row in rows] == [0, 1]
    assert made.connect().execute(
        "SELECT count(*), any_value(metric_name) FROM campaigns"
    ).fetchone() == (1, "loss")
    assert call(project, "verify").exit_code == 0
    assert not history.may_start_again


def test_crash_whose_cause_lies_elsewhere_is_tried_again(tmp_path: Path) -> None:
    """A file that was missing on the machine changes no setting and no commit."""
    place = tmp_path / "there"
    project = make_project(
        tmp_path / "p",
        script=f"open({str(place)!r})\n" + SCRIPT,
        settings=SETTINGS + '[boundary]\nkind = "none"\n',
    )
    assert call(project, "run", "--tag", "t1", "--experiments", "1").exit_code == 1
    place.touch()
    assert call(project, "run", "--experiments", "1").exit_code == 0
    assert call(project, "init").exit_code == 0  # another campaign: this one has a score
    assert len(list((project / ".autoresearch").glob("*/lab"))) == 2


def test_settings_of_a_campaign_with_a_score_stay_and_are_told(tmp_path: Path) -> None:
    """One line for each difference; nothing of it is applied."""
    project = make_project(tmp_path / "p", script=SCRIPT, settings=SETTINGS)
    assert call(project, "run", "--tag", "t1", "--experiments", "1").exit_code == 0
    commit(project, autoresearch__toml=f"seed = 7\n{SETTINGS}")
    result = call(project, "run", "--until", "1")
    assert "seed is 7 now, and was 1337 when the campaign was started" in result.output
    assert "keeps the settings it was started with" in result.output
    assert autoresearch.open_campaign(project).config.seed == 1337


def test_campaign_that_did_not_run_yet_takes_new_settings(tmp_path: Path) -> None:
    """`init`, a correction, `run`: the correction counts."""
    project = make_project(tmp_path / "p", script=SCRIPT, settings=SETTINGS)
    assert call(project, "init", "--tag", "t1").exit_code == 0
    commit(project, autoresearch__toml=f"seed = 7\n{SETTINGS}")
    assert call(project, "run", "--experiments", "1").exit_code == 0
    assert autoresearch.open_campaign(project).history.experiments[0].runs[0].seed == 7


def test_settings_given_by_hand_outlive_a_correction(tmp_path: Path) -> None:
    """What `--set` said at the start is not in the file; a second start must not lose it."""
    project = make_project(tmp_path / "p", script="1 / 0\n", settings=SETTINGS)
    call(project, "run", "--tag", "t1", "--experiments", "1", "--set", "seed=7")
    commit(project, train__py=SCRIPT)
    result = call(project, "run", "--experiments", "1")
    assert result.exit_code == 0
    assert "seed is" not in result.output
    assert autoresearch.open_campaign(project).history.experiments[1].runs[0].seed == 7


def test_failed_correction_leaves_the_campaign_as_it_was(tmp_path: Path) -> None:
    """A second start that is refused records nothing and removes nothing."""
    project = make_project(tmp_path / "p", script="1 / 0\n", settings=SETTINGS)
    call(project, "run", "--tag", "t1", "--experiments", "1")
    before = autoresearch.open_campaign(project).history.position
    commit(project, autoresearch__toml=f'command = ["nope"]\n{SETTINGS}')
    with pytest.raises(ConfigError, match="'nope' is not installed"):
        autoresearch.start(project, tag="t1")
    made = autoresearch.open_campaign(project)
    assert made.history.position == before
    assert made.lab.clone.commit_of("HEAD")


def test_files_of_the_user_are_left_alone(tmp_path: Path) -> None:
    """A run.log and a drawing of their own; what a campaign writes stays out of `git add .`."""
    project = make_project(tmp_path / "p", script=SCRIPT, settings=SETTINGS)
    (project / "run.log").write_text("mine")
    (project / "progress.png").write_bytes(b"mine")
    result = call(project, "run", "--tag", "t1", "--experiments", "1")
    assert "run.log is a file of your own" in result.output
    assert git(project, "status", "--porcelain") == ""
    refused = call(project, "plot")
    assert (refused.exit_code, refused.output.count("was not drawn by autoresearch")) == (1, 1)
    assert (project / "run.log").read_text() == (project / "progress.png").read_text() == "mine"
    assert call(project, "plot", "--overwrite").exit_code == 0
    assert call(project, "plot").exit_code == 0
    assert call(project, "report").exit_code == 0
    assert git(project, "status", "--porcelain") == ""
    git(project, "add", "-f", "progress.png")
    assert "is tracked by git" in call(project, "plot").output
    commit(project)
    assert "results.tsv" not in git(project, "ls-files")


def test_ideas_that_come_to_nothing_are_told_when_they_are_queued(tmp_path: Path) -> None:
    """A patch must fit head and stay in scope; words and unknown variables are warned of."""
    project = make_project(tmp_path / "p", script=SCRIPT, settings=SETTINGS)
    assert call(project, "init", "--tag", "t1").exit_code == 0
    patch = project.parent / "idea.patch"
    for path, was, problem in [
        ("other.py", "x", "the patch changes other.py; only train.py may change"),
        ("train.py", "no such line", "the patch does not apply to head"),
    ]:
        patch.write_text(f"--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-{was}\n+y = 1\n")
        refused = call(project, "idea", "add", "x", "--patch", str(patch))
        assert (refused.exit_code, refused.output.count(problem)) == (1, 1), refused.output
    patch.write_text(f"--- a/train.py\n+++ b/train.py\n@@ -1 +1,2 @@\n {SCRIPT}+y = 1\n")
    assert "warning" not in call(project, "idea", "add", "x", "--patch", str(patch)).output
    assert "mentions RATE" in call(project, "idea", "add", "x", "--env", "RATE=1").output
    assert "turns words into code" in call(project, "idea", "add", "x").output


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("open('data/x.txt')", "data/x.txt is ignored by git; commit it, or name it in data"),
        ("import helper", "helper.py is not committed"),
        ("open('x.yaml')", "conf"),
        ("open('train.cfg')", "train.cfg lies outside cwd, which is 'conf'"),
        ("print('loss: 2.5')", "looked for 'score' and a number behind it; numbers seen: loss 2.5"),
    ],
)
def test_failed_baseline_says_why_and_what_to_do(tmp_path: Path, text: str, problem: str) -> None:
    """The last line of the traceback, and a file that the project has and the run has not."""
    files = {".gitignore": "data/\n", "train.cfg": "", "conf/y.txt": ""}
    settings = f'cwd = "conf"\n{SETTINGS}' if "train.cfg" in text else SETTINGS
    project = make_project(tmp_path / "p", script=text, settings=settings, files=files)
    (project / "data").mkdir()
    (project / "data/x.txt").touch()
    (project / "helper.py").touch()
    result = call(project, "run", "--tag", "t1", "--experiments", "1")
    assert result.exit_code == 1
    last = result.output.strip().splitlines()[-1]
    if problem != "conf":
        assert problem in last
    else:
        assert "FileNotFoundError: [Errno 2] No such file or directory: 'x.yaml'; correct" in last
