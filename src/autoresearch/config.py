"""The settings of a campaign as frozen values; `settings` reads them from where people put them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sized
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from attrs import Attribute, evolve, field, frozen

from autoresearch.durable import check_pattern
from autoresearch.errors import ConfigError
from autoresearch.frozen import freeze
from autoresearch.presets import DEFAULT
from autoresearch.structure import CONVERTER, structure

S = TypeVar("S")
LOCAL = ("local", "torchrun")  # launchers of this machine
RUN_FOLDER = "{run}"  # as a working directory: where a run has nothing but what it wrote


def setting(default: Any, doc: str, **options: Any) -> Any:
    """An attrs field of the configuration with its meaning; a mapping becomes a frozen copy."""
    if isinstance(default, dict):
        return field(
            factory=lambda: dict(default), metadata={"doc": doc}, converter=freeze, **options
        )
    return field(default=default, metadata={"doc": doc}, **options)


def section(shape: Callable[[], Any], doc: str) -> Any:
    """An attrs field that holds a table of further settings."""
    return field(factory=shape, metadata={"doc": doc})


_LARGEST = 2**53 - 1  # the log keeps no larger integer


def _positive(_: object, attribute: Attribute[Any], value: float) -> None:
    _check_range(attribute.name, value, 0 < value <= _LARGEST, "over 0")


def _not_negative(_: object, attribute: Attribute[Any], value: float) -> None:
    _check_range(attribute.name, value, 0 <= value <= _LARGEST, "0 or more")


def _check_range(name: str, value: float, fits: bool, least: str) -> None:
    if not fits:
        told = f"must be {least} and below 9e15; set such a number"
        raise ConfigError(f"{name} is {value}, but {told}")


def _countable(_: object, attribute: Attribute[Any], value: int) -> None:
    if abs(value) > _LARGEST // 2:  # those of reruns count up from it
        raise ConfigError(f"{attribute.name} is {value}; set one of at most 15 digits")


from_zero = partial(setting, validator=_not_negative)
_over_zero = partial(setting, validator=_positive)


def _given(_: object, attribute: Attribute[Any], value: Sized) -> None:
    if not value or value == ("",):
        raise ConfigError(f"{attribute.name} is empty; write what it is")


def _one_of(*allowed: str) -> Any:
    def check(_: object, attribute: Attribute[Any], value: str) -> None:
        if value not in allowed:
            wanted = " or ".join(allowed)
            raise ConfigError(f"{attribute.name} is {value!r}; set it to {wanted}")

    return check


def _patterns(_: object, __: Attribute[Any], value: tuple[str, ...]) -> None:
    for pattern in value:
        check_pattern(pattern)


def _inside(_: object, attribute: Attribute[Any], value: str) -> None:
    parts = PurePosixPath(value).parts
    if value.startswith("/") or ".." in parts or (value != RUN_FOLDER and "{" in value):
        raise ConfigError(
            f"{attribute.name} is {value!r}; write a folder of the repository, or {RUN_FOLDER}"
        )


@frozen(kw_only=True)
class MetricConfig:
    """The number that a campaign makes better."""

    name: str = setting("score", "name of the metric, as extractors call it", validator=_given)
    better: str = setting("lower", "lower or higher", validator=_one_of("lower", "higher"))
    pattern: str = setting(
        "", "regular expression with one group that reads the metric; the last match counts"
    )
    sd: float = from_zero(
        0.0, "seed-to-seed standard deviation, in units of the metric; 0: unknown"
    )
    implausible_gain: float = from_zero(
        0.0, "a gain in one step over this is quarantined, in units of the metric; 0: never"
    )
    reader: str = setting(
        "", "plugin that alone reads the metric; empty: the pattern, or name=value in the output"
    )
    size: str = setting("artifact_bytes", "name of the metric that holds the artifact's bytes")


@frozen(kw_only=True)
class LimitsConfig:
    """What a run or a campaign may use."""

    timeout_seconds: float = _over_zero(900.0, "a run is killed after this, seconds")
    artifact_bytes: int = from_zero(0, "an artifact must be smaller than this, bytes; 0: no limit")
    max_log_bytes: int = _over_zero(64_000_000, "a run that prints more is killed, bytes")
    crash_fixes: int = from_zero(2, "attempts to fix a trivial crash of one experiment")
    infra_retries: int = from_zero(2, "times a run is launched again when the machine failed")
    reruns: int = from_zero(3, "further runs of one experiment that a policy may ask for")
    experiments: int = from_zero(0, "stop after this many experiments; 0: never")
    hours: float = from_zero(0.0, "stop after this many hours of runs; 0: never")
    usd: float = from_zero(0.0, "stop after this much money, runs and tokens together; 0: never")
    gpu_hours: float = from_zero(0.0, "stop after this many GPU hours; 0: never")


@frozen(kw_only=True)
class RunsConfig:
    """How many runs go on at once, and which GPUs each of them has."""

    parallel: int = _over_zero(1, "experiments under way at once")
    devices: tuple[str, ...] = setting(
        (), "GPUs of this machine that runs may have, as in CUDA_VISIBLE_DEVICES; empty: all seen"
    )
    gpus: int = from_zero(
        0, "GPUs of one run on this machine; 0: the devices are shared out evenly"
    )


@frozen(kw_only=True)
class EvaluationConfig:
    """Commands that judge what a run left, from the commit that the campaign started from."""

    command: tuple[str, ...] = setting(
        (),
        "program and arguments that print the score after a run; {run} is the folder of what the "
        "run wrote; empty: the script prints it",
    )
    hidden_command: tuple[str, ...] = setting(
        (), "a second one, whose score people see and no plugin and no mind"
    )
    timeout_seconds: float = _over_zero(900.0, "an evaluation is killed after this, seconds")


@frozen(kw_only=True)
class NoiseConfig:
    """How the noise is measured where ``metric.sd`` is not set."""

    runs: int = _over_zero(
        3, "runs of the baseline, each with another seed; 1: the noise stays unknown"
    )
    budget_seconds: float = from_zero(
        60.0, "only a baseline is repeated whose runs take no longer than this, seconds in all"
    )


@frozen(kw_only=True)
class StageConfig:
    """A step of the funnel that every idea goes through; what is empty or 0 is the campaign's."""

    name: str = setting("", "name of the stage, in the order in which they follow each other")
    launcher: str = setting("", "launcher plugin that runs the command")
    options: Mapping[str, Any] = setting({}, "other values of the launcher's own table")
    command: tuple[str, ...] = setting((), "program and arguments of a run")
    env: Mapping[str, str] = setting({}, "environment of its runs, over that of the campaign")
    seconds: float = from_zero(0.0, "a run is killed after this, seconds")
    sd: float = from_zero(0.0, "seed-to-seed standard deviation of the metric in this stage")
    hours: float = from_zero(0.0, "stop after this many hours of its runs")
    usd: float = from_zero(0.0, "stop after this much money for its runs")
    gpu_hours: float = from_zero(0.0, "stop after this many GPU hours of its runs")


def _stages(_: object, __: object, stages: tuple[StageConfig, ...]) -> None:
    names = [item.name for item in stages]
    for number, name in enumerate(names, 1):
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", name):
            raise ConfigError(f"stage {number} is named {name!r}; use letters, digits, - and _")
        if names.count(name) > 1:
            raise ConfigError(f"two stages are named {name!r}; give each a name of its own")


@frozen(kw_only=True)
class ControlsConfig:
    """How often the best is measured again, with another seed."""

    every: int = from_zero(0, "the best runs again after so many decided experiments; 0: never")


@frozen(kw_only=True)
class RulesConfig:
    """The numbers of the three backtracking signals."""

    dead_end_discards: int = _over_zero(3, "consecutive discards that make a direction a dead end")
    plateau_experiments: int = _over_zero(5, "experiments without progress that make a plateau")
    plateau_gain: float = from_zero(0.001, "less than this in all is no progress, metric units")


@frozen(kw_only=True)
class BoundaryConfig:
    """What generated code can reach on this machine."""

    kind: str = setting(
        "auto",
        "auto uses bubblewrap where it works; bubblewrap refuses to run without it; none",
        validator=_one_of("auto", "bubblewrap", "none"),
    )
    network: bool = setting(True, "a run may use the network; held by bubblewrap alone")
    reads: tuple[str, ...] = setting((), "further paths that a run in bubblewrap may read")
    writes: tuple[str, ...] = setting((), "further paths that a run in bubblewrap may write")


@frozen(kw_only=True)
class Config:
    """Everything a campaign is told; recorded whole in ``campaign_started``."""

    preset: str = setting(
        DEFAULT,
        "defaults to start from, by name; plain has none; unless it is set, the preset whose "
        "script the project has, else plain",
    )
    script: str = setting(
        "train.py", "training script that experiments change, in the repository", validator=_given
    )
    editable: tuple[str, ...] = setting(
        (),
        "other files that an idea may change: paths or patterns such as src/**/*.py; "
        "empty: the script alone",
        validator=_patterns,
    )
    in_scope: tuple[str, ...] = setting((), "files that must exist before a campaign starts")
    command: tuple[str, ...] = setting(
        ("{python}", "{script}"),
        "program and arguments of a run; {python} {script} {project} {run} {seed}",
        validator=_given,
    )
    cwd: str = setting(
        ".",
        "working directory of a run, in the experiment's own checkout; {run}: the run's folder, "
        "which is kept",
        validator=_inside,
    )
    launcher: str = setting("local", "launcher plugin that runs the command")
    env: Mapping[str, str] = setting({}, "environment of every run; {project} is the repository")
    pass_env: tuple[str, ...] = setting(
        (), "variables of your own environment that a run sees too: NAME or PREFIX_*"
    )
    mind_down: str = setting(
        "next",
        "while a mind that proposes gives no answer: next asks the next author, wait waits for it",
        validator=_one_of("next", "wait"),
    )
    strict: bool = setting(False, "stop at the first failure of a plugin, with exit code 1")
    seed: int = setting(
        1337,
        "seed of the first run, given as SEED; reruns count up; an idea begins with the most usual "
        "one of a repeated baseline",
        validator=_countable,
    )
    data: tuple[str, ...] = setting(
        (),
        "paths that must exist, relative to the repository; what the commit lacks of them is "
        "linked into the checkout of a run",
    )
    ignore_differences: tuple[str, ...] = setting(
        (),
        "tracked files that no run reads, paths or patterns: they may differ from the commit",
        validator=_patterns,
    )
    data_command: str = setting("", "command that gets the data, told when it is missing")
    knowledge: str = setting(
        "", "CSV file of known effects, relative to the project, or package:file"
    )
    retention: str = setting(
        "best",
        "which runs keep their large files (1 MB and more): all, best (the best and the last one) "
        "or none; smaller files and the output are always kept",
        validator=_one_of("all", "best", "none"),
    )
    metric: MetricConfig = section(MetricConfig, "the metric")
    boundary: BoundaryConfig = section(BoundaryConfig, "what a run can reach")
    limits: LimitsConfig = section(LimitsConfig, "limits")
    runs: RunsConfig = section(RunsConfig, "runs side by side")
    evaluation: EvaluationConfig = section(EvaluationConfig, "evaluation by a command of its own")
    noise: NoiseConfig = section(NoiseConfig, "measuring the noise")
    stages: tuple[StageConfig, ...] = setting(
        (), "steps of a funnel, each a table [[stages]]; empty: one run is all", validator=_stages
    )
    controls: ControlsConfig = section(ControlsConfig, "measuring the best again")
    rules: RulesConfig = section(RulesConfig, "backtracking rules")
    active: tuple[str, ...] = setting(
        (),
        "plugins to make active; no:NAME blocks one, no:plugins/*.py those of the project's files",
    )
    plugins: Mapping[str, Mapping[str, Any]] = setting({}, "one table of settings a plugin")

    def settings(self, name: str, shape: type[S]) -> S:
        """Return the table of plugin ``name`` checked against the attrs class ``shape``.

        Raises ConfigError for an unknown key or a wrong type, naming both.
        """
        return structure(self.plugins.get(name, {}), shape, f"plugins.{name}")

    def at(self, project: Path) -> Config:
        """Return the configuration with files of the project named by their whole path."""
        if not self.knowledge or ":" in self.knowledge:
            return self
        return evolve(self, knowledge=str(project / self.knowledge))

    def stage_named(self, name: str) -> StageConfig:
        """Return a stage, or one that has nothing of its own."""
        return next((item for item in self.stages if item.name == name), StageConfig())

    def in_stage(self, name: str) -> Config:
        """Return the configuration with what a stage has of its own; with no such stage, as is."""
        stage = self.stage_named(name)
        if not stage.name:
            return self
        launcher = stage.launcher or self.launcher
        table = {**self.plugins.get(launcher, {}), **stage.options}
        if launcher in LOCAL:  # which have no table but that of the runs
            with_options(self.runs, stage.options, f"stages.{name}.options")
        return evolve(
            self,
            launcher=launcher,
            command=stage.command or self.command,
            env={**self.env, **stage.env},
            limits=evolve(
                self.limits, timeout_seconds=stage.seconds or self.limits.timeout_seconds
            ),
            plugins={**self.plugins, **({launcher: table} if table else {})},
        )

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller metric is an improvement."""
        return self.metric.better == "lower"


def with_options(settings: S, options: Mapping[str, Any], where: str) -> S:
    """Return a plugin's settings with other values for one run, checked as the table is."""
    if not options:
        return settings
    return structure({**CONVERTER.unstructure(settings), **options}, type(settings), where)


def unstructure(config: Config) -> dict[str, Any]:
    """Return the configuration as plain JSON values, for the log."""
    plain: dict[str, Any] = CONVERTER.unstructure(config)
    return plain
