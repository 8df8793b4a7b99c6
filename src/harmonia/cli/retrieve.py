"""The command `harmonia retrieve`."""

from __future__ import annotations

from typing import Any

import click

from harmonia.cli.common import find_memory, json_option, open_or_offer
from harmonia.cli.cues import cue_options, make_question
from harmonia.cli.hits import Shown, empty_as_json, finish, hit_options
from harmonia.cli.output import print_neighbours
from harmonia.cli.running_server import through_server


@click.command("retrieve")
@cue_options
@click.option("--metric", type=click.Choice(["cosine", "euclidean"]), default="cosine", show_default=True,
              help="Measure of similarity.")  # fmt: skip
@hit_options
@json_option
def command(as_json: bool, paths: bool, null: bool, open_first: bool, preview: bool, **options: Any) -> None:
    """Search by nearest neighbours, as a baseline for recall.

    Codes are compared as the encoders produce them, without calibration or settling. The similarities of
    several cues are averaged. The exit code is 1 if there is no hit.
    """
    question = make_question(**options)
    neighbours = through_server(question.memory, lambda server: server.retrieve(question))
    if neighbours is None:
        from harmonia.collection.json_output import neighbours_json

        with empty_as_json(question.memory, as_json, lambda: neighbours_json(())):
            neighbours = neighbours_json(open_or_offer(question.memory).retrieve(**question.arguments()))
    found = neighbours

    def show() -> None:
        print_neighbours(found, find_memory(question.memory))

    finish(found, question, Shown(paths, null, open_first, preview), as_json, show, "retrieve")
