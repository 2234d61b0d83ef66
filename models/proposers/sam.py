"""Proposals of Segment Anything: a grid of points, three masks a point, gated and without duplicates.

The masks come from the reference generator of segment-anything 1.0 with the settings of the MASA paper (32 x 32
points, predicted IoU 0.88, stability 0.95, box NMS 0.7). It is not fast: with ViT-B and 1024 points about 270 CPU
seconds an image of 1024 x 683, more than half of them in the mask decoder.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from models.proposers.base import Proposer, ProposerUnavailable
from models.proposers.refusals import count_refusals, show_refusals
from schemas.boxes import clip_boxes, empty_boxes
from schemas.config import Settings
from schemas.masks import crop_mask, mask_box
from schemas.media import Frame, ProposalSet

if TYPE_CHECKING:
    import torch
    from segment_anything.modeling import Sam

    from models.proposers.sam_generator import Watched, WatchedGenerator

_WIDTHS = {"vit_b": 768, "vit_l": 1024, "vit_h": 1280}
_WIDTH_KEY = "image_encoder.pos_embed"
_REASONS = ("low_iou", "low_stability", "low_stability_or_cut", "duplicate", "duplicate_after_cleaning", "empty")


class SamSettings(Settings):
    """Settings of `sam`. Defaults are those of the MASA paper and of segment-anything, where the two differ MASA's."""

    weights: str = Field(
        "", description="Path or URL of the checkpoint (.pth or .safetensors), e.g. sam_vit_h_4b8939.pth. Required."
    )
    weights_sha256: str = Field(
        "",
        pattern=r"^([0-9a-f]{64})?$",
        description="SHA-256 the checkpoint must have. Empty: the driver fills it in, so all workers have the same.",
    )
    variant: Literal["vit_b", "vit_l", "vit_h"] = Field(
        "vit_h", description="Size of the image encoder: 0.97, 2.99 or 5.96 TFLOP an image. Must be the checkpoint's."
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
    min_mask_region_area: int = Field(
        100, ge=0, description="Holes and islands of fewer pixels are mended; 0: none. Costs 12 to 37 ms a kept mask."
    )
    crop_n_layers: int = Field(
        0,
        ge=0,
        le=3,
        description="Runs again on 4, 16, ... crops for small things, at as many times the cost. Paper: 0.",
    )


class SamProposer(Proposer):
    """The reference generator of segment-anything; the score is the predicted IoU.

    Boxes are taken from the masks, with exclusive right and lower edges. The reference's own `bbox` ends at the last
    pixel inside, one pixel short of ours. Predicted IoUs above 1 (the head is linear) become 1 after sorting.

    Refused, each candidate mask once: `low_iou`; `low_stability` (called `low_stability_or_cut` with crops, where it
    includes masks cut by a crop's edge); `duplicate`; `duplicate_after_cleaning` (two masks alike once their holes
    were mended); `empty` (only with both thresholds at 0). Refused and kept add up to three times the points. Boxes to
    look at exist for duplicates only: the reference throws the others away unmeasured.

    Args:
        config: the settings; `weights` is for whoever loads `state_dict` and is not looked at here.
        state_dict: tensors of the official checkpoints, by name.
        device: where the model runs.

    Raises:
        ProposerUnavailable: a package is missing.
        ValueError: the checkpoint is of another variant or of another model; names the keys and shapes.
    """

    name = "sam"
    uses_gpu = True
    version = 1
    Config = SamSettings

    def __init__(
        self, config: SamSettings, state_dict: Mapping[str, torch.Tensor], device: str | torch.device = "cpu"
    ) -> None:
        self._adopt(_load_model(config.variant, state_dict).to(device), config)

    @classmethod
    def from_model(cls, sam: Sam, config: SamSettings) -> SamProposer:
        """Use a model that is already in memory, on its own device; `config.variant` is not looked at."""
        proposer = cls.__new__(cls)
        proposer._adopt(sam, config)
        return proposer

    def propose(self, frames: Sequence[Frame]) -> list[ProposalSet]:
        return [self._propose_one(frame.image) for frame in frames]

    @classmethod
    def resolve(cls, config: SamSettings) -> SamSettings:
        if not config.weights:
            raise ProposerUnavailable(
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

    def _adopt(self, sam: Sam, config: SamSettings) -> None:
        self.config = config
        self._generator = _make_generator(sam, config)
        self._warned = False

    def _propose_one(self, image: NDArray[np.uint8]) -> ProposalSet:
        from models.proposers.sam_generator import fits_input, runs_to_mask

        height, width = image.shape[:2]
        image_size = self._generator.predictor.model.image_encoder.img_size
        if not fits_input(height, width, image_size, self.config.crop_n_layers):
            return ProposalSet(boxes=empty_boxes(), scores=np.zeros(0, np.float32), masks=[])

        watched = self._watch(np.ascontiguousarray(image))
        quality = np.array([record["predicted_iou"] for record in watched.records], np.float32)
        masks, scores = [], []
        for i in np.argsort(-quality, kind="stable"):
            mask = crop_mask(runs_to_mask(watched.records[i]["segmentation"]["counts"], height, width))
            if mask is not None:
                masks.append(mask)
                scores.append(quality[i])

        low_stability = "low_stability_or_cut" if self.config.crop_n_layers else "low_stability"
        refused = {"low_iou": watched.low_iou, low_stability: watched.low_stability}
        refused |= count_refusals(watched.reasons, _REASONS)
        refused["empty"] = len(watched.records) - len(masks)
        refused_boxes, refused_reasons = show_refusals(
            clip_boxes(watched.boxes, height, width), watched.reasons, _REASONS
        )
        return ProposalSet(
            boxes=np.array([mask_box(mask) for mask in masks], np.float32).reshape(-1, 4),
            scores=np.clip(np.array(scores, np.float32), 0, 1),
            masks=masks,
            refused={reason: count for reason, count in refused.items() if count},
            refused_boxes=refused_boxes,
            refused_reasons=refused_reasons,
        )

    def _watch(self, image: NDArray[np.uint8]) -> Watched:
        import torch

        from models.proposers.sam_generator import largest_batch

        allowed = min(self.config.points_per_batch, largest_batch(*image.shape[:2]))
        while True:
            # Set anew for each image: one huge frame must not change (or slow down) the frames after it.
            self._generator.points_per_batch = allowed
            try:
                with torch.inference_mode():
                    return self._generator.watch(image)
            except torch.OutOfMemoryError:
                if allowed == 1:
                    raise
            # Outside the handler, where the failed call's tensors are no longer held by its traceback.
            allowed //= 2
            torch.cuda.empty_cache()
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"GPU out of memory on an image of {image.shape[1]} x {image.shape[0]}: going on with smaller "
                    f"batches where needed; set sam.points_per_batch = {allowed} to save the failed attempts",
                    RuntimeWarning,
                    stacklevel=2,
                )


def _make_generator(sam: Sam, config: SamSettings) -> WatchedGenerator:
    try:
        from models.proposers.sam_generator import WatchedGenerator

        return WatchedGenerator(sam.eval(), **config.model_dump(exclude={"weights", "weights_sha256", "variant"}))
    except ImportError as error:
        raise _missing(error.name) from error


def _load_model(variant: str, state_dict: Mapping[str, torch.Tensor]) -> Sam:
    try:
        from segment_anything import sam_model_registry
    except ImportError as error:
        raise _missing(error.name) from error

    # Looked at first, because building ViT-H takes seconds and 2.5 GB.
    if _WIDTH_KEY in state_dict and state_dict[_WIDTH_KEY].shape[-1] != _WIDTHS[variant]:
        shape = tuple(state_dict[_WIDTH_KEY].shape)
        known = {width: name for name, width in _WIDTHS.items()}.get(shape[-1])
        advice = f'set sam.variant = "{known}"' if known else "it is no SAM checkpoint of a known variant"
        raise ValueError(
            f"the checkpoint is not {variant}: its {_WIDTH_KEY} is {shape}, {variant} has "
            f"(1, 64, 64, {_WIDTHS[variant]}); {advice}"
        )
    sam = sam_model_registry[variant](checkpoint=None)
    expected = sam.state_dict()
    problems = [
        _listing("missing", [key for key in expected if key not in state_dict]),
        _listing("unexpected", [key for key in state_dict if key not in expected]),
        _listing(
            "of another shape",
            [
                f"{key} {tuple(state_dict[key].shape)} instead of {tuple(expected[key].shape)}"
                for key in expected
                if key in state_dict and state_dict[key].shape != expected[key].shape
            ],
        ),
    ]
    if any(problems):
        raise ValueError(f"the checkpoint does not fit SAM {variant}: " + "; ".join(filter(None, problems)))
    sam.load_state_dict(state_dict, strict=True)
    return sam


def _listing(what: str, names: list[str]) -> str:
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{len(names)} {what}: {shown}" if names else ""


def _missing(package: Any) -> ProposerUnavailable:
    return ProposerUnavailable(f'SAM needs an extra: pip install -e ".[sam]" (not found: {package})')
