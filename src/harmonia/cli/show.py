"""The command `harmonia show`."""

from __future__ import annotations

from pathlib import Path

import click

from harmonia.cli.common import json_option, memory_option, open_memory, print_json


@click.command("show")
@memory_option
@click.argument("record_id", metavar="ID")
@json_option
def command(memory: Path | None, record_id: str, as_json: bool) -> None:
    """Show a record and all its parts.

    ID may be any prefix that only one record has.
    """
    from harmonia.collection.json_output import record_json

    record = open_memory(memory).show(record_id)
    if as_json:
        print_json(record_json(record))
        return
    click.echo(f"record {record.id}")
    for part in record.parts:
        span = "" if part.start is None or part.end is None else f" [{part.start:g}, {part.end:g}]"
        click.echo(f"  {part.modality:6s} {part.path or ''}{span}")
        if part.text:
            click.echo("         " + part.text.strip().replace("\n", "\n         "))
    for key, value in record.metadata.items():
        click.echo(f"  {key}: {value}")
