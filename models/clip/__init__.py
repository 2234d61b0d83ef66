"""CLIP in plain torch: texts and pictures become vectors that can be compared.

    tower = trackmill.models.clip.load("ViT-B-32.pt")                       # OpenAI's file, or Hugging Face's
    vectors = tower(trackmill.models.clip.tokenize(["a person", "a dog"]))  # (2, 512), not normalised
    towers = trackmill.models.clip.load_towers("ViT-B-16.pt")               # `towers.text` and `towers.image`

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, section 2.4.
`transformer` has the blocks, `text_tower` and `image_tower` what stands around them, `towers` both of them, frozen.
`loading` reads checkpoints, `hugging_face` has its names, `tokenizer` turns texts into numbers. Importing this imports
no framework.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from trackmill.models.clip.image_tower import Resizing
    from trackmill.models.clip.text_tower import TextTower
    from trackmill.models.clip.towers import ClipSizes, ClipTowers

__all__ = ["load", "load_towers", "recognise", "tokenize"]


def load(weights: str | os.PathLike[str] | Mapping[str, torch.Tensor], device: str | torch.device = "cpu") -> TextTower:
    """The text tower of a CLIP, in evaluation mode and float32.

    Its sizes follow from the tensors, so ViT-B/32, ViT-B/16 and ViT-L/14 load alike. The tower of the images and the
    temperature are left out.

    Args:
        weights: path or URL of OpenAI's file (`ViT-B-32.pt`, a TorchScript archive), of a state dict with its names, or
            of Hugging Face's `CLIPModel` or `CLIPTextModelWithProjection` (`model.safetensors`); or tensors by name.
            They must have been trained with QuickGELU, as OpenAI's were: the tensors do not tell.
        device: where it is put.

    Raises:
        BadWeights: not such a file, damaged, or tensors that do not fit; names them. A `ValueError`.
        FileNotFoundError: there is no such file.
        OSError: a URL could not be fetched.
    """
    from trackmill.models.clip.loading import load_text_tower

    return load_text_tower(weights, device)


def load_towers(
    weights: str | os.PathLike[str] | Mapping[str, torch.Tensor],
    device: str | torch.device = "cpu",
    *,
    expected: ClipSizes | None = None,
    resizing: Resizing = "bilinear",
) -> ClipTowers:
    """Both towers of a CLIP, frozen, in evaluation mode and float32.

    Their sizes follow from the tensors, so ViT-B/32, ViT-B/16 and ViT-L/14 load alike. The temperature is left out.

    Args:
        weights: as of `load`, with an image tower that is a vision transformer.
        device: where they are put.
        expected: sizes that they must have.
        resizing: how the table of positions is resized for pictures of another size: "bilinear" or "bicubic", both
            without antialiasing and without aligned corners.

    Raises:
        BadWeights: not such a file, damaged, tensors that do not fit, or other sizes than expected; names them. A
            `ValueError`.
        FileNotFoundError: there is no such file.
        OSError: a URL could not be fetched.
    """
    from trackmill.models.clip.loading import load_both_towers

    return load_both_towers(weights, device, expected=expected, resizing=resizing)


def recognise(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Whose names the tensors of a CLIP's text tower have: `openai` or `huggingface`; None for others."""
    from trackmill.models.clip.loading import layout_of

    return layout_of(tensors)


def tokenize(texts: Sequence[str], context: int = 77) -> torch.Tensor:
    """(N, context) int64 tokens; see `trackmill.models.clip.tokenizer`."""
    from trackmill.models.clip.tokenizer import tokenize as tokenize_texts

    return tokenize_texts(texts, context)
