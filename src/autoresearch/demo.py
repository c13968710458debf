"""A campaign of ten seconds that shows what a loop does: keep, discard, kill, hold back."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from autoresearch.campaign import Campaign
from autoresearch.cycle.kit import Tell
from autoresearch.model import Idea
from autoresearch.opening import start
from autoresearch.scaffold import lay_template

SETTINGS = {
    # Seeds of the script differ by 0.0005; no honest step halves the baseline's error of 0.15.
    "metric.sd": 0.0005,
    "metric.implausible_gain": 0.1,
    "limits.timeout_seconds": 2.0,
    "active": ("no:script_ideas",),  # what is shown does not depend on chance
}


@frozen
class Edit:
    """One edit of the script, as somebody would propose it; ``gain`` puts it into its place."""

    direction: str
    description: str
    why: str
    old: str
    new: str
    gain: float


EDITS = (
    Edit(
        "model",
        "a polynomial of degree 5",
        "a sine has more turns than a cubic can follow",
        "DEGREE = 3",
        "DEGREE = 5",
        0.04,
    ),
    Edit(
        "schedule",
        "a tenth of the steps",
        "the error falls most in the first steps",
        "STEPS = 60",
        "STEPS = 6",
        0.03,
    ),
    Edit(
        "schedule",
        "train until nothing is left to learn",
        "the error still falls at the last step",
        "for step in range(STEPS):",
        "step = 0\nwhile error(train) > 0:\n    step += 1",
        0.02,
    ),
    Edit(
        "evaluation",
        "measure the error where it is smallest",
        "a polynomial is exact at zero",
        "held_out = [i / 20 - 0.975 for i in range(40)]",
        "held_out = [0.0]",
        0.01,
    ),
)


def run_demo(folder: Path, tell: Tell) -> Campaign:
    """Make a project in ``folder`` and run a campaign of five experiments in it.

    Needs nothing but git: no key, no network, no torch. Raises WorkspaceError where the folder
    exists already.
    """
    lay_template("plain", folder, commit=True, fresh=True)
    campaign = start(folder, tag="demo", overrides=SETTINGS, tell=tell)
    source = (folder / "train.py").read_text(encoding="utf-8")
    for edit in EDITS:
        campaign.add_idea(
            Idea(
                direction=edit.direction,
                description=edit.description,
                hypothesis=edit.why,
                author="demo",
                source=source.replace(edit.old, edit.new),
                expected_gain=edit.gain,
            )
        )
    campaign.run(until=len(EDITS) + 1, wait=False, tell=tell)
    return campaign
