"""harmonia recall."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harmonia.cli.common import (
    cue_options,
    open_or_offer,
    print_json,
    record_json,
    shorten,
    title,
    weights,
    where_in,
)

if TYPE_CHECKING:
    from harmonia.types import Recollection


@click.command("recall")
@cue_options
@click.option(
    "--alpha",
    type=click.FloatRange(1.0),
    default=1.0,
    show_default=True,
    help="Slot distribution: 1 softmax, 1.5 or 2 sparse.",
)
@click.option(
    "--beta", type=click.FloatRange(0, min_open=True), help="Sharpness (default: from the number of records)."
)
@click.option("--steps", type=click.IntRange(0), default=8, show_default=True, help="Most steps of settling.")
@click.option(
    "--trust",
    type=click.FloatRange(0),
    default=float("inf"),
    show_default=True,
    help="How firmly the cues are held; inf clamps them.",
)
@click.option(
    "--sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT.PNG",
    help="Draw cues and recalled records side by side.",
)
@click.option(
    "--landscape",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT.PNG",
    help="Draw the energy around the first cue.",
)
def command(
    memory: Path | None, text: tuple[str, ...], image: tuple[Path, ...], audio: tuple[Path, ...],
    video: tuple[Path, ...], against: tuple[str, ...], weight: tuple[str, ...], where: str | None, k: int,
    leave_out_cues: bool, as_json: bool, alpha: float, beta: float | None, steps: int, trust: float,
    sheet: Path | None, landscape: Path | None,
) -> None:  # fmt: skip
    """Recall whole records from any part of them.

    TEXT and files given together are one cue: they are bound in one settling of the memory.

    \b
    harmonia recall waves at dusk
    harmonia recall --image half.jpg --audio noisy.wav
    harmonia recall beach --not people --where "year > 2019" -k 10
    """
    counts = weights(weight)
    collection = open_or_offer(memory)
    words = " ".join(text) or None
    found = collection.recall(
        words, image, audio, video, against=against, weights=counts, trust=trust, where=where,
        k=k, steps=steps, alpha=alpha, beta=beta, leave_out_cues=leave_out_cues,
    )  # fmt: skip
    if as_json:
        print_json(recollection_json(found))
    else:
        _print(found)
    if sheet is not None:
        from harmonia.tasks.sheet import draw_sheet, save_sheet

        cues: list[tuple[str, str | Path]] = [("text", words)] if words else []
        cues += [(m, f) for m, files in (("image", image), ("audio", audio), ("video", video)) for f in files]
        save_sheet(draw_sheet([(cues, found)], collection.root), sheet)
        click.echo(f"sheet: {sheet}", err=True)
    if landscape is not None:
        from harmonia.tasks.landscape import draw_landscape

        given = {"text": words, "image": image, "audio": audio, "video": video}
        drawn = collection.cues(given, against, counts, trust)
        draw_landscape(collection, drawn, landscape, beta=beta, steps=steps)
        click.echo(f"landscape: {landscape}", err=True)


def recollection_json(found: Recollection) -> dict[str, Any]:
    """The documented form (docs/cli.md): stable, for machines."""
    return {
        "records": [
            {
                "rank": r.rank,
                "probability": r.probability,
                **record_json(r.record, r.moment),
                "shares": dict(r.shares),
            }
            for r in found.records
        ],
        "abstained": found.abstained,
        "certificate": {
            "energies": list(found.certificate.energies),
            "tail_mass": found.certificate.tail_mass,
            "steps": found.certificate.steps,
            "error_bound": found.certificate.error_bound,
            "nothing": found.certificate.nothing,
            "converged": found.certificate.converged,
            "candidates": found.certificate.candidates,
        },
    }


def _print(found: Recollection) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if found.abstained:
        console.print(
            f"Nothing here matches (probability of that: {found.certificate.nothing:.0%}). The nearest:",
            highlight=False,
        )
    cues = list(dict.fromkeys(name for r in found.records for name in r.shares))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("prob.", justify="right")
    table.add_column("record")
    for name in cues:
        table.add_column(shorten(name, 20), justify="right")
    table.add_column("why")
    for r in found.records:
        why = [
            f"{shorten(name, 20)}: {where_in(m.part)} ({m.similarity:.2f})" for name, m in r.matches.items()
        ]
        cells = [str(r.rank), f"{r.probability:.1%}", f"{title(r.record)}\n{r.record.id[:8]}"]
        cells += [f"{r.shares.get(name, 0.0):.0%}" for name in cues]
        # What comes from files is text, never markup.
        table.add_row(*(Text(cell) for cell in [*cells, "\n".join(why)]))
    console.print(table)
    c = found.certificate
    console.print(
        f"settled in {c.steps} steps, energy {c.energies[0]:.3f} -> {c.energies[-1]:.3f}, "
        f"tail mass {c.tail_mass:.1e}, nothing {c.nothing:.1%}",
        style="dim", highlight=False,
    )  # fmt: skip
