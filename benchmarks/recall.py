"""Recall against plain search on real photos with captions, whole and damaged.

Flickr8k dev: 1,000 photos; a record is the photo and its captions 1 to 4, four text parts. Caption 0 is held
out: it is the text cue, so the text cue is not itself stored. The image cue is the photo with its lower
half zeroed and Gaussian noise (variance on the [0, 1] scale, clipped). Then abstention: half of the records
are strangers. Then words alone: COCO captions for other captions of the same photo, and questions about the
starter collection. Then photos and captions with CLIP ViT-B/32 codes. Nothing here is trained.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow.parquet as pq
import torch
from lancedb.query import MatchQuery
from numpy.typing import NDArray

import harmonia
from benchmarks.common import Row, data_folder, report, row
from examples.starter import build
from harmonia.collection.collection import Memory
from harmonia.collection.cues import RecallOptions, make_query
from harmonia.memory import Given, HarmonicMemory, Layout
from harmonia.modalities import image
from harmonia.types import HarmoniaError, Record, Signal

DEPTHS = (1, 5, 10)
VARIANCES = (0.1, 0.3, 0.5, 1.0)
GOAL = (">=", 0.5)
"""Recall@1 by a caption, of another caption of the same photo."""
BATCH = 64
FRAMES = (
    "What do you know about {}?",
    "Is there anything about {}?",
    "{}",
    "Show me the one with {}, please",
    "Do I have something about the {}?",
)
"""Questions, each about one word."""
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


def compare(
    what: str,
    mine: NDArray[np.int64],
    theirs: NDArray[np.int64],
    truth: NDArray[np.int64],
    goal: tuple[str, float] | None = None,
    peer: str = "retrieve (cosine)",
) -> list[Row]:
    """Rows of Recall@k of recall beside those of a peer; ``goal`` is on the first."""
    return [
        row(f"{what}: Recall@{k}", a, "fraction", peer, b, goal if k == 1 else None, absolute=True)
        for k, a, b in zip(DEPTHS, hits(mine, truth), hits(theirs, truth), strict=True)
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
    """The spine as it is: descriptor encoders, a real store, recalls as the product makes them."""
    media, captions = photos(folder, count)
    with tempfile.TemporaryDirectory() as name:
        collection = remembered(media, captions, Path(name))
        table = collection.bound()[0]
        found = collection.store.records(table.record_ids)
        slot = {int(r.metadata["name"]): i for i, r in enumerate(found)}
        kept = [n for n in range(len(media)) if n in slot]
        truth = np.array([slot[n] for n in kept])
        keys = {e.modality: e.name for e in collection.encoders.encoders}
        held = {
            m: (torch.from_numpy(table.encoders[keys[m]].codes), table.encoders[keys[m]].record)
            for m in ("image", "text")
        }

        def codes(signals: Sequence[Signal]) -> torch.Tensor:
            return torch.from_numpy(np.stack([c[0].vector for c in collection.encoders.encode(signals)]))

        said = [captions[n][0] for n in kept]
        words = codes([Signal("text", one) for one in said])
        rows = by_words("caption alone", collection, said, plain([held["text"]], [words], len(found)), truth)
        pictures = [image.read(media[n]) for n in kept]
        for variance in VARIANCES:
            cut = [damaged(p, variance, n) for n, p in enumerate(pictures)]
            half = codes(cut)
            alone, _ = answers(collection, [{"image": one} for one in cut])
            both, _ = answers(
                collection, [{"image": one, "text": word} for one, word in zip(cut, said, strict=True)]
            )
            peer = plain([held["image"]], [half], len(found))
            rows += compare(f"half photo, noise {variance}", alone, peer, truth)
            peer = plain([held["image"], held["text"]], [half, words], len(found))
            rows += compare(f"half photo, noise {variance}, and caption", both, peer, truth)
        cut = [damaged(p, 0.3, n) for n, p in enumerate(pictures)]
        cues: dict[str, list[dict[str, Any]]] = {
            "caption": [{"text": one} for one in said],
            "half photo, noise 0.3": [{"image": one} for one in cut],
        }
        rows += abstention(collection, cues, truth)
    return rows


def answers(
    collection: Memory, cues: Sequence[Mapping[str, Any]], leave_out: Collection[str] = ()
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The slots ``(Q, 10)`` that the product recalls by each of the cues, and where it abstains (Q,)."""
    slot = {record: i for i, record in enumerate(collection.bound()[0].record_ids)}
    ranked, silent = np.full((len(cues), DEPTHS[-1]), -1), np.ones(len(cues), dtype=bool)
    for first in range(0, len(cues), BATCH):
        queries = [make_query(one) for one in cues[first : first + BATCH]]
        found = collection.recall_many(queries, RecallOptions(k=DEPTHS[-1]), leave_out=leave_out)
        for row_, one in enumerate(found, first):
            assert not isinstance(one, HarmoniaError), one
            several = [slot[r.record.id] for r in one.records]
            ranked[row_, : len(several)], silent[row_] = several, one.abstained
    return ranked, silent


def by_words(
    what: str, collection: Memory, cues: Sequence[str], cosine: NDArray[np.int64], truth: NDArray[np.int64]
) -> list[Row]:
    """Rows of recall by words beside retrieve, and beside BM25 over the same words of the same records."""
    mine, _ = answers(collection, [{"text": words} for words in cues])
    rows = compare(what, mine, cosine, truth, GOAL if what == "caption alone" else None)
    return rows + compare(what, mine, full_text(collection, cues), truth, peer="BM25 (LanceDB full text)")


def full_text(collection: Memory, cues: Sequence[str]) -> NDArray[np.int64]:
    """The slots ``(Q, 10)`` by LanceDB's own full-text search, with its stemming and stop words."""
    ids = collection.bound()[0].record_ids
    texts: dict[str, list[str]] = {record: [] for record in ids}
    for record, text in zip(*collection.store.texts(), strict=True):
        texts[record].append(text)
    ranked = np.full((len(cues), DEPTHS[-1]), -1)
    with tempfile.TemporaryDirectory() as name:
        rows = [{"slot": i, "words": "\n".join(texts[record])} for i, record in enumerate(ids)]
        table = lancedb.connect(name).create_table("records", rows)
        table.create_fts_index("words")
        for row_, words in enumerate(cues):
            found = table.search(MatchQuery(words, "words"), query_type="fts").limit(DEPTHS[-1]).to_list()
            ranked[row_, : len(found)] = [one["slot"] for one in found]
    return ranked


def abstention(
    collection: Memory, cues: Mapping[str, Sequence[Mapping[str, Any]]], truth: NDArray[np.int64]
) -> list[Row]:
    """How often a stranger is answered and a held cue is not, with half of the records left out."""
    rows = []
    known = truth % 2 == 0
    odd = collection.bound()[0].record_ids[1::2]
    for what, several in cues.items():
        _, silent = answers(collection, several, odd)
        rows.append(row(f"{what}: strangers answered", float((~silent)[~known].mean()), "fraction"))
        rows.append(
            row(f"{what}: cues of held records not answered", float(silent[known].mean()), "fraction")
        )
    return rows


def texts_only(folder: Path, count: int) -> list[Row]:
    """Words alone: COCO captions for each other, and questions about the starter collection."""
    table = pq.read_table(folder / "coco_captions/captions.parquet").to_pylist()[:count]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        manifest = work / "captions.jsonl"
        lines = [json.dumps({"captions": r["captions"][1:5], "number": n}) for n, r in enumerate(table)]
        manifest.write_text("\n".join(lines), encoding="utf-8")
        collection = harmonia.open(work / "coco", ("descriptors",))
        collection.remember(manifest)
        slot = {r.metadata["number"]: i for i, r in enumerate(_in_order(collection))}
        numbers = [n for n in range(len(table)) if n in slot]
        cues, truth = [table[n]["captions"][0] for n in numbers], np.array([slot[n] for n in numbers])
        rows = by_words("COCO caption", collection, cues, _cosine(collection, cues), truth)
        build(work / "media")
        collection = harmonia.open(work / "starter", ("descriptors",))
        collection.remember(work / "media")
        questions, wanted = _questions(collection)
        rows += by_words(
            "question about a starter record", collection, questions, _cosine(collection, questions), wanted
        )
    return rows


def _in_order(collection: Memory) -> list[Record]:
    return collection.store.records(collection.bound()[0].record_ids)


def _cosine(collection: Memory, cues: Sequence[str]) -> NDArray[np.int64]:
    """The slots ``(Q, 10)`` by ``retrieve``."""
    slot = {record: i for i, record in enumerate(collection.bound()[0].record_ids)}
    ranked = np.full((len(cues), DEPTHS[-1]), -1)
    for row_, words in enumerate(cues):
        several = [slot[n.record.id] for n in collection.retrieve(text=words, k=DEPTHS[-1])]
        ranked[row_, : len(several)] = several
    return ranked


def _questions(collection: Memory) -> tuple[list[str], NDArray[np.int64]]:
    """For each record with text a question about each of the three longest words that it alone holds."""
    owners: dict[str, set[int]] = {}
    for i, record in enumerate(_in_order(collection)):
        for part in record.parts:
            for word in re.findall(r"[a-z]{4,}", (part.text or "").lower()):
                owners.setdefault(word, set()).add(i)
    own: dict[int, list[str]] = {}
    for word, several in sorted(owners.items(), key=lambda item: (-len(item[0]), item[0])):
        if len(several) == 1:
            own.setdefault(min(several), []).append(word)
    asked = [(word, i) for i, words in sorted(own.items()) for word in words[:3]]
    questions = [FRAMES[n % len(FRAMES)].format(word) for n, (word, _) in enumerate(asked)]
    return questions, np.array([i for _, i in asked])


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
        mine = memory.recall(given).slots[:, : DEPTHS[-1]].numpy()
        return compare(f"CLIP, {what}", mine, peer, wanted)

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
    count = 200 if quick else 1000
    report("recall", descriptors(folder, count) + texts_only(folder, count) + clip(folder), quick)


if __name__ == "__main__":
    main()
