"""Bottlenecks between encoder and decoder: identity, Gaussian, vector quantisation, Gumbel-softmax, FSQ.

Each maps the encoder's output (n, inputs, ...) to the decoder's input (n, dim, ...), with a loss. Those with
a finite number of entries at each place are a `Quantiser`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from harmonia.objectives import gaussian_kl, uniform_kl, vector_quantisation
from harmonia.types import HarmoniaError


@dataclass(frozen=True, slots=True, eq=False)
class BottleneckOutput:
    """The output of a bottleneck.

    ``z``      (n, dim, ...), for the decoder
    ``loss``   (n,); see each bottleneck for its scale
    ``codes``  int64 (n, ...), the index of the entry at each place; None if there are no entries
    """

    z: Tensor
    loss: Tensor
    codes: Tensor | None = None


class Identity(nn.Module):
    """No bottleneck and no loss: a plain autoencoder."""

    def forward(self, z: Tensor) -> BottleneckOutput:
        """(n, dim, ...) unchanged."""
        return BottleneckOutput(z, z.new_zeros(len(z)))


class DiagonalGaussian(nn.Module):
    """q(z|x) = N(mean, variance), sampled by z = mean + std * epsilon (Kingma and Welling 2014).

    The loss is the KL to the prior, in nats, summed over a sample's latents.
    """

    def forward(self, parameters: Tensor, prior: Tensor | None = None) -> BottleneckOutput:
        """A sample of z, from torch's global generator.

        ``parameters`` (n, 2 * dim, ...): mean and log variance; ``prior`` likewise, None for the standard
        normal.
        """
        mean, log_variance = self.split(parameters)
        z = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, device="cpu").to(mean)
        p = (None, None) if prior is None else self.split(prior)
        return BottleneckOutput(z, gaussian_kl(mean, log_variance, *p))

    @staticmethod
    def split(parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, (n, dim, ...) each; the variance is clamped to e^-20 to e^10."""
        mean, log_variance = parameters.chunk(2, 1)
        return mean, log_variance.clamp(-20.0, 10.0)


class Quantiser(nn.Module, ABC):
    """A bottleneck with ``size`` entries of width ``dim``; the encoder outputs ``inputs`` channels."""

    size: int
    dim: int
    inputs: int

    @abstractmethod
    def forward(self, z: Tensor) -> BottleneckOutput:
        """Quantise ``z`` (n, inputs, ...). In training mode, this may also update the codebook."""

    @abstractmethod
    def codes(self, z: Tensor) -> Tensor:
        """The index of the entry that ``z`` (n, inputs, ...) is quantised to: int64 (n, ...)."""

    @abstractmethod
    def entries(self, codes: Tensor) -> Tensor:
        """The entries of ``codes`` int64 (n, ...): (n, dim, ...)."""


class VectorQuantizer(Quantiser):
    """Each vector becomes the nearest entry of a codebook (van den Oord et al. 2017, VQ-VAE).

    codes = argmin_k |z - e_k|, and the output is the entry at the argmin, with the straight-through gradient
    of z + sg(e - z). The codebook is updated by moving averages of the vectors assigned to each entry
    (``learning="ema"``: N_k <- decay N_k + (1 - decay) n_k, m_k likewise of their sum, e_k = m_k / N_k; their
    appendix A) or by the gradient of the codebook term ("gradient"). The loss is a mean over elements:
    ``commitment`` |z - sg(e)|^2, and with "gradient" also |sg(z) - e|^2.

    An entry with fewer vectors than ``revive`` times an even share is dead and is reset to a random vector of
    the batch (Dhariwal et al. 2020, Jukebox). At the first batch all entries are. With ``revive=0`` no entry
    is reset, and the initial codebook is random.
    """

    counts: Tensor
    sums: Tensor

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        learning: str = "ema",
        decay: float = 0.99,
        commitment: float = 0.25,
        revive: float = 0.05,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        if learning not in ("ema", "gradient"):
            raise HarmoniaError(f"learning must be ema or gradient, not {learning!r}")
        self.size, self.dim, self.inputs = size, dim, dim
        self.decay, self.commitment, self.revive, self.epsilon = decay, commitment, revive, epsilon
        self.learning = learning
        codebook = torch.randn(size, dim) / dim**0.5
        self.codebook = nn.Parameter(codebook, requires_grad=learning == "gradient")
        self.register_buffer("counts", torch.zeros(size) if revive else torch.ones(size))
        self.register_buffer("sums", codebook.clone())

    def forward(self, z: Tensor) -> BottleneckOutput:
        """Quantise ``z`` (n, dim, ...); in training mode, update the codebook."""
        flat = _flat(z)
        if self.training and self.revive:
            self._revive(flat.detach())
        codes = nearest(flat.detach(), self.codebook.detach())
        entry = F.embedding(codes, self.codebook)
        entry = _grid(entry, z)
        if self.training:
            self._follow(flat.detach(), codes)
        # e + (z - sg(z)) is z + sg(e - z) without the rounding error: exactly the entry
        through = entry.detach() + (z - z.detach()) if z.requires_grad else entry.detach()
        loss = vector_quantisation(z, entry, self.commitment)
        return BottleneckOutput(through, loss, codes.view(len(z), *z.shape[2:]))

    def codes(self, z: Tensor) -> Tensor:
        """The nearest entry to each vector of ``z`` (n, dim, ...), by Euclidean distance."""
        return nearest(_flat(z), self.codebook).view(len(z), *z.shape[2:])

    def entries(self, codes: Tensor) -> Tensor:
        """The rows of the codebook."""
        return F.embedding(codes, self.codebook).movedim(-1, 1)

    @torch.no_grad()
    def _follow(self, flat: Tensor, codes: Tensor) -> None:
        """Update the moving averages, and with "ema" the codebook, from the vectors of this batch."""
        counts = torch.bincount(codes, minlength=self.size).to(flat.dtype)
        _all_reduce(counts)
        self.counts.lerp_(counts, 1 - self.decay)
        if self.learning == "gradient":
            return
        sums = torch.zeros_like(self.sums).index_add_(0, codes, flat)
        _all_reduce(sums)
        self.sums.lerp_(sums, 1 - self.decay)
        # Laplace smoothing keeps entries with few vectors finite
        total = self.counts.sum()
        smooth = (self.counts + self.epsilon) / (total + self.size * self.epsilon) * total
        self.codebook.copy_(self.sums / smooth[:, None])

    @torch.no_grad()
    def _revive(self, flat: Tensor) -> None:
        """Reset dead entries to vectors of the batch, with the count of an even share."""
        share = torch.tensor(float(len(flat)), device=flat.device)
        _all_reduce(share)
        share = share / self.size
        dead = (self.counts < self.revive * share).nonzero().flatten()
        if not len(dead):
            return
        chosen = torch.randperm(len(flat))[: len(dead)].to(flat.device)
        dead = dead[: len(chosen)]
        born = flat[chosen]
        if _distributed():
            dist.broadcast(born, 0)
        self.codebook[dead] = born.to(self.codebook.dtype)
        self.counts[dead] = share
        self.sums[dead] = born * share


class GumbelSoftmax(Quantiser):
    """A categorical at each place, relaxed while training (Jang et al. 2017; Maddison et al. 2017).

    The encoder outputs logits, the decoder takes sum_k y_k e_k with y = softmax((logits + g) / temperature)
    and Gumbel noise g; in evaluation, the entry at the argmax of the logits. This is DALL-E's tokenizer (a
    "dVAE", Ramesh et al. 2021), not a VQ-VAE: there are no distances and no straight-through gradient. The
    loss is the KL of the categoricals to the uniform one, in nats, summed over places.

    The temperature falls from ``temperature`` to ``coldest`` over ``anneal`` training batches, as a cosine.
    """

    seen: Tensor

    def __init__(
        self, size: int, dim: int, *, temperature: float = 1.0, coldest: float = 1 / 16, anneal: int = 3000
    ) -> None:
        super().__init__()
        self.size, self.dim, self.inputs = size, dim, size
        self.hottest, self.coldest, self.anneal = temperature, coldest, anneal
        self.codebook = nn.Parameter(torch.randn(size, dim) / dim**0.5)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @property
    def temperature(self) -> float:
        """The temperature of the next batch."""
        done = min(1.0, float(self.seen) / self.anneal)
        return self.coldest + (self.hottest - self.coldest) * 0.5 * (1 + math.cos(math.pi * done))

    def forward(self, z: Tensor) -> BottleneckOutput:
        """The mixture of entries for logits ``z`` (n, size, ...)."""
        codes, loss = self.codes(z), uniform_kl(z)
        if not self.training:
            return BottleneckOutput(self.entries(codes), loss, codes)
        y = F.gumbel_softmax(z, self.temperature, dim=1)
        self.seen += 1
        return BottleneckOutput(torch.einsum("nk...,kd->nd...", y, self.codebook), loss, codes)

    def codes(self, z: Tensor) -> Tensor:
        """The most probable entry at each place."""
        return z.argmax(1)

    def entries(self, codes: Tensor) -> Tensor:
        """The rows of the codebook."""
        return F.embedding(codes, self.codebook).movedim(-1, 1)


class FSQ(Quantiser):
    """Each channel rounded to one of a few values in [-1, 1] (Mentzer et al. 2024).

    Finite scalar quantisation: there is no learned codebook, no dead entries, and no loss. The entries are
    the prod(levels) points of a lattice. z is bounded by tanh, then rounded with the straight-through
    gradient. ``levels`` of 5 and more are the paper's advice, (8, 5, 5, 5) for 1,000 entries.
    """

    levels: Tensor
    steps: Tensor
    top: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise HarmoniaError(f"FSQ needs at least one channel and two levels in each, not {levels}")
        self.size, self.dim, self.inputs = math.prod(levels), len(levels), len(levels)
        sizes = torch.tensor(levels, dtype=torch.int64)
        steps = torch.cat([torch.ones(1, dtype=torch.int64), sizes.cumprod(0)[:-1]])
        self.register_buffer("levels", sizes, persistent=False)
        self.register_buffer("steps", steps, persistent=False)
        self.register_buffer("top", (sizes - 1).float(), persistent=False)

    def forward(self, z: Tensor) -> BottleneckOutput:
        """Quantise ``z`` (n, len(levels), ...)."""
        bounded = self._bounded(z)
        level = bounded.detach().round()
        through = self._values(level) + self._values(bounded) - self._values(bounded.detach())
        return BottleneckOutput(through, z.new_zeros(len(z)), self._codes(level))

    def codes(self, z: Tensor) -> Tensor:
        """The lattice point that ``z`` is rounded to."""
        return self._codes(self._bounded(z).round())

    def entries(self, codes: Tensor) -> Tensor:
        """Lattice points; the first channel varies fastest."""
        level = codes[..., None] // self.steps % self.levels
        return self._values(level.movedim(-1, 1).to(self.top.dtype))

    def _bounded(self, z: Tensor) -> Tensor:
        """Each channel between 0 and levels - 1, with a small margin so that the ends are reached."""
        return (torch.tanh(z) * (1 + 1e-3) + 1) / 2 * _channel(self.top, z)

    def _values(self, level: Tensor) -> Tensor:
        """Levels 0 .. L - 1 as values from -1 to 1."""
        return 2 * level / _channel(self.top, level) - 1

    def _codes(self, level: Tensor) -> Tensor:
        return (level.long() * _channel(self.steps, level)).sum(1)


def nearest(rows: Tensor, codebook: Tensor, budget: int = 2**19) -> Tensor:
    """The index of the nearest row of ``codebook`` (K, d) to each of ``rows`` (n, d): int64 (n,).

    argmin_k |e_k|^2 / 2 - <z, e_k>, by one matrix product, since |z|^2 is the same for all k. Rows are
    processed in blocks of ``budget`` scores.
    """
    half = codebook.square().sum(1) / 2
    size = max(1, budget // len(codebook))
    parts = [torch.addmm(half, part, codebook.T, alpha=-1).argmin(1) for part in torch.split(rows, size)]
    return torch.cat(parts)


def _flat(z: Tensor) -> Tensor:
    """(n, d, ...) to rows (m, d)."""
    return z.movedim(1, -1).reshape(-1, z.shape[1])


def _grid(rows: Tensor, like: Tensor) -> Tensor:
    """Rows (m, d) back to (n, d, ...)."""
    return rows.view(len(like), *like.shape[2:], -1).movedim(-1, 1)


def _channel(values: Tensor, like: Tensor) -> Tensor:
    """(d,) reshaped to broadcast over the second axis of (n, d, ...)."""
    return values.view(-1, *([1] * (like.dim() - 2)))


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _all_reduce(total: Tensor) -> None:
    if _distributed():
        dist.all_reduce(total)
