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
- `default_tracker(config)`: name of the rule that links what a model embeds, where none is asked for;
- `own_detectors(config)`: of a model, detectors that lie in its checkpoint and work on its maps: the name that
  `--detections` says and where the class is. Such a class is a detector as any, and `build` takes `features=...`;
  one that has `takes_weights = True` may lie in another file (`--detector-weights`);
- `default_weights(config)`: URL of published weights that are taken when none are named, "" otherwise;
- `features(network, scaling, device)`: maps of a batch of frames that embedding, detection and masks share;
- `segmenter(features)`: what draws masks from those maps, or raises `ValueError`.

A class of somebody else may leave out all of it: then it is called without arguments, and a checkpoint is loaded into
it if it is a torch module. This module imports no framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trackmill.models.choice import Choice, DetectorChoice, Entry
from trackmill.models.outside import choose, import_object, is_outside, require_class
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import nearest, shortened

if TYPE_CHECKING:
    import torch

    from trackmill.models.proposers.base import Proposer
    from trackmill.schemas.config import Settings


def _masa(variant: str, summary: str, *published: str, **more: Any) -> Entry:
    return Entry(
        target="trackmill.models.masa.entry",
        summary=summary,
        extra="masa",
        options={"variant": variant},
        published=published,
        **more,
    )


def _scaletrack(variant: str, summary: str, **more: Any) -> Entry:
    return Entry(
        target="trackmill.models.scaletrack.entry",
        summary=summary,
        extra="masa",
        options={"variant": variant},
        **more,
    )


def _ipmot(variant: str, summary: str, **more: Any) -> Entry:
    return Entry(
        target="trackmill.models.ipmot.entry",
        summary=summary,
        extra="masa",
        options={"variant": variant},
        end_to_end=True,
        **more,
    )


MODELS: dict[str, Entry] = {
    "masa_r50": _masa("masa_r50", "MASA on ResNet-50", "masa_r50.pth"),
    "masa_sam_vitb": _masa("masa_sam_vitb", "MASA on SAM ViT-B, with masks", "sam_vitb_masa.pth"),
    "masa_sam_vith": _masa("masa_sam_vith", "MASA on SAM ViT-H, with masks", "sam_vith_masa.pth"),
    "masa_detic": _masa("masa_detic", "MASA on Detic's Swin-B", "detic_masa.pth"),
    "masa_gdino": _masa("masa_gdino", "MASA on Grounding DINO's Swin-B", "gdino_masa.pth"),
    "masa_lite0": _masa("masa_lite0", "a small MASA of ours, for CPUs", words={"imagenet": {"pretrained": "imagenet"}}),
    "masa_lite0_colour": _masa(
        "masa_lite0_colour",
        "the same with thinner bands and colours: better for people",
        words={"imagenet": {"pretrained": "imagenet"}},
    ),
    "scaletrack_s": _scaletrack("scaletrack_s", "ScaleTrack on DINOv2 ViT-S"),
    "scaletrack_l": _scaletrack("scaletrack_l", "ScaleTrack on DINOv2 ViT-L"),
    "scaletrack_r50": _scaletrack("scaletrack_r50", "ScaleTrack on ResNet-50"),
    "scaletrack_swin_t": _scaletrack("scaletrack_swin_t", "ScaleTrack on Swin-T"),
    "scaletrack_swin_b": _scaletrack("scaletrack_swin_b", "ScaleTrack on Swin-B"),
    "scaletrack_unified_detic": _scaletrack("scaletrack_unified_detic", "ScaleTrack on Detic's Swin-B"),
    "scaletrack_dinov3_s": _scaletrack("scaletrack_dinov3_s", "ScaleTrack on a DINOv3 of your own"),
    "scaletrack_lite0": _scaletrack(
        "scaletrack_lite0", "a small ScaleTrack of ours, for CPUs", words={"imagenet": {"pretrained": "imagenet"}}
    ),
    "ip_mot": _ipmot("ip_mot", "IP-MOT: finds and tracks people, end to end"),
    "ip_mot_star": _ipmot("ip_mot_star", "IP-MOT* on plain Deformable DETR"),
    "ip_mot_tiny": _ipmot("ip_mot_tiny", "a small IP-MOT of ours, for CPUs"),
    "memotr": _ipmot("memotr", "MeMOTR, to track with its published files"),
}
"""What `--model` may say."""


def _detr(form: str, what: str) -> Entry:
    return Entry(
        target="trackmill.models.ipmot.detr_detector:DetrDetector",
        summary=f"{what}, for people or all of COCO",
        extra="masa",
        options={"form": form},
        argument="weights",
        argument_is_weights=True,
    )


DETECTORS: dict[str, Entry] = {
    "dab-deformable-detr": _detr("dab", "dab-deformable-detr:WEIGHTS, DAB-Deformable-DETR"),
    "deformable-detr": _detr("plain", "deformable-detr:WEIGHTS, Deformable-DETR"),
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
    "ssdlite-person": Entry(
        target="trackmill.models.detectors.ssdlite_person:SsdlitePerson",
        summary="a small person detector whose weights are in a package",
        extra="person",
        packaged=True,
    ),
    "torchvision": Entry(
        target="trackmill.models.detectors.torchvision_detector:TorchvisionDetector",
        summary="torchvision:NAME, one of torchvision's detectors",
        extra="masa",
        argument="name",
    ),
    "ultralytics": Entry(
        target="trackmill.models.detectors.ultralytics_detector:UltralyticsDetector",
        summary="ultralytics:MODEL, of ultralytics (AGPL-3.0), where it is installed",
        argument="model",
        argument_is_folder=True,
    ),
}
"""What `--detections` may say beside a file."""

DEFAULT_DETECTOR = "ssdlite-person"
"""What finds the objects where nothing is said, a model only describes boxes, and the extra `person` is there."""

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


def find_model(name: str, settings: Mapping[str, Any] | None = None) -> Choice:
    """Look a model up: a key of `MODELS`, or `my_package.my_module:Class`.

    Args:
        name: what `--model` said.
        settings: of its `Config`; they win over what the name implies.

    Raises:
        ValueError: no such name (says the nearest), no such module or class, or settings that are wrong.
    """
    return _find("model", name, MODELS, settings)


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
