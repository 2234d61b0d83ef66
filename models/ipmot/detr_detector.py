"""DAB-Deformable-DETR and Deformable-DETR behind the contract of detectors: `dab-deformable-detr:WEIGHTS`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from trackmill.models.detectors.base import Detector, check_images
from trackmill.models.detectors.options import OPTIONS, DetectorOptions, apply_options, known_classes
from trackmill.models.device import choose_device
from trackmill.models.ipmot.detector import DeformableDetr
from trackmill.models.ipmot.detector_loading import form_of, load_detector
from trackmill.models.ipmot.detector_names import COCO_CLASSES, PERSON_ROW, layout_of
from trackmill.models.ipmot.frames import fitted, network_input, resized
from trackmill.models.ipmot.overlaps import as_corners
from trackmill.models.ipmot.sizes import Conventions, DetectorSizes, Form
from trackmill.models.weights.read import as_checkpoint
from trackmill.schemas.detections import Detections
from trackmill.schemas.errors import InputError

PERSON = "person"

LEAST_SCORE = 0.3
"""Detections that score less are left out, unless asked for: that of the demonstration in DAB-DETR's repository."""

KEYS: dict[Form, str] = {"dab": "dab-deformable-detr", "plain": "deformable-detr"}
"""Of the registry."""


class DetrOptions(DetectorOptions):
    """Options of all detectors, and its own. Left out: people alone, a least score of 0.3, no NMS, 300 boxes."""

    form: Form = Field("dab", description="dab: DAB-Deformable-DETR; plain: Deformable-DETR. The detector's name says.")
    conventions: Conventions | None = Field(
        None, description="Under which the weights were trained: coco, memotr. Left out: as their names say."
    )
    heads: int = Field(8, ge=1, description="Attention heads of the weights; 8 in all published files.")
    all_classes: bool = Field(False, description="Find all classes, not people alone. So does naming `classes`.")
    names: tuple[str, ...] | None = Field(
        None, description="Name of each class of the weights; left out: COCO's for 91 classes, person for one."
    )
    short_side: int = Field(800, ge=1, description="Images are scaled to it, in pixels.")
    long_side: int = Field(1333, ge=1, description="Unless the longer side would pass this one.")
    max_boxes: int | None = Field(300, ge=1, description="Most detections of an image; the best stay.")
    batch_size: int | None = Field(
        None, ge=1, description="Images in the network together; left out: 1 on the CPU, 8 on a GPU."
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16 is faster on a GPU, and less exact.")
    compile: bool = Field(False, description="Compile the network; takes a minute or more for each size of image.")
    seed: int = Field(0, description="Of fresh weights, where there is no checkpoint.")


class DetrDetector(Detector):
    """A network with its options. Images are resized and never padded, and only those of one size share a batch.

    Each class logit of each query is a detection of its own, as published; with people alone a query is one detection.

    Args:
        network: in evaluation mode, on any device.
        options: what is asked of it.

    Raises:
        InputError: the network has another number of classes than there are names, or does not know one that is asked
            for.
    """

    Config = DetrOptions
    applies = frozenset(OPTIONS)
    version = 1
    """Raised whenever the same weights and images give other detections."""

    def __init__(self, network: DeformableDetr, options: DetrOptions) -> None:
        self.network, self._options = network, options
        name = KEYS[network.sizes.form]
        self._rows, self.names, self.category_ids = _classes(network.sizes.classes, options, name)
        self._kept_labels = None if options.classes is None else known_classes(options.classes, self.names, name)
        self._run = torch.compile(network, dynamic=False) if options.compile else network

    @classmethod
    def build(
        cls,
        config: DetrOptions,
        tensors: Mapping[str, torch.Tensor] | None = None,
        device: torch.device | str = "cpu",
    ) -> DetrDetector:
        """What the registry builds; see `trackmill.models.registry`.

        Args:
            config: options.
            tensors: of a checkpoint, see `trackmill.models.ipmot.load_detector`; None: fresh weights of the COCO
                models' size, which find nothing of interest.
            device: where it runs.

        Raises:
            ValueError: tensors of another model, or of the other form; see `trackmill.models.ipmot.load_detector`.
        """
        if tensors is None:
            widths = {"dab": 2048, "plain": 1024}
            sizes = DetectorSizes(form=config.form, feedforward=widths[config.form], classes=COCO_CLASSES)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                return cls(DeformableDetr(sizes).to(choose_device(str(device))).eval(), config)
        checkpoint = as_checkpoint(tensors)
        conventions = config.conventions or _told(checkpoint)
        network = load_detector(checkpoint, conventions, heads=config.heads, device=device)
        if network.sizes.form != config.form:
            raise InputError(
                f"{checkpoint.where}: these are weights of {KEYS[network.sizes.form]}, not {KEYS[config.form]}: write "
                f"{KEYS[network.sizes.form]}:WEIGHTS"
            )
        return cls(network, config)

    @classmethod
    def recognise(cls, tensors: Mapping[str, torch.Tensor]) -> str | None:
        """The registry's name for a detector in the published COCO layout; None for others, also for trackers."""
        if layout_of(tensors) != "coco":
            return None
        form = form_of(tensors)
        return None if form is None else KEYS[form]

    @torch.inference_mode()
    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`; boxes lie inside the image, best first.

        Raises:
            InputError: an image is not (H, W, 3) uint8.
        """
        check_images(images)
        options, device = self._options, next(self.network.parameters()).device
        sizes = [fitted(image.shape[0], image.shape[1], options.short_side, options.long_side) for image in images]
        found: dict[int, Detections] = {}
        for places in _batches(sizes, options.batch_size or (1 if device.type == "cpu" else 8)):
            pixels = [
                torch.from_numpy(np.require(images[place], requirements=("C", "W"))).to(device) for place in places
            ]
            scaled = torch.cat([resized(each.permute(2, 0, 1)[None], sizes[places[0]]) for each in pixels])
            batch, masks = network_input(scaled, self.network.mean, self.network.std, divisor=1)
            with torch.autocast(device.type, torch.bfloat16, enabled=options.dtype == "bfloat16"):
                output = self._run(batch, masks)
            scores = output["pred_logits"][:, :, self._rows].float().sigmoid()
            boxes = as_corners(output["pred_boxes"].float())
            for place, score, box in zip(places, scores, boxes, strict=True):
                found[place] = self._detections(score, box, images[place].shape[:2])
        return [found[place] for place in range(len(images))]

    def _detections(self, scores: torch.Tensor, boxes: torch.Tensor, shape: tuple[int, ...]) -> Detections:
        """Of one image: scores (Q, K), corners (Q, 4) in 0..1."""
        height, width = shape
        options = self._options
        least = LEAST_SCORE if options.min_score is None else options.min_score
        query, label = (scores >= least).nonzero(as_tuple=True)
        best = scores[query, label].argsort(descending=True, stable=True)
        query, label = query[best], label[best]
        pixels = boxes[query].clamp(0, 1) * boxes.new_tensor([width, height, width, height])
        inside = (pixels[:, 2:] > pixels[:, :2]).all(dim=1)
        found = Detections(
            boxes=pixels[inside].cpu().numpy(),
            scores=scores[query, label][inside].cpu().numpy(),
            labels=label[inside].cpu().numpy(),
            names=self.names,
        )
        return apply_options(found, options.model_copy(update={"min_score": least}), self._kept_labels)


def coco_names() -> dict[int, str]:
    """Name of each of COCO's 80 classes by its category id."""
    from torchvision.models import get_model_weights

    categories = get_model_weights("fasterrcnn_resnet50_fpn").DEFAULT.meta["categories"]
    return {index: name for index, name in enumerate(categories) if index and name != "N/A"}


def _classes(count: int, options: DetrOptions, name: str) -> tuple[list[int], tuple[str, ...], tuple[int, ...]]:
    """The class rows that are read, their names, and their ids in files."""
    if options.names is not None:
        if len(options.names) != count:
            raise InputError(f"names: {len(options.names)} names for the {count} classes of these weights")
        known = dict(enumerate(options.names))
    elif count == COCO_CLASSES:
        known = coco_names()
    elif count == 1:
        known = {0: PERSON}
    else:
        raise InputError(f"{name}: these weights have {count} classes: say what they are called (names=[...])")
    if not options.all_classes and options.classes is None:
        people = [row for row, each in known.items() if each.lower() == PERSON]
        if not people:
            raise InputError(f"{name}: none of its classes is called {PERSON}: ask for classes, or for all_classes")
        known = {row: known[row] for row in people[:1]}
    # A category of COCO has its row for an id; people alone are category 1 there, too.
    ids = tuple(known) if count == COCO_CLASSES else tuple(row + PERSON_ROW for row in known)
    return list(known), tuple(known.values()), ids


def _told(tensors: Mapping[str, torch.Tensor]) -> Conventions:
    """The conventions that the weights themselves tell: a tracker of ours by its header, others by their names."""
    from trackmill.models.ipmot.metadata import is_ours, variant_of

    said = variant_of(getattr(tensors, "metadata", {}), "the weights") if is_ours(tensors) else None
    return said.detector.conventions if said is not None else layout_of(tensors) or "coco"


def _batches(sizes: Sequence[tuple[int, int]], most: int) -> Iterator[list[int]]:
    """Places of images of one size, in their order, at most so many at a time."""
    groups: dict[tuple[int, int], list[int]] = {}
    for place, size in enumerate(sizes):
        groups.setdefault(size, []).append(place)
    for group in groups.values():
        for start in range(0, len(group), most):
            yield group[start : start + most]
