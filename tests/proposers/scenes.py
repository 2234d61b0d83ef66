"""Frames drawn by code, and a SAM small enough to run in a test."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.models.proposers import SamProposer, SamSettings
from trackmill.schemas.boxes import Boxes
from trackmill.schemas.masks import crop_mask, mask_box
from trackmill.schemas.media import Annotations, Frame

RADIUS = 40
DISC = (90, 80)
"""x, y of the disc's centre."""


def disc_mask(height: int = 200, width: int = 300) -> NDArray[np.bool_]:
    """Where `scene` has its disc."""
    y, x = np.ogrid[:height, :width]
    mask: NDArray[np.bool_] = (x - DISC[0]) ** 2 + (y - DISC[1]) ** 2 <= RADIUS**2
    return mask


def scene(height: int = 200, width: int = 300, seed: int = 0) -> Frame:
    """A red disc and a blue rectangle on grey, with noise, annotated with both."""
    generator = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128.0)
    disc = disc_mask(height, width)
    rectangle = np.zeros_like(disc)
    rectangle[110:170, 180:260] = True
    image[disc] = (210, 40, 40)
    image[rectangle] = (40, 60, 200)
    image += generator.normal(0, 4, image.shape)
    masks = [mask for mask in (crop_mask(disc), crop_mask(rectangle)) if mask is not None]
    boxes: Boxes = np.array([mask_box(mask) for mask in masks], np.float32)
    annotations = Annotations(boxes=boxes, ids=[3, 7], scores=[1.0, 0.5], masks=list(masks))
    return Frame(image=np.clip(image, 0, 255).astype(np.uint8), annotations=annotations)


def plain(height: int, width: int) -> Frame:
    """One colour: nothing to find."""
    return Frame(image=np.full((height, width, 3), 90, np.uint8), annotations=Annotations())


def noise(height: int, width: int) -> Frame:
    """Colours without any order."""
    generator = np.random.default_rng(height * 1000 + width)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Frame(image=image, annotations=Annotations())


def tiny_sam(seed: int = 0, image_size: int = 64) -> Any:
    """segment-anything's own modules, a thousandth of the size, with random weights."""
    import torch
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    grid = image_size // 16
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sam = Sam(
            image_encoder=ImageEncoderViT(
                depth=1,
                embed_dim=32,
                img_size=image_size,
                num_heads=2,
                patch_size=16,
                norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
                use_rel_pos=True,
                global_attn_indexes=(0,),
                out_chans=32,
            ),
            prompt_encoder=PromptEncoder(
                embed_dim=32, image_embedding_size=(grid, grid), input_image_size=(image_size,) * 2, mask_in_chans=4
            ),
            mask_decoder=MaskDecoder(
                num_multimask_outputs=3,
                transformer=TwoWayTransformer(depth=1, embedding_dim=32, mlp_dim=32, num_heads=2),
                transformer_dim=32,
                iou_head_depth=2,
                iou_head_hidden_dim=16,
            ),
        ).eval()
    return sam


def drawing_sam(image_size: int = 64) -> Any:
    """A SAM whose encoder is real and tiny, and whose decoder draws what the tests expect around every point.

    Its three masks, of predicted IoU 1.05, 0.9 and 0.5: a disc of radius 5 (in the input of `image_size`); the same
    disc with a speck 20 to the right; everything left of the point, with an edge too soft to be stable.
    """
    import torch
    from torch import nn

    class Prompts(nn.Module):
        def forward(self, points: Any, boxes: Any, masks: Any) -> tuple[Any, Any]:
            return points[0].float(), torch.zeros(1)  # (B, 1, 2) pixels of the input

        def get_dense_pe(self) -> Any:
            return torch.zeros(1)

    class Drawing(nn.Module):
        def forward(self, sparse_prompt_embeddings: Any, **unused: Any) -> tuple[Any, Any]:
            x, y = (sparse_prompt_embeddings[:, 0, i, None, None] for i in (0, 1))  # (B, 1, 1)
            column = torch.arange(image_size)[None, None, :] + 0.5
            row = torch.arange(image_size)[None, :, None] + 0.5
            disc = 5 - ((column - x) ** 2 + (row - y) ** 2).sqrt()
            speck = 1 - ((column - x - 20) ** 2 + (row - y) ** 2).sqrt()
            left = (x - column).expand(-1, image_size, -1) / 100
            quality = torch.tensor([1.05, 0.9, 0.5]).repeat(len(x), 1)
            return torch.stack([disc * 9, torch.maximum(disc, speck) * 9, left], dim=1), quality

    sam = tiny_sam(image_size=image_size)
    sam.prompt_encoder, sam.mask_decoder = Prompts(), Drawing()
    return sam


def sam_proposer(**settings: Any) -> SamProposer:
    """`SamProposer` around `drawing_sam`, with few points; the gates are those of the paper unless told otherwise."""
    few = {"points_per_side": 4, "points_per_batch": 8, "stability_score_thresh": 0.7}
    return SamProposer.from_model(drawing_sam(), SamSettings(**{**few, **settings}))
