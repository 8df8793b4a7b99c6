"""harmonia ask."""

from __future__ import annotations

from typing import Any

import click

from harmonia.cli.common import json_option, open_or_offer, print_json
from harmonia.cli.cues import cue_options, question
from harmonia.cli.running_server import through_server


@click.command("ask")
@cue_options
@json_option
def command(as_json: bool, **given: Any) -> None:
    """Answer in sentences made from the records that are recalled.

    No language model is asked: an answer says nothing that is not in the records, or that nothing matches.

    \b
    harmonia ask where did we see the lighthouse
    harmonia ask what is this --image photo.jpg
    """
    asked = question(**given)
    found = through_server(asked.memory, lambda server: server.answer(asked))
    if found is None:
        from harmonia.collection.json_output import answer_json

        found = answer_json(open_or_offer(asked.memory).answer(**asked.arguments()))
    if as_json:
        print_json(found)
    else:
        click.echo(found["text"])
