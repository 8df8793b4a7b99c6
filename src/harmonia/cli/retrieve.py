"""The command `harmonia retrieve`."""

from __future__ import annotations

from typing import Any

import click

from harmonia.cli.common import json_option, open_or_offer, print_json
from harmonia.cli.cues import cue_options, make_question
from harmonia.cli.output import print_neighbours
from harmonia.cli.running_server import through_server


@click.command("retrieve")
@cue_options
@click.option("--metric", type=click.Choice(["cosine", "euclidean"]), default="cosine", show_default=True,
              help="Measure of similarity.")  # fmt: skip
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Search by nearest neighbours, as a baseline for recall.

    Codes are compared as the encoders produce them, without calibration or settling. The similarities of
    several cues are averaged.
    """
    question = make_question(**options)
    neighbours = through_server(question.memory, lambda server: server.retrieve(question))
    if neighbours is None:
        from harmonia.collection.json_output import neighbours_json

        neighbours = neighbours_json(open_or_offer(question.memory).retrieve(**question.arguments()))
    if as_json:
        print_json(neighbours)
    else:
        print_neighbours(neighbours)
