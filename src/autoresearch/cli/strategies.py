"""The verbs about strategies: plugins, config, new-plugin; import, replay, simulate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from autoresearch.cli.shared import (
    Amount,
    Teller,
    json_option,
    overrides,
    pair,
    plugin_option,
    print_json,
    print_table,
    project_option,
    root_of,
    set_option,
    tag_option,
    with_settings,
)
from autoresearch.config import unstructure
from autoresearch.errors import WorkspaceError
from autoresearch.plugins import Plugins
from autoresearch.scaffold import KINDS, write_plugin
from autoresearch.settings import Loaded
from autoresearch.text import counted, one_line

if TYPE_CHECKING:
    from autoresearch.config import Config
    from autoresearch.history import History
    from autoresearch.studies.imported import Plan

# --- plugins, config, new-plugin -------------------------------------------------------------


@click.command()
@with_settings
@plugin_option
@json_option
def plugins(root: Path, loaded: Loaded, plugins: tuple[str, ...], as_json: bool) -> None:
    """List plugins: built-in, installed, the project's.

    Active ones take part.
    """
    infos = Plugins.load(loaded.config, root, plugins).infos()
    if as_json:
        print_json([item.as_json() for item in infos])
        return
    rows = [
        (
            item.name,
            item.version,
            item.source,
            "active" if item.active else "available",
            ", ".join(item.hooks),
            item.problem or item.summary,
        )
        for item in infos
    ]
    print_table(("name", "version", "source", "state", "hooks", "summary"), rows)


@click.command()
@with_settings
@json_option
def config(root: Path, loaded: Loaded, as_json: bool) -> None:  # noqa: ARG001
    """Print every setting and where its value came from."""
    rows = list(loaded.rows())
    if as_json:
        print_json({name: {"value": value, "from": origin} for name, value, origin in rows})
    else:
        print_table(("setting", "value", "from"), rows)


@click.command("new-plugin")
@click.argument("name")
@click.option("--folder", type=click.Path(path_type=Path), default=None, help="Where to write it.")
@click.option("--kind", type=click.Choice(list(KINDS)), default="policy", help="What it is.")
@click.option("--package", is_flag=True, help="Write a package that can be published.")
def new_plugin(name: str, folder: Path | None, kind: str, package: bool) -> None:
    """Write a working plugin NAME with its test.

    Change it and run pytest.
    """
    target = folder or (Path() if package else Path("plugins"))
    for path in write_plugin(name, target, package=package, kind=kind):
        click.echo(f"wrote {path}")


# --- import, replay, simulate ----------------------------------------------------------------


_map_option = click.option(
    "--map", "maps", multiple=True, metavar="FIELD=COLUMN", help="Read a field from this column."
)
_better_option = click.option(
    "--better", type=click.Choice(["lower", "higher"]), help="Which scores are better."
)


@click.command("import")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@project_option
@click.option("--tag", help="Run tag of the campaign; by default made from the first file's name.")
@_map_option
@_better_option
@set_option
@click.option("--yes", is_flag=True, help="Write it; without, only the plan is shown.")
@json_option
def import_history(
    files: tuple[str, ...],
    project: Path,
    maps: tuple[str, ...],
    sets: tuple[str, ...],
    yes: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Take over histories that other tools kept, as a campaign of its own.

    FILE is a table in TSV, CSV, JSON lines or Markdown, a notes.md, or a branch of experiments.
    How its columns are read is shown first. Rows that are dirty are kept with what is wrong;
    a file that was imported before adds only its new rows.
    """
    from autoresearch.studies import imported

    root = root_of(project)
    asked = pairs(maps)
    made = imported.plan(
        files, root, asked=asked, environ=os.environ, settings=overrides(sets), **how
    )
    if yes:
        imported.write(made, root)
    if as_json:
        print_json(_plan_json(made, yes))
        return
    _print_plan(made)
    if not made.new:
        click.echo(
            f"campaign {made.tag} has all of it; autoresearch show --tag {made.tag} lists it"
        )
    elif yes:
        click.echo(f"written as campaign {made.tag}; autoresearch show --tag {made.tag} lists it")
    else:
        click.echo(f"nothing was written; --yes writes it as campaign {made.tag}")


def pairs(maps: tuple[str, ...]) -> dict[str, str]:
    """Return the fields and columns of ``FIELD=COLUMN`` words."""
    found: dict[str, str] = {}
    for word in maps:
        field, column = pair(word, "--map", "FIELD=COLUMN", like="metric=val_loss")
        if field in found:
            raise WorkspaceError(f"--map {word!r} names a field twice; leave one out")
        found[field] = column
    return found


def _plan_json(made: Plan, written: bool) -> dict[str, object]:
    return {
        "tag": made.tag,
        "written": written,
        "metric": made.config.metric.name,
        "better": made.config.metric.better,
        "files": [
            {"source": each.table.source, "kind": each.table.kind, "rows": len(each.table.lines),
             "columns": dict(each.columns), "read_as": dict(each.told)}
            for each in made.readings
        ],
        "new_rows": made.new,
        "known_rows": made.known,
        "experiments": dict(made.verdicts),
        "aside": [
            {"source": row.source, "row": row.number, "why": row.aside} for row in made.lacking
        ],
        "problems": dict(made.problems),
    }  # fmt: skip


def _print_plan(made: Plan) -> None:
    for each in made.readings:
        click.echo(
            f"{each.table.source}: {each.table.kind}, {counted(len(each.table.lines), 'row')}"
        )
        names = [*each.columns, *(name for name in each.told if name not in each.columns)]
        rows = [(name, each.columns.get(name, ""), each.told.get(name, "")) for name in names]
        print_table(("field", "column", "read as"), sorted(rows))
        unknown = [name for name in each.table.columns if name not in each.columns.values()]
        if unknown:
            click.echo(f"kept as they are: {', '.join(unknown[:12])}")
        for problem in each.table.problems:
            click.echo(problem)
    for note in made.notes:
        click.echo(note)
    verdicts = ", ".join(f"{count} {name}" for name, count in made.verdicts.items())
    click.echo(f"{counted(len(made.history.experiments), 'experiment')}: {verdicts or 'none'}")
    if made.known:
        click.echo(f"{counted(made.known, 'row')} known to the campaign already, {made.new} new")
    for problem, count in made.problems.items():
        click.echo(f"{counted(count, 'row')}: {problem}")
    if made.lacking:
        click.echo(f"kept, but no experiment: {counted(len(made.lacking), 'row')}")
        for row in made.lacking[:20]:
            click.echo(f"  row {row.number}: {row.aside}")


@click.command()
@click.argument("file", required=False)
@click.option(
    "--policy", required=True, help="Policy that judges: a built-in or a plugin of yours."
)
@click.option("--rule", "rules", multiple=True, help="Backtracking rule to ask; may be repeated.")
@project_option
@tag_option
@plugin_option
@click.option(
    "--release", "released", type=int, multiple=True, metavar="EXPERIMENT",
    help="Lift this quarantine.",
)  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="Show decisions that agree as well.")
@_map_option
@_better_option
@set_option
@json_option
def replay(
    file: str | None, policy: str, project: Path, tag: str | None, everything: bool,
    maps: tuple[str, ...], better: str | None, sets: tuple[str, ...], as_json: bool, **how: Any,
) -> None:  # fmt: skip
    """Say what another policy would have decided: was this loop fooled?

    The history is a campaign (--tag, the last active one by default), or a FILE as for import, of
    which nothing is written. Where nobody knows its noise, --set metric.sd=0.001 says it.
    """
    from autoresearch.studies.replay import replay as judge

    root = _root_or_here(project)
    history, config = _history(file, root, tag, pairs(maps), better, overrides(sets))
    made = judge(history, config, policy=policy, project=root, **how)
    if as_json:
        steps = [{**attrs.asdict(step), "differs": step.differs} for step in made.steps]
        print_json({"policy": policy, "totals": dict(made.totals), "decisions": steps})
        return
    shown = [step for step in made.steps if everything or step.differs or step.signals]
    rows = [
        (step.experiment, one_line(step.description, 50),
         step.recorded + (" (unproven)" if step.unproven else ""), step.verdict,
         step.gain, ("REFUTED: " if step.refuted else "") + step.later,
         "; ".join((step.reason, *step.signals)))
        for step in shown
    ]  # fmt: skip
    if rows:
        print_table(("experiment", "change", "recorded", policy, "gain", "later", "why"), rows)
    else:
        click.echo(f"{policy} decides all of it as it was decided")
    print_table(("", "total"), list(made.totals.items()))
    if not made.knows_noise:
        click.echo(
            "nobody measured the noise, so evidence decides as greedy does; "
            "--set metric.sd=0.001 says how large it is"
        )


def _root_or_here(project: Path) -> Path:
    """Return the project; a file can be looked at anywhere."""
    try:
        return root_of(project)
    except WorkspaceError:
        return project.resolve()


def _history(
    file: str | None, root: Path, tag: str | None, asked: dict[str, str], better: str | None,
    settings: Mapping[str, Any],
) -> tuple[History, Config]:  # fmt: skip
    from autoresearch.opening import open_campaign
    from autoresearch.settings import from_record
    from autoresearch.studies import imported

    if file is None:
        campaign = open_campaign(root, tag)
        return campaign.history, from_record(unstructure(campaign.config), settings)
    made = imported.plan(
        [file], root, tag="replayed", asked=asked, better=better, environ=os.environ,
        settings=settings, stored=False,
    )  # fmt: skip
    return made.history, made.config


DEFAULT_STRATEGIES = "greedy+random,greedy+script_ideas,evidence+search"


@click.command()
@click.option(
    "--strategies",
    default=DEFAULT_STRATEGIES,
    show_default=True,
    metavar="A+B,A+C",
    help="What to compare, the reference first: a policy and generators joined by +. Names of "
    "plugins, files of plugins, random, and stages for a short run before each whole one.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=10, help="Worlds for each strategy.")
@click.option("--first", type=click.IntRange(min=0), default=0, help="The first world.")
@click.option(
    "--gpu-hours", type=Amount(min=0, min_open=True), default=100.0, help="Budget of one campaign."
)
@click.option("--noise", type=Amount(min=0), default=1.0, help="Factor on all noise; 0: none.")
@click.option("--effects", type=Amount(min=0), default=1.0, help="Factor on all effects.")
@click.option(
    "--interactions", type=Amount(min=0), default=1.0, help="Factor on interactions; 0: none."
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, help="Processes to use.")
@click.option("--out", type=click.Path(path_type=Path), help="Draw the curves into this PNG file.")
@json_option
def simulate(
    strategies: str, noise: float, effects: float, interactions: float, out: Path | None,
    as_json: bool, **how: Any,
) -> None:  # fmt: skip
    """Compare strategies in simulated worlds whose truth is known.

    Whole campaigns go through the real loop; only git, the runs and the waiting are simulated. What
    is measured and what is assumed stands in docs/strategies.md.
    """
    from autoresearch.studies.simulate import compare, draw
    from autoresearch.studies.worlds import Assumptions

    told = Assumptions(noise=noise, effects=effects, interactions=interactions)
    with Teller() as teller:
        tick = (lambda _: None) if as_json else teller.tick
        made = compare(strategies.split(","), assumptions=told, tick=tick, **how)
    if out is not None:
        draw(made, out)
    rows = list(made.rows())
    if as_json:
        print_json({"gpu_hours": made.gpu_hours, "strategies": [attrs.asdict(row) for row in rows]})
        return
    print_table(
        ("strategy", "worlds", "true gain", "95 %", "GPU h to the reference", "95 %",
         "keeps", "false keeps", "95 %", "wasted runs", "flattered by"),
        [
            (row.strategy, row.worlds, round(row.gain, 5), _span(row.gain_interval, ".4f"),
             "never" if row.hours is None else f"{row.hours:.0f}", _span(row.hours_interval, ".0f"),
             f"{row.keeps:.1f}", f"{row.false_keeps:.1%}", _span(row.false_interval, ".0%"),
             f"{row.wasted:.1%}", f"{row.inflation:.4f}")
            for row in rows
        ],
    )  # fmt: skip


def _span(interval: tuple[float, float], form: str) -> str:
    return f"{interval[0]:{form}} to {interval[1]:{form}}"
