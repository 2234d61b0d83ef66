"""A person detector that needs no download: SSDLite-MobileNetV2 with the weights of a package, in plain torch.

It is small and fast, and its 300 x 300 pixels lose people who are small in the frame: `tiles` looks at parts of it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from torch import Tensor

from trackmill.models.detectors.base import Detector, check_images
from trackmill.models.detectors.options import DetectorOptions
from trackmill.models.detectors.ssdlite_network import SIZE, SsdliteNetwork, anchors, decode, ours, resize, scores
from trackmill.models.weights.fit import fit
from trackmill.models.weights.packaged_person import GRAPH_SHA256, packaged_tensors
from trackmill.schemas.boxes import box_areas, clip_boxes, nms
from trackmill.schemas.detections import Detections

LEAST_SCORE = 0.3
"""At it, recall and precision are those of the public detections of MOT15's small scenes; the graph itself gives all.

TUD-Stadtmitte, every 15th frame: .74 at .87; PETS09-S2L1, every 15th of 150: .68 at .81 (IoU 0.5). With 3 x 2 tiles
PETS has .82 at .72, and TUD, where people are large, .78 at .69. On the four frames of MOT17-02 that were tried,
with 30 small people each, the whole frame finds .12.
"""

NMS_IOU = 0.6
MOST_BOXES = 100
"""Both the graph's."""

_OVERLAP = 0.25
"""Of neighbouring tiles, as a part of a tile: who is cut by the border of one is whole in another."""

_BORDER = 0.01
"""A box that ends so close to a border between tiles, as a part of the tile, is taken for one that is cut."""

_LARGEST_GRID = 16
"""Tiles along a side; more would be smaller than what 300 pixels need of most videos."""

_GPU_BATCH = 32
"""Looks of 300 x 300 in the network together, where the batch does not decide the last bits of a score."""


class SsdlitePersonSettings(DetectorOptions):
    """Options of all detectors, and its own. Left out: a least score of 0.3, NMS of 0.6, 100 boxes."""

    min_score: float | None = Field(None, ge=0, le=1, description="Detections below it are left out.")
    tiles: tuple[int, int] = Field(
        (1, 1),
        description="Overlapping parts of the frame, across and down, looked at beside the whole frame: (3, 2) "
        "finds smaller people, in seven times the time; (1, 1): the whole frame alone, as the graph does.",
    )

    @field_validator("tiles")
    @classmethod
    def _grid(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not all(1 <= count <= _LARGEST_GRID for count in value):
            raise ValueError(f"should be two numbers from 1 to {_LARGEST_GRID}: across, down")
        return value


class SsdlitePerson(Detector):
    """People in whole frames, each resized to 300 x 300 whatever its shape.

    On a CPU an image gives the same bits in whatever batch it comes; on a GPU scores may differ in the last ones.

    Args:
        network: with its weights.
        options: what is asked of it.
        device: where it is put.
    """

    Config = SsdlitePersonSettings
    applies = frozenset({"min_score", "nms_iou", "class_agnostic_nms", "max_boxes"})
    version = 1
    """Raised whenever the same images give other detections."""

    libraries = ("timm",)
    names = ("person",)
    category_ids = (1,)

    def __init__(
        self,
        network: SsdliteNetwork,
        options: SsdlitePersonSettings | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._network = network.eval().to(device)
        self._device = torch.device(device)
        self._options = options or SsdlitePersonSettings()

    @classmethod
    def build(
        cls,
        config: SsdlitePersonSettings,
        tensors: Mapping[str, Tensor] | None = None,
        device: torch.device | str = "cpu",
    ) -> SsdlitePerson:
        """What the registry builds; see `trackmill.models.registry`.

        Args:
            config: what is asked of it.
            tensors: of an `SsdliteNetwork`; None: the packaged ones.
            device: where it is put.

        Raises:
            MissingPackage: the package is not installed; says what to type.
            BadWeights: the package's file is damaged, or tensors do not fit.
        """
        network = SsdliteNetwork()
        fit(network, ours(packaged_tensors()) if tensors is None else tensors, "ssdlite-person")
        return cls(network, config, device)

    @classmethod
    def recognise(cls, tensors: Mapping[str, Tensor]) -> str | None:
        """None: its weights are in a package, and no checkpoint file."""
        return None

    @classmethod
    def implementation(cls, config: SsdlitePersonSettings) -> dict[str, str]:
        """What decides its detections beside settings and libraries, for fingerprints: the graph."""
        return {"weights_sha256": GRAPH_SHA256}

    @torch.inference_mode()
    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`; boxes lie inside the image, best first.

        Raises:
            InputError: an image is not (H, W, 3) uint8.
        """
        check_images(images)
        per_image = [self._windows(*image.shape[:2]) for image in images]
        looks = [
            resize(self._pixels(image[y0:y1, x0:x1]), SIZE, SIZE)
            for image, windows in zip(images, per_image)
            for x0, y0, x1, y1 in windows
        ]
        boxes, confidences = self._run(looks)
        found, begin = [], 0
        for image, windows in zip(images, per_image):
            end = begin + len(windows)
            found.append(self._detections(boxes[begin:end], confidences[begin:end], windows, *image.shape[:2]))
            begin = end
        return found

    def _run(self, looks: Sequence[Tensor]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes (looks, A, 4), as parts of each look, and scores (looks, A) of (1, 3, 300, 300) each."""
        together = 1 if self._device.type == "cpu" else _GPU_BATCH
        boxes, confidences = [np.zeros((0, 0, 4), np.float32)], [np.zeros((0, 0), np.float32)]
        for begin in range(0, len(looks), together):
            batch = torch.cat(list(looks[begin : begin + together]))
            encodings, logits, maps = self._network(batch * (2 / 255) - 1)
            priors = anchors(maps, SIZE, SIZE).to(encodings)
            boxes.append(decode(encodings, priors).cpu().numpy())
            confidences.append(scores(logits)[..., 0].cpu().numpy())
        return (np.concatenate(boxes[1:]), np.concatenate(confidences[1:])) if looks else (boxes[0], confidences[0])

    def _detections(
        self,
        parts: NDArray[np.float32],
        confidences: NDArray[np.float32],
        windows: NDArray[np.int64],
        height: int,
        width: int,
    ) -> Detections:
        """Of one image: `parts` (looks, A, 4) and `confidences` (looks, A) of its `windows` (looks, 4)."""
        options = self._options
        least = np.float32(LEAST_SCORE if options.min_score is None else options.min_score)
        all_boxes, all_scores = [], []
        for boxes, confidence, window in zip(parts, confidences, windows):
            kept = (confidence >= least) & np.isfinite(boxes).all(axis=1)
            kept &= ~_cut(boxes, window, height, width)
            x0, y0, x1, y1 = window.tolist()
            sides = np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0], np.float32)
            all_boxes.append(boxes[kept] * sides + np.array([x0, y0, x0, y0], np.float32))
            all_scores.append(confidence[kept])
        boxes, confidence = np.concatenate(all_boxes), np.concatenate(all_scores)
        # As the graph: suppressed, counted, and then cut at the border of the image.
        best = nms(boxes, confidence, NMS_IOU if options.nms_iou is None else options.nms_iou)
        best = best[: options.max_boxes or MOST_BOXES * (1 if len(windows) == 1 else len(windows))]
        boxes = clip_boxes(boxes[best], height, width)
        seen = box_areas(boxes) > 0
        return Detections(
            boxes=boxes[seen],
            scores=confidence[best][seen],
            labels=np.zeros(int(seen.sum()), np.int64),
            names=self.names,
        )

    def _pixels(self, image: NDArray[np.uint8]) -> Tensor:
        """(1, 3, H, W) uint8 on the device."""
        # Copied where it is read-only, which torch would warn of.
        own = np.require(image, requirements=["C", "W"])
        return torch.from_numpy(own).to(self._device).permute(2, 0, 1)[None]

    def _windows(self, height: int, width: int) -> NDArray[np.int64]:
        """(looks, 4) `xyxy` in whole pixels: the frame itself, then its tiles row by row."""
        across, down = self._options.tiles
        whole = [(0, 0, width, height)]
        if (across, down) == (1, 1):
            return np.array(whole)
        columns, rows = _spans(width, across), _spans(height, down)
        return np.array([*whole, *((x0, y0, x1, y1) for y0, y1 in rows for x0, x1 in columns)])


def _spans(length: int, count: int) -> list[tuple[int, int]]:
    """`count` overlapping parts of 0..length, of one pixel at least."""
    part = length / (count - (count - 1) * _OVERLAP)
    starts = [round(place * part * (1 - _OVERLAP)) for place in range(count)]
    return [(min(start, length - 1), min(max(round(start + part), start + 1), length)) for start in starts]


def _cut(boxes: NDArray[np.float32], window: NDArray[np.int64], height: int, width: int) -> NDArray[np.bool_]:
    """(N,) whether boxes (N, 4), as parts of the window, end at a border of it that is not the frame's."""
    x0, y0, x1, y1 = window.tolist()
    inner = np.array([x0 > 0, y0 > 0, x1 < width, y1 < height])
    near = np.concatenate([boxes[:, :2] <= _BORDER, boxes[:, 2:] >= 1 - _BORDER], axis=1)
    ends: NDArray[np.bool_] = (near & inner).any(axis=1)
    return ends
