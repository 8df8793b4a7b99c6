"""How well each kind of memory gives back the whole from a damaged part, and how it stands noise.

``damaged_pixels``: a memory of N images (MNIST digits, photos of Flickr8k, photos and sketches of PACS) as
unit pixel vectors. The cue is the image with its lower half zeroed, or a *weak* one: the upper quarter only,
with noise. A memory may take 5 steps; it succeeds when its answer has a cosine above 0.9 with the whole
image. Every one-modality memory gets the best of the same grid of betas (powers), chosen on the very cues it
is scored on; the harmonic memory takes its own beta and none is chosen for it. The second modality is a
spoken digit of the same class (MNIST; the cue has noise as strong as the voice) or a caption (Flickr8k; the
cue is another person's caption). Trust in the two is learned from 100 other cues of the same kind.

``noisy_clip``: CLIP ViT-B/32 codes of 94 photos with a caption among 1,000 photos and more.
"""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from benchmarks.common import Row, row
from harmonia.collection.encoder_set import EncoderSet
from harmonia.memory import Entropy, Given, HarmonicMemory, Layout, Norm, Shannon, Subsets, Tsallis
from harmonia.memory.classical import ClassicalHopfield, SphericalHopfield
from harmonia.memory.hopfield import retrieve
from harmonia.memory.learning import learn_trusts
from harmonia.types import Signal

STEPS, SUCCESS, CUES, EXAMPLES = 5, 0.9, 64, 100
BETAS = (4.0, 16.0, 64.0, 256.0, 1024.0)
POWERS = (3, 10, 30, 100)
ENTROPIES: dict[str, Entropy] = {
    "softmax": Shannon(),
    "entmax 1.5": Tsallis(1.5),
    "entmax 2 (sparsemax)": Tsallis(2.0),
    "normmax 2": Norm(2.0),
    "2-subsets": Subsets(2),
}
unit = torch.nn.functional.normalize


@dataclass(frozen=True)
class Pool:
    """What memories are drawn from: ``images`` (n, h, w, c) in [0, 1], and codes of a second modality.

    ``other`` (n, d) is remembered; ``cues[i]`` (n, d) are two draws of weak cues for it.
    """

    name: str
    images: torch.Tensor
    other: torch.Tensor | None = None
    cues: Sequence[torch.Tensor] = ()


def damaged_pixels(data: Path, quick: bool) -> list[Row]:
    """The table of recall quality: success of every kind of memory, at several numbers of memories."""
    rows: list[Row] = []
    seeds = 1 if quick else 5
    for pool in pools(data, 600 if quick else None):
        most = 4096 if pool.name == "MNIST" else 1024
        counts = (16, 256) if quick else tuple(n for n in (2, 16, 64, 256, 1024, 4096) if n <= most)
        for count in counts:
            for kind in ("half", "weak"):
                runs = [trial(pool, count, kind, seed) for seed in range(seeds)]
                scores = {name: statistics.mean(run[name] for run in runs) for name in runs[0]}
                rows += _rows(f"{pool.name}, {count} memories, {kind} cue", scores)
    return rows


def _rows(what: str, scores: dict[str, float]) -> list[Row]:
    alone = max(value for name, value in scores.items() if "two" not in name)
    best = next(name for name, value in scores.items() if value == alone and "two" not in name)
    rows = []
    for name, value in scores.items():
        if name == "harmonic, two modalities" and "weak" in what:
            # Ahead, or level where nothing is left to win.
            goal = (">=", 1.0 if alone > 0.995 else 1.0 + 1e-9)
            rows.append(
                row(f"{what}: {name}", value, "success", f"best one-modality ({best})", alone or 1e-9, goal)
            )
        else:
            rows.append(row(f"{what}: {name}", value, "success"))
    return rows


def trial(pool: Pool, count: int, kind: str, seed: int) -> dict[str, float]:
    """Success of every memory on one draw of ``count`` images."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(pool.images), generator=generator)[:count]
    images = pool.images[chosen]
    asked = torch.randperm(count, generator=generator)[:CUES]
    whole = unit(images.flatten(1), dim=-1)
    cue = unit(damaged(images[asked], kind, generator).flatten(1), dim=-1)
    truth = whole[asked]

    def success(answer: torch.Tensor, wanted: torch.Tensor = truth) -> float:
        return float((torch.cosine_similarity(answer, wanted, dim=-1) > SUCCESS).float().mean())

    found = {}
    if count <= 1024:
        threshold = whole.mean()
        bits, bit_cue = (whole > threshold).float() * 2 - 1, torch.zeros_like(cue)
        seen = damaged(torch.ones_like(images[asked]), kind, None).flatten(1) > 0
        bit_cue[seen] = ((cue > threshold).float() * 2 - 1)[seen]
        for rule, memory in (
            ("Hebbian", ClassicalHopfield.hebbian(bits)),
            ("projection", ClassicalHopfield.projection(bits)),
        ):
            states = memory.recall(bit_cue, steps=STEPS, synchronous=True).states
            found[f"classical, {rule}"] = success(states, bits[asked])
    found["dense, polynomial"] = max(
        success(SphericalHopfield(whole, n).recall(cue, steps=STEPS).states) for n in POWERS
    )
    for name, entropy in ENTROPIES.items():
        found[name] = max(
            success(retrieve(cue, whole, beta=beta, entropy=entropy, steps=STEPS, post="l2"))
            for beta in BETAS
        )
    found |= harmonic(pool, chosen, asked, cue, whole, kind, generator, success)
    return found


def harmonic(
    pool: Pool,
    chosen: torch.Tensor,
    asked: torch.Tensor,
    cue: torch.Tensor,
    whole: torch.Tensor,
    kind: str,
    generator: torch.Generator,
    success: Callable[[torch.Tensor], float],
) -> dict[str, float]:
    """The harmonic memory with the image, with the other modality, and with both."""
    codes = {"image": whole} if pool.other is None else {"image": whole, "other": pool.other[chosen]}
    # A zero in a damaged image means that nothing was seen: no centring of images.
    memory = HarmonicMemory(codes, centre={"other"})
    image = Given("image", cue)
    found = {"harmonic": success(memory.recall([image], steps=STEPS).codes["image"])}
    if pool.other is None:
        return found
    other = Given("other", pool.cues[0][chosen[asked]])
    found["harmonic, the other modality alone"] = success(memory.recall([other], steps=STEPS).codes["image"])
    beta = None
    if len(chosen) > 2:
        rows = torch.randperm(len(chosen), generator=generator)[:EXAMPLES]
        again = damaged(pool.images[chosen[rows]], kind, generator).flatten(1)
        examples = [Given("image", unit(again, dim=-1)), Given("other", pool.cues[1][chosen[rows]])]
        beta = learn_trusts(memory, examples, rows)
    both = memory.recall([image, other], steps=STEPS, beta=beta)
    found["harmonic, two modalities"] = success(both.codes["image"])
    return found


def damaged(images: torch.Tensor, kind: str, generator: torch.Generator | None) -> torch.Tensor:
    """The lower half zeroed; or three quarters, and noise of variance 0.1 on what is left."""
    out = images.clone()
    if kind == "half":
        out[:, images.shape[1] // 2 :] = 0
        return out
    if generator is not None:
        out += math.sqrt(0.1) * torch.randn(out.shape, generator=generator)
    out[:, images.shape[1] // 4 :] = 0
    return out.clamp(0, 1)


def pools(data: Path, most: int | None) -> Iterator[Pool]:
    """The three collections, the first ``most`` of each."""
    digits = np.load(data / "mnist/digits.npz")
    images = torch.from_numpy(digits["x"][:most].astype(np.float32) / 255)[..., None]
    yield Pool("MNIST", images, *spoken(data, digits["y"][:most]))
    table = (
        pq.read_table(data / "flickr8k/images_captions.parquet").slice(0, min(most or 2000, 2000)).to_pylist()
    )
    picture = next(k for k in ("image", "jpeg", "image_bytes") if k in table[0])
    media = [r[picture]["bytes"] if isinstance(r[picture], dict) else r[picture] for r in table]
    texts = [r["captions"] for r in table]
    held = described([Signal("text", t[0]) for t in texts])
    yield Pool(
        "Flickr8k", pixels(media), held, [described([Signal("text", t[i]) for t in texts]) for i in (1, 2)]
    )
    jpegs = pq.read_table(data / "pacs/images.parquet", columns=["jpeg"])["jpeg"].to_pylist()
    yield Pool("PACS", pixels(jpegs[:: max(1, len(jpegs) // (most or 2000))]))


def pixels(media: Sequence[bytes]) -> torch.Tensor:
    """Photos as 32 x 32 RGB in [0, 1]."""
    shots = [Image.open(io.BytesIO(m)).convert("RGB").resize((32, 32), Image.Resampling.BOX) for m in media]
    return torch.from_numpy(np.stack([np.asarray(s, np.float32) / 255 for s in shots]))


def spoken(data: Path, labels: np.ndarray) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """For each digit a recording of its name as a code, and codes of it under noise as loud as the voice."""
    voices = np.load(data / "fsdd/digits.npz")
    takes = {d: np.flatnonzero(voices["label"] == d) for d in range(10)}
    used = dict.fromkeys(range(10), 0)
    take = np.empty(len(labels), dtype=int)
    for i, label in enumerate(labels):
        own = takes[int(label)]
        take[i] = own[used[int(label)] % len(own)]
        used[int(label)] += 1
    distinct, inverse = np.unique(take, return_inverse=True)
    clips = [
        voices["audio"][voices["offset"][t] : voices["offset"][t + 1]].astype(np.float32) / 2**15
        for t in distinct
    ]
    rng = np.random.default_rng(0)
    out = []
    for noisy in (False, True, True):
        level = [float(noisy) * float(c.std()) for c in clips]
        heard = [
            c + rng.normal(0, s or 1e-9, len(c)).astype(np.float32) for c, s in zip(clips, level, strict=True)
        ]
        out.append(described([Signal("audio", h[None], rate=8000) for h in heard])[inverse])
    return out[0], out[1:]


def described(signals: Sequence[Signal]) -> torch.Tensor:
    """Codes of the descriptors that Harmonia uses without a model."""
    model = EncoderSet.load()
    return torch.from_numpy(np.stack([codes[0].vector for codes in model.encode(signals)]))


def noisy_clip(data: Path) -> list[Row]:
    """Recall@1 of cosine search, one softmax step (then search) and the harmonic memory under noise.

    Each cue is a unit code scaled by sqrt d, plus Gaussian noise of variance sigma^2 per number: of the
    photo, of another caption of it, of both. Trust is learned on the photos of even number, all figures are
    of the odd ones.
    """
    pairs = np.load(data / "flickr8k/clip_vitb32_pairs.npz")
    many = np.load(data / "flickr8k/clip_vitb32_images.npz")
    names, inverse = np.unique(pairs["image_id"], return_inverse=True)
    by_photo = [np.flatnonzero(inverse == i) for i in range(len(names))]
    others = [i for i, name in enumerate(many["image_id"]) if name not in set(names)]
    photos = np.concatenate(
        [pairs["image_emb"][[r[0] for r in by_photo]], many["image_emb"][others].astype(np.float32)]
    )
    held = {"photo": unit(torch.from_numpy(photos), dim=-1)}
    held["caption"] = torch.from_numpy(pairs["text_emb"][[r[0] for r in by_photo]])
    asked = {"photo": held["photo"][: len(names)]}
    asked["caption"] = torch.from_numpy(pairs["text_emb"][[r[1] for r in by_photo]])
    slots = torch.arange(len(photos))
    parts = {"photo": slots, "caption": torch.where(slots < len(names), slots, -1)}
    layout = Layout(len(slots), slots, parts)
    even, odd = torch.arange(0, len(names), 2), torch.arange(1, len(names), 2)
    rows: list[Row] = []
    for variance in (0.1, 0.3, 0.5, 1.0, 4.0, 9.0):
        cues = {key: noisy(codes, variance) for key, codes in asked.items()}
        memory = HarmonicMemory(held, layout)
        beta = learn_trusts(memory, [Given(k, c[even]) for k, c in cues.items()], even)
        for keys in (["photo"], ["caption"], ["photo", "caption"]):
            found = {
                "cosine search": cosine_search(held, cues, keys, odd),
                "softmax step": softmax_step(held, cues, keys, odd),
            }
            given = [Given(k, cues[k][odd]) for k in keys]
            settled = memory.recall(given, beta=beta if len(keys) > 1 else None)
            mine = float((settled.slots[:, 0] == odd).float().mean())
            what = f"CLIP, noise {variance}, {' and '.join(keys)}: Recall@1"
            for peer, value in found.items():
                rows.append(row(f"{what}, harmonic", mine, "fraction", peer, value))
    return rows


def noisy(codes: torch.Tensor, variance: float) -> torch.Tensor:
    """sqrt(d) * code + N(0, variance), made unit."""
    generator = torch.Generator().manual_seed(int(variance * 10))
    noise = torch.randn(codes.shape, generator=generator)
    return unit(codes * codes.shape[1] ** 0.5 + variance**0.5 * noise, dim=-1)


def cosine_search(
    held: dict[str, torch.Tensor], cues: dict[str, torch.Tensor], keys: Sequence[str], rows: torch.Tensor
) -> float:
    """Recall@1 of the mean cosine; what has no caption counts by its photo alone."""
    count = len(held["photo"])
    total, votes = torch.zeros(len(rows), count), torch.zeros(count)
    for key in keys:
        total[:, : len(held[key])] += cues[key][rows] @ held[key].T
        votes[: len(held[key])] += 1
    return float(((total / votes).nan_to_num(nan=-1.0).argmax(-1) == rows).float().mean())


def softmax_step(
    held: dict[str, torch.Tensor], cues: dict[str, torch.Tensor], keys: Sequence[str], rows: torch.Tensor
) -> float:
    """Recall@1 after one step of modern Hopfield retrieval of each cue, at the best beta of the grid."""
    best = 0.0
    for beta in BETAS:
        cleaned = {k: retrieve(cues[k], held[k], beta=beta, steps=1, post="l2") for k in keys}
        best = max(best, cosine_search(held, cleaned, keys, rows))
    return best
