"""Towers of one space: batches, the pairwise objectives, the harmonic network and its identities."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from harmonia.encoders.alignment import Alignment, AlignmentConfig, Harmonic
from harmonia.encoders.towers.base import Tower, TowerConfig
from harmonia.memory import entropy
from harmonia.objectives import cloob, hfy_loss, info_nce, sigmoid_loss
from harmonia.training.record_arrays import Batch, Pairs, Views
from harmonia.types import HarmoniaError, Signal

RECORDS, DIM = 8, 6


@dataclass(frozen=True, kw_only=True)
class LinearConfig(TowerConfig):
    inputs: int = 5


class Linear(Tower):
    """A tower of vectors."""

    def __init__(self, modality: str, inputs: int = 5, dim: int = DIM) -> None:
        super().__init__()
        self.modality, self.config = modality, LinearConfig(dim=dim, inputs=inputs)
        self.map = nn.Linear(inputs, dim).double()

    def prepare(self, signals: Sequence[Signal]) -> Tensor:
        return torch.stack([torch.from_numpy(s.array) for s in signals])

    def forward(self, inputs: Tensor) -> Tensor:
        return self.map(inputs)


def towers(*names: str) -> dict[str, Tower]:
    torch.manual_seed(0)
    return {name: Linear(name) for name in names}


def model(config: AlignmentConfig, names: Sequence[str] = ("image", "text")) -> Alignment:
    return Alignment(towers(*names), config).double()


def batch(per_record: dict[str, int], records: int = RECORDS) -> Batch:
    make = torch.Generator().manual_seed(1)
    return {
        name: Views(
            torch.randn(records * n, 5, dtype=torch.float64, generator=make),
            torch.arange(records).repeat_interleave(n),
        )
        for name, n in per_record.items()
    }


# --- batches


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=3, max_size=12).filter(
        lambda counts: all(sum(c) for c in counts)
    ),
    st.sampled_from([0.0, 0.5, 0.9]),
    st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_a_batch_holds_parts_of_its_records_and_no_record_loses_all(counts, drop, per_record):
    rows = {m: [(r, k) for r, c in enumerate(counts) for k in range(c[i])] for i, m in enumerate("ab")}
    parts = {
        m: Views(torch.tensor(pairs).reshape(-1, 2), torch.tensor([r for r, _ in pairs]).long())
        for m, pairs in rows.items()
    }
    data = Pairs(parts, records=len(counts), per_record=per_record, drop=drop)
    chosen = torch.randperm(len(counts))[: max(2, len(counts) // 2)]
    found = data.batch(chosen, torch.Generator().manual_seed(3))
    again = data.batch(chosen, torch.Generator().manual_seed(3))
    met = set()
    for m, view in found.items():
        assert torch.equal(view.inputs, again[m].inputs) and torch.equal(view.record, again[m].record)
        assert torch.equal(view.inputs[:, 0], chosen[view.record])  # parts of the right record
        assert len({tuple(part) for part in view.inputs.tolist()}) == len(view.inputs)  # none twice
        per = torch.bincount(view.record, minlength=len(chosen))
        held = torch.tensor([counts[int(r)]["ab".index(m)] for r in chosen])
        assert bool(((per == 0) | (per == held.clamp(max=per_record))).all())
        met |= set(view.record.tolist())
    assert met == set(range(len(chosen)))


def test_pairs_refuse_what_cannot_be_a_batch():
    with pytest.raises(HarmoniaError, match="one modality at least"):
        Pairs({})
    with pytest.raises(HarmoniaError, match="drop"):
        Pairs({"text": Views(torch.zeros(2, 1), torch.arange(2))}, drop=1.0)
    with pytest.raises(HarmoniaError, match="name 3 records"):
        Pairs({"text": Views(torch.zeros(3, 1), torch.arange(3))}, records=2)


# --- the pairwise objectives are the functions of harmonia.objectives


@pytest.mark.parametrize("objective", ["clip", "siglip", "cloob", "hfy"])
def test_pairwise_objectives(objective):
    net, data = model(AlignmentConfig(objective=objective, scale=10.0)), batch({"image": 1, "text": 2})
    codes = net(data)
    x, y = codes["image"].inputs, codes["text"].inputs
    ids = (codes["image"].record, codes["text"].record)
    wanted = {
        "clip": lambda: info_nce(x, y, 10.0, positives=ids),
        "siglip": lambda: sigmoid_loss(x, y, 10.0, -10.0, positives=ids),
        "cloob": lambda: cloob(x, y, 10.0, 8.0, positives=ids),
        "hfy": lambda: hfy_loss(x, y, 10.0, entropy=entropy(1.5), positives=ids),
    }[objective]()
    assert torch.allclose(net.losses(data)["alignment"], wanted.detach())


def test_within_adds_the_two_captions_of_a_record():
    plain, both = (model(AlignmentConfig(objective="clip", within=w)) for w in (0.0, 0.5))
    data = batch({"image": 1, "text": 2})
    y = both(data)["text"].inputs.view(RECORDS, 2, DIM)
    extra = 0.5 * info_nce(y[:, 0], y[:, 1], both.scale)
    got = both.losses(data)["alignment"] - plain.losses(data)["alignment"]
    assert torch.allclose(got, extra.detach())


def test_only_the_pairs_asked_for_are_compared():
    hub = AlignmentConfig(objective="clip", pairs=(("image", "text"), ("image", "audio")))
    net = model(hub, ("image", "text", "audio"))
    with pytest.raises(HarmoniaError, match="nothing to align"):
        net.losses(batch({"text": 1, "audio": 1}))
    assert torch.isfinite(net.losses(batch({"image": 1, "audio": 1}))["alignment"])


# --- the harmonic network


def test_with_one_part_each_it_is_clip():
    data = batch({"image": 1, "text": 1})
    harmonic = model(AlignmentConfig(objective="cmhn", within=0.0)).losses(data)["alignment"]
    assert torch.allclose(harmonic, model(AlignmentConfig(objective="clip")).losses(data)["alignment"])


def test_a_cue_does_not_find_itself():
    """With one caption a record, captions are no cues for captions; with two, each is for the other."""
    one, two = batch({"text": 1}), batch({"text": 2})
    net = model(AlignmentConfig(objective="cmhn", within=1.0))
    with pytest.raises(HarmoniaError, match="nothing to align"):
        net.losses(one)
    y = net(two)["text"].inputs.view(RECORDS, 2, DIM)
    # both directions between the first and the second captions, the mean of which is symmetric InfoNCE
    assert torch.allclose(net.losses(two)["alignment"], info_nce(y[:, 0], y[:, 1], net.scale).detach())


def test_records_with_one_modality_are_used():
    """A third of the records have only captions: they change the loss, and the towers of both still learn."""
    full = batch({"image": 1, "text": 2})
    image = full["image"]
    partial = full | {"image": Views(image.inputs[:5], image.record[:5])}
    net = model(AlignmentConfig(objective="cmhn", within=1.0))
    loss = net.losses(partial)["alignment"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(bool((p.grad != 0).any()) for p in net.towers.parameters())
    without = partial | {"text": Views(full["text"].inputs[:10], full["text"].record[:10])}
    assert not torch.allclose(loss, net.losses(without)["alignment"])


@given(st.integers(0, 10_000), st.integers(1, 5), st.floats(1.0, 20.0), st.booleans())
@settings(max_examples=25, deadline=None)
def test_settling_lowers_the_energy_and_keeps_the_cue(seed, steps, beta, learned):
    torch.manual_seed(seed)
    names, pairs = ("a", "b", "c"), (("a", "b"), ("b", "c"))
    net = Harmonic(names, pairs, DIM, couplings=learned).double()
    for weight in net.couplings.values():
        nn.init.normal_(weight, std=0.3)
    slots = {m: F.normalize(torch.randn(7, DIM, dtype=torch.float64), dim=1) for m in names}
    present = {m: torch.rand(7) < 0.7 for m in names}
    cue = {"b": F.normalize(torch.randn(4, DIM, dtype=torch.float64), dim=1)}
    heights = []
    for taken in range(steps + 1):
        state = net.settle(cue, slots, present, beta, taken)
        s = net.scores(state, slots, present)
        height = -torch.logsumexp(beta * s, dim=1) / beta
        for m, other in pairs:
            weight = net.couplings[f"{m}|{other}"] if learned else torch.eye(DIM, dtype=torch.float64)
            height = height - ((state[other] @ weight.mT) * state[m]).sum(dim=1)
        heights.append(height)
        assert torch.equal(state["b"], cue["b"])
        assert all(torch.allclose(g.norm(dim=1), torch.ones(4, dtype=torch.float64)) for g in state.values())
    assert bool((torch.stack(heights).diff(dim=0) <= 1e-9).all())


def test_couplings_bias_and_precision_learn_through_the_descent():
    config = AlignmentConfig(objective="cmhn", within=1.0, whole=0.5, steps=2, couplings=True, bias=True)
    net = model(config)
    net.losses(batch({"image": 1, "text": 2}))["alignment"].backward()
    learned = [*net.harmonic.couplings.values(), *net.harmonic.bias.values(), net.log_scale]
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in learned)


def test_training_makes_any_part_find_the_whole():
    """Captions and pictures of one latent; after training, a caption alone finds its record."""
    make = torch.Generator().manual_seed(5)
    latent = torch.randn(64, 5, dtype=torch.float64, generator=make)
    mix = torch.randn(2, 5, 5, dtype=torch.float64, generator=make)
    parts = {
        "image": Views(latent @ mix[0], torch.arange(64)),
        "text": Views(
            (latent @ mix[1]).repeat_interleave(2, 0)
            + 0.1 * torch.randn(128, 5, dtype=torch.float64, generator=make),
            torch.arange(64).repeat_interleave(2),
        ),
    }
    data, net = Pairs(parts, per_record=2, drop=0.2), model(AlignmentConfig(objective="cmhn", within=1.0))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)

    def recall() -> float:
        x, y = net.codes("image", parts["image"].inputs), net.codes("text", parts["text"].inputs)
        return float(((y @ x.T).argmax(dim=1) == parts["text"].record).double().mean())

    before = recall()
    for _ in range(200):
        loss = net.losses(data.batch(torch.randperm(64, generator=make)[:32], make))["alignment"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before < 0.2 and recall() > 0.6


def uneven() -> Batch:
    """The last record has no text, those before one caption, the first half two: ranks differ."""
    data = batch({"image": 1, "text": 2})
    kept = [i for i in range(2 * RECORDS) if i < RECORDS or (i % 2 == 0 and i < 2 * RECORDS - 2)]
    text = data["text"]
    return data | {"text": Views(text.inputs[kept], text.record[kept])}


def alone() -> Batch:
    """One rank has no text at all."""
    data = batch({"image": 2, "text": 2})
    text = data["text"]
    return data | {"text": Views(text.inputs[:RECORDS], text.record[:RECORDS])}


BATCHES = {"even": lambda: batch({"image": 1, "text": 2}), "uneven": uneven, "one without text": alone}


def _rank(rank: int, file: str, out: str, kind: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    net = model(AlignmentConfig(objective="cmhn", within=1.0, steps=1))
    data, half = BATCHES[kind](), RECORDS // 2
    own = {}
    for name, view in data.items():
        mine = (view.record // half) == rank
        if bool(mine.any()):
            own[name] = Views(view.inputs[mine], view.record[mine] - rank * half)
    loss = net.losses(own)["alignment"]
    loss.backward()
    grads = gradients(net)
    for tensor in (loss.detach(), grads):
        dist.all_reduce(tensor)
        tensor /= 2
    if rank == 0:
        torch.save((loss.detach(), grads), out)
    dist.destroy_process_group()


def gradients(net: nn.Module) -> Tensor:
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()]
    return torch.cat([grad.flatten() for grad in found])


@pytest.mark.parametrize("kind", BATCHES)
def test_two_processes_have_the_loss_and_gradient_of_one(tmp_path: Path, kind: str):
    mp.spawn(_rank, args=(str(tmp_path / "store"), str(tmp_path / "out.pt"), kind), nprocs=2)
    loss, grads = torch.load(tmp_path / "out.pt")
    net = model(AlignmentConfig(objective="cmhn", within=1.0, steps=1))
    whole = net.losses(BATCHES[kind]())["alignment"]
    whole.backward()
    assert torch.allclose(loss, whole.detach())
    assert torch.allclose(grads, gradients(net))


def test_bad_settings_are_refused_in_one_line():
    with pytest.raises(HarmoniaError, match="not known: choose from clip"):
        AlignmentConfig(objective="clipp")  # type: ignore[arg-type]
    with pytest.raises(HarmoniaError, match="scale"):
        AlignmentConfig(scale=0.0)
    with pytest.raises(HarmoniaError, match="one width"):
        Alignment({"image": Linear("image"), "text": Linear("text", dim=3)})
    with pytest.raises(HarmoniaError, match="no tower for audio"):
        Alignment(towers("image", "text"), AlignmentConfig(pairs=(("image", "audio"),)))
