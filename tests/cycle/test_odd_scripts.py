"""Ideas and scripts at the edge of what can be written, compiled and run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import autoresearch
from autoresearch import Campaign, Idea, Verdict, hookimpl
from autoresearch.testing import ScriptedIdeas, make_project, set_constant

Go = Callable[..., Campaign]


def test_idea_that_no_file_can_hold_is_refused_and_the_loop_goes_on(campaign: Go) -> None:
    """Half a surrogate pair is the plugin's failure, not the end of the campaign."""

    class Broken:
        @hookimpl
        def propose_idea(self, history: object) -> Idea:
            return Idea(direction="d", description="d", hypothesis="h", source="x = '\ud800'")

    made = campaign(2, plugins=(ScriptedIdeas([set_constant("WIDTH", 5)]), Broken()))
    assert made.history.experiments[1].verdict is Verdict.KEEP
    with made.connect() as connection:
        (error,) = connection.sql("select any_value(error) from plugin_failed").fetchall()[0]
    assert "surrogate" in error


def test_idea_that_is_nested_too_deeply_to_compile_is_dropped(campaign: Go) -> None:
    """The compiler of this process gives up on it, and so would the run."""
    deep = Idea(
        direction="d", description="d", hypothesis="h", source="x = " + "-" * 200_000 + "1\n"
    )
    made = campaign(2, plugins=(ScriptedIdeas([deep]),))
    assert len(made.history.decided) == 1
    assert any("nested too deeply" in item.reason for item in made.history.rejected)


def test_script_with_a_byte_order_mark_runs_as_it_is(tmp_path: Path) -> None:
    """Python takes such a file, so the check before a campaign does."""
    project = make_project(tmp_path / "marked", script="\ufeffprint('score: 1.5')\n")
    made = autoresearch.start(project, tag="t1")
    made.run(1, wait=False)
    assert made.history.best_metric == 1.5


def test_two_campaigns_write_one_projects_files_at_once(tmp_path: Path) -> None:
    """Files are replaced whole by each writer, whoever else is writing the same name."""
    code = (
        "import sys; from pathlib import Path; from autoresearch.cycle import write_text\n"
        "for i in range(400): write_text(Path(sys.argv[1]), sys.argv[2] * 2000)\n"
    )
    target = tmp_path / "results.tsv"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(target), w]) for w in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert target.read_text() in ("a" * 2000, "b" * 2000)
    assert list(tmp_path.iterdir()) == [target]


def test_idea_that_makes_the_script_a_link_is_refused(campaign: Go, project: Path) -> None:
    """Through a link the next idea would be written outside the lab."""
    old = (project / "train.py").read_text().splitlines()
    patch = "\n".join(
        [
            "diff --git a/train.py b/train.py",
            "deleted file mode 100644",
            "--- a/train.py",
            "+++ /dev/null",
            f"@@ -1,{len(old)} +0,0 @@",
            *(f"-{line}" for line in old),
            "diff --git a/train.py b/train.py",
            "new file mode 120000",
            "--- /dev/null",
            "+++ b/train.py",
            "@@ -0,0 +1 @@",
            f"+{project / 'train.py'}",
            "\\ No newline at end of file",
        ]
    )
    linked = Idea(direction="d", description="d", hypothesis="h", patch=patch)
    made = campaign(2, plugins=(ScriptedIdeas([linked]),))
    assert len(made.history.decided) == 1
    assert "train.py leads through a symbolic link" in made.history.rejected[0].reason
