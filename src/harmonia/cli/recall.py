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


class Beta(click.ParamType[float | None]):
    """A positive number, or auto (None)."""

    name = "auto|NUMBER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """The number; a usage error if it is none."""
        if value is None or value == "auto":
            return None
        try:
            return float(click.FloatRange(0, min_open=True).convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{value!r} is neither auto nor a number above 0", param, ctx)


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
    "--beta",
    type=Beta(),
    default="auto",
    show_default=True,
    help="Sharpness, or auto: from the records held.",
)
@click.option(
    "--noise",
    type=click.FloatRange(0),
    metavar="VARIANCE",
    help="Expected noise of the cues' codes; auto then takes the beta best for it.",
)
@click.option("--steps", type=click.IntRange(0), default=8, show_default=True, help="Most steps of settling.")
@click.option(
    "--trust",
    type=click.FloatRange(0),
    default=float("inf"),
    show_default=True,
    help="How firmly the cues are held; inf clamps them.",
)
@click.option("--explain", is_flag=True, help="Say how the answer came about.")
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
    leave_out_cues: bool, as_json: bool, alpha: float, beta: float | None, noise: float | None,
    steps: int, trust: float, explain: bool, sheet: Path | None, landscape: Path | None,
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
        k=k, steps=steps, alpha=alpha, beta=beta, noise=noise, leave_out_cues=leave_out_cues,
    )  # fmt: skip
    if as_json:
        print_json(recollection_json(found))
    else:
        _print(found)
        if explain:
            _explain(found)
    if sheet is not None:
        from harmonia.tasks.contact_sheet import draw_sheet, save_sheet

        cues: list[tuple[str, str | Path]] = [("text", words)] if words else []
        cues += [(m, f) for m, files in (("image", image), ("audio", audio), ("video", video)) for f in files]
        save_sheet(draw_sheet([(cues, found)], collection.root), sheet)
        click.echo(f"sheet: {sheet}", err=True)
    if landscape is not None:
        from harmonia.tasks.energy_plot import draw_landscape

        given = {"text": words, "image": image, "audio": audio, "video": video}
        drawn = collection.cues(given, against, counts, trust)
        draw_landscape(collection, drawn, landscape, beta=found.certificate.beta, steps=steps)
        click.echo(f"landscape: {landscape}", err=True)


def recollection_json(found: Recollection) -> dict[str, Any]:
    """The documented form (docs/cli.md): stable, for machines."""
    return {
        "records": [
            {
                "rank": r.rank,
                "probability": r.probability,
                "score": r.score,
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
            "beta": found.certificate.beta,
            "contraction": found.certificate.contraction,
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
    moved = (
        f"settled in {c.steps} steps, energy {c.energies[0]:.3f} -> {c.energies[-1]:.3f}, " if c.steps else ""
    )
    console.print(
        f"{moved}tail mass {c.tail_mass:.1e}, nothing {c.nothing:.1%}", style="dim", highlight=False
    )


def _explain(found: Recollection) -> None:
    """The certificate in words, and each record's score as the sum of what the cues add to it."""
    c = found.certificate
    click.echo(
        f"beta        {c.beta:.3f} in units of chance: an unrelated record scores 0 on average, 1 in spread"
    )
    for r in found.records:
        whole = sum(r.shares.values()) or 1.0
        adds = " ".join(f"{s * r.score / whole:+.2f} ({shorten(name, 20)})" for name, s in r.shares.items())
        click.echo(f"score {r.rank:<5} {r.score:.2f} = {adds}   {shorten(title(r.record), 40)}")
    click.echo(
        f"energy      {' -> '.join(f'{e:.4f}' for e in c.energies)} in {c.steps} steps (it never rises)"
    )
    click.echo(f"converged   {'yes' if c.converged else 'no: give more --steps'}")
    click.echo(f"tail mass   {c.tail_mass:.2e}, the exact probability of all records not kept for the update")
    click.echo(f"error bound {c.error_bound:.2e}, how far the mean behind a settled code can be off for that")
    rests = (
        "cues near this one come to rest where it does"
        if c.contraction < 1
        else "no promise about cues nearby"
    )
    click.echo(f"contraction {c.contraction:.3g}: {rests}")
    click.echo(f"nothing     {c.nothing:.1%}, the probability that no record matches")
    scored = (
        "every record was scored"
        if c.candidates is None
        else f"all of this is said of {c.candidates} candidates that the index proposed"
    )
    click.echo(f"candidates  {scored}")
