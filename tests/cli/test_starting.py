"""Somebody's first ten minutes: a demo, a template, or a script of their own that is examined."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import autoresearch
from autoresearch.doctor import examine, try_once
from autoresearch.policies.pattern_metrics import patterns, read
from autoresearch.scaffold import lay_template, templates
from autoresearch.settings import load
from autoresearch.testing import git, make_project

ROOT = Path(__file__).parents[2]
# Where karpathy/autoresearch is checked out; its train.py is run with a stand-in for its GPU part.
UNMODIFIED = os.environ.get("KARPATHY_AUTORESEARCH", "")

# As that script is: constants, progress behind carriage returns, a summary below a line.
LIKE_KARPATHYS = '''
"""One file, one metric."""
import os
from prepare import TIME_BUDGET, evaluate_bpb

# Optimization
TOTAL_BATCH_SIZE = 2**19 # tokens per step
MATRIX_LR = 0.04        # learning rate for matrices
ADAM_BETAS = (0.8, 0.95)
DEPTH = 8               # layers

for step in range(40):
    loss = 3.0 / (step + 1) + abs(MATRIX_LR - 0.03) + 0.01 * abs(DEPTH - 9)
    print(f"\\rstep {step:05d} ({step:.1f}%) | loss: {loss:.6f} | dt: 3ms | epoch: 1   ", end="")
print()
val_bpb = evaluate_bpb(loss)
print("---")
print(f"val_bpb:          {val_bpb:.6f}")
print(f"training_seconds: {TIME_BUDGET:.1f}")
print(f"peak_vram_mb:     {45060.2:.1f}")
print(f"depth:            {DEPTH}")
'''
PREPARE = "TIME_BUDGET = 300\n\n\ndef evaluate_bpb(loss):\n    return 0.9 + loss / 10\n"


def own(folder: Path, script: str, name: str = "train.py", **files: str) -> Path:
    """A project of somebody who has never heard of settings."""
    project = make_project(folder, script=script, files=files)
    git(project, "rm", "--quiet", "autoresearch.toml")
    if name != "train.py":
        git(project, "mv", "train.py", name)
    git(project, "commit", "--quiet", "--message", "Mine")
    return project


def test_demo_shows_all_four_endings(tmp_path: Path, at) -> None:
    """A keep, a discard, a hang that is killed, and a score too good to believe."""
    code, out, _ = at(tmp_path, "demo")
    assert code == 0
    history = autoresearch.open_campaign(tmp_path / "autoresearch-demo").history
    verdicts = [str(item.verdict) for item in history.experiments]
    assert verdicts == ["keep", "keep", "discard", "crash", "quarantine"]
    assert "killed at its deadline" in out
    assert at(tmp_path, "demo")[0] == 1  # nothing of the user's is written over


def test_init_tries_the_script_and_writes_settings(tmp_path: Path, at) -> None:
    """Metric, direction, data and deadline are those of one run; then the campaign runs."""
    script = "open('corpus.txt').read()\nLR = 0.5\nprint('epoch 1 | lr: 0.1 | train_loss: 0.3')\n"
    script += "print(f'Test Accuracy: {1 - abs(LR - 0.3):.3f}')\nprint('seconds: 3.2')\n"
    project = own(tmp_path / "p", script, name="fit.py")
    (project / "corpus.txt").write_text("text")
    code, out, err = at(project, "init", "--tag", "t1", "--try")
    assert code == 0, err
    config = load(project).config
    assert (config.script, config.metric.name, config.metric.better, config.data) == (
        "fit.py", "Test_Accuracy", "higher", ("corpus.txt",),
    )  # fmt: skip
    assert "LR = 0.5" in out
    assert at(project, "run", "--experiments", "2", "--no-wait")[0] == 0
    assert autoresearch.open_campaign(project).history.best_metric >= 0.8


PARSED = """
import argparse, random
parser = argparse.ArgumentParser()
parser.add_argument("--learning-rate", type=float, default=0.1)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("-s", "--seed", type=int, default=0)
given = parser.parse_args()
print(f"val_loss: {given.learning_rate + random.Random(given.seed).random() / 100:.6f}")
"""


def test_a_seed_is_given_to_the_script_and_is_no_idea(tmp_path: Path, at) -> None:
    """What the script takes as --seed is its run's, so the noise is measured with other seeds."""
    project = own(tmp_path / "p", PARSED)
    out = at(project, "init", "--try")[1]
    assert re.search(r"values: +learning_rate = 0.1$", out, re.MULTILINE), out
    assert load(project).config.command == ("{python}", "{script}", "--seed", "{seed}")
    assert at(project, "run", "--experiments", "2")[0] == 0
    history = autoresearch.open_campaign(project).history
    assert history.noise.measured
    assert {change.name for change in history.experiments[1].idea.changes} == {"learning_rate"}


@pytest.mark.parametrize("top", ["", "src/"])
def test_a_package_runs_as_a_module_with_its_settings_to_change(tmp_path, at, top) -> None:
    """What imports its own package is started with -m; the YAML that it names is editable."""
    script = "from shop.net import score\nrate = float(open('config.yaml').read().split()[-1])\n"
    files = {
        f"{top}shop/__init__.py": "",
        f"{top}shop/net.py": "def score(rate):\n    return abs(rate - 0.3)\n",
        f"{top}shop/train.py": script + "print('val_loss:', score(rate))\n",
        "config.yaml": "optimizer:\n  rate: 0.1\n",
    }
    project = own(tmp_path / "p", "x = 1\n", **files)
    code, _, err = at(project, "init")
    assert (code, f"{top}shop/train.py looks like the script" in err) == (1, True)
    assert at(project, "init", "--try")[0] == 0
    config = load(project).config
    assert (config.command, config.editable) == (("{python}", "-m", "shop.train"), ("config.yaml",))
    assert at(project, "run", "--experiments", "2")[0] == 0
    tried = autoresearch.open_campaign(project).history.experiments[1]
    assert "optimizer.rate" in tried.idea.description
    assert tried.metrics["val_loss"] != 0.2  # the run has its own copy of the settings


@pytest.mark.parametrize(
    ("printed", "name", "pattern"),
    [
        ("print('val loss 0.42'); print('done in 3 s')", "val_loss", r"val\s+loss\s*"),
        ("print({'train/loss': 7.0, 'val/loss': 0.9})", "val/loss", ""),
        ("print('loss=0.5 acc=0.9')", "acc", ""),
        ("print('val_loss: 0.4'); print('val_bpb: 1.2')", "val_bpb", ""),
    ],
)
def test_metric_is_found_in_what_a_script_prints(tmp_path, printed, name, pattern) -> None:
    """Of several numbers the validation's; where no name can be read, with a pattern."""
    project = own(tmp_path / "p", printed + "\n")
    found = try_once(project, examine(project), 30)
    assert found.metric == name
    assert found.pattern.startswith(pattern)
    assert bool(found.pattern) == bool(pattern)


@pytest.mark.parametrize(
    ("printed", "value"),
    [
        ("for v in (0.5, 0.4): print(f'epoch {v} - val loss {v:.4f}')", 0.4),
        ("print(f'Epoch 3 test perplexity {1234.6:,.2f}')", 1234.6),
        ("print('Done in 3 s, test accuracy 90.10.')", 90.1),
        ("print('Epoch 3/3 - loss 0.2 - val acc 91.2%')", 91.2),
        ("import json; print(json.dumps({'epoch': 1, 'val': {'loss': 1.1}}))", 1.1),
        ("print('step 100 | train_loss 1.0 | val_loss 1.136')", 1.136),
        ("print('val loss 0.2'); print('val loss nan')", None),
    ],
)
def test_what_was_proposed_reads_what_was_printed(tmp_path, printed, value) -> None:
    """The settings that init writes find the number that it showed; nan is never passed over."""
    project = own(tmp_path / "p", printed + "\n")
    found = try_once(project, examine(project), 30)
    (project / "autoresearch.toml").write_text(found.toml())
    config = load(project).config
    log = tmp_path / "log"
    log.write_text(found.trial.log)
    assert read(log, patterns(config)).get(config.metric.name) == value


def test_nothing_starts_without_a_number_to_make_better(tmp_path: Path, at) -> None:
    """Neither init, which leaves settings to correct, nor run, which says what would help."""
    project = own(tmp_path / "p", "LR = 0.1\nprint('hello')\n")
    code, _, err = at(project, "init", "--try")
    assert (code, (project / "autoresearch.toml").exists()) == (1, True)
    assert "nothing was started: correct metric in autoresearch.toml" in err.splitlines()[-1]
    other = own(tmp_path / "q", "LR = 0.1\nprint(f'loss: {LR * 2}')\n")
    code, _, err = at(other, "run", "--experiments", "1")
    assert (code, len(err.strip().splitlines())) == (1, 1)
    assert "let autoresearch init --try" in err
    assert not any((folder / ".autoresearch").exists() for folder in (project, other))


def test_a_file_of_the_user_is_told_before_the_script_is_tried(tmp_path: Path, at) -> None:
    """results.tsv under git: one line, and no settings are written."""
    project = own(tmp_path / "p", "print('val_loss: 0.5')\n", **{"results.tsv": "a\tb\n"})
    code, out, err = at(project, "init", "--try")
    assert (code, out) == (1, "")
    assert "results.tsv is in git" in err
    assert not (project / "autoresearch.toml").exists()


def test_a_script_that_goes_on_is_stopped_with_its_children(tmp_path: Path) -> None:
    """What it had printed by then counts; nothing is left running and the checkout is untouched."""
    script = "import subprocess, sys, time\nopen('left.txt', 'w').write('x')\n"
    script += "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    script += "print('val_loss: 0.5', child.pid, flush=True)\ntime.sleep(600)\n"
    project = own(tmp_path / "p", script)
    found = try_once(project, examine(project), 2)
    assert found.trial is not None
    assert found.trial.exit_code is None
    assert found.metric == "val_loss"
    assert not (project / "left.txt").exists()
    child = int(found.trial.log.split()[-1])
    assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text()


def test_without_consent_nothing_runs_and_the_way_is_told(tmp_path: Path, at) -> None:
    """One line names what was found and how to go on; nothing is written."""
    project = own(tmp_path / "p", "print(f'val_loss: {0.5}')\n", name="fit.py")
    code, _, err = at(project, "init")
    assert code == 1
    assert "fit.py seems to print val_loss: let autoresearch init --try" in err
    assert not (project / "autoresearch.toml").exists()
    assert not (project / ".autoresearch").exists()


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (
            "raise ValueError('no corpus')  # print(\n",
            "not run as it is: ValueError: no corpus",
        ),
        ("x = 1\n", "looks like a training script"),
    ],
)
def test_a_project_that_cannot_run_is_told_at_once(tmp_path, at, script, problem) -> None:
    """The script's own error, or what was looked for."""
    project = own(tmp_path / "p", script)
    code, _, err = at(project, "init", "--try")
    assert (code, problem in err) == (1, True), err


def test_plain_template_is_a_project_that_runs(tmp_path: Path, at) -> None:
    """One command in an empty folder, and the next one runs experiments."""
    assert at(tmp_path, "init", "--template", "plain", "--tag", "nov28")[0] == 0
    assert at(tmp_path, "run", "--experiments", "4", "--no-wait")[0] == 0
    assert git(tmp_path, "status", "--porcelain") == ""
    out = at(tmp_path, "show")[1]
    assert "quarantine" not in out  # an honest gain of the first minutes is no false alarm
    assert "artifact_mb" not in out  # which nothing here has
    (tmp_path / "my.log").write_text("val_loss: 0.25\n")
    assert at(tmp_path, "metrics", "my.log")[1].split() == ["val_loss:", "0.25"]
    (tmp_path / "my.log").write_text("nothing\n")
    assert "my.log has no val_loss" in at(tmp_path, "metrics", "my.log")[2]
    assert "cannot read none.log: No such file" in at(tmp_path, "metrics", "none.log")[2]


@pytest.mark.parametrize(
    "change",
    ["MOMENTUM = 0.95", "LEARNING_RATE = 0.5", "STEPS = 600", "DEGREE = 9"],
)
def test_no_honest_change_of_the_plain_template_is_implausible(tmp_path: Path, change: str) -> None:
    """Whatever order the ideas come in, the largest step that each number allows is believed."""
    lay_template("plain", tmp_path)
    text = (tmp_path / "train.py").read_text()
    name = change.split()[0]
    changed = re.sub(rf"(?m)^{name} = .*$", change, text)
    assert changed != text
    before, after = score_of(text), score_of(changed)
    assert before - after < load(tmp_path).config.metric.implausible_gain < before


def score_of(script: str) -> float:
    """Return what a script prints last."""
    command = [sys.executable, "-c", script]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(said.split()[-1])


def test_template_never_writes_over_a_file_nor_commits_unasked(tmp_path: Path, at) -> None:
    """In somebody's repository the commit is theirs."""
    project = own(tmp_path / "p", "print('val_loss: 0.3')\n")
    git(project, "rm", "--quiet", "train.py")
    git(project, "commit", "--quiet", "--message", "Empty", "--allow-empty")
    before = git(project, "rev-parse", "HEAD")
    code, _, err = at(project, "init", "--template", "plain")
    assert code == 1
    assert "commit train.py first, or let init do that with --yes" in err
    assert git(project, "rev-parse", "HEAD") == before


def test_golf_template_has_the_files_of_the_challenge(tmp_path: Path) -> None:
    """Every file is there, and the project is known as the challenge's."""
    lay_template("golf", tmp_path, commit=True)
    assert (tmp_path / "train_gpt.py").read_bytes() == (ROOT / "train_gpt.py").read_bytes()
    assert load(tmp_path).config.preset == "golf"
    there = {f"data/{path.name}" for path in (ROOT / "data").iterdir() if path.is_file()}
    assert there == {name for name in templates()["golf"] if name.startswith("data/")}


def test_a_project_like_karpathys_runs_after_one_command(tmp_path: Path, at) -> None:
    """Its metric is read, its constants are tried, and prepare.py is not touched."""
    project = own(tmp_path / "p", LIKE_KARPATHYS, **{"prepare.py": PREPARE})
    assert at(project, "init", "--template", "karpathy", "--tag", "t1")[0] == 0
    assert at(project, "run", "--experiments", "6", "--no-wait")[0] == 0
    history = autoresearch.open_campaign(project).history
    assert len(history.decided) == 6
    assert history.metric == "val_bpb"
    names = {change.name for item in history.experiments for change in item.idea.changes}
    assert names & {"MATRIX_LR", "DEPTH"}
    assert git(project, "diff", "--name-only", "HEAD", history.best.commit) in ("", "train.py")


def test_a_template_for_a_script_wants_the_script(tmp_path: Path, at) -> None:
    """Settings alone, for a script that is not there, would be half of a project."""
    told = at(tmp_path, "init", "--template", "karpathy")
    assert told[0] == 1
    assert "has no train.py; use a clone of karpathy/autoresearch" in str(told)
    assert not (tmp_path / "autoresearch.toml").exists()


@pytest.mark.skipif(not UNMODIFIED, reason="needs KARPATHY_AUTORESEARCH=PATH of its checkout")
def test_karpathys_train_py_runs_unmodified(tmp_path: Path, at) -> None:
    """The file as it was fetched, with a stand-in for torch and for its GPU part."""
    stand_in = Path(__file__).parent / "karpathy_stand_in"
    source = subprocess.run(
        ["git", "-C", UNMODIFIED, "show", "HEAD:train.py"], capture_output=True, check=True
    ).stdout.decode()
    there = sorted(stand_in.rglob("*.py"))
    files = {str(path.relative_to(stand_in)): path.read_text() for path in there}
    project = own(tmp_path / "p", source, **files)
    assert at(project, "init", "--template", "karpathy", "--tag", "t1")[0] == 0
    assert at(project, "run", "--experiments", "6", "--no-wait")[0] == 0
    said = json.loads(at(project, "status", "--json")[1])
    assert said["experiments"] == 6
    assert said["metric"] == "val_bpb"
