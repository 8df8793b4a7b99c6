"""The tags of sounds and videos, as FFmpeg reads them of ID3, Vorbis comments, MP4, Matroska and RIFF."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from av.stream import Disposition

from harmonia.modalities.limits import Limits, opened
from harmonia.modalities.metadata_values import (
    PROSE_MOST,
    Facts,
    camera,
    clean,
    known,
    moment,
    number,
    place,
    rating,
    words,
    year,
)
from harmonia.modalities.pyav import Decoder, container_of

_APPLE, _ANDROID = "com.apple.quicktime.", "com.android."
# ISO 6709: degrees north and east, metres
_PLACE = re.compile(r"([+-]\d{1,2}(?:\.\d+)?)([+-]\d{1,3}(?:\.\d+)?)([+-]\d+(?:\.\d+)?)?")
_PACKETS = 50  # in which the first frame should come


def facts_of(path: Path, limits: Limits) -> Facts:
    """The columns that a sound or a video gives; HarmoniaError if it is neither."""
    with opened(path, limits) as file, container_of(path, file, "audio", "give another file") as container:
        tags: dict[str, str] = {}
        for holder in (container, *list(container.streams)[:4]):
            for name, value in holder.metadata.items():
                tags.setdefault(name.lower(), value)
        seconds = container.duration / 1e6 if container.duration and container.duration > 0 else None
        pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        size = _size(path, container, pictures[0], limits) if pictures else {}
    length = {} if seconds is None else {"duration": round(seconds, 2)}
    return tags_as_facts(tags) | length | size


def _size(path: Path, container: Any, stream: Any, limits: Limits) -> Facts:
    """Width and height of a video as it is shown; only a frame tells whether it is turned."""
    if stream.codec_context is None or not (stream.width and stream.height):
        return {}
    size = {"width": stream.width, "height": stream.height}
    decoder = Decoder(path, stream, limits)
    for packet in container.demux(stream):
        for frame in decoder.frames(packet):
            turned = round(frame.rotation / 90) % 2
            return {"width": size["height"], "height": size["width"]} if turned else size
        if decoder.packets >= _PACKETS:
            break
    return size


def tags_as_facts(tags: Mapping[str, str]) -> Facts:
    """The columns that tags give, by their lower-case names."""
    album = clean(tags.get("album"))
    makes = (tags.get(f"{_APPLE}make"), tags.get(f"{_ANDROID}manufacturer"), tags.get("make"))
    models = (tags.get(f"{_APPLE}model"), tags.get(f"{_ANDROID}model"), tags.get("model"))
    described = tags.get("description") or tags.get("synopsis") or tags.get("comment")
    # Albums were copied when their files were made; videos and recordings were taken.
    copied = None if album else tags.get("creation_time")
    broadcast = f"{tags.get('origination_date', '')} {tags.get('origination_time', '')}"
    dates = (tags.get(f"{_APPLE}creationdate"), broadcast, copied)
    where = _PLACE.match(tags.get(f"{_APPLE}location.iso6709") or tags.get("location") or "")
    return known(
        {
            "title": clean(tags.get("title")),
            "artist": clean(tags.get("artist") or tags.get("album_artist")),
            "album": album,
            "genre": clean(tags.get("genre")),
            "year": next(filter(None, (year(tags.get(name)) for name in ("date", "year", "tyer"))), None),
            "description": clean(described, PROSE_MOST),
            "keywords": words(re.split(r"[;,]", clean(tags.get("keywords"), PROSE_MOST) or "")),
            "rating": rating(number(tags.get(f"{_APPLE}rating.user"))),
            "camera": camera(next(filter(None, makes), None), next(filter(None, models), None)),
            "taken": next(filter(None, map(moment, dates)), None),
            **(place(*where.groups()) if where else {}),
        }
    )
