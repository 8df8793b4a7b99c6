"""The page's viewer in a real browser: keys, swipes, addresses, focus, and finding what is similar."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from harmonia.collection.collection import Memory
from harmonia.server.settings import Settings
from tests.browser import Open, ask, settled, shot, violations
from tests.media import make_photo
from tests.serving import memory_of, serve

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

SWIPE = """([from, to]) => {
    const stage = document.querySelector(".stage");
    const fire = (kind, x) => stage.dispatchEvent(new PointerEvent(kind, {
        bubbles: true, pointerType: "touch", isPrimary: true, clientX: x, clientY: 200 }));
    fire("pointerdown", from);
    fire("pointerup", to);
}"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(Settings(memory_of(tmp_path_factory.mktemp("viewer")))) as found:
        yield found


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """40 photos, a day each, with what cameras and people write on them."""
    folder = tmp_path_factory.mktemp("album")
    rows = []
    for number in range(40):
        make_photo(folder / f"{number}.png", seed=number % 20, size=(160, 120))
        rows.append(
            {
                "image": f"{number}.png",
                "caption": f"photo {number}",
                "taken": f"2021-{1 + number // 20:02}-{1 + number % 20:02}T08:30:00+02:00",
                "year": 2021,
                "latitude": 52.52 if number % 2 else -33.8568,
                "longitude": 13.405 if number % 2 else 151.2153,
                "camera": "Pixel 7",
                "keywords": ["sea", f"number {number}"],
                "moods": ["calm", f"like {number}'s"],
                "rating": number % 6,
                "broken": None,
                "modified": "one day",
            }
        )
    manifest = folder / "album.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert Memory(folder / "memory").remember(manifest, copy=True, threads=1).remembered == 40
    with serve(Settings(folder / "memory")) as found:
        yield found


def asked(page: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def is_at(page: Any, query: dict[str, list[str]]) -> None:
    """Wait for an address: Back comes later than the key that asks for it."""
    until = time.monotonic() + 10
    while asked(page) != query:
        assert time.monotonic() < until, page.url
        page.wait_for_timeout(20)


def title(page: Any) -> str:
    page.locator("dialog.viewer .facts").first.wait_for()
    return str(page.locator("dialog.viewer h2").inner_text())


def test_keys_and_buttons_go_through_the_list(visit: Open, album: str) -> None:
    page = visit(album)
    page.locator(".picture.there").first.wait_for()
    settled(page)
    names = [x.inner_text() for x in page.locator(".card-title").all()]
    assert names[:3] == ["photo 39", "photo 38", "photo 37"]
    page.locator(".frame").nth(1).click()
    assert title(page) == "photo 38"
    page.locator("dialog.viewer .picture.there").wait_for()
    opened = asked(page)["open"]
    api.expect(page.get_by_role("button", name="Previous")).to_have_attribute("aria-disabled", "false")
    page.keyboard.press("ArrowRight")
    api.expect(page.locator("dialog.viewer h2")).to_have_text("photo 37")
    assert asked(page)["open"] != opened
    page.get_by_role("button", name="Previous").click()
    api.expect(page.locator("dialog.viewer h2")).to_have_text("photo 38")
    page.get_by_role("button", name="Previous").click()
    api.expect(page.locator("dialog.viewer h2")).to_have_text("photo 39")
    api.expect(page.get_by_role("button", name="Previous")).to_have_attribute("aria-disabled", "true")
    page.keyboard.press("ArrowLeft")
    assert title(page) == "photo 39"
    for number in range(38, -1, -1):  # farther than the first page of the list
        page.keyboard.press("ArrowRight")
        api.expect(page.locator("dialog.viewer h2")).to_have_text(f"photo {number}")
    api.expect(page.get_by_role("button", name="Next")).to_have_attribute("aria-disabled", "true")
    page.keyboard.press("Escape")
    api.expect(page.get_by_role("dialog")).to_have_count(0)
    # the focus is on the card of the last one, and the address is that of the list
    api.expect(page.locator(":focus")).to_have_text("photo 0")
    is_at(page, {})


def test_what_it_says_of_a_photo(visit: Open, album: str) -> None:
    page = visit(album)
    page.get_by_role("button", name="photo 38", exact=True).click()
    facts = page.locator("dialog.viewer .facts").first
    facts.wait_for()
    said = {
        row.locator("dt").inner_text(): row.locator("dd").inner_text()
        for row in facts.locator(":scope > div").all()
    }
    assert said["taken"] == "19 February 2021, 08:30"
    assert said["place"] == "33.8568° S, 151.2153° E"
    assert said["camera"] == "Pixel 7" and said["rating"] == "2"
    assert said["keywords"].split() == ["sea", "number", "38"]
    assert said["path"].endswith("38.png") and "broken" not in said
    assert said["modified"] == "one day" and "latitude" not in said
    facts.get_by_role("button", name="Only keywords: number 38").click()
    settled(page)
    assert asked(page) == {"where": ["array_has(keywords, 'number 38')"]}
    assert [x.inner_text() for x in page.locator(".card-title").all()] == ["photo 38"]
    page.go_back()  # to the viewer
    assert title(page) == "photo 38"
    # every list of texts is one of tags, whatever its name is
    facts.get_by_role("button", name="Only moods: like 38's").click()
    settled(page)
    assert asked(page) == {"where": ["array_has(moods, 'like 38''s')"]}
    assert [x.inner_text() for x in page.locator(".card-title").all()] == ["photo 38"]
    page.go_back()
    assert title(page) == "photo 38"
    page.get_by_role("button", name="19 February 2021, 08:30").click()
    settled(page)
    assert asked(page) == {"from": ["2021-02"]}


def test_back_closes_it_and_an_address_opens_it(visit: Open, album: str) -> None:
    page = visit(album)
    page.get_by_role("button", name="photo 35", exact=True).click()
    assert title(page) == "photo 35"
    page.keyboard.press("ArrowRight")
    api.expect(page.locator("dialog.viewer h2")).to_have_text("photo 34")
    page.go_back()
    api.expect(page.get_by_role("dialog")).to_have_count(0)
    is_at(page, {})
    assert page.locator(".card").count()
    page.go_forward()
    assert title(page) == "photo 34"
    page.reload()
    assert title(page) == "photo 34"
    page.keyboard.press("Escape")
    api.expect(page.get_by_role("dialog")).to_have_count(0)
    # a record that is not on the first page has its neighbours all the same
    records = httpx.get(f"{album}/v1/memory/records", params={"sort": "date", "limit": 40}).json()["data"]
    page = visit(f"{album}/?open={records[35]['id']}")
    assert title(page) == "photo 4"
    page.keyboard.press("ArrowRight")
    api.expect(page.locator("dialog.viewer h2")).to_have_text("photo 3")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    api.expect(page.locator("dialog.viewer h2")).to_have_text("photo 5")
    page.keyboard.press("Escape")
    api.expect(page.get_by_role("dialog")).to_have_count(0)
    is_at(page, {})


def test_an_unknown_record_is_said_in_one_line(visit: Open, url: str) -> None:
    page = visit(f"{url}/?open={'0' * 32}", refused=(404,))
    page.get_by_role("dialog").get_by_text("unknown record").wait_for()
    assert not violations(page)
    page.keyboard.press("Escape")
    api.expect(page.get_by_role("dialog")).to_have_count(0)
    is_at(page, {})
    assert page.locator(".card").count()


def test_neighbours_are_there_before_they_are_asked_for(visit: Open, album: str) -> None:
    page = visit(album)
    page.locator(".picture.there").first.wait_for()
    settled(page)
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    page.get_by_role("button", name="photo 38", exact=True).click()
    assert title(page) == "photo 38"
    page.wait_for_load_state("networkidle")
    assert len({one for one in seen if "preview?size=1024" in one}) == 3


def test_the_focus_stays_in_it(visit: Open, album: str) -> None:
    page = visit(album)
    page.get_by_role("button", name="photo 39", exact=True).click()
    assert title(page) == "photo 39"
    outside = "document.activeElement !== document.body && !document.activeElement.closest('dialog')"
    for _ in range(30):
        page.keyboard.press("Tab")
        assert not page.evaluate(outside)


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)])
def test_it_is_for_everyone(visit: Open, url: str, colours: str, size: tuple[int, int]) -> None:
    page = visit(url, size=size, color_scheme=colours)
    ask(page, "shapes that move")
    for name in (
        "shapes that move",
        "a low tone",
        "<b>call</b> the dentist",
        "the photo number 3 of a red thing",
    ):
        page.get_by_role("button", name=name, exact=True).last.click()
        assert title(page) == name
        page.wait_for_load_state("networkidle")
        assert not violations(page)
        assert page.evaluate("document.querySelector('dialog').scrollWidth <= innerWidth")
        for step in ("Previous", "Next", "Close"):
            api.expect(page.get_by_role("button", name=step, exact=True)).to_be_in_viewport(ratio=1)
        shot(page, f"viewer-{colours}-{size[0]}-{name[-5:]}")
        page.get_by_role("button", name="Close", exact=True).click()
        api.expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_finger_turns_the_page(visit: Open, album: str) -> None:
    page = visit(album, size=(390, 844), has_touch=True, is_mobile=True)
    page.get_by_role("button", name="photo 38", exact=True).click()
    assert title(page) == "photo 38"
    page.evaluate(SWIPE, [300, 120])
    api.expect(page.locator("dialog.viewer h2")).to_have_text("photo 37")
    page.locator("dialog.viewer .picture.there").wait_for()
    page.evaluate(SWIPE, [120, 300])
    api.expect(page.locator("dialog.viewer h2")).to_have_text("photo 38")
    page.evaluate(SWIPE, [120, 140])  # not far enough
    page.wait_for_timeout(200)
    assert title(page) == "photo 38"


def test_arrow_keys_belong_to_a_player_that_has_the_focus(visit: Open, url: str) -> None:
    page = visit(url)
    ask(page, "a low tone")
    page.get_by_role("button", name="a low tone", exact=True).last.click()
    assert title(page) == "a low tone"
    page.locator("dialog audio").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(200)
    assert title(page) == "a low tone"


def test_find_similar_from_a_card_and_from_the_viewer(visit: Open, album: str) -> None:
    page = visit(album)
    page.locator(".picture.there").first.wait_for()
    settled(page)
    card = page.locator(".card", has=page.get_by_role("button", name="photo 25", exact=True))
    card.hover()
    card.get_by_role("button", name="Find similar to photo 25").click()
    page.locator(".likely").first.wait_for()
    settled(page)
    like = asked(page)
    assert set(like) == {"like", "part"} and page.evaluate("scrollY") == 0
    # photo 5 is the same picture, with other words
    assert page.locator(".card-title").first.inner_text() == "photo 5"
    assert page.locator(".chip-name").inner_text().startswith("photo 25")
    page.reload()
    page.locator(".likely").first.wait_for()
    assert page.locator(".card-title").first.inner_text() == "photo 5" and asked(page) == like
    page.locator(".card-title").first.click()
    assert title(page) == "photo 5"
    page.get_by_role("button", name="Find similar", exact=True).click()
    api.expect(page.locator(".chip-name")).to_contain_text("photo 5")
    settled(page)
    assert page.locator(".card-title").first.inner_text() == "photo 25"
    assert page.locator(".chip").count() == 1
    page.go_back()
    assert title(page) == "photo 5"
    page.go_back()
    settled(page)
    assert page.locator(".card-title").first.inner_text() == "photo 5" and asked(page) == like


def test_what_is_forgotten_in_it_leaves_the_list(visit: Open, tmp_path: Path) -> None:
    with serve(Settings(memory_of(tmp_path))) as url:
        page = visit(url)
        page.get_by_role("button", name="a high tone", exact=True).click()
        assert title(page) == "a high tone"
        page.get_by_role("button", name="Forget it").click()
        page.get_by_role("button", name="Yes, forget it").click()
        api.expect(page.get_by_role("dialog")).to_have_count(0)
        api.expect(page.locator("#status")).to_contain_text("10 memories")
        api.expect(page.get_by_role("button", name="a high tone", exact=True)).to_have_count(0)
        is_at(page, {})


def test_a_narrow_window_has_everything_beside_each_other(visit: Open, album: str) -> None:
    page = visit(album, size=(320, 568), has_touch=True, is_mobile=True)
    page.locator(".card-title").first.wait_for()
    boxes = [one.bounding_box() for one in page.locator(".brand, .top .tool:visible").all()]
    assert len(boxes) >= 4 and page.evaluate("document.documentElement.scrollWidth") == 320
    for left, right in itertools.pairwise(boxes):
        assert left["x"] + left["width"] <= right["x"] + 0.5, boxes
    inside = page.locator("#cue-box").bounding_box()
    last = page.locator(".ways .go").bounding_box()
    assert last["x"] + last["width"] <= inside["x"] + inside["width"]
