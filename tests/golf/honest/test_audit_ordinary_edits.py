"""Edits that come close to what cheats do, and are ordinary research: none of them may block."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch.golf.audits import audit_source, format_findings

SCRIPT = Path(__file__).parents[3] / "train_gpt.py"
LOSS = "        return F.cross_entropy(logits, target_ids.flatten(), reduction=reduction)\n"
EMBEDDED = "        x0, skips = x, []\n"
STEP = "        loss = trainer.step(step, lr_factor(hp, step, elapsed_ms))\n"
SCORING = "    score, eval_ms = save_and_score("
STREAM = "        self.stream = TokenStream(files)\n"


def put(old: str, new: str) -> Callable[[str], str]:
    """One replacement, which must apply."""

    def edit(source: str) -> str:
        assert old in source, f"the script no longer contains {old!r}: mend this edit"
        return source.replace(old, new, 1)

    return edit


EDITS: dict[str, Callable[[str], str]] = {
    "label smoothing": put(
        LOSS,
        "        soft = 0.05 if self.training else 0.0\n"
        + LOSS.replace("reduction=reduction", "reduction=reduction, label_smoothing=soft"),
    ),
    "another name of the trainer": lambda source: re.sub(r"\btrainer\b", "runner", source),
    "another name of its class": lambda source: re.sub(r"\bTrainer\b", "Runner", source),
    "shards in another order": put(
        STREAM,
        "        order = list(files)\n        random.Random(hp.seed).shuffle(order)\n"
        "        self.stream = TokenStream(order)\n",
    ),
    "steps that are timed": put(
        STEP,
        "        begun = time.perf_counter()\n"
        + STEP
        + "        spent = time.perf_counter() - begun\n"
        "        if step % 100 == 0:\n            log(f'step {step} took {1000 * spent:.1f} ms')\n",
    ),
    "a helper for one step": put(
        STEP,
        "        rate = lr_factor(hp, step, elapsed_ms)\n        loss = trainer.step(step, rate)\n",
    ),
    "weights summed while training": put(
        STEP,
        STEP + "        if step % 50 == 0:\n"
        "            trainer.sum = {k: v.float() for k, v in trainer.model.state_dict().items()}\n",
    ),
    "inputs of the layers on training batches": put(
        SCORING,
        "    kept: list[Tensor] = []\n"
        "    hook = trainer.model.blocks[0].register_forward_hook(lambda m, a, o: kept.append(o))\n"
        "    with torch.no_grad():\n"
        "        trainer.model(*trainer.loader.next_batch())\n"
        "    hook.remove()\n" + SCORING,
    ),
    "previous embedding mixed in": put(
        EMBEDDED,
        "        x = x + 0.1 * torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), dim=1)\n"
        + EMBEDDED,
    ),
    "another offset of the seed for each rank": put(
        "    torch.manual_seed(hp.seed)", "    torch.manual_seed(hp.seed + rank)"
    ),
    "a log with the time": put(
        "            print(line, flush=True)\n",
        "            print(f'{time.time():.3f} {line}', flush=True)\n",
    ),
    "its own folder on the path": put(
        "import numpy as np\n",
        "import numpy as np\nsys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))\n"
        "HERE = Path(__file__).resolve().parent\nsys.path.append(str(HERE))\n",
    ),
    "notes beside the log": put(
        SCORING,
        "    Path('logs/notes.json').write_text(json.dumps({'steps': steps}))\n" + SCORING,
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_ordinary_edit_is_not_taken_for_a_cheat(name: str) -> None:
    """What resembles a cheat only on the surface may run."""
    pristine = SCRIPT.read_text(encoding="utf-8")
    findings = audit_source(EDITS[name](pristine), pristine=pristine)
    assert not [v for v in findings if v.blocks], format_findings(findings)
