"""harmonia export."""

from __future__ import annotations

from pathlib import Path

import click

from harmonia.cli.common import memory_option, open_memory


@click.command("export")
@memory_option
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--where", help="Only records that fulfil a condition on the metadata.")
def command(memory: Path | None, target: Path, where: str | None) -> None:
    """Write the records out as a manifest, with or without their media.

    A TARGET that ends in .jsonl gets the manifest alone, with absolute paths. Any other TARGET is a new
    folder that gets the manifest and copies of the media. `harmonia remember TARGET` reads both.
    """
    from harmonia.tasks.export import export

    collection = open_memory(memory)
    count = export(collection.store, collection.root, target, where=where)
    click.echo(f"exported {count} records to {target}")
