"""What the shipped encoder knows: held-out names of emoji, digits, sounds and films (docs/mini.md).

Every figure is how often the nearest code is a right one ("@10": one of the ten nearest). Pictures of emoji
were seen in training, these names of them were not; digits, spoken digits and sounds were not seen.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.common import data_folder, report, row
from harmonia.encoders import MINI
from harmonia.encoders.alignment import Alignment, AlignmentConfig
from harmonia.encoders.towers.saved import load_towers
from harmonia.recipes.encoders import trimodal
from harmonia.recipes.encoders.mini import read_emoji
from harmonia.recipes.encoders.mini_evaluation import hold, score


def main() -> None:
    """Measure the shipped weights and write results/mini.json."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    data = data_folder()
    emoji = read_emoji(data)
    towers = load_towers(MINI).towers
    model = Alignment(towers, AlignmentConfig(objective="cmhn", within=1.0)).eval()
    pictures = trimodal.prepare({"image": emoji.train["image"]}, towers)["image"]
    with torch.inference_mode():
        figures = score(model, hold(data, towers, pictures, emoji.held, emoji.english))
    chance = {"emoji": 1 / len(pictures.record), "digits": 0.1, "sounds": 0.1}
    rows = [
        row(what, value, "hit rate", *_peer(what, chance))
        for what, value in figures.items()
        if what != "mean"
    ]
    report("mini", rows, quick=False)


def _peer(what: str, chance: dict[str, float]) -> tuple[str | None, float | None]:
    """Chance, where it is the same for every cue."""
    if what == "sounds: noisy clip to clip":
        return None, None
    return "chance", chance[what.partition(":")[0]] * (10 if what.endswith("@10") else 1)


if __name__ == "__main__":
    main()
