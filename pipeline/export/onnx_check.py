"""Compares an ONNX graph in ONNX Runtime with the model it was made from, on random pictures and boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trackmill.models.masa.model import Masa
from trackmill.schemas.errors import JobError, MissingPackage
from trackmill.schemas.install import install

TOLERANCE = 1e-3
"""Largest allowed difference, as a share of the largest value: float32 rounding through a hundred layers is a hundred
times smaller in trained models, and errors in the graph are far larger."""

COUNTS = (7, 0, 1)
"""Number of boxes in each batch."""

_NEEDED = f"ONNX Runtime is missing: {install('export')}"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference between graph and model.

    Args:
        largest: largest absolute difference of an embedding's value.
        scale: largest absolute value of an embedding.
        tries: number of batches compared.
        num_boxes: number of boxes compared.
        runtime: name and version of the runtime.
    """

    largest: float
    scale: float
    tries: int
    num_boxes: int
    runtime: str

    @property
    def relative(self) -> float:
        """The largest difference as a share of the largest value."""
        return self.largest / self.scale if self.scale else self.largest


def compare(model: Masa, graph: bytes, size: tuple[int, int] | None, seed: int = 0) -> Difference:
    """Run both on the same pictures and boxes: several sizes where the graph allows them, with 7, 0 and 1 boxes.

    Some boxes extend beyond the picture, one is outside it, one is empty; boxes are not in the order of their pictures.

    Args:
        model: on the CPU.
        graph: the serialised result of `trackmill.models.masa.onnx.to_onnx`.
        size: (H, W) of the graph's input; None: any.
        seed: seed of pictures and boxes.

    Raises:
        JobError: they differ by more than `TOLERANCE`, or the graph's result is not finite or has another shape.
        ImportError: ONNX Runtime is missing.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackage(_NEEDED) from error
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    largest = scale = 0.0
    for index, count in enumerate(COUNTS):
        height, width = size or _sizes(model)[index]
        images = rng.integers(0, 256, (2 if index == 0 else 1, 3, height, width)).astype(np.float32)
        boxes = _boxes(rng, count, height, width)
        owners = rng.integers(0, len(images), count)
        actual = session.run(None, {"images": images, "boxes": boxes, "box_images": owners})[0]
        expected = _wanted(model, images, boxes, owners)
        if actual.shape != expected.shape or not np.isfinite(actual).all():
            raise JobError(
                f"the ONNX graph gives {actual.shape} where the model gives {expected.shape}, or numbers that are not "
                "finite. Nothing was written; try another version of ONNX Runtime"
            )
        largest = max(largest, float(np.abs(actual - expected).max(initial=0)))
        scale = max(scale, float(np.abs(expected).max(initial=0)))
    difference = Difference(
        largest=largest,
        scale=scale,
        tries=len(COUNTS),
        num_boxes=sum(COUNTS),
        runtime=f"ONNX Runtime {onnxruntime.__version__}",
    )
    if difference.relative > TOLERANCE:
        raise JobError(
            f"the ONNX graph differs from the model by {largest:.3g}, which is {difference.relative:.2g} of its "
            f"largest value {scale:.3g}; allowed is {TOLERANCE:g}. Nothing was written; try another ONNX Runtime"
        )
    return difference


def _sizes(model: Masa) -> list[tuple[int, int]]:
    """(H, W) of each batch: also odd sizes, and sizes below the coarsest level's stride."""
    side = model.variant.input_side
    return [(side - 24, side // 2 + 3), (17, 33), (side, side)] if side else [(161, 230), (17, 33), (97, 45)]


def _boxes(rng: np.random.Generator, count: int, height: int, width: int) -> NDArray[np.float32]:
    sides = np.array([width, height, width, height], np.float32)
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1).reshape(count, 4)  # x0, y0, x1, y1
    odd = np.array([[-0.3, -0.2, 0.4, 0.5], [0.6, 0.5, 1.4, 1.3], [1.2, 1.1, 1.6, 1.4], [0.5, 0.5, 0.5, 0.5]])
    corners[1:5] = odd[: max(0, count - 1)]
    return corners.astype(np.float32) * sides


def _wanted(
    model: Masa, images: NDArray[np.float32], boxes: NDArray[np.float32], owners: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The model's own embeddings in the order of the boxes."""
    members = [np.flatnonzero(owners == image) for image in range(len(images))]
    embeddings = model.embed(torch.from_numpy(images), [torch.from_numpy(boxes[each]) for each in members])
    expected = np.empty((len(boxes), model.variant.embed_channels), np.float32)
    for each, rows in zip(members, embeddings, strict=True):
        expected[each] = rows.numpy()
    return expected
