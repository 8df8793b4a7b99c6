"""WebDataset shards: tar files in which the files of one stem are one sample, read as a stream.

The format of large collections (LAION, CC12M): ``000017.jpg``, ``000017.txt`` and ``000017.json`` in
``shard-000003.tar`` belong together. See github.com/webdataset/webdataset.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset

from harmonia.data.manifest import column_holds, row_metadata
from harmonia.data.records import Problem
from harmonia.datasets.reading import Records, dataset_record, embedded_part, text_parts
from harmonia.datasets.shards import Shards, find_shards, read_samples, wds
from harmonia.modalities import MODALITIES, modality_of
from harmonia.types import HarmoniaError, Record, Signal


def webdataset(shards: Shards, split: str = "all") -> Records:
    """The records in shards; their media become files in the cache folder.

    A sample's files by their last suffix: every medium that Harmonia reads and ``.txt`` are parts;
    ``.json`` is metadata, except a caption or captions in it, which are text; ``.cls`` is the metadata
    ``label``. Other files (arrays, pickles) are not read. A text that comes twice counts once. ``split``
    keeps the shards with that word in their name: ``train`` keeps ``coco-train-000001.tar``.

    Metadata: dataset (the shard's folder), split, name (the sample's key), path, and what its JSON says. A
    sample without any part, and the rest of a damaged shard, is a Problem.
    """
    found = find_shards(shards, split)
    return (record for shard in found for record in _records(shard, split))


def _records(shard: Path, split: str) -> Records:
    samples = read_samples(shard)
    while True:
        try:
            sample = next(samples)
        except StopIteration:
            return
        except HarmoniaError as error:
            yield Problem(str(shard), str(error))
            return
        key = sample["__key__"]
        try:
            yield _record(shard, split, sample)
        except ValueError as error:
            yield Problem(str(shard), f"sample {key}: {error}")


def _record(shard: Path, split: str, sample: Mapping[str, Any]) -> Record:
    media, said, metadata = _sorted_out(sample)
    parts = [embedded_part(modality, content, name) for modality, name, content in media]
    key = sample["__key__"]
    return dataset_record(
        metadata.pop("dataset", shard.parent.name),
        metadata.pop("split", split),
        metadata.pop("name", Path(key).name),
        (*parts, *text_parts(said)),
        **({} if parts else {"path": str(shard)}) | metadata,
    )


def _sorted_out(
    sample: Mapping[str, Any],
) -> tuple[list[tuple[str, str, bytes]], list[str], dict[str, Any]]:
    """(modality, file name, bytes) of its media, its texts, and its metadata; a ValueError without parts."""
    media: list[tuple[str, str, bytes]] = []
    said: list[str] = []
    metadata: dict[str, Any] = {}
    for extension, content in sorted(sample.items()):
        name = f"{Path(sample['__key__']).name}.{extension}"
        modality = None if extension.startswith("__") else modality_of(name)
        if modality == "text":
            said.append(_text(content))
        elif modality:
            media.append((modality, name, content))
        elif name.endswith(".json"):
            facts, captions = _facts(content)
            metadata |= facts
            said += captions
        elif name.endswith(".cls"):
            label = content.decode("ascii", "replace").strip()
            metadata["label"] = int(label) if label.isdecimal() else label
    said = list(dict.fromkeys(text for text in said if text))
    if not media and not said:
        found = ", ".join(name for name in sample if not name.startswith("__"))
        raise ValueError(f"none of its files is a part of a record: {found}")
    return media, said, metadata


def _text(content: bytes) -> str:
    if not content.strip():
        return ""
    try:
        return MODALITIES["text"].read(content).text.strip()
    except HarmoniaError as error:
        raise ValueError(f"its text cannot be read: {error}") from None


def _facts(content: bytes) -> tuple[dict[str, Any], list[str]]:
    """Metadata and captions in a sample's JSON."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its .json is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError("its .json is not a JSON object {...}")
    captions: list[str] = []
    for name in [name for name in found if column_holds(name) == "text"]:
        value = found[name]
        captions += [str(text).strip() for text in (value if isinstance(value, list) else [value]) if text]
    return row_metadata(found), captions


class ShardSamples(IterableDataset[dict[str, Any]]):
    """Decoded samples for training, straight from the shards, with nothing written to disk.

    Every sample is a dict: ``key``, ``metadata``, and for each modality it has a list of Signals. Each rank
    and, within it, each worker of a DataLoader reads its own shards, so ranks may see different numbers of
    samples. ``shuffle`` is the size of the buffer that samples are drawn from (0: in order); the order is
    given by ``seed`` and the epoch, which :meth:`set_epoch` sets. It is a stream: to go on at step s it has
    to be read up to there.

    A damaged shard or sample is a HarmoniaError, or goes to ``on_problem`` and is left out.
    """

    def __init__(
        self,
        shards: Shards,
        split: str = "all",
        *,
        shuffle: int = 0,
        seed: int = 0,
        on_problem: Callable[[Problem], None] | None = None,
    ) -> None:
        self.shards = find_shards(shards, split)
        self.shuffle = shuffle
        self.seed = seed
        self.on_problem = on_problem
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        tools = wds()
        _, ranks, worker, _ = tools.utils.pytorch_worker_info()
        if len(self.shards) < ranks:
            raise HarmoniaError(
                f"{len(self.shards)} shards are too few for {ranks} ranks; write at least one for each"
            )
        shards = list(self.shards)
        if self.shuffle:
            random.Random(f"{self.seed} {self.epoch}").shuffle(shards)
        mine = tools.split_by_worker(tools.split_by_node(shards))
        samples = (sample for shard in mine for sample in self._decoded(shard))
        if self.shuffle:
            order = random.Random(f"{self.seed} {self.epoch} {worker}")
            samples = tools.filters._shuffle(samples, self.shuffle, self.shuffle, order)
        yield from samples

    def _decoded(self, shard: Path) -> Iterator[dict[str, Any]]:
        samples = read_samples(shard)
        while True:
            try:
                sample = next(samples)
            except StopIteration:
                return
            except HarmoniaError as error:
                self._report(shard, str(error))
                return
            try:
                yield _signals(sample)
            except (HarmoniaError, ValueError) as error:
                self._report(shard, f"sample {sample['__key__']}: {error}")

    def _report(self, shard: Path, reason: str) -> None:
        if self.on_problem is None:
            raise HarmoniaError(reason if str(shard) in reason else f"{shard}, {reason}")
        self.on_problem(Problem(str(shard), reason))


def _signals(sample: Mapping[str, Any]) -> dict[str, Any]:
    media, said, metadata = _sorted_out(sample)
    decoded: dict[str, Any] = {"key": sample["__key__"], "metadata": metadata}
    for modality, _, content in media:
        decoded.setdefault(modality, []).append(MODALITIES[modality].read(content))
    if said:
        decoded["text"] = [Signal("text", text) for text in said]
    return decoded
