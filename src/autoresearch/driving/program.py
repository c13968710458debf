"""The instructions for an agent that drives a campaign, made from the campaign's own settings.

They say what the step verbs do and ask for, so that whoever follows this text alone can do whole
experiments. Nothing of it changes as experiments go by: a file written once stays true.
"""

from __future__ import annotations

from pathlib import Path

from autoresearch.campaign import Campaign
from autoresearch.config import Config
from autoresearch.durable import replace_file
from autoresearch.errors import WorkspaceError
from autoresearch.setup import hide
from autoresearch.text import counted, one_line

PLACES = {"AGENTS.md": Path("AGENTS.md"), "skill": Path(".agents/skills/autoresearch/SKILL.md")}
_MARK = "<!-- written by autoresearch program; it may write it again -->"
_FRONT = """\
---
name: autoresearch
description: Do machine-learning experiments in this repository, one after the other, by the
  steps of its research protocol. Use it when asked for research or to improve {metric}.
---
"""

_TEXT = """\
# Research in campaign {tag}

You do machine-learning research by yourself: you change {script}, run it, read its score, decide,
remember, and go on. The history of every experiment is kept for you; the verbs below are the only
way to add to it. The human may be asleep: do not ask whether you should go on.

**The goal**: {goal} `{metric}`.{noise} The first run is always the baseline, the script as it is.

## What you may and may not do

You may change: {editable}. Everything in there is fair game: architecture, optimizer,
hyperparameters, batch size, model shape. Read first: {reading}.

You may not:

- change any other file, nor how `{metric}` is measured; such a change is refused or quarantined;
- push to a remote; all work stays local;
- install packages;
- write results.tsv or notes.md: they are written from the log;
- run the script by hand: a run that the log does not know does not count.

The limits of this campaign:

{limits}

## One experiment

Take the steps in this order. Each prints what comes next; a step that is not next is refused with
the one that is. Whatever happened, also after you lost your context, `autoresearch step
next{options}` says where you stand. Text in <angle brackets> is yours to write.

1. **Review.** Read results.tsv, notes.md, the queue and what was refused before. Say to yourself
   what is best, what was tried, what worked, what failed. A person's steering stands there too.

   ```sh
   autoresearch step review{options}
   ```

   The very first review begins the baseline: go straight to **Run**.

2. **Reason.** No blind changes: what you expect and why, what supports it, what could go wrong, and
   the numbers of the experiments that it rests on.

   ```sh
   autoresearch step reason{options} "<what you change>" --direction "<family of the change>" \\
     --hypothesis "<what you expect to happen and why>" --evidence "<prior results or theory>" \\
     --risk "<what could go wrong>" --cites <number of an experiment>
   ```

3. **Edit.** Change the files in the folder that the step before printed, `{folder}/<number>`, and
   nowhere else. Then have the change audited and committed; do not commit it yourself. What cannot
   be tried is refused and may be corrected. A blocked change is dropped: review again.

   ```sh
   autoresearch step edit{options}
   ```

4. **Run.** It may take {minutes}. This looks for some minutes; while the run goes on,
   `run` stays the next step: repeat it. Do not read the whole output, it would flood your context.

   ```sh
   autoresearch step run{options} --seconds 540
   ```

   After a crash you may change the files in the same folder and take the step edit again, for a
   trivial mistake; else analyze the crash.

5. **Analyze.** Your best explanation, and what it tells about future experiments. If you find
   yourself writing the same lesson again, you do not learn from your results.

   ```sh
   autoresearch step analyze{options} --why "<your best explanation>" --lesson "<what it tells>"
   ```

6. **Decide.** The campaign's policy gives the verdict and its reason; a rerun means: run again.

   ```sh
   autoresearch step decide{options}
   ```

Then begin again with the review.

## Signals

- {dead} discards in a row in one direction make it a dead end: do something completely different.
- A gain too good to believe is quarantined; do not repeat it, a person looks at it.
- {plateau} experiments with less than {gain:g} in all are a plateau: read the script again from the
  top, look for something structural, combine near misses, try a radical change.
- Ideas of people wait in the queue: `autoresearch step reason{options} --idea <id> ...` takes one.
- Ask the history: `autoresearch sql "select * from experiments"`; one experiment whole:
  `autoresearch show <number>`.
"""


def program(campaign: Campaign, by: str = "agent") -> str:
    """Return the instructions for a driver that calls itself ``by``."""
    config, history = campaign.config, campaign.history
    sd = config.metric.sd
    editable = ", ".join(f"`{path}`" for path in dict.fromkeys((config.script, *config.editable)))
    reading = [*config.in_scope, config.script]
    return _TEXT.format(
        tag=campaign.tag,
        script=f"`{config.script}`",
        goal="the lowest" if history.lower_is_better else "the highest",
        metric=config.metric.name,
        noise=f" Its noise from seed to seed is {sd:g}: less is no gain." if sd else "",
        editable=editable,
        reading=", ".join(f"`{path}`" for path in dict.fromkeys(reading)),
        limits="\n".join(f"- {line}" for line in _limits(config)),
        options=f" --tag {campaign.tag} --as {one_line(by, 60)}",
        folder=campaign.lab.workspace(0).path.parent,
        minutes=counted(max(1, round(config.limits.timeout_seconds / 60)), "minute"),
        dead=config.rules.dead_end_discards,
        plateau=config.rules.plateau_experiments,
        gain=config.rules.plateau_gain,
    )


def _limits(config: Config) -> list[str]:
    limits, metric = config.limits, config.metric
    told = [f"a run is killed after {limits.timeout_seconds:g} seconds and counts as a failure"]
    if limits.artifact_bytes:
        told.append(f"the artifact must be smaller than {limits.artifact_bytes:,} bytes")
    if metric.implausible_gain:
        told.append(f"a gain over {metric.implausible_gain:g} in one step is quarantined")
    told.append(f"a crash may be fixed {limits.crash_fixes} times")
    for name, unit in (
        *(("experiments", "experiments"), ("hours", "hours of runs")),
        *(("usd", "US dollars"), ("gpu_hours", "GPU hours")),
    ):
        if amount := getattr(limits, name):
            told.append(f"the campaign ends after {amount:g} {unit}")
    return told


def write(campaign: Campaign, place: str, *, by: str = "agent", force: bool = False) -> Path:
    """Write the instructions where agents look for them, and return the file.

    ``place`` is a key of ``PLACES``. Raises WorkspaceError for a file of the user's own unless
    ``force``; one that was written here before is replaced.
    """
    path = campaign.project / PLACES[place]
    try:
        if path.exists() and not force and _MARK not in path.read_text(encoding="utf-8"):
            raise WorkspaceError(
                f"{path} is a file of your own; move it away, or replace it with --force"
            )
        front = _FRONT.format(metric=campaign.config.metric.name) if place == "skill" else ""
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, f"{front}{_MARK}\n\n{program(campaign, by)}".encode())
    except (OSError, UnicodeDecodeError) as error:
        raise WorkspaceError(f"cannot write {path}: {error}; make it writable") from None
    hide(campaign.project, [PLACES[place].as_posix()])
    return path
