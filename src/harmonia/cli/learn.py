"""harmonia learn."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harmonia.cli.common import json_option, memory_option, open_memory, print_json

if TYPE_CHECKING:
    from harmonia.tasks.calibrate import CalibrationReport


@click.command("learn")
@memory_option
@click.option("--forget", is_flag=True, help="Go back to the constants of a new memory.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which parts serve as cues.")
@json_option
def command(memory: Path | None, forget: bool, seed: int, as_json: bool) -> None:
    """Learn from the memory's own records how far to trust what.

    Parts of records are left out and asked for again. Trust in each modality, couplings between them,
    a bias against records that answer everything, and beta are kept where they find records held out
    from learning better; recall uses them from then on. Learn again when much was added.
    """
    collection = open_memory(memory)
    if forget:
        from harmonia.collection.calibration import Calibration

        forgotten = Calibration.forget(collection.root)
        if as_json:
            print_json({"forgotten": forgotten})
        else:
            click.echo("back to the defaults" if forgotten else "nothing was learned: all is at its default")
        return
    from harmonia.tasks.calibrate import learn

    lore = learn(collection, seed=seed, progress=True)
    if as_json:
        print_json(lore_json(lore))
    else:
        _print(lore)


def lore_json(lore: CalibrationReport) -> dict[str, Any]:
    """The documented form (docs/memory.md): stable, for machines."""
    learned = lore.learned
    return {
        "records": lore.records,
        "read": lore.read,
        "cues": [
            {
                "cue": f.cue,
                "cues": f.cues,
                "recall_at_1": {"before": f.first[0], "after": f.first[1]},
                "mrr": {"before": f.mrr[0], "after": f.mrr[1]},
            }
            for f in lore.figures
        ],
        "constants": [asdict(verdict) for verdict in lore.verdicts],
        "precision": dict(learned.precision),
        "couplings": [{"of": c.of, "to": c.to, "precision": c.precision} for c in learned.couplings],
    }


def _print(lore: CalibrationReport) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if lore.read < lore.records:
        console.print(f"An even sample of {lore.read:,} of {lore.records:,} records.", highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("cue, of a held-out record")
    for column in ("cues", "Recall@1", "learned", "MRR", "learned"):
        table.add_column(column, justify="right")
    for f in lore.figures:
        table.add_row(f.cue, f"{f.cues:,}", *(f"{value:.3f}" for value in (*f.first, *f.mrr)))
    console.print(table)
    for verdict in lore.verdicts:
        click.echo(str(verdict))
    for key, precision in lore.learned.precision.items() if lore.learned.weighed else ():
        click.echo(f"trust in {key}: {precision:.2f} in units of chance")
