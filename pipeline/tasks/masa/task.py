"""MASA as something to train: two views of a picture, its objects in both, contrast between them."""

from __future__ import annotations

import dataclasses
import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from trackmill.models.masa.loading import IMAGENET, find_variant, load_model
from trackmill.models.masa.model import Masa
from trackmill.models.masa.starting import start_backbone
from trackmill.models.masa.variants import Variant, metadata_of
from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.pipeline.loader.views import ViewSettings
from trackmill.pipeline.tasks.association_benchmark import EvaluationSettings, make_evaluation
from trackmill.pipeline.tasks.base import Evaluation, Task
from trackmill.pipeline.tasks.masa.batch import PairBatch, join_examples
from trackmill.pipeline.tasks.masa.evaluation import masa_embedding
from trackmill.pipeline.tasks.masa.examples import Example, MakeMasaExample
from trackmill.pipeline.tasks.masa.module import MasaTraining, frozen_parts
from trackmill.pipeline.tasks.masa.objects import ObjectSettings
from trackmill.pipeline.tasks.masa.settings import LossSection, ModelSettings
from trackmill.pipeline.tasks.weight_sources import require_weights
from trackmill.pipeline.weights import read_weights
from trackmill.schemas.config import ConfigError, Settings
from trackmill.schemas.errors import MissingPackage
from trackmill.schemas.install import install


class MasaTask(Task):
    """Contrastive training on the objects of single pictures (Li et al., CVPR 2024, section 3.2).

    Args:
        model, objects, views, loss, evaluation: sections of the recipe.

    Raises:
        ConfigError: settings that are wrong or do not go together; names the key.
        MissingPackage: albumentations is missing; says what to type.
    """

    name = "masa"
    training: ClassVar[type[MasaTraining]] = MasaTraining
    """What `build` returns; a task with a loss of its own names a subclass with another `forward`."""
    sections: ClassVar[Mapping[str, type[Settings]]] = {
        "model": ModelSettings,
        "objects": ObjectSettings,
        "views": ViewSettings,
        "loss": LossSection,
        "evaluation": EvaluationSettings,
    }
    no_effect = ("evaluation",)
    needed = ("positives",)
    added_later: ClassVar[Mapping[str, Any]] = {
        "objects.sidecar": "",
        "objects.chains": "",
        "objects.chain_share": 0.5,
        "objects.chain_gap": 10,
    }

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
            require_weights(f"model.{key}", getattr(model, key), (IMAGENET,))
        self._frozen = frozen_parts(self._variant, model.freeze, self._loss)
        if importlib.util.find_spec("albumentations") is None:
            raise MissingPackage(f"views need albumentations 2.0.8: {install('train')}")

    def build(self, seed: int, read_weights: bool = True) -> MasaTraining:
        """See `Task.build`."""
        if not read_weights:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return self.training(Masa(self._variant), self._frozen, self._loss)
        weights, backbone_weights = self._model.weights, self._model.backbone_weights
        network = load_model(
            self._variant,
            weights if weights == IMAGENET else _read(weights),
            compatible_offsets=self._model.compatible_offsets,
            device="cpu",
            seed=seed,
        )
        backbone = _read(backbone_weights)
        if backbone is not None:
            start_backbone(network, backbone.tensors, backbone.where)
        elif not weights:
            what = "frozen backbone" if self._variant.frozen or "backbone" in self._frozen else "backbone"
            warnings.warn(
                f"the {what} of {self._variant.name} has random weights, fit for trying things out only: set "
                "model.backbone_weights or model.weights",
                stacklevel=2,
            )
        self._variant = network.variant  # weights may say how they sample
        return self.training(network, self._frozen, self._loss)

    def make_example(self) -> MakeMasaExample:
        """See `Task.make_example`."""
        return MakeMasaExample(objects=self._objects, views=self._views)

    def sidecars(self) -> Mapping[str, Sequence[str]]:
        """See `Task.sidecars`."""
        return self._objects.sidecars()

    def needs_boxes(self) -> bool:
        """See `Task.needs_boxes`."""
        return not self._objects.sidecars()

    def collate(self, examples: Sequence[Example]) -> PairBatch:
        """See `join_examples`."""
        return join_examples(examples)

    def evaluation(self) -> Evaluation | None:
        """See `Task.evaluation`: the association benchmark."""
        return make_evaluation(self._evaluation, masa_embedding)

    def metadata(self) -> dict[str, str]:
        """See `Task.metadata`: the variant, and how it was trained."""
        return metadata_of(self._variant, task=self.name, frozen=", ".join(self._frozen), contrast=self._loss.contrast)


def _read(source: str) -> Checkpoint | None:
    """A checkpoint by path or URL; None without one. On a machine one process fetches it, the others wait for that."""
    return read_weights(source) if source else None


def _variant(model: ModelSettings) -> Variant:
    try:
        variant = find_variant(model.variant)
    except ValueError as error:
        raise ConfigError(f"model.variant: {error}") from None
    if model.weights == IMAGENET and variant.backbone != "efficientnet_lite0_tensorflow":
        raise ConfigError(
            f'model.weights: "{IMAGENET}" is for masa_lite0 and masa_lite0_colour; give {variant.name} a path or URL'
        )
    if model.compatible_offsets is None:
        return variant
    return dataclasses.replace(variant, compatible_offsets=model.compatible_offsets)
