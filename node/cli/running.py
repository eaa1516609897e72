"""The node itself, and the demonstration: `run`, `demo`."""

from __future__ import annotations

from pathlib import Path

import click

from node import app
from node.cli.frame import (
    as_json,
    main,
    site_of,
    verb,
)


@main.command()
@click.option("--keep", type=click.Path(path_type=Path), help="Keep everything in this folder.")
@as_json
@verb
def demo(keep: Path | None, as_json: bool) -> int:
    """Do the main job on real images, with a node and a PACS on loopback."""
    from node.demo import run_demo  # noqa: PLC0415 - imports a phantom maker and a PACS that no other verb needs

    return run_demo(keep, as_json)


@main.command()
@click.pass_context
@verb
def run(context: click.Context) -> int:
    """Run the node until SIGTERM."""
    settings = site_of(context)
    app.seal_lines(settings)
    app.never_lines(settings)
    app.tls_ready(settings)
    app.data_ready(settings.node.data)
    app.own_database(settings).close()
    return app.run_node(settings)
