"""A model that remembers earlier frames, from files and in programs: what it gets, what it holds, what that changes."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from numpy.typing import NDArray  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from tests.tracking.make_tracking import (  # noqa: E402
    make_frame,
    square_boxes,
    write_frames,
    write_mot_detections,
)
from trackmill.jobs import track  # noqa: E402
from trackmill.models import scaletrack  # noqa: E402
from trackmill.models.association import ScaleTrackTracker  # noqa: E402
from trackmill.models.embedders.base import Embedder  # noqa: E402
from trackmill.models.scaletrack.embedder import StreamEmbedder  # noqa: E402
from trackmill.models.scaletrack.metadata import metadata_of  # noqa: E402
from trackmill.models.scaletrack.model import ScaleTrack  # noqa: E402
from trackmill.models.scaletrack.variants import VARIANTS  # noqa: E402
from trackmill.pipeline.evaluation.association.measure import association_benchmark  # noqa: E402
from trackmill.pipeline.evaluation.association.model_embedding import remembering_embedding  # noqa: E402
from trackmill.pipeline.evaluation.association.sequences import box_sequence  # noqa: E402
from trackmill.pipeline.tracking.api import VideoTracker  # noqa: E402
from trackmill.schemas.boxes import Boxes  # noqa: E402

VARIANT = replace(VARIANTS["scaletrack_lite0"], side=96, window=2)


@pytest.fixture(scope="module")
def network() -> ScaleTrack:
    return scaletrack.load(VARIANT, backbone_weights="imagenet").requires_grad_(False)


def seen(count: int = 6) -> tuple[list[NDArray[np.uint8]], list[Boxes]]:
    """Frames with boxes; one has none."""
    boxes = [square_boxes(step) for step in range(count)]
    boxes[2] = boxes[2][:0]
    return [make_frame(step) for step in range(count)], boxes


def test_tracking_sees_the_numbers_of_the_model(network: ScaleTrack) -> None:
    images, boxes = seen()
    frames = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    expected = network(frames, [torch.from_numpy(each) for each in boxes])
    embedder = network.embedder()
    found = embedder.embed(images[:4], boxes[:4]) + embedder.embed(images[4:], boxes[4:])
    for rows, others in zip(found, expected, strict=True):
        np.testing.assert_allclose(rows, others.numpy(), atol=1e-5)
    # The frame without boxes counts: without it, later ones have other embeddings.
    embedder.reset()
    left_out = [embedder.embed([images[step]], [boxes[step]])[0] for step in (0, 1, 3)]
    assert np.abs(left_out[2] - found[3]).max() > 1e-4
    np.testing.assert_array_equal(left_out[1], found[1])


def test_batches_and_other_videos_change_nothing(network: ScaleTrack) -> None:
    images, boxes = seen()
    embedder = network.embedder()
    first = embedder.embed(images, boxes)
    embedder.embed(images[::-1], boxes[::-1])
    embedder.reset()
    again = [embedder.embed([image], [each])[0] for image, each in zip(images, boxes, strict=True)]
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))


def test_only_the_buffer_is_held(network: ScaleTrack) -> None:
    embedder = network.embedder()
    assert isinstance(embedder, StreamEmbedder)

    def held() -> int:
        gc.collect()
        alive = [each for each in gc.get_objects() if type(each) is torch.Tensor]
        return sum(each.untyped_storage().nbytes() for each in alive)

    image, boxes = make_frame(0), square_boxes(0)
    for _ in range(4):
        embedder.embed([image], [boxes])
    before = held()
    for _ in range(12):
        embedder.embed([image], [boxes])
    assert held() == before


def test_a_program_tracks_frame_by_frame_with_the_models_own_rule(network: ScaleTrack) -> None:
    tracker = VideoTracker(network, device="cpu")
    assert isinstance(tracker.tracker, ScaleTrackTracker)
    runs = []
    for _ in range(2):
        tracker.reset()
        runs.append([tracker.update(make_frame(step), square_boxes(step)) for step in range(5)])
    for one, other in zip(*runs, strict=True):
        assert one.ids.tolist() == other.ids.tolist() and len(one) == 3
    assert sorted(runs[0][-1].ids.tolist()) == [0, 1, 2] and tracker.num_tracks == 3
    assert VideoTracker(network, tracker="tao", device="cpu").tracker.name == "masa_tao"


class Counting(Embedder):
    """Remembers how many boxes it was asked about."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def embed(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Boxes]) -> list[NDArray[np.float32]]:
        self.asked += [len(each) for each in boxes]
        return [np.eye(max(len(each), 1), 8, dtype=np.float32)[: len(each)] for each in boxes]


def test_what_the_rule_drops_is_not_embedded() -> None:
    embedder = Counting()
    tracker = VideoTracker(embedder, tracker="scaletrack")
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 0, 60, 10], [80, 0, 90, 10]], np.float32)
    tracked = tracker.update(make_frame(0), (boxes, [0.8, 0.9, 0.29, 0.5]))
    assert embedder.asked == [2]
    assert tracked.indices.tolist() == [1, 3] and tracked.ids.tolist() == [0, 1] and tracked.num_detections == 4
    assert len(tracker.update(make_frame(1), (boxes, [0.1] * 4))) == 0
    assert tracker.update(make_frame(2), (boxes[2:], [0.6, 0.5])).ids.tolist() == [0, 1]


def test_the_benchmark_sees_what_tracking_sees(network: ScaleTrack) -> None:
    images, boxes = seen(7)
    boxes[0], boxes[6] = boxes[0][:0], boxes[6][:0]  # the first frame is fed, the one after the last box is not
    numbers = np.repeat(np.arange(1, 8), [len(each) for each in boxes])
    ids = np.concatenate([np.arange(len(each)) for each in boxes])
    pictures = dict(enumerate(images, 1))
    sequence = box_sequence("a", numbers, ids, np.concatenate(boxes), pictures)
    embedding = remembering_embedding(network, "it")
    report = association_benchmark(embedding, [sequence], gaps=(1,), threshold=0.5)
    assert report.fed == {"a": "1 to 6, all 6"}
    assert any("it: a: it remembers, and got the frames 1 to 6, all 6" in note for note in report.notes)

    from trackmill.pipeline.evaluation.association.embeddings import embed

    (vectors,) = embed([sequence, replace(sequence, name="b")], [embedding])
    expected = np.concatenate([each for each in network.embedder().embed(images, boxes) if len(each)])
    np.testing.assert_allclose(vectors["a"], expected, atol=1e-6)
    np.testing.assert_array_equal(vectors["b"], vectors["a"])  # it forgot a
    # With pictures of some frames only, those are fed, and that is said.
    fewer = replace(sequence, pictures={number: pictures[number] for number in (2, 4, 5, 6)})
    assert association_benchmark(embedding, [fewer], gaps=(1,), threshold=0.5).fed == {"a": "2 to 6, 4 of them"}


@pytest.mark.parametrize("batch", ["1", "4"])
def test_the_command_tracks_with_a_file_of_a_changed_variant(network: ScaleTrack, batch: str, tmp_path: Path) -> None:
    weights = tmp_path / "s.safetensors"
    save_file(dict(network.state_dict()), weights, metadata_of(VARIANT))
    frames = write_frames(tmp_path / "frames", 6)
    detections = write_mot_detections(tmp_path / "det.txt", 6)
    options = ["--video", str(frames), "--detections", str(detections), "--output", str(tmp_path / "out")]
    options += ["--model", "scaletrack_lite0", "--weights", str(weights), "--device", "cpu", "--batch", batch]
    assert track.main(options) == 0
    rows = [line.split(",") for line in (tmp_path / "out" / "frames.txt").read_text().splitlines()]
    assert len(rows) == 18 and len({row[1] for row in rows}) == 3


def test_the_head_that_it_has_not_is_not_asked_for_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--video", str(write_frames(tmp_path / "frames", 2)), "--output", str(tmp_path / "out")]
    assert track.main([*options, "--model", "scaletrack_lite0", "--detections", "masa", "--device", "cpu"]) == 2
    assert "scaletrack_lite0 has no proposal head" in capsys.readouterr().err


def test_another_side_is_asked_for_as_of_any_model(network: ScaleTrack) -> None:
    from trackmill.models.detectors.frame_scaling import FrameScaling

    images, boxes = seen(3)
    embedder = network.embedder(FrameScaling(long_side=100, short_side=100))
    rows = embedder.embed(images, boxes)[1]
    expected = scaletrack.load(replace(VARIANT, side=128), network.state_dict()).embedder().embed(images, boxes)[1]
    np.testing.assert_array_equal(rows, expected)
    with pytest.raises(ValueError, match=r"reads frames in a square, whose side is size.long_side"):
        network.embedder(FrameScaling(long_side=100, short_side=50))
