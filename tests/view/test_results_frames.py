"""Frames under tracks: pictures not numbered from 1, with gaps, of several sizes, damaged; and in a browser."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.make_media import jpeg_bytes, make_mot, make_scene
from tests.view.chromium import Page, chromium, needs_chromium
from tests.view.served import Served, running
from trackmill.pipeline.view.app import make_results_app
from trackmill.pipeline.view.guard import new_token
from trackmill.pipeline.view.results import ResultsView
from trackmill.schemas.errors import InputError

GAPS = (1, 11, 21)


def make_sequence(folder: Path, numbers: Sequence[int]) -> Path:
    """A sequence whose pictures have these numbers; its ground truth counts from 1 without gaps."""
    made = make_mot(folder / "data", num_frames=len(numbers))
    pictures = sorted((made / "img1").iterdir())
    for picture, number in reversed(list(zip(pictures, numbers))):  # from behind, where no name is taken yet
        picture.rename(picture.with_name(f"{number:06d}.jpg"))
    return made


def write_rows(made: Path, name: str, numbers: Sequence[int]) -> str:
    """Tracks that are right, with the frames of the ground truth called by other numbers; returns the file."""
    rows = [line.split(",") for line in (made / "gt" / "gt.txt").read_text().splitlines()]
    kept = [[str(numbers[int(frame) - 1]), identity, *box[:4]] for frame, identity, *box in rows if identity in "12"]
    file = made.parent / f"{name}.txt"
    file.write_text("".join(f"{','.join(row)},1,-1,-1,-1\n" for row in kept))
    return str(file)


def boxes(data: ResultsView, number: int) -> list[list[Any]]:
    """Ids and boxes of a frame: of the ground truth, then of each tracker."""
    frame = data.tracks(number, 1)["frames"][str(number)]
    return [[(entry["id"], entry["box"]) for entry in side] for side in (frame["gt"], *frame["sides"])]


@contextlib.contextmanager
def opened(made: Path, results: dict[str, str], evaluation: str = "") -> Iterator[ResultsView]:
    data = ResultsView(str(made), results, evaluation)
    try:
        yield data
    finally:
        data.close()


@contextlib.contextmanager
def served(made: Path, results: dict[str, str]) -> Iterator[Served]:
    token = new_token()
    with opened(made, results) as data, running(make_results_app(data, token), token) as address:
        yield Served(address, data)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("browser")) as page:
        page.look(1400, 900)
        yield page


def go_to(browser: Page, url: str) -> None:
    """Open the page anew, and wait for its first frame."""
    browser.open("about:blank")  # another address behind `#` alone would not load it
    browser.problems.clear()
    browser.requests.clear()
    browser.open(url)
    browser.wait("location.href.startsWith('http') && $('said').textContent.startsWith('frame ')")


def test_pictures_that_are_not_numbered_from_1(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = make_sequence(tmp_path, range(301, 307))
    results = {
        "by place": write_rows(made, "place", range(1, 7)),
        "by name": write_rows(made, "name", range(301, 307)),
    }
    with opened(made, results) as data:
        about = data.about()
        assert (about["first"], about["last"], about["count"], about["numbers"]) == (1, 6, 6, None)
        for number in range(1, 7):
            truth, *sides = boxes(data, number)
            assert len(truth) == 2 and sides == [truth, truth]
            picture = np.asarray(Image.open(io.BytesIO(data.picture(number).jpeg)))
            stored = np.asarray(Image.open(made / "img1" / f"{300 + number:06d}.jpg"))
            assert np.abs(picture.astype(int) - stored).mean() < 8
    assert "gt.txt: the pictures begin with 000301.jpg: it is frame 1" in caplog.text
    assert "name.txt: counts frames otherwise: its frame 301 is frame 1 here" in caplog.text


@pytest.mark.parametrize(("order", "first"), [(("place", "name"), 1), (("name", "place"), 301)])
def test_without_ground_truth_the_first_tracker_says_how_frames_count(
    tmp_path: Path, order: tuple[str, str], first: int
) -> None:
    made = make_sequence(tmp_path, range(301, 307))
    numbers = {"place": range(1, 7), "name": range(301, 307)}
    results = {name: write_rows(made, name, numbers[name]) for name in order}
    shutil.rmtree(made / "gt")
    with opened(made, results) as data:
        assert (data.about()["first"], data.about()["last"]) == (first, first + 5)
        for number in range(first, first + 6):
            _, one, other = boxes(data, number)
            assert len(one) == 2 and one == other


def test_rows_of_a_longer_sequence_stay_where_they_are(tmp_path: Path) -> None:
    """The last half of the pictures alone: the ground truth, and a tracker that lost sight, are of the whole."""
    made = make_sequence(tmp_path, range(1, 7))
    results = {"whole": write_rows(made, "whole", range(1, 7)), "late": write_rows(made, "late", range(1, 7))}
    late = Path(results["late"])
    late.write_text("".join(line for line in late.read_text().splitlines(True) if line[0] in "345"))
    for number in (1, 2, 3):
        (made / "img1" / f"{number:06d}.jpg").unlink()
    with opened(made, results) as data:
        assert (data.about()["first"], data.about()["last"]) == (4, 6)
        truth, whole, cut = boxes(data, 5)
        assert len(truth) == 2 and whole == cut == truth
        assert boxes(data, 6)[2] == []


def test_rows_that_go_with_no_picture(tmp_path: Path) -> None:
    made = make_sequence(tmp_path, range(301, 307))
    with pytest.raises(InputError, match=r"far\.txt: the pictures are numbered 301 to 306 and rows say frames 5000 to"):
        ResultsView(str(made), {"far": write_rows(made, "far", range(5000, 5006))})


def test_numbers_with_gaps(tmp_path: Path) -> None:
    made = make_sequence(tmp_path, GAPS)
    with opened(made, {"a": write_rows(made, "a", GAPS)}) as data:
        about = data.about()
        assert (about["first"], about["last"], about["count"], about["numbers"]) == (1, 21, 3, [1, 11, 21])
        assert list(data.tracks(2, 2)["frames"]) == ["11", "21"] and not data.tracks(22, 5)["frames"]
        assert list(data.tracks(-1, -1)["frames"]) == []
        assert [len(side) for side in boxes(data, 21)] == [0, 2]


@needs_chromium
def test_the_page_steps_from_picture_to_picture(browser: Page, tmp_path: Path) -> None:
    made = make_sequence(tmp_path, GAPS)
    with served(made, {"a": write_rows(made, "a", GAPS)}) as view:
        go_to(browser, view.url)
        assert browser.run("[$('seek').min, $('seek').max, location.hash].join()") == "0,2,#frame=1"
        for number in (11, 21):
            browser.press("ArrowRight")
            browser.wait(f"location.hash === '#frame={number}'")
            assert browser.run("document.querySelectorAll('rect.track').length") == 2
        assert browser.run("$('said').textContent") == "frame 21 of 21 · 0.07 s", "of 30 a second"
        assert browser.run("document.querySelector('polyline.trail').points.length") == 3
        browser.press(" ")
        browser.wait("location.hash === '#frame=1'")
        browser.press(" ")
        browser.wait("!playing")
        go_to(browser, f"{view.url}#frame=15")
        assert browser.run("$('said').textContent").startswith("frame 11 of 21"), "the picture before it"
        browser.run("$('seek').value = 2; $('seek').dispatchEvent(new Event('input'))")
        browser.wait("location.hash === '#frame=21'")
        assert not browser.problems, "no picture is asked for that is not there"


@needs_chromium
def test_boxes_lie_where_they_belong_whatever_the_size(browser: Page, tmp_path: Path) -> None:
    sizes = [(48, 64), (200, 96), (30, 1600)]
    made = make_sequence(tmp_path, (1, 2, 3))
    tracks, lines = tmp_path / "tracks.txt", []
    for number, (height, width) in enumerate(sizes, 1):
        (made / "img1" / f"{number:06d}.jpg").write_bytes(jpeg_bytes(make_scene(height, width)[0]))
        lines.append(f"{number},1,{width / 2},{height / 2},{width / 2},{height / 2},1,-1,-1,-1\n")  # the last quarter
    tracks.write_text("".join(lines))
    with served(made, {"a": str(tracks)}) as view:
        assert Image.open(io.BytesIO(view.ask("api/frame", number=3).body)).size == (1280, 24), "made smaller"
        corner = "(({right, bottom}) => [right, bottom])(document.querySelector('{}').getBoundingClientRect())"
        for number, (height, width) in enumerate(sizes, 1):
            assert view.get("size", number=number) == {"width": width, "height": height}
            go_to(browser, f"{view.url}#frame={number}")
            assert (
                browser.run("document.querySelector('figure svg').getAttribute('viewBox')") == f"0 0 {width} {height}"
            )
            image, box = (browser.run(corner.replace("{}", each)) for each in ("figure image", "rect.track"))
            assert box == pytest.approx(image, abs=3)
        go_to(browser, view.url)
        browser.press("ArrowRight")
        browser.wait("document.querySelector('figure svg').getAttribute('viewBox') === '0 0 96 200'")
        assert not browser.problems


@needs_chromium
def test_a_damaged_picture_is_said_and_hides_no_other(browser: Page, tmp_path: Path) -> None:
    made = make_sequence(tmp_path, (1, 2, 3))
    (made / "img1" / "000001.jpg").write_bytes(b"no picture")
    with served(made, {"a": write_rows(made, "a", (1, 2, 3))}) as view:
        go_to(browser, view.url)
        assert "000001.jpg" in browser.run("$('fault').textContent") and not browser.run("$('fault').hidden")
        assert browser.run("document.querySelectorAll('rect.track').length") == 2
        browser.press("ArrowRight")
        browser.wait("location.hash === '#frame=2'")
        assert browser.run("$('fault').hidden && !!document.querySelector('figure image').getAttribute('href')")
