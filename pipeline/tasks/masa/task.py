"""MASA as something to train: two views of a picture, its objects in both, contrast between them."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from trackmill.models.masa import load
from trackmill.models.masa.loading import IMAGENET, find_variant
from trackmill.models.masa.losses import LossSettings, Targets, masa_losses
from trackmill.models.masa.model import Masa
from trackmill.models.masa.rpn_inference import KEY_PROPOSALS, TEST_PROPOSALS
from trackmill.models.masa.starting import start_backbone
from trackmill.models.masa.variants import Variant, metadata_of
from trackmill.pipeline.loader.views import View, ViewSettings
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import exists
from trackmill.pipeline.tasks.base import TrainingModule
from trackmill.pipeline.tasks.masa.evaluation import EvaluationSettings, evaluation_of
from trackmill.pipeline.tasks.masa.examples import Example, MakeMasaExample, ObjectSettings
from trackmill.pipeline.weights import read_weights
from trackmill.schemas.config import ConfigError, Settings
from trackmill.schemas.errors import MissingPackage

__all__ = ["EvaluationSettings", "LossSection", "MasaTask", "MasaTraining", "ModelSettings", "ObjectSettings"]


class ModelSettings(Settings):
    """Section `model`: what is trained, from where, and which parts of it."""

    variant: str = Field("masa_lite0", description="A name in trackmill.models.masa.variants.")
    weights: str = Field(
        "",
        description="Where all weights start: a checkpoint's path or URL; `imagenet` (masa_lite0: the backbone's); "
        "empty: fresh.",
    )
    backbone_weights: str = Field(
        "", description="A checkpoint of which only the backbone is taken: SAM's, torchvision's ResNet-50, MASA's."
    )
    freeze: tuple[str, ...] = Field(
        (), description="Parts that are not trained, as named in the state dict: backbone, masa_adapter, rpn_head, ..."
    )
    compatible_offsets: bool | None = Field(
        None, description="How the coarser level is sampled; leave it out unless you know (trackmill.models.masa.load)."
    )


class LossSection(Settings):
    """Section `loss`: see `trackmill.models.masa.losses.LossSettings`."""

    contrast: Literal["released", "paper"] = Field(
        "released", description="released: dot products, positives averaged; paper: cosines at temperature 0.07, a sum."
    )
    auxiliary_weight: float = Field(1.0, ge=0, description="Of the margin loss, which the paper does not have.")
    detection: bool = Field(
        True, description="Train the proposal and object heads too; if not, only given objects are compared."
    )
    negatives: Literal["pair", "batch"] = Field(
        "pair", description="Other objects of the same picture, or of the whole batch but for the same video's."
    )
    ignore_iou: float = Field(
        1.0, ge=0, le=1, description="Objects of a picture that overlap more are no negatives of each other."
    )
    symmetric: bool = Field(False, description="Compare in both directions.")
    proposals: int = Field(1000, gt=0, description="Boxes of the proposal head that losses draw from, an image.")
    samples: int = Field(512, gt=0, description="Boxes an image that are embedded, at most half of them positives.")

    def settings(self) -> LossSettings:
        """The same as the losses take it."""
        default = LossSettings()
        return LossSettings(
            contrast=self.contrast,
            auxiliary_weight=self.auxiliary_weight,
            detection=self.detection,
            negatives=self.negatives,
            ignore_iou=self.ignore_iou,
            symmetric=self.symmetric,
            key_proposals=dataclasses.replace(KEY_PROPOSALS, kept=self.proposals),
            ref_proposals=dataclasses.replace(TEST_PROPOSALS, kept=self.proposals),
            track_sampling=dataclasses.replace(default.track_sampling, total=self.samples),
        )


class MasaTraining(TrainingModule):
    """`Masa` with its losses.

    Args:
        network: the model.
        frozen: names of its parts that are not trained: no gradients, always in evaluation mode.
        loss: which losses.
    """

    network: Masa

    def __init__(self, network: Masa, frozen: Sequence[str], loss: LossSettings) -> None:
        super().__init__()
        self.network, self.frozen, self.loss = network, tuple(frozen), loss
        for name, parameter in network.named_parameters():
            if any(_within(name, part) for part in frozen):
                parameter.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> MasaTraining:
        """As in any module, but for what is frozen; batch norms follow `Masa.train`."""
        super().train(mode)
        for name, module in self.network.named_modules():
            if name in self.frozen:
                module.eval()
        return self

    def forward(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        """Losses and telemetry of `trackmill.models.masa.losses.masa_losses`; `batch`: see `MasaTask.collate`."""
        groups = [tuple(each) for each in batch["groups"].tolist()]
        key, reference = (_targets(batch[name], groups) for name in ("key", "reference"))
        return masa_losses(
            self.network,
            batch["key"]["images"].float(),
            batch["reference"]["images"].float(),
            key,
            reference,
            generator,
            settings=self.loss,
        )


class MasaTask:
    """Contrastive training on the objects of single pictures (Li et al., CVPR 2024, section 3.2).

    Args:
        model, objects, views, loss, evaluation: sections of the recipe.

    Raises:
        ConfigError: settings that are wrong or do not go together; names the key.
        ImportError: albumentations is missing; says what to type.
    """

    name = "masa"

    def __init__(
        self,
        model: ModelSettings,
        objects: ObjectSettings,
        views: ViewSettings,
        loss: LossSection,
        evaluation: EvaluationSettings,
    ) -> None:
        self._model, self._objects, self._views, self._evaluation = model, objects, views, evaluation
        self._loss = loss.settings()
        self._variant = _variant(model)
        if self._variant.input_side and views.size > self._variant.input_side:
            raise ConfigError(
                f"views.size: {self._variant.name} takes at most {self._variant.input_side} pixels, found {views.size}"
            )
        for key in ("weights", "backbone_weights"):
            _check_there(key, getattr(model, key))
        self._frozen = _frozen(self._variant, model.freeze, self._loss)
        if importlib.util.find_spec("albumentations") is None:
            raise MissingPackage('views need albumentations 2.0.8: type pip install -e ".[train]"')

    def build(self, seed: int) -> MasaTraining:
        """See `Task.build`.

        Raises:
            ValueError: weights that do not fit; names the file and what is wrong with it.
        """
        weights, source = self._model.weights, self._model.backbone_weights
        start = weights if weights == IMAGENET else read_weights(weights) if weights else None
        network = load(self._variant, start, compatible_offsets=self._model.compatible_offsets, seed=seed)
        if source:
            checkpoint = read_weights(source)
            start_backbone(network, checkpoint.tensors, checkpoint.where)
        elif not weights and (self._variant.frozen or "backbone" in self._frozen):
            warnings.warn(
                f"the frozen backbone of {self._variant.name} has random weights, fit for trying things out only: set "
                "model.backbone_weights or model.weights",
                stacklevel=2,
            )
        self._variant = network.variant  # weights may say how they sample
        return MasaTraining(network, self._frozen, self._loss)

    def make_example(self) -> MakeMasaExample:
        """See `Task.make_example`."""
        return MakeMasaExample(objects=self._objects, views=self._views)

    def collate(self, examples: Sequence[Example]) -> dict[str, Any]:
        """A batch of B examples.

        Returns:
            `key` and `reference`, each with `images` (B, 3, H, W) uint8, `boxes` and `ids`, B tensors (G_i, 4) float32
            and (G_i,) int64; `groups` (B, 2) int64, numbers of the files whose pixels are in the views.
        """
        return {
            "key": _side([each.key for each in examples]),
            "reference": _side([each.reference for each in examples]),
            "groups": torch.tensor([[_number(origin) for origin in each.origins] for each in examples]),
        }

    def metadata(self) -> dict[str, str]:
        """See `Task.metadata`."""
        return metadata_of(self._variant, task=self.name, frozen=", ".join(self._frozen), contrast=self._loss.contrast)

    def evaluation(self) -> Callable[[nn.Module, torch.device], Mapping[str, float]] | None:
        """See `Task.evaluation`."""
        return evaluation_of(self._evaluation)


def _variant(model: ModelSettings) -> Variant:
    try:
        variant = find_variant(model.variant)
    except ValueError as error:
        raise ConfigError(f"model.variant: {error}") from None
    if model.weights == IMAGENET and variant.backbone != "efficientnet_lite0_tensorflow":
        raise ConfigError(f'model.weights: "{IMAGENET}" is for masa_lite0; give {variant.name} a path or URL')
    if model.compatible_offsets is None:
        return variant
    return dataclasses.replace(variant, compatible_offsets=model.compatible_offsets)


def _check_there(key: str, source: str) -> None:
    if not source or source == IMAGENET:
        return
    try:
        there = exists(source)
    except ValueError as error:
        raise ConfigError(f"model.{key}: {error}") from None
    if not there:
        raise ConfigError(f"model.{key}: no file at {redact(source)}")


def _frozen(variant: Variant, asked: Sequence[str], loss: LossSettings) -> tuple[str, ...]:
    """Parts without gradients: what the recipe says, and what no loss reaches."""
    with torch.device("meta"):  # names alone
        network = Masa(variant)
    names = [name for name, _ in network.named_parameters()]
    modules = [name for name, _ in network.named_modules() if name]
    for part in asked:
        if not any(_within(name, part) for name in names):
            near = _nearest(part, modules)
            raise ConfigError(f"model.freeze: {variant.name} has no part {part!r}; {near}")
    unreached = []
    if not loss.detection:
        unreached = ["rpn_head", "roi_head"] + (["masa_adapter"] if variant.track_head == "bands" else [])
    return tuple(dict.fromkeys([*asked, *unreached]))


def _nearest(part: str, modules: Sequence[str]) -> str:
    near = difflib.get_close_matches(part, modules, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(each for each in modules if '.' not in each)}"


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _targets(side: dict[str, Any], groups: Sequence[tuple[int, ...]]) -> list[Targets]:
    return [
        Targets(boxes=boxes, ids=ids, groups=group) for boxes, ids, group in zip(side["boxes"], side["ids"], groups)
    ]


def _side(views: Sequence[View]) -> dict[str, Any]:
    images = torch.from_numpy(np.stack([view.image for view in views]))  # (B, H, W, 3)
    return {
        "images": images.permute(0, 3, 1, 2).contiguous(),
        "boxes": [torch.from_numpy(view.boxes) for view in views],
        "ids": [torch.from_numpy(view.ids) for view in views],
    }


def _number(origin: str) -> int:
    """The same for the same file on every machine; 63 bits, so that two files do not meet."""
    return int.from_bytes(hashlib.blake2b(origin.encode(), digest_size=8).digest(), "big") >> 1
