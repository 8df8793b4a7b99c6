"""Hopfield-Fenchel-Young recall and the layers: equality with attention, energies, masks, learning."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from harmonia.layers.hopfield import Hopfield
from harmonia.layers.hopfield_attention import HopfieldAttention, copy_attention
from harmonia.layers.hopfield_pooling import HopfieldLayer, HopfieldPooling
from harmonia.memory.classical import ClassicalHopfield
from harmonia.memory.entropies import Entropy, Norm, Shannon, Subsets, Tsallis
from harmonia.memory.hopfield import associate, energy, retrieve
from harmonia.memory.lagrangians import Ball
from tests.places import ROOT

DOCS = ROOT / "docs" / "layers.md"
ENTROPIES: list[Entropy] = [Shannon(), Tsallis(1.5), Tsallis(2.0), Norm(2.0), Subsets(2)]
PLAIN: dict[str, Any] = {
    "normalize_stored_pattern": False,
    "normalize_state_pattern": False,
    "normalize_pattern_projection": False,
}
STATIC: dict[str, Any] = PLAIN | {
    "stored_pattern_as_static": True,
    "state_pattern_as_static": True,
    "pattern_projection_as_static": True,
    "disable_out_projection": True,
}
seeds = st.integers(0, 2**31 - 1)
quick = settings(max_examples=15, deadline=None)


def draw(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(seed: int, *shape: int) -> Tensor:
    return F.normalize(draw(seed, *shape), dim=-1)


def close(a: Tensor, b: Tensor, atol: float = 1e-5) -> bool:
    return torch.allclose(a, b, atol=atol)


# Functions


@given(seed=seeds, beta=st.sampled_from([0.3, 1.0, 7.0]))
@quick
def test_one_step_of_softmax_is_attention(seed: int, beta: float) -> None:
    q, k, v = draw(seed, 2, 3, 4, 8), draw(seed + 1, 2, 3, 5, 8), draw(seed + 2, 2, 3, 5, 6)
    mask = draw(seed + 3, 4, 5) > -1
    for given_mask in (None, mask, draw(seed + 3, 4, 5)):
        expected = F.scaled_dot_product_attention(q, k, v, given_mask, scale=beta)
        assert close(retrieve(q, k, v, beta=beta, mask=given_mask), expected)
        assert close(associate(q, k, beta=beta, mask=given_mask).p @ v, expected)
    per_query = torch.full((3, 1), beta, dtype=torch.float64)
    assert close(retrieve(q, k, v, beta=per_query), F.scaled_dot_product_attention(q, k, v, scale=beta))


@pytest.mark.parametrize("entropy", ENTROPIES, ids=str)
@pytest.mark.parametrize("post", ["identity", "l2", "layer_norm", Ball(0.8)], ids=str)
@given(seed=seeds, beta=st.sampled_from([0.5, 3.0, 20.0]))
@settings(max_examples=6, deadline=None)
def test_the_energy_never_rises(entropy: Entropy, post: Any, seed: int, beta: float) -> None:
    x, mask = draw(seed, 7, 5), torch.arange(7) != 3
    start = retrieve(draw(seed + 1, 6, 5), x, beta=0.1, post=post)
    settings = {"beta": beta, "entropy": entropy, "mask": mask, "post": post}
    traced = [energy(start, x, **settings)]
    traced += [
        energy(retrieve(start, x, steps=n, tolerance=0, **settings), x, **settings) for n in range(1, 6)
    ]
    assert torch.stack(traced).isfinite().all()
    assert (torch.stack(traced).diff(dim=0) <= 1e-6).all()


@pytest.mark.parametrize("entropy", ENTROPIES, ids=str)
@given(seed=seeds)
@settings(max_examples=6, deadline=None)
def test_the_step_is_the_gradient_of_the_energy(entropy: Entropy, seed: int) -> None:
    x, q, bias = draw(seed, 7, 5), draw(seed + 1, 4, 5).requires_grad_(), draw(seed + 2, 4, 7)
    (slope,) = torch.autograd.grad(energy(q, x, beta=2.0, entropy=entropy, mask=bias).sum(), q)
    assert close(q - slope, retrieve(q, x, beta=2.0, entropy=entropy, mask=bias), 1e-7)


@pytest.mark.parametrize("entropy", ENTROPIES[:4], ids=str)
def test_steps_converge_to_the_stored_pattern(entropy: Entropy) -> None:
    x = unit(0, 30, 16)
    cue = x + 0.6 * unit(1, 30, 16)
    once, often = (retrieve(cue, x, beta=12.0, entropy=entropy, steps=n, post="l2") for n in (1, 50))
    right = (often * x).sum(-1)
    assert (right > 0.99).all() and (right >= (once * x).sum(-1) - 1e-3).all()
    end = associate(cue, x, beta=12.0, entropy=entropy, steps=50, post="l2")
    assert end.settled.all() and (end.steps < 50).all()
    if not isinstance(entropy, Shannon):
        assert close(often, x, 1e-15) and torch.equal(end.p, torch.eye(30, dtype=torch.float64))


def test_each_query_stops_by_itself() -> None:
    x, q = draw(0, 9, 4), draw(1, 2, 40, 4)
    together = associate(q, x, beta=1.3, steps=60)
    assert together.steps.unique().numel() > 3
    for row in (0, 17, 39):
        alone = associate(q[1, row : row + 1], x, beta=1.3, steps=60)
        assert torch.equal(together.steps[1, row], alone.steps[0])
        assert close(together.p[1, row], alone.p[0], 1e-12)
    capped = associate(q, x, beta=1.3, steps=2)
    assert not capped.settled.all() and (capped.steps == 2).all()


def test_subsets_recall_several_patterns_at_once() -> None:
    x = unit(0, 12, 32)
    pair = (x[2] + x[7]) / 2
    found = associate((pair + 0.1 * unit(1, 32))[None], x, beta=20.0, entropy=Subsets(2), steps=5)
    assert found.p[0].nonzero().flatten().tolist() == [2, 7]
    recalled = retrieve((pair + 0.1 * unit(1, 32))[None], x, beta=20.0, entropy=Subsets(2), steps=5)
    assert close(recalled[0], pair, 1e-12)
    only = torch.arange(12) == 7
    assert close(retrieve(pair[None], x, beta=20.0, entropy=Subsets(2), mask=only)[0], x[7], 1e-12)


@pytest.mark.parametrize("entropy", ENTROPIES, ids=str)
def test_a_query_that_sees_nothing_recalls_zero(entropy: Entropy) -> None:
    q, x = draw(0, 3, 4).requires_grad_(), draw(1, 5, 4)
    mask = torch.tensor([[True] * 5, [False] * 5, [True] * 5])
    added = torch.zeros(3, 5, dtype=torch.float64).masked_fill(~mask, -torch.inf)
    for given_mask in (mask, added):
        for steps in (1, 4):
            out = retrieve(q, x, beta=1.0, entropy=entropy, mask=given_mask, steps=steps)
            assert (out[1] == 0).all() and (out[0] != 0).any()
            (slope,) = torch.autograd.grad(out.sum(), q)
            assert slope.isfinite().all()
    assert energy(q, x, beta=1.0, entropy=entropy, mask=mask).isinf().tolist() == [False, True, False]


def test_gradients_reach_everything_through_the_steps() -> None:
    q, x = draw(0, 3, 4).requires_grad_(), draw(1, 6, 4).requires_grad_()
    beta = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    for entropy in ENTROPIES[:3]:

        def recall(q: Tensor, x: Tensor, beta: Tensor, entropy: Entropy = entropy) -> Tensor:
            return retrieve(q, x, beta=beta, entropy=entropy, steps=3, tolerance=0, post="l2")

        assert torch.autograd.gradcheck(recall, (q, x, beta))


def test_modern_recalls_what_classical_cannot() -> None:
    """Half-erased binary images: 80 of them in 196 pixels, far beyond 0.138 * 196 = 27."""
    images = torch.randint(0, 2, (80, 196), generator=torch.Generator().manual_seed(0)).float() * 2 - 1
    half = images.clone()
    half[:, 98:] = 0
    classical = ClassicalHopfield.hebbian(images).recall(half).states
    modern = retrieve(half, images, beta=0.5, steps=3).sign()
    sparse = retrieve(half, images, beta=0.5, entropy=Tsallis(1.5), steps=3)
    assert (classical == images).all(-1).sum() <= 4
    assert (modern == images).all() and torch.equal(sparse, images)


# Layers


def attention_and_layer(**options: Any) -> tuple[nn.MultiheadAttention, Hopfield]:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(16, 4, **options)
    for name, weight in attention.named_parameters():
        if "bias" in name:
            nn.init.normal_(weight)
    return attention, copy_attention(attention)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_first": True},
        {"bias": False},
        {"kdim": 12, "vdim": 10, "batch_first": True},
        {"add_zero_attn": True},
    ],
    ids=str,
)
def test_equal_to_multihead_attention(options: dict[str, Any]) -> None:
    attention, layer = attention_and_layer(**options)
    adapter = HopfieldAttention(layer)
    shapes = (5, 16), (7, attention.kdim), (7, attention.vdim)
    inputs = [draw(n, 3, *shape).float() for n, shape in enumerate(shapes)]
    if not attention.batch_first:
        inputs = [x.transpose(0, 1) for x in inputs]
    padding = torch.zeros(3, 7, dtype=torch.bool)
    padding[0, 4:] = padding[2, :2] = True
    ahead = torch.ones(5, 7, dtype=torch.bool).triu(3)
    numbers, per_head = draw(5, 5, 7).float(), draw(6, 12, 5, 7).float()
    zeros = torch.zeros(3, 7)
    floats = zeros.masked_fill(padding, -torch.inf)
    cases = [(None, None), (padding, None), (None, ahead), (padding, ahead), (None, numbers)]
    cases += [(None, per_head), (floats, None), (floats, numbers), (zeros + 0.3, per_head)]
    for key_padding, mask in cases:
        for average in (True, False):
            expected, p = attention(
                *inputs, key_padding_mask=key_padding, attn_mask=mask, average_attn_weights=average
            )
            out, q = adapter(
                *inputs, key_padding_mask=key_padding, attn_mask=mask, average_attn_weights=average
            )
            fast, none = adapter(*inputs, key_padding_mask=key_padding, attn_mask=mask, need_weights=False)
            assert close(out, expected) and close(q, p) and close(fast, expected) and none is None
    alone = [x[0] if attention.batch_first else x[:, 0] for x in inputs]
    assert close(adapter(*alone, padding[0])[0], attention(*alone, padding[0])[0])
    assert close(adapter(*alone)[1], attention(*alone)[1])


def test_forward_takes_stored_state_projection() -> None:
    attention, layer = attention_and_layer(batch_first=True)
    state, stored = draw(0, 2, 3, 16).float(), draw(1, 2, 5, 16).float()
    assert close(layer((stored, state, stored)), attention(state, stored, stored)[0])
    assert close(layer(state), attention(state, state, state)[0])
    expected = attention(state, stored, stored, average_attn_weights=False)[1]
    assert close(layer.get_association_matrix((stored, state, stored)), expected)


def test_causal_without_a_mask() -> None:
    attention, layer = attention_and_layer(batch_first=True)
    x, ahead = draw(0, 2, 6, 16).float(), torch.ones(6, 6, dtype=torch.bool).triu(1)
    out, _ = HopfieldAttention(layer)(x, x, x, is_causal=True)
    assert close(out, attention(x, x, x, attn_mask=ahead)[0])


@pytest.mark.parametrize("entropy", ENTROPIES, ids=str)
def test_all_keys_masked_gives_the_last_bias(entropy: Entropy) -> None:
    attention, _ = attention_and_layer(batch_first=True)
    layer, x = copy_attention(attention, entropy=entropy, update_steps_max=2), draw(0, 2, 4, 16).float()
    padding = torch.tensor([[False] * 4, [True] * 4])
    assert attention(x, x, x, padding)[0][1].isnan().all()
    for need_weights in (True, False):
        out, p = HopfieldAttention(layer)(x, x, x, padding, need_weights)
        assert out.isfinite().all() and close(out[1], attention.out_proj.bias.expand(4, -1))
        assert p is None or (p[1] == 0).all()
    out.sum().backward()
    assert all(w.grad.isfinite().all() for w in layer.parameters() if w.grad is not None)


def test_sparse_layers_weigh_with_exact_zeros() -> None:
    torch.manual_seed(0)
    x = 3 * torch.randn(2, 20, 16)
    dense, sparse = (Hopfield(16, num_heads=2, scaling=2.0, entropy=e) for e in (Shannon(), Tsallis(1.5)))
    assert (dense.get_association_matrix(x) > 0).all()
    p = sparse.get_association_matrix(x)
    assert (p == 0).float().mean() > 0.5 and close(p.sum(-1), torch.ones(2, 2, 20))
    single = Hopfield(16, scaling=100.0, entropy=Tsallis(2.0), **STATIC)
    stored = F.normalize(x, dim=-1)
    assert torch.equal(single(stored), stored)


@pytest.mark.parametrize("steps", [5, None])
def test_static_layers_are_the_plain_memory(steps: int | None) -> None:
    stored, cue = unit(0, 1, 30, 16).float(), unit(1, 1, 30, 16).float()
    cue = stored + 0.5 * cue
    layer = Hopfield(16, scaling=40.0, update_steps_max=steps, **STATIC)
    assert not list(layer.parameters()) and close(layer((stored, cue, stored)), stored, 1e-2)
    expected = retrieve(cue, stored, beta=40.0, steps=6)
    assert steps is None or close(layer((stored, cue, stored)), expected)


def test_hopfield_space_keeps_states_normal() -> None:
    stored, cue = draw(0, 1, 9, 16).float(), draw(1, 1, 4, 16).float()
    layer = Hopfield(16, scaling=0.2, update_steps_max=3, normalize_hopfield_space=True, **STATIC)
    k, q = (F.layer_norm(x, (16,)) for x in (stored, cue))
    expected = associate(q, k, beta=0.2, steps=4, post="layer_norm").p @ stored
    assert close(layer((stored, cue, stored)), expected)


def test_scaling_is_learned_for_each_head() -> None:
    torch.manual_seed(0)
    x, fixed = torch.randn(2, 5, 8), Hopfield(8, num_heads=2, scaling=0.7)
    learned = Hopfield(8, num_heads=2, scaling=0.7, learn_scaling=True)
    learned.load_state_dict(fixed.state_dict(), strict=False)
    assert close(learned(x), fixed(x))
    learned(x).square().sum().backward()
    assert learned.log_scaling is not None and learned.log_scaling.grad is not None
    assert learned.log_scaling.grad.shape == (2, 1) and (learned.log_scaling.grad != 0).all()


def test_widths_and_dropout() -> None:
    torch.manual_seed(0)
    layer = Hopfield(12, 5, 9, 4, num_heads=3, stored_pattern_size=10, pattern_projection_size=7, dropout=0.5)
    data = (torch.randn(2, 6, 10), torch.randn(2, 4, 12), torch.randn(2, 6, 7))
    assert layer(data).shape == (2, 4, 9) and not close(layer(data), layer(data))
    assert layer.get_association_matrix(data).shape == (2, 3, 4, 6)
    assert close(layer.eval()(data), layer(data))
    wide = Hopfield(12, 5, pattern_size=4, num_heads=3, disable_out_projection=True)
    assert wide(data[1]).shape == (2, 4, 12)


def fit(model: nn.Module, x: Tensor, y: Tensor, steps: int, rate: float = 0.02) -> list[float]:
    optimizer, losses = torch.optim.Adam(model.parameters(), rate), []
    for _ in range(steps):
        loss = F.binary_cross_entropy_with_logits(model(x).squeeze(-1), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def bags(seed: int) -> tuple[Tensor, Tensor]:
    """Bags of 12; a positive one holds one instance near a fixed witness."""
    x, y = draw(seed, 256, 12, 8).float(), (torch.arange(256) % 2).float()
    x[y == 1, 5] = 4 * unit(99, 8).float() + 0.1 * x[y == 1, 5]
    return x, y


@pytest.mark.parametrize("entropy", [Shannon(), Tsallis(1.5)], ids=str)
def test_pooling_learns_bags_whatever_their_order(entropy: Entropy) -> None:
    torch.manual_seed(0)
    pooling = HopfieldPooling(8, hidden_size=8, num_heads=2, quantity=3, entropy=entropy)
    model = nn.Sequential(pooling, nn.Linear(24, 1))
    losses = fit(model, *bags(0), steps=60)
    assert losses[-1] < 0.3 * losses[0]
    x, y = bags(1)
    assert ((model(x).squeeze(-1) > 0).float() == y).float().mean() > 0.85
    shuffled = x[:, torch.randperm(12)]
    assert close(pooling(x), pooling(shuffled), 1e-4)
    padding = torch.zeros(256, 15, dtype=torch.bool)
    padding[:, 12:] = True
    padded = torch.cat([x, torch.randn(256, 3, 8)], dim=1)
    assert close(pooling(padded, padding), pooling(x), 1e-4)
    assert pooling.get_association_matrix(padded, padding)[..., 12:].eq(0).all()


def test_pooling_with_the_batch_second() -> None:
    torch.manual_seed(0)
    first = HopfieldPooling(8, quantity=3)
    second = HopfieldPooling(8, quantity=3, batch_first=False)
    second.load_state_dict(first.state_dict())
    x = torch.randn(4, 6, 8)
    assert close(first(x), second(x.transpose(0, 1))) and first(x).shape == (4, 24)


def test_lookup_learns_bags_and_holds_copied_patterns() -> None:
    torch.manual_seed(0)
    layer = HopfieldLayer(8, output_size=1, hidden_size=8, quantity=16, scaling=1.0)
    lookup = nn.Sequential(layer, nn.Flatten(1), nn.Linear(12, 1))
    losses = fit(lookup, *bags(0), steps=60)
    assert losses[-1] < 0.5 * losses[0]
    memory = HopfieldLayer(
        8, quantity=4, lookup_weights_as_separated=True, trainable=False, scaling=50.0,
        pattern_projection_size=3, **STATIC,
    )  # fmt: skip
    assert memory.target_weights is not None and not any(w.requires_grad for w in memory.parameters())
    memory.lookup_weights.copy_(unit(0, 4, 8))
    memory.target_weights.copy_(draw(1, 4, 3))
    asked = (unit(0, 4, 8) + 0.2 * unit(2, 4, 8)).float()[None]
    assert close(memory(asked)[0], memory.target_weights, 1e-3)
    assert memory.get_association_matrix(asked).shape == (1, 1, 4, 4)


@pytest.mark.parametrize(
    ("make", "width"),
    [
        (lambda: Hopfield(input_size=8), 8 * 6),
        (lambda: Hopfield(8, hidden_size=8, num_heads=8, update_steps_max=3, scaling=0.25), 8 * 6),
        (lambda: HopfieldPooling(input_size=8), 8),
        (lambda: HopfieldPooling(8, hidden_size=2, output_size=5, num_heads=1), 5),
        (lambda: HopfieldLayer(input_size=8, quantity=7), 8 * 6),
        (lambda: HopfieldLayer(8, quantity=7, lookup_weights_as_separated=True,
                               lookup_targets_as_trainable=False, normalize_stored_pattern_affine=True,
                               normalize_pattern_projection_affine=True), 8 * 6),
    ],
)  # fmt: skip
def test_networks_of_the_reference_notebooks_learn(make: Callable[[], Any], width: int) -> None:
    """A layer, flattened, under a linear one of a width that is read off ``output_size``."""
    torch.manual_seed(0)
    layer, x = make(), torch.randn(4, 6, 8)
    if isinstance(layer, HopfieldLayer):
        with torch.no_grad():
            layer.lookup_weights[:] = torch.randn(7, 8).unsqueeze(dim=0)
    sets = 1 if isinstance(layer, HopfieldPooling) else 6
    head = nn.Linear(in_features=layer.output_size * sets, out_features=1)
    assert head.in_features == width
    network = nn.Sequential(layer, nn.Flatten(), head, nn.Flatten(start_dim=0))
    network.forward(input=x).sum().backward()
    learned = {
        name for name, w in network.named_parameters() if w.grad is not None and w.grad.abs().sum() > 0
    }
    fixed = {name for name, w in network.named_parameters() if not w.requires_grad}
    separate = isinstance(layer, HopfieldLayer) and layer.target_weights is not None
    assert fixed == ({"0.target_weights"} if separate else set()) and "2.weight" in learned
    assert "0.lookup_weights" in learned or not isinstance(layer, HopfieldLayer)


def test_layer_norms_without_a_learned_gain_and_with_another_epsilon() -> None:
    options = {
        f"normalize_{p}_affine": False for p in ("stored_pattern", "state_pattern", "pattern_projection")
    }
    layer = Hopfield(8, normalize_state_pattern_eps=0.5, **options)  # type: ignore[arg-type]
    assert not any("norm" in name for name, _ in layer.named_parameters())
    x = torch.randn(2, 3, 8)
    copied = Hopfield(8, normalize_state_pattern=False, **options)  # type: ignore[arg-type]
    copied.load_state_dict(layer.state_dict())
    assert close(layer(x), copied((x, F.layer_norm(x, (8,), eps=0.5), x)), 1e-6)


# Inside torch's Transformer


def encoders(entropy: Entropy, swap_after: bool) -> tuple[nn.TransformerEncoder, nn.TransformerEncoder]:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch_encoder = nn.TransformerEncoder(copy.deepcopy(layer), 2)
        if not swap_after:
            layer.self_attn = HopfieldAttention(copy_attention(layer.self_attn, entropy=entropy))
        ours = nn.TransformerEncoder(layer, 2)
    if swap_after:
        for inner in ours.layers:
            inner.self_attn = HopfieldAttention(copy_attention(inner.self_attn, entropy=entropy))
    return torch_encoder, ours


@pytest.mark.parametrize("swap_after", [False, True])
def test_drop_in_for_the_transformer_encoder(swap_after: bool) -> None:
    expected, ours = encoders(Shannon(), swap_after)
    sparse = encoders(Tsallis(1.5), swap_after)[1].eval()
    x = torch.randn(3, 6, 16)
    padding = torch.zeros(3, 6, dtype=torch.bool)
    padding[1, 4:] = True
    causal = nn.Transformer.generate_square_subsequent_mask(6)
    cases: list[dict[str, Any]] = [{}, {"src_key_padding_mask": padding}, {"mask": causal}]
    cases += [
        {"mask": causal, "is_causal": True},
        {"mask": causal == -torch.inf, "src_key_padding_mask": padding},
    ]
    for masks in cases:
        trained = expected.train()(x, **masks)
        assert close(ours.train()(x, **masks), trained)
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                assert close(ours.eval()(x, **masks)[~padding], trained[~padding])
                assert not close(sparse(x, **masks)[~padding], trained[~padding], 1e-3)


def test_drop_in_for_the_transformer_decoder() -> None:
    torch.manual_seed(0)
    expected = nn.TransformerDecoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    ours = copy.deepcopy(expected)
    ours.self_attn = HopfieldAttention(copy_attention(ours.self_attn))
    ours.multihead_attn = HopfieldAttention(copy_attention(ours.multihead_attn))
    x, memory = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    with torch.no_grad():
        for mode in (True, False):
            a, b = (
                nn.TransformerDecoder(m, 1).train(mode)(x, memory, tgt_mask=causal) for m in (expected, ours)
            )
            assert close(a, b)


@pytest.mark.parametrize(
    "options", [{"entropy": Tsallis(1.5)}, {"update_steps_max": 2, "learn_scaling": True}]
)
def test_the_drop_in_trains(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    layer.self_attn = HopfieldAttention(copy_attention(layer.self_attn, **options))
    before = [w.detach().clone() for w in layer.self_attn.parameters()]
    model = nn.Sequential(layer, nn.Flatten(1), nn.Linear(96, 1))
    losses = fit(model, *bags(0), steps=40, rate=0.01)
    assert losses[-1] < 0.5 * losses[0]
    # The bias of the stored patterns alone has no effect at one step of softmax; here it has, too.
    assert all((w != b).any() for w, b in zip(layer.self_attn.parameters(), before, strict=True))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Hopfield(8, num_heads=2, learn_scaling=True),
        lambda: HopfieldPooling(8, quantity=2),
        lambda: HopfieldLayer(8, quantity=5, lookup_weights_as_separated=True, input_bias=False),
        lambda: Hopfield(8, **STATIC),
    ],
)
def test_state_dict_round_trip(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    saved, loaded, x = make(), make(), torch.randn(2, 4, 8)
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(saved(x), loaded(x))
    assert saved.double()(x.double()).dtype == torch.float64
    assert saved.bfloat16()(x.bfloat16()).isfinite().all()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: retrieve(torch.ones(2, 3), torch.ones(2, 4), beta=1.0), "must share d"),
        (lambda: retrieve(torch.ones(2, 3), torch.ones(0, 3), beta=1.0), "no patterns"),
        (lambda: retrieve(torch.ones(2, 3), torch.ones(2, 3), torch.ones(3, 1), beta=1.0), "3 values for 2"),
        (lambda: retrieve(torch.ones(2, 3), torch.ones(2, 3), beta=0.0), "beta must be positive"),
        (lambda: retrieve(torch.ones(2, 3), torch.ones(2, 3), beta=1.0, steps=0), "at least 1"),
        (lambda: retrieve(torch.ones(2, 3), torch.ones(2, 3), beta=1.0, post="l1"), "post is one of"),  # type: ignore[arg-type]
        (lambda: energy(torch.ones(2, 3), torch.ones(2, 3), beta=1.0, post=torch.tanh), "has no energy"),
        (lambda: Hopfield(7, num_heads=2), "no multiple of 2 heads"),
        (lambda: Hopfield(8, scaling=-1.0), "scaling must be positive"),
        (lambda: Hopfield(8, update_steps_max=-1), "update_steps_max"),
        (lambda: Hopfield(8, 4, stored_pattern_as_static=True), "static stored pattern has the width"),
        (lambda: Hopfield(8, output_size=3, disable_out_projection=True), "output_size is 8"),
        (lambda: Hopfield(8)((torch.ones(1, 2, 8), torch.ones(1, 2, 8), torch.ones(1, 3, 8))), "differ"),
        (lambda: Hopfield(8)(torch.ones(1, 2, 8), torch.ones(1, 3).bool()), r"mask must be \(1, 2\)"),
        (lambda: Hopfield(8)(torch.ones(1, 2, 8), None, torch.ones(3, 2)), "association mask must be"),
        (lambda: HopfieldPooling(8, quantity=0), "quantity"),
        (lambda: HopfieldLayer(8, pattern_projection_size=4), "lookup_weights_as_separated=True"),
        (lambda: HopfieldAttention(Hopfield(8, disable_out_projection=True)), "needs an output projection"),
        (lambda: copy_attention(nn.MultiheadAttention(8, 2, add_bias_kv=True)), "add_bias_kv"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(wrong: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        wrong()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL))
def test_the_examples_of_the_document_run(example: str) -> None:
    torch.manual_seed(0)
    exec(example, {})
