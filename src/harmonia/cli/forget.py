"""The command `harmonia forget`."""

from __future__ import annotations

from pathlib import Path

import click

from harmonia.cli.common import memory_option, open_memory
from harmonia.cli.output import title


@click.command("forget")
@memory_option
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--where", help="Remove the records that match a filter on the metadata.")
@click.option("--gone", is_flag=True, help="Remove the records whose files are all missing.")
def command(memory: Path | None, ids: tuple[str, ...], where: str | None, gone: bool) -> None:
    """Remove records from the memory.

    Media files are kept; only copies inside the memory are deleted.
    """
    from harmonia.collection.json_output import record_json

    collection = open_memory(memory)
    forgotten = collection.forget(ids, where=where, gone=gone)
    collection.status()  # counts what is held now, so that `harmonia status` need not open the store
    for record in forgotten:
        click.echo(f"forgot {record.id[:8]}  {title(record_json(record))}")
    if not forgotten:
        click.echo("no record matches: nothing was forgotten")
