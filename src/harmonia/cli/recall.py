"""The command `harmonia recall`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harmonia.cli.common import find_memory, json_option, open_or_offer
from harmonia.cli.cues import Question, cue_options, make_question
from harmonia.cli.hits import Shown, empty_as_json, finish, hit_options
from harmonia.cli.output import print_recollection
from harmonia.cli.running_server import through_server


class Beta(click.ParamType[float | None]):
    """A positive number, or auto (None)."""

    name = "auto|NUMBER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """Parse the number; a usage error for anything else."""
        if value is None or value == "auto":
            return None
        try:
            return float(click.FloatRange(0, min_open=True).convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{value!r} is neither auto nor a number above 0", param, ctx)


PICTURE = click.Path(dir_okay=False, path_type=Path)


@click.command("recall")
@cue_options
@click.option("--alpha", type=click.FloatRange(1.0), default=1.0, show_default=True,
              help="Distribution over the records (entmax): 1 is softmax, 1.5 and 2 are sparse.")  # fmt: skip
@click.option("--beta", type=Beta(), default="auto", show_default=True,
              help="Inverse temperature (auto: from the number of records).")  # fmt: skip
@click.option("--noise", type=click.FloatRange(0), metavar="VARIANCE",
              help="Expected noise of the cues; auto then takes the best beta for it.")  # fmt: skip
@click.option("--steps", type=click.IntRange(0), default=8, show_default=True,
              help="Maximum retrieval steps.")  # fmt: skip
@click.option("--trust", type=click.FloatRange(0), default=float("inf"), show_default=True,
              help="Cue strength kappa (inf: the cues stay fixed).")  # fmt: skip
@click.option("--explain", is_flag=True, help="Explain the scores and the certificate.")
@click.option("--sheet", type=PICTURE, metavar="OUT.PNG",
              help="Write an image with the cues and the records side by side.")  # fmt: skip
@click.option("--landscape", type=PICTURE, metavar="OUT.PNG",
              help="Plot the energy around the first cue.")  # fmt: skip
@hit_options
@json_option
def command(
    explain: bool, sheet: Path | None, landscape: Path | None, as_json: bool, paths: bool, null: bool,
    open_first: bool, preview: bool, **options: Any,
) -> None:  # fmt: skip
    """Recall whole records from any part of them.

    TEXT and files together form one query: the memory looks for the records that match all of them.
    A word that is the path of a file is a cue too. The exit code is 1 if there is no hit. Where nothing
    matches for sure, the nearest records are listed, the output says so, and the exit code is 0.

    \b
    harmonia recall waves at dusk
    harmonia recall half.jpg --audio noisy.wav
    harmonia recall beach -0 | xargs -0 ls -l
    harmonia recall beach --not people --where "year > 2019" -k 10
    """
    question = make_question(**options)
    recollection = None
    if not (sheet or landscape):
        recollection = through_server(
            question.memory, lambda server: server.recall(question, explain=explain)
        )
    with empty_as_json(question.memory, as_json, nothing):
        recollection = recollection or _recall(question, explain, sheet, landscape)
    found = recollection

    def show() -> None:
        print_recollection(found, find_memory(question.memory), explain=explain)

    finish(found, question, Shown(paths, null, open_first, preview), as_json, show, "recall")


def nothing() -> dict[str, Any]:
    """What comes back from an empty memory."""
    from harmonia.collection.json_output import recollection_json
    from harmonia.collection.recall import NOTHING

    return recollection_json(NOTHING)


def _recall(question: Question, explain: bool, sheet: Path | None, landscape: Path | None) -> dict[str, Any]:
    """Recall in this process, and write the sheet and the landscape."""
    from harmonia.collection.json_output import recollection_json

    collection = open_or_offer(question.memory)
    recollection = collection.recall(**question.arguments(), trust=question.trust)
    if sheet is not None:
        from harmonia.tasks.contact_sheet import draw_sheet, save_sheet

        cues: list[tuple[str, str | Path]] = [("text", question.words)] if question.words else []
        cues += [(modality, file) for modality, files in question.files.items() for file in files]
        save_sheet(draw_sheet([(cues, recollection)], collection.root), sheet)
        click.echo(f"sheet: {sheet}", err=True)
    if landscape is not None:
        from harmonia.collection.cues import make_query
        from harmonia.tasks.energy_plot import draw_landscape

        query = make_query(
            {"text": question.words, **question.files}, question.against, question.weights, question.trust
        )
        beta, steps = recollection.certificate.beta, question.options["steps"]
        draw_landscape(collection, collection.cues(query), landscape, beta=beta, steps=steps)
        click.echo(f"landscape: {landscape}", err=True)
    return recollection_json(recollection, explain=explain)
