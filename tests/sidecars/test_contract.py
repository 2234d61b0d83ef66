"""What every producer must do, ours and the ones of these tests."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.make_dataset import make_dataset
from trackmill.models.detectors.base import Detector
from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.shards.reader import open_dataset, read_row
from trackmill.pipeline.sidecars.about import SidecarError, fingerprint_parts
from trackmill.pipeline.sidecars.columns import arrow_schema, check_columns
from trackmill.pipeline.sidecars.producer import BadRows, Rows, check_rows
from trackmill.pipeline.sidecars.producers import PRODUCERS
from trackmill.pipeline.sidecars.producers.chains import ChainProducer, ChainSettings
from trackmill.pipeline.sidecars.requests import Request, request_sidecar
from trackmill.pipeline.sidecars.run import make_sidecar
from trackmill.schemas.boxes import iou_matrix
from trackmill.schemas.errors import InputError


class Corners(Detector):
    """A detector without weights: two boxes a frame, one of them over the border, one below any sensible score."""

    names = ("thing", "other")
    category_ids = (0, 1)

    def detect(self, images: list[np.ndarray], frames: Any = None) -> list[Any]:
        from trackmill.schemas.detections import make_detections

        boxes = [[-5, -5, 20, 10], [3, 3, 9, 9], [1, 1, 1, 8], [30, 30, 40, 40]]
        return [make_detections(boxes, [0.5, 0.9, 0.8, 0.01], [0, 1, 0, 0], self.names) for _ in images]


@pytest.fixture(scope="module")
def masa_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    import torch
    from safetensors.torch import save_file

    from trackmill.pipeline.weights import build_model

    torch.manual_seed(0)
    path = str(tmp_path_factory.mktemp("weights") / "masa_r50.safetensors")
    state = build_model("masa_r50", None).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def request_of(name: str, weights: str = "") -> Request:
    """Each producer with settings under which it gives rows."""
    if name == "masa":
        options = {"max_boxes": 5, "min_score": 0.0}
        settings = {"detector": "masa", "weights": weights, "options": options, "min_score": 0, "device": "cpu"}
        return request_sidecar("proposals", "detections", settings)
    if name == "corners":
        return request_sidecar("corners", "detections", {"detector": "tests.sidecars.test_contract:Corners"})
    if name == "negatives":
        return request_sidecar("negatives", "", {"detector": "tests.sidecars.test_contract:Corners"})
    if name == "video-chains":
        settings = {"detector": "tests.sidecars.test_contract:Corners", "min_length": 1, "cuts": "none"}
        return request_sidecar("chains", "video-chains", {**settings, "source": {"isolate": False}})
    if name == "proposals":
        return request_sidecar("negatives", "", {"detector": "proposals"})
    if name == "chains":
        return request_sidecar("chains", "", {"min_length": 1})
    return request_sidecar("brightness", "tests.sidecars.producers:Brightness", {})


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """A picture, and a clip of five frames."""
    dataset = open_dataset(make_dataset(str(tmp_path_factory.mktemp("set")), num_images=1, num_frames=5).root)
    return [read_row(dataset, row) for row in dataset.stored]


@pytest.mark.parametrize(
    "name",
    [
        "chains",
        "corners",
        "negatives",
        "proposals",
        "video-chains",
        pytest.param("masa", marks=pytest.mark.slow),
        "brightness",
    ],
)
def test_every_producer(name: str, samples: list[Sample], request: pytest.FixtureRequest) -> None:
    asked = request_of(name, request.getfixturevalue("masa_weights") if name == "masa" else "")
    kind = asked.kind
    columns = check_columns(kind.columns, name)
    assert arrow_schema(columns).names[:2] == ["key", "frame"]
    assert all(column.description.endswith(".") for column in columns)
    assert kind.not_in_fingerprint <= set(kind.Config.model_fields)
    parts = fingerprint_parts(kind, asked.settings)
    assert ":Corners" not in str(parts) and "/" not in str(parts), "no place of a module or a file"
    assert kind.resolve(asked.settings) == asked.settings, "resolved already"
    one, two = (kind(asked.settings) for _ in range(2))
    for sample in samples:
        rows = check_rows(name, columns, sample, one.rows(sample))
        again = check_rows(name, columns, sample, two.rows(sample))
        assert len(rows["frame"]) > 0
        for column, values in rows.items():
            same = values == again[column] if isinstance(values, list) else np.array_equal(values, again[column])
            assert same, f"{column}: the same sample gives the same rows"


def test_every_producer_of_the_registry_is_tested() -> None:
    assert set(PRODUCERS) == {"chains", "detections", "negatives", "video-chains"}


def test_detections_are_kept_best_first_inside_the_frame(samples: list[Sample]) -> None:
    asked = request_of("corners")
    rows = asked.kind(asked.settings).rows(samples[1])
    assert rows["frame"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert rows["box"][:2].tolist() == [[3, 3, 9, 9], [0, 0, 20, 10]] and rows["label"][:2] == ["other", "thing"]
    few = request_sidecar("c", "detections", {"detector": "tests.sidecars.test_contract:Corners", "max_boxes": 1})
    assert few.kind(few.settings).rows(samples[0])["score"].tolist() == [np.float32(0.9)]


def test_other_weights_are_other_settings(tmp_path: Path, masa_weights: str) -> None:
    copy = tmp_path / "elsewhere.safetensors"
    copy.write_bytes(Path(masa_weights).read_bytes())
    parts = [
        fingerprint_parts(asked.kind, asked.settings)
        for asked in (request_of("masa", masa_weights), request_of("masa", str(copy)))
    ]
    assert parts[0] == parts[1], "where a checkpoint lies does not matter"
    assert len(parts[0]["producer"]["settings"]["weights_sha256"]) == 64
    with pytest.raises(InputError, match="masa needs weights"):
        request_of("masa")


def test_settings_that_came_later_are_written_only_where_they_are_used(tmp_path: Path) -> None:
    """So a sidecar that was begun before there were these settings goes on, and is the same bytes."""
    root, settings = make_dataset(str(tmp_path)).root, {"detector": "tests.sidecars.test_contract:Corners"}
    make_sidecar(root, "corners", "detections", settings)
    stored = (tmp_path / "sidecars" / "corners" / "sidecar.json").read_text()
    assert '"min_score"' in stored and '"classes"' not in stored and '"text_weights"' not in stored
    assert '"files"' not in stored
    with pytest.raises(SidecarError, match="classes was '', now 'thing'"):
        make_sidecar(root, "corners", "detections", {**settings, "classes": "thing"})


def test_detections_end_to_end(tmp_path: Path) -> None:
    root = make_dataset(str(tmp_path)).root
    outcome = make_sidecar(root, "corners", "detections", {"detector": "tests.sidecars.test_contract:Corners"})
    assert sum(result.rows for result in outcome.made) == 2 * 14 and not outcome.failed
    assert make_sidecar(root, "corners", "detections", {"detector": "tests.sidecars.test_contract:Corners"}).made == []


def test_chains_link_what_overlaps_most_and_only_once(samples: list[Sample]) -> None:
    clip = samples[1]
    rows = ChainProducer(ChainSettings(min_iou=0.3, min_length=2)).rows(clip)
    assert sorted(set(rows["chain"].tolist())) == list(range(max(rows["chain"]) + 1)), "numbered without gaps"
    for chain in set(rows["chain"].tolist()):
        own = rows["chain"] == chain
        frames, boxes = rows["frame"][own], rows["box"][own]
        assert len(frames) >= 2 and (np.diff(frames) == 1).all(), "one proposal a frame, without gaps"
        overlaps = [float(iou_matrix(a[None], b[None])[0, 0]) for a, b in pairwise(boxes)]
        assert np.allclose(rows["iou"][own][1:], overlaps) and min(overlaps) >= 0.3 and rows["iou"][own][0] == 0
    for frame in range(5):
        proposals = rows["proposal"][rows["frame"] == frame]
        assert len(set(proposals.tolist())) == len(proposals)
        expected = np.array(clip.record.frames[frame].proposals.boxes, np.float32)[proposals]
        assert np.array_equal(rows["box"][rows["frame"] == frame], expected)


GOOD = {"frame": [0, 0], "box": [[0, 0, 5, 5]] * 2, "mean": [1.0, 2.0], "bright": [True, False], "label": ["a", "b"]}
BAD_ROWS = [
    # what differs from good rows, what is said
    ({"box": None}, "columns 'box' are missing"),
    ({"more": [1, 2]}, "columns 'more' are missing or not declared"),
    ({"frame": [0, 1]}, "'frame' should rise from 0 to 0"),
    ({"frame": [0.0, 0.0]}, "'frame' should be (N,) whole numbers"),
    ({"mean": [1.0]}, "'mean' should be float32 of shape (2,)"),
    ({"mean": [1.0, float("nan")]}, "'mean' holds a number that is not finite"),
    ({"mean": [1.0, 1e300]}, "'mean' holds a number that is not finite in float32"),
    ({"mean": ["a", "b"]}, "'mean' should be float32"),
    ({"bright": [1, 0]}, "'bright' should be bool"),
    ({"label": ["a", 3]}, "'label' should hold text"),
    ({"label": ["a"]}, "'label' has 1 values for 2 rows"),
    ({"box": [[0, 0, 5, 5], [0, 0, 65, 5]]}, "'box': row 1 is [0.0, 0.0, 65.0, 5.0]"),
    ({"pixels": [1.5, 2.0]}, "'pixels' should be int64"),
]


@pytest.mark.parametrize(("changes", "said"), BAD_ROWS, ids=[row[1] for row in BAD_ROWS])
def test_rows_that_are_not_as_declared_are_refused(samples: list[Sample], changes: dict[str, Any], said: str) -> None:
    columns = request_of("brightness").kind.columns
    good: Rows = GOOD | {"pixels": [3, 4]}
    assert check_rows("test", columns, samples[0], good)["box"].dtype == np.float32
    rows = {name: values for name, values in (good | changes).items() if values is not None}
    with pytest.raises(BadRows) as raised:
        check_rows("test", columns, samples[0], rows)
    assert said in str(raised.value) and samples[0].key in str(raised.value)
