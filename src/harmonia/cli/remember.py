"""harmonia remember."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import click

from harmonia.cli.common import FOLDER, find_memory, json_option, print_json

SHOWN = 20


@click.command("remember")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="HARMONIA_MEMORY",
    help=f"Folder of the memory (default: {FOLDER} here or above).",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="Encoders of a new memory (default: descriptors mini); or a pretrained model's hub name or folder.",
)
@click.option("--copy", is_flag=True, help="Keep copies of the media inside the memory.")
@click.option("--threads", type=click.IntRange(1), help="Threads that decode (default: cores + 1).")
@json_option
def command(
    paths: tuple[Path, ...], into: Path | None, models: tuple[str, ...], copy: bool, threads: int | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Remember files, folders and manifests (.jsonl, .csv, .parquet).

    Only what is new or changed is encoded. Files of one name side by side (dog.jpg, dog.txt, dog.wav)
    are one record. Ctrl-C is safe: run the command again and it goes on. Exit code 1 if anything could
    not be remembered, 130 if stopped.
    """
    from harmonia.collection.collection import Collection

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    begun = time.monotonic()
    collection = Collection(find_memory(into), models or None)
    report = collection.remember(paths, copy=copy, progress=not as_json, threads=threads)
    if as_json:
        print_json(
            {
                "remembered": report.remembered,
                "already": report.already,
                "problems": [{"path": p.path, "reason": p.reason} for p in report.problems],
                "gone": list(report.gone),
                "ignored": report.ignored,
                "stopped": report.stopped,
            }
        )
    else:
        click.echo(
            f"remembered {report.remembered} records, {report.already} were known, "
            f"{len(report.problems)} failed, in {time.monotonic() - begun:.1f} s ({collection.root})"
        )
        for problem in report.problems:
            click.echo(f"  {problem.path}: {problem.reason}", err=True)
        _list("gone since they were remembered (`harmonia forget --gone` drops them)", report.gone)
        if report.ignored:
            click.echo(f"{report.ignored} files of other kinds were left alone")
        if report.stopped:
            click.echo("stopped; run the same command again to go on", err=True)
    sys.exit(130 if report.stopped else 1 if report.problems else 0)


def _list(what: str, paths: tuple[str, ...]) -> None:
    if paths:
        click.echo(f"{len(paths)} files are {what}:")
        for path in paths[:SHOWN]:
            click.echo(f"  {path}")
        if len(paths) > SHOWN:
            click.echo(f"  and {len(paths) - SHOWN} more")
