"""The gallery as a visitor has it, in a headless Chromium."""

import contextlib
import json
import threading

import chromium
import pytest
from chromium import Chromium
from toy_recommender import ToyRecommender, world

from umair_jax import gallery
from umair_jax.gallery_app.app import make_app

pytestmark = pytest.mark.skipif(chromium.found() is None, reason="there is no chromium here")

QUIET = "!document.querySelector('[aria-busy]')"
PICKS = "[...document.querySelectorAll('#picks .like')].map((button) => button.dataset.id)"
READY = "document.querySelectorAll('#wall .like').length > 0"


@pytest.fixture(scope="module")
def address():
    """A gallery of made-up drawings, served from a thread of this process."""
    listening = gallery.listen("127.0.0.1", 0)
    server = gallery.server_of(make_app(ToyRecommender(world())))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with contextlib.closing(Chromium(tmp_path_factory.mktemp("browser"))) as opened:
        yield opened


@pytest.fixture
def page(browser, address):
    """The gallery, opened anew by somebody who likes nothing; fails on any complaint."""
    browser.look(1280, 900)
    browser.open(address)
    browser.value("localStorage.clear()")
    browser.errors.clear()
    browser.requests.clear()
    browser.open(address)
    browser.wait(READY)
    yield browser
    assert browser.errors == []
    assert browser.requests
    assert [url for url in browser.requests if not url.startswith(address)] == []


def picks(page):
    page.wait(f"document.querySelectorAll('#picks .card').length && {QUIET}")
    return page.value(PICKS)


def like(page, *places):
    """Likes drawings by their places on the wall, as the mouse does."""
    for place in places:
        page.click(f"#wall .card:nth-child({place}) .like")
    page.wait(f"document.querySelectorAll('#liked button').length == {len(places)} && {QUIET}")
    return picks(page)


def focused(page):
    return page.value("document.activeElement.id || document.activeElement.className")


def test_three_are_liked_and_unliked_by_keyboard(page):
    page.press("Tab")
    assert focused(page) == "skip"
    page.press("Enter")
    assert focused(page) == "wall-heading"
    page.press("Tab", "Tab")
    seen = []
    for key in ("Enter", "Space", "Enter"):
        while focused(page) != "like":
            page.press("Tab")
        page.press(key)
        assert page.value("document.activeElement.getAttribute('aria-pressed')") == "true"
        seen.append(picks(page))
        page.press("Tab")
    page.wait("document.querySelectorAll('#liked button').length == 3")
    assert len(picks(page)) == 12
    page.wait("document.querySelector('#said').textContent.startsWith('12 recommendations for 3')")
    first = page.value("document.querySelector('#picks .card').innerText")
    assert "like " in first
    said = page.value("document.querySelector('#picks .bar').getAttribute('aria-label')")
    assert said == "Weights: tags, artist, popularity 10 %; content 20 %; style 30 %; text 40 %"

    page.value("document.querySelector('#liked button').focus()")
    page.press("Enter")
    page.wait("document.querySelectorAll('#liked button').length == 2")
    assert page.value("document.activeElement.closest('#liked') !== null")
    assert page.value("document.querySelectorAll('#wall [aria-pressed=true]').length") == 2


def test_the_slider_and_the_switches_change_the_list(page):
    before = like(page, 2, 5)
    for name, keys in (("balance", ["Right"] * 4), ("variety", ["Space"]), ("single", ["Space"])):
        page.value(f"document.querySelector('#{name}').focus()")
        page.press(*keys)
        same = json.dumps(before, separators=(",", ":"))
        page.wait(f"JSON.stringify({PICKS}) !== {same!r} && {QUIET}")
        before = picks(page)
    said = page.value("document.querySelector('#balance').getAttribute('aria-valuetext')")
    assert said == "100 % towards style"
    artists = page.value(
        "[...document.querySelectorAll('#picks .artist')].map((e) => e.textContent).filter(Boolean)"
    )
    assert len(artists) == len(set(artists)) > 0


def test_a_reload_keeps_likes_and_settings(page, address):
    before = like(page, 1, 4, 6)
    page.value("document.querySelector('#variety').focus()")
    page.press("Space")
    same = json.dumps(before, separators=(",", ":"))
    page.wait(f"JSON.stringify({PICKS}) !== {same!r} && {QUIET}")
    varied = picks(page)
    page.open(address)
    page.wait("document.querySelectorAll('#liked button').length == 3")
    assert picks(page) == varied != before
    assert page.value("document.querySelector('#variety').checked")
    page.click("#clear")
    page.wait("document.querySelectorAll('#liked button, #picks .card').length == 0")
    page.open(address)
    page.wait(READY)
    assert page.value("document.querySelectorAll('#liked button').length") == 0


def test_likes_that_left_the_catalogue_are_dropped(page, address):
    like(page, 3)
    page.value(
        "(() => { const key = localStorage.key(0); const kept = JSON.parse(localStorage[key]); "
        "kept.likes.push('gone'); localStorage[key] = JSON.stringify(kept); })()"
    )
    page.open(address)
    assert picks(page)
    assert page.value("document.querySelector('#trouble').textContent").startswith("1 liked")
    assert page.value("document.querySelectorAll('#liked button').length") == 1
    # The browser itself reports the answer 400, and nothing else.
    assert all("400" in error for error in page.errors)
    page.errors.clear()


def test_more_in_this_style_and_back(page):
    title = page.value("document.querySelector('#wall .card:nth-child(3) .title').textContent")
    page.value("document.querySelector('#wall .card:nth-child(3) .acts .m-style').focus()")
    page.press("Enter")
    page.wait(f"document.querySelector('#wall-heading').textContent.includes({title!r})")
    assert page.value("document.querySelector('#wall-heading').textContent").startswith(
        "In the style of"
    )
    assert focused(page) == "wall-heading"
    assert page.value("document.querySelectorAll('#wall .card').length") == 61
    page.click("#wall .card:nth-child(2) .acts .m-content")
    page.wait("document.querySelector('#wall-heading').textContent.startsWith('With the content')")
    page.click("#back")
    page.wait("document.querySelector('#wall-heading').textContent === 'All 150 drawings'")


def test_a_search_and_more_pages(page):
    page.click("#query")
    page.send("Input.insertText", text="no such words")
    page.wait("!document.querySelector('#wall-empty').hidden")
    page.value("document.querySelector('#query').value = ''")
    page.click("#query")
    page.send("Input.insertText", text="title 3")
    page.wait("document.querySelector('#wall-heading').textContent.includes('“title 3”')")
    titles = page.value("[...document.querySelectorAll('#wall .title')].map((e) => e.textContent)")
    assert titles
    page.click("#back")
    page.wait("document.querySelectorAll('#wall .card').length >= 60")
    page.value("document.querySelector('#more').scrollIntoView()")
    page.wait("document.querySelectorAll('#wall .card').length == 120")


def test_a_phone_shows_one_part_at_a_time_without_scrolling_sideways(page):
    like(page, 1, 2)
    for width in (320, 390, 700):
        page.look(width, 800, phone=True)
        for part in ("picks", "wall"):
            page.click(f".tabs [data-part={part}]")
            shown = "[...document.querySelectorAll('main > section')].map((e) => e.offsetWidth > 0)"
            assert page.value(shown) == [part == "wall", part == "picks"]
            page.wait(f"document.documentElement.scrollWidth <= {width}")
    page.click("#wall .card:nth-child(4) .like")
    page.wait("document.querySelector('#count').textContent === '3'")
    small = page.value(
        "[...document.querySelectorAll('button')].filter((e) => e.offsetWidth && "
        "(e.offsetHeight < 24 || e.offsetWidth < 24)).length"
    )
    assert small == 0


def luminance(page, selector, colour):
    values = page.value(
        f"getComputedStyle(document.querySelector('{selector}')).{colour}.match(/[0-9.]+/g)"
    )
    linear = [
        v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4
        for v in (float(value) / 255 for value in values[:3])
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(page, scheme):
    page.look(1280, 900, scheme)
    like(page, 1)
    paper = luminance(page, "body", "backgroundColor")
    assert (paper < 0.05) is (scheme == "dark")
    for selector in ("h1", "#wall .artist", ".because span", ".legend li", ".acts", "#clear"):
        ink = luminance(page, selector, "color")
        ratio = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
        assert ratio >= 4.5, selector
    marked = luminance(page, ".bar .m-content", "backgroundColor")
    on_it = luminance(page, ".bar .m-content", "color")
    assert (max(marked, on_it) + 0.05) / (min(marked, on_it) + 0.05) >= 4.5


def test_everything_has_a_name_and_nothing_moves_for_those_who_ask(page):
    like(page, 1)
    nameless = page.value(
        "[...document.querySelectorAll('button, input')].filter((e) => e.offsetWidth && !("
        "e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length || "
        "e.querySelector('img[alt]:not([alt=\"\"])'))).length"
    )
    assert nameless == 0
    assert page.value("[...document.images].every((image) => image.hasAttribute('alt'))")
    assert page.value("getComputedStyle(document.querySelector('#simulated')).display") == "block"
    page.send(
        "Emulation.setEmulatedMedia",
        features=[{"name": "prefers-reduced-motion", "value": "reduce"}],
    )
    moving = page.value(
        "[...document.querySelectorAll('*')].filter((e) => { const s = getComputedStyle(e); "
        "return s.animationName !== 'none' || s.transitionDuration !== '0s'; }).length"
    )
    assert moving == 0
