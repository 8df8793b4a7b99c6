"""The harmonic memory while it runs: many modalities, edits, learning, chains, consolidation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonia.memory import Given, HarmonicMemory, Layout
from harmonia.memory.consolidation import associate, compact, consolidate, forget, refit, replay
from harmonia.memory.learning import learn_bias, learn_couplings, learn_trusts, ridge_regression

unit = torch.nn.functional.normalize


def draw(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return unit(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def near(codes: torch.Tensor, noise: float, generator: torch.Generator) -> torch.Tensor:
    """``codes`` at a distance that makes the cosine about 1 / sqrt(1 + noise)."""
    return unit(codes + math.sqrt(noise) * draw(generator, *codes.shape), dim=-1)


def aligned(presence: dict[str, torch.Tensor]) -> Layout:
    return Layout.aligned(presence)


# --- any number of modalities -----------------------------------------------------------------------


def test_twelve_modalities_any_subset_given_and_held() -> None:
    g = torch.Generator().manual_seed(0)
    n, keys = 300, [f"m{i}" for i in range(12)]
    codes = {key: draw(g, n, 24 + i) for i, key in enumerate(keys)}
    presence = {key: torch.rand(n, generator=g) < 0.7 for key in keys}
    memory = HarmonicMemory(codes, aligned(presence))
    for asked in (keys[:1], keys[3:6], keys):
        held = torch.stack([presence[k] for k in asked]).any(0).nonzero()[:, 0][:40]
        cues = [Given(k, near(codes[k][held], 0.5, g)) for k in asked]
        # A cue of a modality that the record lacks is a stranger; it must not drown the others.
        share = torch.stack([presence[k][held] for k in asked]).double().mean(0)
        found = memory.recall(cues).slots[:, 0]
        assert (found == held)[share > 0.5].double().mean() > 0.95
    settled = memory.recall([Given(keys[0], codes[keys[0]][:5])])
    whole = presence[keys[0]][:5]
    for key in keys:
        filled = whole & presence[key][:5]
        cosine = (settled.codes[key] * codes[key][:5]).sum(-1)
        assert (cosine[filled] > 0.9).all()


@given(seed=st.integers(0, 2**31 - 1), strength=st.sampled_from([0.5, 3.0, 20.0]))
@settings(max_examples=20, deadline=None)
def test_energy_never_rises_with_couplings_and_free_modalities(seed: int, strength: float) -> None:
    g = torch.Generator().manual_seed(seed)
    codes = {"a": draw(g, 40, 6), "b": draw(g, 40, 7), "c": draw(g, 40, 5)}
    memory = HarmonicMemory(codes)
    learn_couplings(memory, strength)
    assert len(memory.couplings) == 6
    cues = [Given("a", draw(g, 6, 6), trust=0.3), Given("b", draw(g, 6, 7))]
    for alpha in (1.0, 1.5, 2.0):
        settled = memory.recall(cues, free={"c": 1.0}, alpha=alpha, steps=12, tail_tolerance=0.0)
        rise = settled.energies.diff(dim=0)
        assert (rise <= 1e-9 * settled.energies.abs().max()).all()
        assert (rise < -1e-6).any()
        # The clamped cue did not move; the free modality is on the sphere.
        assert torch.equal(settled.state[1], memory.channels(cues)[1].cue)
        assert torch.allclose(settled.state[2].norm(dim=-1), torch.ones(6, dtype=torch.float64))


def test_couplings_fill_a_modality_that_no_matching_record_holds() -> None:
    """b is a rotation of a; records 0-199 hold both, 200-299 only a. The map fills b for the latter."""
    g = torch.Generator().manual_seed(2)
    a = draw(g, 300, 64)
    rotation = torch.linalg.qr(torch.randn(64, 64, generator=g, dtype=torch.float64)).Q
    b = a @ rotation
    presence = {"a": torch.ones(300, dtype=torch.bool), "b": torch.arange(300) < 200}
    memory = HarmonicMemory({"a": a, "b": b}, aligned(presence), centre=False)
    cue = [Given("a", a[200:260])]
    before = (memory.recall(cue).codes["b"] * b[200:260]).sum(-1)
    learn_couplings(memory, strength=50.0, ridge=0.1)
    after = (memory.recall(cue, free={"b": 0.1}).codes["b"] * b[200:260]).sum(-1)
    assert after.median() > 0.95 > 0.6 > before.median()


def test_ridge_regression_is_scikit_learns() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    g = torch.Generator().manual_seed(0)
    x, y = draw(g, 50, 6), draw(g, 50, 4)
    fitted = linear_model.Ridge(alpha=0.7, fit_intercept=False).fit(x.numpy(), y.numpy())
    assert torch.allclose(ridge_regression(x, y, 0.7), torch.from_numpy(fitted.coef_).T, atol=1e-9)


# --- edits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_insert_delete_update_while_running(precision: str) -> None:
    g = torch.Generator().manual_seed(1)
    a, b = draw(g, 400, 16).float(), draw(g, 400, 12).float()
    memory = HarmonicMemory({"a": a[:100], "b": b[:100]}, precision=precision)  # type: ignore[arg-type]
    for first in range(100, 400, 30):
        rows = slice(first, min(first + 30, 400))
        lacks = torch.arange(rows.start, rows.stop) % 2 == 0
        slots = memory.insert({"a": a[rows], "b": b[rows]}, {"b": lacks})
        assert slots.tolist() == list(range(rows.start, rows.stop))
    found = memory.recall([Given("a", near(a, 0.2, g))]).slots[:, 0]
    assert (found == torch.arange(400)).float().mean() > 0.97
    memory.delete(torch.arange(0, 50))
    assert memory.held == 350
    assert (memory.recall([Given("a", a[:50])]).slots >= 50).all()
    other = unit(torch.randn(16, generator=g), dim=-1)
    memory.update(60, {"a": other})
    assert memory.recall([Given("a", other[None])]).slots[0, 0] == 60
    memory.update(101, {"b": b[101]})
    assert memory.recall([Given("b", b[101:102])]).slots[0, 0] == 101
    kept = compact(memory)
    assert memory.slots == 350
    found = memory.recall([Given("a", a[61:])]).slots[:, 0]
    assert (kept[found] == torch.arange(61, 400)).float().mean() > 0.98


def test_an_edited_memory_is_the_memory_built_anew() -> None:
    g = torch.Generator().manual_seed(4)
    a, b = draw(g, 80, 8), draw(g, 80, 6)
    memory = HarmonicMemory({"a": a[:50], "b": b[:50]})
    memory.insert({"a": a[50:], "b": b[50:]})
    memory.delete(torch.tensor([3, 60]))
    compact(memory)
    refit(memory)
    keep = [n for n in range(80) if n not in (3, 60)]
    anew = HarmonicMemory({"a": a[keep], "b": b[keep]})
    cues = [Given("a", draw(g, 9, 8), trust=1.0), Given("b", draw(g, 9, 6))]
    one, other = memory.recall(cues), anew.recall(cues)
    assert torch.allclose(one.p, other.p, atol=1e-9)
    assert torch.allclose(one.codes["b"], other.codes["b"], atol=1e-9)


def test_a_new_modality_may_come_later() -> None:
    g = torch.Generator().manual_seed(5)
    memory = HarmonicMemory({"a": draw(g, 20, 8)})
    new = draw(g, 4, 5)
    slots = memory.insert({"sound": new})
    assert (memory.recall([Given("sound", new)]).slots[:, 0] == slots).all()


def test_edits_that_cannot_be_say_why() -> None:
    g = torch.Generator().manual_seed(6)
    memory = HarmonicMemory({"a": draw(g, 5, 8)})
    with pytest.raises(ValueError, match="same number of rows"):
        memory.insert({"a": draw(g, 2, 8), "b": draw(g, 3, 8)})
    with pytest.raises(ValueError, match=r"must have 8 dimensions \(got 9\)"):
        memory.insert({"a": draw(g, 2, 9)})
    with pytest.raises(ValueError, match="no record has the modality 'b'"):
        memory.update(0, {"b": draw(g, 1, 8)[0]})
    assert memory.slots == 5
    assert memory.recall([Given("a", draw(g, 1, 8))]).slots.shape[1] == 5


# --- learning ---------------------------------------------------------------------------------------


def test_trust_is_learned_from_examples() -> None:
    """A sharp and a blurred modality: with trust learned, both together beat the sharp one alone."""
    g = torch.Generator().manual_seed(7)
    n = 3000
    a, b = draw(g, n, 32), draw(g, n, 32)
    memory = HarmonicMemory({"a": a, "b": b})

    def cues(rows: torch.Tensor) -> list[Given]:
        return [Given("a", near(a[rows], 1.5, g)), Given("b", near(b[rows], 12.0, g))]

    train, test = torch.randperm(n, generator=g)[:1000].split(500)
    given_cues = cues(test)
    alone = (memory.recall(given_cues[:1]).slots[:, 0] == test).double().mean()
    equal = (memory.recall(given_cues).slots[:, 0] == test).double().mean()
    beta = learn_trusts(memory, cues(train), train)
    settled = memory.recall(given_cues, beta=beta)
    both = (settled.slots[:, 0] == test).double().mean()
    assert memory.trusts["a"] == 1.0
    # Rises over chance are cos * sqrt(d): the ratio of trusts is about the ratio of the cosines.
    expected = math.sqrt((1 + 1.5) / (1 + 12.0))
    assert memory.trusts["b"] == pytest.approx(expected, rel=0.4)
    assert both > alone
    assert both > equal
    # The probabilities are honest: their mean is the share of right answers.
    sure = settled.p[:, 0]
    assert float(sure.mean()) == pytest.approx(float(both), abs=0.15)


def test_hubs_are_removed_by_their_bias() -> None:
    g = torch.Generator().manual_seed(8)
    n = 400
    a = draw(g, n, 24)
    # Ten records near the mean direction of all cues answer everything.
    cues = near(a, 3.0, g) + 0.5 * unit(torch.ones(24, dtype=torch.float64), dim=-1)
    a[:10] = near(unit(torch.ones(24, dtype=torch.float64), dim=-1).expand(10, -1), 0.3, g)
    memory = HarmonicMemory({"a": a}, centre=False)
    cue = Given("a", unit(cues, dim=-1), origin=None)
    before = memory.recall([cue]).slots[:, 0]
    learn_bias(memory, [cue])
    after = memory.recall([cue]).slots[:, 0]
    truth = torch.arange(n)
    assert (before < 10).double().mean() > 2 * (after < 10).double().mean()
    assert (after == truth).double().mean() > 1.2 * (before == truth).double().mean()
    assert (memory.bias[:10].median() < memory.bias[10:].median()).all()


def test_beta_of_a_known_noise_is_the_best_one() -> None:
    """The capacity formula's beta gives the right records more probability than half or twice of it."""
    g = torch.Generator().manual_seed(9)
    a = draw(g, 5000, 64)
    memory = HarmonicMemory({"a": a}, centre=False)
    cue = [Given("a", near(a[:500], 3.0, g))]
    settled = memory.recall(cue, noise=3.0, k=5000)
    beta = memory.beta_of_noise(cue, 3.0)

    def log_probability(value: float) -> float:
        found = memory.recall(cue, beta=value, k=5000)
        right = torch.where(found.slots == torch.arange(500)[:, None], found.p, 0.0).sum(-1)
        return float(right.clamp(min=1e-12).log().mean())

    best = log_probability(beta)
    assert best > log_probability(0.5 * beta)
    assert best > log_probability(2.0 * beta)
    assert settled.tail.max() < 1e-6


# --- chains -----------------------------------------------------------------------------------------


def linked() -> tuple[HarmonicMemory, dict[str, torch.Tensor]]:
    """Texts with photos (0-99), photos with sounds (100-199); none has text and sound."""
    g = torch.Generator().manual_seed(10)
    codes = {"text": draw(g, 200, 12), "image": draw(g, 200, 16), "sound": draw(g, 200, 10)}
    codes["image"][100:] = near(codes["image"][:100], 0.1, g)
    first, second = torch.arange(200) < 100, torch.arange(200) >= 100
    presence = {"text": first, "image": first | second, "sound": second}
    return HarmonicMemory(codes, aligned(presence)), codes


def test_words_recall_a_sound_through_photos() -> None:
    memory, codes = linked()
    settled = associate(memory, [Given("text", codes["text"][:50])], "sound")
    assert (settled.slots[:, 0] == torch.arange(100, 150)).double().mean() > 0.95
    assert ((settled.codes["sound"] * codes["sound"][100:150]).sum(-1) > 0.9).double().mean() > 0.95


def test_without_a_link_there_is_no_association() -> None:
    memory, codes = linked()
    memory.delete(torch.arange(100, 200))
    with pytest.raises(ValueError, match="leads to sound"):
        associate(memory, [Given("text", codes["text"][:2])], "sound")
    with pytest.raises(ValueError, match="no record has the modality 'depth'"):
        associate(memory, [Given("text", codes["text"][:2])], "depth")


def test_a_sequence_is_replayed_from_a_cue_into_it() -> None:
    g = torch.Generator().manual_seed(11)
    a = draw(g, 60, 20)
    memory = HarmonicMemory({"a": a})
    follows = torch.arange(1, 61)
    follows[[19, 39, 59]] = -1
    settled = replay(memory, [Given("a", near(a[[3, 22, 57]], 0.5, g))], follows, 5)
    found = torch.stack([step.slots[:, 0] for step in settled], 1)
    assert found.tolist() == [[3, 4, 5, 6, 7], [22, 23, 24, 25, 26], [57, 58, 59, 59, 59]]


# --- consolidation ----------------------------------------------------------------------------------


def test_near_duplicates_are_merged_and_keep_their_probability() -> None:
    g = torch.Generator().manual_seed(12)
    a = draw(g, 300, 32)
    a[200:203] = near(a[[7]].expand(3, -1), 1e-5, g)
    a[210] = near(a[[9]], 1e-5, g)[0]
    b = draw(g, 300, 16)
    b[200:203] = near(b[[7]].expand(3, -1), 1e-5, g)
    memory, whole = HarmonicMemory({"a": a, "b": b}), HarmonicMemory({"a": a, "b": b})
    result = consolidate(memory, 0.999)
    # 210 agrees with 9 in a, not in b: another memory.
    assert result.into[200:203].tolist() == [7, 7, 7]
    assert result.merged == 3
    assert memory.held == 297
    assert 0 < result.shift < math.sqrt(2 * 0.001) + 1e-9
    cue = [Given("a", near(a[[7]], 0.5, g))]
    merged, before = memory.recall(cue, beta=4.0), whole.recall(cue, beta=4.0)
    together = before.p[0][torch.isin(before.slots[0], torch.tensor([7, 200, 201, 202]))].sum()
    assert merged.slots[0, 0] == 7
    assert float(merged.p[0, 0]) == pytest.approx(float(together), abs=0.01)
    assert float((merged.energies[0] - before.energies[0]).abs()) < 32**0.5 * result.shift + 0.01


def test_old_and_unused_records_are_forgotten() -> None:
    g = torch.Generator().manual_seed(13)
    a = draw(g, 40, 16)
    memory = HarmonicMemory({"a": a[:20]})
    memory.insert({"a": a[20:]})
    memory.recall([Given("a", a[:5])])
    gone = forget(memory, older_than=1, used_less_than=1)
    assert gone.tolist() == list(range(5, 20))
    assert memory.recall([Given("a", a[2:3])]).slots[0, 0] == 2
    with pytest.raises(ValueError, match="every record"):
        forget(memory, older_than=10)
