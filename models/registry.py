"""Models, detectors and proposers by name: where each is, which extra it needs, which weights it has.

Jobs, export, conversion, tracking and evaluation ask here and name no model themselves:

    choice = find_model("masa_r50")                 # or "my_package.my_module:Class"; settings are checked now
    network = choice.build(tensors, "cuda")         # tensors: a `Checkpoint`, or None for fresh weights
    choice.frame_size()                             # (1024, 1024): at what size it looks at frames

    recognise(checkpoint)                           # "masa_r50": whose tensors these are, or None
    find_detector("hf:PekingU/rtdetr_r50vd", {"min_score": 0.3, "classes": "person,dog", "max_boxes": 50})
    proposer_class("sam")                           # the class, with `Config`, `version`, `uses_gpu`, ...

`choices=` and help texts come from the dictionaries: `list(MODELS)`, `MODELS["masa_r50"].summary`. Files and URLs are
the business of `trackmill.pipeline.weights`, which fetches, reads and builds in one call.

What a name stands for is a module or a class that offers

- `Config`: a `Settings` class; what the name implies (`Entry.options`) is filled in;
- `build(config, tensors, device)`: the thing itself, in evaluation mode, with `tensors` (a mapping from name to tensor)
  or, where they are None, fresh weights. Of a model: has `embed(images, boxes)` (a network for two-stage tracking) or
  `track(frames, times)` (a whole tracker, see `trackmill.pipeline.tracking.base`). Of a detector: a
  `trackmill.models.detectors.base.Detector`. Of a proposer: a `trackmill.models.proposers.base.Proposer`;
- `recognise(tensors)`: the name under which these tensors are its own, else None.

and, if there is something to say,

- `frame_size(config)`: (longer, shorter) side in pixels at which a model looks at frames, (1024, 1024) otherwise;
- `own_detectors(config)`: of a model, detectors that lie in its checkpoint and work on its maps: the name that
  `--detections` says and where the class is. Such a class is a detector as any, and `build` takes `features=...`;
- `default_weights(config)`: URL of published weights that are taken when none are named, "" otherwise;
- `features(network, scaling, device)`: maps of a batch of frames that embedding, detection and masks share;
- `segmenter(features)`: what draws masks from those maps, or raises `ValueError`.

A class of somebody else may leave out all of it: then it is called without arguments, and a checkpoint is loaded into
it if it is a torch module. This module imports no framework.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from trackmill.schemas.errors import InputError
from trackmill.schemas.names import nearest, shortened

if TYPE_CHECKING:
    import torch

    from trackmill.models.proposers.base import Proposer
    from trackmill.schemas.config import Settings

T = TypeVar("T")

OUTSIDE: list[str] = []
"""What was imported in this process that is not ours: it may be the cause of what then goes wrong."""

DEFAULT_FRAME_SIZE = (1024, 1024)
"""Longer and shorter side at which a model looks at frames if it does not say: no frame is larger than this."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing that a name stands for.

    Args:
        target: a module, or `module:attribute`; imported when it is used and not before.
        summary: a few words for `--help`.
        extra: of pip, that its packages are in; "" where they are always there.
        options: settings that the name implies, such as the variant of a model.
        words: what may be said instead of a checkpoint file, and the settings that each word stands for.
        published: names of the checkpoint files that its authors publish.
        argument: the setting that `name:ARGUMENT` fills in, such as which of torchvision's detectors; "" if there is
            none.
        argument_is_weights: that the argument is no setting but the checkpoint, and may be given apart from the name.
        argument_is_folder: that the argument is a model folder, which the thing reads itself: weights and all.
        on_features: of a detector, that it works on the feature maps of the model: `build` takes `features=...`.
    """

    target: str
    summary: str
    extra: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    published: tuple[str, ...] = ()
    argument: str = ""
    argument_is_weights: bool = False
    argument_is_folder: bool = False
    on_features: bool = False

    def load(self) -> Any:
        """The module or class; see `import_object` for what is raised."""
        return import_object(self.target, "the registry's")


def _masa(variant: str, summary: str, *published: str, **more: Any) -> Entry:
    return Entry(
        target="trackmill.models.masa.entry",
        summary=summary,
        extra="masa",
        options={"variant": variant},
        published=published,
        **more,
    )


MODELS: dict[str, Entry] = {
    "masa_r50": _masa("masa_r50", "MASA on ResNet-50", "masa_r50.pth"),
    "masa_sam_vitb": _masa("masa_sam_vitb", "MASA on SAM ViT-B, with masks", "sam_vitb_masa.pth"),
    "masa_sam_vith": _masa("masa_sam_vith", "MASA on SAM ViT-H, with masks", "sam_vith_masa.pth"),
    "masa_detic": _masa("masa_detic", "MASA on Detic's Swin-B", "detic_masa.pth"),
    "masa_gdino": _masa("masa_gdino", "MASA on Grounding DINO's Swin-B", "gdino_masa.pth"),
    "masa_lite0": _masa("masa_lite0", "a small MASA of ours, for CPUs", words={"imagenet": {"pretrained": "imagenet"}}),
}
"""What `--model` may say."""

DETECTORS: dict[str, Entry] = {
    "detic": Entry(
        target="trackmill.models.detic.detector:DeticDetector",
        summary="detic:WEIGHTS, Detic with any vocabulary; detic: the one inside the model",
        extra="detic",
        argument="weights",
        argument_is_weights=True,
    ),
    "hf": Entry(
        target="trackmill.models.detectors.hf_detector:HfDetector",
        summary="hf:MODEL_OR_FOLDER, a detector of transformers, such as Grounding DINO",
        extra="hf-detectors",
        argument="model",
        argument_is_folder=True,
    ),
    "masa": Entry(
        target="trackmill.models.masa.detector:MasaProposals",
        summary="the proposal head of the model that tracks (MASA): objects of no class",
        extra="masa",
        on_features=True,
    ),
    "torchvision": Entry(
        target="trackmill.models.detectors.torchvision_detector:TorchvisionDetector",
        summary="torchvision:NAME, one of torchvision's detectors",
        extra="masa",
        argument="name",
    ),
}
"""What `--detections` may say beside a file."""

PROPOSERS: dict[str, Entry] = {
    "graph": Entry(
        target="trackmill.models.proposers.graph:GraphProposer",
        summary="graph segmentation at several scales; needs no checkpoint",
    ),
    "annotations": Entry(
        target="trackmill.models.proposers.annotations:AnnotationProposer",
        summary="the data set's own objects",
    ),
    "sam": Entry(
        target="trackmill.models.proposers.sam:SamProposer",
        summary="Segment Anything's everything mode; needs a checkpoint",
        extra="sam",
        published=("sam_vit_h_4b8939.pth", "sam_vit_l_0b3195.pth", "sam_vit_b_01ec64.pth", "mobile_sam.pt"),
    ),
}
"""What `--proposer` may say."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A name that was looked up, with its settings: checked, not yet built.

    Args:
        name: as it was given.
        offer: the module or class, see the top of this file.
        config: its settings.
        entry: what the dictionary says of it.
    """

    name: str
    offer: Any
    config: Settings
    entry: Entry

    def build(
        self, tensors: Mapping[str, torch.Tensor] | None = None, device: str | torch.device = "cpu", **shared: Any
    ) -> Any:
        """The thing itself.

        Args:
            tensors: by name, a `trackmill.models.weights.read.Checkpoint` or any mapping; None: fresh weights.
            device: where it is put.
            shared: what the thing gets beside its weights, see `DetectorChoice.build`.

        Raises:
            ValueError: tensors that do not fit; names each.
            ImportError: a package is missing; says what to type.
        """
        if hasattr(self.offer, "build"):
            return self.offer.build(self.config, tensors, device, **shared)
        return _called(self.offer, self.name, tensors, device)

    def frame_size(self) -> tuple[int, int]:
        """(longer, shorter) side in pixels that frames are scaled to before the model looks at them."""
        offered = getattr(self.offer, "frame_size", None)
        size: tuple[int, int] = offered(self.config) if offered else DEFAULT_FRAME_SIZE
        return size

    def default_weights(self) -> str:
        """URL of the published weights that are taken when none are named; "" where there are none."""
        offered = getattr(self.offer, "default_weights", None)
        return str(offered(self.config)) if offered else ""


def find_model(name: str, settings: Mapping[str, Any] | None = None) -> Choice:
    """Look a model up: a key of `MODELS`, or `my_package.my_module:Class`.

    Args:
        name: what `--model` said.
        settings: of its `Config`; they win over what the name implies.

    Raises:
        ValueError: no such name (says the nearest), no such module or class, or settings that are wrong.
    """
    return _find("model", name, MODELS, settings)


@dataclass(frozen=True, kw_only=True)
class DetectorChoice(Choice):
    """A detector that was looked up: it has the options of `DetectorOptions`, whoever wrote it.

    Args:
        weights: what the name itself says of the checkpoint, a path or URL (`detic:WEIGHTS`); "" otherwise.
        options: those options that the detector knows nothing of; they are applied behind it.
        where: what errors call it.
        inside: that it lies in the checkpoint of the model that tracks, whose tensors it gets.
    """

    weights: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    inside: bool = False

    @property
    def takes_vocabulary(self) -> bool:
        """Whether `classes` become vectors, and `build` takes `vocabulary=...`."""
        return bool(getattr(self.offer, "takes_vocabulary", False))

    def build(
        self, tensors: Mapping[str, torch.Tensor] | None = None, device: str | torch.device = "cpu", **shared: Any
    ) -> Any:
        """The detector, with all of its options; see `Choice.build`.

        Args:
            tensors: as there.
            device: as there.
            shared: `features`, of a detector that works on the model's maps; `vocabulary`, of one that takes it.

        Raises:
            InputError: it is no `Detector`, or does not know a class that is asked for.
        """
        from trackmill.models.detectors.base import Detector
        from trackmill.models.detectors.options import OPTIONS, DetectorOptions, with_options

        built = super().build(tensors, device, **shared)
        if not isinstance(built, Detector):
            # What merely has `detect` was taken for detections of sidecars before there were options.
            if callable(getattr(built, "detect", None)) and not any(self.options.values()):
                return built
            raise InputError(f"{self.where}: {no_detector(built)}")
        if isinstance(self.config, DetectorOptions):
            return with_options(built, dict(self.config), built.applies, self.where)
        # What a class of somebody else has among its own settings, it keeps itself.
        own = frozenset(OPTIONS) & set(type(self.config).model_fields)
        return with_options(built, self.options, own | built.applies, self.where)


def no_detector(built: Any) -> str:
    """What is said of an object that is used as a `Detector` and is none."""
    return f"{type(built).__name__} is no Detector; derive it from trackmill.models.detectors.base.Detector"


def find_detector(name: str, settings: Mapping[str, Any] | None = None) -> DetectorChoice:
    """As `find_model`, for a key of `DETECTORS`, `KEY:ARGUMENT`, or `my_package.my_module:Class`.

    Args:
        name: what `--detections` said.
        settings: of its `Config`, and the options that every detector has, see
            `trackmill.models.detectors.options.DetectorOptions`.

    Raises:
        ValueError: see `find_model`.
    """
    from trackmill.schemas.config import Settings

    entry, offer, argument = _look_up("detector", name, DETECTORS)
    return _detector_choice(name, entry, offer, argument, settings, getattr(offer, "Config", Settings))


def own_detector(model: Choice, name: str, settings: Mapping[str, Any] | None = None) -> DetectorChoice | None:
    """The detector of that name that lies inside a model; None where the model has none.

    Args:
        model: the model, looked up.
        name: what `--detections` said.
        settings: as of `find_detector`.

    Raises:
        ValueError: settings that are wrong.
    """
    offered = getattr(model.offer, "own_detectors", None)
    targets: Mapping[str, str] = offered(model.config) if offered else {}
    if name not in targets:
        return None
    entry = Entry(target=targets[name], summary=f"inside {model.name}", extra=model.entry.extra, on_features=True)
    choice = _detector_choice(name, entry, entry.load(), "", settings, entry.load().Config)
    return replace(choice, inside=True)


def _detector_choice(
    name: str, entry: Entry, offer: Any, argument: str, settings: Mapping[str, Any] | None, config: type[Settings]
) -> DetectorChoice:
    from trackmill.models.detectors.options import OPTIONS, DetectorOptions
    from trackmill.schemas.config import ConfigError, build

    values, where = dict(settings or {}), f"detector {shown_name(name)}"
    unknown = [key for key in OPTIONS if key in values and key not in config.model_fields]
    options = build(DetectorOptions, {key: values.pop(key) for key in unknown}, where).model_dump()
    known = [*config.model_fields, *(key for key in OPTIONS if key not in config.model_fields)]
    if config.model_config.get("extra") == "forbid" and (strange := [key for key in values if key not in known]):
        advice = nearest(strange[0], known) or f"known keys: {', '.join(known)}"
        raise ConfigError(f"{where}: unknown key {shortened(strange[0], 60)!r}; {advice}")
    if argument and not entry.argument_is_weights:
        values = {entry.argument: argument, **values}
    return DetectorChoice(
        name=name,
        offer=offer,
        entry=entry,
        config=build(config, {**entry.options, **values}, where),
        weights=argument if entry.argument_is_weights else "",
        options=options,
        where=where,
    )


def shown_name(name: str) -> str:
    """The name of a detector for messages: of a URL behind it no more than what it is called."""
    key, argument = _split(name, DETECTORS)
    return f"{key}:{argument.partition('?')[0].rpartition('@')[2]}" if "://" in argument else name


def names_detector(text: str) -> bool:
    """Whether `--detections` names a detector; otherwise it is a file."""
    return _split(text, DETECTORS)[0] in DETECTORS or is_outside(text)


def detector_forms() -> list[str]:
    """What `--detections` may say, for help texts: `masa`, `torchvision:NAME`, ..."""
    return [f"{key}:{entry.argument.upper()}" if entry.argument else key for key, entry in DETECTORS.items()]


def proposer_class(name: str) -> type[Proposer]:
    """The class that a key of `PROPOSERS`, or `my_package.my_module:Class`, stands for.

    Raises:
        ValueError: no such name (says the nearest), no such module or class, or it is no proposer.
    """
    from trackmill.models.proposers.base import Proposer

    if name in PROPOSERS or not is_outside(name):
        ours: type[Proposer] = PROPOSERS[choose("proposer", name, PROPOSERS)].load()
        return ours
    attributes = {"name": "what it is called", "version": "a number, raised whenever its output changes"}
    theirs: Any = Proposer  # an abstract class, which mypy does not take for a type
    return require_class(import_object(name, "proposer"), theirs, "proposer", name, attributes)


def recognise(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """The key of `MODELS` whose tensors these are; None for others.

    Args:
        tensors: by name. What the metadata of a `Checkpoint` says counts where the tensors alone do not tell.
    """
    for target in dict.fromkeys(entry.target for entry in MODELS.values()):
        name: str | None = import_object(target, "the registry's").recognise(tensors)
        if name is not None:
            return name
    said = getattr(tensors, "metadata", {}).get("variant")
    return str(said) if said in MODELS else None


def choose(what: str, name: str, known: Iterable[str]) -> str:
    """`name`, if it is known.

    Raises:
        ValueError: it is not; names the nearest, or all.
    """
    names = list(known)
    if name in names:
        return name
    advice = nearest(name, names) or f"known: {', '.join(names)}"
    raise InputError(f"no {what} is called {name!r}; {advice}; your own: my_package.my_module:Name")


def is_outside(name: str) -> bool:
    """Whether `name` says where code of somebody else's lies: `package.module:attribute`, and is no path and no URL."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def import_object(path: str, what: str, likely: Iterable[str] = ()) -> Any:
    """The module `package.module`, or the object that `package.module:attribute` names.

    Args:
        path: where it is. Modules that are not ours are looked for in the current folder too, after all other places.
        what: what it should be, for the error.
        likely: names that may have been meant, for the error.

    Raises:
        ValueError: there is no such module or attribute; says which, and where was looked.
        Exception: whatever the module raises while it is imported.
    """
    module, colon, attribute = path.partition(":")
    if not module.startswith("trackmill."):
        if path not in OUTSIDE:
            OUTSIDE.append(path)
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A package that is missing inside the module is another matter than the module itself.
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise
        advice = nearest(path, likely) or f"looked in {os.getcwd()} and what is installed"
        raise InputError(f"{what} {path}: there is no module {error.name!r}; {advice}") from None
    if not colon:
        return found
    try:
        return getattr(found, attribute)
    except AttributeError:
        advice = nearest(attribute, vars(found))
        raise InputError("; ".join(filter(None, [f"{what} {path}: {module} has no {attribute!r}", advice]))) from None


def require_class(found: Any, base: type[T], what: str, name: str, attributes: Mapping[str, str]) -> type[T]:
    """Somebody else's class, after a look at whether it keeps its contract as far as a class can.

    Args:
        found: what `import_object` gave.
        base: the class that it should be derived from.
        what: it should be, such as `proposer`.
        name: under which it was given.
        attributes: that it must have, and what each is.

    Raises:
        InputError: no such class, or it lacks methods, attributes or a `Config` that is a `Settings`; names them.
    """
    from trackmill.schemas.config import Settings

    where = f"{base.__module__}.{base.__name__}"
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(f"{what} {name}: it is no class derived from {where}")
    lacking = sorted(getattr(found, "__abstractmethods__", ()))
    if lacking:
        raise InputError(f"{what} {name}: the class lacks {', '.join(lacking)}, see {where}")
    for attribute, meaning in attributes.items():
        if not hasattr(found, attribute):
            raise InputError(f"{what} {name}: the class needs an attribute {attribute!r}: {meaning}")
    version = getattr(found, "version", 0)
    if not isinstance(version, int):
        raise InputError(f"{what} {name}: its version is {version!r}, should be a whole number")
    config = getattr(found, "Config", Settings)
    if not (isinstance(config, type) and issubclass(config, Settings)):
        raise InputError(f"{what} {name}: its Config is no class derived from trackmill.schemas.config.Settings")
    return found


def _find(what: str, name: str, known: Mapping[str, Entry], settings: Mapping[str, Any] | None) -> Choice:
    from trackmill.schemas.config import Settings, build

    entry, offer, argument = _look_up(what, name, known)
    values = {**entry.options, **({entry.argument: argument} if argument else {}), **(settings or {})}
    config = getattr(offer, "Config", Settings)
    return Choice(name=name, offer=offer, entry=entry, config=build(config, values, f"{what} {name}"))


def _look_up(what: str, name: str, known: Mapping[str, Entry]) -> tuple[Entry, Any, str]:
    """What the dictionary says of a name, the module or class itself, and what follows the colon."""
    key, argument = _split(name, known)
    if key in known:
        entry = known[key]
        # Before anything is imported: which one it is may be all that is missing.
        if entry.argument and not argument and not entry.argument_is_weights:
            raise InputError(f"{what} {name!r}: say which one: {key}:{entry.argument.upper()}")
        return entry, entry.load(), argument
    if is_outside(name):
        likely = [f"{each}:{name.partition(':')[2]}" for each in known if known[each].argument]
        return Entry(target=name, summary="somebody else's"), import_object(name, what, likely), ""
    entry = known[choose(what, name, known)]
    return entry, entry.load(), ""


def _split(name: str, known: Mapping[str, Entry]) -> tuple[str, str]:
    """`torchvision` and what follows its colon; other names whole."""
    key, colon, argument = name.partition(":")
    if colon and key in known and known[key].argument:
        return key, argument
    return name, ""


def _called(offer: Any, name: str, tensors: Mapping[str, torch.Tensor] | None, device: str | torch.device) -> Any:
    """An object of a class that has no `build`."""
    made = offer()
    if tensors is not None:
        from trackmill.models.weights.fit import fit

        if not hasattr(made, "load_state_dict"):
            raise InputError(
                f"{name} takes no weights: it is no torch module and has no build(config, tensors, device)"
            )
        fit(made, tensors, name)
    return made.to(device).eval() if hasattr(made, "load_state_dict") else made
