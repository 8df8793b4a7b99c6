"""The page's list and addresses in a real browser: history, endless lists, the timeline, chips, selection."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from harmonia.collection.collection import Memory
from harmonia.server.settings import Settings
from tests.browser import Open, ask, drop, settled, shot, violations
from tests.media import make_photo, scene
from tests.serving import memory_of, serve

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

MANY = 500
CAMERAS = ("Pixel 7", "O'Hara's 6x6")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A memory of 500 records over four years: every 25th is a photo, the others are notes."""
    folder = tmp_path_factory.mktemp("many")
    rows: list[dict[str, Any]] = []
    for number in range(MANY):
        year, month, day = 2016 + number // 12 % 4, 1 + number % 12, 1 + number % 28
        row: dict[str, Any] = {
            "caption": f"memory number {number}",
            "taken": f"{year}-{month:02}-{day:02}T10:00:00",
            "year": year,
        }
        if number % 25 == 0:
            make_photo(folder / f"photo-{number}.png", seed=number, size=(96, 64))
            row["image"] = f"photo-{number}.png"
            row |= {"camera": CAMERAS[number % 2], "keywords": ["sea", f"place {number % 3}"]}
        else:
            row["text"] = row.pop("caption")
        rows.append(row)
    manifest = folder / "many.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    report = Memory(folder / "memory").remember(manifest, copy=True, threads=1)
    assert report.remembered == MANY, report
    with serve(Settings(folder / "memory")) as url:
        yield url


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(Settings(memory_of(tmp_path_factory.mktemp("list")))) as found:
        yield found


def titles(page: Any) -> list[str]:
    return [str(one.inner_text()) for one in page.locator(".card-title").all()]


def asked(page: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def ids(page: Any) -> list[str]:
    found: list[str] = page.evaluate("[...document.querySelectorAll('.cell')].map((cell) => cell.dataset.id)")
    return found


def listed(url: str, **query: Any) -> list[str]:
    found = httpx.get(f"{url}/v1/memory/records", params={"limit": 1000, "sort": "date", **query}, timeout=60)
    assert found.status_code == 200, found.text
    return [record["id"] for record in found.json()["data"]]


def to_the_end(page: Any) -> None:
    for _ in range(400):
        page.mouse.wheel(0, 2500)
        page.wait_for_timeout(40)
        if page.get_by_text(re.compile("^That is all")).count():
            return
    raise AssertionError("the list has no end")


def test_every_search_has_an_address(visit: Open, url: str) -> None:
    page = visit(url)
    page.locator(".card-title").first.wait_for()
    assert asked(page) == {}
    ask(page, "a blue thing")
    assert asked(page) == {"q": ["a blue thing"]}
    blue = titles(page)
    ask(page, "number 2")
    assert asked(page) == {"q": ["a blue thing", "number 2"]}
    both = titles(page)
    page.locator("#filters summary").click()
    page.get_by_role("checkbox", name="Sound", exact=True).check()
    settled(page)
    assert asked(page) == {"q": ["a blue thing", "number 2"], "has": ["audio"]}
    sounds = titles(page)
    assert len(sounds) == 3
    for expected in (both, blue):
        page.go_back()
        settled(page)
        assert titles(page) == expected
    page.go_back()
    settled(page)
    api.expect(page.get_by_role("heading", name="Your memories")).to_be_visible()
    assert page.locator(".chip").count() == 0
    for expected in (blue, both, sounds):
        page.go_forward()
        settled(page)
        assert titles(page) == expected
    page.reload()
    page.locator(".likely").first.wait_for()
    assert titles(page) == sounds
    assert page.locator(".chip").count() == 2 and page.locator(".set").count() == 1
    assert titles(shared := visit(page.url)) == sounds or (settled(shared) or titles(shared) == sounds)


def test_dials_are_in_the_address(visit: Open, url: str) -> None:
    page = visit(url)
    ask(page, "a blue thing")
    entries = page.evaluate("history.length")
    slider = page.get_by_label("Trust in a blue thing")
    slider.press("ArrowLeft")
    slider.press("ArrowLeft")
    page.get_by_label("How a blue thing counts").select_option("counts double")
    settled(page)
    assert asked(page) == {"q": ["a blue thing"], "weight": ["2"], "trust": ["8"]}
    assert page.evaluate("history.length") == entries  # dials make no entries
    with page.expect_request("**/recall") as sent:
        page.reload()
    cue = sent.value.post_data_json["cues"][0]
    assert cue["weight"] == 2 and cue["trust"] == pytest.approx(10**0.6)


@pytest.mark.parametrize(
    "query",
    [
        "?like=zzz&part=-1&weight=x&trust=99&k=7&sort=colour&from=abc&open=1&has=smell&q=&q=%20&unknown=1",
        "?part=3&weight=2&trust=1&k=&open=&where=",
        "?q=%FF%FE&k=1e9&from=9999-99",
    ],
)
def test_an_address_that_says_nonsense_opens_the_page(visit: Open, url: str, query: str) -> None:
    page = visit(f"{url}/{query}")
    page.locator(".card-title").first.wait_for()
    settled(page)
    assert page.locator(".failed").count() == 0 and page.get_by_role("dialog").count() == 0


def test_back_brings_a_file_again_and_a_reload_says_that_it_is_lost(
    visit: Open, url: str, tmp_path: Path
) -> None:
    page = visit(url)
    page.locator(".card-title").first.wait_for()
    photo = tmp_path / "dropped.png"
    scene(4).save(photo)
    drop(page, "#cue-box", photo, "image/png")
    page.locator(".likely").first.wait_for()
    settled(page)
    first = titles(page)
    assert first[0] == "the photo number 4 of a green thing" and asked(page) == {}
    ask(page, "the low tone")
    page.go_back()
    settled(page)
    assert titles(page) == first and page.locator(".chip-name").inner_text().startswith("dropped.png")
    page.reload()
    page.get_by_text("“dropped.png” is not part of the address").wait_for()


def test_500_records_come_by_scrolling_once_each(visit: Open, many: str) -> None:
    page = visit(many)
    page.locator(".card-title").first.wait_for()
    api.expect(page.locator("#status")).to_contain_text("500 memories, the latest first")
    most = 0
    for _ in range(400):
        page.mouse.wheel(0, 2500)
        page.wait_for_timeout(40)
        most = max(most, page.locator(".card").count())
        if page.get_by_text("That is all: 500 memories.").count():
            break
    assert ids(page) == listed(many)
    assert most < 200, "cards that are far from the window are emptied"
    headings = [x.inner_text() for x in page.locator(".month").all()]
    assert len(headings) == len(set(headings)) == 48
    assert headings[0] == "December 2019" and headings[-1] == "January 2016"
    page.evaluate("scrollTo(0, 0)")
    api.expect(page.locator(".cell").first.locator(".card-title")).to_be_visible()


def test_an_answer_goes_on_by_scrolling(visit: Open, many: str) -> None:
    page = visit(f"{many}/?q=memory+number+7&k=12")
    page.locator(".likely").first.wait_for()
    settled(page)
    first = ids(page)
    to_the_end(page)
    found = ids(page)
    assert found[: len(first)] == first
    assert len(found) == len(set(found)) == MANY


def test_the_timeline_jumps(visit: Open, many: str) -> None:
    page = visit(many)
    page.locator("#timeline button").first.wait_for()
    counts = [int(x.inner_text()) for x in page.locator("#timeline .number").all()]
    assert len(counts) == 48 and sum(counts) == MANY
    shot(page, "timeline")
    assert not violations(page)
    page.get_by_role("button", name=re.compile("^July 2017: ")).click()
    settled(page)
    assert asked(page) == {"from": ["2017-07"]}
    api.expect(page.locator(".month").first).to_have_text("July 2017")
    all_ids = listed(many)
    begin = all_ids.index(page.locator(".cell").first.get_attribute("data-id"))
    assert 0 < begin < MANY
    api.expect(
        page.get_by_role("button", name=re.compile("^July 2017: ")).and_(page.locator("[aria-current=true]"))
    ).to_be_visible()
    page.get_by_role("button", name="Show newer ones").click()
    page.wait_for_timeout(300)
    found = ids(page)
    assert found == all_ids[begin - 24 : begin - 24 + len(found)]
    page.reload()
    settled(page)
    api.expect(page.locator(".month").first).to_have_text("July 2017")
    page.go_back()
    settled(page)
    api.expect(page.locator(".month").first).to_have_text("December 2019")


def test_chips_narrow_the_list(visit: Open, many: str) -> None:
    sea, hara = "array_has(keywords, 'sea')", "camera = 'O''Hara''s 6x6'"
    page = visit(f"{many}/?has=image")
    page.locator(".card-title").first.wait_for()
    settled(page)
    to_the_end(page)
    assert ids(page) == listed(many, where=sea)
    page.evaluate("scrollTo(0, 0)")
    page.locator(".card").first.get_by_role("button", name="Only keywords: sea").click()
    settled(page)
    assert asked(page) == {"has": ["image"], "where": [sea]}
    page.get_by_role("button", name="Remove the filter has: picture").click()
    settled(page)
    assert asked(page) == {"where": [sea]} and ids(page) == listed(many, where=sea)
    assert len(ids(page)) == 20
    page.locator("#filters summary").click()
    page.locator("#filter-form").get_by_role("button", name="Only camera: O'Hara's 6x6").click()
    settled(page)
    assert asked(page) == {"where": [sea, hara]}
    assert ids(page) == listed(many, where=hara) and len(ids(page)) == 10
    shown = [x.inner_text() for x in page.locator(".set > span").all()]
    assert shown == ["keywords: sea", "camera: O'Hara's 6x6"]
    assert not violations(page)
    shot(page, "chips")
    chip = page.locator("#filter-form").get_by_role("button", name=re.compile("^Only year: ")).first
    year = f"year = {chip.get_attribute('aria-label').split()[-1]}"
    chip.click()
    settled(page)
    assert ids(page) == listed(many, where=f"{hara} AND {year}") and ids(page)
    page.get_by_role("button", name="Remove the filter camera: O'Hara's 6x6").click()
    settled(page)
    assert asked(page)["where"] == [sea, year]
    page.go_back()
    settled(page)
    assert len(page.locator(".set").all()) == 3
    # a filter narrows an answer too
    ask(page, "memory number 25")
    assert ids(page) and set(ids(page)) <= set(listed(many, where=f"{hara} AND {year}"))


def test_what_the_server_refuses_is_one_line(visit: Open, url: str) -> None:
    page = visit(f"{url}/?where=colour+%3D+1", refused=(400,))
    line = page.locator(".failed span").first
    line.wait_for()
    assert "metadata columns are" in line.inner_text() and "\n" not in line.inner_text()
    assert not violations(page)
    page.get_by_role("button", name="Remove the filter colour: 1").click()
    page.locator(".card-title").first.wait_for()
    assert page.locator(".failed").count() == 0


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, "<html>a proxy</html>"),
        (200, ""),
        (502, "<html>bad\ngateway</html>"),
        (500, '{"error": {"message": 5}}'),
        (503, '{"error": {"message": "busy:\\n  come\\n  again"}}'),
    ],
)
def test_a_broken_answer_is_one_line(visit: Open, url: str, status: int, body: str) -> None:
    page = visit(url, refused=(500, 502, 503))
    page.locator(".card-title").first.wait_for()
    page.route("**/v1/memory/recall", lambda route: route.fulfill(status=status, body=body))
    page.get_by_label("Words to recall by").fill("a blue thing")
    page.keyboard.press("Enter")
    line = page.locator(".failed span").first
    line.wait_for()
    text = line.inner_text()
    assert text and "\n" not in text and "undefined" not in text and "<" not in text
    page.unroute("**/v1/memory/recall")
    page.get_by_role("button", name="Try again").click()
    page.locator(".likely").first.wait_for()


def test_several_are_selected_and_forgotten(visit: Open, tmp_path: Path) -> None:
    with serve(Settings(memory_of(tmp_path))) as url:
        page = visit(url)
        page.locator(".card-title").first.wait_for()
        settled(page)
        bar = page.get_by_role("region", name="Selection")
        boxes = page.locator(".select")
        order = titles(page)
        boxes.nth(1).check()
        boxes.nth(4).click(modifiers=["Shift"])
        api.expect(bar).to_contain_text("4 selected")
        assert [n for n in range(len(order)) if boxes.nth(n).is_checked()] == [1, 2, 3, 4]
        boxes.nth(2).uncheck()
        api.expect(bar).to_contain_text("3 selected")
        assert not violations(page)
        shot(page, "selection")
        page.keyboard.press("Escape")
        api.expect(bar).to_be_hidden()
        assert page.locator(".select:checked").count() == 0
        page.keyboard.press("e")
        api.expect(bar).to_contain_text("11 selected")
        with page.expect_download() as saved:
            bar.get_by_role("button", name="List of paths").click()
        lines = Path(saved.value.path()).read_text(encoding="utf-8").splitlines()
        # the two notes are of one manifest
        assert len(lines) == len(set(lines)) == 10 and all(Path(line).is_absolute() for line in lines)
        api.expect(bar).to_contain_text("10 paths saved.")
        bar.get_by_role("button", name="Clear the selection").click()
        boxes.nth(0).check()
        boxes.nth(3).check()
        bar.get_by_role("button", name="Forget").click()
        api.expect(bar).to_contain_text("Forget 2 memories? This cannot be undone.")
        bar.get_by_role("button", name="Keep them").click()
        assert len(listed(url)) == 11
        bar.get_by_role("button", name="Forget").click()
        bar.get_by_role("button", name="Yes, forget 2 memories").click()
        api.expect(page.locator("#status")).to_contain_text("9 memories")
        api.expect(bar).to_be_hidden()
        assert titles(page) == [title for n, title in enumerate(order) if n not in (0, 3)]
        assert len(listed(url)) == 9


def test_recall_by_several(visit: Open, url: str) -> None:
    page = visit(url)
    page.locator(".card-title").first.wait_for()
    settled(page)
    for title in ("the photo number 1 of a green thing", "a low tone"):
        page.get_by_role("checkbox", name=f"Select {title}").check()
    page.get_by_role("region", name="Selection").get_by_role("button", name="Find similar").click()
    page.locator(".likely").first.wait_for()
    settled(page)
    assert len(asked(page)["like"]) == 2
    assert sorted(x.inner_text().split("\n")[0] for x in page.locator(".chip-name").all()) == [
        "a low tone", "the photo number 1 of a green thing",
    ]  # fmt: skip
    page.reload()
    page.locator(".likely").first.wait_for()
    assert [x.inner_text().split("\n")[0] for x in page.locator(".chip-name").all()] == [
        "the photo number 1 of a green thing", "a low tone",
    ]  # fmt: skip


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("buy milk and bread", "Most likely “buy milk and bread” (a note, "),
        ("the photo number 2 of a blue thing", "Most likely “the photo number 2"),
        ("a zebu beside the quarterly tax returns", ""),
    ],
)
def test_the_answer_is_above_the_fold_on_a_phone(
    visit: Open, url: str, colours: str, question: str, answer: str
) -> None:
    page = visit(url, size=(390, 844), color_scheme=colours, has_touch=True, is_mobile=True)
    page.locator(".card-title").first.wait_for()
    ask(page, question)
    page.locator(".picture.there").first.wait_for()
    assert page.evaluate("scrollY") == 0
    said = page.locator("#answer, .abstained").locator("visible=true")
    assert said.inner_text().startswith(answer or "Nothing here matches.")
    box = said.bounding_box()
    assert box["y"] + box["height"] < 844 * 0.6
    for number in (0, 1):
        card = page.locator(".card").nth(number)
        for part in (".picture, .card-text", ".card-title"):
            box = card.locator(part).first.bounding_box()
            assert box["y"] >= 0 and box["y"] + box["height"] <= 844, part
    assert not violations(page)
    shot(page, f"fold-{colours}-{question[:3]}")
    # far down, a new question begins at the top again
    page.evaluate("scrollTo(0, 3000)")
    assert page.evaluate("scrollY") > 500
    page.get_by_label("Words to recall by").fill("tone")
    page.keyboard.press("Enter")
    settled(page)
    assert page.evaluate("scrollY") == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 390
