"""The vector quantiser against vector-quantize-pytorch, and the VAE and VQ-VAE against pythae's.

The quantisers begin with the same codebook and see the same vectors; whether their entries, codes and updated
codebooks are equal stands beside the times. pythae's models are built around encoders and decoders of the
same form and size, and train on the same digits with the same optimizer, batch and number of steps; since
they weigh errors each in its own way, all are compared by the mean squared error of held-out digits.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import Row, data_folder, medians, report, row
from harmonia.generators import Batch, Condition
from harmonia.generators.autoencoders.autoencoder import VAE, VQVAE, VAEConfig, VQVAEConfig
from harmonia.generators.autoencoders.bottlenecks import VectorQuantizer
from harmonia.recipes.generators.pictures import Pictures, load_pictures

PEER = "vector-quantize-pytorch"
DIM = 64
VECTORS = 128 * 49
"""A batch of 128 grids of 7x7."""


def quantisers(size: int, vectors: int, repeats: int) -> list[Row]:
    """Times and equality for a codebook of ``size`` entries."""
    from vector_quantize_pytorch import VectorQuantize

    torch.manual_seed(0)
    ours = VectorQuantizer(size, DIM, revive=0.0)
    theirs = VectorQuantize(DIM, size, decay=0.99, commitment_weight=0.25, rotation_trick=False)
    z = torch.randn(vectors, DIM)
    with torch.no_grad():
        codebook = z[torch.randint(vectors, (size,))] + 0.1 * torch.randn(size, DIM)
        for name in (ours.codebook, ours.sums, theirs._codebook.embed[0], theirs._codebook.embed_avg[0]):
            name.copy_(codebook)
    rows = []
    for training in (False, True):
        ours.train(training)
        theirs.train(training)
        what = "forward and update" if training else "forward"
        with torch.no_grad():
            a, (entry, codes, _) = ours(z), theirs(z[None])
        same = [(a.codes == codes[0]).float().mean().item(), _close(a.z, entry[0])]
        if training:
            same.append(_close(ours.codebook, theirs._codebook.embed[0]))
        equal = f"K = {size}, {what}: equal codes, entries" + ", codebook" * training
        rows.append(row(equal, min(same), "share", goal=(">=", 1.0)))
        with torch.no_grad():
            mine, other = medians([lambda: ours(z), lambda: theirs(z[None])], repeats)
        rows.append(row(f"K = {size}, {what}", vectors / mine / 1e6, "M vectors/s", PEER,
                        vectors / other / 1e6, (">=", 3.0)))  # fmt: skip
    return rows


def _close(a: Tensor, b: Tensor) -> float:
    """The share of rows that are the same but for rounding."""
    return (a - b).abs().amax(1).le(1e-4).float().mean().item()


Step = Callable[[Tensor], Tensor]
"""Pictures (n, 1, 28, 28) in [-1, 1] to the loss of a training step."""


def models() -> dict[str, tuple[nn.Module, Step, Step]]:
    """By name: the model, its loss, its reconstructions."""
    from pythae.models import VAE as PythaeVAE
    from pythae.models import VQVAE as PythaeVQVAE
    from pythae.models import VAEConfig as PythaeVAEConfig
    from pythae.models import VQVAEConfig as PythaeVQVAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Enc(BaseEncoder):  # type: ignore[misc]
        def __init__(self, net: nn.Module, split: bool) -> None:
            super().__init__()
            self.net, self.split = net, split

        def forward(self, x: Tensor) -> ModelOutput:
            y = self.net(x)
            if not self.split:
                return ModelOutput(embedding=y)
            mean, log_variance = y.chunk(2, 1)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Dec(BaseDecoder):  # type: ignore[misc]
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.net(z))

    shape, codes, dim = (1, 28, 28), 256, 16
    # sigma 1 makes ours the loss that pythae's VAE has
    ours, vq = VAE(VAEConfig(sigma=1.0)), VQVAE(VQVAEConfig(codes=codes, dim=dim))
    a, b = VAEConfig(), VQVAEConfig(dim=dim)
    pvae = PythaeVAE(
        PythaeVAEConfig(input_dim=shape, latent_dim=32), Enc(a.encoder(64), True), Dec(a.decoder())
    )
    pvq = PythaeVQVAE(
        PythaeVQVAEConfig(input_dim=shape, latent_dim=dim, num_embeddings=codes, use_ema=True),
        Enc(b.encoder(dim), False), Dec(b.decoder()),
    )  # fmt: skip

    def told(model: Any) -> tuple[nn.Module, Step, Step]:
        return (
            model,
            lambda x: model({"data": x}).loss,
            lambda x: model.decoder(model({"data": x}).z).reconstruction,
        )

    def own(model: VAE | VQVAE) -> tuple[nn.Module, Step, Step]:
        return model, lambda x: model.losses(Batch(x, Condition(len(x))))["model"], model.reconstruct

    def means(x: Tensor) -> Any:
        return pvae.decoder(pvae.encoder(x).embedding).reconstruction

    return {
        "VAE": own(ours),
        "pythae VAE": (pvae, told(pvae)[1], means),
        "VQ-VAE": own(vq),
        "pythae VQ-VAE": told(pvq),
    }


def trained(steps: int, held: int) -> list[Row]:
    """Held-out error and seconds of a step at equal steps, all models in turns, batch by batch."""
    folder = data_folder() / "mnist"
    data, other = load_pictures("mnist", "train", data=folder), load_pictures("mnist", "val", data=folder)
    torch.manual_seed(0)
    found = models()
    optimizers = {
        name: torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3, weight_decay=0.0)
        for name, (model, _, _) in found.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(steps):
        x = _batch(data, torch.randint(len(data), (64,)))
        for name, (model, loss, _) in found.items():
            model.train()
            begun = time.perf_counter()
            optimizers[name].zero_grad()
            torch.autograd.backward(loss(x))
            optimizers[name].step()
            taken[name].append(time.perf_counter() - begun)
    x = _batch(other, torch.arange(min(held, len(other))))
    rows = []
    error, seconds, weights = {}, {}, {}
    for name, (model, _, again) in found.items():
        model.eval()
        with torch.no_grad():
            error[name] = (again(x) - x).square().mean().item()
        seconds[name] = statistics.median(taken[name])
        weights[name] = sum(p.numel() for p in model.parameters())
    for name in ("VAE", "VQ-VAE"):
        peer = f"pythae {name}"
        rows += [
            row(
                f"{name}, {steps} steps: held-out squared error",
                error[name],
                "",
                peer,
                error[peer],
            ),
            row(f"{name}: a step", seconds[name], "s", peer, seconds[peer]),
            row(f"{name}: weights", weights[name], "", peer, weights[peer]),
        ]
    return rows


def _batch(data: Pictures, index: Tensor) -> Tensor:
    return data.x[index].float() / 127.5 - 1


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, for CI")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    if missing := [name for name in ("pythae", "vector_quantize_pytorch") if find_spec(name) is None]:
        sys.exit(f"benchmarks.quantizer needs {', '.join(missing)}: pip install 'harmonia[bench]'")
    rows = []
    for size in (256, 1024) if quick else (256, 1024, 8192):
        rows += quantisers(size, 640 if quick else VECTORS, 3 if quick else 15)
    rows += trained(*((5, 50) if quick else (600, 800)))
    report("quantizer", rows, quick)


if __name__ == "__main__":
    main()
