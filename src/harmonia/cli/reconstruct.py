"""harmonia reconstruct."""

from __future__ import annotations

from pathlib import Path

import click

from harmonia.cli.generator_options import coder_option, device_option, files_argument, out_option, write_made


@click.command("reconstruct")
@files_argument
@coder_option
@out_option("reconstructed")
@device_option
def command(files: tuple[Path, ...], generator: Path, out: Path, device: str) -> None:
    """Show what an autoencoder keeps of pictures.

    Each of FILES goes through the network and back. The contact sheet has each picture as the network sees
    it, and what came back.
    """
    write_made(files, generator, out, device, noisy=False)
