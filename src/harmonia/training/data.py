"""Batches of a training run, prefetched in the background.

The batch of a step is a pure function of (seed, step), so that a resumed run sees the same batches as one
that was not interrupted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harmonia.types import HarmoniaError

ORDER, AUGMENT, NOISE, PROBE = range(4)
"""Purposes of derived seeds: the order of an epoch, augmentation, the model's noise, the data's digest."""

AHEAD = 2
"""Number of prefetched batches."""


@runtime_checkable
class Indexed(Protocol):
    """A dataset with access by index. Augmentation draws from ``generator`` only."""

    def __len__(self) -> int:
        """The number of samples."""
        ...

    def batch(self, indices: Tensor, generator: torch.Generator) -> Any:
        """The samples ``indices`` (int64 ``(n,)``) as CPU tensors for ``model.losses``."""
        ...


@runtime_checkable
class Stream(Protocol):
    """A streamed dataset: tar shards, or a dataset streamed from the Hugging Face hub."""

    def batches(self, size: int, seed: int, rank: int, world: int) -> Iterator[Any]:
        """One epoch of batches of ``size`` samples: the share of process ``rank`` of ``world``.

        The same arguments give the same batches; ``seed`` differs from epoch to epoch.
        """
        ...


def derived(*key: int) -> int:
    """A seed for this key: independent of the seeds of other keys, the same on every machine."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def generator(*key: int) -> torch.Generator:
    """A fresh generator for this key."""
    return torch.Generator().manual_seed(derived(*key))


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """The assignment of samples to parts. A *part* is what one process computes at once: part ``k`` of a run
    is part ``k % accumulate`` of step ``k // accumulate``.

    Over all processes, a part has the same samples in the same order for any number of processes.
    """

    samples: int
    batch: int
    accumulate: int
    seed: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        """HarmoniaError if a batch cannot be divided among the processes."""
        if self.batch % (self.accumulate * self.world):
            raise HarmoniaError(
                f"a batch of {self.batch} cannot be shared by {self.world} processes in "
                f"{self.accumulate} parts each: make it a multiple of {self.accumulate * self.world}"
            )
        if self.samples < self.batch:
            raise HarmoniaError(
                f"the data has {self.samples} samples, fewer than one batch of {self.batch}: make it smaller"
            )

    @property
    def size(self) -> int:
        """Samples in a part, on this process."""
        return self.batch // (self.accumulate * self.world)

    def order(self, epoch: int) -> Tensor:
        """The permutation of an epoch, int64 ``(samples,)``; an incomplete last batch is dropped."""
        return torch.randperm(self.samples, generator=generator(self.seed, ORDER, epoch))

    def start(self, part: int) -> tuple[int, int]:
        """The epoch of a part, and where this process's samples begin in the epoch's order."""
        step, part = divmod(part, self.accumulate)
        epoch, step = divmod(step, self.samples // self.batch)
        return epoch, step * self.batch + (part * self.world + self.rank) * self.size


class Parts(Dataset[Any]):
    """An indexed dataset by part instead of by sample; the order of one epoch is kept at a time."""

    def __init__(self, data: Indexed, plan: Plan) -> None:
        self.data, self.plan = data, plan
        self.epoch, self.order = -1, torch.empty(0, dtype=torch.long)

    def __getitem__(self, part: int) -> Any:
        """Part ``part`` of the run, on this process."""
        plan = self.plan
        epoch, start = plan.start(part)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, plan.order(epoch)
        draws = generator(plan.seed, AUGMENT, part, plan.rank)
        return self.data.batch(self.order[start : start + plan.size], draws)


def parts(
    data: Indexed | Stream, *, batch: int, accumulate: int, seed: int, rank: int, world: int, workers: int
) -> Callable[[int, int], Iterator[Any]]:
    """A function of (first, end) that gives the parts of the run from ``first`` to before ``end``."""
    if isinstance(data, Indexed):
        return _indexed(Parts(data, Plan(len(data), batch, accumulate, seed, rank, world)), workers)
    if not isinstance(data, Stream):
        raise HarmoniaError(
            f"{type(data).__name__} is not a dataset: it needs __len__ and batch(indices, generator), "
            "or batches(size, seed, rank, world)"
        )
    if workers:
        raise HarmoniaError("a streamed dataset is read by one thread: set workers to 0")
    if batch % (accumulate * world):
        raise HarmoniaError(
            f"a batch of {batch} cannot be shared: make it a multiple of {accumulate * world}"
        )
    size = batch // (accumulate * world)
    return lambda first, end: _streamed(data, size, seed, rank, world, first, end)


def _indexed(parts: Parts, workers: int) -> Callable[[int, int], Iterator[Any]]:
    def between(first: int, end: int) -> Iterator[Any]:
        if not workers:
            return (parts[part] for part in range(first, end))
        loader = DataLoader(
            parts,
            batch_size=None,
            sampler=range(first, end),
            num_workers=workers,
            prefetch_factor=AHEAD,
            worker_init_fn=_ignore_signals,
        )
        return iter(loader)

    return between


def _ignore_signals(worker: int) -> None:
    """Ctrl-C reaches a whole process group; when to stop is the loop's decision."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _streamed(
    data: Stream, size: int, seed: int, rank: int, world: int, first: int, end: int
) -> Iterator[Any]:
    """Epoch after epoch of a stream; the parts before ``first`` are read and dropped."""
    part = epoch = 0
    while part < end:
        before = part
        for batch in data.batches(size, derived(seed, ORDER, epoch), rank, world):
            if first <= part < end:
                yield batch
            part += 1
            if part == end:
                return
        if part == before:
            raise HarmoniaError(f"the data has no batch of {size} samples in an epoch: make it smaller")
        epoch += 1


def digest(data: Indexed | Stream, seed: int) -> str:
    """A digest of the data, compared when a run resumes: its length and eight of its samples.

    A stream is not read for this; it may have an attribute ``fingerprint`` instead.
    """
    if not isinstance(data, Indexed):
        return str(getattr(data, "fingerprint", ""))
    sha = hashlib.sha256()

    def take(tensor: Tensor) -> Tensor:
        flat = tensor.detach().cpu().contiguous()
        sha.update(f"{flat.dtype}{tuple(flat.shape)}".encode())
        sha.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
        return tensor

    some = torch.linspace(0, len(data) - 1, min(8, len(data))).long()
    on_tensors(take, data.batch(some, generator(seed, PROBE)))
    return f"{len(data)} samples, {sha.hexdigest()[:16]}"


def on_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """``value`` with ``function`` applied to its tensors, inside mappings, sequences and dataclasses."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: on_tensors(function, item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(on_tensors(function, item) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(on_tensors(function, item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        return dataclasses.replace(value, **on_tensors(function, fields))
    return value


class Ahead:
    """An iterator that a background thread keeps ``AHEAD`` batches in front of its reader.

    For a CUDA device the thread also moves them into pinned memory, from where copies overlap with work.
    """

    def __init__(self, source: Iterator[Any], device: torch.device) -> None:
        self.source, self.device = source, device
        self.ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(AHEAD)
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self._fill, name="harmonia-batches", daemon=True)
        self.thread.start()

    def _fill(self) -> None:
        try:
            for batch in self.source:
                pinned = on_tensors(Tensor.pin_memory, batch) if self.device.type == "cuda" else batch
                if not self._put((pinned, None)):
                    return
            self._put((None, StopIteration()))
        except BaseException as error:  # handed to the reader, which raises it
            self._put((None, error))

    def _put(self, item: tuple[Any, BaseException | None]) -> bool:
        while not self.closed.is_set():
            with contextlib.suppress(queue.Full):
                self.ready.put(item, timeout=0.1)
                return True
        return False

    def __iter__(self) -> Ahead:
        return self

    def __next__(self) -> Any:
        """The next batch, on the device."""
        batch, error = self.ready.get()
        if error is not None:
            raise error
        if self.device.type == "cpu":
            return batch
        return on_tensors(lambda tensor: tensor.to(self.device, non_blocking=True), batch)

    def close(self) -> None:
        """Stop the thread, and with it the worker processes of its source."""
        self.closed.set()
        self.thread.join()
        del self.source
