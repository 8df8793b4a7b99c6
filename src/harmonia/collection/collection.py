"""One memory on disk, opened: what ``harmonia.open`` returns."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Collection as Collected
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from harmonia import store as stores
from harmonia.collection import forget as forgetting
from harmonia.collection.candidates import propose, sample_centering
from harmonia.collection.cues import Media, Query, RecallOptions, decode, encode, encoded, make_query
from harmonia.collection.encoder_set import DEFAULT, EncoderSet
from harmonia.collection.encoder_set import FILE_NAME as MODELS
from harmonia.collection.record_cache import CachedRecords
from harmonia.collection.retrieve import Metric, retrieve
from harmonia.collection.sentences import Answer, answer_text
from harmonia.modalities import LIMITS, Limits
from harmonia.store import CodeTable, Store, Where
from harmonia.types import Code, Cue, HarmoniaError, Neighbour, Recollection, Record

if TYPE_CHECKING:
    from harmonia.collection.calibration import Calibration
    from harmonia.collection.likelihoods import Likelihoods
    from harmonia.collection.remember import Report, Watch
    from harmonia.collection.word_index import WordIndex
    from harmonia.memory.harmonic import HarmonicMemory
    from harmonia.memory.matrix import Centering

T = TypeVar("T")

CALIBRATION = "learned.json"
"""The file of what ``harmonia learn`` found, beside the store."""
ENOUGH_RECORDS = 32
"""From so many records on a memory calibrates itself."""
LIKELIHOODS = "likelihoods.safetensors"
"""The file of the models of likelihoods, beside the store."""


class Memory:
    """A memory in a folder. The folder is made by the first ``remember``.

    ``models`` chooses the encoders of a new memory; an existing one keeps those it was made with and
    refuses others. ``ram`` is how many bytes of codes may be held (default: half of the machine's
    memory); past that the store's index proposes candidates. ``limits`` say how much one file may make us
    decode.
    """

    def __init__(
        self,
        root: str | Path,
        models: Sequence[str] | None = None,
        device: str = "auto",
        ram: int | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        self.root, self.limits = Path(root), limits
        self._models, self._device, self._ram = models, device, ram
        self._encoders: EncoderSet | None = None
        self._store: Store | None = None
        self._table: CodeTable | None = None
        self._memory: tuple[CodeTable, HarmonicMemory | None] | None = None
        self._centering: tuple[tuple[int, ...], Mapping[str, Centering]] | None = None
        self._calibration: tuple[tuple[int, int] | None, Calibration | None] | None = None
        self._records: CachedRecords | None = None
        self._words: tuple[CodeTable, WordIndex] | None = None
        self._likelihoods: tuple[tuple[int, int] | None, Likelihoods | None] | None = None

    @property
    def exists(self) -> bool:
        """Whether anything was ever remembered here."""
        return stores.exists(self.root)

    @property
    def encoders(self) -> EncoderSet:
        """The encoders, each loaded on first use; HarmoniaError if others than ``models`` made the memory."""
        if self._encoders is None:
            if not self.exists:
                self._encoders = EncoderSet.load(self._models or DEFAULT, self._device)
            elif self._models is None or tuple(self._models) == EncoderSet.saved_names(self.root):
                self._encoders = EncoderSet.saved(self.root, self.store.encoders, self._device)
            else:
                self._encoders = EncoderSet.load(self._models, self._device)
                self._encoders.check(self.store.encoders, self.root)
        return self._encoders

    @property
    def store(self) -> Store:
        """The records on disk; HarmoniaError where there are none."""
        if self._store is None:
            if not self.exists:
                raise HarmoniaError(f"no memory in {self.root}: remember something first")
            self._store = stores.open(self.root)
        return self._store

    def remember(
        self,
        paths: str | Path | Record | Iterable[str | Path | Record],
        *,
        copy: bool = False,
        whole: bool = False,
        within: Sequence[Path] = (),
        progress: bool = False,
        threads: int | None = None,
        watch: Watch | None = None,
        exclude: Sequence[str] = (),
        namespace: str | None = None,
        calibrate: bool = True,
    ) -> Report:
        """Remember files, folders and manifests (see :func:`harmonia.collection.remember.remember`).

        Once there are enough records, and whenever they have grown by a quarter, the models by which cues are
        scored are fitted to them (:meth:`fit_likelihoods`), unless not ``calibrate``.
        """
        from harmonia.collection.remember import remember

        several = [paths] if isinstance(paths, str | Path | Record) else list(paths)
        encoders = self.encoders
        if not self.exists:
            # The names first: a store without them would be opened with the wrong encoders.
            self.root.mkdir(parents=True, exist_ok=True)
            encoders.save(self.root)
            self._store = stores.create(self.root, encoders.infos(), exist_ok=True)
            encoders.check(self.store.encoders, self.root)
        report = remember(
            self.store, self.root, encoders, several,
            copy=copy, whole=whole, within=within, progress=progress, threads=threads, limits=self.limits,
            watch=watch, exclude=exclude, namespace=namespace,
        )  # fmt: skip
        if calibrate and report.remembered and not report.stopped and self._is_outgrown():
            self.fit_likelihoods(progress=progress)
        return report

    def _is_outgrown(self) -> bool:
        """Whether there are enough records for the models of likelihoods, and a quarter more than they
        know.
        """
        from harmonia.collection.likelihood_file import fitted_records

        count = len(self.store.ids())
        return count >= ENOUGH_RECORDS and count >= 1.25 * fitted_records(self.root)

    def discard_empty(self) -> bool:
        """Remove a memory that holds nothing, and its folder if that is empty; returns whether it did.

        A new memory with which nothing was remembered need not stay.
        """
        if not self.exists or not self.store.discard_empty():
            return False
        self._store = self._encoders = None
        (self.root / MODELS).unlink(missing_ok=True)
        with suppress(OSError):  # not empty: it holds what is not of the memory
            self.root.rmdir()
        return True

    def recall(
        self,
        text: Media | None = None,
        image: Media | None = None,
        audio: Media | None = None,
        video: Media | None = None,
        *,
        k: int | None = None,
        where: Where | None = None,
        against: Sequence[str] = (),
        weights: Mapping[str, float] | None = None,
        trust: float = float("inf"),
        leave_out_cues: bool = False,
        options: RecallOptions | None = None,
        **settings: Any,
    ) -> Recollection:
        """The whole from a part: the most probable records for all the cues together.

        A cue is words, a path, bytes or a Signal, or several of them. ``against`` are words that count
        against a record; ``weights`` maps a cue's name or modality to how far it counts; ``trust`` is the
        cues' kappa; ``leave_out_cues`` leaves the cue files' own records out. ``k``, ``where`` and any other
        field of :class:`~harmonia.collection.cues.RecallOptions` may be given by name, over ``options``.
        """
        chosen = {"k": k, "where": where}
        settings |= {name: value for name, value in chosen.items() if value is not None}
        options = replace(options or RecallOptions(), **settings)
        given = {"text": text, "image": image, "audio": audio, "video": video}
        query = make_query(given, against, weights, trust)
        left_out = self.records_of(query) if leave_out_cues else ()
        found = self.recall_many([query], options, leave_out=left_out)[0]
        if isinstance(found, HarmoniaError):
            raise found
        return found

    def answer(
        self,
        text: Media | None = None,
        image: Media | None = None,
        audio: Media | None = None,
        video: Media | None = None,
        *,
        options: RecallOptions | None = None,
        **settings: Any,
    ) -> Answer:
        """What the memory says to a question, in sentences made from the records that it recalls.

        Takes what :meth:`recall` takes. No language model is asked; ``answer.recollection`` is the evidence.
        """
        found = self.recall(text, image, audio, video, options=options or RecallOptions(k=5), **settings)
        return Answer(answer_text(found), found)

    def recall_many(
        self,
        queries: Sequence[Query],
        options: RecallOptions | None = None,
        *,
        leave_out: Collected[str] = (),
    ) -> list[Recollection | HarmoniaError]:
        """Several recalls at once, each as :meth:`recall` would answer it by itself, in less time.

        ``queries`` come from :func:`~harmonia.collection.cues.make_query`, decoded or not; ``leave_out`` are
        ids of records. What is wrong with one query is its answer; HarmoniaError where none can be answered.
        """
        options = options or RecallOptions()
        decoded = [_attempt(lambda query=query: decode(query, self.limits)) for query in queries]  # type: ignore[misc]
        able = [query for query in decoded if not isinstance(query, HarmoniaError)]
        answers = iter(self._recall_decoded(able, options, leave_out) if able else ())
        return [query if isinstance(query, HarmoniaError) else next(answers) for query in decoded]

    def _recall_decoded(
        self, queries: Sequence[Query], options: RecallOptions, leave_out: Collected[str]
    ) -> list[Recollection | HarmoniaError]:
        from harmonia.collection.recall import NOTHING, Snapshot, recall_many

        table, memory, queries = self._held(queries, options.where)
        if memory is None and not self.store.ids():
            raise HarmoniaError(f"the memory in {self.root} is empty: remember something first")
        allowed = self._allowed(table, options.where, leave_out)
        if memory is None or (allowed is not None and not allowed.any()):
            return [NOTHING for _ in queries]
        snapshot = Snapshot(
            self.encoders, table, memory, self._fetch, self.calibration, lambda: self._words_of(table),
            self.likelihoods.words if self.likelihoods else 0.0,
        )  # fmt: skip
        return recall_many(snapshot, queries, options, allowed)

    def retrieve(
        self,
        text: Media | None = None,
        image: Media | None = None,
        audio: Media | None = None,
        video: Media | None = None,
        *,
        against: Sequence[str] = (),
        weights: Mapping[str, float] | None = None,
        where: Where | None = None,
        k: int = 10,
        metric: Metric = "cosine",
        leave_out_cues: bool = False,
    ) -> tuple[Neighbour, ...]:
        """The plain nearest-neighbour search over the same codes, to compare recall with."""
        given = {"text": text, "image": image, "audio": audio, "video": video}
        query = make_query(given, against, weights)
        left_out = self.records_of(query) if leave_out_cues else ()
        return self.retrieve_by(query, where=where, k=k, metric=metric, leave_out=left_out)

    def retrieve_by(
        self,
        query: Query,
        *,
        where: Where | None = None,
        k: int = 10,
        metric: Metric = "cosine",
        leave_out: Collected[str] = (),
    ) -> tuple[Neighbour, ...]:
        """:meth:`retrieve` by a query; ``leave_out`` are ids of records."""
        cues = encode(self.encoders.own, [decode(query, self.limits)])[0]
        table = self._codes(cues, where)
        allowed = self._allowed(table, where, leave_out)
        if allowed is not None and not allowed.any():
            return ()
        return retrieve(self.encoders, table, self._fetch, cues, k=k, metric=metric, allowed=allowed)

    def cues(self, query: Query) -> list[Cue]:
        """Decode and encode a query with all of this memory's encoders."""
        return encode(self.encoders, [decode(query, self.limits)])[0]

    def show(self, record_id: str) -> Record:
        """One record by its id, or by the beginning of it if that is unique."""
        return forgetting.find(self.store, [record_id])[0]

    def forget(
        self, ids: Sequence[str] = (), *, where: Where | None = None, gone: bool = False
    ) -> tuple[Record, ...]:
        """Forget records by id, by condition, or those whose every file is gone; returns them."""
        return forgetting.forget(self.store, self.root, ids, where=where, gone=gone)

    def status(self) -> dict[str, Any]:
        """Counts per modality, sizes, encoders."""
        if not self.exists:
            raise HarmoniaError(f"no memory in {self.root}: remember something first")
        found = stores.status(self.root)
        encoders = [asdict(encoder) for encoder in found["encoders"]]
        return {
            "root": str(self.root),
            "models": list(EncoderSet.saved_names(self.root)),
            **found,
            "encoders": encoders,
        }

    def bound(self) -> tuple[CodeTable, HarmonicMemory | None]:
        """All codes and the memory over them; made anew when the store has changed."""
        from harmonia.collection.matrices import build_memory

        table, likelihoods = self._whole(), self.likelihoods
        if self._memory is None or self._memory[0] is not table:
            self._memory = table, build_memory(self.encoders, table, likelihoods=likelihoods)
            self._calibrate(*self._memory)
        return self._memory

    def pinned(self) -> Memory:
        """This memory as it is now, for recalls that shall not wait for the disk.

        Codes, calibration and the records that were recalled are kept, whatever is committed later;
        conditions are still looked up. Encoders are shared. Of a memory that outgrows RAM nothing is kept.
        """
        found = Memory(self.root, self._models, self._device, self._ram, self.limits)
        found._encoders = self.encoders
        if self.exists and fits(found.store, self._ram):
            found._words_of(found.bound()[0])
            found._records = CachedRecords(found.store.records)
        return found

    @property
    def state(self) -> tuple[int, ...]:
        """What changes whenever recalls may be answered otherwise; () where nothing was remembered."""
        if not self.exists:
            return ()
        stamps = (_stamp(self.root / name) or () for name in (CALIBRATION, LIKELIHOODS))
        return (*self.store.version()[:2], *(number for stamp in stamps for number in stamp))

    def codes_of(self, ids: Sequence[str], part: int | None = None) -> dict[str, tuple[Code, ...]]:
        """All codes of records, or those of one part (counted from 0), by id; unknown ids are left out."""
        table = self.store.codes(ids)
        found: dict[str, list[Code]] = {one: [] for one in table.record_ids}
        for encoder in self.encoders.encoders:
            held = table.encoders[encoder.name]
            for row, position, vector in zip(
                held.record.tolist(), held.part.tolist(), held.codes, strict=True
            ):
                if part is None or position == part:
                    found[table.record_ids[row]].append(Code(encoder.modality, vector, encoder.space))
        return {one: tuple(codes) for one, codes in found.items()}

    @property
    def calibration(self) -> Calibration | None:
        """What ``harmonia learn`` found for this memory; None if nothing, or if other encoders made it."""
        if self._calibration is not None and self._records is not None:
            return self._calibration[1]
        stamp = calibration_stamp(self.root)
        if self._calibration is None or stamp != self._calibration[0]:
            self._calibration = stamp, self._learned() if stamp else None
            if self._memory is not None:
                self._calibrate(*self._memory)
        return self._calibration[1]

    @property
    def likelihoods(self) -> Likelihoods | None:
        """The models by which cues are scored; None where none were fitted, or for other encoders."""
        from harmonia.collection.likelihood_file import load_likelihoods

        stamp = _stamp(self.root / LIKELIHOODS)
        if self._likelihoods is None or (stamp != self._likelihoods[0] and self._records is None):
            names = tuple(encoder.name for encoder in self.store.encoders)
            self._likelihoods = stamp, load_likelihoods(self.root, names) if stamp else None
            self._memory = None
        return self._likelihoods[1]

    def fit_likelihoods(self, *, seed: int = 0, progress: bool = False) -> Likelihoods:
        """Fit the models by which cues are scored to what is remembered, and keep them beside the store.

        Cues are made from the records themselves, so nothing has to be labelled: see
        :mod:`harmonia.collection.likelihoods`. Of a large memory an even sample is used.
        """
        from tqdm import tqdm

        from harmonia.collection.likelihood_file import save_likelihoods
        from harmonia.collection.likelihoods import fit_likelihoods, sampled
        from harmonia.collection.self_cues import make_cues

        ids = self.store.ids()
        if not ids:
            raise HarmoniaError(f"the memory in {self.root} is empty: remember something first")
        rng = np.random.default_rng(seed)
        table = self.store.codes(sampled(ids))
        hidden = None if progress else True  # None: where no terminal shows it
        steps = 6 * len({e.modality for e in self.encoders.own.encoders})
        with tqdm(desc="calibrating", total=steps, unit="step", leave=False, disable=hidden) as bar:
            cues, index = make_cues(self.store, self.root, self.encoders, table, self.limits, rng, bar.update)
            found = fit_likelihoods(self.encoders, table, cues, index, seed, bar.update)
        save_likelihoods(self.root, found, tuple(e.name for e in self.store.encoders), len(ids))
        self._likelihoods = self._memory = None
        return found

    def forget_likelihoods(self) -> bool:
        """Delete the models of likelihoods; returns whether there were any."""
        path = self.root / LIKELIHOODS
        there = path.exists()
        path.unlink(missing_ok=True)
        self._likelihoods = self._memory = None
        return there

    def _learned(self) -> Calibration | None:
        from harmonia.collection.calibration import Calibration

        found = Calibration.load(self.root)
        if found.encoders == tuple(encoder.name for encoder in self.store.encoders):
            return found
        warnings.warn(
            f"what was learned in {self.root} is for other encoders and is not used: "
            "run `harmonia learn` again, or `harmonia learn --forget`",
            stacklevel=3,
        )
        return None

    def _calibrate(self, table: CodeTable, memory: HarmonicMemory | None) -> None:
        """Give a memory the constants that were learned for it, or those of one for which none were."""
        calibration = self.calibration
        if memory is None:
            return
        if calibration is not None:
            calibration.apply(memory, table.record_ids)
        elif memory.trusts or bool(memory.bias.any()):
            memory.trusts, memory.bias = {}, memory.bias * 0

    def _whole(self) -> CodeTable:
        """All codes, read anew when the store has changed."""
        if self._table is None or (self._records is None and not self._current(self._table)):
            self._table = self.store.codes()
        return self._table

    def _current(self, table: CodeTable) -> bool:
        return table.version == self.store.version()[:2]

    def _in_ram(self) -> bool:
        """Whether all codes are held, or may be."""
        if self._table is not None and (self._records is not None or self._current(self._table)):
            return True
        return fits(self.store, self._ram)

    def _codes(self, cues: Sequence[Cue], where: Where | None) -> CodeTable:
        """All codes if they fit into RAM, else those of the candidates for these cues."""
        if self._in_ram():
            return self._whole()
        return propose(self.store, self.encoders, cues, where)

    def _held(
        self, queries: Sequence[Query], where: Where | None
    ) -> tuple[CodeTable, HarmonicMemory | None, Sequence[Query]]:
        """What to recall from: all of the memory if it fits into RAM, else the candidates for these queries.

        The queries come back encoded where they had to be in order to find candidates.
        """
        if self._in_ram():
            return *self.bound(), queries
        from harmonia.collection.matrices import build_memory

        version = self.store.version()[:2]
        if self._centering is None or self._centering[0] != version:
            self._centering = version, sample_centering(self.store)
        cues = encode(self.encoders, queries)
        table = propose(self.store, self.encoders, [cue for several in cues for cue in several], where)
        population = int(self.store.status()["records"])
        memory = build_memory(self.encoders, table, self._centering[1], population, self.likelihoods)
        self._calibrate(table, memory)
        return table, memory, list(map(encoded, queries, cues))

    def _words_of(self, table: CodeTable) -> WordIndex:
        """The words of the records whose codes a table holds; made anew when the store has changed."""
        from harmonia.collection.word_index import WordIndex

        if self._words is None or self._words[0] is not table:
            only = None if table is self._table else table.record_ids
            self._words = table, WordIndex.build(table.record_ids, *self.store.texts(only))
        return self._words[1]

    def _fetch(self, ids: Sequence[str]) -> list[Record]:
        return self.store.records(ids) if self._records is None else self._records(ids)

    def records_of(self, query: Query) -> set[str]:
        """Ids of the records that hold any of the files, or bytes of files, that a query gives."""
        return forgetting.records_of(self.store, [item.value for item in query])

    def _allowed(
        self, table: CodeTable, where: Where | None, leave_out: Collected[str]
    ) -> NDArray[np.bool_] | None:
        if where is None and not leave_out:
            return None
        ids = np.asarray(table.record_ids)
        allowed = np.ones(len(ids), dtype=bool)
        if where is not None:
            allowed &= np.isin(ids, self.store.select(where))
        allowed &= ~np.isin(ids, list(leave_out))
        return allowed


def fits(store: Store, budget: int | None) -> bool:
    """Whether all codes may be held in RAM: ``budget`` bytes, by default half of the machine's."""
    if budget is None:
        budget = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    # The matrix as read and as centred are in memory at the same time.
    return 2 * store.code_bytes() <= budget


def calibration_stamp(folder: Path) -> tuple[int, int] | None:
    """Changes whenever a memory is calibrated anew; None where it never was."""
    return _stamp(folder / CALIBRATION)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_ino


def _attempt(decode: Callable[[], T]) -> T | HarmoniaError:
    try:
        return decode()
    except HarmoniaError as error:
        return error
