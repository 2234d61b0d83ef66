"""Any detector by name in sidecars: from files, folders of transformers, with a vocabulary; the same on each worker."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from tests.make_dataset import make_dataset
from trackmill.models.detic.vocabulary import Vocabulary
from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.shards.reader import open_dataset, read_row
from trackmill.pipeline.sidecars.about import fingerprint_parts
from trackmill.pipeline.sidecars.producers import detector_choice
from trackmill.pipeline.sidecars.producers.detections import DetectionProducer, DetectionSettings
from trackmill.pipeline.sidecars.producers.file_detections import NotInFile, video_names
from trackmill.pipeline.sidecars.run import make_sidecar
from trackmill.pipeline.vocabulary import vocabulary_from_bytes, write_vocabulary
from trackmill.schemas.config import digest
from trackmill.schemas.errors import InputError
from trackmill.schemas.published import BadWeights

# Of pictures and a clip of 128 x 96 pixels, stored at half that size; the clip has every fourth frame of its video.
PICTURES, CLIP, FRAMES = ("/raw/images/pic0.jpg", "/raw/images/pic1.jpg"), "/raw/videos/bikes-c000", (0, 4, 8, 12, 16)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(str(tmp_path_factory.mktemp("set")), num_images=2, num_frames=5).root


@pytest.fixture(scope="module")
def samples(root: str) -> dict[str, Sample]:
    dataset = open_dataset(root)
    found = [read_row(dataset, row) for row in dataset.stored]
    assert {sample.record.origin.source_id for sample in found} == {*PICTURES, CLIP}
    return {sample.record.origin.source_id: sample for sample in found}


def producer(**settings: Any) -> DetectionProducer:
    config = DetectionProducer.resolve(DetectionSettings(**{"device": "cpu", "min_score": 0, **settings}))
    return DetectionProducer.build(config, DetectionProducer.shared_files(config, {}))


def fingerprint(**settings: Any) -> str:
    config = DetectionProducer.resolve(DetectionSettings(**settings))
    return digest(fingerprint_parts(DetectionProducer, config))


def coco(path: Path, names: tuple[str, ...] = ("images/pic0.jpg", "images/pic1.jpg"), **changes: Any) -> str:
    boxes = [(1, [10, 20, 40, 30], 0.5, 9), (1, [100, 80, 90, 90], 0.9, 4), (1, [0, 0, 8, 8], 0.2, 9)]
    content = {
        "images": [{"id": number + 1, "file_name": name} for number, name in enumerate(names)],
        "categories": [{"id": 4, "name": "dog"}, {"id": 9, "name": "cat"}],
        "annotations": [
            {"image_id": image, "bbox": box, "score": score, "category_id": label} for image, box, score, label in boxes
        ],
    }
    path.write_text(json.dumps({**content, **changes}))
    return f"file:{path}"


def test_boxes_of_a_coco_file_are_scaled_to_the_stored_frames(tmp_path: Path, samples: dict[str, Sample]) -> None:
    made = producer(detector=coco(tmp_path / "det.json"))
    rows = made.rows(samples[PICTURES[0]])
    assert rows["label"] == ["dog", "cat", "cat"]
    assert rows["box"].tolist() == [[50, 40, 64, 48], [5, 10, 25, 25], [0, 0, 4, 4]]
    assert len(made.rows(samples[PICTURES[1]])["frame"]) == 0, "the file knows it and has no boxes of it"
    with pytest.raises(NotInFile, match="has no video or text called '/raw/videos/bikes-c000'"):
        made.rows(samples[CLIP])
    cats = producer(detector=coco(tmp_path / "det.json"), classes="cat", options={"max_boxes": 1})
    assert cats.rows(samples[PICTURES[0]])["label"] == ["cat"]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("pic0.jpg", "pic1.jpg"), True),
        (("raw/images/pic0.jpg", "other/pic0.jpg"), True),
        (("train/pic0.jpg", "pic1.jpg"), True),  # the only one of that name
        (("train/pic0.jpg", "val/pic0.jpg"), False),  # which of them?
        (("pic2.jpg", "pic1.jpg"), False),
    ],
)
def test_pictures_are_found_by_the_end_of_their_path(
    tmp_path: Path, samples: dict[str, Sample], names: tuple[str, ...], found: bool
) -> None:
    made = producer(detector=coco(tmp_path / "det.json", names))
    if found:
        assert len(made.rows(samples[PICTURES[0]])["frame"]) == 3
    else:
        with pytest.raises(NotInFile, match=r"has no image whose name ends '/raw/images/pic0.jpg'"):
            made.rows(samples[PICTURES[0]])


@pytest.mark.parametrize("layout", ["{name}.txt", "{name}/det/det.txt", "coco"])
def test_detections_of_videos(tmp_path: Path, samples: dict[str, Sample], layout: str) -> None:
    """Frame f (from 0) of the video has a box that begins at x = 2 f."""
    if layout == "coco":
        videos = [{"id": 3, "name": "elsewhere.mp4"}, {"id": 5, "name": "bikes-c000.mp4"}]
        images = [
            {"id": 100 * video + frame, "video_id": video, "frame_id": frame} for video in (3, 5) for frame in range(18)
        ]
        boxes = [{"image_id": 500 + frame, "bbox": [2 * frame, 10, 20, 20], "category_id": 4} for frame in range(18)]
        url = coco(tmp_path / "det.json", images=images, videos=videos, annotations=boxes)
    else:
        for name, shift in (("bikes-c000", 0), ("another", 50)):
            path = tmp_path / "det" / layout.format(name=name)
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [f"{frame + 1},-1,{2 * frame + shift},10,20,20,0.7" for frame in range(18)]
            path.write_text("\n".join(lines))
        url = f"file:{tmp_path / 'det'}"
    rows = producer(detector=url).rows(samples[CLIP])
    assert rows["frame"].tolist() == [0, 1, 2, 3, 4]
    assert rows["box"][:, 0].tolist() == [float(frame) for frame in FRAMES]


def test_what_a_video_may_be_called() -> None:
    assert video_names("/data/MOT17/train/MOT17-02/img1")[1:] == ("MOT17-02",)
    assert video_names("s3://bucket/a/clip.v2.mp4")[1:] == ("clip.v2.mp4", "clip.v2")


def test_a_sample_that_the_files_do_not_know_is_counted(tmp_path: Path) -> None:
    root = make_dataset(str(tmp_path / "set"), num_images=2, num_frames=5).root
    outcome = make_sidecar(root, "det", "detections", {"detector": coco(tmp_path / "det.json"), "min_score": 0})
    assert sum(result.rows for result in outcome.made) == 3
    assert sum(len(result.quarantined) for result in outcome.made) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"annotations": None}, "annotations: should be a list"),
        ({"images": [{"id": 1}]}, "neither a file_name nor a video_id"),
        ({"annotations": [{"image_id": 9, "bbox": [0, 0, 1, 1]}]}, r"annotations\[0\].image_id: there is no image 9"),
        ({"annotations": [{"image_id": 1, "bbox": [0, 0, 1], "category_id": 4}]}, r"annotations\[0\].bbox: should be"),
        ({"annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1], "category_id": 5}]}, "there is no category 5"),
    ],
)
def test_files_that_are_broken_are_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    url = coco(tmp_path / "det.json", **change)
    with pytest.raises(InputError, match=f"det.json.*{said}"):
        producer(detector=url)


def test_files_decide_the_fingerprint_wherever_they_lie(tmp_path: Path) -> None:
    first, second = (coco(tmp_path / f"{name}.json") for name in "ab")
    before = fingerprint(detector=first)
    assert before == fingerprint(detector=second)
    config = DetectionProducer.resolve(DetectionSettings(detector=first))
    coco(tmp_path / "a.json", categories=[{"id": 4, "name": "dog"}, {"id": 9, "name": "lynx"}])
    assert fingerprint(detector=first) != before
    with pytest.raises(BadWeights, match="this run was planned with"):
        DetectionProducer.build(config, {})
    with pytest.raises(InputError, match="has no class 'cow'"):
        producer(detector=second, classes="cow")


def test_a_folder_of_transformers(tmp_path: Path, samples: dict[str, Sample]) -> None:
    pytest.importorskip("transformers")
    from tests.detectors.tiny_hf import save_detr
    from trackmill.models.registry import find_detector

    folder = save_detr(tmp_path / "detr")
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    settings: dict[str, Any] = {"min_score": 0.01, "options": {"nms_iou": 0.99}}
    before = fingerprint(detector=f"hf:{folder}", **settings)
    assert before == fingerprint(detector=f"hf:{copy}", **settings)
    config = DetectionProducer.resolve(DetectionSettings(detector=f"hf:{copy}", device="cpu", **settings))
    implementation = DetectionProducer.implementation(config)
    assert implementation["detector"] == "hf" and implementation["transformers"]
    rows = DetectionProducer.build(config, {}).rows(samples[PICTURES[0]])
    # Its own default, 0.5, gives way to the least score of the sidecar.
    image = samples[PICTURES[0]].image(0)
    (found,) = find_detector(f"hf:{folder}", {"min_score": 0.01, "nms_iou": 0.99}).build().detect([image])
    assert len(rows["frame"]) == len(found) > 0
    assert sorted(rows["score"].tolist()) == sorted(found.scores.tolist())
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(data + b" ")
        assert fingerprint(detector=f"hf:{copy}", **settings) != before
        with pytest.raises(BadWeights, match="the model differs between machines or was replaced"):
            DetectionProducer.build(config, {})
        (copy / name).write_bytes(data)


def test_a_vocabulary_is_read_once_and_shared(tmp_path: Path) -> None:
    weights = tmp_path / "detic.pth"
    weights.write_bytes(b"not read here")
    vectors = np.random.default_rng(0).standard_normal((2, 512), np.float32)
    url = str(tmp_path / "classes.npz")
    write_vocabulary(Vocabulary(vectors, ("cat", "dog")), url)
    config = DetectionProducer.resolve(DetectionSettings(detector=f"detic:{weights}", classes=url))
    assert len(config.weights_sha256) == 64 and detector_choice.label(config) == "detic"
    files = DetectionProducer.shared_files(config, {})
    assert vocabulary_from_bytes(files["vocabulary.npz"], "x").names == ("cat", "dog")
    assert DetectionProducer.shared_files(config, files) == files
    with pytest.raises(InputError, match=r"name its weights: detic:PATH or detic:URL.*masa_detic"):
        DetectionProducer.resolve(DetectionSettings(detector="detic", classes=url))


def test_a_model_without_maps_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="masa works on the maps of a model, and ip_mot offers none"):
        producer(detector="masa", model="ip_mot", weights="none.pth")
