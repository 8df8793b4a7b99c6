"""The page in a real browser, over a real server on loopback. Screenshots go to ``build/page``."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harmonia.generators import ConditionConfig, Facts, save_generator
from harmonia.generators.diffusion.model import Diffusion, DiffusionConfig
from harmonia.pretrained.loading import load_encoders
from harmonia.server.app import PAGE
from harmonia.server.keys import new_key
from harmonia.server.settings import Settings
from tests.browser import Open, ask, drop, settled, shot, violations
from tests.media import scene
from tests.serving import memory_of, serve

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator that was taught nothing: its pictures are noise, and marked as generated all the same."""
    encoder = next(e for e in load_encoders(("mini",)) if e.modality == "image")
    config = DiffusionConfig(
        shape=(3, 16, 16),
        channels=(1, 1),
        condition=ConditionConfig(code=encoder.dim),
        sampler="euler",
        steps=2,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("generator") / "noise"
    save_generator(folder, Diffusion(config), facts=Facts("noise", encoder.space))
    return folder


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, generator: Path) -> Iterator[str]:
    with serve(Settings(memory_of(tmp_path_factory.mktemp("page")), generator=str(generator))) as found:
        yield found


def degraded(tmp_path: Path, seed: int) -> Path:
    """The photo of that number, small and badly compressed."""
    file = tmp_path / "dropped.jpg"
    scene(seed).resize((160, 120)).save(file, quality=40)
    return file


def test_two_cues_bring_the_right_record_first(visit: Open, url: str, tmp_path: Path) -> None:
    page = visit(url)
    page.locator(".card-title").first.wait_for()
    drop(page, "#cue-box", degraded(tmp_path, 4), "image/jpeg")
    ask(page, "a green thing")
    assert page.locator(".chip").count() == 2
    first = page.locator(".card").first
    api.expect(first.locator(".card-title")).to_have_text("the photo number 4 of a green thing")
    assert re.search(r"\d+ %", first.locator(".likely .number").inner_text())
    assert [x.inner_text() for x in first.locator(".share-name").all()] == ["dropped.jpg", "a green thing"]
    assert not violations(page)
    shot(page, "results")
    page.keyboard.press("Tab")
    first.locator(".card-title").focus()
    page.keyboard.press("ArrowRight")
    assert (
        page.evaluate("document.activeElement.closest('.cell').previousElementSibling.previousElementSibling")
        is None
    )
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_text("Why it came back").wait_for()
    assert not violations(page)
    shot(page, "record")
    page.keyboard.press("Escape")
    api.expect(page.get_by_role("dialog")).to_have_count(0)


def test_how_an_answer_came_about(visit: Open, url: str) -> None:
    page = visit(url)
    ask(page, "the low tone")
    page.get_by_role("button", name="How it settled").click()
    page.locator(".landscape img").wait_for()
    api.expect(page.get_by_role("dialog")).to_contain_text("Unrelated cues")
    shot(page, "landscape")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Report").click()
    page.locator(".report").first.wait_for()
    assert not violations(page)
    shot(page, "report")


def test_its_sound_plays(visit: Open, url: str) -> None:
    page = visit(url)
    ask(page, "a low tone")
    card = page.locator(".card", has_text="a low tone").first
    card.locator("audio").click(position={"x": 28, "y": 20})
    played = "Math.max(...[...document.querySelectorAll('audio')].map((one) => one.currentTime))"
    until = time.monotonic() + 60
    # no wait_for_function: the page's policy allows no eval
    while page.evaluate(played) <= 0.1:
        assert time.monotonic() < until, "the sound does not play"
        page.wait_for_timeout(50)


def test_more_like_this_and_not_this(visit: Open, url: str) -> None:
    page = visit(url)
    ask(page, "a blue thing")
    title = page.locator(".card-title").first.inner_text()
    page.get_by_role("button", name=f"More like this: {title}").click()
    settled(page)
    api.expect(page.locator(".chip")).to_have_count(2)
    api.expect(page.get_by_role("button", name=title, exact=True)).to_have_count(0)
    unwanted = page.locator(".card-title").first.inner_text()
    page.get_by_role("button", name=f"Not this: {unwanted}").click()
    settled(page)
    api.expect(page.locator(".chip.against")).to_have_count(1)
    api.expect(page.get_by_role("button", name=unwanted, exact=True)).to_have_count(0)
    shot(page, "not-this")
    for _ in range(3):
        page.locator(".chip").first.get_by_role("button", name="Remove").click()
    settled(page)
    api.expect(page.get_by_role("heading", name="Your memories")).to_be_visible()


def test_filters_and_dials(visit: Open, url: str) -> None:
    page = visit(url)
    ask(page, "a blue thing")
    page.locator("#filters summary").click()
    page.get_by_role("checkbox", name="Sound", exact=True).check()
    settled(page)
    api.expect(page.locator(".card")).to_have_count(3)  # two tones and a film
    page.get_by_role("button", name="Add a condition").click()
    page.get_by_label("Key", exact=True).fill("year")
    page.get_by_label("Value").fill("2021")
    page.keyboard.press("Enter")
    settled(page)
    assert [x.inner_text() for x in page.locator(".card-title").all()] == ["a high tone"]
    assert not violations(page)
    shot(page, "filters")
    with page.expect_request("**/recall") as sent:
        page.get_by_label("Trust in a blue thing").press("ArrowLeft")
    cue = sent.value.post_data_json["cues"][0]
    assert cue["trust"] == pytest.approx(10**0.8) and cue["weight"] == 1
    with page.expect_request("**/recall") as sent:
        page.get_by_label("How a blue thing counts").select_option("counts against")
    assert sent.value.post_data_json["cues"][0]["weight"] == -1


def test_what_is_added_is_found_and_what_is_broken_says_why(
    visit: Open, tmp_path: Path, browser: Any
) -> None:
    photo, broken = tmp_path / "lighthouse.png", tmp_path / "broken.png"
    scene(31).save(photo)
    broken.write_bytes(photo.read_bytes()[:300])
    with serve(Settings(tmp_path / "memory")) as url:
        page = visit(url, refused=(400,))
        page.get_by_text("Drop something here").wait_for()
        assert not violations(page)
        shot(page, "empty")
        drop(page, ".welcome", photo, "image/png")
        row = page.locator(".upload", has_text="lighthouse.png")
        row.get_by_text("remembered", exact=True).wait_for()
        page.locator("dialog input[type=file]").set_input_files(broken)
        reason = page.locator(".upload.failed", has_text="broken.png").locator(".reason")
        assert "damaged" in reason.inner_text()
        page.get_by_label("Words to go with it").fill("<img src=x onerror=alert(1)> a note")
        page.get_by_role("button", name="Remember the words").click()
        page.locator(".upload.done").nth(1).wait_for()
        assert not violations(page)
        shot(page, "adding")
        page.keyboard.press("Escape")
        api.expect(
            page.get_by_role("button", name="<img src=x onerror=alert(1)> a note", exact=True)
        ).to_be_visible()
        assert page.locator(".card img[src=x]").count() == 0
        drop(page, "[data-drop=cue]", photo, "image/png")
        settled(page)
        api.expect(page.locator(".card").first.locator(".card-title")).to_have_text("lighthouse")
        page.locator(".card-title").first.click()
        page.get_by_role("button", name="Forget it").click()
        page.get_by_role("button", name="Yes, forget it").click()
        api.expect(page.get_by_role("button", name="lighthouse", exact=True)).to_have_count(0)


def test_sketch_and_microphone(visit: Open, url: str) -> None:
    page = visit(url)
    page.locator(".card-title").first.wait_for()
    page.keyboard.press("s")
    pad = page.locator("canvas")
    page.get_by_role("radio", name="red").check()
    box = pad.bounding_box()
    page.mouse.move(box["x"] + 90, box["y"] + 90)
    page.mouse.down()
    page.mouse.move(box["x"] + 250, box["y"] + 220, steps=6)
    page.mouse.up()
    pad.focus()
    for key in (" ", "ArrowUp", "ArrowUp", " "):
        page.keyboard.press(key)
    api.expect(page.get_by_text("Pen up, 50 across, 46 down")).to_be_visible()
    assert not violations(page)
    shot(page, "sketch")
    page.get_by_role("button", name="Use the sketch").click()
    settled(page)
    api.expect(page.locator(".chip-name", has_text="sketch")).to_be_visible()
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_role("button", name="Start").click()
    page.get_by_text("Recording, 1 of").wait_for()
    shot(page, "microphone")
    with page.expect_request("**/recall") as sent:
        page.get_by_role("button", name="Stop and use it").click()
    assert base64.b64decode(sent.value.post_data_json["cues"][1]["audio"].partition(",")[2])[:4] == b"RIFF"
    settled(page)
    assert page.locator(".card").count() > 0


def test_the_imagined_is_marked(visit: Open, url: str, tmp_path: Path) -> None:
    page = visit(url)
    page.locator(".card-title").first.wait_for()
    drop(page, "#cue-box", degraded(tmp_path, 2), "image/jpeg")
    ask(page, "a blue thing")
    page.get_by_role("button", name="Imagine a picture").click()
    dialog = page.get_by_role("dialog")
    dialog.locator(".generated img, .absent").first.wait_for()
    api.expect(dialog).to_contain_text("Generated, not remembered")
    api.expect(dialog.locator("figcaption").first).to_have_text("Generated")
    api.expect(dialog.locator(".sources li").first).to_be_visible()
    assert not violations(page)
    shot(page, "imagined")


def test_nothing_that_matches_is_said_plainly(visit: Open, url: str) -> None:
    page = visit(url)
    ask(page, "zqxv")
    api.expect(page.locator(".abstained")).to_contain_text("Nothing here matches.")
    shot(page, "abstained")


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_on_a_phone(visit: Open, url: str, colours: str) -> None:
    page = visit(url, size=(360, 740), color_scheme=colours, has_touch=True, is_mobile=True)
    ask(page, "the photo number 2 of a blue thing")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert not violations(page)
    shot(page, f"phone-{colours}")
    page.locator(".card-title").first.click()
    page.locator("dialog .facts").first.wait_for()
    assert page.evaluate("document.querySelector('dialog').scrollWidth <= 360")
    shot(page, f"phone-record-{colours}")


def test_dark_and_a_chosen_theme(visit: Open, url: str) -> None:
    page = visit(url, color_scheme="dark")
    ask(page, "a blue thing")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(ground)
    assert not violations(page)
    shot(page, "dark")
    page.locator("#theme").click()  # as the system -> light
    assert page.evaluate(ground) != dark
    page.reload()
    assert page.evaluate(ground) != dark


def test_a_locked_memory_asks_for_its_key(visit: Open, tmp_path: Path) -> None:
    secret = new_key(tmp_path / "keys.json", "page", "write")
    with serve(Settings(memory_of(tmp_path), keys=tmp_path / "keys.json")) as url:
        page = visit(url, refused=(401,))
        page.get_by_label("API key of this server").fill("hm-wrong")
        page.keyboard.press("Enter")
        page.get_by_text("The server does not know this key.").wait_for()
        assert not violations(page)
        shot(page, "key")
        page.get_by_label("API key of this server").fill(secret)
        page.keyboard.press("Enter")
        page.locator(".picture.there").first.wait_for()
        page.get_by_role("button", name="Load the sound").first.click()
        page.locator("audio").first.wait_for()
        assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 1]


def test_the_page_never_makes_html_of_text() -> None:
    files = [*PAGE.glob("*.js"), *PAGE.glob("*.css"), PAGE / "index.html"]
    assert len(files) > 15
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text
        ), file
        assert "://" not in text.replace("http://www.w3.org/2000/svg", ""), file
        assert len(text.splitlines()) <= 300, file
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\son\w+=|style=|<style|<script(?! src)", page)
