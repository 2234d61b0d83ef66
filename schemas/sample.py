"""One training sample as it lies in a shard, version 1.

A picture is `{key}.jpg`, `{key}.masks.json`, `{key}.json`; a clip is `{key}.f00.jpg` ... `{key}.masks.json`,
`{key}.json`. The JSON comes last: a sample without it is incomplete. Masks are a member of their own so that training
on boxes never parses them. All boxes and masks are in pixels of the *stored* frames; divide by `stored.scale` to get
back to the original.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA_VERSION = 1

MAX_SCANS = 100
"""Most scans of a JPEG that is mined or read. A progressive one of libjpeg has 10, of mozjpeg some 15; libjpeg-turbo
advises to stop at 500. Each scan costs time in proportion to the pixels, even an empty one."""

KeyStr = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,80}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Box = Annotated[list[float], Field(min_length=4, max_length=4)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Origin(_Record):
    """Where the pixels came from."""

    source: str = Field(description="Name of the source that read it, e.g. sa1b.")
    source_id: str = Field(description="Identity over the whole corpus; the key is derived from it.")
    uri: str = Field(description="File or folder that holds the pixels, without credentials.")
    byte_range: list[int] | None = Field(description="[offset, length] inside the file, null for all of it.")
    sha256: Sha256 = Field(description="Of the bytes of the picture, or of the whole video.")
    height: int = Field(gt=0, description="Original height in pixels, after EXIF rotation.")
    width: int = Field(gt=0, description="Original width in pixels, after EXIF rotation.")
    fps: float | None = Field(description="Frame rate of the source video.")
    num_frames: int | None = Field(description="Number of frames of the source video.")
    license: str = Field(description="As the data set states it, or 'unknown'.")
    annotated: bool = Field(
        description="Whether the data set lists the objects, which is what makes negatives possible."
    )
    conversions: list[str] = Field(description="What was done to the pixels besides scaling, e.g. exif-rotated.")
    amodal: bool = Field(
        False,
        description="Whether boxes of objects may leave the frame, because they go round the whole object. Left out of "
        "the JSON where they may not.",
    )


class Stored(_Record):
    """How the frames are stored."""

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    scale: float = Field(gt=0, description="Stored longest side over original longest side; 1 when not resized.")
    longest_side: int = Field(description="The limit that was asked for.")


class Clip(_Record):
    """How the frames of a clip were drawn from its video."""

    frames_per_clip: int = Field(gt=0, description="The limit that was asked for; a clip may hold fewer.")
    stride: int = Field(gt=0, description="Source frames from one stored frame to the next, constant in a clip.")
    label_fps: float = Field(gt=0, description="Stored frames per second of video.")


class Objects(_Record):
    """Annotated objects of a frame, in stored pixels; lists of one length."""

    boxes: list[Box]
    ids: list[int] = Field(description="Identity, constant over the frames of a clip.")
    scores: list[float]

    @model_validator(mode="after")
    def _one_length(self) -> Objects:
        if not len(self.boxes) == len(self.ids) == len(self.scores):
            raise ValueError("boxes, ids and scores of objects differ in length")
        if any(not -(1 << 63) <= identity < 1 << 63 for identity in self.ids):
            raise ValueError("an id does not fit in 64 bits")
        return self


class Proposals(_Record):
    """Class-agnostic proposals of a frame, in stored pixels, best first; lists of one length."""

    boxes: list[Box]
    scores: list[float]
    areas: list[int] = Field(description="Pixels of each mask.")
    negatives: list[int] = Field(description="Indices of the proposals that overlap no annotated object.")
    refused: dict[str, int] = Field(description="Candidates that were refused, by reason.")
    refused_boxes: list[Box] = Field(description="Some of the refused, for looking at.")
    refused_reasons: list[str]

    @model_validator(mode="after")
    def _one_length(self) -> Proposals:
        if not len(self.boxes) == len(self.scores) == len(self.areas):
            raise ValueError("boxes, scores and areas of proposals differ in length")
        if len(self.refused_boxes) != len(self.refused_reasons):
            raise ValueError("refused_boxes and refused_reasons differ in length")
        if any(not 0 <= i < len(self.boxes) for i in self.negatives):
            raise ValueError("negatives point past the proposals")
        return self


class FrameRecord(_Record):
    """One stored frame."""

    member: str = Field(description="Name of the JPEG in the shard.")
    index: int = Field(ge=0, description="Frame number in the source video; 0 for a picture.")
    time_s: float | None = Field(description="Presentation time in the source video.")
    sha256: Sha256 = Field(description="Of the stored JPEG.")
    objects: Objects | None = Field(description="Null where the data set says nothing about this frame.")
    proposals: Proposals


class SampleRecord(_Record):
    """`{key}.json`."""

    schema_version: Literal[1] = 1
    key: KeyStr
    kind: Literal["image", "clip"]
    origin: Origin
    stored: Stored
    clip: Clip | None
    proposer: str = Field(description="Name and version, e.g. graph/1.")
    fingerprint: str = Field(description="Fingerprint of the run; its parts are in config.json.")
    frames: Annotated[list[FrameRecord], Field(min_length=1)]
    has_masks: bool


class MaskRecord(_Record):
    """A mask cropped to its object, in stored pixels; `counts` is COCO's compressed run lengths of the crop."""

    x: int = Field(ge=0)
    y: int = Field(ge=0)
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    counts: str


class FrameMasks(_Record):
    """Masks of one frame, in the order of its boxes."""

    objects: list[MaskRecord | None]
    proposals: list[MaskRecord | None] | None = Field(
        description="Null when the proposals are the annotated objects themselves: then `objects` holds their masks."
    )


class SampleMasks(_Record):
    """`{key}.masks.json`."""

    schema_version: Literal[1] = 1
    key: KeyStr
    frames: list[FrameMasks]


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema of every member that is JSON, by member extension; written beside each data set."""
    return {"json": SampleRecord.model_json_schema(), "masks.json": SampleMasks.model_json_schema()}
