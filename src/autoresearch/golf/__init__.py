"""The Parameter Golf challenge: everything that only it needs, reached through its preset.

The preset is the settings that a campaign starts from unless told otherwise. Everything is named
here and imported where it is used: this file is read for `--help`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoresearch.presets import MetricColumn, Preset, PresetPlugin, Verb

if TYPE_CHECKING:
    from autoresearch.golf.reading import LogReading, read_log


# Seed-to-seed standard deviation of val_bpb: median over 22 public record submissions with at
# least three seeds each on 8xH100. A gain over 0.02 in one step was never honest there.
SEED_SD = 0.00064
IMPLAUSIBLE_GAIN = 0.02

# The cap is decimal: 16,000,000 bytes of code and compressed model together.
ARTIFACT_BYTES = 16_000_000

_VERBS = "autoresearch.golf.verbs"

PRESET = Preset(
    name="golf",
    summary="the Parameter Golf challenge: lowest val_bpb, artifact under 16,000,000 bytes",
    mark=("train_gpt.py", "val_bpb"),
    settings={
        "script": "train_gpt.py",
        "in_scope": ["README.md", "train_gpt.py"],
        "command": ["torchrun", "--standalone", "--nproc_per_node=8", "train_gpt.py"],
        "cwd": "{run}",
        "launcher": "modal",
        "data": ["data/datasets/fineweb10B_sp1024", "data/tokenizers"],
        "data_command": (
            "python3 data/cached_challenge_fineweb.py --variant sp1024 --train-shards 10"
        ),
        "knowledge": "autoresearch.golf:known.csv",
        "metric": {
            "name": "val_bpb",
            "better": "lower",
            "reader": "golf",
            "sd": SEED_SD,
            "implausible_gain": IMPLAUSIBLE_GAIN,
        },
        "limits": {"artifact_bytes": ARTIFACT_BYTES, "timeout_seconds": 900.0},
    },
    template=(
        "README.md",
        "train_gpt.py",
        "modal_train.py",
        "data/README.md",
        "data/build_local_dataset.py",
        "data/cached_challenge_fineweb.py",
        "data/challenge_manifest.py",
        "data/console.py",
        "data/documents.py",
        "data/files.py",
        "data/hub.py",
        "data/shards.py",
        "data/tokenizer.py",
    ),
    plugins=(PresetPlugin(name="golf", module="autoresearch.golf.plugin"),),
    verbs={
        "metrics": Verb(
            help="Read the score of a training LOG, or of standard input where LOG is -",
            command=f"{_VERBS}:metrics",
        ),
        "audit": Verb(help="Check a script for what must not run", command=f"{_VERBS}:audit"),
        "canary": Verb(help="Test a script's evaluation", command=f"{_VERBS}:canary"),
    },
    columns={"val_bpb": MetricColumn(doc="bits per byte", unit="bits/byte")},
)


__all__ = ["LogReading", "read_log"]


def __getattr__(name: str) -> Any:
    """Import the reader when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from autoresearch.golf import reading

    return getattr(reading, name)
