"""Inputs that change between two runs, and outputs that lie inside inputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.make_media import make_davis, make_jpeg, make_mot, make_pictures, make_video
from tests.mining.test_identity import mine, names
from tests.runs import rows
from trackmill.pipeline.shards.reader import open_dataset, read_row

CLIPS = ("--set", "read.frames_per_clip=10", "--set", "read.label_fps=24")


def stored_frames(output: Path) -> list[int]:
    """Source frame numbers of all stored frames."""
    dataset = open_dataset(str(output))
    records = [read_row(dataset, row).record for row in rows(output) if row.status == "ok"]
    return sorted(frame.index for record in records for frame in record.frames)


def test_a_video_that_grew_gets_clips_for_what_is_new(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    video = tmp_path / "in" / "a.mp4"
    video.parent.mkdir()
    make_video(video, 28)
    mine(tmp_path / "out", tmp_path / "in", options=CLIPS)
    assert names(tmp_path / "out") == ["a.mp4#c000", "a.mp4#c001", "a.mp4#c002"]
    make_video(video, 51)
    mine(tmp_path / "out", tmp_path / "in", options=CLIPS)
    assert stored_frames(tmp_path / "out") == list(range(51)), "each frame is in one clip"
    assert "a.mp4: grew since it was planned: 23 frames behind the 28 of its plan, in 3 more clips" in caplog.text
    assert "1 input file changed after planning" in caplog.text
    mine(tmp_path / "out", tmp_path / "in", options=CLIPS)
    make_video(video, 53)
    mine(tmp_path / "out", tmp_path / "in", options=CLIPS)
    assert stored_frames(tmp_path / "out") == list(range(53))


def test_a_sequence_of_pictures_that_grew(tmp_path: Path) -> None:
    make_mot(tmp_path / "in")
    folder = next(iter(sorted((tmp_path / "in").rglob("img1"))))
    pictures = sorted(folder.iterdir())
    for picture in pictures[4:]:
        picture.rename(tmp_path / picture.name)
    options = ("--set", "read.frames_per_clip=3")
    mine(tmp_path / "out", tmp_path / "in", options=options)
    for picture in pictures[4:]:
        (tmp_path / picture.name).rename(picture)
    mine(tmp_path / "out", tmp_path / "in", options=options)
    assert stored_frames(tmp_path / "out") == list(range(len(pictures)))


def test_a_video_that_became_shorter_or_another_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    video = tmp_path / "in" / "a.mp4"
    video.parent.mkdir()
    make_video(video, 40)
    mine(tmp_path / "out", tmp_path / "in", options=CLIPS)
    make_video(video, 15)
    mine(tmp_path / "out", tmp_path / "in", options=CLIPS)
    assert "a.mp4: changed since it was planned with 40 frames to store" in caplog.text
    assert len(rows(tmp_path / "out")) == 4


def test_a_picture_that_was_replaced_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures = make_pictures(tmp_path / "in", 3)
    mine(tmp_path / "out", tmp_path / "in")
    before = pictures[1].stat().st_size
    make_jpeg(pictures[1], 96, 128, seed=7)
    mine(tmp_path / "out", tmp_path / "in")
    now = pictures[1].stat().st_size
    assert f"picture_1.jpg: had {before} bytes when it was planned, and has {now} now" in caplog.text
    assert "1 input file changed after planning: what is mined of them stays as it was" in caplog.text
    assert len(rows(tmp_path / "out")) == 3


def test_an_output_inside_its_input_is_not_mined(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_pictures(tmp_path, 2)
    sheet = make_jpeg(tmp_path / "out" / "contact_sheet.jpg", 48, 64, seed=5)
    mine(tmp_path / "out", tmp_path)
    mine(tmp_path / "out", tmp_path)
    assert names(tmp_path / "out") == ["picture_0.jpg", "picture_1.jpg"]
    sheet.rename(tmp_path / "out" / "sheet.jpg")
    mine(tmp_path / "second", tmp_path)
    assert names(tmp_path / "second") == ["picture_0.jpg", "picture_1.jpg"], "another data set's files are no input"
    assert "out: a data set that mining made lies in the input; its files are left out" in caplog.text


def test_a_video_that_grew_is_the_same_through_a_link(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each frame is in one clip, and all clips have the name that the video was planned under."""
    video = tmp_path / "in" / "a.mp4"
    video.parent.mkdir()
    (tmp_path / "link").symlink_to("in")
    make_video(video, 28)
    mine(tmp_path / "out", tmp_path / "in", options=CLIPS)
    for length, folders in ((51, ["link"]), (75, ["link"]), (90, ["in"]), (99, ["link", "in"])):
        make_video(video, length)
        mine(tmp_path / "out", *(tmp_path / folder for folder in folders), options=CLIPS)
        assert stored_frames(tmp_path / "out") == list(range(length))
    assert all(row.source_id.startswith(f"{video}#c") for row in rows(tmp_path / "out"))
    assert "link and " in caplog.text and "hold the same" in caplog.text


def test_frames_that_grew_are_the_same_through_a_link(tmp_path: Path) -> None:
    make_davis(tmp_path / "in", num_frames=12)
    (tmp_path / "link").symlink_to("in")
    pictures = sorted((tmp_path / "in" / "JPEGImages" / "480p" / "bear").iterdir())
    masks = sorted((tmp_path / "in" / "Annotations" / "480p" / "bear").iterdir())
    for path in [*pictures[5:], *masks[5:]]:
        path.rename(tmp_path / path.name)
    options = ("--set", "read.frames_per_clip=4")
    mine(tmp_path / "out", tmp_path / "in", options=options)
    for path in [*pictures[5:], *masks[5:]]:
        (tmp_path / path.name).rename(path)
    mine(tmp_path / "out", tmp_path / "link", options=options)
    assert stored_frames(tmp_path / "out") == list(range(12))
    assert all(str(tmp_path / "in") in row.source_id for row in rows(tmp_path / "out"))
