"""The command `harmonia imagine`."""

from __future__ import annotations

from pathlib import Path

import click

from harmonia.cli.common import memory_option, open_memory
from harmonia.cli.generator_options import device_option, generator_option, out_option

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("imagine")
@memory_option
@click.argument("cue", nargs=-1)
@click.option("--image", type=FILE, multiple=True, help="Image cue, or part of an image.")
@click.option("--audio", type=FILE, multiple=True, help="Audio cue.")
@click.option("--video", type=FILE, multiple=True, help="Video cue.")
@click.option(
    "--to", type=click.Choice(["image", "text", "audio", "video"]), default="image", show_default=True,
    help="Modality to generate.",
)  # fmt: skip
@click.option(
    "--from-memory/--from-cue", "from_memory", default=None,
    help="Condition on the recalled record, or on the cue (default: the record if one matches).",
)  # fmt: skip
@generator_option
@click.option(
    "--guidance",
    type=click.FloatRange(0),
    help="Classifier-free guidance scale; 1 is off (default: the generator's own).",
)
@click.option(
    "--sight", type=click.FloatRange(0), default=0.0, metavar="SCALE",
    help="CLIP-style guidance scale, by the image encoder; 10 to 30, slower.",
)  # fmt: skip
@click.option(
    "--steps", type=click.IntRange(1), help="Number of sampling steps (default: the generator's own)."
)
@click.option("-n", "number", type=click.IntRange(1), default=8, show_default=True, help="Number of images.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Random seed; the same seed and machine give the same images.")  # fmt: skip
@out_option("imagined")
@click.option("--preview", type=FILE, metavar="FILE.png", help="Write a live preview to FILE.png.")
@click.option("--between", nargs=2, metavar="ID ID", help="Interpolate between two records, in -n images.")
@click.option("--vary", type=FILE, help="Generate variations of an image, from its own code.")
@click.option("--complete", type=FILE, help="Inpaint the transparent part of an image.")
@click.option("--mask", type=FILE, help="Inpainting mask for --complete: white is generated.")
@click.option("--like", type=FILE, help="Start from an image or a sketch instead of noise (image-to-image).")
@click.option("--strength", type=click.FloatRange(0, 1, min_open=True), default=0.6, show_default=True,
              help="Denoising strength for --like, 0 to 1.")  # fmt: skip
@device_option
def command(
    memory: Path | None, cue: tuple[str, ...], image: tuple[Path, ...], audio: tuple[Path, ...],
    video: tuple[Path, ...], to: str, from_memory: bool | None, generator: Path | None,
    guidance: float | None, sight: float, steps: int | None, number: int, seed: int, out: Path,
    preview: Path | None, between: tuple[str, str] | None, vary: Path | None, complete: Path | None,
    mask: Path | None, like: Path | None, strength: float, device: str,
) -> None:  # fmt: skip
    """Generate images from cues and what they recall.

    The memory recalls the record that matches the cues, and the generator is conditioned on the retrieved
    code. The metadata of each file say that it was generated, by which generator, and from which cue.

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
    request = imagination.between(*between, number) if between else imagination.request(given, from_memory)
    click.echo(request.how, err=True)
    eye = imagination.eye() if sight else None
    drawn = draw_into(
        out, saved, request, Sampling(number, steps, guidance, seed, sight, eye), preview=preview,
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
    """Raise UsageError for options that exclude each other."""
    ways = {"--between": between, "--vary": vary, "--complete": complete, "--like": like}
    chosen = [name for name, value in ways.items() if value]
    if len(chosen) > 1:
        raise click.UsageError(f"{chosen[0]} and {chosen[1]} exclude each other: give one of them")
    if cued and (between or vary):
        raise click.UsageError(f"{chosen[0]} takes no other cues: leave them out")
    if mask and not complete:
        raise click.UsageError("--mask needs --complete: give the image too")
