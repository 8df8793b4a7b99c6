"""harmonia evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harmonia.cli.common import json_option, print_json

if TYPE_CHECKING:
    from harmonia.generators import Saved
    from harmonia.metrics import Features
    from harmonia.recipes.generators.pictures import Pictures


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
    "--encoder",
    help="Of a generator, in place of --judge: mini, the folder of a trained model, or a pretrained one's "
    "hub name or folder, such as a CLIP.",
)
@click.option("--languages", default="", help="Of the words told, such as en,de (default: all there are).")
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
    encoder: str | None,
    languages: str,
    count: int,
    device: str,
    as_json: bool,
) -> None:
    """Score a model's encoders by how well the parts of a dataset's records find each other.

    MODEL is a folder that `harmonia train` made, mini, or a pretrained model's hub name or folder. Every pair
    of modalities that share a space is scored in both directions: Recall@1/5/10, NDCG and mAP.

    Of a generator, the pictures that it draws are compared with those of the dataset's training part, in the
    features of --judge, --inception or --encoder: Frechet and kernel distance, precision, recall, density,
    coverage; a judge also tells how often the class is the one asked for, an encoder that reads how well
    pictures match the words told (x100). Beside each figure stand its 95 % interval (but for the distance of
    so many pictures, which is biased), the figure of real pictures drawn again, and the network it is by.
    """
    from harmonia.generators import is_generator

    if is_generator(Path(model)):
        if sum(one is not None for one in (judge, inception, encoder)) != 1:
            raise click.UsageError(
                "a generator is measured by one of --judge, a folder from `harmonia train judge`, "
                "--inception and --encoder"
            )
        network = _network(judge, inception, encoder, device)
        rows = _generator(Path(model), dataset, data, network, languages, count, device)
    else:
        from harmonia.tasks.evaluate_encoder import evaluate

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


def _network(judge: Path | None, inception: Path | None, encoder: str | None, device: str) -> Features:
    """What pictures are compared in."""
    from harmonia.metrics import Inception
    from harmonia.recipes.generators.judge import load_judge
    from harmonia.tasks.evaluate_generator import codes_of_model

    if judge is not None:
        return load_judge(judge)
    return codes_of_model(encoder, device) if encoder is not None else Inception(str(inception))


def _generator(
    model: Path,
    dataset: str,
    data: Path | None,
    network: Features,
    languages: str,
    count: int,
    device: str,
) -> list[dict[str, Any]]:
    """The table of a generator: what it draws for the conditions of training pictures drawn at random."""
    from harmonia.encoders.towers.base import place
    from harmonia.generators import load_generator
    from harmonia.recipes.generators.judge import Judge
    from harmonia.recipes.generators.pictures import languages_of, load_pictures
    from harmonia.tasks.evaluate_generator import Real, evaluate_generator

    saved = load_generator(model, place(device))
    config = saved.generator.config.condition
    kinds = {"label": config.classes, "text": config.text, "code": config.code}
    keep = tuple(name for name, width in kinds.items() if width)
    side, spoken = saved.generator.config.shape[1], languages_of(languages)
    pictures = load_pictures(dataset, resolution=side, data=data, keep=keep, languages=spoken)
    if config.code or config.features:
        pictures = _coded(pictures, model, saved, network)
    # one text of each picture, in turn of all the languages, so that it is known which was told
    texts = [several[i % len(several)] for i, several in enumerate(pictures.texts)] if config.text else None
    if texts is not None:
        pictures = replace(pictures, texts=tuple((one,) for one in texts), length=config.text)
    real = Real(pictures.x, network)
    asked = real.again(count, seed=1)
    classified = isinstance(network, Judge) and pictures.label is not None
    return evaluate_generator(
        saved.generator,
        pictures.condition(asked),
        real,
        labels=pictures.label[asked] if pictures.label is not None and classified and keep else None,
        real_labels=pictures.label if classified else None,
        words=None if texts is None else [texts[row] for row in asked.tolist()],
        real_words=texts,
    )


def _coded(pictures: Pictures, model: Path, saved: Saved, network: Features) -> Pictures:
    """Pictures with the codes of mini that stand for them, for a generator that is told those."""
    from harmonia.metrics import Codes
    from harmonia.pretrained.loading import load_encoders
    from harmonia.recipes.generators.mini import codes_of
    from harmonia.types import HarmoniaError

    image = next(one for one in load_encoders(("mini",), "cpu") if one.modality == "image")
    if saved.generator.config.condition.features or saved.facts.space != image.space:
        raise HarmoniaError(
            f"{model} is told codes that mini does not make: harmonia.tasks measures it from Python"
        )
    if isinstance(network, Codes) and network.encoder.name == image.name:
        raise HarmoniaError(f"{model} is told codes of {image.name}, which cannot judge it: take another")
    return replace(pictures, codes=codes_of(image, pictures.x)[:, None])
