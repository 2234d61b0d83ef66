"""Proposals of Segment Anything: a grid of points, three masks a point, gated and without duplicates.

The masks are those of segment-anything 1.0's generator with the settings of the MASA paper (32 x 32 points, predicted
IoU 0.88, stability 0.95, box NMS 0.7), made by `trackmill.models.sam`.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from trackmill.models.proposers.base import Proposer, WeightsSettings
from trackmill.models.proposers.refusals import count_refusals, show_refusals
from trackmill.schemas.boxes import Boxes, clip_boxes, empty_boxes
from trackmill.schemas.errors import InputError, MissingPackage
from trackmill.schemas.install import install
from trackmill.schemas.masks import CroppedMask, mask_box
from trackmill.schemas.media import Frame, ProposalSet

if TYPE_CHECKING:
    import torch
    from segment_anything.modeling import Sam

    from trackmill.models.sam import PromptableSegmenter
    from trackmill.models.sam.candidates import Candidates
    from trackmill.models.sam.mask_generation import GeneratedMasks

_REASONS = ("low_iou", "low_stability", "low_stability_or_cut", "duplicate", "duplicate_after_cleaning", "empty")


class SamSettings(WeightsSettings):
    """Settings of `sam`. Defaults are those of the MASA paper and of segment-anything, where the two differ MASA's."""

    weights: str = Field(
        "", description="Path or URL of the checkpoint (.pth or .safetensors), e.g. sam_vit_h_4b8939.pth. Required."
    )
    variant: Literal["vit_b", "vit_l", "vit_h", "mobile"] = Field(
        "vit_h",
        description="Image encoder: 0.97, 2.99 or 5.96 TFLOP an image; mobile: MobileSAM's. Must be the checkpoint's.",
    )
    points_per_side: int = Field(
        32, ge=1, le=256, description="Grid of n x n points. More finds smaller things; decoder time grows with n x n."
    )
    points_per_batch: int = Field(
        64, ge=1, description="Points decoded at once: memory against speed. Halved when a GPU runs out of memory."
    )
    pred_iou_thresh: float = Field(
        0.88,
        ge=0,
        le=1,
        description="Masks whose quality, as the model predicts it, is not above this are refused; 0: none.",
    )
    stability_score_thresh: float = Field(
        0.95,
        ge=0,
        le=1,
        description="Masks that change more than this allows when the cutoff moves are refused; 0: none.",
    )
    stability_score_offset: float = Field(
        1.0,
        gt=0,
        description="How far the cutoff is moved up and down for the stability, in logits; larger is stricter.",
    )
    box_nms_thresh: float = Field(
        0.7, gt=0, le=1, description="Of two boxes with an IoU above this the one of higher predicted quality stays."
    )
    min_mask_region_area: int = Field(100, ge=0, description="Holes and islands of fewer pixels are mended; 0: none.")
    crop_n_layers: int = Field(
        0,
        ge=0,
        le=3,
        description="Runs again on 4, 16, ... crops for small things, at as many times the cost. Paper: 0.",
    )
    images_per_batch: int = Field(
        1, ge=1, description="Frames of a clip (or crops) encoded together, on a GPU. Halved when memory runs out."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of the model's large products. With bfloat16 some masks differ."
    )
    compiled: bool = Field(False, description="torch.compile the model, which the first pictures wait for.")


class SamProposer(Proposer):
    """SAM's everything mode; the score is the predicted IoU.

    The masks are those of segment-anything's reference generator (see `trackmill.models.sam.generator`). Boxes are
    taken from the masks, with exclusive right and lower edges. The reference's own `bbox` ends at the last pixel
    inside, one pixel short of ours. Predicted IoUs above 1 (the head is linear) become 1 after sorting.

    Refused, each candidate mask once: `low_iou`; `low_stability` (called `low_stability_or_cut` with crops, where it
    includes masks cut by a crop's edge); `duplicate`; `duplicate_after_cleaning` (two masks alike once their holes
    were mended); `empty` (only with both thresholds at 0). Refused and kept add up to three times the points. Boxes to
    look at exist for duplicates only: the others are never measured.

    Several threads may call `propose` at once: the model serves one after the other, while masks are finished beside
    it.

    Args:
        config: the settings; `weights` is for whoever loads `state_dict` and is not looked at here.
        state_dict: tensors of the official checkpoints, by name.
        device: where the model runs.

    Raises:
        MissingPackage: a package is missing.
        ValueError: the checkpoint is of another variant or of another model; names the keys and shapes.
    """

    name = "sam"
    uses_gpu = True
    concurrency = 2
    version = 2
    Config = SamSettings

    def __init__(
        self, config: SamSettings, state_dict: Mapping[str, torch.Tensor], device: str | torch.device = "cpu"
    ) -> None:
        self._adopt(_load_model(config.variant, state_dict).to(device), config)

    @classmethod
    def from_model(cls, sam: Sam | PromptableSegmenter, config: SamSettings) -> SamProposer:
        """Use a model that is already in memory, on its own device; `config.variant` is not looked at."""
        proposer = cls.__new__(cls)
        proposer._adopt(sam, config)
        return proposer

    @classmethod
    def build(
        cls, config: SamSettings, tensors: Mapping[str, torch.Tensor] | None = None, device: str | torch.device = "cpu"
    ) -> SamProposer:
        """See `Proposer.build`."""
        return cls(cls.resolve(config), tensors or {}, device)

    @classmethod
    def recognise(cls, tensors: Mapping[str, torch.Tensor]) -> str | None:
        """See `Proposer.recognise`."""
        from trackmill.models.sam.loading import recognise

        return cls.name if recognise(tensors) is not None else None

    def propose(self, frames: Sequence[Frame], boxes: Sequence[Boxes] | None = None) -> list[ProposalSet]:
        """Proposals of each frame, see `Proposer.propose`.

        Args:
            frames: any number of frames of any sizes.
            boxes: (N_i, 4) `xyxy` prompts of each frame in place of the grid, e.g. the boxes of MASA's distilled head
                (about 300 a frame): one mask each, no gate and no duplicate removal; only empty masks are refused.
        """
        if boxes is not None:
            return [self._propose_in(frame.image, prompts) for frame, prompts in zip(frames, boxes, strict=True)]
        fits = [self._fits(frame.image) for frame in frames]
        whole = [np.ascontiguousarray(frame.image) for frame, each in zip(frames, fits) if each]
        found = iter(self._generator.generate_masks(whole))
        return [self._proposals(next(found)) if each else _nothing() for each in fits]

    @classmethod
    def resolve(cls, config: SamSettings) -> SamSettings:
        if not config.weights:
            raise InputError(
                "sam needs a checkpoint: set sam.weights to the path or URL of sam_vit_h_4b8939.pth (or another one, "
                "with sam.variant to match); segment-anything's README says where to get it"
            )
        return config

    @classmethod
    def implementation(cls, config: SamSettings) -> dict[str, str]:
        packages = ("torch", "torchvision", "segment-anything", "pillow")
        try:
            return {package: importlib.metadata.version(package) for package in packages}
        except importlib.metadata.PackageNotFoundError as error:
            raise _missing(error.name) from error

    def _adopt(self, sam: Sam | PromptableSegmenter, config: SamSettings) -> None:
        self.config = config
        self.batch_size = config.images_per_batch
        try:
            from trackmill.models.sam import FastMaskGenerator
        except ImportError as error:
            raise _missing(error.name) from error
        settings = config.model_dump(exclude={"weights", "weights_sha256", "variant"})
        self._generator = FastMaskGenerator(sam, **settings)

    def _fits(self, image: NDArray[np.uint8]) -> bool:
        from trackmill.models.sam.generator import fits_input

        image_size = self._generator.pipelined.segmenter.image_size
        return fits_input(image.shape[0], image.shape[1], image_size, self.config.crop_n_layers)

    def _proposals(self, found: GeneratedMasks) -> ProposalSet:
        masks, scores = _best_first(found.masks, found.size)
        reasons = np.full(len(found.boxes), "duplicate", object)
        reasons[found.unique] = "duplicate_after_cleaning"
        reasons[found.masks.numbers] = ""
        low_stability = "low_stability_or_cut" if self.config.crop_n_layers else "low_stability"
        refused = {"low_iou": found.low_iou, low_stability: found.low_stability}
        refused |= count_refusals(reasons, _REASONS)
        refused["empty"] = len(found.masks) - len(masks)
        # The generator's x1, y1 are the last pixel inside, ours the edge after it.
        boxes = (found.boxes + np.array([0, 0, 1, 1])).astype(np.float32)
        refused_boxes, refused_reasons = show_refusals(clip_boxes(boxes, *found.size), reasons, _REASONS)
        return ProposalSet(
            boxes=_boxes_of(masks),
            scores=scores,
            masks=[*masks],
            refused={reason: count for reason, count in refused.items() if count},
            refused_boxes=refused_boxes,
            refused_reasons=refused_reasons,
        )

    def _propose_in(self, image: NDArray[np.uint8], boxes: Boxes) -> ProposalSet:
        if not self._fits(image):
            return _nothing()
        found = self._generator.pipelined.generate_from_boxes(np.ascontiguousarray(image), boxes.astype(np.float64))
        masks, scores = _best_first(found, (image.shape[0], image.shape[1]))
        empty = len(found) - len(masks)
        refused = {"empty": empty} if empty else {}
        return ProposalSet(boxes=_boxes_of(masks), scores=scores, masks=[*masks], refused=refused)


def _best_first(found: Candidates, size: tuple[int, int]) -> tuple[list[CroppedMask], NDArray[np.float32]]:
    """Masks that are not empty by descending predicted IoU, and their scores."""
    from trackmill.models.sam.records import cropped_mask

    masks, scores = [], []
    for i in np.argsort(-found.iou, kind="stable"):
        mask = cropped_mask(found.intervals[i], size)
        if mask is not None:
            masks.append(mask)
            scores.append(found.iou[i])
    return masks, np.clip(np.array(scores, np.float32), 0, 1)


def _boxes_of(masks: Sequence[CroppedMask]) -> Boxes:
    return np.array([mask_box(mask) for mask in masks], np.float32).reshape(-1, 4)


def _nothing() -> ProposalSet:
    return ProposalSet(boxes=empty_boxes(), scores=np.zeros(0, np.float32), masks=[])


def _load_model(variant: str, state_dict: Mapping[str, torch.Tensor]) -> Sam:
    try:
        from trackmill.models.sam.loading import load

        return load(variant, state_dict)
    except ImportError as error:
        raise _missing(error.name) from error


def _missing(package: Any) -> MissingPackage:
    return MissingPackage(f"SAM needs an extra: {install('sam')} (not found: {package})")
