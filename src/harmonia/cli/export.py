"""The command `harmonia export`."""

from __future__ import annotations

from pathlib import Path

import click

from harmonia.cli.common import memory_option, open_memory


@click.command("export")
@memory_option
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--where", help="Export only the records that match a filter on the metadata.")
def command(memory: Path | None, target: Path, where: str | None) -> None:
    """Export the records as a manifest, with or without their media.

    If TARGET ends in .jsonl, only the manifest is written, with absolute paths. Otherwise TARGET is a new
    folder with the manifest and copies of the media. `harmonia remember TARGET` reads both.
    """
    from harmonia.tasks.export import export

    collection = open_memory(memory)
    count = export(collection.store, collection.root, target, where=where)
    click.echo(f"exported {count} records to {target}")
