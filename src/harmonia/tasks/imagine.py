"""imagine: encode -> settle -> generate. What a picture is to be of, from cues and a memory."""

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
from harmonia.collection.collection import Collection
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
"""Of which modality a settled code is taken, where there are several in the generator's space."""
NOWHERE = "from the cue itself"
ARTICLES = frozenset(("un", "une", "una", "um", "uma", "een", "en", "ett", "bir", "一"))
"""Numbers that are said for "a" as well, in the languages where the two are one word."""
CLOSE = "\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Signs of Chinese and Japanese, which are written without spaces, for a class of a pattern."""

Given = Mapping[str, Media | None]
"""What people give, by modality."""


def load(folder: str | Path | None = None, device: str = "auto") -> Saved:
    """A generator by its folder, or the one that ships; or a pipeline of diffusers, by folder or hub name.

    HarmoniaError if there is none, or it cannot be read.
    """
    from harmonia.encoders.towers.base import place

    path = SHIPPED if folder is None else Path(folder).expanduser()
    # a name on the hub looks like a folder in a folder, of which not even the first is here
    named = re.fullmatch(r"[\w.-]+/[\w.-]+", str(folder)) is not None and not path.parent.is_dir()
    if named or (path / INDEX).is_file():
        return _pipeline(str(path), place(device))
    if not path.is_dir():
        raise HarmoniaError(
            f"there is no generator in {path}: `harmonia train` lists recipes that make one, in RUN/model"
        )
    if not (path / CONFIG).is_file():
        raise HarmoniaError(
            f"{path} has neither {CONFIG}, of a generator that `harmonia train` made, nor {INDEX}, of a "
            "pipeline of diffusers: give the folder of one"
        )
    return load_generator(path, place(device))


def _pipeline(model: str, device: torch.device) -> Saved:
    folder = fetched(model)
    generator = Pretrained.load(str(folder))
    # not before: it needs transformers, and what says which packages are missing comes first
    from harmonia.pretrained.hub import digest

    name = folder.resolve().name if str(folder) == model else model
    return Saved(generator.to(device).eval(), Facts(name, labels=generator.labels), digest(folder))


@dataclass(frozen=True, slots=True, eq=False)
class GenerationRequest:
    """What a picture is to be of: ``condition`` of one row, ``cue`` and ``how`` it came about in words.

    ``found`` is what the memory answered, None where it was not asked or has nothing to say.
    """

    condition: Condition
    cue: str
    how: str
    found: Recollection | None = None


@dataclass(frozen=True, eq=False)
class Imagination:
    """A generator, and the memory that it draws from, if there is one."""

    saved: Saved
    collection: Collection | None = None
    device: str = "auto"

    def wish(
        self, given: Given, from_memory: bool | None = None, found: Recollection | None = None
    ) -> GenerationRequest:
        """The condition that cues stand for. ``found`` is what the memory answers, if it was asked already.

        ``from_memory`` true takes the settled state of the memory: its code in the generator's space, of a
        picture rather than of words, and the words of the first record; false the cues as they are; None the
        memory where it finds something, else the cues.

        HarmoniaError if there are no cues, one cannot be read, the generator cannot be told any of it, or the
        memory has to answer and cannot.
        """
        given = {modality: media for modality, media in given.items() if media not in (None, (), [])}
        told = self.saved.generator.config.condition
        if not given:
            if told.classes or told.text or told.code:
                raise HarmoniaError("nothing to imagine: give words, or --image, --audio or --video")
            return GenerationRequest(
                Condition(1), "", "of nothing in particular: this generator is not told what to draw"
            )
        words, code = _words(given), None
        found, how = self._recall(given, from_memory, found)
        if found is None and (seen := self._seen(given)) is not None:
            return GenerationRequest(Condition(1, image=seen), _cue(given), how)
        label = None if from_memory else self._class(words)
        if found is not None:
            heard = next((p.text for p in found.records[0].record.parts if p.text), "")
            named = self._class(heard, strict=False) if heard else self._class(words)
            if from_memory is None and label is not None and named is None:
                how = f"{how}, of whose words this generator knows none: {NOWHERE}"
            else:
                words, label = heard or words, named
            code = self._settled(found)
        if code is None and told.code:
            code = self._raw(given)
        return GenerationRequest(self._condition(code, words, label), _cue(given), how, found)

    def between(self, first: str, second: str, n: int) -> GenerationRequest:
        """``n`` conditions on the great circle from one record's code to another's; ids as in ``show``."""
        if not self.saved.generator.config.condition.code:
            raise HarmoniaError("this generator is told no codes, and has nothing between two memories")
        if n < 2:
            raise HarmoniaError(f"between two memories there are at least 2 pictures, both ends (got {n})")
        ends = [torch.from_numpy(self._code_of(one)) for one in (first, second)]
        codes = torch.stack([slerp(ends[0], ends[1], t / (n - 1)) for t in range(n)])
        return GenerationRequest(Condition(n, code=codes), f"between {first} and {second}", "from the memory")

    def _condition(self, code: NDArray[np.float32] | None, words: str, label: int | None) -> Condition:
        told, said = self.saved.generator.config.condition, dict[str, Tensor]()
        if code is not None:
            said["code"] = torch.from_numpy(code)[None]
        if told.text and words:
            said["text"] = spell([words], told.text)
        if label is not None:
            said["label"] = torch.tensor([label])
        elif told.classes and words and not said:
            names = self._classes
            known = ", ".join(one[0] for one in names[:20]) + (", ..." if len(names) > 20 else "")
            raise HarmoniaError(f"this generator knows no {words!r}: it draws {known}")
        if not said:
            raise HarmoniaError(
                "this generator is told words: give some, or a memory that has words for what you give"
                if told.text or told.classes
                else "this generator draws what it likes: give no cue"
            )
        return Condition(1, **said)

    @property
    def _classes(self) -> tuple[tuple[str, ...], ...]:
        """The names of each class that the generator knows."""
        classes = self.saved.generator.config.condition.classes
        return self.saved.facts.labels or tuple((str(i),) for i in range(classes))

    def _class(self, words: str, *, strict: bool = True) -> int | None:
        """The class that words name; of several none, or HarmoniaError if ``strict``."""
        if not self.saved.generator.config.condition.classes:
            return None
        if strict:
            return label_of(words, self._classes)
        named = _named(words, self._classes)
        return named[0] if len(named) == 1 else None

    def _recall(
        self, given: Given, from_memory: bool | None, found: Recollection | None
    ) -> tuple[Recollection | None, str]:
        """What the memory answers, and where the condition then comes from."""
        if from_memory is False:
            return None, NOWHERE
        if self.collection is None or not self.collection.exists:
            if from_memory:
                raise HarmoniaError("no memory here: `harmonia remember FOLDER` first, or take --from-cue")
            return None, f"no memory here: {NOWHERE}"
        try:
            found = found or self.collection.recall(
                given.get("text"), given.get("image"), given.get("audio"), given.get("video")
            )
        except HarmoniaError as error:
            if from_memory:
                raise
            return None, f"{error}: {NOWHERE}"
        if found.abstained or not found.records:
            if from_memory:
                raise HarmoniaError("nothing that is remembered matches: take --from-cue")
            return None, f"nothing that is remembered matches: {NOWHERE}"
        told = self.saved.generator.config.condition
        if told.code and self._settled(found) is None:
            if from_memory:
                raise HarmoniaError(
                    "the memory holds no codes of this generator's space: remember with --model mini"
                )
            return None, f"the memory holds no codes of this generator's space: {NOWHERE}"
        first = found.records[0]
        name = str(first.record.metadata.get("name") or first.record.id[:8])
        return found, f"from the memory: {name} ({first.probability:.0%})"

    def _settled(self, found: Recollection) -> NDArray[np.float32] | None:
        """The settled code in the generator's space."""
        codes = [code for code in found.codes.values() if code.space == self.saved.facts.space]
        return min(codes, key=lambda c: _place(c.modality)).vector if codes else None

    def _raw(self, given: Given) -> NDArray[np.float32]:
        """The cues' own codes in the generator's space, as one."""
        cues = encode(self._model, [decode(make_query(given))])[0]
        codes = [cue.code.vector for cue in cues]
        if not codes:
            raise HarmoniaError(f"no encoder of this generator's space takes {' or '.join(given)}")
        both: NDArray[np.float32] = unit(np.sum(codes, axis=0)[None])[0]
        return both

    def _seen(self, given: Given) -> Tensor | None:
        """A picture that is all that was given, (1, c, h, w), for a generator that can vary it; else None."""
        model, media = self.saved.generator, given.get("image")
        several: list[Any] = list(media) if isinstance(media, list | tuple) else [media]
        if not isinstance(model, Unclip) or set(given) != {"image"} or len(several) != 1:
            return None
        signal = several[0] if isinstance(several[0], Signal) else pictures.read(several[0])
        return tensor_of(signal, shape_of(model))[None]

    def eye(self) -> Callable[[Tensor], Tensor]:
        """Codes (n, d) of samples (n, c, h, w) in [-1, 1], by the image tower of the generator's space.

        Gradients go through it, so that it can guide what is drawn. HarmoniaError if it is none of ours.
        """
        if not self.saved.generator.config.condition.code:
            raise HarmoniaError("an encoder guides generators that are told codes, which this one is not")
        own = self._model.load_all()
        encoder = next((e for e in own if e.modality == "image"), None)
        if not (isinstance(encoder, TrainedEncoder) and isinstance(encoder.tower, ImageTower)):
            raise HarmoniaError("the codes of this generator are of no image tower of Harmonia, to guide by")
        tower = encoder.tower
        side, channels = tower.config.resolution, tower.config.channels

        def encode(x: Tensor) -> Tensor:
            pixels = F.interpolate((x + 1) * 127.5, (side, side), mode="bilinear", antialias=True)
            codes: Tensor = tower(pixels.expand(-1, channels, -1, -1))
            return codes

        return encode

    @cached_property
    def _model(self) -> EncoderSet:
        """The encoders of the generator's space: those of the memory, or those that ship."""
        held = self.collection.encoders.encoders if self.collection and self.collection.exists else ()
        for encoders in (held, load_encoders(("mini",), self.device)):
            own = tuple(e for e in encoders if e.space == self.saved.facts.space)
            if own:
                return EncoderSet(("",), {"": own})
        raise HarmoniaError(
            f"this generator is told codes of {self.saved.facts.space!r}, which neither mini nor the memory "
            "makes: give --memory of one that was made with that model"
        )

    def _code_of(self, record_id: str) -> NDArray[np.float32]:
        """The mean code of a record in the generator's space, of its picture if it has one."""
        if self.collection is None:
            raise HarmoniaError("no memory here: `harmonia remember FOLDER` first")
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
    """The unit vector a share t of the way from one to another along their great circle; both float (d,)."""
    angle = torch.arccos((first @ second).clamp(-1, 1))
    if angle.sin() < 1e-4:
        return torch.nn.functional.normalize(torch.lerp(first, second, t), dim=0)
    return (torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * second) / angle.sin()


def label_of(words: str, labels: Sequence[Sequence[str]]) -> int | None:
    """The class that words name in any of its languages; None if none, HarmoniaError if several.

    A number that is an article too ("un", "一") counts only where no other class is named.
    """
    named = _named(words, labels)
    if len(named) > 1:
        several = " and ".join(labels[i][0] for i in named)
        raise HarmoniaError(f"the words name {several}: one picture is of one of them")
    return named[0] if named else None


def _named(words: str, labels: Sequence[Sequence[str]]) -> list[int]:
    """The classes that words name; those named by nothing but an article only if there are no others."""
    text, found = _plain(words), dict[int, set[str]]()
    for i, names in enumerate(labels):
        plain = {_plain(name) for name in names}
        if heard := {name for name in plain if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)}:
            found[i] = heard
    return [i for i, heard in found.items() if not heard <= ARTICLES] or list(found)


def _plain(text: str) -> str:
    """Without differences of case or spaces; every sign of ``CLOSE`` is a word of its own."""
    text = unicodedata.normalize("NFC", text).casefold()
    return " ".join(re.sub(f"([{CLOSE}])", r" \1 ", text).split())


def _words(given: Given) -> str:
    said = given.get("text")
    return said if isinstance(said, str) else ""


def _cue(given: Given) -> str:
    """What was given, in words, for people."""
    names = []
    for modality, media in given.items():
        for one in media if isinstance(media, list | tuple) else [media]:
            is_file = isinstance(one, Path) or (modality != "text" and isinstance(one, str))
            names.append(Path(str(one)).name if is_file else one if isinstance(one, str) else modality)
    return " + ".join(names)
