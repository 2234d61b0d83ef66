"""Detic's tensors under the two sets of names that are in use: those of its own code, and mmdetection's.

OpenMMLab publishes Detic in mmdetection's form (`backbone.stages.*`, `neck.*`, `rpn_head.*`, `roi_head.*`), and MASA's
checkpoint holds such a detector below `detector.`. The networks are the same but for two things: mmdetection merges
2 x 2 patches channel by channel, so the tensors of Swin's patch merging are ordered differently, and the factor of each
level is a number, not a list of one number. Source of the names: mmdetection,
`tools/model_converters/detic_to_mmdet.py` and `projects/Detic_new`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from trackmill.models.backbones.swin import merging_order

INSIDE_MASA = "detector."
"""What stands before every name of the detector in a checkpoint of MASA."""

MASAS_OWN = ("masa_adapter.", "rpn_head.", "roi_head.", "track_head.")
"""What else is in such a checkpoint: parts of MASA, of which some are called like parts of Detic."""

_BOX_HEAD, _PREDICTOR = "roi_heads.box_head.#", "roi_heads.box_predictor.#"
_THEIR_HEAD = "roi_head.bbox_head.#"
_BLOCK, _THEIR_BLOCK = "backbone.bottom_up.layers.#.blocks.#", "backbone.stages.#.blocks.#"
_CENTERNET = "proposal_generator.centernet_head"
_MASK = "roi_heads.mask_head"

_PAIRS: tuple[tuple[str, str], ...] = (
    ("backbone.bottom_up.patch_embed.proj", "backbone.patch_embed.projection"),
    ("backbone.bottom_up.patch_embed.norm", "backbone.patch_embed.norm"),
    (f"{_BLOCK}.attn", f"{_THEIR_BLOCK}.attn.w_msa"),
    (f"{_BLOCK}.mlp.fc1", f"{_THEIR_BLOCK}.ffn.layers.0.0"),
    (f"{_BLOCK}.mlp.fc2", f"{_THEIR_BLOCK}.ffn.layers.1"),
    *((f"{_BLOCK}.norm{index}", f"{_THEIR_BLOCK}.norm{index}") for index in (1, 2)),
    ("backbone.bottom_up.layers.#.downsample", "backbone.stages.#.downsample"),
    *((f"backbone.bottom_up.norm{stage}", f"backbone.norm{stage}") for stage in (1, 2, 3)),
    *((f"backbone.bottom_up.base.{part}", f"backbone.{part}") for part in ("conv1", "bn1", "fc")),
    *((f"backbone.bottom_up.base.layer{stage}", f"backbone.layer{stage}") for stage in (1, 2, 3, 4)),
    *((f"backbone.fpn_lateral{level}", f"neck.lateral_convs.{level - 3}.conv") for level in (3, 4, 5)),
    *((f"backbone.fpn_output{level}", f"neck.fpn_convs.{level - 3}.conv") for level in (3, 4, 5)),
    *((f"backbone.top_block.p{level}", f"neck.fpn_convs.{level - 3}.conv") for level in (6, 7)),
    *((f"{_CENTERNET}.bbox_tower.{3 * layer}", f"rpn_head.reg_convs.{layer}.conv") for layer in range(4)),
    *((f"{_CENTERNET}.bbox_tower.{3 * layer + 1}", f"rpn_head.reg_convs.{layer}.gn") for layer in range(4)),
    (f"{_CENTERNET}.agn_hm", "rpn_head.conv_cls"),
    (f"{_CENTERNET}.bbox_pred", "rpn_head.conv_reg"),
    (f"{_CENTERNET}.scales.#.scale", "rpn_head.scales.#.scale"),
    *((f"{_BOX_HEAD}.fc{index}", f"{_THEIR_HEAD}.shared_fcs.{index - 1}") for index in (1, 2)),
    *((f"{_PREDICTOR}.cls_score.{part}", f"{_THEIR_HEAD}.fc_cls.{part}") for part in ("linear", "zs_weight")),
    (f"{_PREDICTOR}.bbox_pred.#", f"{_THEIR_HEAD}.fc_reg.#"),
    (f"{_PREDICTOR}.freq_weight", f"{_THEIR_HEAD}.freq_weight"),
    *((f"{_MASK}.mask_fcn{layer + 1}", f"roi_head.mask_head.convs.{layer}.conv") for layer in range(4)),
    (f"{_MASK}.deconv", "roi_head.mask_head.upsample"),
    (f"{_MASK}.predictor", "roi_head.mask_head.conv_logits"),
)
"""Beginnings of names, in Detic's own code and in mmdetection; `#` stands for the same number on both sides."""

_MERGING = ".downsample.reduction.weight", ".downsample.norm.weight", ".downsample.norm.bias"

_TELLING = ("rpn_head.reg_convs.", "roi_head.bbox_head.0.fc_cls.linear.")
"""Beginnings that a Detic in mmdetection's form has, and hardly another detector of mmdetection."""


def has_mmdet_names(names: Iterable[str]) -> bool:
    """Whether these are names of a Detic in mmdetection's form, alone or inside MASA (`detector.`)."""
    every = list(names)
    inside = tuple(INSIDE_MASA + each for each in _TELLING)
    return any(name.startswith(inside) for name in every) or any(name.startswith(_TELLING) for name in every)


def official_name(name: str) -> str | None:
    """What mmdetection's `name` (without `detector.`) is called in Detic's own code; None: Detic has no such tensor."""
    return _renamed(name, _TO_OFFICIAL)


def mmdet_name(name: str) -> str | None:
    """The way back of `official_name`."""
    return _renamed(name, _TO_MMDET)


def to_official(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A detector in mmdetection's form as Detic's own code has it.

    Args:
        tensors: by name. If names begin with `detector.`, these are taken, and the parts of MASA beside them left out.

    Returns:
        Tensors by official name, in the same order. Those of patch merging are copies in the other order; all others
        are the given ones. A name that is no Detic's stays, so that whoever loads them can say so.
    """
    if not any(name.startswith(INSIDE_MASA) for name in tensors):
        return _converted(tensors, official_name)
    beside = [name for name in tensors if not name.startswith((INSIDE_MASA, *MASAS_OWN))]
    inside = {name.removeprefix(INSIDE_MASA): tensors[name] for name in tensors if name.startswith(INSIDE_MASA)}
    return _converted(inside, official_name) | {name: tensors[name] for name in beside}


def to_mmdet(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back: official names to mmdetection's, without `detector.`."""
    return _converted(tensors, mmdet_name)


def _converted(tensors: Mapping[str, Tensor], rename: Callable[[str], str | None]) -> dict[str, Tensor]:
    official = rename is official_name
    converted = {}
    for name, values in tensors.items():
        new = rename(name)
        if new is not None and name.endswith(_MERGING) and values.ndim and values.shape[-1] % 4 == 0:
            values = merging_order(values, "original" if official else "mmdet")
        elif new is not None and new.endswith(".scale") and values.numel() == 1:
            values = values.reshape((1,) if official else ())
        converted[new or name] = values
    return converted


def _rules(pairs: Iterable[tuple[str, str]]) -> list[tuple[re.Pattern[str], str]]:
    """For each pair a pattern of the first name with what may follow it, and the second with groups to fill in."""
    rules = []
    for before, after in pairs:
        pattern = re.escape(before).replace(r"\#", r"(\d+)")
        for group in range(1, after.count("#") + 1):
            after = after.replace("#", rf"\g<{group}>", 1)
        rules.append((re.compile(rf"{pattern}(?=\.|$)"), after))
    return rules


_TO_OFFICIAL = _rules((theirs, ours) for ours, theirs in _PAIRS)
_TO_MMDET = _rules(_PAIRS)


def _renamed(name: str, rules: list[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, after in rules:
        if found := pattern.match(name):
            return found.expand(after) + name[found.end() :]
    return None
