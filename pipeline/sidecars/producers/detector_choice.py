"""Which detector a sidecar is made with: fixed by the driver, the same on every worker, whatever it is called.

config = resolve(config)                    # driver: files fetched, their SHA-256 and names of classes filled in
files = shared_files(config, stored)        # driver: bytes that all workers get, such as `vocabulary.npz`
detect = build(config, files)               # worker: refuses other files than the driver had
found = detect(sample, [0, 1, 2])           # one `Detections` a frame
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from trackmill.models.choice import Choice, DetectorChoice
from trackmill.models.detectors.options import DetectorOptions
from trackmill.models.device import choose_device
from trackmill.models.registry import DETECTORS, find_model, shown_name
from trackmill.models.weights.packaged_person import INSTALL, is_packaged
from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.sidecars.producers.file_detections import digest_of_files, read_file_detections
from trackmill.pipeline.storage.fetched import fetch_weights
from trackmill.pipeline.storage.model_folders import fetch_model_folder
from trackmill.pipeline.vocabulary import read_class_names, vocabulary_bytes, vocabulary_from_bytes
from trackmill.pipeline.weights import (
    RANDOM,
    VocabularyRequest,
    build_detector,
    build_model,
    choose_detector,
    detector_weights,
    read_weights,
)
from trackmill.schemas.config import build as build_settings
from trackmill.schemas.detections import Detections
from trackmill.schemas.errors import InputError, MissingPackage
from trackmill.schemas.install import install

FILE = "file:"
"""Before the URL of files that hold detections already."""

VOCABULARY = "vocabulary.npz"
"""Classes of a detector that compares vectors; encoders differ in the last bits between machines."""

_LIBRARIES = ("torch", "torchvision")

Detect = Callable[[Sample, Sequence[int]], list[Detections]]
"""Detections of some frames of a sample, one each, in pixels of the stored frames."""


class DetectorSettings(Protocol):
    """What is asked of settings; `trackmill.pipeline.sidecars.producers.detections.DetectionSettings` are such."""

    @property
    def detector(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def weights(self) -> str: ...
    @property
    def weights_sha256(self) -> str: ...
    @property
    def classes(self) -> str | tuple[str, ...]: ...
    @property
    def text_weights(self) -> str: ...
    @property
    def options(self) -> dict[str, Any]: ...
    @property
    def min_score(self) -> float: ...
    @property
    def device(self) -> str: ...


def resolve(config: DetectorSettings) -> dict[str, Any]:
    """What the driver fixes, once, before workers start.

    Returns:
        Settings to be changed: `weights` and `weights_sha256`, and in `options` the names of classes that a file gave.

    Raises:
        InputError: an unknown detector, model, class or setting, or no weights where there must be some.
        OSError, MissingPackage: a file cannot be had, or a package is missing.
    """
    if config.detector.startswith(FILE):
        _file_options(config)
        changes: dict[str, Any] = {"weights_sha256": digest_of_files(config.detector.removeprefix(FILE))}
        return {**changes, **_named_classes(config)}
    choose_device("cpu")  # says what to type where torch is missing
    choice, vocabulary = _choose(config)
    if choice.entry.packaged and not is_packaged():
        raise MissingPackage(f"{choice.name} is not installed: {INSTALL}")
    if choice.entry.extra == "hf-detectors" and find_spec("transformers") is None:
        raise MissingPackage(f"{choice.name} needs an extra: {install('hf-detectors')}")
    changes = {} if vocabulary is not None else _named_classes(config)
    if choice.entry.argument_is_folder:
        detector_weights(choice, config.weights)
        folder = fetch_model_folder(_folder(config), _revision(config), config.weights_sha256)
        return {**changes, "weights_sha256": folder.sha256}
    inside = choice.inside or choice.entry.on_features
    source = config.weights if inside else detector_weights(choice, config.weights)
    if inside and not hasattr(find_model(config.model).offer, "features"):
        raise InputError(f"{shown_name(config.detector)} works on the maps of a model, and {config.model} offers none")
    none_needed = choice.entry.packaged or choice.entry.target == choice.name
    if source == RANDOM or not (source or none_needed):
        raise InputError(f"{shown_name(config.detector)} needs weights: give weights=PATH")
    if not source:
        return changes
    fetched = fetch_weights(source, config.weights_sha256)
    return {**changes, "weights": source, "weights_sha256": fetched.sha256}


def implementation(config: DetectorSettings) -> dict[str, str]:
    """What besides the settings decides the detections: name and version of the detector, and of its libraries."""
    if config.detector.startswith(FILE):
        return {"detector": FILE.rstrip(":"), "detector_version": "1"}
    choice, _ = _choose(config)
    found = {"detector": label(config), "detector_version": str(getattr(choice.offer, "version", 1))}
    if choice.entry.argument_is_folder:
        found["model_sha256"] = config.weights_sha256
    if hasattr(choice.offer, "implementation"):
        found |= choice.offer.implementation(choice.config)
    for library in (*_LIBRARIES, *getattr(choice.offer, "libraries", ())):
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def label(config: DetectorSettings) -> str:
    """What the detector is called in rows and fingerprints: without the places where files lie."""
    key, colon, argument = config.detector.partition(":")
    if not colon:
        return key
    if key in DETECTORS:
        entry = DETECTORS[key]
        return key if entry.argument_is_weights or entry.argument_is_folder else config.detector
    return key if config.detector.startswith(FILE) else argument.rpartition(":")[2]


def shared_files(config: DetectorSettings, stored: Mapping[str, bytes]) -> dict[str, bytes]:
    """Bytes that every worker gets; see `trackmill.pipeline.sidecars.producer.Producer.shared_files`."""
    if config.detector.startswith(FILE):
        return {}
    request = _choose(config)[1]
    if request is None:
        return {}
    vocabulary = request.read()
    before = stored.get(VOCABULARY)
    if before is not None and vocabulary_from_bytes(before, VOCABULARY).identity == vocabulary.identity:
        return {VOCABULARY: before}
    return {VOCABULARY: vocabulary_bytes(vocabulary)}


def build(config: DetectorSettings, files: Mapping[str, bytes]) -> Detect:
    """The detector, on the machine that runs it.

    Args:
        config: as `resolve` left it.
        files: what `shared_files` gave.

    Raises:
        BadWeights: a file is another than the driver's.
        InputError, OSError, MissingPackage: see `resolve`.
    """
    if config.detector.startswith(FILE):
        url = config.detector.removeprefix(FILE)
        return read_file_detections(url, config.weights_sha256, _file_options(config))[0].of
    device = choose_device(config.device)
    choice, request = _choose(config)
    shared: dict[str, Any] = {}
    if request is not None:
        shared["vocabulary"] = (
            vocabulary_from_bytes(files[VOCABULARY], VOCABULARY) if VOCABULARY in files else request.read()
        )
    if choice.entry.argument_is_folder:
        folder = fetch_model_folder(_folder(config), _revision(config), config.weights_sha256)
        options = {key: value for key, value in _options(config).items() if key != "revision"}
        return _over_images(build_detector(f"{_key(config)}:{folder.path}", None, device, **options))
    path = str(fetch_weights(config.weights, config.weights_sha256).path) if config.weights else None
    if not (choice.inside or choice.entry.on_features):
        named = DETECTORS.get(_key(config))
        name = _key(config) if named is not None and named.argument_is_weights else config.detector
        choice = choose_detector(name, _options(config))[0]  # the file that was checked, not what the name says
        none = None if choice.entry.packaged else RANDOM
        return _over_images(build_detector(choice, path or none, device, shared))
    shared["features"], tensors = _features(find_model(config.model), path, device, choice.inside)
    return _over_images(choice.build(tensors, device, **shared))


def _features(model: Choice, path: str | None, device: Any, inside: bool) -> tuple[Any, Any]:
    """The model's maps, and its tensors for a detector that lies in the same file."""
    from trackmill.models.detectors.frame_scaling import FrameScaling

    tensors = read_weights(path) if inside and path else None
    network = build_model(model.name, tensors if tensors is not None else path, device)
    long_side, short_side = model.frame_size()
    scaling = FrameScaling(long_side=long_side, short_side=short_side)
    return model.offer.features(network, scaling, device), tensors


def _over_images(detector: Any) -> Detect:
    def detect(sample: Sample, numbers: Sequence[int]) -> list[Detections]:
        given = detector.detect([sample.image(number) for number in numbers], numbers)
        if not isinstance(given, list | tuple) or not all(isinstance(each, Detections) for each in given):
            raise TypeError("the detector: detect should return a list of Detections, one an image")
        if len(given) != len(numbers):
            raise ValueError(f"the detector: gave {len(given)} results for {len(numbers)} images")
        return list(given)

    return detect


def _choose(config: DetectorSettings) -> tuple[DetectorChoice, VocabularyRequest | None]:
    """The detector: of a name that `model` has inside and that says no weights, the model's own."""
    model = None
    if config.detector in DETECTORS and DETECTORS[config.detector].argument_is_weights:
        model = find_model(config.model)
    return choose_detector(config.detector, _options(config), model)


def _options(config: DetectorSettings) -> dict[str, Any]:
    """Settings of the detector: the sidecar's own least score where its default would be higher."""
    options = dict(config.options)
    if config.classes:
        options.setdefault("classes", config.classes)
    if config.text_weights:
        options["text_weights"] = config.text_weights
    if "min_score" not in options and not config.detector.startswith(FILE):
        bare = {key: value for key, value in options.items() if key not in ("classes", "text_weights")}
        own = choose_detector(config.detector, bare)[0].config
        # Those that have a number there kept it before this was asked, and sidecars were made so.
        if isinstance(own, DetectorOptions) and own.min_score is None:
            options["min_score"] = config.min_score
    return options


def _named_classes(config: DetectorSettings) -> dict[str, Any]:
    """Names in place of a file of names: they are part of the fingerprint, and workers need no file."""
    classes = config.options.get("classes") or config.classes
    if not classes:
        return {}
    return {"options": {**config.options, "classes": list(read_class_names(classes))}}


def _file_options(config: DetectorSettings) -> DetectorOptions:
    if config.weights or config.text_weights:
        raise InputError(f"{shown_name(config.detector)}: detections of files need no weights; leave them out")
    values = {**config.options, **_named_classes(config).get("options", {})}
    return build_settings(DetectorOptions, values, shown_name(config.detector))


def _key(config: DetectorSettings) -> str:
    return config.detector.partition(":")[0]


def _folder(config: DetectorSettings) -> str:
    return str(Path(config.detector.partition(":")[2]).expanduser())


def _revision(config: DetectorSettings) -> str:
    return str(config.options.get("revision", ""))
