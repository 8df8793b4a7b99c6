"""The command `harmonia train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click


@click.command("train")
@click.argument("recipe", required=False)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Dataset folder (default: found under HARMONIA_DATA).",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Run folder (default: runs/RECIPE); an interrupted run resumes from it.",
)
@click.option("--steps", type=click.IntRange(1), help="Number of optimizer steps.")
@click.option("--batch", type=click.IntRange(2), help="Batch size.")
@click.option("--size", type=click.Choice(["tiny", "small", "base", "large"]), help="Tower size.")
@click.option("--seed", type=int, help="Random seed.")
@click.option("--device", help="Device: auto, cpu, cuda, cuda:1, ...")
@click.option(
    "--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change any other setting; repeatable."
)
def command(
    recipe: str | None,
    data: Path | None,
    out: Path | None,
    steps: int | None,
    batch: int | None,
    size: str | None,
    seed: int | None,
    device: str | None,
    changes: Sequence[str],
) -> None:
    """Train an encoder or a generator from a recipe.

    Without RECIPE, lists the recipes. The trained model is OUT/model: give an encoder to `harmonia remember
    FOLDER --model OUT/model`, a generator to `harmonia imagine --generator OUT/model`.
    """
    from harmonia.recipes import RECIPES, prepare
    from harmonia.recipes import recipe as function_of

    if recipe is None:
        for name in RECIPES:
            summary = (function_of(name).__doc__ or "").strip().splitlines()[0]
            click.echo(f"{name:14s} {summary}")
        return
    common = {"steps": steps, "batch": batch, "size": size, "seed": seed, "device": device}
    settings = {name: str(value) for name, value in common.items() if value is not None}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals:
            raise click.UsageError(f"--set takes NAME=VALUE, such as steps=100 (got {change!r})")
        settings[name] = value
    folder = out or Path("runs") / recipe
    run = prepare(recipe, data, settings)
    folder.parent.mkdir(parents=True, exist_ok=True)
    outcome = run.train(folder)
    for measure, figure in outcome.figures.items():
        click.echo(f"{measure + ':':24s} {figure:.4g}")
    click.echo(f"{outcome.result.step} steps; the model is {outcome.model}")
