"""Slots spread over two processes (gloo, loopback): the same answers as one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from harmonia.memory import Given, HarmonicMemory, Layout

SLOTS, CUT, D = 500, 180, 12


def memory_of(first: int, last: int, group: dist.ProcessGroup | None = None) -> HarmonicMemory:
    generator = torch.Generator().manual_seed(0)
    codes = {
        key: torch.nn.functional.normalize(torch.randn(SLOTS, D, generator=generator).double(), dim=-1)
        for key in ("image", "text")
    }
    rows = torch.arange(SLOTS)[first:last]
    # Every third record has no text.
    texts = rows[rows % 3 > 0]
    place = torch.full((SLOTS,), -1)
    place[texts] = torch.arange(len(texts))
    parts = {"image": torch.arange(len(rows)), "text": place[rows]}
    layout = Layout(len(rows), torch.arange(len(rows)), parts)
    return HarmonicMemory({"image": codes["image"][rows], "text": codes["text"][texts]}, layout, group=group)


def answers(memory: HarmonicMemory) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    codes = {
        key: torch.nn.functional.normalize(torch.randn(SLOTS, D, generator=generator).double(), dim=-1)
        for key in ("image", "text")
    }
    out = {}
    for alpha in (1.0, 1.5):
        for trust in (float("inf"), 0.5):
            cues = [Given(key, codes[key][:7], trust=trust) for key in codes]
            settled = memory.recall(cues, alpha=alpha, k=5, tail_tolerance=1e-9)
            # whether anything matches is told by theory there: no rank has the codes of all
            for name in ("slots", "p", "energies", "tail", "moment"):
                out[f"{name} {alpha} {trust}"] = getattr(settled, name)
            out[f"part {alpha} {trust}"] = torch.stack(settled.part)
            out[f"adds {alpha} {trust}"] = torch.stack(settled.adds)
            out[f"codes {alpha} {trust}"] = torch.cat([settled.codes[k] for k in sorted(settled.codes)], -1)
    return out


def rank(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    bounds = [(0, CUT), (CUT, SLOTS)][number]
    memory = memory_of(*bounds, group=dist.group.WORLD)
    assert memory.held == SLOTS
    with pytest.raises(ValueError, match="spread over ranks"):
        memory.delete(torch.tensor([0]))
    torch.save(answers(memory), f"{folder}/{number}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_answer_as_one(tmp_path: Path) -> None:
    mp.start_processes(rank, args=(str(tmp_path),), nprocs=2, start_method="spawn")
    whole = answers(memory_of(0, SLOTS))
    for number in range(2):
        found = torch.load(tmp_path / f"{number}.pt")
        for name, value in whole.items():
            if name.startswith("part"):
                continue
            assert torch.allclose(found[name].double(), value.double(), atol=1e-9), name
        # Part numbers count through the ranks; the photos lie in the order of the records.
        assert (found["part 1.0 inf"][0] == whole["part 1.0 inf"][0]).all()
