"""CLIP checkpoints of OpenAI and of Hugging Face into one text tower: names, sizes, and what is left out."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from trackmill.models.clip.text_tower import TextTower, TextTowerSizes
from trackmill.models.clip.transformer import HEAD_WIDTH
from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.models.weights.errors import BadWeights
from trackmill.models.weights.fit import fit
from trackmill.models.weights.read import as_checkpoint

OPENAI, HUGGINGFACE = "openai", "huggingface"

SET_ASIDE = ("visual.", "logit_scale", "logit_bias", "input_resolution", "context_length", "vocab_size", "attn_mask")
"""What OpenAI's files hold beside the text tower: the image tower, the temperature, three numbers; open_clip's mask."""

_HF_SET_ASIDE = ("vision_model.", "visual_projection.", "logit_scale", "embeddings.position_ids")
_HF_FIRST = "embeddings.token_embedding.weight"
_HF_NAMES = (
    (r"embeddings\.token_embedding\.", "token_embedding."),
    (r"embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"encoder\.layers\.(\d+)\.layer_norm", r"transformer.resblocks.\1.ln_"),
    (r"encoder\.layers\.(\d+)\.mlp\.fc1\.", r"transformer.resblocks.\1.mlp.c_fc."),
    (r"encoder\.layers\.(\d+)\.mlp\.fc2\.", r"transformer.resblocks.\1.mlp.c_proj."),
    (r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.", r"transformer.resblocks.\1.attn.out_proj."),
    (r"final_layer_norm\.", "ln_final."),
)
_QUERY = re.compile(r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)")
_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.")


def layout_of(tensors: Mapping[str, Tensor]) -> str | None:
    """See `trackmill.models.clip.recognise`."""
    if "token_embedding.weight" in tensors and "positional_embedding" in tensors:
        return OPENAI
    return HUGGINGFACE if any(f"{prefix}{_HF_FIRST}" in tensors for prefix in ("text_model.", "")) else None


def load_text_tower(
    weights: str | os.PathLike[str] | Mapping[str, Tensor], device: str | torch.device = "cpu"
) -> TextTower:
    """See `trackmill.models.clip.load`."""
    checkpoint = as_checkpoint(weights)
    layout = layout_of(checkpoint)
    if layout is None:
        few = ", ".join(list(checkpoint)[:3])
        raise BadWeights(f"{checkpoint.where}: no text tower of CLIP in it (it begins with {few}); take ViT-B-32.pt")
    tensors = _from_hugging_face(checkpoint) if layout == HUGGINGFACE else _from_openai(checkpoint)
    sizes = _sizes_of(tensors, checkpoint.where)
    with torch.device("meta"):  # 63 million random numbers would be drawn and thrown away
        tower = TextTower(sizes)
    tower = tower.to_empty(device="cpu")
    fit(tower, Checkpoint(tensors=tensors, where=checkpoint.where), "the text tower of CLIP")
    return tower.to(device).eval()


def _from_openai(checkpoint: Checkpoint) -> dict[str, Tensor]:
    # Of a program that was traced, each block keeps a mask beside its tensors.
    return {
        name: each
        for name, each in checkpoint.items()
        if not name.startswith(SET_ASIDE) and not name.endswith(".attn_mask")
    }


def _from_hugging_face(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """OpenAI's names; q, k and v in one tensor again, the projection turned back."""
    given = {name.removeprefix("text_model."): each for name, each in checkpoint.items()}
    given = {name: each for name, each in given.items() if not name.startswith(_HF_SET_ASIDE)}
    projection = given.pop("text_projection.weight", None)
    if projection is None:
        raise BadWeights(
            f"{checkpoint.where}: holds no text_projection, as a CLIPTextModel does not: take the file of the whole "
            "CLIPModel, or of a CLIPTextModelWithProjection"
        )
    tensors: dict[str, Tensor] = {"text_projection": projection.t() if projection.ndim == 2 else projection}
    for name in list(given):
        found = _QUERY.fullmatch(name)
        if found is None:
            continue
        parts = [given.pop(name.replace(".q_proj.", f".{each}_proj."), None) for each in "qkv"]
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts) or len({part.shape for part in whole}) > 1:
            raise BadWeights(f"{checkpoint.where}: {name} has no k_proj and v_proj of its shape beside it")
        tensors[f"transformer.resblocks.{found[1]}.attn.in_proj_{found[2]}"] = torch.cat(whole)
    for name, each in given.items():
        for pattern, ours in _HF_NAMES:
            name = re.sub(f"^{pattern}", ours, name)
        tensors[name] = each
    return tensors


def _sizes_of(tensors: Mapping[str, Tensor], where: str) -> TextTowerSizes:
    """Sizes, by shapes; what then does not agree with them is named by `fit`."""
    shapes = {name: tuple(each.shape) for name, each in tensors.items()}
    blocks = {int(found[1]) for found in map(_BLOCK.match, shapes) if found}
    tables = [shapes.get(name, ()) for name in ("token_embedding.weight", "positional_embedding", "text_projection")]
    if any(len(shape) != 2 or 0 in shape for shape in tables) or not blocks:
        raise BadWeights(
            f"{where}: no whole text tower of CLIP: token_embedding, positional_embedding, text_projection and "
            f"transformer.resblocks are {', '.join(map(str, tables))} and {len(blocks)} blocks"
        )
    (vocabulary, width), (context, _), (_, embedding) = tables
    if max(blocks) >= len(blocks) or width % HEAD_WIDTH:
        raise BadWeights(f"{where}: no text tower of CLIP: {len(blocks)} blocks up to {max(blocks)}, width {width}")
    return TextTowerSizes(vocabulary=vocabulary, context=context, width=width, layers=len(blocks), embedding=embedding)
