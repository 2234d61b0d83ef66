"""What every embedder must do; a new one is one more row in `EMBEDDERS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from tests.tracking.make_tracking import ColourEmbedder, make_frame, square_boxes  # noqa: E402
from trackmill.models import masa, scaletrack  # noqa: E402
from trackmill.models.detectors.frame_scaling import FrameScaling  # noqa: E402
from trackmill.models.embedders.base import Embedder  # noqa: E402
from trackmill.models.embedders.scaled import ScaledEmbedder  # noqa: E402
from trackmill.models.masa.frame_features import FrameFeatures  # noqa: E402
from trackmill.models.scaletrack.variants import VARIANTS  # noqa: E402
from trackmill.schemas.boxes import Boxes  # noqa: E402

SCALING = FrameScaling(long_side=96, short_side=96)


class Remembering(Embedder):
    """Each embedding is blended with the frame before it, as of an embedder that looks back in time."""

    def __init__(self) -> None:
        self._colours = ColourEmbedder()
        self.reset()

    def reset(self) -> None:
        self._before = np.zeros(3, np.float32)

    def embed(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Boxes]) -> list[NDArray[np.float32]]:
        embeddings = []
        for image, each in zip(images, boxes, strict=True):
            (own,) = self._colours.embed([image], [each])
            embeddings.append(own + self._before)
            self._before = image.mean(axis=(0, 1)).astype(np.float32) / 255
        return embeddings


class RememberingNetwork:
    """The same as a network, behind `ScaledEmbedder`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._seen = 0

    def embed(self, images: torch.Tensor, boxes: list[torch.Tensor]) -> list[torch.Tensor]:
        embeddings = []
        for image, each in zip(images, boxes, strict=True):
            self._seen += 1
            embeddings.append(torch.cat([each, image.mean().expand(len(each), 1) + self._seen], dim=1))
        return embeddings


EMBEDDERS: dict[str, Callable[[], Embedder]] = {
    "scaled": lambda: ScaledEmbedder(masa.load("masa_lite0"), SCALING),
    "scaled-remembering": lambda: ScaledEmbedder(RememberingNetwork(), SCALING),
    "masa-features": lambda: FrameFeatures(masa.load("masa_lite0"), SCALING).embedder(),
    "remembering": Remembering,
    "scaletrack": lambda: scaletrack.load(replace(VARIANTS["scaletrack_lite0"], side=96)).embedder(),
    "scaletrack-other-side": lambda: scaletrack.load("scaletrack_lite0").embedder(SCALING),
}


@pytest.fixture(scope="module", params=EMBEDDERS)
def embedder(request: pytest.FixtureRequest) -> Embedder:
    return EMBEDDERS[request.param]()


def frames() -> tuple[list[NDArray[np.uint8]], list[Boxes]]:
    """Five frames, one of another size; boxes that leave the frame, and a frame without any."""
    images = [make_frame(step) for step in range(4)] + [make_frame(4, 80, 90)]
    boxes = [square_boxes(step) for step in range(5)]
    boxes[1] = boxes[1] - np.float32(30)
    boxes[3] = boxes[3][:0]
    return images, boxes


def embedded(embedder: Embedder, batch_size: int) -> list[NDArray[np.float32]]:
    embedder.reset()
    images, boxes = frames()
    rows: list[NDArray[np.float32]] = []
    for begin in range(0, len(images), batch_size):
        rows += embedder.embed(images[begin : begin + batch_size], boxes[begin : begin + batch_size])
    return rows


def test_one_row_a_box(embedder: Embedder) -> None:
    rows = embedded(embedder, 5)
    assert [len(each) for each in rows] == [3, 3, 3, 0, 3]
    assert all(each.dtype == np.float32 and each.ndim == 2 for each in rows)
    assert len({each.shape[1] for each in rows if len(each)}) == 1
    assert all(np.isfinite(each).all() for each in rows)


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_batches_do_not_matter(embedder: Embedder, batch_size: int) -> None:
    for one, other in zip(embedded(embedder, 5), embedded(embedder, batch_size), strict=True):
        assert len(one) == len(other)
        if len(one):
            assert np.abs(one - other).max() < 1e-5 * max(1, np.abs(one).max())


def test_reset_forgets_earlier_frames(embedder: Embedder) -> None:
    first = embedded(embedder, 5)
    for one, other in zip(first, embedded(embedder, 5), strict=True):
        assert np.array_equal(one, other)


def test_without_reset_an_embedder_may_remember() -> None:
    """The contract test above can fail: these two do give other results if nobody calls `reset`."""
    images, boxes = frames()
    for embedder in (EMBEDDERS["remembering"](), EMBEDDERS["scaled-remembering"]()):
        first = embedder.embed(images, boxes)
        assert not np.array_equal(first[0], embedder.embed(images, boxes)[0])


def test_nothing_in_nothing_out(embedder: Embedder) -> None:
    assert embedder.embed([], []) == []
    assert [len(each) for each in embedder.embed([make_frame(0)], [square_boxes(0)[:0]])] == [0]
