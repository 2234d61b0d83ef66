"""The contract of a proposer: a batch of frames in, class-agnostic boxes, scores and masks out.

A proposer knows nothing of files, sources or workers. It is deterministic: the same frame gives the same proposals,
in whatever batch it comes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from trackmill.schemas.config import Settings
from trackmill.schemas.media import Frame, ProposalSet

if TYPE_CHECKING:
    import torch

MAX_REFUSED_SHOWN = 32
"""Refused candidates kept per frame for looking at; all of them are counted."""


class WeightsSettings(Settings):
    """Settings of a proposer with a checkpoint: whoever has these two is given the tensors, see `Proposer.build`."""

    weights: str = Field("", description="Path or URL of the checkpoint (.pth or .safetensors).")
    weights_sha256: str = Field(
        "",
        pattern=r"^([0-9a-f]{64})?$",
        description="SHA-256 the checkpoint must have. Empty: the driver fills it in, so all workers have the same.",
    )


class Proposer(ABC):
    """Finds regions that may be objects."""

    name: str
    """What `--proposer` calls it."""

    version: int
    """Raised whenever the same frame may give other proposals; part of the fingerprint."""

    needs_annotations: bool = False
    """Whether frames must come with annotations."""

    uses_gpu: bool = False
    """Whether it gains from a GPU; a pool then gives each worker one."""

    batch_size: int = 1
    """How many frames it likes to see at once."""

    concurrency: int = 1
    """How many calls of `propose` are worth running at once, from threads: more than one where a call leaves the device
    idle at its end. A proposer that says more than one is safe to call so."""

    Config: type[Settings] = Settings

    def __init__(self, config: Any) -> None:
        """Keep the settings; a proposer that prepares something overrides it."""
        self.config = config

    @abstractmethod
    def propose(self, frames: Sequence[Frame]) -> list[ProposalSet]:
        """Proposals of each frame, in pixels of `frame.image`, best first.

        Args:
            frames: any number of frames of any sizes; `frame.annotations`, where present, are in pixels of
                `frame.image`, which is what will be stored: it is read-only, so work on a copy.

        Returns:
            One set per frame, in order. Boxes lie inside the frame and have at least one pixel; every mask belongs
            to the box of its index.
        """

    @classmethod
    def build(
        cls, config: Any, tensors: Mapping[str, torch.Tensor] | None = None, device: str | torch.device = "cpu"
    ) -> Proposer:
        """A proposer ready for work, on the machine that runs it.

        Args:
            config: as `resolve` returned it.
            tensors: of the checkpoint that `config.weights` names, by name; None where the settings name none.
            device: where a model is put; a GPU only if `uses_gpu`.

        Raises:
            ValueError: a checkpoint of another model.
            MissingPackage: a package it needs is not installed.
        """
        return cls(config)  # one that takes more than its settings overrides this

    @classmethod
    def recognise(cls, tensors: Mapping[str, torch.Tensor]) -> str | None:
        """`name`, if these are tensors of a checkpoint of this proposer, else None."""
        return None

    @classmethod
    def resolve(cls, config: Any) -> Any:
        """Replace every choice that depends on this machine (`auto`) by what it comes to; the same settings otherwise.

        Called once, on the driver: workers are handed the result, so machines with other packages cannot mix outputs.

        Raises:
            ValueError: a setting is missing that it cannot do without.
            MissingPackage: this machine cannot run it with these settings.
        """
        return config

    @classmethod
    def implementation(cls, config: Any) -> dict[str, str]:
        """What besides the settings decides the output (library and its version, weights): part of the fingerprint.

        Raises:
            MissingPackage: a package it needs is not installed.
        """
        return {}
