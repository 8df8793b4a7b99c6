"""Options shared by the commands that use a generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = click.Path(file_okay=False, path_type=Path)


def _given(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """The folder, None for the built-in model; UsageError that says which command makes one if it is not
    there."""
    if value is None or value.is_dir():
        return value
    recipe = "denoising" if ctx.info_name == "denoise" else "vae"
    folder = Path("runs") / recipe / "model"
    # One that was trained here before need only be named.
    make = "" if folder.is_dir() else f"`harmonia train {recipe}` makes one, then "
    raise click.UsageError(
        f"there is no autoencoder in {value}: {make}give --generator {folder}, or leave --generator out"
    )


generator_option = click.option(
    "--generator",
    type=FOLDER,
    help="Folder of a trained generator, or folder or hub name of a diffusers pipeline (default: built in).",
)
autoencoder_option = click.option(
    "--generator",
    type=FOLDER,
    callback=_given,
    help="Folder of a trained autoencoder, such as a VAE (default: built in, for photos).",
)
files_argument = click.argument(
    "files", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path)
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="Device: auto, cpu, cuda, cuda:1, ..."
)


def out_option(default: str) -> Callable[[F], F]:
    """The option --out with a default folder."""
    return click.option("--out", type=FOLDER, default=Path(default), show_default=True, help="Output folder.")


def write_outputs(
    files: Sequence[Path], generator: Path | None, out: Path, device: str, *, noisy: bool
) -> None:
    """Write an autoencoder's outputs and print their paths; the sheet's path goes to standard error."""
    from harmonia.tasks.imagine import load
    from harmonia.tasks.reconstruct import SHIPPED, reconstruct_into

    written = reconstruct_into(out, load(generator or SHIPPED, device), files, noisy=noisy)
    for file in written.files:
        click.echo(file)
    click.echo(f"sheet: {written.sheet}", err=True)
