"""The command `harmonia ask`."""

from __future__ import annotations

from typing import Any

import click

from harmonia.cli.common import json_option, open_or_offer, print_json
from harmonia.cli.cues import cue_options, make_question
from harmonia.cli.hits import empty_as_json
from harmonia.cli.recall import nothing
from harmonia.cli.running_server import through_server


@click.command("ask")
@cue_options
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Answer a question from the recalled records.

    The answer quotes the records and gives their probabilities, or says that nothing matches. It is composed
    without a language model, so it holds nothing that is not in the records.

    \b
    harmonia ask where did we see the lighthouse
    harmonia ask what is this --image photo.jpg
    """
    question = make_question(**options)
    answer = through_server(question.memory, lambda server: server.answer(question))
    if answer is None:
        from harmonia.collection.json_output import answer_json

        with empty_as_json(question.memory, as_json, lambda: {"text": "", "recollection": nothing()}):
            answer = answer_json(open_or_offer(question.memory).answer(**question.arguments()))
    if as_json:
        print_json(answer)
    else:
        click.echo(answer["text"])
