"""The networks that denoise: shapes at odd sizes, what they are told, how they begin."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from harmonia.layers.dit import DiT
from harmonia.layers.mlp import ResidualMLP
from harmonia.layers.unet import SpatialAttention, UNet, UNetEncoder, timestep_embedding

WIDTH = 16


def told(n: int, tokens: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    mask = torch.ones(n, tokens, dtype=torch.bool)
    return torch.randn(n, WIDTH), torch.randn(n, tokens, WIDTH), mask


def awake(network: nn.Module) -> nn.Module:
    """With every parameter random, since the last layers begin as zero."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


NETWORKS = {
    "unet": lambda: UNet(2, 1, [8, 16], WIDTH, tokens=True, patch=2),
    "unet of three": lambda: UNet(2, 1, [8, 8, 16], WIDTH, blocks=2, attend=2, tokens=True),
    "dit": lambda: DiT(2, 1, (14, 12), WIDTH, 2, 2, patch=2, tokens=True),
    "mlp": lambda: ResidualMLP(2, (1, 14, 12), WIDTH, 2, told=WIDTH),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_keeps_height_and_width_and_begins_as_zero(name: str) -> None:
    x = torch.randn(3, 2, 14, 12)
    out = NETWORKS[name]()(x, *told(3))
    assert out.shape == (3, 1, 14, 12)
    assert not out.any()


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_do_not_see_each_other_and_the_vector_counts(name: str) -> None:
    torch.manual_seed(0)
    network = awake(NETWORKS[name]()).double().eval()
    x = torch.randn(3, 2, 14, 12).double()
    vector, tokens, mask = told(3)
    vector, tokens = vector.double(), tokens.double()
    whole = network(x, vector, tokens, mask)
    alone = network(x[1:2], vector[1:2], tokens[1:2], mask[1:2])
    torch.testing.assert_close(whole[1:2], alone)
    assert (network(x, vector + 1, tokens, mask) - whole).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["unet", "unet of three", "dit"])
def test_tokens_count_where_the_mask_says_so(name: str) -> None:
    torch.manual_seed(1)
    network = awake(NETWORKS[name]()).eval()
    x = torch.randn(2, 2, 14, 12)
    vector, tokens, mask = told(2)
    mask[:, 2] = False
    before = network(x, vector, tokens, mask)
    hidden, seen = tokens.clone(), tokens.clone()
    hidden[:, 2] *= -1
    seen[:, 1] *= -1
    torch.testing.assert_close(network(x, vector, hidden, mask), before)
    assert (network(x, vector, seen, mask) - before).abs().max() > 1e-4


def test_attention_does_not_know_the_order_of_pixels() -> None:
    torch.manual_seed(2)
    attention = awake(SpatialAttention(8, WIDTH, tokens=False)).double()
    x, (_, tokens, mask) = torch.randn(2, 8, 3, 4).double(), told(2)
    order = torch.randperm(12)

    def moved(y: Tensor) -> Tensor:
        return y.flatten(2)[:, :, order].view_as(y)

    torch.testing.assert_close(attention(moved(x), tokens, mask), moved(attention(x, tokens, mask)))


def test_odd_sizes_halve_and_come_back() -> None:
    network = awake(UNet(1, 3, [8, 8, 8], WIDTH))
    assert network(torch.randn(1, 1, 7, 5), *told(1)).shape == (1, 3, 7, 5)


def test_times_have_distinct_embeddings_of_constant_length() -> None:
    t = torch.linspace(0, 1, 50)
    e = timestep_embedding(t, 64)
    assert e.shape == (50, 64)
    torch.testing.assert_close(e.square().sum(1), torch.full((50,), 32.0))
    apart = torch.cdist(e, e) + torch.eye(50) * 9
    assert apart.min() > 0.5


def test_the_encoder_gives_a_score_a_row() -> None:
    assert UNetEncoder(1, 10, [8, 16], WIDTH, patch=2)(
        torch.randn(4, 1, 28, 28), torch.randn(4, WIDTH)
    ).shape == (4, 10)
