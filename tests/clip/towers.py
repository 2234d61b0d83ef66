"""CLIPs small enough for a test, under the names of OpenAI and of Hugging Face; and the official one, drawn."""

from __future__ import annotations

import functools
import math
import zlib
from typing import Any

import torch

from tests.fixtures import packed
from trackmill.models.clip.image_tower import ImageTowerSizes
from trackmill.models.clip.text_tower import TextTower, TextTowerSizes
from trackmill.models.clip.towers import ClipSizes, ClipTowers

State = dict[str, torch.Tensor]

SMALL = TextTowerSizes(width=64, layers=2, embedding=48)
"""The tokens and the context of CLIP, so that its tokenizer fits; all else is small."""

SMALL_CLIP = ClipSizes(text=SMALL, image=ImageTowerSizes(patch=8, grid=4, width=64, layers=2, embedding=48))


def small_state(seed: int = 0) -> State:
    """Tensors of a small tower, none of which is zero or one throughout. Clone what is written to."""
    return dict(_small_state(seed))


@functools.cache
def _small_state(seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    state: State = TextTower(SMALL).state_dict()
    return {name: torch.randn(each.shape, generator=generator) * 0.1 for name, each in state.items()}


def small_clip_state(seed: int = 0) -> State:
    """As `small_state`, of both towers, under OpenAI's names and with the temperature."""
    generator = torch.Generator().manual_seed(seed + 1)
    image: State = ClipTowers(SMALL_CLIP).image.state_dict()
    drawn = {f"visual.{name}": torch.randn(each.shape, generator=generator) * 0.1 for name, each in image.items()}
    return small_state(seed) | drawn | {"logit_scale": torch.tensor(4.6)}


def small_towers(seed: int = 0) -> ClipTowers:
    """Both towers of `SMALL_CLIP`, with random weights that let gradients through."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ClipTowers(SMALL_CLIP)


def official_state() -> State:
    """ViT-B/16 under the weights that `clip_vitb16/manifest.json` tells how to draw."""
    return {entry["name"]: _drawn(entry) for entry in packed.read_json("clip_vitb16/manifest.json")["entries"]}


def _drawn(entry: dict[str, Any]) -> torch.Tensor:
    """One tensor, by the rules of the README beside the manifest."""
    shape = tuple(entry["shape"])
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(entry["name"].encode())))
    match entry["fill"]:
        case "fan_in":
            return drawn / math.sqrt(math.prod(shape[1:]))
        case "norm_weight":
            return 1 + 0.02 * drawn
        case "vector":
            return 0.02 * drawn
        case "const_ln100":
            return torch.tensor(math.log(100))
        case other:
            raise ValueError(f"no rule {other!r}")


def hugging_face_state(state: State) -> State:
    """The same tower as a `CLIPModel` of Hugging Face has it, with a piece of its image tower."""
    renamed: State = {
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "text_model.embeddings.position_ids": torch.arange(77)[None],  # in files of older versions
        "text_projection.weight": state["text_projection"].t().contiguous(),
        "vision_model.embeddings.class_embedding": torch.ones(3),
        "visual_projection.weight": torch.ones(2, 2),
        "logit_scale": torch.tensor(4.6),
    }
    for kind in ("weight", "bias"):
        renamed[f"text_model.final_layer_norm.{kind}"] = state[f"ln_final.{kind}"]
        for layer in range(SMALL.layers):
            ours, theirs = f"transformer.resblocks.{layer}", f"text_model.encoder.layers.{layer}"
            parts = state[f"{ours}.attn.in_proj_{kind}"].chunk(3)
            for name, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
                renamed[f"{theirs}.self_attn.{name}.{kind}"] = part.clone()
            renamed[f"{theirs}.self_attn.out_proj.{kind}"] = state[f"{ours}.attn.out_proj.{kind}"]
            for number in "12":
                renamed[f"{theirs}.layer_norm{number}.{kind}"] = state[f"{ours}.ln_{number}.{kind}"]
            renamed[f"{theirs}.mlp.fc1.{kind}"] = state[f"{ours}.mlp.c_fc.{kind}"]
            renamed[f"{theirs}.mlp.fc2.{kind}"] = state[f"{ours}.mlp.c_proj.{kind}"]
    return renamed
