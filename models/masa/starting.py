"""Where training starts from: the backbone's part of a checkpoint that is not MASA's own, put into a fresh model."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from trackmill.models.backbones.lite0 import timm_name
from trackmill.models.detic.mmdet_names import INSIDE_MASA, has_mmdet_names, to_mmdet
from trackmill.models.masa.loading import fit_variant
from trackmill.models.masa.model import Masa
from trackmill.models.masa.variants import VARIANTS, recognise
from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.models.weights.read import state_dict_of
from trackmill.schemas.errors import InputError

_DETIC = "backbone.bottom_up."
"""What stands before a backbone's names in Detic's own checkpoints."""

_SWIN_TABLE = "backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table"
_SWIN_WINDOWS = {169: "swin_b_window7", 529: "swin_b_window12"}
_SAM_WIDTHS = {768: "sam_vit_b", 1024: "sam_vit_l", 1280: "sam_vit_h"}


def start_backbone(model: Masa, state: Mapping[str, Tensor], where: str = "the weights") -> str:
    """Copy a foreign backbone into `model`; all its other tensors stay.

    Taken are, for the variant they belong to: an official or own MASA checkpoint (only its backbone); SAM's own
    (`image_encoder.*`) or renamed as mmdetection's users have it (`backbone.*`), with prompt encoder and mask decoder;
    Detic's own checkpoint (`backbone.bottom_up.*`), or a Detic or GroundingDINO detector in mmdetection's form
    (`backbone.stages.*`); torchvision's ResNet-50 or that of a Detic, though MASA's has its strides in other layers and
    has to get used to that; EfficientNet-Lite0 of timm or of its package.

    Args:
        model: of any variant.
        state: tensors by name, with or without wrappers.
        where: the file, for messages.

    Returns:
        What was recognised, in words.

    Raises:
        ValueError: something else, or a backbone of another variant; says what it looks like, or which tensors do not
            fit. The model is then as before.
    """
    tensors = state_dict_of(state, where)
    what, backbone, renamed = _recognised(tensors)
    variant = model.variant
    if backbone is None or renamed is None:
        raise InputError(
            f"{where}: no backbone recognised in {len(tensors)} tensors ({', '.join(list(tensors)[:3])}, ...); "
            f"{variant.name} takes {_wanted(variant.backbone)}"
        )
    if backbone != variant.backbone:
        raise InputError(
            f"{where}: this is {what}, with the backbone {backbone}; {variant.name} has {variant.backbone} and takes "
            f"{_wanted(variant.backbone)}"
        )
    # What stands outside the backbone stays as it is, unless the file has it too: SAM's mask decoder.
    kept = {name: values for name, values in model.state_dict().items() if not name.startswith(variant.backbone_prefix)}
    fit_variant(model, Checkpoint(tensors=kept | renamed, where=where))
    return what


def _recognised(tensors: Mapping[str, Tensor]) -> tuple[str, str | None, dict[str, Tensor] | None]:
    """What it is, the name of its backbone, and its tensors by the names they have in `Masa`; None: unknown."""
    if any(name.startswith(_DETIC) for name in tensors):
        # Only the backbone: the three copies of the classifier's matrix are not touched.
        return _recognised_detic(to_mmdet(_starting_with(tensors, _DETIC)), "a Detic checkpoint")
    if has_mmdet_names(tensors) and not any(name.startswith(INSIDE_MASA) for name in tensors):
        return _recognised_detic(_starting_with(tensors, "backbone."), "a Detic checkpoint in mmdetection's form")
    masa = recognise(tensors)
    if masa is not None:
        variant = VARIANTS[masa]
        return f"a checkpoint of {masa}", variant.backbone, _starting_with(tensors, variant.backbone_prefix)
    for name, prefix, what in (
        ("image_encoder.pos_embed", "image_encoder.", "a SAM checkpoint"),
        ("backbone.pos_embed", "backbone.", "a SAM checkpoint with renamed encoder"),
    ):
        if name in tensors:
            backbone = _SAM_WIDTHS.get(tensors[name].shape[-1], "unknown to SAM")
            rest = _starting_with(tensors, ("prompt_encoder.", "mask_decoder."))
            return what, backbone, _moved(tensors, prefix, "detector.backbone.") | _moved(rest, "", "detector.")
    if _SWIN_TABLE in tensors:
        backbone = _SWIN_WINDOWS.get(len(tensors[_SWIN_TABLE]), "another Swin")
        return "a detector with a Swin backbone", backbone, _moved(tensors, "backbone.", "detector.backbone.")
    if "conv1.weight" in tensors and "layer4.2.conv3.weight" in tensors:
        depth = sum(name.startswith("layer3.") and name.endswith(".conv1.weight") for name in tensors)
        backbone = "resnet50" if depth == 6 else "a deeper ResNet"
        classified = {name: values for name, values in tensors.items() if not name.startswith("fc.")}
        return "a ResNet classifier", backbone, _moved(classified, "", "backbone.")
    if "_conv_stem.weight" in tensors:
        tensors = {timm_name(name): values for name, values in tensors.items()}
    if "conv_stem.weight" in tensors and "blocks.0.0.conv_dw.weight" in tensors:
        parts = _starting_with(tensors, ("conv_stem.", "bn1.", "blocks."))
        return "an EfficientNet", "efficientnet_lite0_tensorflow", _moved(parts, "", "backbone.")
    return "", None, None


def _recognised_detic(backbone: Mapping[str, Tensor], what: str) -> tuple[str, str | None, dict[str, Tensor] | None]:
    """As `_recognised`, of a Detic's backbone in mmdetection's names."""
    if _SWIN_TABLE in backbone:
        kind = _SWIN_WINDOWS.get(len(backbone[_SWIN_TABLE]), "another Swin")
        return what, kind, _moved(backbone, "backbone.", "detector.backbone.")
    depth = sum(name.startswith("backbone.layer3.") and name.endswith(".conv3.weight") for name in backbone)
    kept = {name: values for name, values in backbone.items() if not name.startswith("backbone.fc.")}
    return what, "resnet50" if depth == 6 else "of another kind", kept


def _starting_with(tensors: Mapping[str, Tensor], prefix: str | tuple[str, ...]) -> dict[str, Tensor]:
    return {name: values for name, values in tensors.items() if name.startswith(prefix)}


def _moved(tensors: Mapping[str, Tensor], before: str, after: str) -> dict[str, Tensor]:
    """The tensors below a prefix, below another one."""
    return {after + name.removeprefix(before): values for name, values in tensors.items() if name.startswith(before)}


def _wanted(backbone: str) -> str:
    match backbone:
        case "sam_vit_b" | "sam_vit_h":
            return f"MASA's checkpoint or SAM's own ({backbone}_*.pth)"
        case "swin_b_window7" | "swin_b_window12":
            return "MASA's checkpoint or the detector's (backbone.stages.*, of Detic also backbone.bottom_up.*)"
        case "resnet50":
            return "MASA's checkpoint or torchvision's ResNet-50"
    return "MASA's checkpoint, timm's tf_efficientnet_lite0, or model.weights = \"imagenet\""
