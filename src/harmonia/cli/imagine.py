"""harmonia imagine."""

from __future__ import annotations

from pathlib import Path

import click

from harmonia.cli.common import memory_option, open_memory
from harmonia.cli.generator_options import device_option, generator_option, out_option

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("imagine")
@memory_option
@click.argument("cue", nargs=-1)
@click.option("--image", type=FILE, multiple=True, help="A picture, or a part of one, as a cue.")
@click.option("--audio", type=FILE, multiple=True, help="A sound as a cue.")
@click.option("--video", type=FILE, multiple=True, help="A video as a cue.")
@click.option(
    "--to", type=click.Choice(["image", "text", "audio", "video"]), default="image", show_default=True,
    help="What to generate.",
)  # fmt: skip
@click.option(
    "--from-memory/--from-cue", "from_memory", default=None,
    help="Draw what the memory makes of the cues, or the cues as they are. Default: from the memory if it "
    "finds something, else from the cues.",
)  # fmt: skip
@generator_option
@click.option(
    "--guidance",
    type=click.FloatRange(0),
    help="How far the cue is exaggerated, 1 for not at all (default: the generator's own).",
)
@click.option(
    "--sight", type=click.FloatRange(0), default=0.0, metavar="SCALE",
    help="Also guide each step to what the image encoder sees as the cue: 10 to 30; slower.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(1), help="Of the sampler (default: the generator's own).")
@click.option("-n", "number", type=click.IntRange(1), default=8, show_default=True, help="How many pictures.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Same seed, same machine: same pictures.")  # fmt: skip
@out_option("imagined")
@click.option("--preview", type=FILE, metavar="FILE.png", help="Show the pictures there as they come to be.")
@click.option("--between", nargs=2, metavar="ID ID", help="From one memory to another, -n pictures.")
@click.option("--vary", type=FILE, help="Variations of a picture: from its own code.")
@click.option("--complete", type=FILE, help="Draw the transparent part of a picture; the rest stays.")
@click.option("--mask", type=FILE, help="What of --complete to draw: white.")
@click.option("--like", type=FILE, help="Start from a sketch instead of from noise.")
@click.option("--strength", type=click.FloatRange(0, 1, min_open=True), default=0.6, show_default=True,
              help="How far to go from --like: 1 for anywhere.")  # fmt: skip
@device_option
def command(
    memory: Path | None, cue: tuple[str, ...], image: tuple[Path, ...], audio: tuple[Path, ...],
    video: tuple[Path, ...], to: str, from_memory: bool | None, generator: Path | None,
    guidance: float | None, sight: float, steps: int | None, number: int, seed: int, out: Path,
    preview: Path | None, between: tuple[str, str] | None, vary: Path | None, complete: Path | None,
    mask: Path | None, like: Path | None, strength: float, device: str,
) -> None:  # fmt: skip
    """Generate pictures from words, media, or what the memory makes of them.

    The cues are settled in the memory, and what it comes to rest at is drawn. Every file says in its metadata
    that it was generated, by what, and from which cue.

    \b
    harmonia imagine a red apple
    harmonia imagine --image half.png --from-memory -n 4
    harmonia imagine --between 3f2a 9b10
    harmonia imagine --complete half.png --mask mask.png
    """
    words = " ".join(cue)
    given: dict[str, str | tuple[Path, ...] | None] = {
        "text": words or None, "image": image, "audio": audio, "video": video,
    }  # fmt: skip
    _check(any(given.values()), between, vary, complete, mask, like)
    from harmonia.tasks.imagine import Imagination, load
    from harmonia.tasks.sampling import Sampling, draw_into
    from harmonia.types import HarmoniaError

    if to != "image":
        raise HarmoniaError(f"no generator of {to} is here yet, only of pictures: take --to image")
    saved = load(generator, device)
    collection = open_memory(memory)
    if memory is not None and not collection.exists:
        raise HarmoniaError(f"no memory in {memory}: remember something first, or leave out --memory")
    imagination = Imagination(saved, collection if collection.exists else None, device)
    if vary is not None:
        given["image"], from_memory = (vary,), False
    elif (complete or like) and saved.generator.config.condition.code and not any(given.values()):
        given["image"] = tuple(file for file in (complete, like) if file)
    wish = imagination.between(*between, number) if between else imagination.wish(given, from_memory)
    click.echo(wish.how, err=True)
    eye = imagination.eye() if sight else None
    drawn = draw_into(
        out, saved, wish, Sampling(number, steps, guidance, seed, sight, eye), preview=preview,
        complete=complete, mask=mask, like=like, strength=strength, progress=True,
    )  # fmt: skip
    for file in drawn.files:
        click.echo(file)
    click.echo(f"sheet: {drawn.sheet}", err=True)


def _check(
    cued: bool,
    between: tuple[str, str] | None,
    vary: Path | None,
    complete: Path | None,
    mask: Path | None,
    like: Path | None,
) -> None:
    """Usage errors: options that exclude each other."""
    ways = {"--between": between, "--vary": vary, "--complete": complete, "--like": like}
    chosen = [name for name, value in ways.items() if value]
    if len(chosen) > 1:
        raise click.UsageError(f"{chosen[0]} and {chosen[1]} are two ways to draw: give one of them")
    if cued and (between or vary):
        raise click.UsageError(f"{chosen[0]} says what to draw: leave out the cues")
    if mask and not complete:
        raise click.UsageError("--mask belongs to --complete: give the picture too")
