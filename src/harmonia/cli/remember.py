"""The command `harmonia remember`."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from harmonia.cli.common import FEW_WORDS, FOLDER, built_in, find_memory, json_option, print_json
from harmonia.cli.running_server import RunningServer, through_server

SHOWN = 20
KINDS = 8
FORMATS = "docs/installation.md lists the formats"


@click.command("remember")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="HARMONIA_MEMORY",
    help=f"Memory folder (default: the nearest {FOLDER}, here or above).",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="Encoders of a new memory: descriptors, mini, a folder, or the hub name of a pretrained model; "
    "repeatable (default: descriptors and mini).",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Leave matching files and folders out of the folders given; repeatable. PATTERN has the syntax of "
    ".gitignore, and so have the lines of .harmoniaignore files.",
)
@click.option("--copy", is_flag=True, help="Copy the media into the memory.")
@click.option(
    "--threads", type=click.IntRange(1), help="Number of decoding threads (default: cores + 1, at most 8)."
)
@json_option
def command(
    paths: tuple[Path, ...], into: Path | None, models: tuple[str, ...], exclude: tuple[str, ...], copy: bool,
    threads: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Add files, folders and manifests to the memory.

    Manifests are .jsonl, .csv or .parquet files. Files of one folder that differ only in their extension
    (dog.jpg, dog.txt, dog.wav) form one record. Only new and changed files are encoded. Ctrl-C is safe: run
    the same command again to continue. The exit code is 1 if a file failed or there is nothing to remember in
    a new memory, and 130 if interrupted.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    begun = time.monotonic()
    report = None
    if not models and threads is None:
        report = through_server(into, lambda server: _by(server, paths, exclude, copy, progress=not as_json))
    made = True
    if report is None:
        report, made = _here(paths, into, models, exclude, copy, threads, progress=not as_json)
    if as_json:
        print_json(report)
    else:
        taken = f"in {time.monotonic() - begun:.1f} s"
        _print(report, f"{taken} ({find_memory(into)})" if made else taken)
        _advise(find_memory(into), report["remembered"])
    if not made and not report["stopped"]:
        click.echo(f"harmonia: {_why_nothing(report, paths)}: no memory was made", err=True)
    sys.exit(130 if report["stopped"] else 1 if report["problems"] or not made else 0)


def _here(
    paths: Sequence[Path], into: Path | None, models: Sequence[str], exclude: Sequence[str], copy: bool,
    threads: int | None, *, progress: bool,
) -> tuple[dict[str, Any], bool]:  # fmt: skip
    """Remember in this process; returns the report, and whether there is a memory now.

    A new memory in which nothing was remembered is removed again.
    """
    from harmonia.collection.collection import Memory

    root = find_memory(into)
    collection, new_folder = Memory(root, models or None), not root.exists()
    existed, made = collection.exists, True
    if not existed and not any(path.exists() for path in paths):
        from harmonia.types import HarmoniaError

        raise HarmoniaError(f"{paths[0]} does not exist; check the path")
    try:
        outcome = collection.remember(paths, copy=copy, progress=progress, threads=threads, exclude=exclude)
    finally:
        if not existed and collection.discard_empty():
            made = False
            if new_folder:  # what was extracted from a manifest
                shutil.rmtree(root, ignore_errors=True)
    if made:
        collection.status()  # counts what is held now, so that `harmonia status` need not open the store
    return {
        "remembered": outcome.remembered,
        "already": outcome.already,
        "problems": [{"path": p.path, "reason": p.reason} for p in outcome.problems],
        "gone": list(outcome.gone),
        "ignored": outcome.ignored,
        "kinds": dict(outcome.kinds),
        "left_out": dict(outcome.left_out),
        "stopped": outcome.stopped,
    }, made


def _by(
    server: RunningServer, paths: Sequence[Path], exclude: Sequence[str], copy: bool, *, progress: bool
) -> dict[str, Any]:
    """Remember through the server of the memory."""
    from tqdm import tqdm

    with tqdm(desc="remembering", unit="rec", leave=False, disable=not progress) as bar:

        def watch(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        job = server.remember(paths, copy=copy, exclude=exclude, watch=watch)
    return {
        "remembered": job["remembered"],
        "already": job["already"],
        "problems": [{"path": p["path"], "reason": p["reason"]} for p in job["problems"]],
        "gone": job["gone"],
        "ignored": job["ignored"],
        "kinds": job["kinds"],
        "left_out": job["left_out"],
        "stopped": job["state"] == "stopped",
    }


def _print(report: Mapping[str, Any], where: str) -> None:
    from harmonia.data.left_out import REASONS, WAYS_IN

    problems, ignored = report["problems"], report["ignored"]
    click.echo(
        f"{report['remembered']} added, {report['already']} unchanged, {len(problems)} failed, {where}"
    )
    for problem in problems:
        click.echo(f"  {problem['path']}: {problem['reason']}", err=True)
    _list("missing since they were remembered (`harmonia forget --gone` removes them)", report["gone"])
    if ignored:
        kinds = [f"{suffix or 'without suffix'} {count}" for suffix, count in report["kinds"].items()]
        shown = ", ".join(kinds[:KINDS]) + (", ..." if len(kinds) > KINDS else "")
        ways = [way for way, suffixes in WAYS_IN.items() if not report["kinds"].keys().isdisjoint(suffixes)]
        click.echo(f"{ignored} skipped of kinds that are not read ({shown}): {'; '.join(ways) or FORMATS}")
    for reason, count in report["left_out"].items():
        click.echo(f"{count} {REASONS[reason]}")
    if report["stopped"]:
        click.echo("interrupted: run the same command again to continue", err=True)


def _why_nothing(report: Mapping[str, Any], paths: Sequence[Path]) -> str:
    """Why nothing was remembered."""
    where = ", ".join(map(str, paths[:3])) + (", ..." if len(paths) > 3 else "")
    if report["problems"]:
        return f"no file of {where} could be read"
    if report["left_out"]:
        return f"nothing is left to remember in {where}: its files are left out"
    return f"nothing to remember in {where}: it has no images, texts, sounds or videos"


def _advise(root: Path, added: int) -> None:
    """Say on standard error how many images have no words, if words cannot find them."""
    if not added or not built_in(root):
        return
    from harmonia import store
    from harmonia.modalities import modality_of

    opened = store.open(root)
    images = {file.record_id for file in opened.files().values() if modality_of(file.path) == "image"}
    if bare := len(images - set(opened.texts()[0])):
        click.echo(f"{bare} images have no caption, and {FEW_WORDS}", err=True)


def _list(what: str, paths: Sequence[str]) -> None:
    if paths:
        click.echo(f"{len(paths)} files are {what}:")
        for path in paths[:SHOWN]:
            click.echo(f"  {path}")
        if len(paths) > SHOWN:
            click.echo(f"  and {len(paths) - SHOWN} more")
