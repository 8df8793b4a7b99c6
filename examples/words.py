"""The texts of the starter collection: captions of the images, sounds and videos, and notes."""

from __future__ import annotations

from typing import NamedTuple


class Picture(NamedTuple):
    """An image of an installed package: ``package/file``, and its caption."""

    source: str
    caption: str
    voice: str = ""  # the voice of espeak-ng that reads the caption out, if any


class Detail(NamedTuple):
    """A crop of an image; ``box`` is left, top, right and bottom, in its pixels."""

    source: str
    box: tuple[int, int, int, int] | None
    caption: str
    tags: tuple[str, ...]


PICTURES = {
    "astronaut": Picture(
        "skimage/astronaut.png",
        "A smiling astronaut in an orange space suit holds her helmet in front of an American flag.",
    ),
    "bricks": Picture(
        "skimage/brick.png",
        "Rows of long narrow bricks with pale mortar between them, seen along a grey wall.",
    ),
    "cat": Picture(
        "skimage/chelsea.png",
        "A ginger tabby cat with green eyes, a pink nose and white whiskers, close to the lens.",
    ),
    "coffee": Picture(
        "skimage/coffee.png",
        "An espresso in a red cup on a red saucer, with a small spoon, on a wooden table.",
        "en-us+f3",
    ),
    "coins": Picture(
        "skimage/coins.png",
        "Twenty-four ancient Greek coins from Pompeii lie in four rows on a dark board.",
    ),
    "dahlia": Picture(
        "sklearn/flower.jpg",
        "An apricot dahlia in full bloom, its round petals layered against dark leaves.",
    ),
    "galaxies": Picture(
        "skimage/hubble_deep_field.jpg",
        "The Hubble telescope looks into the deep universe: thousands of distant galaxies on black.",
    ),
    "horse": Picture(
        "skimage/horse.png",
        "The black silhouette of a standing horse with pricked ears and a long tail.",
        "en+m3",
    ),
    "moon": Picture(
        "skimage/moon.png",
        "The dusty surface of the moon with two craters and a chain of dark patches.",
        "en-gb-scotland",
    ),
    "motorcycle": Picture(
        "skimage/motorcycle_left.png",
        "A red motorcycle is parked on its stand in a garage, in front of an old bench.",
    ),
    "pagoda": Picture(
        "sklearn/china.jpg",
        "A Chinese temple tower with three curved tile roofs rises above trees and a misty lake.",
        "en+f2",
    ),
    "page": Picture(
        "skimage/page.png",
        "A photographed page of a manual with the printed heading: Region-based segmentation.",
    ),
    "photographer": Picture(
        "skimage/camera.png",
        "A man in a black coat bends over a camera on a tripod and films across a park.",
    ),
    "retina": Picture(
        "skimage/retina.jpg",
        "The back of a human eye: a bright optic disc and branching blood vessels on a red retina.",
    ),
    "rocket": Picture(
        "skimage/rocket.jpg",
        "A white rocket stands on its launch pad at dusk, between steel masts and shining lamps.",
        "en-us",
    ),
    "tissue": Picture(
        "skimage/ihc.png",
        "Bowel glands under the microscope, their cells stained brown and the nuclei blue.",
    ),
}

DETAILS = {
    "shuttle-model": Detail(
        "skimage/astronaut.png",
        (340, 0, 512, 290),
        "A scale model of the space shuttle with two boosters and a rust-brown fuel tank.",
        ("space", "model"),
    ),
    "mission-badge": Detail(
        "skimage/astronaut.png",
        (110, 330, 240, 460),
        "A round purple badge embroidered with the names of the crew, sewn on orange cloth.",
        ("space", "clothes"),
    ),
    "engine": Detail(
        "skimage/motorcycle_left.png",
        (290, 220, 500, 420),
        "A chrome engine block with cooling fins and a bent exhaust pipe.",
        ("machine", "metal"),
    ),
    "boats": Detail(
        "sklearn/china.jpg",
        (330, 190, 560, 320),
        "Tiny boats are scattered over hazy water near a low wooded island.",
        ("water", "landscape"),
    ),
    "spiral": Detail(
        "skimage/hubble_deep_field.jpg",
        (50, 330, 190, 470),
        "One pale spiral nebula, its arms wound around a glowing core.",
        ("space", "star"),
    ),
    "skyline": Detail(
        "skimage/camera.png",
        (330, 110, 512, 260),
        "A concrete high-rise and low white domes on the horizon of a campus.",
        ("building", "landscape"),
    ),
    "gravel": Detail(
        "skimage/gravel.png",
        None,
        "Crushed stones of a driveway, sharp-edged pebbles heaped without order.",
        ("texture", "stone"),
    ),
}

SOUNDS = {
    "bell": "A heavy church bell is struck three times and rings on.",
    "birdsong": "A little bird whistles and trills high up in a hedge in the early morning.",
    "drums": "A drum kit plays a steady rock beat: bass drum, snare and hi-hat.",
    "melody": "A toy music box plays a slow lullaby and ends on the low note.",
    "siren": "An ambulance siren wails up and down as it passes.",
    "surf": "Ocean waves roll onto a sandy beach and draw back.",
}

MESSAGES = {
    "voicemail": (
        "en-us+m7",
        "Hello, this is Tom. My train is forty minutes late. Please start dinner without me.",
        "Voicemail from Tom about his delayed train; he asks us to eat without him.",
    ),
}

VIDEOS = {
    "countdown": "The view climbs up the rocket from the lamps to the nose while a voice counts down.",
    "colour-wheel": "A rainbow disc of every hue turns slowly while a scale climbs step by step.",
    "ride": "The view glides along the motorbike from rear tyre to headlight; the motor revs up.",
    "stargazing": "A flight towards a swirl of stars with a soft, swelling organ chord.",
}
COUNTDOWN = ("en-us+m3", "Three, two, one, ignition!")

NOTES = {
    "lentil-soup": """Lentil soup for four

Fry two chopped onions and a carrot in olive oil. Add 250 grams of red lentils, a teaspoon of cumin
and a litre of vegetable stock. Simmer for twenty minutes, then blend until smooth. Season with
lemon juice, salt and pepper. It tastes better warmed up the next day.
""",
    "shopping-list": """To buy on Saturday

- oat milk, two cartons
- rye bread and butter
- tomatoes, spinach, a cauliflower
- batteries for the smoke detector
- birthday card for grandmother
""",
    "budget-meeting": """Minutes of the budget meeting, 4 March

Present: Amara, Jonas, Priya. The treasurer reported a surplus of 1,200 euros. We agreed to repair
the projector before the summer festival and to postpone the new website. Jonas asks three printers
for offers on the brochure. Next meeting: first Tuesday in April.
""",
    "lighthouse-poem": """The keeper's hour

The lamp goes round, the dark comes near,
it touches glass and disappears.
I count the ships I cannot see
and wonder which are counting me.
""",
    "alpine-diary": """Diary, third day in the Alps

We left the hut at five with headlamps and crossed the glacier on one rope. At the saddle the clouds
opened and we saw the whole ridge in pink light. Lena's knee hurt on the way down, so we took the
cable car from the middle station. Blisters: two. Marmots: eleven.
""",
}

CREDITS = """Where the media of this collection come from

Pictures shipped with scikit-image: its documentation (skimage.data) names the source of each.
  astronaut, shuttle-model, mission-badge, galaxies, spiral, stargazing: NASA, public domain
  cat (Stefan van der Walt), coffee (Rachel Michetti), photographer, skyline (Lav Varshney),
  horse (Andreas Preuss), retina (Mikael Häggström), bricks, gravel (CC0Textures): CC0
  rocket, countdown: SpaceX, public domain
  coins (Brooklyn Museum), tissue (CMMI): no known copyright restrictions
  motorcycle, engine, ride: Middlebury stereo benchmark 2014 (Nesic, Westling, Wang, Kitajima,
  Krathwohl, Scharstein)
  moon, page, colour-wheel: scikit-image names no other source
Pictures shipped with scikit-learn, CC BY 2.0 (https://creativecommons.org/licenses/by/2.0/):
  pagoda, boats (cropped): danielbuechele, flickr.com/photos/danielbuechele
  dahlia: vultilion, flickr.com/photos/vultilion
Speech: espeak-ng. Other sounds, texts and the movements of the videos: made by Harmonia.
"""
