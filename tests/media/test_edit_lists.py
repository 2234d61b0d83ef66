"""MP4 files that were trimmed without encoding anew: frames, order, times and masks are those that a player shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.make_media import coco_rle
from tests.make_numbered import copy_packets, frames_read, make_numbered, number_of, shown_by_a_player, with_edits
from tests.sources.claiming import claim_all
from trackmill.pipeline.media.video_headers import probe
from trackmill.pipeline.sources import open_source
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.tracking.frames import open_frames

TRIMS: dict[str, dict[str, float]] = {
    "from 2.5 s on": {"start_s": 2.5},
    "from 2.5 s to 4 s": {"start_s": 2.5, "stop_s": 4},
    "the first 2 s": {"stop_s": 2.02},
    "a little off the start": {"start_s": 0.1},
    "an empty edit: the picture comes a second late": {"start_s": -1.0},
}


@pytest.fixture(params=["one group", "short groups", "open groups of one"])
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    gop, bframes = {"one group": (120, 2), "short groups": (12, 3), "open groups of one": (1, 0)}[request.param]
    return make_numbered(tmp_path / "full.mp4", 96, gop=gop, bframes=bframes)


@pytest.mark.parametrize("trim", TRIMS.values(), ids=TRIMS)
def test_a_trimmed_video_has_the_frames_that_a_player_shows(tmp_path: Path, full: Path, trim: dict[str, float]) -> None:
    cut = copy_packets(full, tmp_path / "cut.mp4", **trim)  # type: ignore[arg-type]
    shown = shown_by_a_player(cut)
    assert 36 <= len(shown) <= 96
    assert frames_read(cut) == shown
    header = probe(str(cut))
    assert (header.num_frames, header.exact) == (len(shown), True)
    for index in (len(shown) - 1, 17, 0):
        assert frames_read(cut, [index]) == [shown[index]], "reached by a seek"
    with_tracking = [(number_of(frame.image), frame.number) for frame in open_frames(str(cut))]
    assert with_tracking == [(number, place + 1) for place, (number, _) in enumerate(shown)]


EDITS = {
    "two parts": [(1000, 0), (1500, 2500)],
    "the later part first": [(1000, 3000), (1000, 500)],
    "a part twice": [(500, 1250), (500, 1250), (1000, 0)],
    "a pause before a part": [(700, -1), (1000, 2200)],
}


@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS)
def test_several_edits(tmp_path: Path, edits: list[tuple[int, int]]) -> None:
    full = make_numbered(tmp_path / "full.mp4", 96, gop=30)
    scale = 12288  # units of a second, in which libavformat counts at this rate
    cut = with_edits(full, [(length, start if start < 0 else 1024 + start * scale // 1000) for length, start in edits])
    shown = shown_by_a_player(cut)
    assert 20 < len(shown) < 96
    assert frames_read(cut) == shown
    order = np.random.default_rng(0).permutation(len(shown))[:6].tolist()
    assert [frames_read(cut, [index]) for index in order] == [[shown[index]] for index in order]


def test_masks_of_a_trimmed_video_lie_on_their_frames(tmp_path: Path) -> None:
    full = make_numbered(tmp_path / "full.mp4", 96, gop=48)
    folder = tmp_path / "data"
    folder.mkdir()
    video = copy_packets(full, folder / "sav_000001.mp4", start_s=1.5)
    shown = [number for number, _ in shown_by_a_player(video)]
    assert shown[0] == 36
    masklet = []
    for number in shown[::4]:
        mask = np.zeros((32, 160), bool)
        mask[: 2 + number // 4] = True  # as many rows as the frame's number says
        masklet.append([coco_rle(mask)])
    document = {"masklet": masklet, "masklet_id": [0], "masklet_num": 1, "video_id": "sav_000001"}
    document |= {"video_frame_count": float(len(shown)), "video_height": 32.0, "video_width": 160.0}
    (folder / "sav_000001_manual.json").write_text(json.dumps(document))
    settings = ReadSettings(frames_per_clip=4)
    items, _, _ = claim_all([str(folder)], "sav", settings)
    source = open_source("sav", settings)
    numbers = []
    for item in items:
        for frame in source.read(item).frames:
            assert frame.annotations is not None
            numbers.append(number_of(frame.image))
            assert frame.annotations.boxes[0].tolist() == [0, 0, 160, 2 + numbers[-1] // 4]
    assert numbers == shown[::4]
