"""The command `harmonia anomaly`."""

from __future__ import annotations

from pathlib import Path

import click

from harmonia.cli.common import json_option, memory_option, open_memory, print_json
from harmonia.cli.generator_options import autoencoder_option, device_option, files_argument


@click.command("anomaly")
@memory_option
@files_argument
@autoencoder_option
@device_option
@json_option
def command(
    memory: Path | None, files: tuple[Path, ...], generator: Path | None, device: str, as_json: bool
) -> None:
    """Score images by novelty.

    The most novel image comes first. The built-in autoencoder knows photos of any kind; train one on your own
    to find what is unlike them. The score is the autoencoder's, per pixel and channel: the negative ELBO
    in nats for a VAE, the squared reconstruction error for others. With a memory, the output also gives the
    share of its own images that score lower.
    """
    from harmonia.tasks.imagine import load
    from harmonia.tasks.reconstruct import SHIPPED, novelty
    from harmonia.types import HarmoniaError

    collection = open_memory(memory)
    if memory is not None and not collection.exists:
        raise HarmoniaError(f"no memory in {memory}: remember something first, or leave out --memory")
    scores = novelty(load(generator or SHIPPED, device), files, collection, progress=True)
    if as_json:
        print_json({"files": [{"path": s.file, "score": s.score, "rank": s.rank} for s in scores]})
        return
    for score in scores:
        rank = "" if score.rank is None else f"  more novel than {score.rank:.1%} of the memory"
        click.echo(f"{score.score:10.4f}{rank}  {score.file}")
