"""What the card and the header of an exported model say that differs: MASA, ScaleTrack or IP-MOT."""

from __future__ import annotations

from trackmill.models.ipmot.metadata import metadata_of as ipmot_metadata
from trackmill.models.ipmot.model import IpMot
from trackmill.models.masa.loading import IMAGENET
from trackmill.models.masa.model import Masa
from trackmill.models.masa.variants import metadata_of as masa_metadata
from trackmill.models.scaletrack.metadata import metadata_of as scaletrack_metadata
from trackmill.models.scaletrack.model import ScaleTrack
from trackmill.pipeline.export.licences import BACKBONE_LICENCES

Exportable = Masa | ScaleTrack | IpMot

HEADER = ("variant", "compatible_offsets", "fields")
"""Entries of a header that `metadata_of` writes."""


def metadata_of(model: Exportable, **more: str) -> dict[str, str]:
    """Metadata of the safetensors file, with which it loads by the name of its variant."""
    if isinstance(model, ScaleTrack):
        return scaletrack_metadata(model.variant, **more)
    if isinstance(model, IpMot):
        return ipmot_metadata(model.variant, **more)
    return masa_metadata(model.variant, **more)


def introduction(model: Exportable) -> str:
    """What the model is, for somebody who has not heard of it."""
    if isinstance(model, ScaleTrack):
        return (
            'ScaleTrack ("Scaling Open-World Multiple Object Tracking") in plain PyTorch: embeddings of boxes from\n'
            "their frame and the frames before it, which find each object again in the next."
        )
    if isinstance(model, IpMot):
        return (
            "IP-MOT (tracking by query with learnt instance prompts) in plain PyTorch: pictures of a video in, people "
            "with\nidentities out. It takes no boxes."
        )
    return (
        'MASA ("Matching Anything by Segmenting Anything", Li et al., CVPR 2024) in plain PyTorch: embeddings that\n'
        "tell objects of one frame apart and find them again in the next."
    )


def facts(model: Exportable) -> dict[str, str]:
    """Rows of the card's first table."""
    if isinstance(model, ScaleTrack):
        variant = model.variant
        memory = f"{variant.window} earlier frames" if variant.remembers else "nothing"
        return {
            "backbone": f"{variant.backbone}, {'frozen' if variant.frozen else 'trained'}",
            "embedding": f"{model.dimensions} values a box",
            "made for pictures of": f"{variant.side} x {variant.side} pixels, into which it fits frames itself",
            "remembers": memory,
        }
    if isinstance(model, IpMot):
        tracker, sizes = model.variant, model.variant.detector
        form = "DAB-Deformable-DETR" if sizes.form == "dab" else "Deformable-DETR"
        return {
            "backbone": sizes.backbone,
            "detector": f"{form}, {sizes.queries} queries, conventions of {sizes.conventions}",
            "made for pictures of": f"{tracker.short_side} pixels on the shorter side, {tracker.long_side} at most",
            "remembers": f"its live tracks; one ends after {tracker.miss_tolerance} frames without being seen",
        }
    masa = model.variant
    return {
        "backbone": masa.backbone,
        "embedding": f"{masa.embed_channels} values a box",
        "made for pictures of": f"{masa.resize[0]} x {masa.resize[1]} pixels at most (long x short side)",
        "coarser levels": "sampled as in the released code" if masa.compatible_offsets else "enlarged first",
    }


def usage(model: Exportable, weights: str) -> str:
    """Lines of Python that load the file and use it."""
    name = model.variant.name
    if isinstance(model, ScaleTrack):
        return f"""\
import trackmill.models.scaletrack

model = trackmill.models.scaletrack.load("{name}", "{weights}")
embeddings = model(frames, boxes)  # frames: (T, 3, H, W) float RGB 0..1; boxes: a list of T (N, 4) xyxy
stream = model.stream()
embedding = stream.step(frame, boxes)  # the same numbers, frame by frame"""
    if isinstance(model, IpMot):
        return f"""\
from trackmill.pipeline.tracking.api import VideoTracker

tracker = VideoTracker("{name}", weights="{weights}")
tracked = tracker.update(image)  # (H, W, 3) uint8 RGB, frame by frame: tracked.ids, tracked.objects.boxes"""
    return f"""\
import trackmill.models.masa

model = trackmill.models.masa.load("{name}", "{weights}")
embeddings = model.embed(images, boxes)  # images: (B, 3, H, W) float RGB 0..255; boxes: a list of (N, 4) xyxy"""


def origin(model: Exportable, start: str) -> str:
    """Under which licences the weights are that it started from.

    Args:
        model: what is exported.
        start: the weights that training started from; the file itself where nothing was trained; "" for none.
    """
    backbone = model.variant.detector.backbone if isinstance(model, IpMot) else model.variant.backbone
    licence = BACKBONE_LICENCES[backbone]
    if isinstance(model, Masa) and start not in ("", IMAGENET):
        return (
            "The code of MASA is Apache-2.0; its authors state no separate licence for their weights. Where these\n"
            f"weights started from theirs: {licence}.\n"
        )
    return f"Where the backbone started from published weights: {licence}.\n"
