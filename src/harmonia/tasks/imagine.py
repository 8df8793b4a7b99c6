"""The condition of a generator, made from cues and what the memory recalls by them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

import harmonia.generators
from harmonia.collection.collection import Memory
from harmonia.collection.cues import Media, decode, encode, make_query
from harmonia.collection.encoder_set import EncoderSet
from harmonia.encoders import unit
from harmonia.encoders.towers.image import ImageTower
from harmonia.encoders.towers.saved import TrainedEncoder
from harmonia.generators import Condition, Facts, Saved, load_generator, spell
from harmonia.generators.diffusion.unclip import Unclip
from harmonia.modalities import image as pictures
from harmonia.pretrained.diffusers import INDEX, Pretrained, fetched
from harmonia.pretrained.loading import load_encoders
from harmonia.tasks.image_io import shape_of, tensor_of
from harmonia.types import HarmoniaError, Recollection, Signal
from harmonia.weights import CONFIG

SHIPPED = Path(harmonia.generators.__file__).parent / "mini"
"""The folder of the generator that ships."""
ORDER = ("image", "text", "video", "audio")
"""Modalities in the order in which a settled code is preferred, among those in the generator's space."""
FROM_CUE = "from the cue itself"
ARTICLES = frozenset(("un", "une", "una", "um", "uma", "een", "en", "ett", "bir", "一"))
"""Words that mean both "one" and "a"."""
CJK = "\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Chinese and Japanese characters, which are written without spaces; for a character class."""

Given = Mapping[str, Media | None]
"""The cues, by modality."""


def load(folder: str | Path | None = None, device: str = "auto") -> Saved:
    """Load a generator: the built-in one, that of a folder, or a diffusers pipeline by folder or hub name.

    HarmoniaError if there is none, or it cannot be read.
    """
    from harmonia.encoders.towers.base import place

    path = SHIPPED if folder is None else Path(folder).expanduser()
    # A hub name looks like a relative path; it is one if not even its first folder exists.
    on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", str(folder)) is not None and not path.parent.is_dir()
    if on_hub or (path / INDEX).is_file():
        return _pipeline(str(path), place(device))
    if not path.is_dir():
        raise HarmoniaError(
            f"there is no generator in {path}: `harmonia train` lists recipes that write one to RUN/model"
        )
    if not (path / CONFIG).is_file():
        raise HarmoniaError(
            f"{path} has neither {CONFIG} (a generator from `harmonia train`) nor {INDEX} (a diffusers "
            "pipeline): give the folder of a generator"
        )
    return load_generator(path, place(device))


def _pipeline(model: str, device: torch.device) -> Saved:
    folder = fetched(model)
    generator = Pretrained.load(str(folder))
    # Imported after loading, which reports missing packages; this module needs transformers.
    from harmonia.pretrained.hub import digest

    name = folder.resolve().name if str(folder) == model else model
    return Saved(generator.to(device).eval(), Facts(name, labels=generator.labels), digest(folder))


@dataclass(frozen=True, slots=True, eq=False)
class GenerationRequest:
    """The condition of an image, of one row, with the ``cue`` and ``how`` it was derived, in words.

    ``found`` is what the memory recalled, None if it was not asked or abstained.
    """

    condition: Condition
    cue: str
    how: str
    found: Recollection | None = None


@dataclass(frozen=True, eq=False)
class Imagination:
    """A generator, and the memory that conditions it, if there is one."""

    saved: Saved
    collection: Memory | None = None
    device: str = "auto"

    def request(
        self, given: Given, from_memory: bool | None = None, found: Recollection | None = None
    ) -> GenerationRequest:
        """The condition that follows from the cues.

        Args:
            given: the cues, by modality.
            from_memory: true takes the condition from the recollection: the settled code in the generator's
                space, of an image rather than of text, and the text of the first record. False takes it
                from the cues. None takes it from the recollection if the memory does not abstain.
            found: the recollection, if the memory was asked already.

        Raises:
            HarmoniaError: there are no cues or one cannot be read, the generator takes none of them as a
                condition, or the memory has to answer and abstains.
        """
        given = {modality: media for modality, media in given.items() if media not in (None, (), [])}
        accepts = self.saved.generator.config.condition
        if not given:
            if accepts.classes or accepts.text or accepts.code:
                raise HarmoniaError("nothing to imagine: give words, or --image, --audio or --video")
            return GenerationRequest(Condition(1), "", "unconditional")
        words, code = _words(given), None
        found, how = self._recall(given, from_memory, found)
        if found is None and (image := self._image(given)) is not None:
            return GenerationRequest(Condition(1, image=image), _cue(given), how)
        label = None if from_memory else self._class(words)
        if found is not None:
            recalled = next((p.text for p in found.records[0].record.parts if p.text), "")
            named = self._class(recalled, strict=False) if recalled else self._class(words)
            if from_memory is None and label is not None and named is None:
                how = f"{how}, whose text names no class of this generator: {FROM_CUE}"
            else:
                words, label = recalled or words, named
            code = self._settled(found)
        if code is None and accepts.code:
            code = self._raw(given)
        return GenerationRequest(self._condition(code, words, label), _cue(given), how, found)

    def between(self, first: str, second: str, n: int) -> GenerationRequest:
        """``n`` conditions on the great circle between the codes of two records; ids as in ``show``."""
        if not self.saved.generator.config.condition.code:
            raise HarmoniaError(
                "this generator takes no codes: interpolation between records needs one that does"
            )
        if n < 2:
            raise HarmoniaError(f"interpolation needs at least 2 images, one for each record (got {n})")
        ends = [torch.from_numpy(self._code_of(record_id)) for record_id in (first, second)]
        codes = torch.stack([slerp(ends[0], ends[1], t / (n - 1)) for t in range(n)])
        return GenerationRequest(Condition(n, code=codes), f"between {first} and {second}", "from the memory")

    def _condition(self, code: NDArray[np.float32] | None, words: str, label: int | None) -> Condition:
        accepts, parts = self.saved.generator.config.condition, dict[str, Tensor]()
        if code is not None:
            parts["code"] = torch.from_numpy(code)[None]
        if accepts.text and words:
            parts["text"] = spell([words], accepts.text)
        if label is not None:
            parts["label"] = torch.tensor([label])
        elif accepts.classes and words and not parts:
            classes = self._classes
            known = ", ".join(names[0] for names in classes[:20]) + (", ..." if len(classes) > 20 else "")
            raise HarmoniaError(f"this generator has no class {words!r}: its classes are {known}")
        if not parts:
            raise HarmoniaError(
                "this generator needs text: give words, or a cue whose recalled record has text"
                if accepts.text or accepts.classes
                else "this generator is unconditional: give no cue"
            )
        return Condition(1, **parts)

    @property
    def _classes(self) -> tuple[tuple[str, ...], ...]:
        """The names of each class of the generator."""
        classes = self.saved.generator.config.condition.classes
        return self.saved.facts.labels or tuple((str(i),) for i in range(classes))

    def _class(self, words: str, *, strict: bool = True) -> int | None:
        """The class that words name; of several None, or HarmoniaError if ``strict``."""
        if not self.saved.generator.config.condition.classes:
            return None
        if strict:
            return label_of(words, self._classes)
        named = _named(words, self._classes)
        return named[0] if len(named) == 1 else None

    def _recall(
        self, given: Given, from_memory: bool | None, found: Recollection | None
    ) -> tuple[Recollection | None, str]:
        """The recollection, None if the cue is used instead, and the origin of the condition in words."""
        if from_memory is False:
            return None, FROM_CUE
        if self.collection is None or not self.collection.exists:
            if from_memory:
                raise HarmoniaError("no memory here: run `harmonia remember FOLDER` first, or use --from-cue")
            return None, f"no memory here: {FROM_CUE}"
        try:
            found = found or self.collection.recall(
                given.get("text"), given.get("image"), given.get("audio"), given.get("video")
            )
        except HarmoniaError as error:
            if from_memory:
                raise
            return None, f"{error}: {FROM_CUE}"
        if found.abstained or not found.records:
            if from_memory:
                raise HarmoniaError("nothing that is remembered matches: use --from-cue")
            return None, f"nothing that is remembered matches: {FROM_CUE}"
        if self.saved.generator.config.condition.code and self._settled(found) is None:
            if from_memory:
                raise HarmoniaError(
                    "the memory holds no codes of this generator's space: remember with --model mini"
                )
            return None, f"the memory holds no codes of this generator's space: {FROM_CUE}"
        first = found.records[0]
        name = str(first.record.metadata.get("name") or first.record.id[:8])
        return found, f"from the memory: {name} ({first.probability:.0%})"

    def _settled(self, found: Recollection) -> NDArray[np.float32] | None:
        """The settled code in the generator's space, None if there is none."""
        codes = [code for code in found.codes.values() if code.space == self.saved.facts.space]
        return min(codes, key=lambda c: _place(c.modality)).vector if codes else None

    def _raw(self, given: Given) -> NDArray[np.float32]:
        """The mean direction of the cues' own codes in the generator's space."""
        cues = encode(self._model, [decode(make_query(given))])[0]
        codes = [cue.code.vector for cue in cues]
        if not codes:
            raise HarmoniaError(
                f"no encoder of this generator's space encodes {' or '.join(given)}: give another cue"
            )
        mean: NDArray[np.float32] = unit(np.sum(codes, axis=0)[None])[0]
        return mean

    def _image(self, given: Given) -> Tensor | None:
        """The image (1, c, h, w) to vary if it is the only cue and the generator can vary it, else None."""
        model, media = self.saved.generator, given.get("image")
        several: list[Any] = list(media) if isinstance(media, list | tuple) else [media]
        if not isinstance(model, Unclip) or set(given) != {"image"} or len(several) != 1:
            return None
        signal = several[0] if isinstance(several[0], Signal) else pictures.read(several[0])
        return tensor_of(signal, shape_of(model))[None]

    def eye(self) -> Callable[[Tensor], Tensor]:
        """The image encoder of the generator's space: samples (n, c, h, w) in [-1, 1] to codes (n, d).

        It is differentiable, for guidance. HarmoniaError if the encoder is not a tower of Harmonia.
        """
        if not self.saved.generator.config.condition.code:
            raise HarmoniaError("this generator takes no codes: --sight needs one that does")
        own = self._model.load_all()
        encoder = next((e for e in own if e.modality == "image"), None)
        if not (isinstance(encoder, TrainedEncoder) and isinstance(encoder.tower, ImageTower)):
            raise HarmoniaError(
                "this generator's codes are not of an image tower of Harmonia: leave out --sight"
            )
        tower = encoder.tower
        side, channels = tower.config.resolution, tower.config.channels

        def encode(x: Tensor) -> Tensor:
            pixels = F.interpolate((x + 1) * 127.5, (side, side), mode="bilinear", antialias=True)
            codes: Tensor = tower(pixels.expand(-1, channels, -1, -1))
            return codes

        return encode

    @cached_property
    def _model(self) -> EncoderSet:
        """The encoders of the generator's space: those of the memory, or the built-in ones."""
        held = self.collection.encoders.encoders if self.collection and self.collection.exists else ()
        for encoders in (held, load_encoders(("mini",), self.device)):
            own = tuple(e for e in encoders if e.space == self.saved.facts.space)
            if own:
                return EncoderSet(("",), {"": own})
        raise HarmoniaError(
            f"this generator takes codes of {self.saved.facts.space!r}, which neither mini nor the memory "
            "has: give --memory with one that was made with that model"
        )

    def _code_of(self, record_id: str) -> NDArray[np.float32]:
        """The mean code of a record in the generator's space, of its images if it has any."""
        if self.collection is None:
            raise HarmoniaError("no memory here: run `harmonia remember FOLDER` first")
        record = self.collection.show(record_id)
        table, _ = self.collection.bound()
        own = [e for e in self.collection.encoders.encoders if e.space == self.saved.facts.space]
        for encoder in sorted(own, key=lambda e: _place(e.modality)):
            held = table.encoders[encoder.name]
            rows = held.codes[held.record == table.record_ids.index(record.id)]
            if len(rows):
                mean: NDArray[np.float32] = unit(rows.mean(axis=0)[None])[0]
                return mean
        raise HarmoniaError(
            f"record {record.id[:8]} has no code in this generator's space: remember it with --model mini"
        )


def _place(modality: str) -> int:
    return ORDER.index(modality) if modality in ORDER else len(ORDER)


def slerp(first: Tensor, second: Tensor, t: float) -> Tensor:
    """Spherical interpolation: the unit vector at t in [0, 1] between two unit vectors, all float (d,)."""
    angle = torch.arccos((first @ second).clamp(-1, 1))
    if angle.sin() < 1e-4:
        return torch.nn.functional.normalize(torch.lerp(first, second, t), dim=0)
    return (torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * second) / angle.sin()


def label_of(words: str, labels: Sequence[Sequence[str]]) -> int | None:
    """The class that words name in any language; None if none, HarmoniaError if several.

    A word that is both a number and an article ("un", "一") counts only if no other class is named.
    """
    named = _named(words, labels)
    if len(named) > 1:
        several = " and ".join(labels[i][0] for i in named)
        raise HarmoniaError(f"the words name {several}: name one class")
    return named[0] if named else None


def _named(words: str, labels: Sequence[Sequence[str]]) -> list[int]:
    """The classes that words name; those named by an article alone only if there are no others."""
    text, found = _plain(words), dict[int, set[str]]()
    for i, names in enumerate(labels):
        plain = {_plain(name) for name in names}
        if matches := {name for name in plain if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)}:
            found[i] = matches
    return [i for i, matches in found.items() if not matches <= ARTICLES] or list(found)


def _plain(text: str) -> str:
    """Case-folded, with single spaces; every character of ``CJK`` is a word of its own."""
    text = unicodedata.normalize("NFC", text).casefold()
    return " ".join(re.sub(f"([{CJK}])", r" \1 ", text).split())


def _words(given: Given) -> str:
    text = given.get("text")
    return text if isinstance(text, str) else ""


def _cue(given: Given) -> str:
    """The cues in words, for people."""
    names = []
    for modality, media in given.items():
        for cue in media if isinstance(media, list | tuple) else [media]:
            is_file = isinstance(cue, Path) or (modality != "text" and isinstance(cue, str))
            names.append(Path(str(cue)).name if is_file else cue if isinstance(cue, str) else modality)
    return " + ".join(names)
