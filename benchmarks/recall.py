"""Recall against plain search on real photos with captions, whole and damaged.

Flickr8k dev: 1,000 photos; a record is the photo and its captions 1 to 4, four text parts. Caption 0 is held
out: it is the text cue, so the text cue is not itself stored. The image cue is the photo with its lower
half zeroed and Gaussian noise (variance on the [0, 1] scale, clipped). Then abstention: half of the records
are strangers. Then the same with CLIP ViT-B/32 codes.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

import harmonia
from benchmarks.common import Row, data_folder, report, row
from harmonia.collection.collection import Memory
from harmonia.memory import Given, HarmonicMemory, Layout, Settled
from harmonia.modalities import image
from harmonia.types import Signal

DEPTHS = (1, 5, 10)
VARIANCES = (0.1, 0.3, 0.5, 1.0)
unit = torch.nn.functional.normalize
Side = tuple[torch.Tensor, NDArray[np.int64]]


def hits(ranked: NDArray[np.int64], truth: NDArray[np.int64]) -> list[float]:
    """Recall@1/5/10 of ranked slots ``(Q, 10)``."""
    return [float((ranked[:, :k] == truth[:, None]).any(axis=1).mean()) for k in DEPTHS]


def plain(held: Sequence[Side], cues: Sequence[torch.Tensor], records: int) -> NDArray[np.int64]:
    """What ``retrieve`` does: the mean over the cues of the cosine with each record's best part."""
    total, votes = torch.zeros(cues[0].shape[0], records), torch.zeros(records)
    for (codes, record), cue in zip(held, cues, strict=True):
        index = torch.from_numpy(record)
        best = torch.full((cue.shape[0], records), -math.inf)
        best.scatter_reduce_(1, index.expand(cue.shape[0], -1), cue @ codes.T, "amax")
        total += best.nan_to_num(neginf=0.0)
        votes[index] += 1 / torch.bincount(index, minlength=records)[index]
    return (total / votes).nan_to_num(nan=-math.inf).topk(DEPTHS[-1]).indices.numpy()


def compare(what: str, settled: Settled, peer: NDArray[np.int64], truth: NDArray[np.int64]) -> list[Row]:
    """Rows of Recall@k of recall beside those of retrieve."""
    mine, theirs = hits(settled.slots[:, : DEPTHS[-1]].numpy(), truth), hits(peer, truth)
    return [
        row(f"{what}: Recall@{k}", a, "fraction", "retrieve (cosine)", b)
        for k, a, b in zip(DEPTHS, mine, theirs, strict=True)
    ]


def photos(folder: Path, count: int) -> tuple[list[bytes], list[list[str]]]:
    """Photos and captions of the dev split."""
    table = pq.read_table(folder / "flickr8k/images_captions.parquet")
    rows = [r for r in table.to_pylist() if r["split"] in ("dev", "val", "validation")][:count]
    picture = next(k for k in ("image", "jpeg", "image_bytes") if k in rows[0])
    media = [r[picture]["bytes"] if isinstance(r[picture], dict) else r[picture] for r in rows]
    return media, [list(r["captions"]) for r in rows]


def damaged(picture: Signal, variance: float, seed: int) -> Signal:
    """Lower half zeroed, then noise."""
    pixels = picture.array.astype(np.float32) / 255
    pixels[len(pixels) // 2 :] = 0
    pixels = pixels + np.random.default_rng(seed).normal(0, math.sqrt(variance), pixels.shape)
    return Signal("image", (pixels.clip(0, 1) * 255).round().astype(np.uint8))


def remembered(media: Sequence[bytes], captions: Sequence[Sequence[str]], work: Path) -> Memory:
    """A real store of photos with captions 1 to 4."""
    folder = work / "photos"
    folder.mkdir()
    lines = []
    for number, (picture, texts) in enumerate(zip(media, captions, strict=True)):
        (folder / f"{number:05d}.jpg").write_bytes(picture)
        lines.append(json.dumps({"image": f"{number:05d}.jpg", "captions": texts[1:]}))
    collection = harmonia.open(work / "memory", ("descriptors",))
    manifest = folder / "records.jsonl"
    manifest.write_text("\n".join(lines), encoding="utf-8")
    report = collection.remember(manifest)
    assert not report.problems, report.problems
    return collection


def descriptors(folder: Path, count: int) -> list[Row]:
    """The spine as it is: descriptor encoders, a real store."""
    media, captions = photos(folder, count)
    with tempfile.TemporaryDirectory() as name:
        collection = remembered(media, captions, Path(name))
        model, (table, memory) = collection.encoders, collection.bound()
        assert memory is not None
        found = collection.store.records(table.record_ids)
        slot = {int(r.metadata["name"]): i for i, r in enumerate(found)}
        kept = [n for n in range(len(media)) if n in slot]
        truth = np.array([slot[n] for n in kept])
        keys = {e.modality: e.name for e in model.encoders}
        held = {
            m: (torch.from_numpy(table.encoders[keys[m]].codes), table.encoders[keys[m]].record)
            for m in ("image", "text")
        }

        def codes(signals: Sequence[Signal]) -> torch.Tensor:
            return torch.from_numpy(np.stack([c[0].vector for c in model.encode(signals)]))

        words = codes([Signal("text", captions[n][0]) for n in kept])
        rows = compare(
            "caption alone",
            memory.recall([Given(keys["text"], words)]),
            plain([held["text"]], [words], memory.slots),
            truth,
        )
        pictures = [image.read(media[n]) for n in kept]
        for variance in VARIANCES:
            half = codes([damaged(p, variance, n) for n, p in enumerate(pictures)])
            alone = memory.recall([Given(keys["image"], half)])
            both = memory.recall([Given(keys["image"], half), Given(keys["text"], words)])
            rows += compare(
                f"half photo, noise {variance}", alone, plain([held["image"]], [half], memory.slots), truth
            )
            rows += compare(
                f"half photo, noise {variance}, and caption",
                both,
                plain([held["image"], held["text"]], [half, words], memory.slots),
                truth,
            )
            if variance == VARIANCES[0]:
                peer = plain([held["image"], held["text"]], [half, words], memory.slots)
                for n, picture in list(zip(kept, pictures, strict=True))[:5]:
                    i = kept.index(n)
                    cue = {"text": captions[n][0], "image": damaged(picture, variance, i)}
                    whole, search = collection.recall(**cue, k=1), collection.retrieve(**cue, k=1)
                    assert whole.records[0].record.id == table.record_ids[int(both.slots[i, 0])]
                    assert search[0].record.id == table.record_ids[int(peer[i, 0])]
        half = codes([damaged(p, 0.3, n) for n, p in enumerate(pictures)])
        cues = {"caption": ("text", words), "half photo, noise 0.3": ("image", half)}
        rows += abstention(memory, keys, cues, truth)
    return rows


def abstention(
    memory: HarmonicMemory,
    keys: Mapping[str, str],
    cues: Mapping[str, tuple[str, torch.Tensor]],
    truth: NDArray[np.int64],
) -> list[Row]:
    """How often a stranger is answered and a held cue is not, with half of the records left out."""
    rows = []
    even = torch.arange(memory.slots) % 2 == 0
    known = even[torch.from_numpy(truth)].numpy()
    for what, (modality, codes) in cues.items():
        settled = memory.recall([Given(keys[modality], codes)], allowed=even)
        silent = (settled.nothing >= settled.p[:, 0]).numpy()
        rows.append(row(f"{what}: strangers answered", float((~silent)[~known].mean()), "fraction"))
        rows.append(
            row(f"{what}: cues of held records not answered", float(silent[known].mean()), "fraction")
        )
    return rows


def clip(folder: Path) -> list[Row]:
    """CLIP codes: 94 photos with captions among about 1,085 photos."""
    pairs = np.load(folder / "flickr8k/clip_vitb32_pairs.npz")
    many = np.load(folder / "flickr8k/clip_vitb32_images.npz")
    names, first, inverse = np.unique(pairs["image_id"], return_index=True, return_inverse=True)
    others = [i for i, name in enumerate(many["image_id"]) if name not in set(names)]
    pictures = unit(
        torch.from_numpy(
            np.concatenate([pairs["image_emb"][first], many["image_emb"][others].astype(np.float32)])
        ),
        dim=-1,
    )
    texts = torch.from_numpy(pairs["text_emb"])
    by_photo = [np.flatnonzero(inverse == i) for i in range(len(names))]
    held = texts[[rows[0] for rows in by_photo]]
    cue = texts[[rows[1] for rows in by_photo]]
    slots = torch.arange(len(pictures))
    layout = Layout(len(slots), slots, {"image": slots, "text": torch.where(slots < len(names), slots, -1)})
    memory = HarmonicMemory({"image": pictures, "text": held}, layout)
    truth = np.arange(len(names))
    image_side, text_side = (pictures, slots.numpy()), (held, truth)

    def against(
        what: str, given: Sequence[Given], sides: Sequence[Side], wanted: NDArray[np.int64]
    ) -> list[Row]:
        peer = plain(sides, [g.codes for g in given], memory.slots)
        return compare(f"CLIP, {what}", memory.recall(given), peer, wanted)

    rows = against("caption alone", [Given("text", cue)], [text_side], truth)
    seek = [Given("image", texts, origin="text")]
    rows += against("caption to photo (shared space)", seek, [image_side], inverse)
    size = pictures.shape[1]
    for variance in (*VARIANCES, 4.0, 9.0):
        noise = torch.randn(len(names), size, generator=torch.Generator().manual_seed(int(variance * 10)))
        noisy = unit(pictures[: len(names)] * math.sqrt(size) + math.sqrt(variance) * noise, dim=-1)
        photo, both = Given("image", noisy), [Given("image", noisy), Given("text", cue)]
        rows += against(f"photo, noise {variance}", [photo], [image_side], truth)
        rows += against(f"photo, noise {variance}, and caption", both, [image_side, text_side], truth)
    return rows


def main() -> None:
    """Run the protocol; --quick takes 200 photos."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="200 photos")
    quick = parser.parse_args().quick
    folder = data_folder()
    report("recall", descriptors(folder, 200 if quick else 1000) + clip(folder), quick)


if __name__ == "__main__":
    main()
