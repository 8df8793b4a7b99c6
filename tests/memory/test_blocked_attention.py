"""One step of recall over one matrix equals attention over it."""

from __future__ import annotations

import pytest
import torch

from harmonia.memory import Centering, Matrix, Tsallis, attend
from harmonia.memory import matrix as matrix_module


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(
        torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1
    )


@pytest.mark.parametrize("beta", [0.5, 8.0, 60.0])
@pytest.mark.parametrize("cues", [1, 9])
@pytest.mark.parametrize("held", ["tensor", "float32", "int8"])
def test_softmax_is_scaled_dot_product_attention(
    beta: float, cues: int, held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix_module, "bfloat16_pays", lambda device: True)
    codes = unit(20_000, 24)
    cue = torch.nn.functional.normalize(codes[:cues] + 0.4 * unit(cues, 24, seed=1), dim=-1)
    frame = Centering(torch.zeros(24), torch.eye(24) / 24, torch.zeros(24))
    matrix = codes if held == "tensor" else Matrix(codes, frame, held)  # type: ignore[arg-type]
    found = attend(matrix, cue, beta, k=10)
    wanted = torch.nn.functional.scaled_dot_product_attention(
        cue[None].double(), codes[None].double(), codes[None].double(), scale=beta
    )[0]
    assert torch.allclose(found.codes.double(), wanted, atol=1e-5)
    p = torch.softmax(beta * cue @ codes.T, -1)
    assert torch.allclose(found.p, p.topk(10).values, atol=1e-5)
    assert torch.allclose(found.tail, 1 - p.topk(10).values.sum(-1), atol=1e-5)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
@pytest.mark.parametrize("beta", [2.0, 40.0])
def test_sparse_attention_is_exact_whatever_k_it_starts_from(alpha: float, beta: float) -> None:
    codes, cue = unit(500, 16).double(), unit(7, 16, seed=1).double()
    found = attend(codes, cue, beta, entropy=Tsallis(alpha), k=2)
    p = Tsallis(alpha).argmax(beta * cue @ codes.T)
    assert torch.allclose(found.codes, p @ codes, atol=1e-9)
    assert (found.tail == 0).all()
