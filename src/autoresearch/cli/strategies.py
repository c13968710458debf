"""The verbs about plugins and settings: plugins, config, new-plugin."""

from __future__ import annotations

from pathlib import Path

import click

from autoresearch.cli.output import print_json, print_table
from autoresearch.cli.project import (
    config_options,
    json_option,
    plugin_option,
    project_option,
    root_of,
    settings_at,
)
from autoresearch.plugins import Plugins
from autoresearch.scaffold import KINDS, write_plugin


@click.command()
@project_option
@config_options
@plugin_option
@json_option
def plugins(
    project: Path,
    config: Path | None,
    sets: tuple[str, ...],
    plugins: tuple[str, ...],
    as_json: bool,
) -> None:
    """List plugins: built-in, installed, and of the project; active ones take part."""
    loaded = settings_at(project, config, sets)
    infos = Plugins.load(loaded.config, root_of(project), plugins).infos()
    if as_json:
        print_json([item.as_json() for item in infos])
        return
    columns = ("name", "version", "source", "state", "hooks", "summary")
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
    print_table(columns, rows)


@click.command()
@project_option
@config_options
@json_option
def config(project: Path, config: Path | None, sets: tuple[str, ...], as_json: bool) -> None:
    """Print every setting with its value and where it came from."""
    rows = list(settings_at(project, config, sets).rows())
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
    """Write a working plugin NAME with its test; change it and run pytest."""
    target = folder or (Path() if package else Path("plugins"))
    for path in write_plugin(name, target, package=package, kind=kind):
        click.echo(f"wrote {path}")


COMMANDS = (plugins, config, new_plugin)
