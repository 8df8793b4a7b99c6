"""Every generator on equal terms: what it costs to train and to draw with, and what it draws.

Each system is trained with the same budget of CPU time on one thread. A few steps of every stage are timed
first, which gives the number of steps; it is kept with the run, in build/generation/DATASET/SYSTEM, so that
the command goes on where it stopped and trains nothing twice. `--measure` draws and measures again.

Figures of MNIST are in the features of the judge, a classifier of its own (99 % right on held-out digits),
whose name stands above the table; those of Flickr8k in the codes of the text judge. Text match, x100, is of
the text judge's codes of picture and text. "Real, drawn again" are training pictures drawn with replacement,
as many as each system draws: what one that knew the training set by heart would get.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from inspect import signature

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.common import REPOSITORY, Row, data_folder, row, write
from benchmarks.generation_judges import BUDGET, REAL, Measure, Plan
from benchmarks.generation_runs import overview, work
from harmonia.recipes import RECIPES, recipe, settings_of
from harmonia.types import HarmoniaError

COLUMNS = {
    "parameters (M)": ".2f",
    "CPU s": ".0f",
    "steps": ".0f",
    "images/s": ".0f",
    "PSNR": ".1f",
    "SSIM": ".3f",
    "LPIPS-like": ".3f",
    "accuracy %": ".1f",
    "text match": ".1f",
    "FD": ".2f",
    "FD at infinity": ".2f",
    "at infinity, low": ".2f",
    "at infinity, high": ".2f",
    "KD": ".3f",
    "precision": ".3f",
    "recall": ".3f",
    "density": ".2f",
    "coverage": ".3f",
}
FD_GOALS = dict.fromkeys(("gan", "stylegan", "attngan", "vqvae-prior", "dalle", "maskgit"), 15.0)
ACCURACY, BEST_FD, FEW_STEPS, FEW = 99.0, 2.0, 4, 1.3


def systems(dataset: str) -> list[str]:
    """The recipes of generators, by what their functions say they return, that are made for a dataset.

    By default they are of MNIST; one that has another default is of that one alone.
    """
    found = []
    for name in RECIPES:
        function = recipe(name)
        drawing = "GeneratorRun" in str(signature(function).return_annotation)
        if drawing and getattr(settings_of(function), "dataset", "") in ("mnist", dataset):
            found.append(name)
    return found


def show(table: Mapping[str, Mapping[str, float]], title: str) -> None:
    """The one table: a line for each system, a column for each figure that any of them has."""
    columns = [name for name in COLUMNS if any(name in figures for figures in table.values())]
    grid = Table(box=box.SIMPLE_HEAD, title=title)
    for name in ("system", *columns):
        grid.add_column(name, justify="left" if name == "system" else "right")
    for system, figures in table.items():
        grid.add_row(system, *(format(figures[c], COLUMNS[c]) if c in figures else "" for c in columns))
    Console(width=40 + 11 * len(columns)).print(grid)


def rows_of(table: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """Every figure as a row, real pictures drawn again as the peer."""
    units = {"CPU s": "s", "PSNR": "dB", "accuracy %": "%", "parameters (M)": "million"}
    floor = table.get(REAL, {})
    return [
        row(f"{system}: {name}", value, units.get(name, name), *_peer(name, floor, system))
        for system, figures in table.items()
        for name, value in figures.items()
    ]


def _peer(name: str, floor: Mapping[str, float], system: str) -> tuple[str | None, float | None]:
    return (REAL, floor[name]) if system != REAL and name in floor else (None, None)


def goals(table: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """What is aimed at on MNIST: of the best system, that of the least FD; of few steps, beside the best; of
    GANs and autoregressive systems.
    """
    drawn = {s: f for s, f in table.items() if not s.startswith("real") and "FD" in f}
    if not drawn:
        return []
    good = {s: f for s, f in drawn.items() if f.get("accuracy %", 0) >= ACCURACY} or drawn
    best = min(good, key=lambda system: good[system]["FD"])
    found = [
        row(
            f"best system ({best}): accuracy", drawn[best].get("accuracy %", 0.0), "%", goal=(">=", ACCURACY)
        ),
        row(f"best system ({best}): FD", drawn[best]["FD"], "FD", goal=("<=", BEST_FD)),
    ]
    for system, figures in drawn.items():
        if system.endswith("-student") and figures["steps"] <= FEW_STEPS:
            what = f"{system}, {figures['steps']:.0f} steps: FD"
            found.append(row(what, figures["FD"], "FD", best, drawn[best]["FD"], ("<=", FEW)))
        if system in FD_GOALS:
            found.append(row(f"{system}: FD", figures["FD"], "FD", goal=("<=", FD_GOALS[system])))
    return found


def run_all(names: Sequence[str], plan: Plan, jobs: int, measure: bool) -> list[str]:
    """Train and measure every system in a process of its own; the names of those that failed."""

    def one(name: str) -> bool:
        command = [sys.executable, "-m", "benchmarks.generation", "--worker", name, *plan.arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        log = plan.home / f"{name}.log"
        with log.open("a", encoding="utf-8") as file:
            done = subprocess.run(
                command + ["--measure"] * measure, cwd=REPOSITORY, env=environment, stdout=file, stderr=file,
                check=False,
            )  # fmt: skip
        if done.returncode:
            last = (log.read_text(encoding="utf-8").strip().splitlines() or ["no word"])[-1]
            print(f"{name} failed: {last} (all of it: {log.relative_to(REPOSITORY)})", file=sys.stderr)
        return not done.returncode

    with ThreadPoolExecutor(jobs) as pool:
        return [name for name, well in zip(names, pool.map(one, names), strict=True) if not well]


def chosen(text: str | None, dataset: str, quick: bool) -> list[str]:
    """The systems of ``--systems``; all of them without it, or two for CI."""
    there = systems(dataset)
    if text is None:
        return there[:2] if quick else there
    names = text.split(",")
    if unknown := set(names) - set(there):
        sys.exit(f"there is no system {', '.join(sorted(unknown))}: name some of {', '.join(there)}")
    return names


def collected(plan: Plan, judged: Measure) -> dict[str, dict[str, float]]:
    """The figures of every system that has been measured, real pictures first."""
    found = judged.reals()
    for name in systems(plan.dataset):
        file = plan.home / name / "figures.json"
        if file.exists():
            found[name] = json.loads(file.read_text(encoding="utf-8"))
    return found


def title(plan: Plan, judged: Measure) -> str:
    """What the table is of."""
    budget = "a few steps" if plan.quick else f"{plan.minutes:g} CPU minutes of training each"
    return f"{plan.dataset}, {budget}, {plan.count} pictures drawn, FD in features of: {judged.features.name}"


def main() -> None:
    """Train and measure what is asked for; print the table of all that is there, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", default="mnist", choices=("mnist", "emoji", "flickr8k"))
    parser.add_argument("--systems", help="some of them, such as vae,flow; by default all")
    parser.add_argument("--minutes", type=float, default=BUDGET, help="CPU minutes of training for each")
    parser.add_argument("--jobs", type=int, default=2, help="systems trained at a time, one thread each")
    parser.add_argument("--measure", action="store_true", help="draw and measure again what is trained")
    parser.add_argument("--quick", action="store_true", help="two systems, a few steps, for CI")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data_folder()
    plan = Plan(args.dataset, args.minutes, args.quick)
    if args.worker:
        try:
            work(args.worker, plan, args.measure)
        except HarmoniaError as error:
            sys.exit(str(error))
        return
    names = chosen(args.systems, args.dataset, args.quick)
    if not names:
        sys.exit("there is no recipe of a generator yet")
    judged = plan.judged()
    if args.quick:
        for name in names:
            work(name, plan, measure=True)
        failed = []
    else:
        failed = run_all(names, plan, args.jobs, args.measure)
    table = collected(plan, judged)
    show(table, title(plan, judged))
    overview(plan.home, list(table))
    rows = goals(table) if args.dataset == "mnist" and not args.quick else []
    for one in rows:
        print(
            f"{one['what']}: {one['value']:.2f}, goal {one['goal']}: {'holds' if one['holds'] else 'missed'}"
        )
    suffix = "" if args.dataset == "mnist" else f"-{args.dataset}"
    write("generation", rows + rows_of(table), args.quick, plan.arguments, suffix)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
