"""IP-MOT as something to train: clips of videos and shifted copies of pictures, no boxes given at inference."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from trackmill.models.backbones.official import WORDS
from trackmill.models.clip import load_towers
from trackmill.models.clip.towers import ClipSizes, ClipTowers
from trackmill.models.ipmot.loading import load_model, metadata_of, start_detector
from trackmill.models.ipmot.model import IpMot
from trackmill.models.ipmot.trackbook import TrackBook
from trackmill.models.ipmot.variants import VARIANTS, Variant
from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.pipeline.loader.catalog import Catalog
from trackmill.pipeline.loader.clips.query_example import QueryExample
from trackmill.pipeline.loader.clips.query_settings import QueryClipSettings, QuerySources
from trackmill.pipeline.loader.clips.usable import usable_queries
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.tasks.base import Evaluation, Task
from trackmill.pipeline.tasks.frozen_parts import check_frozen, is_in
from trackmill.pipeline.tasks.ipmot.batch import QueryBatch, join_queries
from trackmill.pipeline.tasks.ipmot.evaluation import TrackingEvaluationSettings, make_evaluation
from trackmill.pipeline.tasks.ipmot.examples import MakeQueryExample
from trackmill.pipeline.tasks.ipmot.module import IpMotTraining
from trackmill.pipeline.tasks.ipmot.settings import (
    LossSection,
    MatchingSettings,
    ModelSettings,
    TrackBookSection,
    pass_settings,
)
from trackmill.pipeline.tasks.variant_changes import chosen_variant
from trackmill.pipeline.tasks.weight_sources import require_weights
from trackmill.pipeline.weights import read_weights
from trackmill.schemas.config import ConfigError, Settings
from trackmill.schemas.errors import MissingPackage
from trackmill.schemas.install import install


class IpMotTask(Task):
    """Tracking by query with learnt instance prompts (IP-MOT, section 3).

    Args:
        model, clips, objects, matching, loss, trackbook, evaluation: sections of the recipe.

    Raises:
        ConfigError: settings that are wrong or do not go together; names the key.
    """

    name = "ipmot"
    sections: ClassVar[Mapping[str, type[Settings]]] = {
        "model": ModelSettings,
        "clips": QueryClipSettings,
        "objects": QuerySources,
        "matching": MatchingSettings,
        "loss": LossSection,
        "trackbook": TrackBookSection,
        "evaluation": TrackingEvaluationSettings,
    }
    no_effect = ("evaluation", "trackbook.chunk")
    needed = ("positives_detect",)
    without_zero_3 = "the parts of IP-MOT are used frame after frame, as each frame's tracks ask for"

    def __init__(
        self,
        model: ModelSettings,
        clips: QueryClipSettings,
        objects: QuerySources,
        matching: MatchingSettings,
        loss: LossSection,
        trackbook: TrackBookSection,
        evaluation: TrackingEvaluationSettings,
    ) -> None:
        self._model, self._clips, self._objects = model, clips, objects
        self._loss, self._trackbook, self._evaluation = loss, trackbook, evaluation
        self._passing = pass_settings(matching, loss)
        if importlib.util.find_spec("albumentations") is None:
            raise MissingPackage(f"clips are changed by albumentations 2.0.8: {install('train')}")
        self._iterations: int | None = None
        self._variant = chosen_variant(model.variant, model.changes, VARIANTS)
        if not (objects.masklets or objects.chains):
            raise ConfigError(
                "objects.chains: nothing says who is who: name a sidecar of chains, or set objects.masklets = true"
            )
        if model.weights and model.detector_weights:
            raise ConfigError(
                "model.detector_weights: model.weights has a detector already; leave one of the two empty"
            )
        if model.backbone_weights and (model.weights or model.detector_weights):
            other = "weights" if model.weights else "detector_weights"
            raise ConfigError(f"model.backbone_weights: model.{other} has a backbone already; leave one of them empty")
        for key in ("weights", "detector_weights"):
            require_weights(f"model.{key}", getattr(model, key))
        require_weights("model.backbone_weights", model.backbone_weights, WORDS)
        check_frozen(_outline(self._variant), model.freeze, self._variant.name)
        self._check_alignment()
        make_evaluation(evaluation)

    def _check_alignment(self) -> None:
        loss, book, variant = self._loss, self._trackbook, self._variant
        layers = variant.detector.decoder_layers
        if loss.aligned_layers and not variant.embedding:
            raise ConfigError(
                f"loss.alignment: {variant.name} has no embeddings to align (embedding = 0); set loss.alignment = false"
            )
        if loss.aligned_layers > layers:
            raise ConfigError(
                f"loss.layers = {loss.layers}: {variant.name} has {layers} decoder layers; set loss.layers = {layers} "
                "or less"
            )
        if not loss.needs_clip:
            if book.clip_weights:
                warnings.warn(
                    "trackbook.clip_weights is not read: neither loss.alignment with loss.i2tce asks for texts",
                    stacklevel=3,
                )
            return
        embedding = book.sizes().text.embedding
        if variant.embedding != embedding:
            raise ConfigError(
                f"model.changes.embedding: embeddings of {variant.embedding} numbers cannot be compared with the texts "
                f"of {book.clip}, which have {embedding}: set model.changes = {{embedding = {embedding}}}"
            )
        require_weights("trackbook.clip_weights", book.clip_weights)

    def scheduled(self, steps: int, parts: int) -> None:
        """See `Task.scheduled`: the TrackBook learns once in every forward pass, and its rate follows a cosine."""
        self._iterations = steps * parts

    def build(self, seed: int, read_weights: bool = True) -> IpMotTraining:
        """See `Task.build`."""
        if self._loss.needs_clip and not self._trackbook.clip_weights:
            raise ConfigError(
                "trackbook.clip_weights: the alignment with texts (loss.i2tce) needs CLIP: give the path or URL of its "
                "official file, ViT-B-16.pt of https://github.com/openai/CLIP (clip/clip.py has its address); or train "
                "without: loss.alignment = false"
            )
        network = self._network(seed, read_weights)
        book = clip = None
        if self._loss.needs_clip:
            clip = self._towers(read_weights)
            book = TrackBook(
                self._trackbook.settings(),
                width=clip.sizes.text.width,
                seed=seed,
                total_iterations=self._iterations if self._trackbook.decay == "cosine" else None,
            )
        return IpMotTraining(
            network, self._model.freeze, self._loss, self._passing, book, clip, self._trackbook.smallest
        )

    def _network(self, seed: int, reads: bool) -> IpMot:
        if not reads:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return IpMot(self._variant)
        source = self._model
        network = load_model(self._variant, _read(source.weights), device="cpu", seed=seed)
        self._variant = network.variant
        part = source.detector_weights or source.backbone_weights
        if not (part or source.weights):
            what = "the frozen backbone parts" if self._freezes_backbone(network) else "detector and backbone"
            warnings.warn(
                f"{what} of {self._variant.name} have random weights, fit for trying things out only: set "
                "model.detector_weights, model.backbone_weights or model.weights",
                stacklevel=3,
            )
        if part:
            start_detector(network, part if part in WORDS else read_weights(part))
        return network

    def _freezes_backbone(self, network: IpMot) -> bool:
        """Whether what sees the picture first does not learn."""
        name, first = next(network.detector.backbone.named_parameters(prefix="detector.backbone"))
        return not first.requires_grad or is_in(name, self._model.freeze)

    def _towers(self, reads: bool) -> ClipTowers:
        sizes, positions = self._trackbook.sizes(), self._trackbook.positions
        if reads:
            towers = load_towers(read_weights(self._trackbook.clip_weights), resizing=positions)
            if towers.sizes != sizes:
                raise ConfigError(
                    f"trackbook.clip_weights: {redact(self._trackbook.clip_weights)} is another CLIP than "
                    f"{self._trackbook.clip}: {_differences(towers.sizes, sizes)}; name yours by trackbook.clip, or "
                    "its sizes by trackbook.clip_changes"
                )
            return towers
        counting = torch.get_default_device().type == "meta"
        with torch.device("meta"):  # 150 million random numbers would be drawn and written over
            towers = ClipTowers(sizes, positions)
        return towers if counting else towers.to_empty(device="cpu")

    def make_example(self) -> MakeQueryExample:
        """See `Task.make_example`."""
        return MakeQueryExample(clips=self._clips, sources=self._objects)

    def sidecars(self) -> Mapping[str, Sequence[str]]:
        """See `Task.sidecars`: chains, where they are named."""
        return self._objects.sidecars()

    def needs_boxes(self) -> bool:
        """See `Task.needs_boxes`."""
        return not self._objects.chains

    def usable(self, catalog: Catalog) -> Catalog:
        """See `Task.usable`: videos with identities in them, and pictures with people."""
        return usable_queries(catalog, self._objects, self._clips)

    def collate(self, examples: Sequence[QueryExample]) -> QueryBatch:
        """See `join_queries`."""
        return join_queries(examples)

    def evaluation(self) -> Evaluation | None:
        """See `Task.evaluation`: tracking of validation sequences."""
        return make_evaluation(self._evaluation)

    def metadata(self) -> dict[str, str]:
        """See `Task.metadata`: the variant, and how it was trained."""
        loss = self._loss
        aligned = [name for name in ("triplet", "i2tce") if loss.alignment and getattr(loss, name)]
        return metadata_of(
            self._variant, task=self.name, frozen=", ".join(self._model.freeze), alignment=", ".join(aligned)
        )


def _read(source: str) -> Checkpoint | None:
    """A checkpoint by path or URL; None without one."""
    return read_weights(source) if source else None


def _outline(variant: Variant) -> IpMot:
    """The network without weights.

    Raises:
        ConfigError: fields of the variant that do not go together.
    """
    try:
        with torch.device("meta"):  # names alone
            return IpMot(variant)
    except ValueError as error:
        raise ConfigError(f"model.changes: {error}") from None


def _differences(found: ClipSizes, named: ClipSizes) -> str:
    pairs = [
        (f"{part}.{name}", value, vars(getattr(named, part))[name])
        for part in ("text", "image")
        for name, value in vars(getattr(found, part)).items()
    ]
    return ", ".join(f"{name} = {value} instead of {other}" for name, value, other in pairs if value != other)
