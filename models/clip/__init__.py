"""CLIP's text tower in plain torch: texts become vectors that can be compared with those of images.

    tower = trackmill.models.clip.load("ViT-B-32.pt")                       # OpenAI's file, or Hugging Face's
    vectors = tower(trackmill.models.clip.tokenize(["a person", "a dog"]))  # (2, 512), not normalised

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, section 2.4.
`transformer` has the blocks, `text_tower` what stands around them, `loading` reads checkpoints, `tokenizer` turns texts
into numbers. Importing this imports no framework.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from trackmill.models.clip.text_tower import TextTower

__all__ = ["load", "recognise", "tokenize"]


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


def recognise(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Whose names the tensors of a CLIP's text tower have: `openai` or `huggingface`; None for others."""
    from trackmill.models.clip.loading import layout_of

    return layout_of(tensors)


def tokenize(texts: Sequence[str], context: int = 77) -> torch.Tensor:
    """(N, context) int64 tokens; see `trackmill.models.clip.tokenizer`."""
    from trackmill.models.clip.tokenizer import tokenize as tokenize_texts

    return tokenize_texts(texts, context)
