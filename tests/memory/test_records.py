"""The records of a memory as one value: refused edits, older values, edits beside recalls."""

from __future__ import annotations

import math
import pickle
import threading
from collections.abc import Callable
from copy import copy, deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonia.memory import (
    Given,
    HarmonicMemory,
    Layout,
    Scored,
    associate,
    attend,
    compact,
    consolidate,
    forget,
    learn_bias,
    learn_couplings,
    learn_trusts,
    refit,
    replay,
)
from harmonia.memory.diagnostics import hubness
from harmonia.memory.match_test import FALSE_RECALL
from harmonia.memory.records import Records

seeds = st.integers(0, 2**31 - 1)
PRECISIONS = ["float32", "float16", "int8"]


def draw(g: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=g, dtype=dtype), dim=-1)


def small(seed: int = 0, precision: str = "float32", dtype: torch.dtype = torch.float64) -> HarmonicMemory:
    """Thirty records with a; the last ten have no b."""
    g = torch.Generator().manual_seed(seed)
    has = torch.arange(30) < 20
    codes = {"a": draw(g, 30, 8, dtype=dtype), "b": draw(g, 30, 6, dtype=dtype)}
    layout = Layout.aligned({"a": torch.ones(30, dtype=torch.bool), "b": has})
    return HarmonicMemory(codes, layout, precision=precision)  # type: ignore[arg-type]


def fingerprint(memory: HarmonicMemory | Records) -> list[torch.Tensor]:
    """Everything that is stored."""
    parts = [memory.layout.slot, memory.bias, memory.count, memory.born, memory.alive]
    for key in sorted(memory.matrices):
        parts += [memory.layout.parts[key], memory.matrices[key][:], memory.frames[key].mean]
    return [part.clone() for part in parts]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- refused edits ----------------------------------------------------------------------------------

one = torch.ones(1, 8).double()
REFUSED: dict[str, Callable[[HarmonicMemory], Any]] = {
    "no modality": lambda m: m.insert({}),
    "no row": lambda m: m.insert({"a": one[:0]}),
    "unequal rows": lambda m: m.insert({"a": one, "b": torch.ones(2, 6)}),
    "width": lambda m: m.insert({"b": torch.ones(1, 6), "a": torch.ones(1, 9)}),
    "width of a later one": lambda m: m.insert({"new": torch.ones(1, 3), "a": torch.ones(1, 9)}),
    "one axis": lambda m: m.insert({"new": torch.ones(1, 3), "a": torch.ones(8)}),
    "three axes": lambda m: m.insert({"a": torch.ones(1, 1, 8)}),
    "no width": lambda m: m.insert({"new": torch.ones(1, 0)}),
    "NaN": lambda m: m.insert({"new": torch.ones(1, 3), "a": one * math.nan}),
    "infinite": lambda m: m.insert({"new": torch.ones(1, 3), "a": one * math.inf}),
    "complex": lambda m: m.insert({"a": one * 1j}),
    "no tensor": lambda m: m.insert({"new": torch.ones(1, 3), "a": np.ones((1, 8))}),  # type: ignore[dict-item]
    "present of another length": lambda m: m.insert({"a": one, "c": one}, {"c": torch.ones(2) > 0}),
    "present of too few": lambda m: m.insert(
        {"a": one.repeat(2, 1), "c": one.repeat(2, 1)}, {"c": torch.ones(1) > 0}
    ),
    "present of nothing given": lambda m: m.insert({"a": one}, {"b": torch.ones(1) > 0}),
    "delete beyond": lambda m: m.delete(torch.tensor([0, 30])),
    "delete before": lambda m: m.delete(torch.tensor([0, -1])),
    "delete by fractions": lambda m: m.delete(torch.tensor([0.0, 1.0])),
    "delete by a matrix": lambda m: m.delete(torch.tensor([[0], [1]])),
    "delete by too few flags": lambda m: m.delete(torch.ones(29) > 0),
    "update beyond": lambda m: m.update(30, {"a": one[0]}),
    "update before": lambda m: m.update(-1, {"a": one[0]}),
    "update of an unknown modality": lambda m: m.update(0, {"a": one[0], "c": one[0]}),
    "update of another width": lambda m: m.update(0, {"a": one[0], "b": one[0]}),
    "update with NaN": lambda m: m.update(0, {"a": one[0], "b": torch.full((6,), math.nan)}),
    "update with two": lambda m: m.update(0, {"b": torch.ones(6), "a": one.repeat(2, 1)}),
    "forget all": lambda m: forget(m, older_than=9),
    "a bias of another length": lambda m: setattr(m, "bias", torch.zeros(29)),
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_edit_changes_nothing(name: str, precision: str) -> None:
    memory = small(precision=precision)
    cues = [Given("a", draw(torch.Generator().manual_seed(1), 3, 8))]
    before, records, found = fingerprint(memory), memory.records, memory.recall(cues)
    with pytest.raises(ValueError) as error:
        REFUSED[name](memory)
    assert "\n" not in str(error.value) and str(error.value)
    assert memory.records is records and same(before, fingerprint(memory))
    again = memory.recall(cues)
    assert torch.equal(found.p, again.p) and torch.equal(found.slots, again.slots)
    # And the next edit is taken.
    new = draw(torch.Generator().manual_seed(2), 1, 8)
    assert memory.recall([Given("a", new)]).slots[0, 0] != 30
    assert memory.insert({"a": new}).tolist() == [30]
    assert memory.recall([Given("a", new)]).slots[0, 0] == 30


def test_what_is_no_mistake_is_taken() -> None:
    memory = small()
    memory.delete([])
    memory.delete(torch.tensor([]))
    assert memory.held == 30
    memory.delete([3, 3, 4])
    memory.delete(torch.arange(30) == 5)
    assert memory.held == 27
    # A new modality that none of the records has.
    memory.insert({"a": one, "c": one}, {"c": torch.zeros(1) > 0})
    assert sorted(memory.matrices) == ["a", "b"] and memory.slots == 31
    # A record without any modality is a slot that nothing recalls.
    assert memory.insert({"a": one}, {"a": torch.zeros(1) > 0}).tolist() == [31]
    assert 31 not in memory.recall([Given("a", one)], k=40).slots[0]


# --- older values -----------------------------------------------------------------------------------


def random_edit(records: Records, g: torch.Generator) -> Records:
    kind = int(torch.randint(6, (1,), generator=g))
    n = int(torch.randint(1, 5, (1,), generator=g))
    slot = int(torch.randint(records.slots, (1,), generator=g))
    if kind <= 1:
        has = torch.rand(n, generator=g) < 0.7
        return records.insert({"a": draw(g, n, 8), "b": draw(g, n, 6)}, {"b": has})
    if kind == 2 and int(records.alive.sum()) > 8:
        return records.delete([slot])
    if kind == 3 and bool(records.alive[slot]):
        return records.update(slot, {"b": draw(g, 6)})
    if kind == 4:
        return records.compact()[0]
    return records.refit()


@pytest.mark.parametrize("precision", PRECISIONS)
@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_an_edit_leaves_every_older_value_as_it_was(precision: str, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    values = [small(seed, precision).records]
    seen = [fingerprint(values[0])]
    for _ in range(8):
        # Any of the values may be the one that is edited: they branch.
        base = values[int(torch.randint(len(values), (1,), generator=g))]
        values.append(random_edit(base, g))
        seen.append(fingerprint(values[-1]))
    assert all(same(old, fingerprint(value)) for old, value in zip(seen, values, strict=True))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_older_value_answers_as_it_did_from_its_quantised_copy(precision: str) -> None:
    """Enough rows and cues that the copy is scanned; both values hold rows of one buffer."""
    g = torch.Generator().manual_seed(3)
    codes = draw(g, 9000, 16, dtype=torch.float32)
    memory = HarmonicMemory({"a": codes}, precision=precision)  # type: ignore[arg-type]
    cues = [Given("a", codes[:16])]
    old, before = memory.snapshot(), memory.recall(cues)
    for _ in range(3):
        memory.insert({"a": codes[:16] + 1e-3})
        memory.recall(cues)
        memory.update(int(memory.slots) - 1, {"a": codes[0]})
        memory.recall(cues)
    after = old.recall(cues)
    assert torch.equal(before.slots, after.slots) and torch.equal(before.p, after.p)


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_any_edits_come_to_the_memory_built_anew(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    records = small(seed).records
    for _ in range(6):
        records = random_edit(records, g)
    records = records.compact()[0].refit()
    codes, presence = {}, {}
    for key, matrix in records.matrices.items():
        part = records.layout.parts[key]
        presence[key] = part >= 0
        codes[key] = torch.where(presence[key][:, None], matrix.raw()[part.clamp(min=0)], 0.0)
    memory, anew = small(), HarmonicMemory(codes, Layout.aligned(presence), frames=records.frames)
    memory.records = records
    cues = [Given("a", draw(g, 4, 8), trust=1.0), Given("b", draw(g, 4, 6))]
    found, expected = memory.recall(cues), anew.recall(cues)
    assert torch.equal(found.slots[:, 0], expected.slots[:, 0])
    assert torch.allclose(found.p, expected.p, atol=1e-9)
    assert torch.allclose(found.codes["b"], expected.codes["b"], atol=1e-7)


@pytest.mark.parametrize(
    "learn",
    [
        lambda m: learn_trusts(m, [Given("a", one.repeat(2, 1))], torch.tensor([0, 30])),
        lambda m: learn_trusts(m, [Given("a", one.repeat(2, 1))], torch.tensor([0])),
        lambda m: learn_trusts(m, [Given("a", torch.zeros(2, 8))], torch.tensor([0, 1])),
        lambda m: learn_trusts(m, [], torch.tensor([], dtype=torch.long)),
        lambda m: learn_bias(m, [Given("a", one * math.nan)]),
        lambda m: consolidate(m, 2.0),
        lambda m: forget(m),
        lambda m: associate(m, [Given("a", one)], "c"),
        lambda m: replay(m, [Given("a", one)], torch.arange(30), 0),
        lambda m: replay(m, [Given("a", one)], torch.arange(1, 31), 2),
        lambda m: hubness(m, "c"),
    ],
)
def test_what_cannot_be_learned_or_examined_changes_nothing(learn: Callable[[HarmonicMemory], Any]) -> None:
    memory = small()
    memory.trusts, memory.bias = {"a": 0.5, "b": 1.0}, torch.linspace(-0.1, 0.1, 30).double()
    records, used = memory.records, memory.used.clone()
    with pytest.raises(ValueError) as error:
        learn(memory)
    assert "\n" not in str(error.value)
    assert memory.records is records and torch.equal(memory.used, used)


# --- edits beside recalls ---------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
def test_recalls_in_other_threads_see_all_of_an_edit_or_nothing(precision: str) -> None:
    g = torch.Generator().manual_seed(4)
    codes = draw(g, 600, 16, dtype=torch.float32)
    memory = HarmonicMemory({"a": codes, "b": codes}, precision=precision)  # type: ignore[arg-type]
    wrong: list[str] = []
    done = threading.Event()

    def recall() -> None:
        while not done.is_set():
            try:
                found = memory.recall([Given("a", codes[:8], trust=2.0), Given("b", codes[:8])], k=4)
                # The first eight records are never edited, and keep their numbers.
                if found.slots[:, 0].tolist() != list(range(8)):
                    wrong.append(f"found {found.slots[:, 0].tolist()}")
            except Exception as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=recall) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(40):
        new = draw(g, 20, 16, dtype=torch.float32)
        slots = memory.insert({"a": new, "b": new} if i % 3 else {"a": new})
        memory.update(int(slots[0]), {"a": draw(g, 16, dtype=torch.float32)})
        memory.trusts, memory.bias = {"a": 0.5 + 0.5 * (i % 2)}, torch.zeros(memory.slots)
        memory.delete(slots[10:])
        if i % 10 == 9:
            compact(memory)
            refit(memory)
            consolidate(memory, 0.9999)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[:3]


def test_learning_goes_on_beside_edits() -> None:
    memory, g = small(), torch.Generator().manual_seed(8)
    wrong: list[str] = []
    done = threading.Event()

    def learn() -> None:
        codes = [Given("a", memory.matrices["a"].raw()[:20])]
        while not done.is_set():
            try:
                learn_trusts(memory, codes, torch.arange(20))
                learn_bias(memory, codes, rounds=3)
                learn_couplings(memory)
                hubness(memory, "a", k=3)
                associate(memory, codes, "b")
                replay(memory, codes, torch.full((memory.slots,), -1), 2)
            except Exception as error:
                # The number of slots may change before ``follows`` is looked at.
                if "follows needs" not in str(error):
                    wrong.append(repr(error))

    thread = threading.Thread(target=learn)
    thread.start()
    for _ in range(60):
        slots = memory.insert({"a": draw(g, 3, 8), "b": draw(g, 3, 6)})
        memory.delete(slots[:1])
    done.set()
    thread.join()
    assert not wrong, wrong[:3]
    assert len(memory.bias) == memory.slots == 210


def test_edits_in_several_threads_are_all_made() -> None:
    memory = small()

    def insert(seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        for _ in range(20):
            memory.insert({"a": draw(g, 1, 8)})
            memory.trusts = {"a": 0.5}

    threads = [threading.Thread(target=insert, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory.slots == memory.held == 30 + 80
    assert memory.matrices["a"].shape[0] == 110 and memory.born.max() == 80


def test_no_use_is_lost_to_an_edit() -> None:
    memory, g = small(), torch.Generator().manual_seed(5)
    codes = memory.records.matrices["a"].raw()[:5]
    expected, done = torch.zeros(200), threading.Event()

    def recall() -> None:
        while not done.is_set() or expected.sum() < 60:
            found = memory.recall([Given("a", codes)])
            expected[found.slots[found.nothing <= FALSE_RECALL, 0]] += 1

    thread = threading.Thread(target=recall)
    thread.start()
    for _ in range(60):
        memory.insert({"a": draw(g, 1, 8)})
        memory.delete([memory.slots - 1])
    done.set()
    thread.join()
    assert memory.used.long().tolist() == expected[: memory.slots].long().tolist()


def test_a_snapshot_goes_its_own_way() -> None:
    memory = small()
    cue = [Given("a", memory.matrices["a"].raw()[:1])]
    counted, quiet = memory.snapshot(), memory.snapshot(counts=False)
    memory.insert({"a": draw(torch.Generator().manual_seed(6), 3, 8)})
    for still in (counted, quiet):
        assert still.slots == 30 and still.recall(cue).slots[0, 0] == 0
    assert memory.used[0] == 1 and quiet.used[0] == 1
    counted.delete([0])
    assert counted.recall(cue).slots[0, 0] != 0 and memory.recall(cue).slots[0, 0] == 0
    assert memory.held == 33 and counted.held == 29
    for other in (copy(memory), deepcopy(memory), pickle.loads(pickle.dumps(memory))):
        other.insert({"a": one})
        assert (other.slots, memory.slots) == (34, 33)
        assert other.recall(cue).slots[0, 0] == 0


# --- cues that cannot be, and cues that say nothing --------------------------------------------------

cue = torch.ones(2, 8)
BAD_CUES: dict[str, Callable[[HarmonicMemory], Any]] = {
    "no cue": lambda m: m.recall([]),
    "NaN": lambda m: m.recall([Given("a", cue * math.nan)]),
    "one NaN": lambda m: m.recall([Given("a", cue.masked_fill(torch.eye(2, 8) > 0, math.nan))]),
    "infinite": lambda m: m.recall([Given("a", cue * -math.inf)]),
    "of another width": lambda m: m.recall([Given("a", torch.ones(2, 7))]),
    "one axis": lambda m: m.recall([Given("a", torch.ones(8))]),
    "no row": lambda m: m.recall([Given("a", torch.ones(0, 8))]),
    "unequal rows": lambda m: m.recall([Given("a", cue), Given("b", torch.ones(1, 6))]),
    "an unknown modality": lambda m: m.recall([Given("c", cue)]),
    "an unknown origin": lambda m: m.recall([Given("a", cue, origin="c")]),
    "weight": lambda m: m.recall([Given("a", cue, weight=math.nan)]),
    "trust": lambda m: m.recall([Given("a", cue, trust=math.nan)]),
    "negative trust": lambda m: m.recall([Given("a", cue, trust=-1.0)]),
    "free of an unknown modality": lambda m: m.recall([Given("a", cue)], free={"c": 1.0}),
    "free weight": lambda m: m.recall([Given("a", cue)], free={"b": math.inf}),
    "scores of another shape": lambda m: m.recall([Given("a", cue)], scored=[Scored(torch.zeros(2, 29))]),
    "infinite scores": lambda m: m.recall([Given("a", cue)], scored=[Scored(torch.full((2, 30), math.inf))]),
    "k": lambda m: m.recall([Given("a", cue)], k=0),
    "steps": lambda m: m.recall([Given("a", cue)], steps=-1),
    "alpha": lambda m: m.recall([Given("a", cue)], alpha=0.5),
    "alpha NaN": lambda m: m.recall([Given("a", cue)], alpha=math.nan),
    "beta": lambda m: m.recall([Given("a", cue)], beta=0.0),
    "beta NaN": lambda m: m.recall([Given("a", cue)], beta=math.nan),
    "noise": lambda m: m.recall([Given("a", cue)], noise=-1.0),
    "tolerance": lambda m: m.recall([Given("a", cue)], tail_tolerance=math.nan),
    "allowed of another length": lambda m: m.recall([Given("a", cue)], allowed=torch.ones(29) > 0),
}


@pytest.mark.parametrize("name", BAD_CUES)
def test_a_cue_that_cannot_be_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ValueError) as error:
        BAD_CUES[name](small(dtype=torch.float32))
    assert "\n" not in str(error.value) and str(error.value)


@pytest.mark.parametrize(
    ("codes", "layout"),
    [
        ({}, None),
        ({"a": torch.ones(0, 4)}, None),
        ({"a": torch.ones(3, 4), "b": torch.ones(0, 4)}, None),
        ({"a": torch.ones(4)}, None),
        ({"a": torch.ones(3, 0)}, None),
        ({"a": torch.full((3, 4), math.nan)}, None),
        ({"a": torch.ones(3, 4)}, Layout.aligned({"a": torch.ones(4) > 0})),
        ({"a": torch.ones(3, 4)}, Layout.aligned({"b": torch.ones(3) > 0})),
        ({"a": torch.ones(3, 4)}, Layout(3, torch.tensor([0, 2, 1]), {"a": torch.arange(3)})),
        ({"a": torch.ones(3, 4)}, Layout(2, torch.arange(3), {"a": torch.arange(3)})),
        ({"a": torch.ones(3, 4)}, Layout(3, torch.arange(3), {"a": torch.arange(2)})),
    ],
)
def test_codes_that_make_no_memory_are_refused_in_one_line(
    codes: dict[str, torch.Tensor], layout: Layout | None
) -> None:
    with pytest.raises(ValueError) as error:
        HarmonicMemory(codes, layout)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("alpha", [1.0, 1.5, 3.0])
@pytest.mark.parametrize("trust", [2.0, math.inf])
def test_where_nothing_is_left_to_recall_nothing_is_the_answer(alpha: float, trust: float) -> None:
    memory, cues = small(), [Given("a", torch.ones(2, 8), trust=trust)]
    deleted = small()
    deleted.delete(range(30))
    for found in (
        memory.recall(cues, allowed=torch.zeros(30) > 0, alpha=alpha),
        deleted.recall(cues, alpha=alpha),
    ):
        assert (found.slots == -1).all() and (found.p == 0).all()
        assert torch.allclose(found.nothing, torch.ones_like(found.nothing))
        assert all(code.isfinite().all() for code in found.codes.values())
        assert (found.energies.diff(dim=0) <= 1e-9).all()
    with pytest.raises(ValueError, match="no record has a part in 'b'"):
        b = Layout.aligned({"a": torch.ones(3) > 0, "b": torch.zeros(3) > 0})
        HarmonicMemory({"a": torch.eye(3), "b": torch.eye(3)}, b).recall([Given("b", torch.eye(3))])


@given(
    seed=seeds,
    trusts=st.tuples(*[st.sampled_from([0.0, 0.1, 1.0, 4.0, 100.0, math.inf])] * 2),
    weights=st.tuples(*[st.sampled_from([-1.0, 0.0, 0.3, 1.0])] * 2),
    scale=st.one_of(
        st.sampled_from([0.0, 1e-12, 1.0, 1e6]), st.floats(-300, 0).map(lambda exponent: 10.0**exponent)
    ),
    alpha=st.sampled_from([1.0, 1.5, 2.5]),
    free=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_the_energy_never_rises_for_cues_of_any_size(
    seed: int,
    trusts: tuple[float, float],
    weights: tuple[float, float],
    scale: float,
    alpha: float,
    free: bool,
) -> None:
    """Zero cues among them (silence, a blank): those with a finite trust say nothing and are completed."""
    g = torch.Generator().manual_seed(seed)
    memory = small(seed)
    a = draw(g, 4, 8) * torch.tensor([scale, 0.0, 1.0, scale]).double()[:, None]
    b = draw(g, 4, 6) * torch.tensor([1.0, 1.0, scale, scale]).double()[:, None]
    cues = [Given("a", a, weights[0], trusts[0])]
    options: dict[str, Any] = {"free": {"b": weights[1]}} if free else {}
    if not free:
        cues.append(Given("b", b, weights[1], trusts[1]))
    settled = memory.recall(cues, alpha=alpha, steps=12, **options)
    assert settled.energies.isfinite().all()
    assert (settled.energies.diff(dim=0) <= 1e-9 * (1 + settled.energies[:-1].abs())).all()
    assert settled.p.isfinite().all()


def test_a_zero_cue_with_a_finite_trust_is_as_if_the_modality_were_missing() -> None:
    memory = small(dtype=torch.float32)
    b = Given("b", memory.matrices["b"].raw()[:3])
    zero = memory.recall([b, Given("a", torch.zeros(3, 8), trust=4.0)])
    missing = memory.recall([b], free={"a": 1.0})
    for name in ("p", "scores", "energies", "nothing"):
        assert torch.allclose(getattr(zero, name), getattr(missing, name), atol=1e-5), name
    # A clamped zero stays what it is.
    held = memory.recall([b, Given("a", torch.zeros(3, 8))])
    assert (held.state[1] == 0).all() and (held.steps == 0).all()
    assert held.contraction.max() < 1e4


@pytest.mark.parametrize(
    ("codes", "cues", "options"),
    [
        (torch.ones(0, 4), torch.ones(1, 4), {}),
        (torch.ones(3, 4), torch.ones(0, 4), {}),
        (torch.ones(3, 4), torch.ones(4), {}),
        (torch.ones(3, 4), torch.ones(1, 5), {}),
        (torch.ones(3, 4), torch.full((1, 4), math.nan), {}),
        (torch.ones(3, 4), torch.ones(1, 4), {"k": 0}),
        (torch.ones(3, 4), torch.ones(1, 4), {"beta": math.nan}),
    ],
)
def test_attention_over_nothing_or_of_nothing_is_refused(
    codes: torch.Tensor, cues: torch.Tensor, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="attend needs") as error:
        attend(codes, cues, **({"beta": 1.0} | options))
    assert "\n" not in str(error.value)
