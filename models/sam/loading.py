"""SAM models by name, with the weights of a local checkpoint; another model's are recognised before one is built."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.models.weights.read import as_checkpoint, local_path
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import nearest

if TYPE_CHECKING:
    import torch
    from segment_anything.modeling import Sam

    from trackmill.models.sam.sam2 import Sam2Segmenter

_WIDTHS = {"vit_b": 768, "vit_l": 1024, "vit_h": 1280}
_WIDTH_KEY = "image_encoder.pos_embed"
_MOBILE_KEY = "image_encoder.patch_embed.seq.0.c.weight"
_ALIASES = {"vit_t": "mobile"}
_SAM2 = ("sam2.1_hiera_tiny", "sam2.1_hiera_small", "sam2.1_hiera_base_plus", "sam2.1_hiera_large", "sam3")

VARIANTS = (*_WIDTHS, "mobile", *_ALIASES, *_SAM2)
"""What `load` takes. `vit_t` is what MobileSAM's own code calls `mobile`."""


def load(
    variant: str,
    weights: str | os.PathLike[str] | Mapping[str, torch.Tensor] | None,
    device: str | torch.device = "cpu",
) -> Sam | Sam2Segmenter:
    """A model in evaluation mode.

    SAM and MobileSAM come as segment-anything's own `Sam` module, so its predictor and generator take them too; wrap it
    in a segmenter to run it fast. SAM 2.1 and SAM 3 come as a segmenter.

    Args:
        variant: one of `VARIANTS`.
        weights: path or URL of a `.pth`, `.pt` or `.safetensors` file (for SAM 2.1 and SAM 3: path of a folder on this
            machine that transformers saved), or tensors by name. None: fresh random weights, of torch's global
            generator (not for SAM 2.1 and SAM 3). Wrappers (`{"model": ...}`, `{"state_dict": ...}`) and prefixes are
            taken off, see `trackmill.models.weights.read`. The name `sam_vit_h_4b8939.pth` and its like promise an MD5
            and are held to it; other names, `mobile_sam.pt` among them, are not.
        device: where the model is put.

    Raises:
        ValueError: an unknown variant; a damaged file or one that holds more than tensors; weights of another
            variant; a tensor that is missing, unexpected, of another shape, or holds NaN. The text names each.
        FileNotFoundError: there is no such file or folder.
        OSError: a URL could not be fetched.
        ImportError: a package is missing.
    """
    if variant not in VARIANTS:
        hint = nearest(variant, VARIANTS) or f"known: {', '.join(VARIANTS)}"
        raise InputError(f"no SAM variant is called {variant!r}; {hint}")
    variant = _ALIASES.get(variant, variant)
    if variant in _SAM2:
        return _load_sam2(variant, weights, device)
    if weights is None:
        return _build(variant).eval().to(device)
    checkpoint = as_checkpoint(weights)
    _check_variant(variant, checkpoint)
    sam = _build(variant)
    from trackmill.models.weights.fit import fit

    fit(sam, checkpoint, f"SAM {variant}")
    return sam.eval().to(device)


def recognise(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Name of the SAM variant whose checkpoint this is, as far as its image encoder tells; None for others."""
    if _WIDTH_KEY in tensors:
        return {width: name for name, width in _WIDTHS.items()}.get(tensors[_WIDTH_KEY].shape[-1])
    return "mobile" if _MOBILE_KEY in tensors else None


def _build(variant: str) -> Sam:
    if variant != "mobile":
        from segment_anything import sam_model_registry

        return sam_model_registry[variant](checkpoint=None)

    from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    from trackmill.models.sam.tiny_vit import TinyVit

    # MobileSAM kept SAM's prompt encoder and mask decoder; sizes are those of every published SAM.
    width, side, patch = 256, 1024, 16
    return Sam(
        image_encoder=TinyVit(img_size=side, out_chans=width),
        prompt_encoder=PromptEncoder(
            embed_dim=width,
            image_embedding_size=(side // patch, side // patch),
            input_image_size=(side, side),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=width, mlp_dim=2048, num_heads=8),
            transformer_dim=width,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
    )


def _load_sam2(
    variant: str, weights: str | os.PathLike[str] | Mapping[str, torch.Tensor] | None, device: str | torch.device
) -> Sam2Segmenter:
    from trackmill.models.sam.sam2 import Sam2Segmenter

    if weights is None or isinstance(weights, Mapping):
        raise InputError(
            f"{variant} is loaded from a folder that transformers saved (config.json and .safetensors): give its path, "
            "or build a trackmill.models.sam.sam2.Sam2Segmenter around a model of your own"
        )
    return Sam2Segmenter.from_files(_folder(weights), variant, device=device)


def _folder(weights: str | os.PathLike[str]) -> Path:
    path = local_path(weights, "copy the folder here and give its path")
    if not path.is_dir():
        raise FileNotFoundError(f"no folder at {path}: give the folder that holds config.json and .safetensors")
    return path


def _check_variant(variant: str, checkpoint: Checkpoint) -> None:
    """Looked at first, because building ViT-H takes seconds and 2.5 GB."""
    found, where = recognise(checkpoint), checkpoint.where
    if _WIDTH_KEY in checkpoint:
        if found == variant:
            return
        shape = tuple(checkpoint[_WIDTH_KEY].shape)
        wanted = f"{variant} has (1, 64, 64, {_WIDTHS[variant]})" if variant in _WIDTHS else f"{variant} has none"
        raise InputError(f"{where} is not {variant}: its {_WIDTH_KEY} is {shape}, {wanted}; {_advice(found)}")
    if found == "mobile" and variant != "mobile":
        raise InputError(f"{where} is not {variant}: it has {_MOBILE_KEY}, as MobileSAM has; {_advice('mobile')}")


def _advice(found: str | None) -> str:
    return f'set sam.variant = "{found}"' if found else "it is no SAM checkpoint of a known variant"
