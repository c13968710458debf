"""The report is one file that needs nothing else, and its script works in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

import autoresearch
from autoresearch import Idea
from autoresearch.cli import cli
from autoresearch.export import lanes
from autoresearch.testing import make_project

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = "</script><script>document.title='taken'</script><b>&amp;"
SCRIPT = 'WIDTH = 4\nassert WIDTH < 9, "too wide"\nprint(f"score: {WIDTH / 7:.6f}")\n'


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign with a keep, a discard and a crash, and words that would break a page."""
    project = make_project(tmp_path_factory.mktemp("report") / "project", script=SCRIPT)
    campaign = autoresearch.start(project, tag="t1", overrides={"active": ("no:script_ideas",)})
    for width, gain in ((3, 0.3), (6, 0.2), (9, 0.1)):
        source = SCRIPT.replace("WIDTH = 4", f"WIDTH = {width}")
        words = f"width {width}{HOSTILE if width == 3 else ''}"
        campaign.add_idea(
            Idea(
                direction=f"direction {width % 2}", description=words, hypothesis="h",
                source=source, expected_gain=gain,
            )
        )  # fmt: skip
        campaign.run(until=len(campaign.history.decided) + 1 + (width == 3), wait=False)
    return project


@pytest.fixture(scope="module")
def page(project: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report, written by the command."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    words = ["report", "--project", str(project), "--out", str(out), "--trace", f"{out}.json"]
    done = CliRunner().invoke(cli, words)
    assert done.exception is None, done.output
    assert CliRunner().invoke(cli, words).exception is None  # what it wrote itself it writes again
    spans = json.loads(Path(f"{out}.json").read_text())["traceEvents"]
    assert {item["ph"] for item in spans} == {"X", "i"}
    assert sum(item["ph"] == "X" for item in spans) >= 4
    return out.read_text()


def test_it_holds_every_experiment_and_fetches_nothing(page: str) -> None:
    """Changes and reasons are in it; no address of anything outside is."""
    facts = json.loads(re.search(r'type="application/json">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert [e["status"] for e in facts["experiments"]] == ["keep", "keep", "discard", "crash"]
    assert "+WIDTH = 3" in facts["experiments"][1]["diff"]
    assert facts["experiments"][2]["parent"] == 1
    assert facts["experiments"][2]["gain"] < 0
    assert facts["experiments"][1]["on_best"] == pytest.approx(1 / 7, abs=1e-5)
    assert "4 experiments" in page
    assert "gained +0.142858 with experiment 1" in page  # of scores with six digits
    links = re.findall(r'(?:src|href)="(?!#)([^"]*)"', page)
    assert [link for link in links if not link.startswith("data:")] == []
    assert "url(" not in page
    assert HOSTILE not in page


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt-get install chromium)")
def test_its_script_draws_and_filters_without_an_error(page: str, tmp_path: Path) -> None:
    """In Debian's Chromium: no error, all figures, and each filter shows what it says."""
    errors = "<script>onerror = e => { document.documentElement.dataset.error = e; }</script>"
    probe = """<script>
      const said = [by("count").textContent];
      by("direction").value = "direction 1"; by("direction").dispatchEvent(new Event("change"));
      said.push(by("count").textContent); by("direction").value = ""; by("k-keep").click();
      said.push(by("count").textContent); by("k-keep").click();
      by("axis").value = "run_hours"; by("axis").dispatchEvent(new Event("change"));
      document.querySelector("tr[data-n='2']").click();
      document.documentElement.dataset.said = said.join("; ");
      document.documentElement.dataset.ticks = ticks(-0.034, 0.002, 5).map(v => num(v, 3)).join();
    </script>"""
    copy = tmp_path / "copy.html"
    copy.write_text(page.replace("<head>", f"<head>{errors}").replace("</body>", f"{probe}</body>"))
    done = subprocess.run(
        [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
         "--virtual-time-budget=3000", f"--user-data-dir={tmp_path / 'profile'}", f"file://{copy}"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    dom = done.stdout
    assert "data-error" not in dom
    assert 'data-said="4 of 4 shown; 2 of 4 shown; 2 of 4 shown"' in dom, dom[:500]
    assert len(re.findall(r"<svg [^>]*role=\"img\"", dom)) >= 3
    assert "experiment 2: width 6" in dom
    assert 'data-ticks="-0.03,-0.02,-0.01,0"' in dom  # not -3.47e-18
    assert "Ways back: none" in dom
    assert "<title>campaign t1</title>" in dom


def test_runs_that_overlap_have_lanes_of_their_own() -> None:
    """A lane is used again once its run is over."""
    spans = [(0, 10), (1, 3), (3, 4), (11, 12)]
    assert list(lanes([{"started": a, "ended": b} for a, b in spans])) == [0, 1, 1, 0]
