"""From names and files to a `VideoModel`: the registry says what a name stands for, and no model is named here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trackmill.models.association import Tracker
from trackmill.models.choice import DEFAULT_FRAME_SIZE, Choice
from trackmill.models.detectors.base import Detector
from trackmill.models.device import choose_device
from trackmill.models.embedders.base import Embedder, EmbeddingNetwork, SharedFeatures
from trackmill.models.registry import DEFAULT_DETECTOR, MODELS, detector_forms, find_model
from trackmill.models.weights.packaged_person import INSTALL, is_packaged
from trackmill.pipeline.tracking.base import VideoModel
from trackmill.pipeline.tracking.detection_files import FileDetections
from trackmill.pipeline.tracking.detections import built_detector, wanted_detector, with_detector_options
from trackmill.pipeline.tracking.motion import MOTION_RULES, MotionRule, MotionTracking
from trackmill.pipeline.tracking.settings import DEFAULT_TRACKER, PRESETS, SizeSettings, TrackConfig, make_tracker
from trackmill.pipeline.tracking.two_stage import GivenDetections, TwoStage
from trackmill.pipeline.weights import build_model, choose_model, read_weights
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    import torch

    from trackmill.models.detectors.frame_scaling import FrameScaling


DEFAULT_MODEL = "masa_r50"
"""What describes boxes where nothing is said."""


def model_scaling(name: str, size: SizeSettings) -> FrameScaling:
    """At what size a model looks at frames: as its benchmark configuration says, unless settings say otherwise."""
    return _scaling(find_model(name), size)


def make_video_model(
    *,
    model: str | EmbeddingNetwork | Embedder | VideoModel | None,
    weights: str | None = None,
    detections: str | Detector | None = None,
    detector_weights: str | None = None,
    classes: str | Sequence[str] | None = None,
    text_weights: str | None = None,
    masks: bool = False,
    tracker: str | Tracker | None = None,
    device: str = "auto",
    min_score: float | None = None,
    scaling: FrameScaling | None = None,
    config: TrackConfig | None = None,
) -> VideoModel:
    """Everything that tracks, ready for use; cheap checks come before anything is loaded.

    Args:
        model: a name of `trackmill.models.registry.MODELS`, or `my_package.my_module:Class`; or an object: a network
            with `embed(images, boxes)`, an `Embedder`, or a `VideoModel`; None: `DEFAULT_MODEL`, or no model at all
            where `tracker` is a rule by motion.
        weights: path or URL of a named model's checkpoint, or a word that it knows; None: random weights.
        detections: a name of `trackmill.models.registry.DETECTORS`, such as `masa`, `detic:WEIGHTS` or
            `hf:MODEL_OR_FOLDER`, or `my_package.my_module:Class`; or a detector, such as what `read_file_detections`
            gives; None: the model is an end-to-end tracker, or people are found by `DEFAULT_DETECTOR` of the registry,
            where its package is installed.
        detector_weights: path or URL of a named detector's checkpoint; None: what its name says, or its published
            ones; `none`: random.
        classes: what is looked for, see `trackmill.pipeline.weights.choose_detector`; None: as `config.detector` and
            the detector say.
        text_weights: path or URL of what turns names of classes into vectors, of a detector that compares them.
        masks: whether the model's segmenter cuts out what is tracked.
        tracker: a name in `PRESETS` or in `MOTION_RULES`, or a tracker; None: the one that the model was made for,
            `tao` where it does not say. An end-to-end tracker has no use for it.
        device: see `trackmill.models.device.choose_device`.
        min_score: detections below it are left out; None: the detector's own choice.
        scaling: size at which frames are looked at; None: as `config.size` and the model say.
        config: all other settings.

    Raises:
        InputError: a name, file or setting is wrong, or things that do not go together; the text says what to do.
        OSError, ImportError: a file could not be fetched, or a package is missing.
    """
    config = config or TrackConfig()
    said = {"classes": classes, "text_weights": text_weights, "min_score": min_score}
    options = {**config.detector, **{key: value for key, value in said.items() if value is not None}}
    if isinstance(tracker, str) and tracker in MOTION_RULES:
        _refuse_model(tracker, model, weights, masks, scaling, config)
        return _by_motion(tracker, detections, detector_weights, options, device, config)
    model = DEFAULT_MODEL if model is None else model
    choice = choose_model(model, weights, **config.model)[0] if isinstance(model, str) else None
    if choice is None and (weights is not None or config.model):
        raise InputError("weights and settings go with a model's name; an object has its own already")
    name = model if isinstance(model, str) else type(model).__name__
    # Of ours the registry says it, before anything is read; of somebody else's model only its object shows it.
    whole = isinstance(model, VideoModel) or (choice is not None and choice.entry.end_to_end)
    if whole:
        _refuse_stages(name, detections, masks, tracker, min_score, scaling, config)
    if masks:
        _check_masks(choice)
    rule = _tracker(tracker or _made_for(choice, model), config)
    place = choose_device(device)
    by_default = detections is None and not whole and is_packaged()
    later = by_default and isinstance(model, str) and model not in MODELS
    named = DEFAULT_DETECTOR if by_default else detections
    wanted = None if later else wanted_detector(named, detector_weights, options, choice, config)
    # Before the models, which take long: names without CLIP's weights are an error at once.
    vocabulary = wanted[1].read() if wanted is not None and wanted[1] is not None else None
    built: Any = model
    tensors: Any = None
    if isinstance(model, str):
        source = choose_model(model, weights, **config.model)[1]
        # Read once where the detector lies in the same file.
        tensors = (
            read_weights(source) if wanted is not None and wanted[0].inside and isinstance(source, str) else source
        )
        built = build_model(model, weights if tensors is source else tensors, place, **config.model)

    if isinstance(built, VideoModel):
        if by_default:
            wanted_detector(None, detector_weights, options, choice, config)
        _refuse_stages(name, detections, masks, tracker, min_score, scaling, config)
        return built
    if not callable(getattr(built, "embed", None)) and not hasattr(built, "embedder"):
        raise InputError(
            f"model {name}: {type(built).__name__} is neither a VideoModel (trackmill.pipeline.tracking.base) nor has "
            "it embed(images, boxes) as an Embedder (trackmill.models.embedders.base)"
        )
    if named is None:
        raise InputError(
            f"--detections: {name} describes boxes and finds none: give a file, my_package.my_module:Class or one of "
            f"{', '.join(detector_forms())}; {DEFAULT_DETECTOR} is taken when nothing is said: {INSTALL}"
        )
    if later:
        wanted = wanted_detector(named, detector_weights, options, choice, config)
    features: SharedFeatures | None = None
    embedder: Embedder
    if masks or (wanted is not None and wanted[0].entry.on_features):
        features = _features(name, choice, built, scaling or _scaling(choice, config.size), place)
        embedder = features.embedder()
    elif isinstance(built, Embedder):
        if config.size != SizeSettings():
            raise InputError(f"--set size: {name} takes frames as they are")
        embedder = built
    else:
        embedder = network_embedder(built, choice, place, scaling, config.size)
    if wanted is not None:
        detector = built_detector(wanted[0], detector_weights, place, features, tensors, vocabulary)
    else:
        assert isinstance(named, Detector)
        detector = with_detector_options(named, options)
    segmenter = choice.offer.segmenter(features) if masks and choice is not None else None
    return TwoStage(detector, embedder, rule, segmenter)


def with_file_detections(
    model: VideoModel,
    found: FileDetections,
    *,
    classes: str | Sequence[str] | None = None,
    min_score: float | None = None,
    config: TrackConfig | None = None,
) -> VideoModel:
    """A model that was made for the detections of one video, for those of another one; nothing is loaded again.

    Args:
        model: of `make_video_model`, with `FileDetections`.
        found: of the other video.
        classes, min_score, config: as they were given there.

    Raises:
        InputError: a class that is not among them.
    """
    assert isinstance(model, TwoStage | MotionTracking), "only these take detections of files"
    said = {"classes": classes, "min_score": min_score}
    options = {**(config or TrackConfig()).detector, **{key: value for key, value in said.items() if value is not None}}
    return model.with_detector(with_detector_options(found, options))


def network_embedder(
    network: Any,
    choice: Choice | None,
    device: torch.device | str,
    scaling: FrameScaling | None = None,
    size: SizeSettings | None = None,
) -> Embedder:
    """An embedder of a network with `embed(images, boxes)`, see `trackmill.models.embedders.base.EmbeddingNetwork`.

    Args:
        network: in evaluation mode.
        choice: the name that it was built from; None: an object.
        device: where it lies.
        scaling, size: at what size it looks at frames; None: its own.
    """
    asked = scaling is not None or (size is not None and size != SizeSettings())
    wanted = scaling or _scaling(choice, size or SizeSettings())
    if hasattr(network, "embedder"):
        made: Embedder = network.embedder(wanted if asked else None, device)
        return made
    from trackmill.models.embedders.scaled import ScaledEmbedder

    return ScaledEmbedder(network, wanted, device)


def _made_for(choice: Choice | None, model: Any) -> str:
    """Name of the rule that goes with a model."""
    said = choice.default_tracker() if choice is not None else getattr(model, "default_tracker", "")
    return said or DEFAULT_TRACKER


def _tracker(tracker: str | Tracker, config: TrackConfig) -> Tracker:
    if isinstance(tracker, str):
        return make_tracker(tracker, config.tracker)
    if config.tracker:
        first = next(iter(config.tracker))
        raise InputError(f"{first}: settings go with a tracker's name; this one has its own already")
    return tracker


def _scaling(choice: Choice | None, size: SizeSettings) -> FrameScaling:
    from trackmill.models.detectors.frame_scaling import FrameScaling

    long_side, short_side = choice.frame_size() if choice is not None else DEFAULT_FRAME_SIZE
    # A longer side alone sets the size, also where the model limits the shorter one.
    other = size.short_side or (size.long_side if size.long_side else short_side)
    return FrameScaling(long_side=size.long_side or max(long_side, size.short_side), short_side=other)


def _has_masks(choice: Choice) -> bool:
    return hasattr(choice.offer, "segmenter") and bool(choice.offer.has_masks(choice.config))


def _check_masks(choice: Choice | None) -> None:
    if choice is not None and _has_masks(choice):
        return
    able = [name for name in MODELS if _has_masks(find_model(name))]
    name = "this model" if choice is None else choice.name
    raise InputError(f"--masks: {name} has no mask decoder; use {' or '.join(able)}")


def _features(
    name: str, choice: Choice | None, network: Any, scaling: FrameScaling, device: torch.device
) -> SharedFeatures:
    if choice is None or isinstance(network, Embedder) or not hasattr(choice.offer, "features"):
        raise InputError(f"--detections: {name} has no feature maps for a detector to work on; name another detector")
    features: SharedFeatures = choice.offer.features(network, scaling, device)
    return features


def _by_motion(
    tracker: str,
    detections: str | Detector | None,
    detector_weights: str | None,
    options: dict[str, Any],
    device: str,
    config: TrackConfig,
) -> MotionTracking:
    """A detector and a rule by motion; no model is loaded."""
    rule = MotionRule(tracker, config.tracker)
    named = DEFAULT_DETECTOR if detections is None and is_packaged() else detections
    if named is None:
        raise InputError(
            f"--detections: {tracker} links boxes and finds none: give a file, my_package.my_module:Class or one of "
            f"{', '.join(detector_forms())}; {DEFAULT_DETECTOR} is taken when nothing is said: {INSTALL}"
        )
    wanted = wanted_detector(named, detector_weights, options, None, config)
    if wanted is None:
        assert isinstance(named, Detector)
        return MotionTracking(with_detector_options(named, options), rule)
    choice, request = wanted
    if choice.entry.on_features:
        raise InputError(f"--detections {choice.name}: lies inside a model, and --tracker {tracker} loads none")
    vocabulary = request.read() if request is not None else None
    detector = built_detector(choice, detector_weights, choose_device(device), None, None, vocabulary)
    return MotionTracking(detector, rule)


def _refuse_model(
    tracker: str,
    model: Any,
    weights: str | None,
    masks: bool,
    scaling: FrameScaling | None,
    config: TrackConfig,
) -> None:
    """A rule by motion has no model; what is said of one would be ignored in silence."""
    for option, given in (
        ("--model", model is not None),
        ("--weights", weights is not None),
        ("--masks", masks),
        ("--set model", bool(config.model)),
        ("--set size", config.size != SizeSettings() or scaling is not None),
        ("--set proposals", bool(config.proposals)),
    ):
        if given:
            rules = f"{', '.join(PRESETS)} look at appearance"
            raise InputError(
                f"{option}: {tracker} links boxes by their motion and needs no model; leave it out ({rules})"
            )


def _refuse_stages(
    name: str,
    detections: str | Detector | None,
    masks: bool,
    tracker: str | Tracker | None,
    min_score: float | None,
    scaling: FrameScaling | None,
    config: TrackConfig,
) -> None:
    """An end-to-end tracker does what the stages do; a setting of one of them would be ignored in silence."""
    for option, given in (
        ("--detections", detections is not None and not isinstance(detections, GivenDetections)),
        ("--masks", masks),
        ("--tracker", tracker is not None),
        ("--min-score", min_score is not None),
        ("--set tracker", bool(config.tracker)),
        ("--set detector", bool(config.detector)),
        ("--set proposals", bool(config.proposals)),
        ("--set size", config.size != SizeSettings() or scaling is not None),
    ):
        if given:
            raise InputError(
                f"{option}: {name} is an end-to-end tracker, which finds and links objects itself; leave it out (its "
                "own settings are --set model.KEY=VALUE)"
            )
