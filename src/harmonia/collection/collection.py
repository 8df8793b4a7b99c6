"""A collection: one memory on disk, opened. What ``harmonia.open`` returns."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harmonia.collection import forget as forgetting
from harmonia.collection.calibration import Calibration
from harmonia.collection.candidates import fits, propose, sample_frames
from harmonia.collection.cues import Heard, Media, Query, encode_heard, read_cues, read_queries
from harmonia.collection.encoder_set import DEFAULT, EncoderSet
from harmonia.collection.recall import Options, recall, recall_many
from harmonia.collection.record_cache import CachedRecords
from harmonia.collection.remember import Report, Watch, remember
from harmonia.collection.retrieve import Metric, retrieve
from harmonia.memory import Centering, HarmonicMemory
from harmonia.modalities import LIMITS, Limits
from harmonia.store import CodeTable, LanceStore, Store
from harmonia.types import Code, Cue, HarmoniaError, Neighbour, Recollection, Record


class Collection:
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
        self._ram = ram
        self._frames: tuple[tuple[int, ...], Mapping[str, Centering]] | None = None
        self._models, self._device = models, device
        self._model: EncoderSet | None = None
        self._store: Store | None = None
        self._bound: tuple[CodeTable, HarmonicMemory | None] | None = None
        self._learned: tuple[tuple[int, int] | None, Calibration] = (None, Calibration())
        self._records: CachedRecords | None = None

    @property
    def exists(self) -> bool:
        """Whether anything was ever remembered here."""
        return LanceStore.exists(self.root)

    @property
    def model(self) -> EncoderSet:
        """The encoders, loaded on first use."""
        if self._model is None:
            if self._models is not None:
                self._model = EncoderSet.load(self._models, self._device)
            elif self.exists:
                self._model = EncoderSet.saved(self.root, self._device)
            else:
                self._model = EncoderSet.load(DEFAULT, self._device)
        return self._model

    @property
    def store(self) -> Store:
        """The records on disk; HarmoniaError where there are none or other encoders made them."""
        if self._store is None:
            if not self.exists:
                raise HarmoniaError(f"no memory in {self.root}: remember something first")
            self._store = LanceStore.open(self.root)
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
    ) -> Report:
        """Remember files, folders and manifests (see :func:`harmonia.collection.remember.remember`)."""
        several = [paths] if isinstance(paths, str | Path | Record) else list(paths)
        model = self.model
        if not self.exists:
            # The names first: a store without them would be opened with the wrong encoders.
            self.root.mkdir(parents=True, exist_ok=True)
            model.save(self.root)
            self._store = LanceStore.create(self.root, model.infos(), exist_ok=True)
        self._agree()
        return remember(
            self.store, self.root, model, several,
            copy=copy, whole=whole, within=within, progress=progress, threads=threads, limits=self.limits,
            watch=watch,
        )  # fmt: skip

    def recall(
        self,
        text: Media | None = None,
        image: Media | None = None,
        audio: Media | None = None,
        video: Media | None = None,
        *,
        against: Sequence[str] = (),
        weights: Mapping[str, float] | None = None,
        trust: float = float("inf"),
        where: str | None = None,
        k: int = 10,
        steps: int = 8,
        alpha: float = 1.0,
        beta: float | None = None,
        noise: float | None = None,
        leave_out_cues: bool = False,
    ) -> Recollection:
        """The whole from a part: the most probable records for all the cues together.

        A cue is words, a path, bytes or a Signal, or several of them. ``against`` are words that count
        against a record; ``weights`` maps a cue's name or modality to how far it counts; ``where`` is
        an SQL condition on the metadata; ``noise`` is how noisy the cues' codes are expected to be, which
        gives beta (see :meth:`harmonia.memory.HarmonicMemory.recall`); ``leave_out_cues`` leaves the cue
        files' own records out.
        """
        given = {"text": text, "image": image, "audio": audio, "video": video}
        cues = self.cues(given, against, weights or {}, trust)
        table, memory = self._for(cues, where)
        if memory is None:
            raise HarmoniaError(f"the memory in {self.root} is empty: remember something first")
        allowed = self._allowed(table, where, given if leave_out_cues else {})
        return recall(
            self.model, memory, table, self._fetch, cues, k=k, steps=steps, alpha=alpha, beta=beta,
            noise=noise, allowed=None if allowed is None else torch.from_numpy(allowed), learned=self.learned,
        )  # fmt: skip

    def recall_many(
        self, queries: Sequence[Query], options: Options | None = None, *, where: str | None = None
    ) -> list[Recollection | HarmoniaError]:
        """Several recalls at once, each as :meth:`recall` would answer it by itself, in less time.

        What is wrong with one query is its answer; HarmoniaError where none can be answered.
        """
        read = read_queries(self.model, queries, self.limits)
        asked = [q for q, cues in enumerate(read) if not isinstance(cues, HarmoniaError)]
        said = [cues for cues in read if not isinstance(cues, HarmoniaError)]
        found: list[Any] = list(read)
        for q, answer in zip(asked, self._recall_many(said, options or Options(), where), strict=True):
            found[q] = answer
        return found

    def recall_heard(
        self, queries: Sequence[Sequence[Heard]], options: Options | None = None, *, where: str | None = None
    ) -> list[Recollection | HarmoniaError]:
        """The same for what :func:`harmonia.collection.cues.hear` has decoded, in another thread perhaps."""
        return self._recall_many(encode_heard(self.model, queries), options or Options(), where)

    def _recall_many(
        self, queries: Sequence[Sequence[Cue]], options: Options, where: str | None
    ) -> list[Recollection | HarmoniaError]:
        if not queries:
            return []
        table, memory = self._for([cue for cues in queries for cue in cues], where)
        if memory is None:
            raise HarmoniaError(f"the memory in {self.root} is empty: remember something first")
        allowed = self._allowed(table, where, {})
        return recall_many(
            self.model, memory, table, self._fetch, queries, options,
            allowed=None if allowed is None else torch.from_numpy(allowed), learned=self.learned,
        )  # fmt: skip

    def retrieve(
        self,
        text: Media | None = None,
        image: Media | None = None,
        audio: Media | None = None,
        video: Media | None = None,
        *,
        against: Sequence[str] = (),
        weights: Mapping[str, float] | None = None,
        where: str | None = None,
        k: int = 10,
        metric: Metric = "cosine",
        leave_out_cues: bool = False,
    ) -> tuple[Neighbour, ...]:
        """The plain nearest-neighbour search over the same codes, to compare recall with."""
        given = {"text": text, "image": image, "audio": audio, "video": video}
        cues = self.cues(given, against, weights or {}, float("inf"))
        table, _ = self.bound()
        allowed = self._allowed(table, where, given if leave_out_cues else {})
        return retrieve(self.model, table, self.store.records, cues, k=k, metric=metric, allowed=allowed)

    def cues(
        self,
        given: Mapping[str, Media | None],
        against: Sequence[str],
        weights: Mapping[str, float],
        trust: float,
    ) -> list[Cue]:
        """Decode and encode cues with this memory's encoders."""
        return read_cues(self.model, given, against, weights, trust, self.limits)

    def show(self, record_id: str) -> Record:
        """One record by its id, or by the beginning of it if that is unique."""
        return forgetting.find(self.store, [record_id])[0]

    def forget(
        self, ids: Sequence[str] = (), *, where: str | None = None, gone: bool = False
    ) -> tuple[Record, ...]:
        """Forget records by id, by condition, or those whose every file is gone; returns them."""
        return forgetting.forget(self.store, self.root, ids, where=where, gone=gone)

    def status(self) -> dict[str, Any]:
        """Counts per modality, sizes, encoders."""
        found = self.store.status()
        encoders = [asdict(encoder) for encoder in self.store.encoders]
        return {"root": str(self.root), "models": list(self.model.names), **found, "encoders": encoders}

    def bound(self) -> tuple[CodeTable, HarmonicMemory | None]:
        """The current snapshot and the memory over it; read anew when the store has changed."""
        if self._records is not None and self._bound is not None:
            return self._bound
        self._agree()
        version = self.store.version()[:2]
        if self._bound is None or self._bound[0].version != version:
            table = self.store.codes()
            self._bound = self._taught(table, self.model.memory(table))
        return self._bound

    def pinned(self) -> Collection:
        """This memory as it is now, for recalls that shall not wait for the disk.

        Codes, learned constants and the records that were recalled are kept, whatever is committed later;
        conditions are still looked up. Models are shared. Of a memory that outgrows RAM nothing is kept.
        """
        found = Collection(self.root, self._models, self._device, self._ram, self.limits)
        found._model = self.model
        if self.exists and fits(found.store, self._ram):
            found.bound()
            found._records = CachedRecords(found.store.records)
        return found

    @property
    def state(self) -> tuple[int, ...]:
        """What changes whenever recalls may be answered otherwise; () where nothing was remembered."""
        if not self.exists:
            return ()
        return (*self.store.version()[:2], *(Calibration.stamp(self.root) or ()))

    def codes_of(self, ids: Sequence[str]) -> dict[str, tuple[Code, ...]]:
        """All codes of records, by id; ids that nothing has are left out."""
        table = self.store.codes(ids)
        found: dict[str, list[Code]] = {one: [] for one in table.record_ids}
        for encoder in self.agreed().encoders:
            held = table.encoders[encoder.name]
            for row, vector in zip(held.record.tolist(), held.codes, strict=True):
                found[table.record_ids[row]].append(Code(encoder.modality, vector, encoder.space))
        return {one: tuple(codes) for one, codes in found.items()}

    @property
    def learned(self) -> Calibration:
        """What ``harmonia learn`` found for this memory; nothing if other encoders made it."""
        if self._records is not None:
            return self._learned[1]
        stamp = Calibration.stamp(self.root)
        if stamp != self._learned[0]:
            learned = Calibration.load(self.root)
            names = tuple(encoder.name for encoder in self.store.encoders)
            if stamp is not None and learned.encoders != names:
                warnings.warn(
                    f"what was learned in {self.root} is for other encoders and is not used: "
                    "run `harmonia learn` again, or `harmonia learn --forget`",
                    stacklevel=2,
                )
                learned = Calibration()
            self._learned = stamp, learned
            if self._bound is not None:
                self._taught(*self._bound)
        return self._learned[1]

    def _taught(
        self, table: CodeTable, memory: HarmonicMemory | None
    ) -> tuple[CodeTable, HarmonicMemory | None]:
        """A memory with the constants that were learned for it."""
        learned = self.learned
        if memory is not None:
            learned.apply(memory, table.record_ids)
        return table, memory

    def _for(self, cues: Sequence[Cue], where: str | None) -> tuple[CodeTable, HarmonicMemory | None]:
        """All of the memory if it fits into RAM, else the candidates for these cues."""
        if self._records is not None:
            return self.bound()
        version = self.store.version()[:2]
        if self._bound is not None and self._bound[0].version == version:
            return self._bound
        if fits(self.store, self._ram):
            return self.bound()
        self._agree()
        if self._frames is None or self._frames[0] != version:
            self._frames = version, sample_frames(self.store, self.model)
        return self._taught(*propose(self.store, self.model, self._frames[1], cues, where))

    def agreed(self) -> EncoderSet:
        """The encoders; HarmoniaError if others made the memory."""
        self._agree()
        return self.model

    def _agree(self) -> None:
        if self.store.encoders != self.model.infos():
            made, mine = (
                ", ".join(e.name for e in encoders) for encoders in (self.store.encoders, self.model.infos())
            )
            raise HarmoniaError(
                f"the memory in {self.root} was made with other encoders ({made}, not {mine}): "
                "leave out --model, or remember into another folder"
            )

    def _fetch(self, ids: Sequence[str]) -> list[Record]:
        return self.store.records(ids) if self._records is None else self._records(ids)

    def _allowed(
        self, table: CodeTable, where: str | None, left_out: Mapping[str, Media | None]
    ) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        if where is None and not left_out:
            return None
        ids = np.asarray(table.record_ids)
        allowed = np.ones(len(ids), dtype=bool)
        if where is not None:
            allowed &= np.isin(ids, self.store.select(where))
        own = forgetting.records_of(self.store, left_out.values())
        allowed &= ~np.isin(ids, list(own))
        if not allowed.any():
            raise HarmoniaError("no record is left to recall: loosen the condition")
        return allowed
