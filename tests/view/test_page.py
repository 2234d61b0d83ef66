"""The viewer's page in a real browser: what is drawn, what switches, keys and names do, and what never happens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.make_dataset import make_dataset
from tests.view.chromium import Page, chromium, needs_chromium
from tests.view.served import Served, served
from trackmill.pipeline.media.drawing.palette import css, identity_colour
from trackmill.pipeline.shards.reader import open_dataset, read_sample
from trackmill.pipeline.sidecars.run import make_sidecar
from trackmill.schemas.masks import parse_counts

pytestmark = needs_chromium

EVIL = "<img src=x onerror=window.pwned=1>"
BOXES = "document.querySelectorAll('.card svg rect.box').length"


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = str(tmp_path_factory.mktemp("page") / "set")
    make_dataset(root, num_images=30, num_frames=6, uri_prefix=f"/raw/{EVIL}", reason=f"{EVIL} is cut off")
    make_sidecar(root, "chains", settings={"min_iou": 0.1})
    with served(root) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def page(browser: Page, view: Served) -> Iterator[Page]:
    """The page as it is opened; afterwards: nothing went wrong in it, and nothing was asked of anybody else."""
    browser.problems.clear()
    browser.requests.clear()
    browser.look(1400, 3000)  # all cards are in view, so all are loaded
    browser.open("about:blank")  # another address behind `#` alone would not load it anew
    browser.open(view.url)
    browser.wait("document.querySelectorAll('.card .objects rect').length === 48")
    yield browser
    assert not browser.problems
    assert not [url for url in browser.requests if not url.startswith((view.url, "about:"))]
    assert browser.run("window.pwned === undefined && !document.querySelector('img[src=x]')")


def pictures(page: Page) -> int:
    return sum("api/frame" in url for url in page.requests)


def enlarge(page: Page) -> None:
    """Open the first sample, and wait for its boxes."""
    page.run("document.querySelector('.card').click()")
    page.wait("!!document.querySelector('#zoom[open] #stage rect.box')")


def test_cards_show_samples_with_their_boxes(page: Page, view: Served) -> None:
    keys = page.run("[...document.querySelectorAll('.card .key')].map((e) => e.textContent)")
    assert keys == [row["key"] for row in view.rows()]
    record = read_sample(open_dataset(view.data._url), keys[0]).record
    objects = record.frames[0].objects
    assert objects is not None
    card = "document.querySelector('.card svg')"
    drawn = page.run(
        f"[...{card}.querySelectorAll('.objects rect')].map((r) => [+r.getAttribute('x'), r.getAttribute('stroke')])"
    )
    assert drawn == [[box[0], css(identity_colour(i))] for box, i in zip(objects.boxes, objects.ids)]
    assert page.run(f"{card}.querySelector('.proposals') !== null && {card}.querySelector('.refused') === null")
    assert page.run("$('count').textContent") == "1 to 24 of 31"


def test_switches_and_sliders_need_no_new_picture(page: Page) -> None:
    before = pictures(page)
    page.run("document.querySelector('[data-layer=objects]').click()")
    page.wait("document.querySelectorAll('.card .objects rect').length === 0")
    page.run("document.querySelector('[data-layer=refused]').click()")
    page.wait("document.querySelectorAll('.card .refused rect').length > 0")
    slide = "$('best').value = {}; $('best').dispatchEvent(new Event('input', {{bubbles: true}}))"
    page.run(slide.format(1))
    page.wait(
        "[...document.querySelectorAll('.card .negatives')].every((g) => g.querySelectorAll('rect').length === 1)"
    )
    page.run(slide.format(0))
    page.wait(f"{BOXES} === 0")
    page.run(slide.format(101))
    page.wait(f"$('best-said').textContent === 'all' && {BOXES} > 100")
    assert pictures(page) == before


def test_masks_are_those_of_the_shard(page: Page, view: Served) -> None:
    page.run("document.querySelector('[data-layer=masks]').click()")
    page.wait("document.querySelectorAll('.card path.mask').length >= 24")
    row = view.rows()[0]
    masks = [m for m in view.get("masks", row=row["number"], key=row["key"], frame=0)["proposals"] if m]
    for mask in masks:
        assert page.run(f"runsOf({mask['counts']!r})") == parse_counts(mask["counts"]).tolist()
    enlarge(page)
    page.wait("document.querySelectorAll('#stage path.mask').length >= 4")
    # The area of a path of bars is the area of the mask.
    area = "[...maskPath({}, 1).matchAll(/h(\\d+)v(\\d+)/g)].reduce((sum, bar) => sum + bar[1] * bar[2], 0)"
    for mask in masks:
        assert page.run(area.format(mask)) == int(parse_counts(mask["counts"])[1::2].sum())


def test_a_sample_is_enlarged_and_closed_by_keys(page: Page, view: Served) -> None:
    rows = view.rows()
    page.run("document.querySelector('.card').focus()")
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "Enter"):
        page.press(key)
    page.wait(f"$('zoom').open && $('zoom-key').textContent === '{rows[1]['key']}'")
    page.wait("!!document.querySelector('#stage rect.box') && document.querySelectorAll('#lineage dd').length > 8")
    assert page.run("location.hash").startswith(f"#key={rows[1]['key']}")
    said = page.run("$('lineage').textContent")
    assert EVIL in said and "receipts/part-00000000.parquet, position 1" in said
    page.press("ArrowRight")
    page.wait(f"$('zoom-key').textContent === '{rows[2]['key']}'")
    page.wait(f"zoom.sample?.key === '{rows[2]['key']}'")
    width = "zoom.view.svg.viewBox.baseVal.width"
    page.press("+")
    assert page.run(width) == pytest.approx(64 / 1.5)
    page.press("0")
    assert page.run(width) == 64
    page.press("Escape")
    page.wait("!$('zoom').open && location.hash === ''")
    assert page.run("document.activeElement.row?.key") == rows[2]["key"], "the focus is back at its card"


def test_the_neighbour_may_lie_on_the_next_page(page: Page, view: Served) -> None:
    page.run("document.querySelectorAll('.card')[23].click()")
    page.wait("!!document.querySelector('#zoom[open] #stage rect.box')")
    page.press("ArrowRight")
    following = view.rows(begin=24)[0]["key"]
    page.wait(f"zoom.sample?.key === '{following}' && page.begin === 24")
    page.press("ArrowLeft")
    page.wait(f"zoom.sample?.key === '{view.rows()[23]['key']}' && page.begin === 0")


def test_clips_play_and_chains_leave_trails(page: Page) -> None:
    page.run("document.querySelector('[name=kind]').value = 'clip'; filtersChanged()")
    page.wait("document.querySelectorAll('.card').length === 1 && page.rows.length === 1")
    assert page.run("document.querySelector('.badge').textContent") == "clip · 6 frames"
    enlarge(page)
    page.press("ArrowDown")
    page.wait("$('frame-said').textContent.startsWith('2 of 6')")
    page.run("document.querySelector('#zoom-switches [data-layer=\"sidecar chains\"]').click()")
    page.wait("!!document.querySelector('#stage .sidecar polyline.trail')")
    chains = "document.querySelectorAll('#stage .sidecar rect').length"
    page.run("slide(1)")
    page.wait(f"{chains} === 1")
    first = page.run("document.querySelector('#stage .sidecar text').textContent")
    assert int(first) in range(4), "the longest one"
    page.run("slide(30)")
    page.wait(f"{chains} > 1")
    page.press(" ")
    page.wait("zoom.playing && zoom.view.frame === 5")
    page.wait("zoom.view.frame === 0")
    page.press(" ")
    page.wait("!zoom.playing")
    assert (
        page.run("document.querySelector('#stage image').getAttribute('href')").count(
            f"frame={page.run('zoom.view.frame')}"
        )
        == 1
    )


def test_what_was_set_aside_is_a_table(page: Page) -> None:
    page.run("document.querySelector('[name=status][value=quarantined]').click()")
    page.wait("document.querySelectorAll('#aside-rows tbody tr').length === 1")
    assert page.run("document.querySelector('#aside-rows tbody').textContent").startswith(
        f"TruncatedMedia{EVIL} is cut off"
    )
    assert page.run("$('grid').hidden && $('layers').hidden")
    page.run("history.back()")
    page.wait("document.querySelectorAll('.card').length === 24 && $('aside-rows').hidden")


def test_typed_filters_and_pages_stand_in_the_address(page: Page, view: Served) -> None:
    page.run("document.querySelector('[name=text]').focus()")
    for letter in "pic2":
        page.press(letter)
    page.wait("document.querySelectorAll('.card').length === 11 && location.hash === '#text=pic2'")
    page.open("about:blank")
    page.open(f"{view.url}#begin=24")
    page.wait("$('count').textContent === '25 to 31 of 31'")
    assert page.run("$('next').disabled && !$('previous').disabled")
    page.run("$('previous').click()")
    page.wait("$('count').textContent === '1 to 24 of 31'")


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_it_fits_screens_and_darkness(page: Page, width: int) -> None:
    backgrounds = set()
    for dark in (False, True):
        page.look(width, 800, dark)
        page.wait(f"innerWidth === {width} && $('panel').open === {str(width > 860).lower()}")
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out at the side"
        backgrounds.add(page.run("getComputedStyle(document.body).backgroundColor"))
        enlarge(page)
        assert page.run("document.querySelector('.facts').scrollWidth <= document.querySelector('.facts').clientWidth")
        assert page.run("$('stage').clientHeight > 250")
        page.press("Escape")
        page.wait("!$('zoom').open && !address().key")
    assert len(backgrounds) == 2


def test_everything_that_can_be_used_has_a_name(page: Page) -> None:
    page.run("go({kind: 'clip'})")
    page.wait("document.querySelectorAll('.card').length === 1")
    enlarge(page)
    used = {"button", "textbox", "searchbox", "slider", "combobox", "checkbox", "radio", "spinbutton", "dialog"}
    page.call("Accessibility.enable")
    for state in ("enlarged", "closed"):
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        found = [
            (n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"] and "role" in n
        ]
        assert not [role for role, name in found if role in used and not name.strip()], state
        assert {role for role, _ in found} >= {"button", "slider", "checkbox"}, state
        page.press("Escape")
        page.wait("!$('zoom').open")


def test_the_policy_stops_scripts_that_are_not_ours(browser: Page, page: Page, view: Served) -> None:
    page.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.pwned = 1'}))")
    page.run(
        "document.body.insertAdjacentHTML('beforeend', '<p onclick=\"window.pwned = 1\" id=bait></p>'); bait.click()"
    )
    page.run("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))")
    page.wait("new Promise((done) => setTimeout(() => done(true), 300))")
    refused = [problem for problem in browser.problems if "Content Security Policy" in problem or "violates" in problem]
    assert len(refused) >= 3 and page.run("window.pwned === undefined")
    browser.problems.clear()
    browser.requests[:] = [url for url in browser.requests if url.startswith(view.url)]
