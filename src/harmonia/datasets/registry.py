"""The public datasets that Harmonia reads, by name."""

from __future__ import annotations

from collections.abc import Callable

from harmonia.datasets.reading import Records
from harmonia.imports import lazy_entry

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
"""The reader of each dataset, ``module:function``, imported on first use. Every reader is called as
``reader(folder, split="train", ...)`` and yields records. To add one, write a reader and add its line."""


def reader(name: str) -> Callable[..., Records]:
    """The reader of a dataset; a HarmoniaError lists the datasets if ``name`` is not one."""
    function: Callable[..., Records] = lazy_entry(DATASETS, name, "dataset")
    return function
