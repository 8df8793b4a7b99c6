"""The command `harmonia status`."""

from __future__ import annotations

from pathlib import Path

import click

from harmonia.cli.common import json_option, memory_option, open_memory, print_json

ADVICE = (
    "The built-in encoders know few things by name. To find images by their content, build a new memory\n"
    "with a pretrained model: harmonia remember FOLDER --into NEW --model openai/clip-vit-base-patch32"
)


@click.command("status")
@memory_option
@json_option
def command(memory: Path | None, as_json: bool) -> None:
    """Show what the memory holds, and its encoders."""
    status = open_memory(memory).status()
    if as_json:
        print_json(status)
        return
    for key, value in status.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {count}" for name, count in value.items())
        elif isinstance(value, list | tuple):
            value = ", ".join(str(item["name"] if isinstance(item, dict) else item) for item in value)
        click.echo(f"{key + ':':12s} {value}")
    if not set(status["models"]) - {"descriptors", "mini"}:
        click.echo(ADVICE)
