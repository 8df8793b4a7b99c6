"""harmonia forget."""

from __future__ import annotations

from pathlib import Path

import click

from harmonia.cli.common import memory_option, open_memory
from harmonia.cli.output import title


@click.command("forget")
@memory_option
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--where", help="Forget all records that fulfil a condition on the metadata.")
@click.option("--gone", is_flag=True, help="Forget records whose every file is gone.")
def command(memory: Path | None, ids: tuple[str, ...], where: str | None, gone: bool) -> None:
    """Forget records. The media files themselves are left alone."""
    from harmonia.collection.json_output import record_json

    forgotten = open_memory(memory).forget(ids, where=where, gone=gone)
    for record in forgotten:
        click.echo(f"forgot {record.id[:8]}  {title(record_json(record))}")
    if not forgotten:
        click.echo("no record fits: nothing was forgotten")
