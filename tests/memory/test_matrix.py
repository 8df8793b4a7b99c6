"""Codes in half precision, in int8 and memory-mapped: what the copy cannot decide is scored again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from harmonia.memory import Centering, Given, HarmonicMemory, Layout, Matrix
from harmonia.memory import matrix as matrix_module
from harmonia.memory import scan as scan_module
from harmonia.memory.moment_scores import MatrixQuery
from harmonia.memory.scan import scan_top


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(
        torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1
    )


def plain_frame(d: int) -> Centering:
    return Centering(torch.zeros(d), torch.eye(d) / d, torch.zeros(d))


@pytest.fixture
def always_rough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_module, "bfloat16_pays", lambda device: True)
    monkeypatch.setattr(matrix_module, "MANY_ROWS", 1)


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("cues", [1, 12])
def test_a_rough_product_is_off_by_no_more_than_its_bound(
    precision: matrix_module.Precision, cues: int, always_rough: None
) -> None:
    codes, cue = unit(3000, 48), 2.5 * unit(cues, 48, seed=1)
    rough = Matrix(codes, plain_frame(48), precision).quantised(max(cues, 8))
    assert rough is not None
    rounded, scale, bound = rough.cue(cue)
    found = rough.products(rounded, scale, 0, 3000).float()
    error = (found - codes @ cue.T).abs()
    assert (error <= bound + rough.rounding * found.abs() + 1e-6).all()
    # The bound means something: it is within a factor of what happens.
    assert error.max() > 0.05 * bound.max()


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize("cues", [1, 12])
@pytest.mark.parametrize("beta", [3.0, 60.0])
def test_rough_scans_find_exactly_the_best(
    precision: matrix_module.Precision, cues: int, beta: float, always_rough: None
) -> None:
    codes = unit(20_000, 32)
    # Groups of near twins, which a quantised scan cannot tell apart.
    codes[1000:1020] = torch.nn.functional.normalize(codes[1000] + 1e-4 * torch.randn(20, 32), dim=-1)
    held = Matrix(codes, plain_frame(32), precision)
    cue = torch.nn.functional.normalize(codes[1000:1001] + 0.3 * unit(cues, 32, seed=2), dim=-1)
    layout = Layout.aligned({"a": torch.ones(20_000, dtype=torch.bool)})
    temperature = torch.full((cues,), beta)
    mask = torch.zeros(20_000)
    mask[1005] = -torch.inf
    found = scan_top(layout, [MatrixQuery("a", held, cue, torch.zeros(cues))], 15, temperature, mask)
    truth = cue @ held[torch.arange(20_000)].T + mask
    assert torch.allclose(found.scores, truth.topk(15).values, atol=1e-6)
    assert torch.allclose(truth.gather(1, found.slots), found.scores, atol=1e-6)
    assert torch.allclose(found.logsumexp, torch.logsumexp(beta * truth, -1), atol=2e-5)
    assert not (found.slots == 1005).any()


def test_a_wrong_guess_is_found_out(monkeypatch: pytest.MonkeyPatch, always_rough: None) -> None:
    """Sorted data fool a sample; the scan must notice."""
    codes, cue = unit(20_000, 16), unit(9, 16, seed=3)
    layout = Layout.aligned({"a": torch.ones(20_000, dtype=torch.bool)})
    monkeypatch.setattr(scan_module, "_estimated_threshold", lambda *_: torch.full((9,), 5.0))
    for held in (codes, Matrix(codes, plain_frame(16))):
        found = scan_top(layout, [MatrixQuery("a", held, cue, torch.zeros(9))], 7, torch.full((9,), 4.0))
        assert torch.allclose(found.scores, (cue @ codes.T).topk(7).values, atol=1e-6)


def test_several_modalities_and_moments_are_scanned_roughly_too(always_rough: None) -> None:
    """Captions as alternatives, some records without a photo: the same answer as in float64."""
    rng = np.random.default_rng(0)
    slots = 30_000
    record = {
        "image": np.sort(rng.choice(slots, 20_000, replace=False)),
        "text": np.sort(rng.integers(0, slots, 50_000)),
    }
    layout = Layout.of_parts(slots, record, {k: np.full(len(r), np.nan) for k, r in record.items()})
    codes = {key: unit(len(r), 24, seed=len(r)) for key, r in record.items()}
    cues = [
        Given(key, torch.nn.functional.normalize(c[:10] + 0.1 * unit(10, 24), dim=-1))
        for key, c in codes.items()
    ]
    exact = HarmonicMemory({k: c.double() for k, c in codes.items()}, layout).recall(cues)
    for precision in matrix_module.PRECISIONS:
        rough = HarmonicMemory(codes, layout, precision=precision).recall(cues)
        tolerance = 2e-3 if precision == "float16" else 1e-4
        assert torch.allclose(rough.scores[:, :3].double(), exact.scores[:, :3], atol=tolerance)
        assert (rough.slots[:, 0] == exact.slots[:, 0]).all()


def test_codes_may_stay_in_a_file(tmp_path: Path) -> None:
    codes = unit(20_000, 64)
    path = tmp_path / "codes.npy"
    np.save(path, codes.numpy())
    mapped = torch.from_numpy(np.load(path, mmap_mode="c"))
    memory = HarmonicMemory({"a": mapped}, precision="int8")
    assert memory.matrices["a"].nbytes < 20_000 * 64 * 1.1
    whole = HarmonicMemory({"a": codes})
    cue = torch.nn.functional.normalize(codes[:3] + 0.1 * unit(3, 64, seed=5), dim=-1)
    found, wanted = memory.recall([Given("a", cue)]), whole.recall([Given("a", cue)])
    assert (found.slots == wanted.slots).all()
    assert torch.allclose(found.p, wanted.p, atol=1e-5)


def test_half_precision_takes_half_the_room() -> None:
    codes = unit(1000, 64)
    full, half = (HarmonicMemory({"a": codes}, precision=p).matrices["a"] for p in ("float32", "float16"))
    assert half.nbytes * 2 == full.nbytes


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="float32, float16, int8"):
        HarmonicMemory({"a": unit(10, 4)}, precision="int4")  # type: ignore[arg-type]
