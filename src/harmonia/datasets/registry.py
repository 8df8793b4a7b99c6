"""The public datasets that Harmonia reads, by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from harmonia.datasets.reading import Records
from harmonia.types import HarmoniaError

DATASETS: dict[str, str] = {
    # photos and captions
    "coco": "harmonia.datasets.coco:coco",
    "coco_karpathy": "harmonia.datasets.coco:coco_karpathy",
    "flickr8k": "harmonia.datasets.flickr:flickr8k",
    "flickr30k": "harmonia.datasets.flickr:flickr30k",
    # photos, questions and answers
    "vqa": "harmonia.datasets.vqa:vqa",
    "easyvqa": "harmonia.datasets.vqa:easyvqa",
    "nlvr": "harmonia.datasets.vqa:nlvr",
    "daquar": "harmonia.datasets.daquar:daquar",
    # pictures with labels and names
    "mnist": "harmonia.datasets.mnist:mnist",
    "pacs": "harmonia.datasets.pacs:pacs",
    "emoji": "harmonia.datasets.emoji:emoji",
    # sounds, speech and videos
    "audioset": "harmonia.datasets.audioset:audioset",
    "audiocaps": "harmonia.datasets.audiocaps:audiocaps",
    "clotho": "harmonia.datasets.clotho:clotho",
    "esc50": "harmonia.datasets.esc50:esc50",
    "esc10": "harmonia.datasets.esc50:esc10",
    "fsdd": "harmonia.datasets.fsdd:fsdd",
    "grid": "harmonia.datasets.grid_corpus:grid",
    # any dataset in a common container, at large scale
    "webdataset": "harmonia.datasets.webdataset:webdataset",
    "hub": "harmonia.datasets.hub:hub",
}
"""Name of a dataset and its reader, ``module:function``, imported when it is asked for. Every reader is
called as ``reader(folder, split="train", ...)`` and gives a stream of records; to add one, add its line."""


def reader(name: str) -> Callable[..., Records]:
    """The reader of a dataset; a HarmoniaError names those there are."""
    if name not in DATASETS:
        raise HarmoniaError(f"there is no dataset {name!r}; name one of {', '.join(DATASETS)}")
    module, function = DATASETS[name].split(":")
    found: Callable[..., Records] = getattr(import_module(module), function)
    return found
