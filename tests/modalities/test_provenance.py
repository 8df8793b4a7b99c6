"""What was generated says so: in the file, to other programs, and to the memory that it is given to."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import ExifTags, Image

from harmonia.collection.collection import Memory
from harmonia.modalities import image
from harmonia.modalities.provenance import Mark, from_xmp
from harmonia.types import HarmoniaError, Signal
from tests.media import make_photo

PICTURE = Signal("image", np.full((8, 12, 3), 200, np.uint8))
MARK = Mark("little flow", "0123456789abcdef", 'ein <Apfel> & "苹果"', 7)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("composite", [False, True])
def test_a_mark_is_read_back(tmp_path: Path, suffix: str, composite: bool) -> None:
    file = tmp_path / f"drawn{suffix}"
    image.write(PICTURE, file, Mark("m", "id", MARK.cue, 0, composite))
    found = image.mark_of(file)
    assert found is not None and found.software.startswith("harmonia ")
    assert (found.generator, found.identity, found.cue, found.seed) == ("m", "id", MARK.cue, 0)
    assert found.composite is composite
    # the cue is not what the owner wrote: it must not come back as a caption
    assert image.read(file).caption is None
    image.write(PICTURE, file)
    assert image.mark_of(file) is None


def test_other_programs_can_read_it(tmp_path: Path) -> None:
    image.write(PICTURE, tmp_path / "drawn.png", MARK)
    image.write(PICTURE, tmp_path / "drawn.jpg", MARK)
    with Image.open(tmp_path / "drawn.png") as png, Image.open(tmp_path / "drawn.jpg") as jpeg:
        words = png.text  # type: ignore[attr-defined]
        assert words["Software"].startswith("harmonia ") and words["Seed"] == "7"
        assert words["AISystemUsed"] == "little flow" and words["AIPromptInformation"] == MARK.cue
        assert jpeg.getexif()[ExifTags.Base.Software] == words["Software"]
        for packet in (png.info["xmp"], jpeg.info["xmp"]):
            root = ElementTree.fromstring(packet)
            source = root.find(".//{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
            assert source is not None and source.text is not None
            assert source.text == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def test_marks_of_others_are_understood() -> None:
    """As an attribute or a resource; what a camera made is no such thing, damage is no error."""
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" {} </rdf:RDF></x:xmpmeta>'
    )
    place = "http://cv.iptc.org/newscodes/digitalsourcetype/"
    attribute = f'e:DigitalSourceType="{place}trainedAlgorithmicMedia"/>'
    resource = (
        f'e:AISystemUsed="other"><e:DigitalSourceType rdf:resource="{place}trainedAlgorithmicMedia"/>'
        "</rdf:Description>"
    )
    assert from_xmp(packet.format(attribute).encode()) == Mark("")
    assert from_xmp(packet.format(resource).encode()) == Mark("other")
    camera = f'e:DigitalSourceType="{place}digitalCapture"/>'
    for other in (
        packet.format(camera).encode(),
        b"<x",
        b"<!DOCTYPE a><a/>",
        None,
        packet.format("/>").encode(),
    ):
        assert from_xmp(other) is None


def test_hostile_cues_make_no_damage(tmp_path: Path) -> None:
    for cue in ("</rdf:RDF>]]>", "a\0b\x1b[31m\nc\ud800", "x" * 200_000):
        for suffix in (".png", ".jpg"):
            image.write(PICTURE, tmp_path / f"drawn{suffix}", Mark("m", cue=cue))
            found = image.mark_of(tmp_path / f"drawn{suffix}")
            assert found is not None and found.cue.isprintable() and len(found.cue) <= 2000
            assert found.cue.startswith(cue[:1])


def test_what_cannot_say_so_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(HarmoniaError, match="cannot say that it was generated"):
        image.write(PICTURE, tmp_path / "drawn.bmp", MARK)
    assert not list(tmp_path.iterdir())


def test_a_memory_knows_what_was_generated(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    make_photo(tmp_path / "media" / "photo.jpg", seed=1)
    image.write(
        image.read(make_photo(tmp_path / "scene.png", seed=2)), tmp_path / "media" / "drawn.png", MARK
    )
    (tmp_path / "media" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    collection = Memory(tmp_path / "memory", models=("descriptors",))
    report = collection.remember(tmp_path / "media")
    assert report.remembered == 2 and len(report.problems) == 1
    facts = {r.metadata["name"]: r.metadata.get("generated") for r in collection.store.records()}
    assert facts == {"photo": None, "drawn": True}
    assert [r.metadata["name"] for r in collection.store.records(where="generated")] == ["drawn"]
    assert collection.remember(tmp_path / "media").already == 2


def test_opacity_is_as_upright_as_the_picture(tmp_path: Path) -> None:
    cut = Image.new("RGBA", (6, 4), (10, 20, 30, 255))
    cut.putpixel((0, 0), (0, 0, 0, 0))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned clockwise by a quarter
    cut.save(tmp_path / "cut.png", exif=exif)
    opacity, picture = image.opacity(tmp_path / "cut.png"), image.read(tmp_path / "cut.png").array
    assert opacity is not None and opacity.shape == picture.shape[:2] == (6, 4)
    assert opacity[0, 3] == 0 and (picture[0, 3] == 255).all() and (opacity == 0).sum() == 1
    make_photo(tmp_path / "whole.jpg", seed=1)
    assert image.opacity(tmp_path / "whole.jpg") is None
    with pytest.raises(HarmoniaError, match="does not exist"):
        image.opacity(tmp_path / "none.png")
