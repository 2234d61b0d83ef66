"""How images go through a network of transformers: settings, batches without padding, and results as `Detections`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from trackmill.models.detectors.options import DetectorOptions
from trackmill.schemas.detections import Detections

if TYPE_CHECKING:
    from torch import Tensor


class HfSettings(DetectorOptions):
    """Which model, and what it gives. Defaults of `min_score` are transformers': 0.5, Grounding DINO 0.25, OWL 0.1."""

    model: str = Field(description="A folder that transformers saved, or ORGANISATION/NAME of a model on the hub.")
    revision: str = Field("", description="Of a hub: branch, tag or commit; empty: the newest.")
    text_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Grounding DINO: boxes are left out whose best word scores no more than this; unset: none.",
    )
    classes_per_prompt: int = Field(
        0, ge=0, description="Told what to find: classes of one pass; 0: as many as fit. 1: as transformers' pipeline."
    )


def as_picture(image: NDArray[np.uint8]) -> Any:
    """A picture, as transformers' pipelines hand it to processors: of an array they would guess where channels are."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(image))


def run_in_groups(
    network: Any, prepared: Sequence[Mapping[str, Tensor]], images: Sequence[NDArray[np.uint8]], results: Any
) -> list[dict[str, Any]]:
    """Run a network over prepared images, those of one size together, and read each one's results.

    Processors pad a batch to its largest image, and the padding changes results; here each image is prepared alone.

    Args:
        network: in evaluation mode.
        prepared: what the processor makes of each image.
        images: (H, W, 3) each.
        results: of the network's outputs and (B, 2) heights and widths of the images: what was found, one an image.

    Returns:
        What was found in each image, in their order.
    """
    import torch

    groups: dict[Any, list[int]] = {}
    for place, inputs in enumerate(prepared):
        shapes = tuple((key, tuple(value.shape)) for key, value in inputs.items() if hasattr(value, "shape"))
        groups.setdefault(shapes, []).append(place)
    device = next(network.parameters()).device
    found: list[dict[str, Any]] = [{} for _ in prepared]
    with torch.inference_mode():
        for shapes, places in groups.items():
            batch = {key: torch.cat([prepared[place][key] for place in places]).to(device) for key, _ in shapes}
            sizes = torch.tensor([images[place].shape[:2] for place in places], dtype=torch.int32, device=device)
            for place, one in zip(places, results(network(**batch), sizes), strict=True):
                found[place] = one
    return found


def detections(boxes: Tensor, scores: Tensor, labels: Any, names: tuple[str, ...]) -> Detections:
    """One image's results; boxes that are no boxes (a side below zero, or not finite) are left out."""
    import torch

    sound = torch.isfinite(boxes).all(dim=1) & (boxes[:, 2:] >= boxes[:, :2]).all(dim=1) & torch.isfinite(scores)
    labels = torch.as_tensor(labels, device=boxes.device)
    return Detections(
        boxes=boxes[sound].float().cpu().numpy(),
        scores=scores[sound].float().cpu().numpy(),
        labels=labels[sound].to(torch.int64).cpu().numpy(),
        names=names,
    )
