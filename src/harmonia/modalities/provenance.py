"""The mark of media that were generated: an XMP packet in the words of the IPTC's standard.

Photo Metadata Standard 2025.1: ``DigitalSourceType`` says that a trained algorithm made it, ``AISystemUsed``
and ``AISystemVersionUsed`` which one, ``AIPromptInformation`` from what; the seed has a name of our own. The
cue is not written where captions are: a memory would take it for the words of the owner.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any
from xml.sax.saxutils import escape

from harmonia.modalities.xmp import parsed

TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
"""Where the IPTC's words for the source of an image are."""
WHOLE, COMPOSITE = "trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"
LONGEST = 2000
"""Characters that are kept of a value: the head of a JPEG file holds 64 KiB."""
SPACES = {
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "harmonia": "urn:harmonia:mark:1",
}
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_SOURCE, _SYSTEM, _VERSION, _PROMPT = (
    f"Iptc4xmpExt:{name}"
    for name in ("DigitalSourceType", "AISystemUsed", "AISystemVersionUsed", "AIPromptInformation")
)
_TOOL, _SEED = "xmp:CreatorTool", "harmonia:Seed"


@dataclass(frozen=True, slots=True)
class Mark:
    """How something was generated.

    ``generator``  the name of the model
    ``identity``   of the content of its files
    ``cue``        what was asked for
    ``seed``       of the random numbers; None where there were none
    ``composite``  whether a part of it was given, not generated
    ``software``   which program wrote it; "" for this one
    """

    generator: str
    identity: str = ""
    cue: str = ""
    seed: int | None = None
    composite: bool = False
    software: str = ""

    def facts(self) -> dict[str, str]:
        """The XMP properties and their values, all of one line."""
        tool = self.software or f"harmonia {version('harmonia')}"
        facts = {
            _SOURCE: TYPES + (COMPOSITE if self.composite else WHOLE),
            _SYSTEM: self.generator,
            _VERSION: self.identity,
            _PROMPT: self.cue,
            _TOOL: tool,
        }
        if self.seed is not None:
            facts[_SEED] = str(self.seed)
        return {name: _line(value)[:LONGEST] for name, value in facts.items() if value}

    def xmp(self) -> bytes:
        """The XMP packet, UTF-8."""
        spaces = " ".join(f'xmlns:{prefix}="{space}"' for prefix, space in SPACES.items())
        facts = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in self.facts().items())
        packet = (
            '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
            f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}">'
            f'<rdf:Description rdf:about="" {spaces}>{facts}</rdf:Description></rdf:RDF></x:xmpmeta>'
            '<?xpacket end="w"?>'
        )
        return packet.encode()


def from_xmp(packet: Any) -> Mark | None:
    """The mark that a packet holds, whoever wrote it; None if it does not say that a model made this."""
    root = parsed(packet) if isinstance(packet, bytes) else None
    if root is None:
        return None
    source = _value(root, _SOURCE).rpartition("/")[2]
    if source not in (WHOLE, COMPOSITE):
        return None
    seed = _value(root, _SEED)
    return Mark(
        generator=_value(root, _SYSTEM),
        identity=_value(root, _VERSION),
        cue=_value(root, _PROMPT),
        seed=int(seed) if seed.isascii() and seed.removeprefix("-").isdigit() else None,
        composite=source == COMPOSITE,
        software=_value(root, _TOOL),
    )


def _value(root: ElementTree.Element, name: str) -> str:
    """A property, which writers put into an element, a resource, or an attribute."""
    prefix, _, local = name.partition(":")
    qualified = f"{{{SPACES[prefix]}}}{local}"
    for element in root.iter():
        if element.tag == qualified:
            return (element.get(f"{{{_RDF}}}resource") or "".join(element.itertext())).strip()
        if qualified in element.attrib:
            return element.attrib[qualified].strip()
    return ""


def _line(text: str) -> str:
    """On one line, without what XML cannot hold (control characters, halves of surrogate pairs)."""
    kept = text.encode("utf-8", "replace").decode()
    return " ".join("".join(c if c.isprintable() else " " for c in kept).split())
