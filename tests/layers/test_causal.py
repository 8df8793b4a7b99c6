"""The decoder transformer: causality, the cache, prefix, memory, rotary positions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from harmonia.layers import Cache, CausalTransformer
from harmonia.types import HarmoniaError


def made(blocks: int = 2, **options: bool) -> CausalTransformer:
    torch.manual_seed(0)
    return CausalTransformer(16, blocks, 2, **options).double().eval()


def tokens(n: int = 3, t: int = 7, seed: int = 0) -> Tensor:
    return torch.randn(n, t, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("cross", [False, True])
def test_the_cache_changes_nothing(rotary: bool, cross: bool) -> None:
    net, x = made(rotary=rotary, cross=cross), tokens()
    known = torch.tensor([[True] * 7, [True, False, True, True, True, True, True], [True] * 7])
    memory = tokens(t=4, seed=1) if cross else None
    seen = torch.tensor([[True] * 4, [True, True, False, False], [False, True, True, True]])
    whole = net(x, mask=known, prefix=3, memory=memory, memory_mask=seen if cross else None)
    cache, parts = Cache(), []
    for first, end in ((0, 3), (3, 4), (4, 7)):
        now = {"memory": memory} if first == 0 else {}
        parts.append(
            net(
                x[:, first:end],
                mask=known[:, first:end],
                prefix=3,
                cache=cache,
                memory_mask=seen if cross else None,
                **now,
            )
        )
        assert len(cache) == end
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-12)


def test_a_cache_without_a_mask_and_its_rows() -> None:
    net, x = made(rotary=True), tokens()
    cache = Cache()
    net(x[:, :6], cache=cache)
    index = torch.tensor([2, 0, 0])
    last = net(x[index, 6:], cache=cache.rows(index))
    torch.testing.assert_close(last, net(x)[index, 6:], rtol=0, atol=1e-12)


def test_a_token_sees_only_what_is_before_it() -> None:
    net, x = made(), tokens()
    other = x.clone()
    other[:, 4, 0] += 1
    a, b = net(x), net(other)
    assert torch.equal(a[:, :4], b[:, :4])
    assert all((a[:, i] - b[:, i]).abs().max() > 1e-6 for i in range(4, 7))


def test_a_prefix_sees_all_of_itself_and_nothing_after() -> None:
    net, x = made(), tokens()
    inside, after = x.clone(), x.clone()
    inside[:, 2, 0] += 1
    after[:, 3, 0] += 1
    whole = net(x, prefix=3)
    assert (net(inside, prefix=3)[:, 0] - whole[:, 0]).abs().max() > 1e-6
    assert torch.equal(net(after, prefix=3)[:, :3], whole[:, :3])


def test_bidirectional_sees_all() -> None:
    net, x = made(causal=False), tokens()
    other = x.clone()
    other[:, 6, 0] += 1
    assert (net(other)[:, 0] - net(x)[:, 0]).abs().max() > 1e-6


def test_what_does_not_count_is_not_seen() -> None:
    net, x = made(), tokens()
    known = torch.ones(3, 7, dtype=torch.bool)
    known[:, :2] = False
    other = x.clone()
    other[:, :2] = 5.0
    assert torch.equal(net(x, mask=known)[:, 2:], net(other, mask=known)[:, 2:])
    assert net(x, mask=known).isfinite().all()


def test_rotary_attention_knows_distances_only() -> None:
    """Tokens after others that do not count are as they would be at the start."""
    net, x = made(rotary=True), tokens()
    known = torch.ones(3, 7, dtype=torch.bool)
    known[:, :3] = False
    torch.testing.assert_close(net(x, mask=known)[:, 3:], net(x[:, 3:]), rtol=0, atol=1e-12)
    # one block without positions is blind to the order of what is before
    turned = x[:, [1, 0, *range(2, 7)]]
    assert (made(1, rotary=True)(x)[:, 6] - made(1, rotary=True)(turned)[:, 6]).abs().max() > 1e-6
    torch.testing.assert_close(made(1)(x)[:, 6], made(1)(turned)[:, 6], rtol=0, atol=1e-12)


def test_bad_use_is_told() -> None:
    with pytest.raises(HarmoniaError, match="heads"):
        CausalTransformer(16, 1, 3)
    with pytest.raises(HarmoniaError, match="give one"):
        made(cross=True)(tokens())
    cache, net = Cache(), made(causal=False)
    net(tokens(), cache=cache)
    with pytest.raises(HarmoniaError, match="cache"):
        net(tokens(), cache=cache)
