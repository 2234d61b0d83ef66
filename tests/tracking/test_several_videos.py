"""Several videos in one call: a result each, one model, names that differ, and a bad one that stops nobody."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.make_media import make_video
from tests.tracking.make_tracking import write_frames, write_mot_detections
from trackmill.jobs.track import main
from trackmill.pipeline.formats.mot_text import parse_mot_text
from trackmill.pipeline.tracking.timing import StageTimes, TrackingProgress
from trackmill.pipeline.tracking.videos import choose_videos
from trackmill.schemas.errors import InputError

MODEL = """
import numpy as np
from trackmill.schemas.detections import make_detections
from trackmill.schemas.tracking import TrackedObjects

made = []

class Counting:
    names, category_ids = ("object",), (1,)

    def __init__(self):
        made.append(self)
        self.reset()

    def reset(self):
        self.num_tracks = 0

    def track(self, frames, times):
        ids = range(self.num_tracks, self.num_tracks + len(frames))
        self.num_tracks += len(frames)
        return [TrackedObjects.of(make_detections([[1, 1, 30, 30]]), np.array([each])) for each in ids]
"""


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sequence[str]:
    """Options of a model that counts how often it is made, and gives each frame an identity of its own."""
    (tmp_path / "counting_model.py").write_text(MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    return ["--model", "counting_model:Counting", "--device", "cpu"]


def rows(path: Path) -> list[tuple[int, int]]:
    found = parse_mot_text(path.read_bytes(), path.name)
    return list(zip(found.frames.tolist(), found.ids.tolist(), strict=True))


def test_each_has_its_result_and_the_model_is_made_once(
    tmp_path: Path, counting: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, count in (("a", 3), ("more/b", 4), ("more/c", 5)):
        make_video(tmp_path / f"{name}.mp4", count)
    write_frames(tmp_path / "seq" / "img1", 2)
    videos = [tmp_path / "a.mp4", tmp_path / "more" / "*.mp4", tmp_path / "seq"]
    output = tmp_path / "out"
    assert main(["--video", *map(str, videos), "--output", str(output), *counting]) == 0
    assert sorted(path.name for path in output.iterdir()) == ["a.txt", "b.txt", "c.txt", "seq.txt"]
    for name, count in (("a", 3), ("b", 4), ("c", 5), ("seq", 2)):
        wanted = [(frame, frame - 1) for frame in range(1, count + 1)]
        assert rows(output / f"{name}.txt") == wanted, "identities begin at 0 in each video"
    import counting_model  # type: ignore[import-not-found]

    assert len(counting_model.made) == 1
    printed = capsys.readouterr().out
    assert [line.split(":")[0] for line in printed.splitlines() if " frames, " in line] == ["a", "b", "c", "seq"]


def test_a_bad_one_is_told_and_the_others_go_on(
    tmp_path: Path, counting: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad, last = (tmp_path / name for name in ("good.mp4", "bad.mp4", "last.mp4"))
    make_video(good, 3)
    bad.write_bytes(b"no video at all")
    make_video(last, 3)
    output = tmp_path / "out"
    assert main(["--video", str(bad), str(good), str(last), "--output", str(output), *counting]) == 3
    printed = capsys.readouterr()
    assert "bad.mp4 is left out: " in printed.err and "Traceback" not in printed.err
    assert sorted(path.name for path in output.iterdir()) == ["good.txt", "last.txt"]
    assert main(["--video", str(bad), str(bad).replace("bad", "b?d"), "--output", str(output), *counting]) == 2
    (tmp_path / "worse.mp4").write_bytes(b"")
    assert main(["--video", str(bad), str(tmp_path / "worse.mp4"), "--output", str(output), *counting]) == 2
    assert "none of the 2 videos can be tracked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("videos", "options", "message"),
    [
        (["x/clip.mp4", "y/clip.mp4"], [], "the results of both would be called clip; rename one"),
        (["x/clip.mp4", "y/CLIP.avi"], [], "the results of both would be called"),
        (["x/clip.mp4", "x/*.mp4"], [], "the results of both would be called clip"),
        (["x/clip.mp4", "x/gone.mp4"], [], "gone.mp4"),
        (["x/*.mkv"], [], "nothing is called so"),
        (["x/clip.mp4", "z/other.mp4"], ["--name", "n"], "--name n: is of one video, and 2 are given"),
        (["x/clip.mp4", "z/other.mp4"], ["--detections", "det.txt"], "as in det/{name}.txt"),
        (["x/clip.mp4", ""], [], "empty"),
    ],
)
def test_mistakes_come_before_the_work(
    tmp_path: Path,
    counting: Sequence[str],
    videos: list[str],
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("x/clip.mp4", "y/clip.mp4", "y/CLIP.avi", "z/other.mp4"):
        make_video(tmp_path / name, 2)
    monkeypatch.chdir(tmp_path)
    assert main(["--video", *videos, "--output", "out", *options, *counting]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_names_are_those_of_a_call_with_one(tmp_path: Path) -> None:
    make_video(tmp_path / "only" / "inside.mp4", 2)
    write_frames(tmp_path / "flat", 2)
    write_frames(tmp_path / "seq" / "img1", 2)
    folders = [str(tmp_path / name) for name in ("only", "flat", "seq")]
    assert [video.name for video in choose_videos(folders)] == ["inside", "flat", "seq"]
    with pytest.raises(InputError, match="--name"):
        choose_videos(folders, "name")
    strange = make_video(tmp_path / "take[1].mp4", 2)
    assert [video.url for video in choose_videos([str(strange)])] == [str(strange)], "a name, not a glob"


def test_detections_of_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    for name, count in (("one", 3), ("two", 4)):
        write_frames(tmp_path / name / "img1", count)
        write_mot_detections(tmp_path / "det" / f"{name}.txt", count)
    write_frames(tmp_path / "three" / "img1", 3)
    videos = [str(tmp_path / name) for name in ("one", "two", "three")]
    arguments = ["--video", *videos, "--detections", str(tmp_path / "det" / "{name}.txt")]
    arguments += ["--model", "masa_lite0", "--set", "size.long_side=64", "--device", "cpu"]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 3
    assert "det/three.txt" in capsys.readouterr().err
    for name, count in (("one", 3), ("two", 4)):
        frames = [frame for frame, _ in rows(tmp_path / "out" / f"{name}.txt")]
        assert frames == [frame for frame in range(1, count + 1) for _ in range(3)]


def test_progress_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    progress = TrackingProgress(40, StageTimes(), interval_s=0, video="clip (2 of 5)")
    progress(8)
    assert "clip (2 of 5): tracked 8 of 40 frames" in capsys.readouterr().err
