"""harmonia retrieve."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from harmonia.cli.common import cue_options, open_or_offer, print_json, record_json, title, weights


@click.command("retrieve")
@cue_options
@click.option(
    "--metric",
    type=click.Choice(["cosine", "euclidean"]),
    default="cosine",
    show_default=True,
    help="How codes are compared.",
)
def command(
    memory: Path | None, text: tuple[str, ...], image: tuple[Path, ...], audio: tuple[Path, ...],
    video: tuple[Path, ...], against: tuple[str, ...], weight: tuple[str, ...], where: str | None, k: int,
    leave_out_cues: bool, as_json: bool, metric: Literal["cosine", "euclidean"],
) -> None:  # fmt: skip
    """Plain nearest-neighbour search, to compare recall with.

    The codes are compared as the encoders made them; several cues are averaged.
    """
    counts = weights(weight)
    collection = open_or_offer(memory)
    found = collection.retrieve(
        " ".join(text) or None, image, audio, video, against=against, weights=counts, where=where,
        k=k, metric=metric, leave_out_cues=leave_out_cues,
    )  # fmt: skip
    if as_json:
        rows = [{"rank": n.rank, "similarity": n.similarity, **record_json(n.record)} for n in found]
        print_json({"records": rows})
        return
    for n in found:
        click.echo(f"{n.rank:3d}  {n.similarity:6.3f}  {n.record.id[:8]}  {title(n.record)}")
