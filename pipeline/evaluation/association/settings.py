"""The settings of the association benchmark: the embeddings, and all options that change its numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, field_validator

from trackmill.schemas.config import Settings

_Steps = Annotated[int, Field(ge=1, le=1_000_000)]


class AssociationSettings(Settings):
    """Settings of the association benchmark; the defaults are its protocol."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    embeddings: str
    """A variant of MASA, `hsv`, `random`, `identity`, a file (.parquet, .npz, .npy), or `package.module:function`."""
    weights: str | None = None
    """Checkpoint of the variant; None: random weights."""
    against: str | None = None
    """A second embedding, to be compared with the first by paired intervals."""
    against_weights: str | None = None
    """Checkpoint of the second."""
    long_side: int | None = Field(default=None, ge=32)
    """Pixels to which frames are scaled for a variant of MASA; None: what its benchmark uses."""
    strides: tuple[_Steps, ...] = Field(default=(10,), min_length=1)
    """Frames from one linked frame to the next; each offset is linked as a sequence of its own, and counts are
    pooled."""
    gaps: tuple[_Steps, ...] = (5, 20, 50)
    """Frames between query and gallery of same-identity retrieval."""
    memory: int = Field(default=10, ge=1)
    """Processed frames after which an unseen track is forgotten."""
    ema: float = Field(default=0.5, gt=0, le=1)
    """Weight of the new vector when a track's vector is updated."""
    threshold: float | None = Field(default=None, ge=-1, le=1)
    """Least cosine of a link; None chooses it by AssA at stride 10 on the development set."""
    against_threshold: float | None = Field(default=None, ge=-1, le=1)
    """The same for `against`: cosines of different embeddings are not comparable."""
    sequences: tuple[str, ...] | None = None
    """Sequences to score; None takes all of the ground truth that are not in `dev`, or all if none is left."""
    dev: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Sequences of the same ground truth that thresholds are chosen on; None takes the scored ones."""
    frames: str | None = None
    """URL of the folder that holds SEQUENCE/img1/ or SEQUENCE.mp4; None looks beside the ground truth."""
    seed: int = Field(default=0, ge=0)
    """Seed of random embeddings and of the bootstrap."""
    draws: int = Field(default=1000, ge=1, le=1_000_000)
    """Number of draws of the paired bootstrap over people."""

    @field_validator("strides", "gaps")
    @classmethod
    def _different(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(values)) < len(values):
            raise ValueError("the same number stands there twice")
        return values
