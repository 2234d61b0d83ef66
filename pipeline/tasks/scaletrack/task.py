"""ScaleTrack as something to train: clips with identities in them, contrast from each frame to the next."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from trackmill.models.backbones.official import WORDS
from trackmill.models.scaletrack.loading import load_model, metadata_of
from trackmill.models.scaletrack.model import ScaleTrack
from trackmill.models.scaletrack.variants import Variant
from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.pipeline.loader.catalog import Catalog
from trackmill.pipeline.loader.clips import ClipExample, ClipSettings, ClipSources, usable_clips
from trackmill.pipeline.tasks.association_benchmark import EvaluationSettings, make_evaluation
from trackmill.pipeline.tasks.base import Evaluation, Task
from trackmill.pipeline.tasks.frozen_parts import check_frozen
from trackmill.pipeline.tasks.scaletrack.batch import ClipBatch, join_clips
from trackmill.pipeline.tasks.scaletrack.evaluation import scaletrack_embedding
from trackmill.pipeline.tasks.scaletrack.examples import MakeScaleTrackExample
from trackmill.pipeline.tasks.scaletrack.module import ScaleTrackTraining
from trackmill.pipeline.tasks.scaletrack.settings import LossSection, ModelSettings, find_variant
from trackmill.pipeline.tasks.weight_sources import require_weights
from trackmill.pipeline.weights import read_weights
from trackmill.schemas.config import ConfigError, Settings
from trackmill.schemas.errors import MissingPackage
from trackmill.schemas.install import install


class ScaleTrackTask(Task):
    """Chain contrastive learning on clips (ScaleTrack, sections 3.2 and 3.3).

    Args:
        model, clips, objects, loss, evaluation: sections of the recipe.

    Raises:
        ConfigError: settings that are wrong or do not go together; names the key.
    """

    name = "scaletrack"
    sections: ClassVar[Mapping[str, type[Settings]]] = {
        "model": ModelSettings,
        "clips": ClipSettings,
        "objects": ClipSources,
        "loss": LossSection,
        "evaluation": EvaluationSettings,
    }
    no_effect = ("evaluation",)
    needed = ("positives",)

    def __init__(
        self,
        model: ModelSettings,
        clips: ClipSettings,
        objects: ClipSources,
        loss: LossSection,
        evaluation: EvaluationSettings,
    ) -> None:
        self._model, self._clips, self._objects = model, clips, objects
        self._loss, self._evaluation = loss, evaluation
        self._variant = find_variant(model)
        if importlib.util.find_spec("albumentations") is None:
            raise MissingPackage(f"clips are changed by albumentations 2.0.8: {install('train')}")
        if loss.kind == "pairwise" and clips.frames != 2:
            raise ConfigError(
                f"clips.frames = {clips.frames}: pairwise compares the two frames of a clip, so set clips.frames = 2"
            )
        if not (objects.masklets or objects.chains):
            raise ConfigError(
                "objects.chains: nothing says who is who: name a sidecar of chains, or set objects.masklets = true"
            )
        for key in ("weights", "backbone_weights"):
            require_weights(f"model.{key}", getattr(model, key), WORDS if key == "backbone_weights" else ())
        network = _outline(self._variant)
        check_frozen(network, model.freeze, self._variant.name)
        divisor = network.backbone.divisor
        if clips.size % divisor:
            near = max(divisor, round(clips.size / divisor) * divisor)
            raise ConfigError(
                f"clips.size = {clips.size}: the backbone of {self._variant.name} reads multiples of {divisor}, such "
                f"as {near}"
            )
        layers = self._variant.num_layers
        if loss.layer_weights and len(loss.layer_weights) != layers:
            raise ConfigError(
                f"loss.layer_weights: {len(loss.layer_weights)} numbers for the {layers} decoder layers of "
                f"{self._variant.name}"
            )

    def build(self, seed: int, read_weights: bool = True) -> ScaleTrackTraining:
        """See `Task.build`."""
        if not read_weights:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return ScaleTrackTraining(ScaleTrack(self._variant), self._model.freeze, self._loss)
        if not (self._model.weights or self._model.backbone_weights):
            what = "frozen backbone" if self._variant.frozen else "backbone"
            warnings.warn(
                f"the {what} of {self._variant.name} has random weights, fit for trying things out only: set "
                "model.backbone_weights or model.weights",
                stacklevel=2,
            )
        network = load_model(
            self._variant,
            _read(self._model.weights),
            backbone_weights=_read(self._model.backbone_weights),
            device="cpu",
            seed=seed,
        )
        self._variant = network.variant  # weights may be of a sister of its backbone
        return ScaleTrackTraining(network, self._model.freeze, self._loss)

    def make_example(self) -> MakeScaleTrackExample:
        """See `Task.make_example`."""
        return MakeScaleTrackExample(clips=self._clips, sources=self._objects)

    def sidecars(self) -> Mapping[str, Sequence[str]]:
        """See `Task.sidecars`: chains and negatives, as far as they are named."""
        return self._objects.sidecars()

    def needs_boxes(self) -> bool:
        """See `Task.needs_boxes`."""
        return not self._objects.chains

    def usable(self, catalog: Catalog) -> Catalog:
        """See `Task.usable`: clips with identities in them."""
        return usable_clips(catalog, self._objects)

    def collate(self, examples: Sequence[ClipExample]) -> ClipBatch:
        """See `join_clips`."""
        return join_clips(examples, negatives=self._loss.negatives)

    def evaluation(self) -> Evaluation | None:
        """See `Task.evaluation`: the association benchmark."""
        return make_evaluation(self._evaluation, scaletrack_embedding)

    def metadata(self) -> dict[str, str]:
        """See `Task.metadata`: the variant, and how it was trained."""
        frozen = (*(("backbone",) if self._variant.frozen else ()), *self._model.freeze)
        return metadata_of(self._variant, task=self.name, frozen=", ".join(frozen), loss=self._loss.kind)


def _read(source: str) -> Checkpoint | str | None:
    """A checkpoint by path or URL; the words for packaged weights as they are; None without one."""
    return source if source in WORDS else read_weights(source) if source else None


def _outline(variant: Variant) -> ScaleTrack:
    """The network without weights.

    Raises:
        ConfigError: fields of the variant that do not go together.
    """
    try:
        with torch.device("meta"):  # names alone
            return ScaleTrack(variant)
    except ValueError as error:
        raise ConfigError(f"model.changes: {error}") from None
