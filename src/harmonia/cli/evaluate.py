"""The command `harmonia evaluate`."""

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
@click.option("--dataset", default="flickr8k", show_default=True, help="Name of the dataset.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Dataset folder (default: found under HARMONIA_DATA).",
)
@click.option("--split", default="val", show_default=True, help="Split of the dataset.")
@click.option("--limit", type=click.IntRange(2), help="Maximum number of records.")
@click.option(
    "--noise",
    type=click.FloatRange(0),
    multiple=True,
    help="Variance of Gaussian noise added to the queries; repeatable.",
)
@click.option(
    "--judge",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Generators: folder of a classifier from `harmonia train judge`.",
)
@click.option(
    "--inception",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Generators: TorchScript file of Inception-v3, instead of --judge.",
)
@click.option(
    "--encoder",
    help="Generators: an encoder instead of --judge: mini, a folder, or the hub name of a pretrained model.",
)
@click.option("--languages", default="", help="Prompt languages, e.g. en,de (default: all).")
@click.option(
    "-n",
    "--count",
    type=click.IntRange(10),
    default=5000,
    show_default=True,
    help="Number of images to generate.",
)
@click.option("--device", default="auto", show_default=True, help="Device: auto, cpu, cuda, cuda:1, ...")
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
    """Evaluate an encoder or a generator on a dataset.

    MODEL is a folder from `harmonia train`, mini, or the hub name or folder of a pretrained model.

    Encoders are scored by cross-modal retrieval, in both directions, for every two modalities that share a
    space: Recall@1/5/10, NDCG, mAP and median rank.

    Generated images are compared with the real images of the training split, in the features of --judge,
    --inception or --encoder: Frechet and kernel distance, precision, recall, density and coverage. A
    classifier adds the class accuracy; an encoder that reads text adds the text-image match (x100). Each
    measure comes with the value for resampled real images, the name of the network, and, except for the
    Frechet distance (which is biased), a 95 % interval.
    """
    from harmonia.generators import is_generator

    if is_generator(Path(model)):
        if sum(option is not None for option in (judge, inception, encoder)) != 1:
            raise click.UsageError(
                "a generator is evaluated with one network: give one of --judge (a folder from "
                "`harmonia train judge`), --inception and --encoder"
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
    for row in rows:
        table.add_row(*(_formatted(value) for value in row.values()))
    Console(width=120).print(table)


def _formatted(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _network(judge: Path | None, inception: Path | None, encoder: str | None, device: str) -> Features:
    """The network in whose features images are compared."""
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
    """The table of a generator, conditioned like training images that are sampled at random."""
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
    # One text for each image, the languages in turn: the prompt of each is then known.
    texts = [several[i % len(several)] for i, several in enumerate(pictures.texts)] if config.text else None
    if texts is not None:
        pictures = replace(pictures, texts=tuple((text,) for text in texts), length=config.text)
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
    """The images with their codes by mini, for a generator that is conditioned on these."""
    from harmonia.metrics import Codes
    from harmonia.pretrained.loading import load_encoders
    from harmonia.recipes.generators.mini import codes_of
    from harmonia.types import HarmoniaError

    image = next(encoder for encoder in load_encoders(("mini",), "cpu") if encoder.modality == "image")
    if saved.generator.config.condition.features or saved.facts.space != image.space:
        raise HarmoniaError(
            f"{model} needs codes of another encoder than mini: evaluate it from Python, with "
            "harmonia.tasks.evaluate_generator"
        )
    if isinstance(network, Codes) and network.encoder.name == image.name:
        raise HarmoniaError(
            f"{image.name} conditions {model} and cannot evaluate it: give --judge or another --encoder"
        )
    return replace(pictures, codes=codes_of(image, pictures.x)[:, None])
