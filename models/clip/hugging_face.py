"""Tensors of a CLIP of Hugging Face under OpenAI's names: q, k and v in one tensor again, projections turned back."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from trackmill.models.weights.errors import BadWeights

TEXT_PREFIXES = ("text_model.", "")
IMAGE_PREFIX = "vision_model."
_FIRST = "embeddings.token_embedding.weight"

_BLOCKS = (
    (r"encoder\.layers\.(\d+)\.layer_norm", r"transformer.resblocks.\1.ln_"),
    (r"encoder\.layers\.(\d+)\.mlp\.fc1\.", r"transformer.resblocks.\1.mlp.c_fc."),
    (r"encoder\.layers\.(\d+)\.mlp\.fc2\.", r"transformer.resblocks.\1.mlp.c_proj."),
    (r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.", r"transformer.resblocks.\1.attn.out_proj."),
)
_TEXT = (
    *_BLOCKS,
    (r"embeddings\.token_embedding\.", "token_embedding."),
    (r"embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"final_layer_norm\.", "ln_final."),
)
_IMAGE = (
    *_BLOCKS,
    (r"embeddings\.class_embedding", "class_embedding"),
    (r"embeddings\.patch_embedding\.", "conv1."),
    (r"embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"pre_layrnorm\.", "ln_pre."),  # so it is spelled there
    (r"post_layernorm\.", "ln_post."),
)
_QUERY = re.compile(r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)")


def is_hugging_face(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a text tower is there under Hugging Face's names."""
    return any(f"{prefix}{_FIRST}" in tensors for prefix in TEXT_PREFIXES)


def text_tensors(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The text tower, under the names of `TextTower`.

    Raises:
        BadWeights: it has no projection, or a block lacks keys or values.
    """
    aside = (IMAGE_PREFIX, "visual_projection.", "logit_scale", "embeddings.position_ids")
    given = {name.removeprefix("text_model."): each for name, each in tensors.items()}
    given = {name: each for name, each in given.items() if not name.startswith(aside)}
    projection = given.pop("text_projection.weight", None)
    if projection is None:
        raise BadWeights(
            f"{where}: holds no text_projection, as a CLIPTextModel does not: take the file of the whole CLIPModel, or "
            "of a CLIPTextModelWithProjection"
        )
    return {"text_projection": _turned(projection), **_renamed(given, _TEXT, "", where)}


def image_tensors(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The image tower, under the names of `ImageTower`; empty where there is none.

    Raises:
        BadWeights: it has no projection, or a block lacks keys or values.
    """
    given = {name.removeprefix(IMAGE_PREFIX): e for name, e in tensors.items() if name.startswith(IMAGE_PREFIX)}
    given.pop("embeddings.position_ids", None)
    if not given:
        return {}
    projection = tensors.get("visual_projection.weight")
    if projection is None:
        raise BadWeights(f"{where}: holds no visual_projection: take the file of the whole CLIPModel")
    return {"proj": _turned(projection), **_renamed(given, _IMAGE, IMAGE_PREFIX, where)}


def _turned(projection: Tensor) -> Tensor:
    return projection.t() if projection.ndim == 2 else projection


def _renamed(
    given: dict[str, Tensor], names: tuple[tuple[str, str], ...], prefix: str, where: str
) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name in list(given):
        found = _QUERY.fullmatch(name)
        if found is None:
            continue
        parts = [given.pop(name.replace(".q_proj.", f".{each}_proj."), None) for each in "qkv"]
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts) or len({part.shape for part in whole}) > 1:
            raise BadWeights(f"{where}: {prefix}{name} has no k_proj and v_proj of its shape beside it")
        tensors[f"transformer.resblocks.{found[1]}.attn.in_proj_{found[2]}"] = torch.cat(whole)
    for name, each in given.items():
        for pattern, ours in names:
            name = re.sub(f"^{pattern}", ours, name)
        tensors[name] = each
    return tensors
