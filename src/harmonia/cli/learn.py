"""The command `harmonia learn`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harmonia.cli.common import json_option, memory_option, open_memory, print_json
from harmonia.types import HarmoniaError

if TYPE_CHECKING:
    from harmonia.collection.likelihoods import Likelihoods
    from harmonia.tasks.calibration_report import CalibrationReport


@click.command("learn")
@memory_option
@click.option("--forget", is_flag=True, help="Delete the calibration and use the defaults again.")
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
@json_option
def command(memory: Path | None, forget: bool, seed: int, as_json: bool) -> None:
    """Calibrate modality weights on the stored records.

    Cues are made from the records themselves: other parts, damaged copies, words. Models of how likely a cue
    and a record belong together are fitted to them, and how cues score that match nothing. `remember` does
    this by itself once there are enough records.

    Then parts of records are held out and used as queries. Modality weights, couplings between modalities, a
    bias against hubs, and beta are fitted in five-fold cross-validation; each is kept only if it improves the
    retrieval of held-out records. Recall uses the calibration from then on. Run the command again after
    adding many records.
    """
    collection = open_memory(memory)
    if forget:
        from harmonia.collection.calibration import Calibration

        forgotten = Calibration.forget(collection.root) | collection.forget_likelihoods()
        if as_json:
            print_json({"forgotten": forgotten})
        else:
            click.echo(
                "calibration deleted" if forgotten else "there is no calibration: the defaults are in use"
            )
        return
    from harmonia.tasks.calibrate import learn
    from harmonia.tasks.calibration_report import calibration_json, likelihoods_json

    likelihoods = collection.fit_likelihoods(seed=seed, progress=True)
    try:
        report = learn(collection, seed=seed, progress=True)
    except HarmoniaError:
        if not likelihoods.ratios:
            raise
        if as_json:
            print_json(likelihoods_json(likelihoods))
        else:
            _print_likelihoods(likelihoods)
        return
    if as_json:
        print_json({**calibration_json(report), **likelihoods_json(likelihoods)})
    else:
        _print(report)
        _print_likelihoods(likelihoods)


def _print_likelihoods(found: Likelihoods) -> None:
    for (to, of), ratio in found.ratios.items():
        what = to if to == of else f"{to} by cues of {of}"
        click.echo(f"likelihoods of {what}: {len(ratio.correlation)} directions, scale {ratio.scale:.2f}")


def _print(report: CalibrationReport) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if report.read < report.records:
        console.print(f"An even sample of {report.read:,} of {report.records:,} records.", highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("held-out query")
    for column in ("queries", "Recall@1", "calibrated", "MRR", "calibrated"):
        table.add_column(column, justify="right")
    for f in report.figures:
        table.add_row(f.cue, f"{f.cues:,}", *(f"{value:.3f}" for value in (*f.first, *f.mrr)))
    console.print(table)
    for verdict in report.verdicts:
        click.echo(str(verdict))
    for key, precision in report.calibration.precision.items() if report.calibration.weighed else ():
        click.echo(f"trust in {key}: {precision:.2f} in units of chance")
