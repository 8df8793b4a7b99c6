"""harmonia denoise."""

from __future__ import annotations

from pathlib import Path

import click

from harmonia.cli.generator_options import coder_option, device_option, files_argument, out_option, write_made


@click.command("denoise")
@files_argument
@coder_option
@out_option("denoised")
@device_option
def command(files: tuple[Path, ...], generator: Path, out: Path, device: str) -> None:
    """Draw pictures again without their noise or damage.

    Any autoencoder can, and one that was trained on damaged pictures does it best. The contact sheet has each
    of FILES as the network sees it, and what it made of it.
    """
    write_made(files, generator, out, device, noisy=True)
