"""The losses of IP-MOT: one function an equation of the paper, whose number stands in its docstring."""

from trackmill.models.ipmot.losses.alignment import image_to_text_cross_entropy, triplet
from trackmill.models.ipmot.losses.collective import collective_average, extended_collective_average
from trackmill.models.ipmot.losses.contrastive import image_to_text, similarity, text_to_image
from trackmill.models.ipmot.losses.deduplication import deduplication_loss, deduplication_targets, tracking_score
from trackmill.models.ipmot.losses.detection import focal_loss, giou_loss, l1_loss, set_loss

__all__ = [
    "collective_average",
    "deduplication_loss",
    "deduplication_targets",
    "extended_collective_average",
    "focal_loss",
    "giou_loss",
    "image_to_text",
    "image_to_text_cross_entropy",
    "l1_loss",
    "set_loss",
    "similarity",
    "text_to_image",
    "tracking_score",
    "triplet",
]
