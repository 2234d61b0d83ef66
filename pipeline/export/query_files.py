"""Published files of trackers and detectors by query as files of ours: MeMOTR's, and DETR's in the COCO layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from trackmill.models.ipmot.detector_loading import load_detector
from trackmill.models.ipmot.detector_names import layout_of
from trackmill.models.ipmot.loading import load_model, metadata_of
from trackmill.models.ipmot.metadata import is_memotr, is_ours
from trackmill.models.weights.metadata import to_header
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    from trackmill.models.weights.checkpoint import Checkpoint

TRACKER = "memotr"
DETECTORS = {"dab": "dab-deformable-detr", "plain": "deformable-detr"}
"""By the form of a detector, its name in `trackmill.models.registry.DETECTORS`."""

_DETECTORS_IN_WORDS = {
    "dab": "DAB-Deformable-DETR (Liu et al., ICLR 2022)",
    "plain": "Deformable-DETR (Zhu et al., ICLR 2021)",
}

NAMES = (TRACKER, *DETECTORS.values())
"""What a file may be converted to here."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Converted:
    """A file of ours, not yet written.

    Args:
        name: of the model or detector, and of the file.
        tensors: by our names.
        metadata: of the file's header.
        what: in words.
        facts: rows for the card.
        use: how it is used, Markdown.
    """

    name: str
    tensors: Mapping[str, Tensor]
    metadata: dict[str, str]
    what: str
    facts: dict[str, object]
    use: str


def name_of(checkpoint: Checkpoint) -> str | None:
    """Which of `NAMES` it becomes, by its tensors; None for other files."""
    if is_memotr(checkpoint):
        return TRACKER
    if is_ours(checkpoint) or layout_of(checkpoint) != "coco":
        return None
    return DETECTORS["dab" if "refpoint_embed.weight" in checkpoint else "plain"]


def converted(checkpoint: Checkpoint, name: str, **source: str) -> Converted:
    """Check that every tensor fits, and take it under our names.

    Args:
        checkpoint: what was read.
        name: one of `NAMES`, that it must be.
        source: what the header says of where it comes from.

    Raises:
        ValueError: it is something else, or does not fit; names what.
    """
    if name == TRACKER:
        if not is_memotr(checkpoint):
            raise InputError(f"{checkpoint.where}: is no MeMOTR, which has tensors called query_updater...")
        network = load_model(TRACKER, checkpoint)
        return Converted(
            name=name,
            tensors=network.state_dict(),
            metadata=metadata_of(network.variant, **source),
            what='MeMOTR ("Long-Term Memory-Augmented Transformer for Multi-Object Tracking", Gao and Wang, ICCV 2023)',
            facts={"queries": network.variant.detector.queries, "conventions": "memotr"},
            use=f"trackmill track --model {name} --weights {name}.safetensors --video URL --output FOLDER",
        )
    detector = load_detector(checkpoint)
    sizes = detector.sizes
    if DETECTORS[sizes.form] != name:
        raise InputError(f"{checkpoint.where}: is {DETECTORS[sizes.form]}, not {name}: convert it as that")
    return Converted(
        name=name,
        tensors=detector.state_dict(),
        metadata=to_header({"detector": name, **source}),
        what="DAB-Deformable-DETR (Liu et al., ICLR 2022)"
        if sizes.form == "dab"
        else "Deformable-DETR (Zhu et al., ICLR 2021)",
        facts={"queries": sizes.queries, "classes": sizes.classes, "conventions": sizes.conventions},
        use=f"trackmill track --detections {name}:{name}.safetensors --video URL --output FOLDER\n"
        f"trackmill train ... --set model.detector_weights={name}.safetensors",
    )
