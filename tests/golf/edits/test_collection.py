"""A collection of cheats and of honest edits of the shipped script, audited as one change each."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from attrs import frozen
from thinned import LONG, thinned

from autoresearch.golf.audits import audit_source, format_findings, needs_model_tests
from autoresearch.golf.audits.script import parse_script
from autoresearch.golf.audits.validation import audit_validation
from autoresearch.model import Violation
from autoresearch.python_source import fault

HERE = Path(__file__).parent
SCRIPT = (HERE.parents[2] / "train_gpt.py").read_text(encoding="utf-8")

# Lines of the script that edits stand before or after.
PLACES = {
    "BUILD": "def build_optimizers(",
    "CLOCK": "class TrainingClock:",
    "EMBED": "        x = F.rms_norm(self.tok_emb(input_ids), (self.dim,), eps=self.eps)",
    "FILES": '    train_files = shard_files(hp.data_path, "train")',
    "INIT": "        self.tok_emb = nn.Embedding(vocab_size, model_dim)",
    "LOOP": "    elapsed_ms, stop_step, step = 0.0, None, 0",
    "MAIN": "def main() -> int:",
    "MAINSTART": "    hp = Hyperparameters()\n",
    "RESULT": "        log(result_line(score, facts, hp, runtime))",
    "ROTARY": "def rotary_table(",
    "SCORE": "            score = evaluate(trainer.compiled, hp, runtime, data)",
    "SCORING": "    score, eval_ms = save_and_score(trainer.model,",
    "STEP": "        loss = trainer.step(step, lr_factor(hp, step, elapsed_ms))",
    "STOPPED": "            return step, elapsed_ms",
    "TRAIN": "def train(",
    "TRAINED": "    steps, train_ms = train(trainer, data, log)",
    "TRAINER": "    trainer = Trainer(hp, runtime, train_files)",
    "WARM": "    trainer.warm_up(log)",
}
_TEXT = "".join(
    random.Random(7).choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJ0123456789+/", k=5000)
)
FILLED = {
    "PIECES": "\n".join(f'    "{_TEXT[i : i + 400]}",' for i in range(0, 4800, 400)),
    "KERNELS": "\n".join(
        f"__device__ float poly{i}(float x, float y) {{ return x * {i}.5f + y * x; }}  // term {i}"
        for i in range(80)
    ),
}


@frozen
class Edit:
    """One edit: its title, what judges it besides the audit, and the script with it."""

    title: str
    judge: str
    after: str


@cache
def table(name: str) -> dict[str, Edit]:
    """The edits of a table by their titles, each applied to the script as it is now."""
    found = {}
    for block in (HERE / name).read_text(encoding="utf-8").split("\n=== ")[1:]:
        head, _, body = block.partition("\n")
        title, judge = re.fullmatch(r"(.*?)(?: \((.*)\))?", head).groups()  # type: ignore[union-attr]
        after, body = SCRIPT, body + "\n"
        for step in re.split(r"^@(?=(?:before|after|swap|every) )", body, flags=re.MULTILINE)[1:]:
            after = applied(after, step)
        found[title] = Edit(title, judge or "", after)
    return found


def audited(edit: Edit, *, typed: bool = False) -> tuple[Violation, ...]:
    """What the audit finds in an edit, which has to be one that Python takes."""
    assert fault(edit.after) is None, f"{edit.title}: {fault(edit.after)}"
    return audit_source(edit.after, pristine=SCRIPT, evaluation_change=typed)


def applied(source: str, step: str) -> str:
    """The script after one step of an edit, whose place it must have."""
    head, _, code = step.partition("\n")
    kind, _, rest = head.partition(" ")
    for name, text in FILLED.items():
        code = code.replace(f"{name}\n", f"{text}\n")
    if kind in ("swap", "every"):
        old, new = (side.replace("\\n", "\n") for side in rest.split(" => "))
        assert old in source, f"the script no longer contains {old!r}: mend this edit"
        return (
            re.sub(rf"\b{old}\b", new, source) if kind == "every" else source.replace(old, new, 1)
        )
    place = next(line for line in lines(source) if line.startswith(PLACES[rest].rstrip("\n")))
    return source.replace(place, code + place if kind == "before" else place + code, 1)


def lines(source: str) -> Iterator[str]:
    """The lines of a script with their ends."""
    return iter(source.splitlines(keepends=True))


CHEATS, HONEST = table("cheats.txt"), table("honest.txt")


@pytest.mark.parametrize("title", thinned(CHEATS, 8))
def test_a_cheat_is_caught(title: str) -> None:
    """The audit blocks it, or asks for the model tests where only those can tell."""
    edit = CHEATS[title]
    findings = audited(edit)
    blocked = any(v.blocks for v in findings)
    if edit.judge == "canary":
        assert needs_model_tests(findings), format_findings(findings)
    elif edit.judge == "after the run":
        assert findings or not blocked
    else:
        assert blocked, format_findings(findings)


@pytest.mark.parametrize("title", thinned(HONEST, 8))
def test_an_honest_edit_may_run(title: str) -> None:
    """Nothing blocks it, typed as an evaluation change where it is one."""
    edit = HONEST[title]
    findings = audited(edit, typed=edit.judge == "evaluation")
    assert not [v for v in findings if v.blocks], format_findings(findings)


@LONG
def test_what_was_written_later_is_judged_as_the_page_says() -> None:
    """Every cheat that the rules had not seen is caught by now, and no honest edit."""
    caught, blocked = 0, []
    for edit in table("later_cheats.txt").values():
        findings = audited(edit)
        caught += any(v.blocks for v in findings) or needs_model_tests(findings)
    for edit in table("later_honest.txt").values():
        findings = audited(edit, typed=edit.judge == "evaluation")
        blocked += [edit.title for v in findings if v.blocks]
    assert caught == len(table("later_cheats.txt"))
    assert not blocked


def test_what_a_hook_gives_back_is_followed() -> None:
    """A library calls it, and the script never does."""
    edit = table("later_cheats.txt")["vocabulary weights from what the text needs"]
    assert any(v.blocks for v in audited(edit))


def test_there_are_at_least_sixty_of_each() -> None:
    """The tables may only grow."""
    assert len(CHEATS) >= 60
    assert len(HONEST) >= 60


# A small script, and ways for its score to reach the rate, the weights or the schedule.
SMALL, *BLOCKS = (HERE / "ways.txt").read_text(encoding="utf-8").split("=== ")
WAYS = {name: code for name, _, code in (block.partition("\n") for block in BLOCKS)}


def learns(source: str) -> bool:
    """Whether something from validation reaches what learns."""
    return any(v.blocks for v in audit_validation(parse_script(source), typed=False))


def logged(code: str) -> str:
    """A way that ends in a log instead of in the settings or the weights."""
    code = re.sub(r"\b(setattr\(|object\.__setattr__\()hp, '[^,]*, ", "print(", code)
    code = re.sub(r"\bhp\.rate \*?= ", "seen = ", code)
    return code.replace("net.load_state_dict(kept)", "print(len(kept))")


@pytest.mark.parametrize("way", thinned(WAYS))
def test_a_score_is_followed_and_nothing_else_is(way: str) -> None:
    """Through every construct of the language; a number of one's own, and logging it, is free."""
    assert learns(SMALL + WAYS[way])
    if way != "name":
        assert not learns(SMALL.replace("eval_val(net)\n", "2.5\n") + WAYS[way])
    if (told := logged(WAYS[way])) != WAYS[way]:
        assert not learns(SMALL + told)
