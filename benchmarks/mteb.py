"""The product under mteb's harness: mteb asks, mteb computes the metrics; its dense search is the peer.

First mteb's own mock tasks (two documents each: they prove the interface, not the quality), then tasks of its
format from the development data. The peer is mteb's exact search (``SearchEncoderWrapper``) over codes of the
same encoders, cosine. Where the encoders cannot compare two modalities (words and photos, by descriptors),
every query is a miss for the product; the peer, all of whose scores are zero, guesses. No network is used.
"""

from __future__ import annotations

import os

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

import argparse
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import soundfile
from numpy.typing import NDArray
from PIL import Image

from benchmarks.common import Row, data_folder, report, row
from benchmarks.recall import damaged, photos
from harmonia.collection.cues import decode, encode, make_query
from harmonia.collection.encoder_set import EncoderSet
from harmonia.encoders import unit
from harmonia.modalities import image
from harmonia.tasks.mteb import MemorySearch, contents, evaluate, load_mteb, model_meta, undecoded

MOCKS = (
    "MockRetrievalTask", "MockRetrievalDialogTask", "MockInstructionRetrieval", "MockRerankingTask",
    "MockAny2AnyRetrievalI2TTask", "MockAny2AnyRetrievalT2ITask", "MockMultiChoiceTask",
    "MockAny2AnyRetrievalA2TTask", "MockAny2AnyRetrievalT2ATask", "MockAny2AnyRetrievalA2ATask",
    "MockAudioReranking", "MockVideoRetrievalV2T", "MockVideoRetrievalT2V", "MockVideoAudioRetrievalVA2T",
    "MockVideoAudioRetrievalT2VA", "MockVideoAudioTextRetrievalVAT2T",
)  # fmt: skip
NAMES = {"t": "text", "i": "image", "a": "audio", "v": "video"}
PEER = "mteb dense search"
Column = Sequence[str] | Sequence[bytes]
Relevant = Mapping[str, Mapping[str, int]]


class DenseEncoder:
    """mteb's ``EncoderProtocol`` over the encoders alone: the codes of a row's spaces side by side."""

    def __init__(self, model_name: str = "descriptors", revision: str | None = None, **kwargs: Any) -> None:
        self.model = EncoderSet.load([model_name])
        self.mteb_model_meta = model_meta(self.model, "dense")
        self.offset, self.dim = {}, 0
        for encoder in self.model.encoders:
            if encoder.space not in self.offset:
                self.offset[encoder.space] = self.dim
                self.dim += encoder.dim

    def encode(self, inputs: Iterable[Mapping[str, Any]], **kwargs: Any) -> NDArray[np.float32]:
        """Unit vectors ``(rows, dim)``; zeros in the spaces that a row has no code in."""
        vectors = []
        for given in (given for batch in inputs for given in contents(batch)):
            vector = np.zeros(self.dim, dtype=np.float32)
            for cue in encode(self.model, [decode(make_query(given))])[0]:
                begin = self.offset[cue.code.space]
                vector[begin : begin + len(cue.code.vector)] += cue.code.vector
            vectors.append(vector)
        return unit(np.stack(vectors))

    def similarity(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosines ``(rows of a, rows of b)``."""
        return a @ b.T

    def similarity_pairwise(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosines ``(rows,)``."""
        cosines: NDArray[np.float32] = (a * b).sum(axis=1)
        return cosines


def bundled() -> list[Any]:
    """mteb's mock tasks of retrieval and reranking, loaded."""
    load_mteb()
    from mteb.mocks import mock_tasks
    from mteb.mocks.mock_tasks import reranking, retrieval

    make = retrieval.create_mock_audio

    def sounds(*args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        # The same noise, as WAV files: datasets encodes an array by torchcodec only.
        return [{"bytes": wav(w["array"], w["sampling_rate"]), "path": None} for w in make(*args, **kwargs)]

    with (
        patch.object(retrieval, "create_mock_audio", sounds),
        patch.object(reranking, "create_mock_audio", sounds),
    ):
        return [prepared(getattr(mock_tasks, name)()) for name in MOCKS]


def prepared(task: Any) -> Any:
    """A loaded task whose media stay files: mteb would decode them, the product does that itself."""
    task.load_data()
    task.convert_v1_dataset_format_to_v2(num_proc=None)
    for splits in task.dataset.values():
        for split in splits.values():
            split |= {side: undecoded(split[side]) for side in ("queries", "corpus")}
    return task


def own(
    name: str, category: str, queries: Mapping[str, Column], corpus: Mapping[str, Column], relevant: Relevant
) -> Any:
    """A task of mteb's retrieval format. Rows are called q0, q1, ... and d0, d1, ...; columns are modalities.

    ``category`` is mteb's: it2i asks with pictures and words for pictures.
    """
    load_mteb()
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    asked = set(category) - {"2"}

    class Own(AbsTaskRetrieval):  # type: ignore[misc]
        metadata = TaskMetadata(
            name=name, description=name, category=category, modalities=sorted(NAMES[c] for c in asked),
            type="Any2AnyRetrieval", dataset={"path": "none", "revision": "none"}, eval_splits=["test"],
            eval_langs=["eng-Latn"], main_score="ndcg_at_10",
        )  # fmt: skip
        k_values = (1, 5, 10, 100)

    task = Own()
    split = {"queries": table("q", queries), "corpus": table("d", corpus), "relevant_docs": relevant}
    task.dataset = {"default": {"test": {**split, "top_ranked": None}}}
    task.data_loaded = True
    return task


def table(prefix: str, columns: Mapping[str, Column]) -> Any:
    """A dataset of encoded media files and texts."""
    from datasets import Dataset

    rows = len(next(iter(columns.values())))
    held = {
        name: list(c) if name == "text" else [{"bytes": b, "path": None} for b in c]
        for name, c in columns.items()
    }
    return Dataset.from_dict({"id": [f"{prefix}{i}" for i in range(rows)], **held})


def of_photos(folder: Path, count: int) -> Iterator[Any]:
    """Flickr8k dev: words and photos across, and both together."""
    media, captions = photos(folder, count)
    ask, other = [c[0] for c in captions], [c[1] for c in captions]
    every = [text for texts in captions for text in texts]
    same = {f"q{i}": {f"d{i}": 1} for i in range(len(media))}
    five = {f"q{i}": {f"d{5 * i + j}": 1 for j in range(5)} for i in range(len(media))}
    yield own("caption -> photo", "t2i", {"text": ask}, {"image": media}, same)
    yield own("photo -> captions", "i2t", {"image": media}, {"text": every}, five)
    yield own("caption -> photo and another caption", "t2it", {"text": ask},
              {"image": media, "text": other}, same)  # fmt: skip
    halves = [png(damaged(next(image.windows(m)), 0.3, seed).array) for seed, m in enumerate(media)]
    yield own("half of a noisy photo and caption -> photo and another caption", "it2it",
              {"image": halves, "text": ask}, {"image": media, "text": other}, same)  # fmt: skip


def of_emoji(folder: Path, count: int) -> Iterator[Any]:
    """Every n-th emoji by its English name."""
    rows = pq.read_table(folder / "emoji/noto.parquet", columns=["name", "png"]).to_pylist()
    rows = rows[:: max(1, len(rows) // count)][:count]
    same = {f"q{i}": {f"d{i}": 1} for i in range(len(rows))}
    names, pictures = [r["name"] for r in rows], [r["png"] for r in rows]
    yield own("emoji name -> picture", "t2i", {"text": names}, {"image": pictures}, same)


def of_sounds(folder: Path, count: int) -> Iterator[Any]:
    """ESC-10: the clips of fold 4 by class words, and sounds of the same class in folds 1 to 3."""
    rows = pq.read_table(folder / "esc10/clips.parquet", columns=["label", "fold", "ogg"]).to_pylist()
    asked, held = ([r for r in rows if (int(r["fold"]) == 4) is new] for new in (True, False))
    asked, held = (some[:: max(1, len(some) // count)] for some in (asked, held))
    words = sorted({r["label"] for r in rows})
    sounds, known = [r["ogg"] for r in asked], [r["ogg"] for r in held]

    def alike(queries: Sequence[str], corpus: Sequence[str]) -> Relevant:
        return {f"q{i}": {f"d{j}": 1 for j, b in enumerate(corpus) if a == b} for i, a in enumerate(queries)}

    heard, kept = [r["label"] for r in asked], [r["label"] for r in held]
    yield own("class word -> sounds", "t2a", {"text": words}, {"audio": sounds}, alike(words, heard))
    yield own("sound -> class word", "a2t", {"audio": sounds}, {"text": words}, alike(heard, words))
    yield own("sound -> sounds of its class", "a2a", {"audio": sounds}, {"audio": known}, alike(heard, kept))


def wav(samples: NDArray[np.float32], rate: int) -> bytes:
    """A WAV file, float32."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def asked(task: Any) -> int:
    """How many queries a task has."""
    return sum(len(split["queries"]) for splits in task.dataset.values() for split in splits.values())


def compare(name: str, tasks: Sequence[Any], timed: bool) -> list[Row]:
    """Rows of the product beside mteb's dense search, task by task."""
    product, dense = MemorySearch([name]), DenseEncoder(name)
    rows = []
    for task in tasks:
        mine, theirs = (evaluate(model, [task]).task_results[0] for model in (product, dense))
        what = f"{name}: {task.metadata.name}"
        for metric in [task.metadata.main_score, *(["hit_rate_at_1"] if timed else [])]:
            a, b = (result.scores["test"][0][metric] for result in (mine, theirs))
            rows.append(row(what, a, metric, PEER, b))
        if timed:
            a, b = (seconds(result) for result in (mine, theirs))
            rows.append(row(f"{what}, everything", a, "s", PEER, b))
            rows.append(row(f"{what}, a query", 1000 * seconds(mine, "Encoding queries") / asked(task), "ms"))
    return rows


def seconds(result: Any, *only: str) -> float:
    """The time that mteb measured, without loading the data and scoring."""
    left_out = ("Data loading", "Dataset transform", "Scoring", "Evaluation")
    return sum(
        p["end"] - p["start"]
        for p in result.evaluation_phases
        if (p["name"] in only if only else p["name"] not in left_out)
    )


def main() -> None:
    """Run it, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="40 documents a task")
    parser.add_argument("--models", nargs="+", default=["descriptors"], help="encoders, each by itself")
    options = parser.parse_args()
    folder = data_folder()
    sets: Sequence[tuple[Callable[[Path, int], Iterator[Any]], int]] = (
        (of_photos, 1000), (of_emoji, 1674), (of_sounds, 240)
    )  # fmt: skip
    real = [task for make, full in sets for task in make(folder, 40 if options.quick else full)]
    mocks = bundled()
    rows = []
    for name in options.models:
        rows += compare(name, mocks, timed=False) + compare(name, real, timed=True)
    report("mteb", rows, options.quick)


if __name__ == "__main__":
    main()
