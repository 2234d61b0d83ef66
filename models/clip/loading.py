"""CLIP checkpoints of OpenAI and of Hugging Face into the towers: names, sizes, and what is left out."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from trackmill.models.clip.hugging_face import image_tensors, is_hugging_face, text_tensors
from trackmill.models.clip.image_tower import ImageTowerSizes, Resizing
from trackmill.models.clip.text_tower import TextTower, TextTowerSizes
from trackmill.models.clip.towers import ClipSizes, ClipTowers
from trackmill.models.clip.transformer import HEAD_WIDTH
from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.models.weights.errors import BadWeights
from trackmill.models.weights.fit import fit
from trackmill.models.weights.read import as_checkpoint

OPENAI, HUGGINGFACE = "openai", "huggingface"

IMAGE = "visual."
"""Before the names of the image tower in OpenAI's files; those of the text tower have no prefix."""

SET_ASIDE = ("logit_scale", "logit_bias", "input_resolution", "context_length", "vocab_size", "attn_mask")
"""What OpenAI's files hold beside the towers: the temperature, three numbers; open_clip's mask."""

_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.")
_Module = TypeVar("_Module", bound=nn.Module)


def layout_of(tensors: Mapping[str, Tensor]) -> str | None:
    """See `trackmill.models.clip.recognise`."""
    if "token_embedding.weight" in tensors and "positional_embedding" in tensors:
        return OPENAI
    return HUGGINGFACE if is_hugging_face(tensors) else None


def load_text_tower(
    weights: str | os.PathLike[str] | Mapping[str, Tensor], device: str | torch.device = "cpu"
) -> TextTower:
    """See `trackmill.models.clip.load`."""
    checkpoint = as_checkpoint(weights)
    tensors = _text_tensors(checkpoint)
    sizes = _text_sizes(tensors, checkpoint.where)
    with torch.device("meta"):  # 63 million random numbers would be drawn and thrown away
        tower = TextTower(sizes)
    return _filled(tower, tensors, checkpoint.where, "the text tower of CLIP", device)


def load_both_towers(
    weights: str | os.PathLike[str] | Mapping[str, Tensor],
    device: str | torch.device = "cpu",
    *,
    expected: ClipSizes | None = None,
    resizing: Resizing = "bilinear",
) -> ClipTowers:
    """See `trackmill.models.clip.load_towers`."""
    checkpoint = as_checkpoint(weights)
    where = checkpoint.where
    text = _text_tensors(checkpoint)
    if layout_of(checkpoint) == HUGGINGFACE:
        image = image_tensors(checkpoint, where)
    else:
        image = {name.removeprefix(IMAGE): each for name, each in _openai(checkpoint, image=True).items()}
    text_sizes, image_sizes = _text_sizes(text, where), _image_sizes(image, where)
    if text_sizes.embedding != image_sizes.embedding:
        raise BadWeights(
            f"{where}: no CLIP: its texts get {text_sizes.embedding} numbers and its pictures {image_sizes.embedding}"
        )
    sizes = ClipSizes(text=text_sizes, image=image_sizes)
    if expected is not None and sizes != expected:
        raise BadWeights(f"{where}: a CLIP of other sizes: {_differences(sizes, expected)}")
    with torch.device("meta"):
        towers = ClipTowers(sizes, resizing)
    tensors = {f"text.{name}": each for name, each in text.items()}
    tensors |= {f"image.{name}": each for name, each in image.items()}
    return _filled(towers, tensors, where, "CLIP", device).requires_grad_(False)


def _filled(module: _Module, tensors: dict[str, Tensor], where: str, what: str, device: str | torch.device) -> _Module:
    """`module` from torch's meta device, with these tensors, in evaluation mode."""
    module = module.to_empty(device="cpu")
    fit(module, Checkpoint(tensors=tensors, where=where), what)
    return module.to(device).eval()


def _text_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    layout = layout_of(checkpoint)
    if layout is None:
        few = ", ".join(list(checkpoint)[:3])
        raise BadWeights(f"{checkpoint.where}: no text tower of CLIP in it (it begins with {few}); take ViT-B-32.pt")
    if layout == HUGGINGFACE:
        return text_tensors(checkpoint, checkpoint.where)
    return _openai(checkpoint, image=False)


def _openai(checkpoint: Checkpoint, image: bool) -> dict[str, Tensor]:
    # Of a program that was traced, each block keeps a mask beside its tensors.
    return {
        name: each
        for name, each in checkpoint.items()
        if name.startswith(IMAGE) == image and not name.startswith(SET_ASIDE) and not name.endswith(".attn_mask")
    }


def _text_sizes(tensors: Mapping[str, Tensor], where: str) -> TextTowerSizes:
    """Sizes, by shapes; what then does not agree with them is named by `fit`."""
    tables = [_shape(tensors, name) for name in ("token_embedding.weight", "positional_embedding", "text_projection")]
    blocks = _blocks(tensors)
    if any(len(shape) != 2 or 0 in shape for shape in tables) or not blocks:
        raise BadWeights(
            f"{where}: no whole text tower of CLIP: token_embedding, positional_embedding, text_projection and "
            f"transformer.resblocks are {', '.join(map(str, tables))} and {len(blocks)} blocks"
        )
    (vocabulary, width), (context, _), (_, embedding) = tables
    _check_blocks(blocks, width, "text", where)
    return TextTowerSizes(vocabulary=vocabulary, context=context, width=width, layers=len(blocks), embedding=embedding)


def _image_sizes(tensors: Mapping[str, Tensor], where: str) -> ImageTowerSizes:
    """As `_text_sizes`."""
    if not tensors:
        raise BadWeights(f"{where}: no image tower of CLIP in it: take the file of the whole CLIP, such as ViT-B-16.pt")
    if "layer1.0.conv1.weight" in tensors:
        raise BadWeights(f"{where}: the image tower is a ResNet: take a vision transformer, such as ViT-B-16.pt")
    patches = _shape(tensors, "conv1.weight")
    table, projection = _shape(tensors, "positional_embedding"), _shape(tensors, "proj")
    blocks = _blocks(tensors)
    if (
        [len(shape) for shape in (patches, table, projection)] != [4, 2, 2]
        or 0 in (*patches, *table, *projection)
        or not blocks
    ):
        raise BadWeights(
            f"{where}: no whole image tower of CLIP: conv1, positional_embedding, proj and transformer.resblocks are "
            f"{patches}, {table}, {projection} and {len(blocks)} blocks"
        )
    grid = math.isqrt(table[0] - 1)
    if grid < 1 or grid**2 + 1 != table[0]:
        raise BadWeights(f"{where}: no image tower of CLIP: {table[0]} positions are no square and a class token")
    _check_blocks(blocks, table[1], "image", where)
    return ImageTowerSizes(patch=patches[-1], grid=grid, width=table[1], layers=len(blocks), embedding=projection[1])


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    return tuple(tensors[name].shape) if name in tensors else ()


def _blocks(tensors: Mapping[str, Tensor]) -> set[int]:
    return {int(found[1]) for found in map(_BLOCK.match, tensors) if found}


def _check_blocks(blocks: set[int], width: int, which: str, where: str) -> None:
    if max(blocks) >= len(blocks) or width % HEAD_WIDTH:
        raise BadWeights(f"{where}: no {which} tower of CLIP: {len(blocks)} blocks up to {max(blocks)}, width {width}")


def _differences(found: ClipSizes, expected: ClipSizes) -> str:
    pairs = [
        (f"{part} {name}", value, vars(getattr(expected, part))[name])
        for part in ("text", "image")
        for name, value in vars(getattr(found, part)).items()
    ]
    return ", ".join(f"{name} {value} instead of {other}" for name, value, other in pairs if value != other)
