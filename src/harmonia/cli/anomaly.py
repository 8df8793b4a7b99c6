"""harmonia anomaly."""

from __future__ import annotations

from pathlib import Path

import click

from harmonia.cli.common import json_option, memory_option, open_memory, print_json
from harmonia.cli.generator_options import coder_option, device_option, files_argument


@click.command("anomaly")
@memory_option
@files_argument
@coder_option
@device_option
@json_option
def command(
    memory: Path | None, files: tuple[Path, ...], generator: Path, device: str, as_json: bool
) -> None:
    """Say how unlike the memory pictures are, strangest first.

    The score is the autoencoder's, for each pixel: of a VAE the nats that it needs to describe it (its
    negative ELBO). Beside it, the share of the memory's own pictures that are less strange.
    """
    from harmonia.tasks.imagine import load
    from harmonia.tasks.reconstruct import strangeness
    from harmonia.types import HarmoniaError

    collection = open_memory(memory)
    if memory is not None and not collection.exists:
        raise HarmoniaError(f"no memory in {memory}: remember something first, or leave out --memory")
    found = strangeness(load(generator, device), files, collection, progress=True)
    if as_json:
        print_json({"files": [{"path": one.file, "score": one.score, "rank": one.rank} for one in found]})
        return
    for one in found:
        beside = "" if one.rank is None else f"  stranger than {one.rank:.1%} of the memory"
        click.echo(f"{one.score:10.4f}{beside}  {one.file}")
