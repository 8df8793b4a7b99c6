"""The global batch: two real processes over gloo have the loss and the gradients of one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from harmonia.memory import Tsallis
from harmonia.objectives import (
    cloob,
    gather,
    hfy_loss,
    image_text_matching,
    info_loob,
    info_nce,
    offset,
    sigmoid_loss,
    uniformity,
)
from harmonia.types import HarmoniaError

RANKS, ROWS = 2, 6
RECORDS = torch.tensor([0, 0, 1, 2, 3, 9])
OTHERS = torch.tensor([3, 1, 2, 0, 0, 2])
TOGETHER = RECORDS[:, None] == OTHERS


class Towers(nn.Module):
    """Two linear towers and a scale that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.y = nn.Linear(5, 4).double(), nn.Linear(3, 4).double()
        self.log_scale = nn.Parameter(torch.tensor(1.2, dtype=torch.float64))

    def forward(self, photos: Tensor, captions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return F.normalize(self.x(photos)), F.normalize(self.y(captions)), self.log_scale.exp()


def ids(rows: slice) -> tuple[Tensor, Tensor]:
    return RECORDS[rows], OTHERS[rows]


def towers() -> Towers:
    torch.manual_seed(0)
    return Towers()


def media() -> tuple[Tensor, Tensor]:
    make = torch.Generator().manual_seed(1)
    return (torch.randn(ROWS, d, dtype=torch.float64, generator=make) for d in (5, 3))  # type: ignore[return-value]


Loss = Callable[[Tensor, Tensor, Tensor, slice], Tensor]
LOSSES: dict[str, Loss] = {
    "info_nce": lambda x, y, s, rows: info_nce(x, y, s),
    "info_nce, several": lambda x, y, s, rows: info_nce(x, y, s, positives=ids(rows), chunk=2),
    "info_nce, bool": lambda x, y, s, rows: info_nce(x, y, s, positives=TOGETHER[rows]),
    "sigmoid": lambda x, y, s, rows: sigmoid_loss(x, y, s, -2.0, positives=ids(rows), chunk=2),
    "loob": lambda x, y, s, rows: info_loob(x, y, s, positives=ids(rows)),
    "cloob": lambda x, y, s, rows: cloob(x, y, s, 3.0),
    "cloob, bool": lambda x, y, s, rows: cloob(x, y, s, 3.0, positives=TOGETHER[rows], chunk=1),
    "hfy": lambda x, y, s, rows: hfy_loss(x, y, s, entropy=Tsallis(1.5), positives=ids(rows)),
    "hfy, bool": lambda x, y, s, rows: hfy_loss(x, y, s, positives=TOGETHER[rows], chunk=2),
    "whole ranking": lambda x, y, s, rows: image_text_matching(gather(s * x), gather(y), 0.2, "all"),
    "uniformity": lambda x, y, s, rows: s * uniformity(gather(x)) + uniformity(gather(y)),
}


def step(model: nn.Module, loss: Loss, rows: slice) -> tuple[Tensor, list[Tensor]]:
    photos, captions = media()
    model.zero_grad()
    value = loss(*model(photos[rows], captions[rows]), rows)
    value.backward()
    return value.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@contextmanager
def joined(rank: int, folder: str) -> Iterator[None]:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=RANKS)
    try:
        yield
    finally:
        dist.destroy_process_group()


def work(rank: int, folder: str) -> None:
    """What each of the two processes does; rank 0 writes what came out."""
    with joined(rank, folder):
        rows = slice(rank * ROWS // RANKS, (rank + 1) * ROWS // RANKS)
        model = DistributedDataParallel(towers())
        found: dict[str, Any] = {}
        for name, loss in LOSSES.items():
            value, gradients = step(model, loss, rows)
            found[name] = gather(value[None]).mean(), gradients
        found["order"] = gather(torch.arange(2) + 10 * rank), offset(3)
        try:
            gather(torch.zeros(1 + rank, 2))
        except HarmoniaError as error:
            found["unequal"] = str(error)
        torch.save(found, Path(folder) / f"rank{rank}.pt")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, args=(str(folder),), nprocs=RANKS)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("name", LOSSES)
def test_two_processes_have_the_loss_and_gradients_of_one(
    name: str, two_processes: list[dict[str, Any]]
) -> None:
    value, gradients = step(towers(), LOSSES[name], slice(0, ROWS))
    assert len(gradients) == 5 and all(g.abs().max() > 0 for g in gradients)
    for found in two_processes:
        torch.testing.assert_close(found[name], (value, gradients))


def test_rows_come_in_the_order_of_the_ranks(two_processes: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(two_processes):
        rows, start = found["order"]
        assert rows.tolist() == [0, 1, 10, 11] and start == 3 * rank


def test_unequal_ranks_are_told(two_processes: list[dict[str, Any]]) -> None:
    assert all("[1, 2] rows" in found["unequal"] for found in two_processes)


def test_one_process_is_left_alone() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    assert gather(x) is x and offset(3) == 0
