"""The command `harmonia forget`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from harmonia.cli.common import memory_option, open_memory
from harmonia.cli.output import title

SHOWN = 20


@click.command("forget")
@memory_option
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--where", help="Remove the records that match a filter on the metadata; asks first.")
@click.option("--gone", is_flag=True, help="Remove the records whose files are all missing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def command(memory: Path | None, ids: tuple[str, ...], where: str | None, gone: bool, yes: bool) -> None:
    """Remove records from the memory.

    Media files are kept; only copies inside the memory are deleted. With --where, the records are shown and
    the command asks before it removes them.
    """
    from harmonia.collection.json_output import record_json
    from harmonia.types import HarmoniaError

    collection = open_memory(memory)
    if where is not None and not yes:
        matching = collection.store.records(where=where)
        for record in matching[:SHOWN]:
            click.echo(f"{record.id[:8]}  {title(record_json(record))}")
        if len(matching) > SHOWN:
            click.echo(f"and {len(matching) - SHOWN} more")
        count = f"{len(matching)} record" + "s" * (len(matching) != 1)
        if matching and not sys.stdin.isatty():
            raise HarmoniaError(f"{count} would be forgotten: add --yes to forget without a question")
        if matching:
            click.confirm(f"Forget {count}?", abort=True)
        # Those that were shown, whatever else matches by now.
        ids, where = (*ids, *(record.id for record in matching)), None
    forgotten = collection.forget(ids, where=where, gone=gone) if ids or where is not None or gone else ()
    collection.status()  # counts what is held now, so that `harmonia status` need not open the store
    for record in forgotten:
        click.echo(f"forgot {record.id[:8]}  {title(record_json(record))}")
    if not forgotten:
        click.echo("no record matches: nothing was forgotten")
