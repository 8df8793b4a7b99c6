"""The command `harmonia ask`."""

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
    """Answer a question from the recalled records.

    The answer quotes the records and gives their probabilities, or says that nothing matches. It is composed
    without a language model, so it holds nothing that is not in the records.

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
