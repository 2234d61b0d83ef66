"""Bad data is data: each fault is quarantined with its reason and URI, everything else is mined, and can be mended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.make_media import coco_rle, jpeg_bytes, make_jpeg, make_sa1b_folder, make_sav_train, make_scene, make_video
from tests.runs import mine, rows, statuses, tars

GOOD = 3


def truncate(path: Path, share: float = 0.5) -> None:
    """Keep the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def another_size(path: Path) -> None:
    """Masks of another frame size than the picture's."""
    document = json.loads(path.read_text())
    document["annotations"][0]["segmentation"] = coco_rle(np.ones((7, 9), bool))
    path.write_text(json.dumps(document))


def hostile_rle(path: Path) -> None:
    """Run lengths that claim far more pixels than the picture has."""
    document = json.loads(path.read_text())
    document["annotations"][0]["segmentation"]["counts"] = "0oooooo3"
    path.write_text(json.dumps(document))


# What happens to the two files of an item, and a word of the reason that must be given.
SA1B_FAULTS: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "picture cut in the middle": (lambda jpg, js: truncate(jpg), "truncated"),
    "picture of zero bytes": (lambda jpg, js: jpg.write_bytes(b""), "0 bytes|zero|empty"),
    "not a picture at all": (lambda jpg, js: jpg.write_bytes(b"<html>404</html>" * 9), "picture"),
    "annotation is no JSON": (lambda jpg, js: js.write_text('{"annotations": ['), "JSON"),
    "annotation is other JSON": (lambda jpg, js: js.write_text('["x"]'), "JSON object"),
    "annotation is missing": (lambda jpg, js: js.unlink(), "--source images"),
    "picture is missing": (lambda jpg, js: jpg.unlink(), "missing"),
    "mask of another size": (lambda jpg, js: another_size(js), "size|7 x 9|pixels"),
    "mask that would fill the memory": (lambda jpg, js: hostile_rle(js), "pixels|run|number"),
}


@pytest.mark.parametrize("proposer", [pytest.param("annotations", marks=pytest.mark.slow), "graph"])
def test_sa1b(proposer: str, tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    make_sa1b_folder(folder, count=len(SA1B_FAULTS) + GOOD)
    whole = {path: path.read_bytes() for path in folder.iterdir()}
    for number, (damage, _) in enumerate(SA1B_FAULTS.values(), start=1):
        damage(folder / f"sa_{number}.jpg", folder / f"sa_{number}.json")
    options = ["--input", folder, "--output", output, "--executor", "inline", "--proposer", proposer]
    printed = mine(*options)
    bad = {Path(row.uri).stem: row for row in rows(output) if row.status == "quarantined"}
    assert len(bad) == len(SA1B_FAULTS), printed
    for number, (fault, (_, reason)) in enumerate(SA1B_FAULTS.items(), start=1):
        row = bad[f"sa_{number}"]
        assert row.error_class and row.shard == "", fault
        assert any(word.lower() in row.reason.lower() for word in reason.split("|")), (fault, row.reason)
    assert sorted(statuses(output).values()) == ["ok"] * GOOD + ["quarantined"] * len(bad)
    assert f"{len(bad)} quarantined" in printed
    assert sum(row.reason[:40] in printed for row in bad.values()) >= 5, printed

    before = tars(output)
    for path, data in whole.items():
        path.write_bytes(data)
    mine(*options, "--only-quarantined")
    assert set(statuses(output).values()) == {"ok"}
    assert before.items() <= tars(output).items(), "what was good was not touched"
    assert mine(*options, "--only-quarantined").count("nothing was left to do") == 1
    assert mine("--input", folder, "--output", output, "--executor", "inline", "--proposer", proposer)
    assert len(statuses(output)) == len(SA1B_FAULTS) + GOOD, "mending a file does not make it a second item"


def test_video_that_ends_early(tmp_path: Path) -> None:
    """The header promises more than the file holds: the clips that are whole are kept, the rest is quarantined."""
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    video = make_video(folder / "long.mp4", 96, 24, (64, 96), faststart=True)
    make_video(folder / "short.mp4", 24, 24, (64, 96))
    truncate(video, 0.6)
    mine("--input", folder, "--output", output, "--executor", "inline", "--set", "read.frames_per_clip=6")
    found = rows(output)
    good, bad = ([row for row in found if row.status == status] for status in ("ok", "quarantined"))
    assert {row.uri for row in bad} == {str(video)}
    assert any(row.uri == str(video) for row in good)
    assert all("early" in row.reason for row in bad)
    assert len(found) == 5, "24 kept frames in four clips, and one clip of the short video"


@pytest.mark.slow  # test_sav_with_something_missing mends one, too
def test_video_that_is_mended(tmp_path: Path) -> None:
    """Unreadable when planned, so that its clips could not be counted; the retry plans and mines them."""
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    video = make_video(folder / "late.mp4", 96, 24, (64, 96))
    make_video(folder / "other.mp4", 24, 24, (64, 96))
    whole = video.read_bytes()
    truncate(video, 0.5)  # its index comes last and is lost
    options = ["--output", output, "--executor", "inline", "--set", "read.frames_per_clip=6"]
    mine("--input", folder, *options)
    assert sorted(statuses(output).values()) == ["ok", "quarantined"]
    video.write_bytes(whole)
    mine(*options, "--only-quarantined")
    assert sorted(statuses(output).values()) == ["ok"] * 5
    mine("--input", folder, *options)
    assert len(statuses(output)) == 5


@pytest.mark.parametrize("missing", [pytest.param("video", marks=pytest.mark.slow), "annotations"])
def test_sav_with_something_missing(missing: str, tmp_path: Path) -> None:
    """Half of a video's files: one quarantined item; when the rest arrives, the retry mines all of its clips."""
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    video = make_sav_train(folder, num_frames=41)
    gone = [video] if missing == "video" else sorted(folder.glob("*.json"))
    kept = {path: path.read_bytes() for path in gone}
    for path in gone:
        path.unlink()
    options = ["--input", folder, "--source", "sav", "--output", output, "--executor", "inline"]
    options += ["--set", "read.frames_per_clip=4"]
    assert "nothing was mined" in mine(*options, expect=3)
    assert list(statuses(output).values()) == ["quarantined"]
    for path, data in kept.items():
        path.write_bytes(data)
    mine(*options, "--only-quarantined")
    assert list(statuses(output).values()) == ["ok"] * 3
    assert sum(row.frames for row in rows(output)) == 11


def test_pictures_that_merely_differ(tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    rgb = make_scene(40, 60)[0]
    picture = Image.fromarray(rgb)
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    picture.convert("P").save(folder / "palette.png")
    picture.convert("L").save(folder / "gray.png")
    picture.convert("1").save(folder / "bits.png")
    picture.convert("LA").save(folder / "gray_alpha.png")
    Image.fromarray(np.dstack([rgb, rgb[..., 0]])).save(folder / "alpha.png")
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 257).save(folder / "sixteen.png")
    (folder / "rotated.jpg").write_bytes(jpeg_bytes(rgb, orientation=6))
    Image.fromarray(rgb[:, :1]).save(folder / "thin.png")
    mine("--input", folder, "--output", output, "--executor", "inline")
    assert set(statuses(output).values()) == {"ok"}
    assert len(statuses(output)) == 9


def test_decompression_bomb(tmp_path: Path) -> None:
    """A picture that declares more pixels than allowed is refused by its header, not decoded."""
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png", optimize=True)
    make_jpeg(folder / "good.jpg")
    mine("--input", folder, "--output", output, "--executor", "inline")
    assert sorted(statuses(output).values()) == ["ok", "quarantined"]
    assert [row.error_class for row in rows(output) if row.status == "quarantined"] == ["PixelLimit"]


def test_unreadable_url_is_one_quarantined_item(tmp_path: Path) -> None:
    picture = make_jpeg(tmp_path / "in" / "good.jpg")
    output = tmp_path / "out"
    urls = [picture, "http://127.0.0.1:1/nobody-listens.jpg", tmp_path / "in" / "not-there.jpg"]
    mine("--input", *urls, "--output", output, "--executor", "inline")
    found = statuses(output)
    assert found[str(picture)] == "ok"
    assert sorted(found.values()) == ["ok", "quarantined", "quarantined"]


@pytest.mark.parametrize(
    ("allowed", "code"),
    [
        ("0", 3),
        ("50%", 0),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("1", 0), ("10%", 3), ("0.1", 3), ("100%", 0))),
    ],
)
def test_exit_code_above_the_limit(allowed: str, code: int, tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    make_sa1b_folder(folder, count=GOOD)
    (folder / "sa_1.json").unlink()
    mine("--input", folder, "--output", output, "--executor", "inline", "--max-quarantined", allowed, expect=code)
    assert sorted(statuses(output).values()) == ["ok", "ok", "quarantined"], "all the work is done in either case"
