"""Detectors of transformers: what its own pipelines give, in any batch; and folders that cannot be used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.detectors.tiny_hf import save_detr, save_grounding_dino  # noqa: E402
from trackmill.models.detectors.base import Detector  # noqa: E402
from trackmill.models.registry import find_detector  # noqa: E402
from trackmill.schemas.detections import Detections  # noqa: E402
from trackmill.schemas.errors import InputError  # noqa: E402

SIZES = ((60, 80), (90, 50), (60, 80), (120, 160))  # the last becomes as large as the first when it is prepared
CLASSES = ("cat", "Traffic Light", "dog")


@pytest.fixture(scope="module")
def detr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_detr(tmp_path_factory.mktemp("models") / "detr")


@pytest.fixture(scope="module")
def grounding_dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_grounding_dino(tmp_path_factory.mktemp("models") / "grounding_dino")


def pictures(sizes: Sequence[tuple[int, int]] = SIZES) -> list[NDArray[np.uint8]]:
    """Coloured squares of ten pixels."""
    draw = np.random.default_rng(1)
    blocks = [draw.integers(0, 256, (height // 10, width // 10, 3)) for height, width in sizes]
    return [np.kron(each, np.ones((10, 10, 1))).astype(np.uint8) for each in blocks]


def build(folder: Path, **settings: Any) -> Detector:
    return find_detector(f"hf:{folder}", settings).build()


def check_same(found: Detections, expected: list[dict[str, Any]]) -> None:
    """Compare with what a pipeline returns; it cuts boxes to whole pixels."""
    assert [found.names[label] for label in found.labels] == [each["label"] for each in expected]
    np.testing.assert_allclose(found.scores, [each["score"] for each in expected], atol=1e-5)
    boxes = np.array([list(each["box"].values()) for each in expected]).reshape(-1, 4)
    cut = [np.trunc(found.boxes + each) for each in (-1e-3, 1e-3)]  # a whole number may come out a hair below
    assert ((cut[0] == boxes) | (cut[1] == boxes)).all()


def check_close(found: Sequence[Detections], others: Sequence[Detections]) -> None:
    for one, other in zip(found, others, strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
        assert one.labels.tolist() == other.labels.tolist()


def test_a_network_of_fixed_classes_gives_what_the_pipeline_gives(detr: Path) -> None:
    from PIL import Image

    images = pictures()
    everything = build(detr, min_score=0.0).detect(images)
    scores = np.sort(np.concatenate([each.scores for each in everything]))[8:-8]
    widest = int(np.diff(scores).argmax())
    threshold = float(scores[widest : widest + 2].mean())  # far from every score, so rounding decides nothing
    pipeline = transformers.pipeline("object-detection", model=str(detr))
    detector = build(detr, min_score=threshold)
    found = detector.detect(images)
    for image, one in zip(images, found, strict=True):
        check_same(one, pipeline(Image.fromarray(image), threshold=threshold))
    assert 0 < sum(map(len, found)) < sum(map(len, everything))
    check_close(found, [detector.detect([image])[0] for image in images])
    check_close(found[::-1], detector.detect(images[::-1]))
    assert detector.names == ("cat", "dog", "bird") and detector.category_ids == (1, 2, 3)
    # transformers' own default, 0.5, unless another is asked for
    half = build(detr).detect(images)
    check_close(half, [each.select(each.scores > 0.5) for each in everything])


def test_one_class_at_a_time_gives_what_the_zero_shot_pipeline_gives(grounding_dino: Path) -> None:
    from PIL import Image

    images = pictures(SIZES[:3])
    pipeline = transformers.pipeline("zero-shot-object-detection", model=str(grounding_dino))
    labels = [f"{name.lower()}." for name in CLASSES]
    detector = build(grounding_dino, classes=CLASSES, min_score=0.3, classes_per_prompt=1)
    for image, one in zip(images, detector.detect(images), strict=True):
        expected = pipeline(Image.fromarray(image), candidate_labels=labels, threshold=0.3)
        spelt = dict(zip(labels, CLASSES, strict=True))
        check_same(one, [{**each, "label": spelt[each["label"]]} for each in expected])
    assert detector.category_ids == (1, 2, 3)


def test_one_sentence_gives_what_its_processor_reads_out_of_it(grounding_dino: Path) -> None:
    images = pictures()
    found = build(grounding_dino, classes=CLASSES, min_score=0.3).detect(images)
    processor = transformers.AutoProcessor.from_pretrained(grounding_dino)
    network = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(grounding_dino).eval()
    agreed = 0
    for image, one in zip(images, found, strict=True):
        from PIL import Image

        inputs = processor(images=Image.fromarray(image), text=[list(CLASSES)], return_tensors="pt")
        with torch.no_grad():
            outputs = network(**inputs)
        (expected,) = processor.post_process_grounded_object_detection(
            outputs, inputs["input_ids"], threshold=0.3, text_threshold=0.9, target_sizes=[image.shape[:2]]
        )
        order = np.argsort(-expected["scores"].numpy(), kind="stable")
        np.testing.assert_allclose(one.scores, expected["scores"].numpy()[order], atol=1e-5)
        np.testing.assert_allclose(one.boxes, expected["boxes"].numpy()[order], atol=1e-3)
        for label, place in zip(one.labels.tolist(), order.tolist(), strict=True):
            phrase = expected["text_labels"][place]
            if phrase in [name.lower() for name in CLASSES]:  # others are parts of several classes
                assert CLASSES[label].lower() == phrase
                agreed += 1
    assert agreed > 3 and len({int(label) for each in found for label in each.labels}) > 1


def test_a_sentence_is_parted_where_it_is_too_long(grounding_dino: Path) -> None:
    names = [f"{first} {second}" for first in ("red", "a") for second in ("cat", "dog", "bird", "traffic", "person")]
    detector = build(grounding_dino, classes=[*names, "zebra"], min_score=0.0)
    prompts = detector._prompts  # type: ignore[attr-defined]
    # 32 tokens, two of them at the ends; "red cat." has three, "zebra." six.
    assert [len(part) for _, part in prompts] == [10, 1]
    assert [first for first, _ in prompts] == [0, 10]
    (found,) = detector.detect(pictures(SIZES[:1]))
    assert set(found.labels.tolist()) > {10} and (np.diff(found.scores) <= 0).all()
    one_by_one = build(grounding_dino, classes=["zebra"], min_score=0.0).detect(pictures(SIZES[:1]))[0]
    last = found.select(found.labels == 10)
    np.testing.assert_allclose(last.boxes, one_by_one.boxes, atol=1e-3)


def test_a_box_that_no_word_reaches_is_left_out(grounding_dino: Path) -> None:
    images = pictures(SIZES[:1])
    (loose,) = build(grounding_dino, classes=CLASSES, min_score=0.0).detect(images)
    (strict,) = build(grounding_dino, classes=CLASSES, min_score=0.0, text_threshold=0.5).detect(images)
    assert 0 < len(strict) < len(loose)


def test_classes_of_a_fixed_network_are_a_filter(detr: Path) -> None:
    images = pictures(SIZES[:1])
    (everything,) = build(detr, min_score=0.0).detect(images)
    (cats,) = build(detr, min_score=0.0, classes="Cat").detect(images)
    check_close([cats], [everything.select(everything.labels == 0)])
    with pytest.raises(InputError, match="has no class 'bord'; did you mean 'bird'"):
        build(detr, classes="bord")


@pytest.fixture
def copy(detr: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(detr, tmp_path / "copy"))


def spoil(folder: Path, name: str, **changes: Any) -> None:
    config = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**config, **changes}))


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _no_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def _cut_weights(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def _fewer_tensors(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors.pop("class_labels_classifier.bias")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _nan(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["class_labels_classifier.bias"][0] = torch.nan
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (_no_config, "copy: has no config.json; give a folder that transformers saved"),
        (lambda folder: (folder / "config.json").write_text("[" * 9999), "config.json: not what transformers writes"),
        (lambda folder: (folder / "config.json").write_text(" " * (5 << 20)), "5,242,880 bytes, more than"),
        (lambda folder: spoil(folder, "config.json", model_type="bert"), "'bert', which is no object detector"),
        (lambda folder: spoil(folder, "config.json", model_type="dettr"), "did you mean 'detr'"),
        (lambda folder: spoil(folder, "config.json", d_model="many"), "copy: transformers cannot read it"),
        (lambda folder: spoil(folder, "config.json", d_model=16), r"do not fit its config.json: \d+ of another shape"),
        (lambda folder: spoil(folder, "config.json", model_type=None), "has no model_type"),
        (
            lambda folder: spoil(folder, "config.json", id2label={"0": "a", "1": "b", "99999999999": "c"}),
            "counts to 99,999",
        ),
        (_pickled, "has no .safetensors with the weights .pytorch_model.bin can hold code"),
        (_no_processor, "has no preprocessor_config.json, which says how images are prepared"),
        (lambda folder: spoil(folder, "preprocessor_config.json", image_processor_type="X"), "copy: "),
        (_cut_weights, "copy: a damaged .safetensors, copy it again"),
        (_fewer_tensors, "1 missing: class_labels_classifier.bias"),
        (_nan, "1 with NaN or infinity: class_labels_classifier.bias"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_line(copy: Path, fault: Any, said: str) -> None:
    fault(copy)
    with pytest.raises(InputError, match=said) as error:
        build(copy)
    assert "\n" not in str(error.value)


def test_code_in_a_folder_is_not_run(copy: Path, tmp_path: Path) -> None:
    (copy / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\n")
    spoil(copy, "config.json", model_type="mine", auto_map={"AutoConfig": "evil.Config"})
    with pytest.raises(InputError, match="'mine', which is no object detector"):
        build(copy)
    assert not (tmp_path / "ran").exists()


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="no folder of this machine, and the hub gave no model of that name") as error:
        build(Path("somebody/detector-of-nothing"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "it finds what it is told: name the classes"),
        ({"classes": "cat,?"}, "the class '.' comes to no word"),
        ({"classes": "cat,cat"}, "the class 'cat' is named twice"),
        ({"classes": "x" * 40}, "has 41 tokens, more than 30"),
        ({"classes": "cat", "clases": 1}, "unknown key 'clases'; did you mean 'classes'"),
    ],
)
def test_classes_that_cannot_be_told(grounding_dino: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        build(grounding_dino, **settings)
