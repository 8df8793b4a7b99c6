"""The command `harmonia denoise`."""

from __future__ import annotations

from pathlib import Path

import click

from harmonia.cli.generator_options import (
    autoencoder_option,
    device_option,
    files_argument,
    out_option,
    write_outputs,
)


@click.command("denoise")
@files_argument
@autoencoder_option
@out_option("denoised")
@device_option
def command(files: tuple[Path, ...], generator: Path | None, out: Path, device: str) -> None:
    """Denoise images with an autoencoder.

    Works best with an autoencoder that was trained on damaged images. Writes the result for each of FILES,
    and a contact sheet of the images before and after.
    """
    write_outputs(files, generator, out, device, noisy=True)
