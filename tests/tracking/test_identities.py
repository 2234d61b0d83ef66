"""Identities depend on the video alone: not on the size of batches, and not on other videos tracked around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.tracking.make_tracking import SIDE, ColourEmbedder, SquareDetector, source_frame
from trackmill.models.association import TRACKERS, Tracker
from trackmill.pipeline.tracking.settings import PRESETS, make_tracker
from trackmill.pipeline.tracking.timing import StageTimes
from trackmill.pipeline.tracking.two_stage import TwoStage
from trackmill.schemas.tracking import SourceFrame

MAKERS: dict[str, Callable[[], Tracker]] = {
    **{f"preset {name}": (lambda name=name: make_tracker(name)) for name in PRESETS},  # type: ignore[misc]
    **{f"defaults of {name}": (lambda kind=kind: kind()) for name, kind in TRACKERS.items()},  # type: ignore[misc]
}
COLOURS = ((220, 40, 40), (40, 200, 60), (60, 80, 230))


@pytest.fixture(params=MAKERS)
def make_model(request: pytest.FixtureRequest) -> Callable[[], TwoStage]:
    return lambda: TwoStage(SquareDetector(), ColourEmbedder(), MAKERS[request.param]())


def video(seed: int, count: int = 12) -> list[SourceFrame]:
    """Squares that wander, vanish, come back and cross."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, [80, 45], (3, 2))
    frames = []
    for index in range(count):
        image = np.full((60, 100, 3), 128, np.uint8)
        places = np.clip(places + rng.normal(0, 6, (3, 2)), 0, [86, 46])
        for colour, (x, y) in zip(COLOURS, places.astype(int), strict=True):
            if rng.random() > 0.25:
                image[y : y + SIDE, x : x + SIDE] = colour
        frames.append(source_frame(index, image))
    return frames


def tracked(model: TwoStage, frames: list[SourceFrame], batch_size: int) -> Iterator[list[list[float]]]:
    """Identity and box of every object, frame by frame."""
    model.reset()
    for begin in range(0, len(frames), batch_size):
        for each in model.track(frames[begin : begin + batch_size], StageTimes()):
            yield np.column_stack([each.ids, each.objects.boxes]).tolist()


@pytest.mark.parametrize("batch_size", [2, 3, 5, 50])
def test_the_size_of_batches_does_not_matter(make_model: Callable[[], TwoStage], batch_size: int) -> None:
    for seed in range(3):
        one_by_one = list(tracked(make_model(), video(seed), 1))
        assert sum(map(len, one_by_one)) > 12
        assert list(tracked(make_model(), video(seed), batch_size)) == one_by_one


def test_other_videos_before_do_not_matter(make_model: Callable[[], TwoStage]) -> None:
    model = make_model()
    alone = {seed: list(tracked(make_model(), video(seed), 4)) for seed in range(3)}
    for seed in (0, 1, 2, 1, 0):
        assert list(tracked(model, video(seed), 4)) == alone[seed]


def test_a_video_that_was_given_up_does_not_matter(make_model: Callable[[], TwoStage]) -> None:
    model = make_model()
    alone = list(tracked(make_model(), video(0), 4))
    next(tracked(model, video(1), 4))
    assert list(tracked(model, video(0), 4)) == alone


def test_other_videos_at_the_same_time_do_not_matter(make_model: Callable[[], TwoStage]) -> None:
    """Several cameras in one program, each with a tracker of its own."""
    alone = [list(tracked(make_model(), video(seed), 1)) for seed in range(3)]
    together = [tracked(make_model(), video(seed), 1) for seed in range(3)]
    assert [list(frames) for frames in zip(*zip(*together, strict=True), strict=True)] == alone
