"""The public datasets that Harmonia reads, by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from harmonia.data.public import Records
from harmonia.types import HarmoniaError

DATASETS: dict[str, str] = {
    # photos and captions
    "coco": "harmonia.data.coco:coco",
    "coco_karpathy": "harmonia.data.coco:coco_karpathy",
    "flickr8k": "harmonia.data.flickr:flickr8k",
    "flickr30k": "harmonia.data.flickr:flickr30k",
    # photos, questions and answers
    "vqa": "harmonia.data.vqa:vqa",
    "easyvqa": "harmonia.data.vqa:easyvqa",
    "nlvr": "harmonia.data.vqa:nlvr",
    "daquar": "harmonia.data.daquar:daquar",
    # pictures with labels and names
    "mnist": "harmonia.data.mnist:mnist",
    "pacs": "harmonia.data.pacs:pacs",
    "emoji": "harmonia.data.emoji:emoji",
    # sounds, speech and videos
    "audioset": "harmonia.data.audioset:audioset",
    "audiocaps": "harmonia.data.audiocaps:audiocaps",
    "clotho": "harmonia.data.clotho:clotho",
    "esc50": "harmonia.data.esc50:esc50",
    "esc10": "harmonia.data.esc50:esc10",
    "fsdd": "harmonia.data.fsdd:fsdd",
    "grid": "harmonia.data.grid:grid",
    # any dataset in a common container, at large scale
    "webdataset": "harmonia.data.webdataset:webdataset",
    "hub": "harmonia.data.hub:hub",
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
