"""Options that the commands share which use generators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = click.Path(file_okay=False, path_type=Path)

generator_option = click.option(
    "--generator",
    type=FOLDER,
    help="Folder of a trained generator, or folder or hub name of a diffusers pipeline (default: the one "
    "that ships).",
)
coder_option = click.option(
    "--generator", type=FOLDER, required=True, help="Folder of a trained autoencoder, such as a VAE."
)
files_argument = click.argument(
    "files", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path)
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ..."
)


def out_option(default: str) -> Callable[[F], F]:
    """The folder that pictures are written to."""
    return click.option(
        "--out", type=FOLDER, default=Path(default), show_default=True, help="Folder of the pictures."
    )


def write_made(files: Sequence[Path], generator: Path, out: Path, device: str, *, noisy: bool) -> None:
    """Write what an autoencoder makes of pictures, and say where."""
    from harmonia.tasks.imagine import load
    from harmonia.tasks.reconstruct import reconstruct_into

    made = reconstruct_into(out, load(generator, device), files, noisy=noisy)
    for file in made.files:
        click.echo(file)
    click.echo(f"sheet: {made.sheet}", err=True)
