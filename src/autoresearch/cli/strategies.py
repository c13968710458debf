"""The verbs about plugins and settings: plugins, config, new-plugin."""

from __future__ import annotations

from pathlib import Path

import click

from autoresearch.cli.output import print_json, print_table
from autoresearch.cli.project import json_option, plugin_option, with_settings
from autoresearch.plugins import Plugins
from autoresearch.scaffold import KINDS, write_plugin
from autoresearch.settings import Loaded


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
