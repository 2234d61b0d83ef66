"""The contact sheet in a real browser, opened as a file: slider, switches, one picture large, and no request at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.make_dataset import make_dataset
from tests.view.chromium import Page, chromium, needs_chromium
from trackmill.pipeline.inspect import contact_sheet as sheet
from trackmill.pipeline.shards.reader import open_dataset

pytestmark = needs_chromium

EVIL = "<img src=x onerror=window.pwned=1>"
VISIBLE = "[...document.querySelectorAll('{} rect')].filter((r) => r.getClientRects().length).length"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sheet")
    dataset = open_dataset(make_dataset(str(folder / "set"), num_images=7, uri_prefix=EVIL, reason=EVIL).root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sheet, "BEST_BOXES", 1)
        sheet.write_contact_sheet(dataset, str(folder / "sheet.html"))
    return folder / "sheet.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def page(browser: Page, path: Path) -> Iterator[Page]:
    browser.look(1400, 900)
    browser.open(path.as_uri())
    browser.wait("document.documentElement.classList.contains('scripted')")
    yield browser
    assert not browser.problems and browser.run("window.pwned === undefined")
    assert not [url for url in browser.requests if not url.startswith(("file://", "data:image/", "about:"))]


def test_the_slider_shows_more_and_fewer(page: Page) -> None:
    slide = "best.value = {}; best.dispatchEvent(new Event('input'))"
    assert page.run(VISIBLE.format("article .proposals")) == 7 + 8, "one for each picture and frame"
    for best, count, said in ((150, 30, "all"), (0, 0, "0"), (1, 15, "1")):
        page.run(slide.format(best))
        assert page.run(VISIBLE.format("article .proposals")) == count
        assert page.run("document.getElementById('best-said').textContent") == said
    masks = "[...document.querySelectorAll('article .mask')].some((m) => m.getClientRects().length)"
    assert page.run(masks)
    page.run(slide.format(0))
    assert not page.run(masks), "they are those of the best, which are hidden"
    assert page.run(VISIBLE.format("article .objects")) == 30, "annotations are always all there"


def test_a_picture_is_enlarged_by_a_click_and_led_by_keys(page: Page) -> None:
    page.run("document.querySelector('button.enlarge').click()")
    large = "document.querySelector('#stage svg').getBoundingClientRect()"
    assert page.run("document.getElementById('large').open") and page.run(f"{large}.height") > 700
    first = page.run("document.getElementById('large-key').textContent")
    page.press("ArrowRight")
    assert page.run("document.getElementById('large-key').textContent") != first
    page.press("ArrowLeft")
    page.press("ArrowLeft")
    assert page.run("document.getElementById('large-key').textContent") == first
    page.press("Escape")
    page.wait("!document.getElementById('large').open && document.activeElement.className === 'enlarge'")


def test_switches_reach_the_large_picture_too(page: Page) -> None:
    page.run("document.querySelector('button.enlarge').click()")
    assert page.run(VISIBLE.format("#stage .objects")) == 2 and page.run(VISIBLE.format("#stage .refused")) == 0
    page.run("document.getElementById('show-objects').click()")
    assert page.run(VISIBLE.format("#stage .objects")) == 0
    page.run("document.getElementById('show-objects').click()")
    page.press("Escape")


@pytest.mark.parametrize("width", [360, 1400])
def test_the_grid_has_no_holes(page: Page, width: int) -> None:
    """In every line but the last one, cards stand side by side from edge to edge."""
    page.look(width, 900)
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    places = page.run(
        "[...document.querySelectorAll('article')].map((a) => [a.offsetTop, a.offsetLeft, a.offsetWidth, a.className])"
    )
    lines: dict[int, list[list[int]]] = {}
    for top, left, across, _ in places:
        lines.setdefault(top, []).append([left, across])
    filled = {top: sum(across for _, across in line) for top, line in lines.items()}
    assert len(lines) > 2
    assert not [top for top, across in filled.items() if across < max(filled.values()) - 100 and top != max(filled)]


def test_without_scripts_the_best_boxes_are_there(browser: Page, path: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(path.as_uri())
        browser.wait("document.readyState === 'complete' && !document.documentElement.classList.contains('scripted')")
        assert browser.run(VISIBLE.format("article .proposals")) == 15
        assert browser.run("getComputedStyle(document.querySelector('.best')).display") == "none"
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
