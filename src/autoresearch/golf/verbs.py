"""The verbs about the truth of a score: metrics, audit, canary."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import click

from autoresearch.cli.shared import (
    environment,
    json_option,
    print_facts,
    print_json,
    project_option,
    root_of,
    settings_at,
)
from autoresearch.config import Config
from autoresearch.errors import AutoresearchError, WorkspaceError, telling
from autoresearch.git import Git
from autoresearch.policies.pattern_metrics import patterns, read


@click.command()
@click.argument("log", type=click.Path(path_type=Path))
@click.option("--line", help="Name of the one line that counts.")
@json_option
def metrics(log: Path, line: str | None, as_json: bool) -> None:
    """Read the score of a training LOG, or of standard input where LOG is -.

    By the declared rule; never a guess, never the minimum. Where the settings here name a metric of
    their own, that is read, as the loop reads it.
    """
    from autoresearch.golf.reading import format_reading, read_log

    config = _plain_settings() if line is None else None
    with _file(log) as path:
        if config is not None:
            found = _by_pattern(config, path, log)
            print_json(found) if as_json else print_facts(found)
            return
        reading = read_log(path, line=line)
    if as_json:
        print_json(reading.to_json())
    else:
        click.echo(format_reading(reading))


@contextmanager
def _file(log: Path) -> Iterator[Path]:
    """Give what came through a pipe a place on disk: a log is also read from its end."""
    if str(log) != "-":
        yield log
        return
    with tempfile.NamedTemporaryFile() as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.flush()
        yield Path(copy.name)


def _by_pattern(config: Config, path: Path, shown: Path) -> dict[str, float]:
    name = config.metric.name
    with telling(f"cannot read {shown}", "name the log file of a run"):
        found = read(path, patterns(config))
    if name not in found:
        raise WorkspaceError(
            f"{shown} has no {name}; print it as {name}: 0.5, or set metric.pattern"
        )
    return found


def _plain_settings() -> Config | None:
    """Return the settings of the project around this folder, where the loop reads by a pattern."""
    try:
        config = settings_at(Path(), None, ()).config
    except AutoresearchError:
        return None
    return config if config.preset == "plain" and patterns(config) else None


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@project_option
@click.option("--against", type=click.Path(path_type=Path), help="The script before the change.")
@json_option
def audit(file: Path | None, project: Path, against: Path | None, as_json: bool) -> None:
    """Check a script for what must not run.

    Each finding has its rule, line and reason.
    Without FILE, the project's script is checked against its last commit. Exits with 1 when a
    finding blocks.
    """
    from autoresearch.golf.audits import audit_source, format_findings

    path, pristine = _what(file, project, against)
    findings = audit_source(_text(path), pristine=pristine)
    if as_json:
        print_json([attrs.asdict(item) for item in findings])
    else:
        click.echo(format_findings(findings, path.name))
    if any(item.blocks for item in findings):
        sys.exit(1)


def _what(file: Path | None, project: Path, against: Path | None) -> tuple[Path, str | None]:
    if file is not None:
        return file, _text(against) if against else None
    root = root_of(project)
    script = settings_at(project, None, ()).config.script
    if against:
        return root / script, _text(against)
    done = Git(root).attempt("show", f"HEAD:{script}")
    return root / script, done.stdout if done.returncode == 0 else None


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@project_option
@click.option("--tokenizer", type=click.Path(path_type=Path), help="SentencePiece model.")
@click.option("--artifact", type=click.Path(path_type=Path), help="Compressed model to judge.")
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="Setting of the script.")
@click.option("--seed", type=int, help="Repeat an earlier canary.")
@click.option("--timeout", default=120.0, show_default=True, help="Seconds for everything.")
@json_option
def canary(
    file: Path | None,
    project: Path,
    tokenizer: Path | None,
    artifact: Path | None,
    env: tuple[str, ...],
    seed: int | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Test a script's evaluation.

    It is run on random tokens: nothing scores honestly below their entropy.
    FILE is the project's script by default. Exits with 1 when a test fails or nothing was proved.
    """
    from autoresearch.golf.canary import format_report, run_canary

    root = root_of(project)
    config = settings_at(project, None, ()).config
    report = run_canary(
        file or root / config.script,
        tokenizer=tokenizer or _tokenizer(root, config),
        env=environment(env),
        artifact=artifact,
        timeout_s=timeout,
        seed=seed,
    )
    if as_json:
        print_json({**attrs.asdict(report), "passed": report.passed})
    else:
        click.echo(format_report(report))
    if not report.passed:
        sys.exit(1)


def _tokenizer(root: Path, config: Config) -> Path:
    named = config.env.get("TOKENIZER_PATH")
    if named:
        return Path(named.replace("{project}", str(root)))
    found = sorted((root / "data" / "tokenizers").glob("*.model"))
    if not found:
        raise WorkspaceError(
            "no tokenizer under data/tokenizers; name one with --tokenizer, or get the data first"
        )
    return found[0]


def _text(path: Path) -> str:
    with telling(f"cannot read {path}", "name a Python script"):
        return path.read_bytes().decode("utf-8")
