"""The mathematics of the memory, as identities over random draws in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonia.memory import Centering, Given, HarmonicMemory, Layout, Shannon, Tsallis, entropy
from harmonia.memory import scan as scan_module
from harmonia.memory.energy import cue_term, slot_energy
from harmonia.memory.match_test import FALSE_RECALL
from harmonia.memory.moment_scores import MatrixQuery, read_top
from harmonia.memory.scan import scan_top
from harmonia.memory.settle import Channel, Field, settle

ALPHAS = [1.0, 1.3, 1.5, 2.0, 2.7]
seeds = st.integers(0, 2**31 - 1)


def unit(generator: torch.Generator, *shape: int) -> torch.Tensor:
    rows = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=-1)


def mixed_layout(slots: int = 12) -> Layout:
    """Records with none to three images, windows of video with sound, and captions."""
    rng = np.random.default_rng(7)
    image = np.sort(rng.integers(0, slots, 10))
    video = np.array([0, 0, 0, 3, 5, 5])
    sound = np.array([0, 0, 5, 5, 8])
    text = np.sort(rng.integers(0, slots, 15))
    nan = np.full
    return Layout.of_parts(
        slots,
        {"image": image, "video": video, "audio": sound, "text": text},
        {
            "image": nan(10, np.nan),
            "video": np.array([0.0, 10, 20, 0, 0, 10]),
            "audio": np.array([0.0, 20, 0, 0, 0]),
            "text": nan(15, np.nan),
        },
    )


def random_field(
    seed: int, alpha: float, trust: float, beta: float = 4.0
) -> tuple[Field, list[Channel], torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    layout = mixed_layout()
    sizes = {"image": 10, "video": 6, "audio": 5, "text": 15}
    matrices = {key: unit(generator, n, 8) for key, n in sizes.items()}
    keys = ("image", "text")
    rows = 5
    ones = torch.ones(rows, dtype=torch.float64)
    channels = [
        Channel(key, unit(generator, rows, 8), w * ones, trust * ones, 0.1 * ones)
        for key, w in zip(keys, (1.0, 0.7), strict=True)
    ]
    field = Field(layout, layout.view(keys), matrices, beta * ones, entropy(alpha), None, 4, 1e-9)
    return field, channels, generator


# --- entropies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_argmax_is_gradient_of_conjugate(alpha: float, seed: int) -> None:
    scores = torch.randn(3, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scores = (3 * scores).requires_grad_()
    omega = entropy(alpha)
    p = omega.argmax(scores.detach())
    assert torch.allclose(p.sum(-1), torch.ones(3, dtype=torch.float64))
    assert (p >= 0).all()
    # The conjugate is an envelope: its finite differences are the argmax.
    direction = torch.randn(3, 9, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    step = 1e-5
    up, down = omega.conjugate(scores + step * direction), omega.conjugate(scores - step * direction)
    assert torch.allclose((up - down) / (2 * step), (p * direction).sum(-1), atol=1e-4)


@pytest.mark.parametrize("alpha", [1.5, 2.0, 2.7])
def test_entmax_is_one_hot_exactly_from_its_threshold(alpha: float) -> None:
    lead = 1.0 / (alpha - 1.0)
    sure = torch.tensor([lead + 1e-9, 0.0, -1.0], dtype=torch.float64)
    unsure = torch.tensor([lead - 1e-3, 0.0, -1.0], dtype=torch.float64)
    assert Tsallis(alpha).argmax(sure)[1] < 1e-12
    assert Tsallis(alpha).argmax(unsure)[1] > 1e-12


@pytest.mark.parametrize("alpha", ALPHAS)
def test_absent_slots_get_nothing(alpha: float) -> None:
    scores = torch.tensor([0.3, -math.inf, 0.1], dtype=torch.float64)
    p = entropy(alpha).argmax(scores)
    assert p[1] == 0
    assert torch.isfinite(entropy(alpha).conjugate(scores))


def test_exact_thresholds_agree_with_bisection() -> None:
    scores = torch.randn(50, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for alpha in (1.5, 2.0):
        exact = Tsallis(alpha).argmax(scores * 4)
        near = Tsallis(alpha + 1e-12).argmax(scores * 4)
        assert torch.allclose(exact, near, atol=1e-7)


def test_alpha_must_exceed_one() -> None:
    with pytest.raises(ValueError, match="greater than 1"):
        Tsallis(0.9)


# --- frame -----------------------------------------------------------------------------------------


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_leaving_the_frame_undoes_entering(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.nn.functional.normalize(unit(generator, 20, 6) + 0.8, dim=-1)
    frame = Centering.fit(codes)
    assert torch.allclose(frame.inverse_transform(frame.transform(codes)), codes, atol=1e-9)


def test_spread_is_what_chance_gives() -> None:
    generator = torch.Generator().manual_seed(1)
    codes = torch.nn.functional.normalize(unit(generator, 500, 16) + 0.5, dim=-1)
    frame = Centering.fit(codes)
    cue = frame.transform(unit(generator, 3, 16))
    cosines = cue @ frame.transform(codes).T
    assert torch.allclose(frame.spread(cue), (cosines**2).mean(-1).sqrt())


def test_one_record_is_not_centred_away() -> None:
    memory = HarmonicMemory({"a": torch.eye(4, dtype=torch.float64)[:1]})
    settled = memory.recall([Given("a", torch.eye(4, dtype=torch.float64)[:1])])
    assert settled.slots[0, 0] == 0
    assert torch.allclose(settled.codes["a"], torch.eye(4, dtype=torch.float64)[:1])


# --- layout ----------------------------------------------------------------------------------------


def test_windows_that_start_together_are_one_moment_and_captions_multiply() -> None:
    nan = np.nan
    layout = Layout.of_parts(
        2,
        {"video": np.array([0, 0]), "audio": np.array([0]), "text": np.array([0, 0, 1])},
        {"video": np.array([0.0, 10.0]), "audio": np.array([10.0]), "text": np.array([nan, nan, nan])},
    )
    moments = list(
        zip(
            *(x.tolist() for x in (layout.slot, *(layout.parts[k] for k in ("video", "audio", "text")))),
            strict=True,
        )
    )
    assert sorted(moments) == [
        (0, 0, -1, 0),
        (0, 0, -1, 1),
        (0, 1, 0, 0),
        (0, 1, 0, 1),
        (1, -1, -1, 2),
    ]


def test_two_sounds_at_the_same_time_are_both_kept() -> None:
    layout = Layout.of_parts(1, {"audio": np.array([0, 0])}, {"audio": np.array([0.0, 0.0])})
    assert sorted(layout.parts["audio"].tolist()) == [0, 1]


def test_view_has_each_combination_once_and_only_what_it_can_see() -> None:
    layout = mixed_layout()
    view = layout.view(("image",))
    assert sorted(view.parts["image"].tolist()) == list(range(10))
    assert (view.slot[1:] >= view.slot[:-1]).all()


# --- scan ------------------------------------------------------------------------------------------


def dense_scores(layout: Layout, queries: list[MatrixQuery]) -> torch.Tensor:
    """The definition, slot by slot."""
    rows = queries[0].cue.shape[0]
    out = torch.full((rows, layout.slots), -math.inf, dtype=torch.float64)
    for moment, slot in enumerate(layout.slot.tolist()):
        total = torch.zeros(rows, dtype=torch.float64)
        seen = False
        for query in queries:
            part = int(layout.parts[query.key][moment])
            total += query.cue @ query.codes[part] if part >= 0 else query.absent
            seen |= part >= 0
        if seen:
            out[:, slot] = torch.maximum(out[:, slot], total)
    return out


@pytest.mark.parametrize("block", [1, 4 << 20])
@pytest.mark.parametrize("keys", [("image",), ("text", "video"), ("image", "text", "audio")])
def test_scan_equals_the_definition(
    block: int, keys: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_module, "BLOCK_BYTES", block)
    monkeypatch.setattr(scan_module, "LEAST_BLOCK", 3 if block == 1 else 1024)
    generator = torch.Generator().manual_seed(3)
    layout = mixed_layout()
    sizes = {"image": 10, "video": 6, "audio": 5, "text": 15}
    queries = [
        MatrixQuery(
            key,
            unit(generator, sizes[key], 4),
            unit(generator, 6, 4),
            torch.rand(6, generator=generator).double(),
        )
        for key in keys
    ]
    beta = torch.full((6,), 3.0, dtype=torch.float64)
    mask = torch.zeros(layout.slots, dtype=torch.float64)
    mask[5] = -math.inf
    dense = dense_scores(layout, queries) + mask
    found = scan_top(layout.view(keys), queries, 4, beta, mask)
    assert torch.allclose(found.logsumexp, torch.logsumexp(3 * dense, -1))
    assert torch.allclose(found.scores, dense.topk(4).values)
    picked = torch.where(found.slots >= 0, dense.gather(1, found.slots.clamp(min=0)), -math.inf)
    assert torch.allclose(picked, found.scores)


# --- settling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("trust", [0.0, 0.3, 2.0])
@given(seed=seeds, beta=st.floats(0.2, 40))
@settings(max_examples=10, deadline=None)
def test_energy_never_rises(alpha: float, trust: float, seed: int, beta: float) -> None:
    field, channels, _ = random_field(seed, alpha, trust, beta)
    settled = settle(field, channels, steps=12, tolerance=0)
    assert settled.energies.shape[0] == 13
    assert (settled.energies.diff(dim=0) <= 1e-9).all()


def test_a_step_uphill_would_be_seen() -> None:
    field, channels, _ = random_field(0, 1.0, 0.3)
    settled = settle(field, channels, steps=3, tolerance=0)
    start = MatrixQuery("image", field.matrices["image"], channels[0].cue, channels[0].absent)
    rest = MatrixQuery("image", field.matrices["image"], settled.state[0], channels[0].absent)
    view = field.layout.view(("image",))
    assert (
        slot_energy(view, [rest], field.beta, Shannon()) < slot_energy(view, [start], field.beta, Shannon())
    ).any()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_traced_energy_is_the_energy(alpha: float) -> None:
    field, channels, _ = random_field(1, alpha, 0.7)
    settled = settle(field, channels, steps=4)
    for index, codes in ((0, [c.cue for c in channels]), (-1, settled.state)):
        queries = [
            MatrixQuery(c.key, field.matrices[c.key], g * c.weight[:, None], c.absent)
            for c, g in zip(channels, codes, strict=True)
        ]
        total = slot_energy(field.view, queries, field.beta, field.entropy)
        for c, g in zip(channels, codes, strict=True):
            total = total + cue_term(g, c.cue, c.trust * c.weight)
        assert torch.allclose(settled.energies[index], total)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("tail_tolerance", [0.0, 1.0])
def test_step_is_the_gradient_of_the_energy(alpha: float, tail_tolerance: float) -> None:
    """Autograd of the energy against the fast update, from all slots and from the kept ones."""
    field, channels, _ = random_field(2, alpha, 0.4, beta=2.0)
    k = field.layout.slots if tail_tolerance else 3
    field = Field(
        field.layout,
        field.view,
        field.matrices,
        field.beta,
        field.entropy,
        None,
        k,
        tail_tolerance,
    )
    codes = [c.cue.clone().requires_grad_() for c in channels]
    queries = [
        MatrixQuery(c.key, field.matrices[c.key], g * c.weight[:, None], c.absent)
        for c, g in zip(channels, codes, strict=True)
    ]
    (-slot_energy(field.view, queries, field.beta, field.entropy)).sum().backward()
    settled = settle(field, channels, steps=1)
    for c, g, new in zip(channels, codes, settled.state, strict=True):
        assert g.grad is not None
        expected = torch.nn.functional.normalize(g.grad + c.cue * (c.trust * c.weight)[:, None], dim=-1)
        assert torch.allclose(new, expected, atol=1e-6)


def test_clamped_cues_stay_and_missing_ones_are_filled() -> None:
    field, channels, _ = random_field(3, 1.0, math.inf, beta=40.0)
    settled = settle(field, channels)
    assert (settled.steps == 0).all() and settled.converged.all()
    for channel, state in zip(channels, settled.state, strict=True):
        assert torch.equal(state, channel.cue)
    assert set(settled.codes) == {"image", "video", "audio", "text"}


def test_a_cues_answer_does_not_depend_on_its_batch() -> None:
    generator = torch.Generator().manual_seed(5)
    memory = HarmonicMemory({"a": unit(generator, 300, 12), "b": unit(generator, 300, 9)})
    a, b = unit(generator, 7, 12), unit(generator, 7, 9)
    together = memory.recall([Given("a", a, trust=0.5), Given("b", b, trust=0.5)])
    for row in range(7):
        alone = memory.recall(
            [Given("a", a[row : row + 1], trust=0.5), Given("b", b[row : row + 1], trust=0.5)]
        )
        assert torch.equal(alone.slots[0], together.slots[row])
        assert torch.allclose(alone.p[0], together.p[row], atol=1e-9)
        assert torch.allclose(alone.codes["b"][0], together.codes["b"][row], atol=1e-9)
        assert alone.steps[0] == together.steps[row]


@given(seed=seeds, k=st.integers(1, 11))
@settings(max_examples=30, deadline=None)
def test_tail_is_exact_and_the_bound_holds(seed: int, k: int) -> None:
    field, channels, _ = random_field(seed, 1.0, math.inf, beta=1.5)
    whole = Field(
        field.layout,
        field.view,
        field.matrices,
        field.beta,
        field.entropy,
        None,
        field.layout.slots,
        0,
    )
    some = Field(field.layout, field.view, field.matrices, field.beta, field.entropy, None, k, 1)
    full, kept = settle(whole, channels), settle(some, channels)
    assert torch.allclose(kept.tail, full.p[:, k:].sum(-1), atol=1e-12)
    queries = [
        MatrixQuery(c.key, field.matrices[c.key], c.cue * c.weight[:, None], c.absent) for c in channels
    ]

    def mean(p: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        key = "text"
        read = read_top(field.layout, {key: field.matrices[key]}, queries, slots, p).codes[key]
        return read / p.sum(-1, keepdim=True)

    error = (mean(full.p, full.slots) - mean(kept.p, kept.slots)).norm(dim=-1)
    assert (error <= kept.bound + 1e-12).all()


# --- the whole -------------------------------------------------------------------------------------


def test_a_part_brings_back_the_whole_exactly() -> None:
    generator = torch.Generator().manual_seed(8)
    a, b = unit(generator, 400, 32), unit(generator, 400, 24)
    memory = HarmonicMemory({"a": a, "b": b})
    cue = torch.nn.functional.normalize(a[:20] + 0.1 * unit(generator, 20, 32), dim=-1)
    settled = memory.recall([Given("a", cue)], alpha=1.5)
    assert torch.equal(settled.slots[:, 0], torch.arange(20))
    assert torch.allclose(settled.p[:, 0], torch.ones(20, dtype=torch.float64))
    assert torch.allclose(settled.codes["b"], b[:20], atol=1e-9)


def test_two_weak_cues_succeed_where_each_fails() -> None:
    generator = torch.Generator().manual_seed(9)
    a, b = unit(generator, 2000, 64), unit(generator, 2000, 64)
    memory = HarmonicMemory({"a": a, "b": b})
    noisy = [torch.nn.functional.normalize(x[:200] + 2.6 * unit(generator, 200, 64), dim=-1) for x in (a, b)]
    truth = torch.arange(200)

    def hits(*cues: Given) -> float:
        return float((memory.recall(list(cues)).slots[:, 0] == truth).double().mean())

    alone = max(hits(Given("a", noisy[0])), hits(Given("b", noisy[1])))
    assert hits(Given("a", noisy[0]), Given("b", noisy[1])) > alone + 0.15


def test_a_record_without_a_modality_is_not_ranked_low() -> None:
    generator = torch.Generator().manual_seed(10)
    a, b = unit(generator, 100, 32), unit(generator, 100, 32)
    has_b = torch.ones(100, dtype=torch.bool)
    has_b[:10] = False
    memory = HarmonicMemory(
        {"a": a, "b": b}, Layout.aligned({"a": torch.ones(100, dtype=torch.bool), "b": has_b})
    )
    settled = memory.recall([Given("a", a[:10]), Given("b", unit(generator, 10, 32))])
    assert torch.equal(settled.slots[:, 0], torch.arange(10))


def test_a_cue_may_count_against() -> None:
    generator = torch.Generator().manual_seed(11)
    theme, other = unit(generator, 1, 32), unit(generator, 1, 32)
    noise = unit(generator, 60, 32)
    plain = torch.nn.functional.normalize(theme + noise[:30], dim=-1)
    both = torch.nn.functional.normalize(theme + 0.7 * other + 0.2 * noise[30:], dim=-1)
    memory = HarmonicMemory({"a": torch.cat([plain, both, unit(generator, 300, 32)])})
    liked = memory.recall([Given("a", theme)], k=20)
    against = memory.recall([Given("a", theme), Given("a", other, weight=-1.0)], k=20)
    assert (against.slots[0, :20] < 30).double().mean() > (liked.slots[0, :20] < 30).double().mean()
    assert (against.slots[0, :20] < 30).double().mean() > 0.85


def test_nothing_is_said_when_nothing_matches() -> None:
    generator = torch.Generator().manual_seed(12)
    a = unit(generator, 1000, 48)
    memory = HarmonicMemory({"a": a})
    stranger = memory.recall([Given("a", unit(generator, 300, 48))])
    known = memory.recall(
        [Given("a", torch.nn.functional.normalize(a[:300] + 0.8 * unit(generator, 300, 48), dim=-1))]
    )
    answered = (stranger.nothing <= FALSE_RECALL).double().mean()
    assert FALSE_RECALL - 0.1 < answered < FALSE_RECALL + 0.1
    assert (known.nothing > FALSE_RECALL).double().mean() < 0.05
    assert torch.allclose(known.p.sum(-1) + known.tail, torch.ones(300, dtype=torch.float64))


def test_only_allowed_records_are_recalled() -> None:
    generator = torch.Generator().manual_seed(13)
    a = unit(generator, 50, 16)
    memory = HarmonicMemory({"a": a})
    allowed = torch.zeros(50, dtype=torch.bool)
    allowed[::2] = True
    settled = memory.recall([Given("a", a[1:2])], k=50, allowed=allowed)
    kept = settled.slots[0][settled.slots[0] >= 0]
    assert len(kept) == 25 and (kept % 2 == 0).all()


def test_centring_does_not_hurt_a_badly_damaged_cue() -> None:
    """Stored codes lie in a narrow cone; a cue that is mostly noise does not."""
    generator = torch.Generator().manual_seed(14)
    theme, depth = unit(generator, 1, 64), torch.linspace(0.3, 1.7, 1000, dtype=torch.float64)
    codes = torch.nn.functional.normalize(2 * theme + unit(generator, 1000, 64) * depth[:, None], dim=-1)
    noise = torch.randn(200, 64, generator=generator, dtype=torch.float64)
    cue = torch.nn.functional.normalize(codes[400:600] + 0.12 * noise, dim=-1)
    truth = torch.arange(400, 600)
    found = HarmonicMemory({"a": codes}).recall([Given("a", cue)]).slots[:, 0]
    plain = (cue @ codes.T).argmax(dim=-1)
    right = (found == truth).double().mean()
    assert right >= (plain == truth).double().mean() - 0.02
    assert right > 0.6
