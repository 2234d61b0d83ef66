"""Tracks in the viewer: frames by number, boxes of trackers and ground truth, worst moments; and in a browser."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.make_media import make_mot
from tests.sidecars.moving_squares import squares_video
from tests.view.chromium import chromium, needs_chromium
from tests.view.served import Served, running
from trackmill.jobs import evaluate, view
from trackmill.pipeline.media.drawing.palette import css, identity_colour
from trackmill.pipeline.tracking.frames import open_frames
from trackmill.pipeline.view import results as results_module
from trackmill.pipeline.view.app import make_results_app
from trackmill.pipeline.view.guard import new_token
from trackmill.pipeline.view.results import ResultsView
from trackmill.schemas.errors import InputError

EVIL = "<img src=x onerror=window.pwned=1>"


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sequence of six frames, one tracker that is right, and one that swaps the two identities in frame 4."""
    root = tmp_path_factory.mktemp("tracks")
    folder = make_mot(root / "data")
    rows = [line.split(",") for line in (folder / "gt" / "gt.txt").read_text().splitlines()]
    kept = [row for row in rows if row[1] in "12"]
    for name, swap in (("right", 99), ("swaps", 4)):
        (root / name).mkdir()
        lines = [[f, str(3 - int(i)) if int(f) >= swap else i, *box, "0.5"] for f, i, *box in (r[:6] for r in kept)]
        (root / name / "MOT17-99-TEST.txt").write_text("".join(f"{','.join(line)},-1,-1,-1\n" for line in lines))
    return folder


def file_of(sequence: Path, name: str) -> str:
    return str(sequence.parents[1] / name / "MOT17-99-TEST.txt")


@pytest.fixture(scope="module")
def evaluation(sequence: Path) -> str:
    found = sequence.parents[1] / "evaluation.json"
    words = ["--benchmark", "mot17", "--gt", sequence.parent, "--results", sequence.parents[1] / "swaps"]
    assert evaluate.main([str(word) for word in (*words, "--output", found)]) == 0
    return str(found)


@pytest.fixture(scope="module")
def served(sequence: Path, evaluation: str) -> Iterator[Served]:
    results = {"right": file_of(sequence, "right"), EVIL: file_of(sequence, "swaps")}
    data, token = ResultsView(str(sequence), results, evaluation), new_token()
    with running(make_results_app(data, token), token) as address:
        yield Served(address)
    data.close()


def test_the_head_names_trackers_and_moments(served: Served) -> None:
    about = served.get("about")
    assert (about["first"], about["last"], about["fps"]) == (1, 6, 30)
    assert [(side["name"], side["tracks"], side["boxes"]) for side in about["sides"]] == [
        ("right", 2, 12),
        (EVIL, 2, 12),
    ]
    assert about["ground_truth"] == 2, "what is not scored is left out"
    assert about["moments"] == [{"frame": 4, "said": "object 1: 1 becomes 2, object 2: 2 becomes 1"}]


def test_an_evaluation_of_several_trackers(sequence: Path, tmp_path: Path) -> None:
    found, root = tmp_path / "both.json", sequence.parents[1]
    words = ["--benchmark", "mot17", "--gt", sequence.parent, "--output", found]
    words += ["--results", f"good={root / 'right'}", f"bad={root / 'swaps'}"]
    assert evaluate.main([str(word) for word in words]) == 0
    data = ResultsView(str(sequence), {"a": file_of(sequence, "swaps")}, str(found))
    data.close()
    said = "bad: object 1: 1 becomes 2, object 2: 2 becomes 1"
    assert data.about()["moments"] == [{"frame": 4, "said": said}]


def test_no_evaluation_is_something_else_than_one_without_moments(sequence: Path, tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text(json.dumps({"sequences": {sequence.name: {}}, "moments": []}))
    for evaluation, moments in (("", None), (str(tmp_path / "none.json"), [])):
        data = ResultsView(str(sequence), {"a": file_of(sequence, "right")}, evaluation)
        data.close()
        assert data.about()["moments"] == moments and bool(data.about()["no_moments"]) == bool(evaluation)


def test_boxes_of_frames(served: Served, sequence: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = served.get("tracks", begin=3, count=2)["frames"]
    assert list(frames) == ["3", "4"]
    right, swaps = frames["4"]["sides"]
    assert [entry["id"] for entry in right] == ["1", "2"] and [entry["id"] for entry in swaps] == ["2", "1"]
    assert right[0]["box"] == swaps[0]["box"] == frames["4"]["gt"][0]["box"]
    assert right[0]["colour"] == css(identity_colour(1))
    row = next(line.split(",") for line in (sequence / "gt" / "gt.txt").read_text().splitlines() if line[:4] == "4,1,")
    x, y, w, h = map(float, row[2:6])
    assert right[0]["box"] == [x, y, x + w, y + h]
    assert served.get("tracks", begin=100, count=1)["frames"] == {}
    monkeypatch.setattr(results_module, "MAX_FRAMES", 4)
    assert list(served.get("tracks", begin=2, count=10**6)["frames"]) == ["2", "3", "4", "5"]


def test_frames_in_any_order(served: Served, sequence: Path) -> None:
    for number in (5, 1, 6):
        picture = np.asarray(Image.open(io.BytesIO(served.ask("api/frame", number=number).body)))
        stored = np.asarray(Image.open(sequence / "img1" / f"{number:06d}.jpg"))
        assert np.abs(picture.astype(int) - stored).mean() < 8
    assert served.ask("api/frame", number=7).status == 502
    assert "frame 7: they are 1 to 6" in served.ask("api/frame", number=7).json["error"]


def test_frames_of_a_video_by_number(tmp_path: Path) -> None:
    video = squares_video(tmp_path / "v.mp4", 30, {"red": lambda frame: (4 * frame, 20)})
    reader = open_frames(str(video))
    try:
        expected = list(reader)
        assert list(reader.numbers) == [frame.number for frame in expected]
        for number in (30, 1, 17, 16):
            frame = reader.frame(number)
            assert (frame.number, frame.time_s) == (number, expected[number - 1].time_s)
            assert np.array_equal(frame.image, expected[number - 1].image)
        with pytest.raises(InputError, match="no frame 31: they are 1 to 30"):
            reader.frame(31)
    finally:
        reader.close()


def test_mistakes(sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right = file_of(sequence, "right")
    (tmp_path / "bad.json").write_text(json.dumps({"moments": [{"frame": 1}]}))
    for words, said in (
        (["--results", "right"], "should be NAME=FILE"),
        (["--results", f"a={right}", "--results", f"a={right}"], "two trackers of one name"),
        (["--results", f"ground truth={right}"], "1 to 4 trackers"),
        (["--results", f"a={right}", "--evaluation", str(tmp_path / "bad.json")], "not what trackmill evaluate"),
        (["--evaluation", "x.json"], "name them with --results"),
        (["--results", f"a={sequence}/seqinfo.ini"], "seqinfo.ini"),
    ):
        assert view.main([str(sequence), *words]) == 2, words
        assert said in capsys.readouterr().err


@needs_chromium
def test_two_trackers_side_by_side(served: Served, tmp_path: Path) -> None:
    rects = "[...document.querySelectorAll('figure')].map((f) => f.querySelectorAll('rect.{}').length)"
    ids = (
        "[...document.querySelectorAll('figure')].map((f) => [...f.querySelectorAll('text')].map((t) => t.textContent))"
    )
    with chromium(tmp_path) as page:
        page.look(1400, 900)
        page.open(served.url)
        page.wait(f"JSON.stringify({rects.format('track')}) === '[2,2]'")
        tops = page.run("[...document.querySelectorAll('figure')].map((f) => f.offsetTop)")
        assert tops[0] == tops[1] and page.run(rects.format("gt")) == [2, 2]
        assert page.run("document.querySelectorAll('figcaption')[1].textContent") == f"{EVIL}: 2 tracks, 12 boxes"
        page.run("document.querySelector('#moments button').click()")
        page.wait("location.hash === '#frame=4'")
        assert page.run(ids) == [["1", "2"], ["2", "1"]]
        assert page.run("document.querySelectorAll('polyline.trail').length") == 4
        page.press("ArrowLeft")
        page.wait("location.hash === '#frame=3'")
        assert page.run(ids) == [["1", "2"], ["1", "2"]]
        page.run("document.getElementById('gt').click()")
        page.wait(f"JSON.stringify({rects.format('gt')}) === '[0,0]'")
        page.run("document.activeElement.blur()")
        page.press(" ")
        page.wait("location.hash === '#frame=6'")
        page.press(" ")
        page.wait("!playing")
        page.look(400, 800, dark=True)
        page.press("ArrowRight")
        page.wait("document.querySelector('figure text').getBoundingClientRect().height > 10")  # ids are to be read
        page.run("$('said').textContent = 'frame 123456 of 234567 · 1234.56 s'")
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        assert page.run("$('said').getBoundingClientRect().right <= innerWidth"), "all of it is to be seen"
        assert not page.problems and page.run("window.pwned === undefined")
        assert not [url for url in page.requests if not url.startswith((served.url, "about:"))]
