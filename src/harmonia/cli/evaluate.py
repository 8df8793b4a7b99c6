"""harmonia evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from harmonia.cli.common import json_option, print_json


@click.command("evaluate")
@click.argument("model")
@click.option("--dataset", default="flickr8k", show_default=True, help="A dataset that Harmonia reads.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the dataset (default: found under HARMONIA_DATA).",
)
@click.option("--split", default="val", show_default=True, help="Which part of it.")
@click.option("--limit", type=click.IntRange(2), help="At most so many records, the first ones.")
@click.option(
    "--noise", type=click.FloatRange(0), multiple=True, help="Variance of noise on the queries; repeatable."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@json_option
def command(
    model: str,
    dataset: str,
    data: Path | None,
    split: str,
    limit: int | None,
    noise: Sequence[float],
    device: str,
    as_json: bool,
) -> None:
    """Score a model's encoders by how well the parts of a dataset's records find each other.

    MODEL is a folder that `harmonia train` made, mini, or a pretrained model's hub name or folder. Every pair
    of modalities that share a space is scored in both directions: Recall@1/5/10, NDCG and mAP.
    """
    from harmonia.tasks.evaluate import evaluate

    rows = evaluate(model, dataset, data, split=split, limit=limit, noise=(0.0, *noise), device=device)
    if as_json:
        print_json(rows)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in rows[0]:
        table.add_column(column)
    for one in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in one.values()))
    Console(width=120).print(table)
