"""Robustness, geometry, zero-shot, probes, significance: by hand, at the extremes, against scikit-learn."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn.functional import normalize

from harmonia import objectives
from harmonia.metrics import (
    TEMPLATES,
    alignment,
    area,
    bootstrap,
    class_codes,
    cross_modal,
    effective_rank,
    hubness,
    k_occurrence,
    knn_probe,
    linear_probe,
    logistic_regression,
    missing_curve,
    modality_gap,
    noise_curve,
    noisy_codes,
    noisy_signals,
    paired_test,
    prompts,
    uniformity,
    zero_shot,
)
from harmonia.metrics.significance import student_t
from harmonia.types import HarmoniaError, Signal
from tests.places import ROOT


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


# --- robustness


@pytest.mark.parametrize(("per", "factor"), [("vector", 1.0), ("component", 512.0)])
def test_noise_has_the_cosine_that_its_scale_says(per: str, factor: float) -> None:
    codes = normalize(normal(0, 400, 512), dim=1)
    for variance in (0.0, 0.5, 1.0):
        noisy = noisy_codes(codes, variance, seeded(1), per=per)  # type: ignore[arg-type]
        assert noisy.dtype == codes.dtype
        torch.testing.assert_close(noisy.norm(dim=1), torch.ones(400, dtype=torch.float64))
        cosine = float((noisy * codes).sum(dim=1).mean())
        assert cosine == pytest.approx(1 / math.sqrt(1 + factor * variance), abs=0.005)


def test_noise_on_signals_is_of_the_variance_and_within_the_range() -> None:
    grey = Signal("image", np.full((64, 64, 3), 128, np.uint8))
    tone = Signal("audio", np.zeros((1, 8000), np.float32), rate=8000.0)
    film = Signal("video", np.full((2, 32, 32, 3), 128, np.uint8), rate=25.0, sound=tone)
    image, sound, video = noisy_signals([grey, tone, film], 0.01, seeded())
    assert image.array.dtype == video.array.dtype == np.uint8
    assert np.std(image.array / 255.0) == pytest.approx(0.1, rel=0.03)
    assert sound.array.dtype == np.float32
    assert np.std(sound.array) == pytest.approx(0.1, rel=0.05)
    assert (sound.rate, video.rate) == (8000.0, 25.0)
    assert video.sound is not None and np.std(video.sound.array) == pytest.approx(0.1, rel=0.05)
    (loud,) = noisy_signals([tone], 9.0, seeded())
    assert (loud.array.min(), loud.array.max()) == (-1.0, 1.0)
    photo = Signal("image", np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2))
    assert np.array_equal(noisy_signals([photo], 0.0, seeded())[0].array, photo.array)
    with pytest.raises(HarmoniaError, match="no Gaussian noise for text"):
        noisy_signals([Signal("text", "a dog")], 0.1, seeded())


def test_the_curve_falls_from_the_clean_figure() -> None:
    y = normalize(normal(0, 200, 8), dim=1)
    record = torch.arange(200)
    rows = noise_curve(lambda x: cross_modal(x, y, record, record, (1,)), y, noisy_codes, seeds=(0, 1))
    assert len(rows) == 1 + 10 * 2
    assert rows[0]["variance"] == 0.0 and rows[0]["recall@1"] == 1.0
    mean = [np.mean([r["recall@1"] for r in rows if r["variance"] == v]) for v in (0.1, 0.4, 0.7, 1.0)]
    assert mean == sorted(mean, reverse=True) and mean[-1] < 0.5
    assert mean[-1] < area(rows, "recall@1") < 1.0
    again = noise_curve(lambda x: cross_modal(x, y, record, record, (1,)), y, noisy_codes, seeds=(0, 1))
    assert again == rows


def test_the_area_is_that_of_trapezoids() -> None:
    rows = [{"variance": v, "map": m} for v, m in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.5), (0.5, 0.75))]
    assert area(rows, "map") == pytest.approx(0.5 * 0.75 + 0.5 * 0.375)
    assert area([{"variance": v, "map": 0.3} for v in (0.1, 0.4, 1.0)], "map") == pytest.approx(0.3)
    assert area(rows[:1], "map") == 0.0
    with pytest.raises(HarmoniaError, match="no 'mrr'"):
        area(rows, "mrr")


def test_every_subset_of_a_cue_but_none() -> None:
    def score(cue: Mapping[str, int]) -> dict[str, float]:
        return {"total": float(sum(cue.values()))}

    rows = missing_curve(score, {"text": 1, "image": 2, "audio": 4})
    assert [(row["missing"], row["kept"]) for row in rows] == [
        (0, "text+image+audio"),
        (1, "text+image"),
        (1, "text+audio"),
        (1, "image+audio"),
        (2, "text"),
        (2, "image"),
        (2, "audio"),
    ]
    assert [row["total"] for row in rows] == [7, 3, 5, 6, 1, 2, 4]
    # means 7, 14/3, 7/3 by how many are missing
    assert area(rows, "total", over="missing") == pytest.approx(14 / 3)


# --- geometry


def test_the_gap_of_modalities_that_are_apart_and_of_those_that_are_not() -> None:
    x, y = normal(0, 300, 16), normal(1, 300, 16)
    same = modality_gap(x, y)
    assert same.distance < 0.15 and abs(same.separability - 0.5) < 0.1
    shift = torch.zeros(16, dtype=torch.float64)
    shift[0] = 30.0
    apart = modality_gap(x + shift, y - shift)
    assert apart.distance == pytest.approx(2.0, abs=0.05) and apart.separability == 1.0
    assert modality_gap(x, x.clone()).distance == 0.0
    # a scale of the codes is no gap
    assert modality_gap(3.0 * x, x.clone()).distance == pytest.approx(0.0, abs=1e-12)


def test_neighbours_by_hand() -> None:
    """Items at 0, 30, 90 degrees; queries at 10, 20, 80: nearest item 0, 1, 2."""

    def at(*degrees: float) -> Tensor:
        angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
        return torch.stack([angle.cos(), angle.sin()], dim=1)

    assert k_occurrence(at(10, 20, 80), at(0, 30, 90), k=1).tolist() == [1, 1, 1]
    assert k_occurrence(at(10, 20, 40), at(0, 30, 90), k=1).tolist() == [1, 2, 0]
    # among themselves, own place left out
    assert k_occurrence(at(0, 10, 30), k=1).tolist() == [1, 2, 0]
    found = hubness(at(10, 20, 40), at(0, 30, 90), k=1)
    assert found.antihubs == pytest.approx(1 / 3)
    assert found.largest == 2.0
    assert found.robin_hood == pytest.approx(1 / 3)
    assert found.skewness == pytest.approx(0.0)


def test_hubness_of_ties_is_none_and_agrees_with_scipy() -> None:
    same = normal(0, 1, 8).expand(30, 8)
    found = hubness(normal(1, 20, 8), same, k=3)
    assert (found.skewness, found.antihubs) == (0.0, 0.0)
    assert found.robin_hood == pytest.approx(0.0, abs=1e-12)
    counts = k_occurrence(normal(2, 300, 200), k=10, block=7)
    assert float(counts.sum()) == pytest.approx(3000.0)
    assert hubness(normal(2, 300, 200)).skewness == pytest.approx(stats.skew(counts.numpy()))


def test_codes_off_the_centre_of_the_sphere_have_hubs() -> None:
    """Those near the mean are near to all, in many dimensions (Radovanović et al. 2010)."""
    centred, off = (hubness(normal(2, 300, 200) + shift) for shift in (0.0, 1.0))
    assert centred.skewness < 0.5 and centred.antihubs < 0.01
    assert off.skewness > 1.0 and off.antihubs > 0.1
    assert off.robin_hood > 2 * centred.robin_hood and off.largest > 2 * centred.largest


def test_alignment_and_uniformity_are_those_of_the_objectives() -> None:
    x, y = normalize(normal(0, 50, 6), dim=1), normalize(normal(1, 50, 6), dim=1)
    record = torch.arange(50) + 7
    assert alignment(x, y, record, record) == pytest.approx(float(objectives.alignment(x, y)))
    assert uniformity(x, block=7) == pytest.approx(float(objectives.uniformity(x)))
    # several captions of a photo: every pair counts
    five = torch.arange(250) % 50 + 7
    z = normalize(normal(2, 250, 6), dim=1)
    pairs = [(x[i] - z[j]).square().sum() for i in range(50) for j in range(250) if record[i] == five[j]]
    assert alignment(x, z, record, five) == pytest.approx(float(torch.stack(pairs).mean()))
    assert alignment(x, x, record, record) == pytest.approx(0.0, abs=1e-12)
    assert uniformity(x[:1].expand(9, 6)) == pytest.approx(0.0, abs=1e-12)
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8.0)
    with pytest.raises(HarmoniaError, match="no record has codes in both"):
        alignment(x, y, record, record + 100)


def test_the_effective_rank_counts_directions() -> None:
    q, _ = torch.linalg.qr(normal(0, 100, 8))
    assert effective_rank(q) == pytest.approx(8.0)
    assert effective_rank(q[:, :1] @ normal(1, 1, 8)) == pytest.approx(1.0)
    assert effective_rank(5.0 * q) == pytest.approx(8.0)
    two = q[:, :2] * torch.tensor([3.0, 1.0])
    assert effective_rank(two) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))
    assert effective_rank(torch.zeros(4, 3)) == 0.0


# --- zero-shot


def test_prompts_put_the_name_into_every_template() -> None:
    assert prompts(["dog", "{cat}"], ["a {}.", "{} or {}"]) == [
        ["a dog.", "dog or dog"],
        ["a {cat}.", "{cat} or {cat}"],
    ]
    assert all("{}" in template for kind in TEMPLATES.values() for template in kind)
    with pytest.raises(HarmoniaError, match=r"'dog' has no \{\}"):
        prompts(["dog"], ["dog"])


def test_a_class_is_the_mean_of_its_unit_sentences() -> None:
    table = {"a 1": [3.0, 0.0], "no 1": [0.0, 1.0], "a 2": [0.0, 2.0], "no 2": [0.0, 5.0]}
    codes = class_codes(lambda s: torch.tensor([table[one] for one in s]), ["1", "2"], ["a {}", "no {}"])
    half = math.sqrt(0.5)
    expected = torch.tensor([[half, half], [0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(codes, expected)
    with pytest.raises(HarmoniaError, match="4 prompts were given 3 codes"):
        class_codes(lambda s: torch.ones(3, 2), ["1", "2"], ["a {}", "no {}"])


def test_zero_shot_by_hand_and_with_ties() -> None:
    classes = torch.eye(3)
    codes = torch.tensor([[1.0, 0.1, 0.0], [0.2, 1.0, 0.0], [1.0, 0.5, 0.0], [0.0, 0.0, 1.0]])
    found = zero_shot(codes, torch.tensor([0, 1, 1, 1]), classes, (1, 2, 5), block=3)
    assert found.accuracy == {1: 0.5, 2: pytest.approx(0.75 + 0.25 / 2), 5: 1.0}
    assert found.confusion.tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert found.per_class[0] == 1.0 and found.per_class[1] == pytest.approx(1 / 3)
    assert bool(found.per_class[2].isnan()) and found.mean_per_class == pytest.approx(2 / 3)
    # classes that cannot be told apart earn chance
    same = zero_shot(codes, torch.tensor([0, 1, 2, 0]), torch.ones(3, 3), (1, 2))
    assert same.accuracy == {1: pytest.approx(1 / 3), 2: pytest.approx(2 / 3)}
    with pytest.raises(HarmoniaError, match="0 to 2"):
        zero_shot(codes, torch.tensor([0, 1, 2, 3]), classes)


# --- probes


def blobs(seed: int = 0, n: int = 240, spread: float = 1.6) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % 4
    return 2.0 * torch.eye(4, 10, dtype=torch.float64)[labels] + spread * normal(seed, n, 10), labels


@pytest.mark.parametrize("l2", [1e-3, 1e-1])
def test_logistic_regression_is_that_of_scikit_learn(l2: float) -> None:
    from sklearn.linear_model import LogisticRegression

    x, labels = blobs()
    theirs = LogisticRegression(C=1 / (len(x) * l2), tol=1e-10, max_iter=10_000).fit(x, labels)
    ours = logistic_regression(x, labels, l2)
    torch.testing.assert_close(ours.weight, torch.from_numpy(theirs.coef_), atol=2e-4, rtol=0)
    log_odds = torch.from_numpy(theirs.predict_log_proba(x))
    torch.testing.assert_close(ours.scores(x).log_softmax(dim=1), log_odds, atol=1e-3, rtol=0)


def test_the_probe_chooses_its_penalty_on_the_training_rows_alone() -> None:
    from sklearn.linear_model import LogisticRegression

    (x, labels), (test, test_labels) = blobs(0), blobs(1)
    found = linear_probe(x, labels, test, test_labels, l2=(10.0, 1e-1, 1e-3))
    assert found.classifier.l2 == max(found.held, key=lambda value: (found.held[value], value)) != 10.0
    same = LogisticRegression(C=1 / (len(x) * found.classifier.l2), tol=1e-8, max_iter=10_000)
    assert found.accuracy == pytest.approx(same.fit(x, labels).score(test, test_labels), abs=0.005)
    other = linear_probe(x, labels, test, (test_labels + 1) % 4, l2=(10.0, 1e-1, 1e-3))
    assert other.held == found.held and other.accuracy < 0.4 < 0.6 < found.accuracy


def test_the_probe_at_its_extremes() -> None:
    x, labels = blobs(spread=0.01)
    assert linear_probe(x, labels, x, labels).accuracy == 1.0
    # no information: the mean of a tie, not a class that happens to come first
    flat = torch.ones(40, 3)
    even = torch.arange(40) % 4
    assert linear_probe(flat, even, flat, even, l2=(1.0,)).accuracy == pytest.approx(0.25)
    with pytest.raises(HarmoniaError, match="every class has one row"):
        linear_probe(x[:4], labels[:4], x, labels)


def test_nearest_neighbours_are_those_of_scikit_learn() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    (x, labels), (test, test_labels) = blobs(0), blobs(1)
    for k in (1, 15):
        weights = "uniform" if k == 1 else lambda d: np.exp((1 - d) / 0.07)
        theirs = KNeighborsClassifier(k, metric="cosine", weights=weights).fit(x, labels)
        expected = theirs.score(test, test_labels)
        assert knn_probe(x, labels, test, test_labels, k=k, block=50) == pytest.approx(expected, abs=1e-9)
    flat = torch.ones(40, 3)
    even = torch.arange(40) % 4
    assert knn_probe(flat, even, flat, even, k=5, temperature=math.inf) == pytest.approx(0.25)


# --- significance


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        found = bootstrap(rng.normal(3.0, 1.0, 60), seed, level=0.9, draws=300)
        held += found.low <= 3.0 <= found.high
        assert found.low < found.mean < found.high
    assert 0.83 <= held / 200 <= 0.96


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = normal(0, 4000)
    values[7] = torch.nan
    found = bootstrap(values, draws=4000)
    kept = values[~values.isnan()]
    error = float(kept.std()) / math.sqrt(len(kept))
    assert found.mean == pytest.approx(float(kept.mean()))
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.06)
    assert found == bootstrap(values, draws=4000)
    constant = bootstrap([0.5] * 30)
    assert (constant.low, constant.high) == (0.5, 0.5)


def test_copies_of_a_query_add_no_certainty() -> None:
    values = normal(0, 200)
    one = bootstrap(values, draws=1000)
    copies = values.repeat_interleave(5)
    apart = bootstrap(copies, draws=1000)
    together = bootstrap(copies, draws=1000, groups=torch.arange(1000) // 5)
    assert together.high - together.low == pytest.approx(one.high - one.low, rel=0.1)
    assert apart.high - apart.low == pytest.approx((one.high - one.low) / math.sqrt(5), rel=0.15)


@pytest.mark.parametrize("n", [2, 3, 50, 3000])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_the_bootstrap_is_scipys(n: int, level: float) -> None:
    values, counts = normal(n, n).double().numpy(), np.arange(n) % 5 + 1
    groups = np.repeat(np.arange(n), counts)
    found = bootstrap(values[groups], 3, groups=groups, level=level, draws=500)
    peer = stats.bootstrap(
        (values * counts, counts),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=500,
        batch=64,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((peer.low, peer.high), rel=1e-9)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 10, 39, 1000, 49_999])
def test_students_quantile_is_scipys(freedom: int) -> None:
    for level in (0.01, 0.1, 0.5, 0.9, 0.95, 0.999, 1 - 1e-9):
        peer = float(stats.t.ppf((1 + level) / 2, freedom))
        assert student_t(level, freedom) == pytest.approx(peer, rel=1e-6)


def test_the_paired_test_is_that_of_scipy() -> None:
    a, b = normal(0, 12).numpy(), normal(1, 12).numpy() + 0.5
    exact = stats.permutation_test(
        (a - b,),
        lambda d, axis: d.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert paired_test(a, b, draws=20_000) == pytest.approx(exact.pvalue, abs=0.01)
    assert paired_test(a, b) == pytest.approx(paired_test(b, a))
    assert paired_test(a, a) == 1.0
    assert paired_test(np.ones(30), np.zeros(30), draws=999) == 1 / 1000


def test_the_paired_test_keeps_groups_together() -> None:
    difference = normal(0, 15) + 0.4
    copies = difference.repeat_interleave(6)
    group = torch.arange(90) // 6
    zero = torch.zeros(90)
    one = paired_test(difference, zero[:15], draws=4000)
    assert paired_test(copies, zero, groups=group, draws=4000) == pytest.approx(one, abs=0.03)
    assert paired_test(copies, zero, draws=4000) < 0.5 * one


def test_what_is_wrong_is_said() -> None:
    x, labels = torch.eye(4), torch.arange(4)
    for wrong, call in (
        ("variance is 0 or more", lambda: noisy_codes(x, -0.1, seeded())),
        ("cue has no modality", lambda: missing_curve(lambda cue: {}, {})),
        ("needs 4 codes", lambda: modality_gap(x[:3], x)),
        ("k must be 1 to 3", lambda: hubness(x, k=4)),
        ("labels must be at least 0", lambda: knn_probe(x, labels - 1, x, labels)),
        ("k from 1 to 4", lambda: knn_probe(x, labels, x, labels, k=5)),
        ("labels must be 4 integers", lambda: linear_probe(x, labels[:3], x, labels)),
        ("penalty", lambda: linear_probe(x, labels, x, labels, l2=(0.0,))),
        ("two values", lambda: bootstrap([1.0])),
        ("no value", lambda: bootstrap([math.nan, math.nan])),
        ("same queries", lambda: paired_test([1.0, 2.0], [1.0])),
        ("as many groups", lambda: paired_test([1.0, 2.0], [1.0, 1.0], groups=[1])),
    ):
        with pytest.raises(HarmoniaError, match=wrong):
            call()


def test_the_document_is_true() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    scope: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(example, scope)
