"""The viewer's page where little is there, where something is damaged, and when people are quick."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.make_dataset import DOCUMENT, make_dataset, make_item, make_row
from tests.view.chromium import Page, chromium, needs_chromium
from tests.view.served import Served, served
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.manifest import write_manifest
from trackmill.pipeline.shards.receipts import write_receipt
from trackmill.pipeline.storage.documents import publish_document

pytestmark = needs_chromium

CARDS = "!$('results').hasAttribute('aria-busy') && document.querySelectorAll('.card').length === {}"
PRESS = "$('stage').dispatchEvent(new KeyboardEvent('keydown', {{key: '{}', bubbles: true}}));"
EMPTY = "$('grid').checkVisibility() && document.querySelector('#grid .empty')?.textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("browser")) as page:
        page.look(1200, 900)
        yield page


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = str(tmp_path_factory.mktemp("edges") / "set")
    make_dataset(root, num_images=30, num_frames=2)
    with served(root) as running:
        yield running


@contextlib.contextmanager
def opened(browser: Page, view: Served, cards: int) -> Iterator[Page]:
    """The page anew, with so many cards; nothing goes wrong in it."""
    browser.open("about:blank")
    browser.problems.clear()
    browser.requests.clear()
    browser.open(view.url)
    browser.wait(f"!!about && {CARDS.format(cards)}")
    yield browser
    assert not browser.problems


def test_damage_stays_to_be_seen(browser: Page, tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path))
    Path(layout.receipt("part-00000001.parquet")).write_bytes(b"PAR1 nothing PAR1")
    said = "!$('fault').hidden && $('fault').textContent.startsWith('1 receipt cannot be read: ')"
    with served(layout.root) as view, opened(browser, view, 4) as page:
        assert page.run(f"{said} && $('fault').textContent.includes('part-00000001.parquet')")
        page.run("go({text: 'pic2'})")
        page.wait(CARDS.format(1))
        assert page.run(said), "also after another search"


def test_filters_that_are_hidden_decide_nothing(browser: Page, view: Served) -> None:
    rows, tab = "document.querySelectorAll('#aside-rows tbody tr').length", "[name=status][value={}]"
    with opened(browser, view, 24) as page:
        page.run("go({min_objects: 3})")
        page.wait(CARDS.format(1))
        for status in ("quarantined", "skipped"):
            page.run(f"document.querySelector('{tab.format(status)}').click()")
            page.wait(f"address().status === '{status}' && !$('aside-rows').hidden && {rows} === 1")
            page.run("document.querySelector('[name=reason]').value = 'TruncatedMedia'; filtersChanged()")
            page.wait(f"address().reason === 'TruncatedMedia' && {CARDS.format(0)}")
            page.wait(f"{rows} === 1")
        asked = [url for url in page.requests if "api/rows" in url]
        assert not [url for url in asked if "status=ok" not in url and "min_objects" in url]
        assert not [url for url in asked if "status=skipped" in url and "reason" in url]
        page.run(f"document.querySelector('{tab.format('ok')}').click()")
        page.wait(CARDS.format(1))
        assert page.run("document.querySelector('[name=min_objects]').value") == "3", "it is there again with its field"


def test_no_step_is_lost_when_keys_are_pressed_quickly(browser: Page, view: Served) -> None:
    keys = [row["key"] for row in view.rows(count=31)]
    shown = "zoom.sample?.key === '{0}' && $('zoom-key').textContent === '{0}' && page.begin === {1}"
    with opened(browser, view, 24) as page:
        page.run("document.querySelectorAll('.card')[10].click()")
        page.wait(shown.format(keys[10], 0))
        page.run(PRESS.format("ArrowRight") * 3)
        page.wait(shown.format(keys[13], 0))
        page.run(PRESS.format("ArrowRight") * 15)
        page.wait(shown.format(keys[28], 24))
        page.run(PRESS.format("ArrowLeft") * 7)
        page.wait(shown.format(keys[21], 0))
        page.run(PRESS.format("ArrowRight") * 20)
        page.wait(shown.format(keys[30], 24))  # the last one


def test_a_step_that_is_taken_back_leaves_no_trace(browser: Page, view: Served) -> None:
    keys = [row["key"] for row in view.rows()]
    with opened(browser, view, 24) as page:
        page.run("document.querySelector('.card').click()")
        page.wait(f"zoom.sample?.key === '{keys[0]}'")
        on = "new Promise((done) => addEventListener('hashchange', () => setTimeout(done), {once: true}))"
        page.run(f"(async () => {{ {PRESS.format('ArrowRight')} await {on}; {PRESS.format('ArrowLeft')} }})()")
        page.wait(f"address().key === '{keys[0]}' && $('zoom-key').textContent === '{keys[0]}'")
        assert page.run("zoom.sample.key") == keys[0]
        page.run("enlarge('images-none-0', -1)")  # what an older step asked for, and is not there
        assert page.run(f"zoom.sample?.key === '{keys[0]}' && !!$('stage').firstChild && $('zoom-fault').hidden")
        browser.problems[:] = [problem for problem in browser.problems if "404" not in problem]


def test_steps_end_when_the_sample_is_closed(browser: Page, view: Served) -> None:
    with opened(browser, view, 24) as page:
        page.run("document.querySelectorAll('.card')[23].click()")
        page.wait("zoom.sample !== null")
        page.run(PRESS.format("ArrowRight") * 3 + "$('zoom').close()")
        closed = "!$('zoom').open && !address().key && page.begin === 0"
        page.wait(f"moved.then(() => {closed})")  # the page that a step had fetched goes back
        page.wait("new Promise((done) => setTimeout(() => done(true), 300))")
        assert page.run(closed)


def test_a_data_set_without_samples_says_so(browser: Page, tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / "set"))
    publish_document(layout.config, DOCUMENT)
    with served(layout.root) as view, opened(browser, view, 0) as page:
        assert page.run(EMPTY) == "No sample is there yet."
        failure = {"status": "quarantined", "reason": "?", "error_class": "BadItem"}
        write_receipt(layout, 0, [make_row(make_item("images", "x"), 0, 0, **failure)], [], "f" * 16)
        write_manifest(layout)
        page.run("$('again').click()")
        page.wait(f"!about.going && ({EMPTY}) === 'No sample is stored here.'")
        page.run("go({status: 'skipped'})")
        page.wait(f"({EMPTY}) === 'Nothing was skipped.'")
        page.run("go({status: 'quarantined'})")
        page.wait("document.querySelectorAll('#aside-rows tbody tr').length === 1 && $('grid').hidden")
        page.run("go({text: 'nobody'})")
        page.wait(f"({EMPTY}) === 'Nothing passes these filters.'")


def test_a_page_behind_the_last_one_and_tars_alone(browser: Page, view: Served) -> None:
    with opened(browser, view, 24) as page:
        page.run("go({begin: 480})")
        page.wait(f"({EMPTY}) === 'This page lies behind the last one; there are 31 in all.'")
    with served(f"{view.data._url}/shards") as alone, opened(browser, alone, 24) as page:
        page.run("go({status: 'quarantined'})")
        page.wait(f"({EMPTY}) === 'What was set aside stands in receipts, and there are none here.'")
