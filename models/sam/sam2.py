"""SAM 2.1 and the promptable part of SAM 3 as a `PromptableSegmenter`, around transformers' models.

Both models stretch a picture to the encoder's square without padding, and resize each mask once, from the decoder's
size (256 x 256; SAM 3: 288 x 288) to the picture's. They differ in the encoder only; in transformers both have the same
calls.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trackmill.models.sam.segmenter import Decoded, Features, PreparedImage, ResizeChain, ResizeStage
from trackmill.schemas.errors import InputError, MissingPackage
from trackmill.schemas.install import install

_BACKBONES = {
    "sam2.1_hiera_tiny": (96, [1, 2, 7, 2]),
    "sam2.1_hiera_small": (96, [1, 2, 11, 2]),
    "sam2.1_hiera_base_plus": (112, [2, 3, 16, 3]),
    "sam2.1_hiera_large": (144, [2, 6, 36, 4]),
}
"""Channels of the first stage and number of blocks of the four stages; they identify a variant."""

_MAX_CONFIG_BYTES = 1 << 20
"""Of `config.json`, which has a few kB; what is longer is none."""

_FAMILIES = {
    "sam2": "sam2",
    "sam2_video": "sam2",
    "sam3_tracker": "sam3",
    "sam3_tracker_video": "sam3",
    "sam3_video": "sam3",
}
"""`model_type` in config.json -> family. The published folders hold the video models, which contain the image model."""

_CPU_PROMPTS = 2
"""Prompts decoded at once on a CPU. SAM 2.1, 32 points, one thread, CPU seconds: 3.7 with 2 at once, 4.2 with 4, 6.3
with 16, which do not fit in the cache."""

_OTHER_PROMPTS = 64
"""Prompts decoded at once elsewhere, as in SAM 2's own generator; about 40 MB per prompt. Chosen, not measured."""

_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


class Sam2Segmenter:
    """`trackmill.models.sam.segmenter.PromptableSegmenter` around a `Sam2Model` or a `Sam3TrackerModel`.

    It decodes every prompt in full, as transformers does, and then drops the masks not above `iou_above`. For a box,
    the model itself takes the best of its three masks where its single mask is unstable, if its config says so.

    Args:
        model: the model, on its device; it is put into evaluation mode and not changed otherwise.
        processor: transformers' image processor for it. None: the published models' processor, at the model's size.
        prompts_per_batch: prompts decoded at once: more takes more memory, and on a CPU more time.
            None: 2 on a CPU, 64 elsewhere.

    Raises:
        ImportError: transformers is missing or too old.
        ValueError: the processor makes pictures of another size than the model takes.
    """

    mask_threshold = 0.0

    def __init__(self, model: Any, processor: Any = None, *, prompts_per_batch: int | None = None) -> None:
        if prompts_per_batch is not None and prompts_per_batch < 1:
            raise ValueError(f"prompts_per_batch is {prompts_per_batch}; give 1 or more, or None")
        self.model = model.eval()
        if processor is None:
            _, processor_class = _classes(_FAMILIES[model.config.model_type])
            processor = processor_class(size={"height": self.image_size, "width": self.image_size})
        made = (processor.size["height"], processor.size["width"])
        if made != (self.image_size, self.image_size):
            raise InputError(
                f"the processor makes pictures of {made[0]} x {made[1]}, the model takes {self.image_size} x "
                f"{self.image_size}: set size in preprocessor_config.json"
            )
        self.processor = processor
        self._prompts_per_batch = prompts_per_batch

    @classmethod
    def from_files(
        cls,
        folder: str | os.PathLike[str],
        variant: str | None = None,
        *,
        device: str | torch.device = "cpu",
        prompts_per_batch: int | None = None,
    ) -> Sam2Segmenter:
        """Load a folder that `save_pretrained` wrote or a model hub published. No file is fetched or unpickled.

        Args:
            folder: holds config.json, .safetensors and, if the input size is not the published one,
                preprocessor_config.json.
            variant: the variant that the folder must hold, e.g. "sam2.1_hiera_tiny" or "sam3"; None: any.
            device: the device to put the model on.
            prompts_per_batch: see the class.

        Raises:
            ImportError: transformers is missing or too old.
            FileNotFoundError: there is no config.json.
            OSError: there is no .safetensors.
            ValueError: the folder holds another model or variant, a file is damaged, or tensors are missing or have
                another shape.
        """
        folder = Path(folder)
        family = _family(folder)
        if variant is not None and (family == "sam3") != (variant == "sam3"):
            raise InputError(f"{folder} holds a model of {family}, not {variant}: give another folder or variant")
        model_class, processor_class = _classes(family)
        model = _read_model(model_class, folder)
        if variant is not None:
            _check_variant(model, variant, folder)
        local = any((folder / name).is_file() for name in _PROCESSOR_FILES)
        processor = processor_class.from_pretrained(folder, local_files_only=True) if local else None
        return cls(model.to(device), processor, prompts_per_batch=prompts_per_batch)

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        device: torch.device = self.model.device
        return device

    @property
    def image_size(self) -> int:
        """Side in pixels of the encoder's square input: 1024, SAM 3: 1008."""
        return int(self.model.prompt_encoder.input_image_size)

    def prepare(self, image: NDArray[np.uint8]) -> PreparedImage:
        """Scale a picture with transformers' own processor: (3, 1024, 1024) float32, SAM 3: (3, 1008, 1008)."""
        pixels = self.processor(
            # "W": a writable copy, because torch warns about read-only memory.
            images=[np.require(image, np.uint8, ["C", "W"])],
            input_data_format="channels_last",  # else a picture 3 pixels high passes for channels first
            return_tensors="pt",
        )["pixel_values"][0]
        return PreparedImage(size=(image.shape[0], image.shape[1]), pixels=pixels)

    def encode(self, images: Sequence[NDArray[np.uint8] | PreparedImage]) -> list[Features]:
        """As `PromptableSegmenter.encode`. `embedding` is (256, h, w); `high_resolution` 4 and 2 times the sides."""
        if not images:
            return []
        prepared = [image if isinstance(image, PreparedImage) else self.prepare(image) for image in images]
        pixels = torch.stack([each.pixels for each in prepared])
        with torch.inference_mode():
            levels = self.model.get_image_embeddings(pixels.to(self.device, self.model.dtype))
        features = []
        for i, each in enumerate(prepared):
            chain = ResizeChain(self._mask_size, (ResizeStage(size=each.size, keep=each.size),))
            features.append(
                Features(
                    embedding=levels[-1][i],
                    size=each.size,
                    input_size=(self.image_size, self.image_size),
                    chain=chain,
                    high_resolution=tuple(level[i] for level in levels[:-1]),
                )
            )
        return features

    def decode(
        self,
        features: Features,
        *,
        points: NDArray[np.float64] | None = None,
        boxes: NDArray[np.float64] | None = None,
        iou_above: float | None = None,
    ) -> Decoded:
        """See `PromptableSegmenter.decode`. `logits` are whole masks, (M, 256, 256), SAM 3: (M, 288, 288).

        Raises:
            ValueError: neither or both of points and boxes are given.
            torch.OutOfMemoryError: `prompts_per_batch` prompts do not fit on the device.
        """
        if (points is None) == (boxes is None):
            raise ValueError("give either points or boxes")
        prompts = self._scaled(points if boxes is None else boxes, features.size)
        masks_each = self.model.mask_decoder.num_multimask_outputs if boxes is None else 1
        levels = [level[None] for level in (*features.high_resolution, features.embedding)]
        ious = [torch.empty(0, masks_each, device=self.device)]
        kept = [torch.empty(0, dtype=torch.int64, device=self.device)]
        logits = [torch.empty(0, *self._mask_size, device=self.device)]
        step = self._prompts_per_batch or (_CPU_PROMPTS if self.device.type == "cpu" else _OTHER_PROMPTS)
        for start in range(0, len(prompts), step):
            part = prompts[None, start : start + step]  # one picture, n prompts
            inputs = {"input_points": part[:, :, None]} if boxes is None else {"input_boxes": part}
            with torch.inference_mode():
                output = self.model(image_embeddings=levels, multimask_output=boxes is None, **inputs)
            iou = output.iou_scores[0].float()  # (n, K)
            wanted = torch.ones_like(iou, dtype=torch.bool) if iou_above is None else iou > iou_above
            ious.append(iou)
            kept.append(start * masks_each + wanted.flatten().nonzero()[:, 0])
            logits.append(output.pred_masks[0][wanted].float())  # (m, rows, columns), prompt by prompt
        return Decoded(iou=torch.cat(ious), kept=torch.cat(kept), logits=torch.cat(logits))

    @property
    def _mask_size(self) -> tuple[int, int]:
        rows, columns = self.model.prompt_encoder.mask_input_size
        return int(rows), int(columns)

    def _scaled(self, prompts: NDArray[np.float64] | None, size: tuple[int, int]) -> Tensor:
        """Prompts in the encoder's pixels, computed in float32 and in the order of transformers' own processor."""
        height, width = size
        xy = torch.as_tensor(np.asarray(prompts), dtype=torch.float32)
        scale = torch.tensor([self.image_size / width, self.image_size / height] * (xy.shape[-1] // 2))
        return (xy * scale).to(self.device)


def _classes(family: str) -> tuple[Any, Any]:
    """The classes of the model and of the image processor."""
    try:
        if family == "sam3":
            from transformers import Sam3ImageProcessor, Sam3TrackerModel

            return Sam3TrackerModel, Sam3ImageProcessor
        from transformers import Sam2ImageProcessor, Sam2Model

        return Sam2Model, Sam2ImageProcessor
    except ImportError as error:
        raise MissingPackage(
            f"{family.upper()} needs an extra: {install('sam2')}, with transformers 5 or newer ({error})",
            name="transformers",
        ) from error


def _family(folder: Path) -> str:
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: give a folder that transformers saved")
    try:
        with open(path, "rb") as handle:
            kind = json.loads(handle.read(_MAX_CONFIG_BYTES)).get("model_type")
    except (ValueError, AttributeError, RecursionError):
        raise InputError(f"{path}: not what transformers writes; copy the folder again") from None
    if kind not in _FAMILIES:
        raise InputError(f"{path}: its model_type is {kind!r}, known are {', '.join(_FAMILIES)}")
    return _FAMILIES[kind]


def _read_model(model_class: Any, folder: Path) -> Any:
    from safetensors import SafetensorError

    try:
        model, report = model_class.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            # The checks below name missing and mismatched tensors; transformers would fill both with random values.
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except SafetensorError as error:
        raise InputError(f"{folder}: a damaged .safetensors, copy it again: {error}") from None
    missing = sorted(report["missing_keys"])
    shapes = sorted(f"{key} {tuple(has)} instead of {tuple(wants)}" for key, has, wants in report["mismatched_keys"])
    problems = [
        f"{len(names)} {what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        for what, names in (("missing", missing), ("of another shape", shapes))
        if names
    ]
    if problems:
        raise InputError(f"{folder}: the tensors do not fit its config.json: {'; '.join(problems)}")
    return model


def _check_variant(model: Any, variant: str, folder: Path) -> None:
    if variant not in _BACKBONES:
        return
    backbone = model.config.vision_config.backbone_config
    actual = backbone.embed_dim_per_stage[0], list(backbone.blocks_per_stage)
    if actual != _BACKBONES[variant]:
        name = next((name for name, sizes in _BACKBONES.items() if sizes == actual), "a model of another size")
        raise InputError(
            f"{folder} is not {variant} but {name}: its stages start with {actual[0]} channels and have {actual[1]} "
            f"blocks, {variant} has {_BACKBONES[variant][0]} and {_BACKBONES[variant][1]}"
        )
