"""The command `harmonia memory report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harmonia.cli.common import json_option, memory_option, open_memory, print_json
from harmonia.cli.output import shorten

if TYPE_CHECKING:
    from rich.table import Table

    from harmonia.tasks.report import MemoryReport, ModalityReport


@click.group("memory")
def command() -> None:
    """Report capacity, hubs and spurious attractors."""


@command.command("report")
@memory_option
@click.option(
    "--starts",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Number of random initial states in the search for attractors.",
)
@json_option
def report(memory: Path | None, starts: int, as_json: bool) -> None:
    """Report capacity, hubs, certified basins and spurious attractors.

    Large memories are sampled; the report gives the sizes of the samples.
    """
    from harmonia.tasks.report import report as make_report
    from harmonia.tasks.report import report_json

    result = make_report(open_memory(memory), starts=starts)
    if as_json:
        print_json(report_json(result))
    else:
        _print(result)


def _print(report: MemoryReport) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if report.read < report.records:
        console.print(f"An even sample of {report.read:,} of {report.records:,} records.", highlight=False)
    for modality in report.modalities:
        table = Table(box=box.SIMPLE, show_header=False, pad_edge=False, title_justify="left")
        table.title = f"{modality.modality} ({modality.encoder})"
        for name, value in _lines(modality):
            table.add_row(name, value)
        console.print(table)
        console.print(_capacity_table(modality))


def _lines(report: ModalityReport) -> list[tuple[str, str]]:
    d, ends = report.diagnosis, report.diagnosis.attractors
    radius, contraction = float(d.basins.radius.median()), float(d.basins.contraction.median())
    hubs = ", ".join(f"{shorten(hub.name, 24)} ({hub.count})" for hub in report.hubs) or "none"
    moving = f", {ends.moving} not converged" if ends.moving else ""
    slots = "" if d.slots == d.parts else f", among an even sample of {d.slots:,}"
    return [
        ("records", f"{d.records:,} in {d.parts:,} parts"),
        ("dimensions", f"{d.dim}, effective {d.effective_dim:.1f}"),
        ("beta", f"{d.beta:.2f} in units of chance, {d.cosine_beta:.1f} for cosines"),
        (
            "certified",
            f"{float(d.basins.certified.double().mean()):.0%} of {d.sampled:,} parts{slots}: "
            f"median radius {radius:.2f}, contraction {contraction:.1e}",
        ),
        (
            "hubs",
            f"{hubs} of {d.hubs.probes:,} cues; skewness {d.hubs.skewness:.2f} (chance {d.hubs.chance:.2f})",
        ),
        (
            "random states",
            f"of {ends.starts}, {ends.memory} converge to {ends.distinct} memories, "
            f"{ends.mixture} to mixtures, {ends.spurious} to spurious attractors{moving}",
        ),
    ]


def _capacity_table(report: ModalityReport) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("cue noise", "cosine", "recalled now", "capacity (random codes)", "free"):
        table.add_column(column, justify="right")
    for row in report.diagnosis.room:
        table.add_row(
            f"{row.noise:g}", f"{row.cosine:.2f}", f"{row.recalled:.0%}", _count(row.fits), _count(row.more)
        )
    return table


def _count(number: float) -> str:
    from harmonia.tasks.report import COUNTED

    return f"{number:,.0f}" if number < COUNTED else "> 10^12"
