"""Compare train_gpt.py with any other script of the same interface, in alternating runs.

    .venv/bin/python tests/benchmarks/bench_trainer.py --against PATH

Both scripts get the same environment, data and number of steps, turn by turn, so that a machine
whose load changes is unfair to both alike. Printed are medians over the rounds and the ratio ours
to theirs; tokens a second are counted from step 2 on, because step 1 pays for compilation.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OURS = ROOT / "train_gpt.py"
DATASET = "sotu_sp1024"

# The shape that two CPU cores train at a usable speed; every value can be overridden by --set.
SMALL = {
    "NUM_LAYERS": "4",
    "MODEL_DIM": "128",
    "NUM_HEADS": "4",
    "NUM_KV_HEADS": "2",
    "TRAIN_SEQ_LEN": "256",
    "TRAIN_BATCH_TOKENS": "4096",
    "VAL_BATCH_SIZE": "65536",
    "WARMUP_STEPS": "1",
    "WARMDOWN_ITERS": "10",
    "VAL_LOSS_EVERY": "0",
    "TRAIN_LOG_EVERY": "1",
    "MAX_WALLCLOCK_SECONDS": "0",
    "RELOAD_CHECK": "0",
}


@dataclass(frozen=True)
class Measured:
    """One run: speeds, seconds, MiB, seconds of CPU, and the loss at the last step."""

    tokens_per_second: float
    first_step_seconds: float
    eval_seconds: float
    peak_mib: float
    cpu_seconds: float
    final_train_loss: float
    final_val_loss: float


def number(pattern: str, text: str) -> float:
    found = re.findall(pattern, text)
    if not found:
        raise SystemExit(f"no line matches {pattern!r}; the run said:\n{text[-2000:]}")
    return float(found[-1])


def tokens_per_second(text: str, batch_tokens: int) -> float:
    """From the training clock of the first and the last step."""
    lines = re.findall(r"step:(\d+)/\d+ train_loss:\S+ train_time:(\d+)ms", text)
    (first, first_ms), (last, last_ms) = lines[0], lines[-1]
    return batch_tokens * (int(last) - int(first)) / ((int(last_ms) - int(first_ms)) / 1000)


def run(script: Path, settings: dict[str, str], launcher: list[str]) -> Measured:
    """Run one script in an empty folder and read its log."""
    with tempfile.TemporaryDirectory() as cwd:
        environment = {**os.environ, **settings, "RUN_ID": "bench"}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        first_step, lines = 0.0, []
        command = [sys.executable, *launcher, str(script)]
        with subprocess.Popen(
            command, cwd=cwd, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            for line in process.stdout or ():
                lines.append(line)
                if not first_step and line.startswith("step:1/"):
                    first_step = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = "".join(lines)
    if process.returncode:
        raise SystemExit(f"{script} ended with {process.returncode}:\n{text[-2000:]}")
    return Measured(
        tokens_per_second=tokens_per_second(text, int(settings["TRAIN_BATCH_TOKENS"])),
        first_step_seconds=first_step,
        eval_seconds=number(r"eval_time:(\d+)ms", text) / 1000,
        peak_mib=number(r"peak memory allocated: (\d+) MiB", text),
        cpu_seconds=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        final_train_loss=number(r"train_loss:([\d.]+)", text),
        final_val_loss=number(r"roundtrip_exact val_loss:([\d.]+)", text),
    )


def alternate(
    scripts: list[Path], settings: dict[str, str], launcher: list[str], rounds: int
) -> Iterator[tuple[Path, Measured]]:
    for turn in range(rounds):
        # The first of a round may meet a colder machine: each script is first every other time.
        for script in scripts[:: -1 if turn % 2 else 1]:
            measured = run(script, settings, launcher)
            print(
                f"round {turn + 1}/{rounds} {script.name}: "
                f"{measured.tokens_per_second:,.0f} tokens/s",
                file=sys.stderr,
                flush=True,
            )
            yield script, measured


def table(results: dict[Path, list[Measured]], ours: Path, theirs: Path) -> str:
    rows = [
        f"{'median of ' + str(len(results[ours])):<20} {'ours':>12} {'theirs':>12} {'ratio':>7}"
    ]
    for field in fields(Measured):
        medians = [
            statistics.median(getattr(m, field.name) for m in results[script])
            for script in (ours, theirs)
        ]
        ratio = f"{medians[0] / medians[1]:.3f}" if medians[1] else "-"
        rows.append(f"{field.name:<20} {medians[0]:>12,.4g} {medians[1]:>12,.4g} {ratio:>7}")
    return "\n".join(rows)


def data_settings(folder: Path) -> dict[str, str]:
    """The local data set, built on first use from text that is installed."""
    if not (folder / "datasets" / DATASET).is_dir():
        builder = ROOT / "data" / "build_local_dataset.py"
        command = [sys.executable, str(builder), "--name", DATASET, "--out", str(folder)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return {
        "DATA_PATH": str(folder / "datasets" / DATASET),
        "TOKENIZER_PATH": str(folder / "tokenizers" / f"{DATASET}.model"),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--against", type=Path, required=True, help="the other script")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of each run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each script")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="folder of the data set")
    parser.add_argument("--ranks", type=int, default=0, help="start with torchrun on so many")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--json", action="store_true", help="print every run as JSON instead")
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    theirs = asked.against.resolve()
    chosen = dict(item.split("=", 1) for item in asked.set)
    settings = {**SMALL, **data_settings(asked.data.resolve()), "ITERATIONS": str(asked.steps)}
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={asked.ranks}"]
    results: dict[Path, list[Measured]] = {OURS: [], theirs: []}
    scripts, ranks = [OURS, theirs], launcher if asked.ranks else []
    for script, measured in alternate(scripts, settings | chosen, ranks, asked.rounds):
        results[script].append(measured)
    if asked.json:
        print(json.dumps({str(k): [vars(m) for m in v] for k, v in results.items()}, indent=1))
    else:
        print(table(results, OURS, theirs))


if __name__ == "__main__":
    main()
