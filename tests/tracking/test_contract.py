"""What every video model must do, however it tracks; a new one is one more row in `MODELS`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from tests.ipmot.drawn import small_model  # noqa: E402
from tests.tracking.make_tracking import (  # noqa: E402
    ColourEmbedder,
    SquareDetector,
    make_frame,
    make_tracker,
    source_frame,
    write_frames,
)
from trackmill.models import masa  # noqa: E402
from trackmill.models.association import MasaTaoTracker  # noqa: E402
from trackmill.models.detectors.frame_scaling import FrameScaling  # noqa: E402
from trackmill.models.ipmot.video_model import IpMotTracker  # noqa: E402
from trackmill.models.masa.detector import MasaProposals  # noqa: E402
from trackmill.models.masa.frame_features import FrameFeatures  # noqa: E402
from trackmill.models.masa.rpn_inference import DetectionSettings  # noqa: E402
from trackmill.pipeline.tracking.base import VideoModel  # noqa: E402
from trackmill.pipeline.tracking.frames import open_frames  # noqa: E402
from trackmill.pipeline.tracking.run import track_video  # noqa: E402
from trackmill.pipeline.tracking.timing import StageTimes  # noqa: E402
from trackmill.pipeline.tracking.two_stage import TwoStage  # noqa: E402
from trackmill.pipeline.tracking.writers import CocoWriter  # noqa: E402
from trackmill.schemas.detections import make_detections  # noqa: E402
from trackmill.schemas.tracking import SourceFrame, TrackedObjects  # noqa: E402


class Whole:
    """An end-to-end tracker: pictures in, tracks out, with a memory of the last positions. It derives from nothing."""

    names = ("dark", "bright")
    category_ids = (7, 3)

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._last: dict[int, np.ndarray] = {}
        self.num_tracks = 0

    def track(self, frames: Sequence[SourceFrame], times: StageTimes) -> list[TrackedObjects]:
        with times.stage("look", len(frames)):
            return [self._tracked(frame) for frame in frames]

    def _tracked(self, frame: SourceFrame) -> TrackedObjects:
        (detections,) = SquareDetector().detect([frame.image])
        centres = (detections.boxes[:, :2] + detections.boxes[:, 2:]) / 2
        ids = []
        for centre in centres:
            near = [key for key, last in self._last.items() if key not in ids and np.abs(last - centre).max() < 12]
            ids.append(min(near, key=lambda key: np.abs(self._last[key] - centre).sum()) if near else self.num_tracks)
            self.num_tracks = max(self.num_tracks, ids[-1] + 1)
            self._last[ids[-1]] = centre
        bright = [int(frame.image[int(y), int(x)].sum() > 300) for x, y in centres]
        return TrackedObjects.of(make_detections(detections.boxes, None, bright, self.names), ids)


def two_stage() -> TwoStage:
    return TwoStage(SquareDetector(), ColourEmbedder(), make_tracker())


def masa_lite0() -> TwoStage:
    """The real thing, small: fresh weights, own proposals."""
    features = FrameFeatures(masa.load("masa_lite0"), FrameScaling(long_side=96, short_side=96))
    detector = MasaProposals(features, DetectionSettings(score_threshold=0, kept=5))
    tracker = MasaTaoTracker(init_score_thr=0, obj_score_thr=0, distractor_nms_thr=0.9)
    return TwoStage(detector, features.embedder(), tracker)


def ip_mot() -> IpMotTracker:
    """Pictures in, tracks out, with drawn weights."""
    return IpMotTracker(small_model(qbs=False, seed=3))


MODELS: dict[str, Callable[[], VideoModel]] = {
    "two_stage": two_stage,
    "masa_lite0": masa_lite0,
    "end_to_end": Whole,
    "ip_mot": ip_mot,
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> VideoModel:
    return MODELS[request.param]()


def video(count: int = 7) -> list[SourceFrame]:
    """Frames with three moving squares; the third holds nothing, one is left out, the last one is larger."""
    frames = [source_frame(index + (index > 4), make_frame(index)) for index in range(count)]
    if count > 3:
        frames[2] = source_frame(2, np.full_like(frames[2].image, 128))
        frames[-1] = source_frame(frames[-1].index, make_frame(count - 1, 80, 140))
    return frames


def tracks(model: VideoModel, frames: list[SourceFrame], batch_size: int = 3) -> list[TrackedObjects]:
    model.reset()
    results: list[TrackedObjects] = []
    for begin in range(0, len(frames), batch_size):
        results += model.track(frames[begin : begin + batch_size], StageTimes())
    return results


def assert_same(some: list[TrackedObjects], others: list[TrackedObjects], pixels: float = 0) -> None:
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert one.ids.tolist() == other.ids.tolist()
        assert one.objects.labels.tolist() == other.objects.labels.tolist()
        assert np.abs(one.objects.boxes - other.objects.boxes).max(initial=0) <= pixels


def test_it_has_the_members(model: VideoModel) -> None:
    assert isinstance(model, VideoModel)
    assert isinstance(model.names, tuple)
    assert len(model.names) == len(model.category_ids) > 0
    assert len(set(model.category_ids)) == len(model.category_ids)


def test_results_are_well_formed(model: VideoModel) -> None:
    frames = video()
    results = tracks(model, frames)
    assert len(results) == len(frames)
    for frame, untouched in zip(frames, video(), strict=True):
        assert (frame.image == untouched.image).all(), "pictures are read, not written"
    assert sum(map(len, results)) > 0
    for each in results:
        assert each.ids.dtype == np.int64
        assert len(set(each.ids.tolist())) == len(each) == len(each.objects) <= each.num_detections
        assert (np.diff(each.objects.scores) <= 0).all(), "best score first"
        assert ((each.objects.labels >= 0) & (each.objects.labels < len(model.names))).all()


def test_an_object_keeps_its_identity(model: VideoModel) -> None:
    first, *_, last = tracks(model, video(3))
    assert set(first.ids.tolist()) & set(last.ids.tolist())


def test_every_identity_is_counted(model: VideoModel) -> None:
    results = tracks(model, video())
    handed_out = {identity for each in results for identity in each.ids.tolist()}
    assert handed_out == set(range(model.num_tracks))
    assert model.num_tracks > 0


def test_reset_forgets_everything(model: VideoModel) -> None:
    first = tracks(model, video())
    model.reset()
    assert model.num_tracks == 0
    assert_same(tracks(model, video()), first)


@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_batches_do_not_matter(model: VideoModel, batch_size: int) -> None:
    assert_same(tracks(model, video(), batch_size), tracks(model, video()), pixels=1e-3)


def test_a_frame_without_objects(model: VideoModel) -> None:
    nothing = source_frame(0, np.full((60, 100, 3), 128, np.uint8))
    (alone,) = tracks(model, [nothing])
    assert len(alone.objects.boxes) == len(alone)


def test_a_video_of_one_frame(model: VideoModel) -> None:
    (only,) = tracks(model, video(1))
    assert sorted(only.ids.tolist()) == list(range(model.num_tracks))
    assert_same([only], tracks(model, video(2))[:1], pixels=1e-3)


def test_files_do_not_depend_on_batches(model: VideoModel, tmp_path: Path) -> None:
    write_frames(tmp_path / "in", 5)
    annotations = []
    for batch_size in (5, 2):
        path = tmp_path / f"{batch_size}.json"
        writer = CocoWriter(str(path), "in", model.names, model.category_ids)
        result = track_video(open_frames(str(tmp_path / "in")), model, [writer], batch_size=batch_size)
        assert result.num_frames == 5
        assert result.num_tracks == model.num_tracks
        assert sum(result.times.num_frames.values()) > 2 * 5, "decoded, tracked and written"
        annotations.append(json.loads(path.read_text())["annotations"])
    assert len(annotations[0]) == len(annotations[1]) > 0
    for one, other in zip(*annotations, strict=True):
        assert (one["image_id"], one["track_id"], one["category_id"]) == (
            other["image_id"],
            other["track_id"],
            other["category_id"],
        )
        assert np.abs(np.subtract(one["bbox"], other["bbox"])).max() < 2e-3
