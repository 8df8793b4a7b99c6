"""Evaluation of the memory under mteb's harness: ``index`` remembers, ``search`` recalls or retrieves.

mteb (https://github.com/embeddings-benchmark/mteb) loads the task, sends the queries and computes the
metrics.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from harmonia import __version__
from harmonia import store as stores
from harmonia.collection.cues import RecallOptions, decode, encode, encoded, make_query
from harmonia.collection.encoder_set import EncoderSet
from harmonia.collection.matrices import build_memory
from harmonia.collection.recall import Snapshot, recall_many
from harmonia.collection.remember import remember
from harmonia.collection.retrieve import retrieve
from harmonia.collection.word_index import WordIndex
from harmonia.memory import HarmonicMemory
from harmonia.store import CodeTable, Store
from harmonia.types import MODALITIES, Cue, HarmoniaError

Search = Literal["recall", "retrieve"]
Contents = dict[str, str | bytes]

# ``content`` is the digest of a document's content, which identifies its record.
SCHEMA = pa.schema(
    {"content": pa.string(), "text": pa.string()}
    | {modality: pa.binary() for modality in MODALITIES if modality != "text"}
)


class MemorySearch:
    """mteb's ``SearchProtocol`` over a real store in a temporary folder.

    A document is a record, and its modalities are the record's parts. Equal documents are one record and are
    retrieved together. A query is one recall with a cue for each of its modalities. A query that cannot be
    compared with anything in the store gets no document, which mteb scores as a miss.

    Args:
        models: encoders, as :func:`harmonia.load_encoders` takes them.
        search: "recall" (settle, then search) or "retrieve" (plain nearest neighbours).
        device: of the pretrained models.

    Raises:
        HarmoniaError: mteb is not installed, a model cannot be loaded, the search is unknown.

    Example:
        ``evaluate(MemorySearch(["descriptors"]), tasks)``
    """

    def __init__(
        self, models: Sequence[str] = ("descriptors",), search: Search = "recall", device: str = "auto"
    ) -> None:
        if search not in ("recall", "retrieve"):
            raise HarmoniaError(f"no search is called {search!r}: use recall or retrieve")
        load_mteb()
        self.model = EncoderSet.load(models, device)
        self.kind = search
        self._held: _Held | None = None

    @property
    def mteb_model_meta(self) -> Any:
        """mteb's description of this model, such as ``harmonia/recall-descriptors``."""
        return model_meta(self.model, self.kind)

    def index(
        self,
        corpus: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        encode_kwargs: Mapping[str, Any],
        num_proc: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Remember the corpus; HarmoniaError if a document cannot be read.

        A document whose columns are all empty is not remembered, and so never retrieved.
        """
        batches = _batches(corpus, task_metadata, "document", num_proc, encode_kwargs)
        self._held = _Held.remember(self.model, batches)

    def search(
        self,
        queries: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        encode_kwargs: Mapping[str, Any],
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        num_proc: int | None = None,
        **kwargs: Any,
    ) -> dict[str, dict[str, float]]:
        """Scores of the ``top_k`` documents for every query, by their ids.

        ``top_ranked`` restricts a query to some documents (reranking). The store is deleted afterwards, as in
        mteb's own wrappers. HarmoniaError if nothing is indexed.
        """
        held, self._held = self._held, None
        if held is None:
            raise HarmoniaError("nothing is indexed: call index() before each search()")
        with held.folder:
            batches = _batches(queries, task_metadata, "query", num_proc, encode_kwargs)
            results = {}
            for name, given in (row for batch in batches for row in batch):
                only = None if top_ranked is None else set(top_ranked.get(name, ()))
                results[name] = held.answer(self.model, self.kind, given, top_k, only)
            return results


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """A remembered corpus; ``documents`` are the ids of the documents of each record."""

    folder: tempfile.TemporaryDirectory[str]
    store: Store
    table: CodeTable
    memory: HarmonicMemory | None
    words: WordIndex
    documents: Mapping[str, Sequence[str]]

    @classmethod
    def remember(cls, model: EncoderSet, batches: Iterator[list[tuple[str, Contents]]]) -> _Held:
        """Write the documents as a manifest, and remember that."""
        folder = tempfile.TemporaryDirectory(prefix="harmonia-mteb-")
        manifest, root = Path(folder.name, "corpus.parquet"), Path(folder.name, "memory")
        names = _write(manifest, batches)
        store = stores.create(root, model.infos())
        report = remember(store, root, model, [manifest])
        if report.problems:
            first = report.problems[0]
            raise HarmoniaError(
                f"{len(report.problems)} documents cannot be remembered; the first: {first.reason}"
            )
        table = store.codes()
        held = {record: names[facts["content"]] for record, facts in store.metadata().items()}
        words = WordIndex.build(table.record_ids, *store.texts())
        return cls(folder, store, table, build_memory(model, table), words, held)

    def answer(
        self, model: EncoderSet, search: Search, given: Contents, k: int, only: set[str] | None
    ) -> dict[str, float]:
        """The best documents and their scores, best first."""
        asked = decode(make_query(given)) if given else []
        cues = self._comparable(model, encode(model, [asked])[0]) if asked else []
        allowed = None if only is None else self._allowed(only)
        if not cues or self.memory is None or (allowed is not None and not allowed.any()):
            return {}
        found: list[tuple[str, float]]
        if search == "recall":
            fetch = self.store.records
            snapshot = Snapshot(model, self.table, self.memory, fetch, None, lambda: self.words)
            (answer,) = recall_many(snapshot, [encoded(asked, cues)], RecallOptions(k=k), allowed)
            if isinstance(answer, HarmoniaError):
                raise answer
            found = [(r.record.id, r.score) for r in answer.records]
        else:
            near = retrieve(model, self.table, self.store.records, cues, k=k, allowed=allowed)
            found = [(n.record.id, n.similarity) for n in near]
        scored = [(name, score) for record, score in found for name in self.documents[record]]
        if only is not None:
            # A record may also stand for documents outside of the restriction.
            scored = [(name, score) for name, score in scored if name in only]
        return dict(scored[:k])

    def _comparable(self, model: EncoderSet, cues: Sequence[Cue]) -> list[Cue]:
        """The cues in a space that holds any code."""
        spaces = {e.space for e in model.encoders if len(self.table.encoders[e.name].record)}
        return [cue for cue in cues if cue.code.space in spaces]

    def _allowed(self, only: set[str]) -> NDArray[np.bool_]:
        return np.array([not only.isdisjoint(self.documents[record]) for record in self.table.record_ids])


def evaluate(model: Any, tasks: Sequence[Any]) -> Any:
    """Evaluate a model on tasks and return mteb's ``ModelResult``, without output and persistent files.

    ``model`` is a :class:`MemorySearch` or anything else that mteb evaluates.
    """
    mteb = load_mteb()
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return mteb.evaluate(model, tasks, co2_tracker=False, cache=None, show_progress_bar=False)
    finally:
        if shown:
            datasets.enable_progress_bars()


def load_mteb() -> Any:
    """The package mteb; HarmoniaError where it is not installed.

    On import mteb creates a folder for results, by default in the user's home. It gets a temporary one unless
    MTEB_CACHE names a folder.
    """
    if "MTEB_CACHE" not in os.environ:
        folder = tempfile.mkdtemp(prefix="harmonia-mteb-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["MTEB_CACHE"] = folder
    try:
        import mteb
    except ModuleNotFoundError as error:
        raise HarmoniaError(
            f"evaluation by mteb needs the package {error.name}: pip install 'harmonia[eval]'"
        ) from error
    return mteb


def model_meta(model: EncoderSet, how: str) -> Any:
    """mteb's description of encoders and of the search with them."""
    load_mteb()
    from mteb.models import ModelMeta

    encoders = "+".join(Path(name).name for name in model.names)
    held = {encoder.modality for encoder in model.encoders}
    return ModelMeta.create_empty(
        {
            "name": f"harmonia/{how}-{encoders}",
            "revision": __version__,
            "modalities": [modality for modality in MODALITIES if modality in held],
        }
    )


def undecoded(dataset: Any) -> Any:
    """The dataset with media columns that give the bytes of the files, since Harmonia decodes them."""
    from datasets import Audio, Image, Video

    for name, feature in dataset.features.items():
        if isinstance(feature, Audio | Image | Video):
            dataset = dataset.cast_column(name, type(feature)(decode=False))
    return dataset


def contents(batch: Mapping[str, Sequence[Any]]) -> list[Contents]:
    """The content of each row of an mteb batch, by modality, without empty columns."""
    held = [modality for modality in MODALITIES if modality in batch]
    rows = range(len(next(iter(batch.values()))))
    read = [{modality: _content(modality, batch[modality][i]) for modality in held} for i in rows]
    return [{modality: content for modality, content in row.items() if content} for row in read]


def _content(modality: str, item: Any) -> str | bytes:
    """The text (empty if blank), or the bytes of a media file."""
    match item:
        case None:
            return b""
        case str() if modality == "text":
            return item if item.strip() else ""
        case bytes() | {"bytes": bytes()}:
            return item if isinstance(item, bytes) else bytes(item["bytes"])
        case {"path": str(path)}:
            try:
                return Path(path).read_bytes()
            except OSError as error:
                raise HarmoniaError(f"cannot read {path}: {error.strerror}") from error
    raise HarmoniaError(
        f"a column {modality} of the task holds a {type(item).__name__}, not an encoded file: "
        f"cast it to datasets.{modality.capitalize()}"
    )


def _batches(
    dataset: Any, task_metadata: Any, side: str, num_proc: int | None, encode_kwargs: Mapping[str, Any]
) -> Iterator[list[tuple[str, Contents]]]:
    """Batches of ids and contents, read as in mteb's own wrappers (titles, instructions, dialogues)."""
    from mteb._create_dataloaders import create_dataloader
    from mteb.types import PromptType

    loader = create_dataloader(
        undecoded(dataset),
        task_metadata=task_metadata,
        prompt_type=PromptType[side],
        num_proc=num_proc,
        **encode_kwargs,
    )
    for batch in loader:
        yield list(zip(batch["id"], contents(batch), strict=True))


def _write(manifest: Path, batches: Iterator[list[tuple[str, Contents]]]) -> dict[str, list[str]]:
    """Write each distinct content once; returns the ids of its documents, by digest."""
    names: dict[str, list[str]] = {}
    with pq.ParquetWriter(manifest, SCHEMA) as writer:
        for batch in batches:
            fresh = []
            for name, given in batch:
                key = _digest(given)
                if given and key not in names:
                    fresh.append({"content": key, **given})
                names.setdefault(key, []).append(name)
            writer.write_table(pa.Table.from_pylist(fresh, schema=SCHEMA))
    return names


def _digest(given: Contents) -> str:
    digest = hashlib.sha256()
    for modality, content in given.items():
        data = content.encode() if isinstance(content, str) else content
        digest.update(f"{modality} {len(data)} ".encode() + data)
    return digest.hexdigest()
