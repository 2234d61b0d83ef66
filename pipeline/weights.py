"""From what `--weights` said to tensors in a model: fetched once, read safely, fitted whole. For all jobs.

    checkpoint = read_weights("s3://models/masa_r50.pth")     # tensors by name
    network = build_model("masa_r50", "hf://org/repo/masa_r50.pth", "cuda")

`trackmill.pipeline.storage.fetched` brings the file here, `trackmill.models.weights.read` takes tensors out of it,
`trackmill.models.weights.fit` says what is missing, and `trackmill.models.registry` knows whose they are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trackmill.models.choice import Choice, DetectorChoice
from trackmill.models.registry import MODELS, find_detector, find_model, own_detector
from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.models.weights.errors import MissingPackage
from trackmill.models.weights.read import read_checkpoint
from trackmill.pipeline.storage.documents import DamagedDocument, read_document
from trackmill.pipeline.storage.fetched import Weights, fetch_weights
from trackmill.pipeline.storage.files import exists
from trackmill.schemas.errors import InputError, StorageError
from trackmill.schemas.published import BadWeights

if TYPE_CHECKING:
    import torch

    from trackmill.models.detectors.base import Detector
    from trackmill.models.detic.vocabulary import Vocabulary

RANDOM = "none"
"""What may be said instead of a file for random weights, where published ones are taken otherwise."""


def read_weights(url: str | os.PathLike[str], sha256: str = "") -> Checkpoint:
    """Tensors of a checkpoint, wherever it lies.

    Args:
        url: a path, any URL that storage reads, or `hf://org/repo/file`; see `fetch_weights`.
        sha256: what the file must have; empty: anything.

    Raises:
        BadWeights: damaged, another file than was promised, or it holds more than tensors. A `ValueError`.
        FileNotFoundError: there is no such file.
        OSError: it could not be fetched after several attempts.
        MissingPackage: a package is missing; says what to type.
    """
    return read_fetched(fetch_weights(os.fspath(url), sha256))


def read_fetched(weights: Weights) -> Checkpoint:
    """As `read_weights`, of a file that was fetched: for those who need its name and its SHA-256 too."""
    _check_card(weights)
    return read_checkpoint(weights.path, where=weights.where, verified=True)


def _check_card(weights: Weights) -> None:
    """Compare the result of a training run with the card beside it, which holds its SHA-256."""
    card = weights.path.with_name("card.json")
    if weights.path.name != "model.safetensors" or weights.path.parent.name != "final" or not card.is_file():
        return
    try:
        record = read_document(str(card)).get("file")
    except (DamagedDocument, OSError):
        return  # of a card that cannot be read the run itself complains
    wanted = record.get("sha256") if isinstance(record, dict) else None
    if wanted and wanted != weights.sha256:
        raise BadWeights(
            f"{weights.where}: damaged or replaced: its SHA-256 is {weights.sha256}, the card beside it says {wanted}; "
            "the command that trained it writes both again"
        )


def build_model(
    name: str,
    weights: str | os.PathLike[str] | Mapping[str, torch.Tensor] | None = None,
    device: str | torch.device = "cpu",
    **settings: Any,
) -> Any:
    """A model of the registry, or of somebody else, ready for use.

    Args:
        name: a key of `trackmill.models.registry.MODELS`, or `my_package.my_module:Class`.
        weights: a path or URL; a word that the model knows (`imagenet`); tensors by name; None: fresh.
        device: where it is put.
        settings: of the model's `Config`.

    Raises:
        ValueError: no such model, wrong settings, or weights that do not fit; the text names each.
        OSError: the file could not be fetched.
        ImportError: a package is missing; says what to type.
    """
    choice, source = choose_model(name, weights, **settings)
    tensors = read_weights(source) if isinstance(source, str | os.PathLike) else source
    return _built(choice, tensors, device)


def build_detector(
    name: str | DetectorChoice,
    weights: str | None = None,
    device: str | torch.device = "cpu",
    shared: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Detector:
    """A detector of the registry, or of somebody else.

    Args:
        name: a key of `trackmill.models.registry.DETECTORS`, `KEY:ARGUMENT` such as `detic:WEIGHTS` or
            `hf:MODEL_OR_FOLDER`, or `my_package.my_module:Class`; or what `choose_detector` gave.
        weights: a path or URL of its checkpoint; None: what its name says, or published ones, where there are some;
            `none`: random ones.
        device: where it is put.
        shared: `features`, for a detector that works on the feature maps of the model (`Entry.on_features`);
            `vocabulary`, for one that takes it (`DetectorChoice.takes_vocabulary`).
        settings: of the detector's `Config`, and the options of all detectors; `classes` and `text_weights` as
            `choose_detector` takes them.

    Raises:
        ValueError, OSError, ImportError: see `build_model`.
    """
    shared = dict(shared or {})
    if isinstance(name, str):
        name, vocabulary = choose_detector(name, settings)
        if vocabulary is not None:
            shared.setdefault("vocabulary", vocabulary.read())
    source = detector_weights(name, weights)
    try:
        tensors = None if not source or source == RANDOM else read_weights(source)
    except OSError as error:
        if weights or name.weights:
            raise
        raise StorageError(
            f"the published weights of {name.name}: {error} (--detector-weights FILE; {RANDOM}: random ones)"
        ) from error
    detector: Detector = _built(name, tensors, device, **shared)
    return detector


@dataclass(frozen=True, kw_only=True)
class VocabularyRequest:
    """Classes of a detector that compares boxes with vectors, not yet turned into vectors.

    Args:
        classes: names (a list, or with commas between), `lvis`, or a file; see
            `trackmill.pipeline.vocabulary.read_vocabulary`.
        text_weights: of the text encoder that turns names into vectors; "": as `read_vocabulary` chooses.
    """

    classes: str | tuple[str, ...]
    text_weights: str = ""

    def read(self) -> Vocabulary:
        """The vectors and names; see `read_vocabulary` for what is raised."""
        from trackmill.pipeline.vocabulary import read_vocabulary

        return read_vocabulary(self.classes, self.text_weights or None)


def choose_detector(
    name: str, settings: Mapping[str, Any] | None = None, model: Choice | None = None
) -> tuple[DetectorChoice, VocabularyRequest | None]:
    """Look a detector up, and see what its classes come to; nothing large is read.

    Args:
        name: see `build_detector`.
        settings: of its `Config` and the options of all detectors. `classes`: a list of names, or a text that
            `--classes` takes: names with commas between, or a file. `text_weights`: see `VocabularyRequest`.
        model: the model that tracks; a detector of that name that lies inside it goes before the registry's.

    Returns:
        The choice, and the vocabulary that is to be read and handed to it, None where there is none.

    Raises:
        ValueError: no such name, or settings that are wrong.
        OSError: a file of names could not be read.
    """
    values = dict(settings or {})
    classes, text_weights = values.pop("classes", None), values.pop("text_weights", "")

    def look_up() -> DetectorChoice:
        inside = None if model is None else own_detector(model, name, values)
        return inside or find_detector(name, values)

    choice = look_up()
    if choice.takes_vocabulary:
        if classes is None:
            if text_weights:
                raise InputError(f"{choice.where}: text_weights turn names into vectors: name the classes (--classes)")
            return choice, None
        given = classes if isinstance(classes, str) else tuple(classes)
        return choice, VocabularyRequest(classes=given, text_weights=text_weights)
    if classes is not None:
        values["classes"] = read_classes(classes)
    if text_weights:
        if "text_weights" not in type(choice.config).model_fields:
            raise InputError(f"{choice.where}: compares no vectors of names; leave the text weights out")
        values["text_weights"] = text_weights
    return look_up(), None


def read_classes(classes: Any) -> tuple[str, ...]:
    """Names of classes: a list, a text with commas between them, or a file with a name a line.

    Raises:
        InputError: no names, or the same one twice.
        OSError: the file could not be read.
    """
    from trackmill.pipeline.vocabulary import read_class_names

    return read_class_names(classes)


def detector_weights(choice: DetectorChoice, weights: str | None = None) -> str:
    """Where a detector's checkpoint is: as given, in its name, or published; `none`: random; "": it needs none.

    Raises:
        InputError: it needs a checkpoint and none is named, or two are.
    """
    if weights and choice.weights and weights != choice.weights:
        raise InputError(f"{choice.where}: its name says which weights; give no others")
    if weights and choice.entry.argument_is_folder:
        raise InputError(f"{choice.where}: its weights are in the model's folder; give no others")
    if weights and choice.entry.packaged:
        raise InputError(f"{choice.where}: its weights are in its package; give no others")
    source = weights or choice.weights or choice.default_weights()
    if not source and choice.entry.argument_is_weights:
        inside = [name for name in MODELS if own_detector(find_model(name), choice.name) is not None]
        models = f", or track with the model that has it inside: --model {' or '.join(inside)}" if inside else ""
        name = choice.name.rstrip(":")
        raise InputError(f"detector {name}: name its weights: {name}:PATH or {name}:URL{models}")
    return source


def choose_model(
    name: str, weights: str | os.PathLike[str] | Mapping[str, torch.Tensor] | None = None, **settings: Any
) -> tuple[Choice, str | os.PathLike[str] | Mapping[str, torch.Tensor] | None]:
    """Look the model up, and turn a word such as `imagenet` into the settings that it stands for.

    Returns:
        The choice, and the weights that are left to be read: a path or URL, tensors, or None.

    Raises:
        ValueError: no such model, wrong settings, or a word that is another model's.
    """
    choice = find_model(name, settings)
    if not isinstance(weights, str) or not weights:
        return choice, weights if weights else None
    if weights in choice.entry.words:
        return find_model(name, {**choice.entry.words[weights], **settings}), None
    others = [other for other, entry in MODELS.items() if weights in entry.words]
    if others and not os.path.exists(weights):
        raise InputError(f'weights "{weights}" are for {", ".join(others)}; give {name} a path or URL')
    return choice, weights


def weights_exist(source: str, model: str = "") -> bool:
    """Whether there is such a file, without reading it; "" and a word that `model` knows need none.

    Raises:
        ValueError: a URL that is not taken.
        OSError: the storage does not answer.
    """
    return not source or (model in MODELS and source in MODELS[model].words) or exists(source)


def _built(
    choice: Choice, tensors: Mapping[str, torch.Tensor] | None, device: str | torch.device, **shared: Any
) -> Any:
    try:
        return choice.build(tensors, device, **shared)
    except MissingPackage:
        raise
    except ImportError as error:
        raise MissingPackage(f"{error}{choice.entry.advice or f' (of {choice.name})'}") from error
