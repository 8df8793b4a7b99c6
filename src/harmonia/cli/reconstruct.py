"""The command `harmonia reconstruct`."""

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


@click.command("reconstruct")
@files_argument
@autoencoder_option
@out_option("reconstructed")
@device_option
def command(files: tuple[Path, ...], generator: Path | None, out: Path, device: str) -> None:
    """Reconstruct images with an autoencoder.

    Writes the reconstruction of each of FILES, and a contact sheet of the images before and after.
    """
    write_outputs(files, generator, out, device, noisy=False)
