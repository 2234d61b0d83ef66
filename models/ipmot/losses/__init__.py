"""The losses of IP-MOT: one function an equation of the paper, whose number stands in its docstring."""

from trackmill.models.ipmot.losses.alignment import image_to_text_cross_entropy, triplet
from trackmill.models.ipmot.losses.contrastive import image_to_text, similarity, text_to_image

__all__ = ["image_to_text", "image_to_text_cross_entropy", "similarity", "text_to_image", "triplet"]
