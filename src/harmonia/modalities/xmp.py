"""XMP, the metadata of Adobe's standard: in pictures, and in sidecar files beside them (ISO 16684-1)."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import Any

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
)
from harmonia.modalities.text_encoding import decode

MOST = 1 << 20
"""Bytes of a packet; more is no description of a file."""
_SPACES = {
    "aux": "http://ns.adobe.com/exif/1.0/aux/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "digiKam": "http://www.digikam.org/ns/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "exifEX": "http://cipa.jp/exif/1.0/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
}
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
_DEGREES = re.compile(r"(\d+),(\d+(?:\.\d+)?)(?:,(\d+(?:\.\d+)?))?\s*([NSEW])")


def parsed(packet: Any) -> ElementTree.Element | None:
    """The tree of a packet (bytes or text); None for what is broken or too large.

    A document type is refused in every encoding: it could define entities that expand without end, and
    XMP has none.
    """
    if not isinstance(packet, bytes | str) or len(packet) > MOST:
        return None
    text = decode(packet) if isinstance(packet, bytes) else packet
    if text is None or "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    try:
        return ElementTree.fromstring(text.strip("\0\ufeff \t\r\n"))
    except (ElementTree.ParseError, ValueError):
        return None


def facts_of(packet: Any) -> Facts:
    """The columns that a packet gives; ``created`` is a date that may be that of a scan or of a copy."""
    root = parsed(packet)
    if root is None:
        return {}
    taken = (moment(_property(root, name)) for name in ("exif:DateTimeOriginal", "photoshop:DateCreated"))
    lenses = (clean(_property(root, name)) for name in ("exifEX:LensModel", "aux:Lens"))
    keywords = [
        *_items(root, "dc:subject"),
        *(tag.split("/")[-1] for tag in _items(root, "digiKam:TagsList")),
    ]
    below = _property(root, "exif:GPSAltitudeRef") == "1"
    altitude = number(_property(root, "exif:GPSAltitude"))
    return known(
        {
            "taken": next(filter(None, taken), None),
            "created": moment(_property(root, "xmp:CreateDate")),
            "camera": camera(_property(root, "tiff:Make"), _property(root, "tiff:Model")),
            "lens": next(filter(None, lenses), None),
            "rating": rating(_property(root, "xmp:Rating")),
            "keywords": words(keywords),
            "people": words([*_items(root, "Iptc4xmpExt:PersonInImage"), *_faces(root)]),
            "title": clean(_text(root, "dc:title")),
            "description": clean(_text(root, "dc:description"), PROSE_MOST),
            "artist": clean(", ".join(words(_items(root, "dc:creator")))),
            **place(
                _degrees(_property(root, "exif:GPSLatitude")),
                _degrees(_property(root, "exif:GPSLongitude")),
                -altitude if altitude is not None and below else altitude,
            ),
        }
    )


def _qualified(name: str) -> str:
    prefix, _, local = name.partition(":")
    return f"{{{_SPACES[prefix]}}}{local}"


def _property(root: ElementTree.Element, name: str) -> str | None:
    """A simple property, which writers put into an attribute or an element."""
    for node in root.iter(_qualified("rdf:Description")):
        value = node.get(_qualified(name))
        if value is None and (child := node.find(_qualified(name))) is not None:
            value = child.text
        if value is not None and value.strip():
            return value.strip()
    return None


def _items(root: ElementTree.Element, name: str) -> Iterator[str]:
    """The entries of an array; a value that should be one is its only entry."""
    for node in root.iter(_qualified(name)):
        items = list(node.iter(_qualified("rdf:li")))
        for item in items or [node]:
            yield item.text or ""


def _faces(root: ElementTree.Element) -> Iterator[str]:
    """The names of faces in the regions of a picture (Metadata Working Group, 2010)."""
    kind, name = _qualified("mwg-rs:Type"), _qualified("mwg-rs:Name")
    for region in root.iter(_qualified("rdf:li")):
        for node in (region, *region.findall(_qualified("rdf:Description"))):
            if (node.get(kind) or node.findtext(kind)) == "Face":
                yield node.get(name) or node.findtext(name) or ""


def _text(root: ElementTree.Element, name: str) -> str | None:
    """A text that may be there in several languages: the default one, else the first."""
    for node in root.iter(_qualified(name)):
        items = list(node.iter(_qualified("rdf:li")))
        default = [item for item in items if item.get(_LANGUAGE) == "x-default"]
        for item in (*default, *items, node):
            if item.text and item.text.strip():
                return item.text
    return _property(root, name)


def _degrees(value: str | None) -> float | None:
    """Degrees as ``48,30.5N`` or ``48,30,30N``, negative for south and west; also as a plain number."""
    found = _DEGREES.fullmatch(value or "")
    if found is None:
        return number(value)
    degrees = int(found[1]) + float(found[2]) / 60 + float(found[3] or 0) / 3600
    return -degrees if found[4] in "SW" else degrees
