"""harmonia evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
@click.option(
    "--judge",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Of a generator: the folder of a classifier from `harmonia train judge`.",
)
@click.option(
    "--inception",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Of a generator, in place of --judge: the TorchScript file of Inception-v3.",
)
@click.option(
    "-n", "--count", type=click.IntRange(10), default=5000, show_default=True, help="Pictures drawn."
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
    judge: Path | None,
    inception: Path | None,
    count: int,
    device: str,
    as_json: bool,
) -> None:
    """Score a model's encoders by how well the parts of a dataset's records find each other.

    MODEL is a folder that `harmonia train` made, mini, or a pretrained model's hub name or folder. Every pair
    of modalities that share a space is scored in both directions: Recall@1/5/10, NDCG and mAP.

    Of a generator, the pictures that it draws are compared with those of the dataset's training part, in the
    features of --judge or --inception: Frechet and kernel distance, precision, recall, density, coverage; a
    judge also tells how often the class is the one asked for. Beside them stand real pictures, drawn again.
    """
    from harmonia.generators import is_generator

    if is_generator(Path(model)):
        rows = _generator(Path(model), dataset, data, judge, inception, count, device)
    else:
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
        table.add_row(*(_shown(value) for value in one.values()))
    Console(width=120).print(table)


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _generator(
    model: Path,
    dataset: str,
    data: Path | None,
    judge: Path | None,
    inception: Path | None,
    count: int,
    device: str,
) -> list[dict[str, Any]]:
    """The table of a generator: what it draws for the conditions of training pictures drawn at random."""
    from harmonia.encoders.tower import place
    from harmonia.generators import load_generator
    from harmonia.metrics import Inception
    from harmonia.recipes.judge import load_judge
    from harmonia.recipes.pictures import load_pictures
    from harmonia.tasks.evaluate_generator import Real, evaluate_generator
    from harmonia.types import HarmoniaError

    if (judge is None) == (inception is None):
        raise click.UsageError(
            "a generator is measured by --judge, a folder from `harmonia train judge`, or by --inception"
        )
    where = place(device)
    generator = load_generator(model, where).generator
    config = generator.config.condition
    if config.code or config.features:
        raise HarmoniaError(
            f"{model} is told codes, which no dataset has: harmonia.tasks measures it from Python"
        )
    keep = tuple(name for name, width in (("label", config.classes), ("text", config.text)) if width)
    pictures = load_pictures(dataset, resolution=generator.config.shape[1], data=data, keep=keep)
    real = Real(pictures.x, load_judge(judge) if judge else Inception(str(inception)))
    asked = real.again(count, seed=1)
    return evaluate_generator(
        generator,
        pictures.condition(asked),
        real,
        labels=pictures.label[asked] if pictures.label is not None and judge and keep else None,
        real_labels=pictures.label if judge else None,
    )
