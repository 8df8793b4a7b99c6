"""The command `harmonia retrieve`."""

from __future__ import annotations

from typing import Any

import click

from harmonia.cli.common import json_option, open_or_offer, print_json
from harmonia.cli.cues import cue_options, question
from harmonia.cli.output import print_neighbours
from harmonia.cli.running_server import through_server


@click.command("retrieve")
@cue_options
@click.option("--metric", type=click.Choice(["cosine", "euclidean"]), default="cosine", show_default=True,
              help="Measure of similarity.")  # fmt: skip
@json_option
def command(as_json: bool, **given: Any) -> None:
    """Search by nearest neighbours, as a baseline for recall.

    Codes are compared as the encoders produce them, without calibration or settling. The similarities of
    several cues are averaged.
    """
    asked = question(**given)
    found = through_server(asked.memory, lambda server: server.retrieve(asked))
    if found is None:
        from harmonia.collection.json_output import neighbours_json

        found = neighbours_json(open_or_offer(asked.memory).retrieve(**asked.arguments()))
    if as_json:
        print_json(found)
    else:
        print_neighbours(found)
