"""The members of a sample, checked and parsed: the way back from `trackmill.pipeline.shards.encode`."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from trackmill.pipeline.shards.stream import BadShardMember, RawSample
from trackmill.schemas.keys import frame_member
from trackmill.schemas.masks import CroppedMask
from trackmill.schemas.sample import (
    MAX_SCANS,
    SCHEMA_VERSION,
    FrameMasks,
    FrameRecord,
    MaskRecord,
    SampleMasks,
    SampleRecord,
)

T = TypeVar("T", SampleRecord, SampleMasks)

MAX_PIXELS = 100_000_000
"""A frame that declares more is refused before it is decoded; the default of `read.max_pixels`."""


@dataclass
class Sample:
    """One sample as read from a shard.

    Args:
        shard, offset, size: where it lies.
        record: the validated JSON.
        jpegs: bytes of the frames, not decoded yet; see `image`.
        masks_json: bytes of the member with the masks, not parsed yet; None where the sample has none.
    """

    shard: str
    offset: int
    size: int
    record: SampleRecord
    jpegs: list[bytes]
    masks_json: bytes | None

    @property
    def key(self) -> str:
        """Key of the sample."""
        return self.record.key

    def image(self, frame: int) -> NDArray[np.uint8]:
        """Decode one frame: (H, W, 3) uint8 RGB.

        Raises:
            BadMember: not a whole JPEG of the size that the record declares.
        """
        stored = self.record.stored
        return decode_jpeg(self.jpegs[frame], self.shard, self.record.frames[frame].member, stored.height, stored.width)

    @cached_property
    def masks(self) -> SampleMasks | None:
        """Masks of all frames, parsed when first asked for; None where the sample has none.

        Raises:
            BadMember: not valid, or not one mask (or null) per box.
        """
        if self.masks_json is None:
            return None
        member = f"{self.key}.masks.json"
        masks = _parse(SampleMasks, self.masks_json, self.shard, member)
        if masks.key != self.key:
            raise BadShardMember(self.shard, member, f"belongs to another sample, {masks.key!r}")
        if len(masks.frames) != len(self.record.frames):
            raise BadShardMember(
                self.shard, member, f"has masks of {len(masks.frames)} frames, not {len(self.record.frames)}"
            )
        for number, (frame, entry) in enumerate(zip(self.record.frames, masks.frames)):
            for name, boxes, found in _counted(frame, entry):
                if boxes != found:
                    raise BadShardMember(
                        self.shard, member, f"frame {number}: {found} masks for {boxes} boxes of {name}"
                    )
        return masks

    def objects_masks(self, frame: int) -> list[CroppedMask | None]:
        """One mask, or None, for each annotated object of a frame; see `masks` for what is raised."""
        objects = self.record.frames[frame].objects
        if self.masks is None:
            return [None] * (len(objects.boxes) if objects else 0)
        return [_cropped(mask) for mask in self.masks.frames[frame].objects]

    def proposal_masks(self, frame: int) -> list[CroppedMask | None]:
        """One mask, or None, for each proposal of a frame; those of the objects where the proposals are the objects."""
        if self.masks is None:
            return [None] * len(self.record.frames[frame].proposals.boxes)
        entry = self.masks.frames[frame]
        return [_cropped(mask) for mask in (entry.objects if entry.proposals is None else entry.proposals)]


def parse_sample(raw: RawSample) -> Sample:
    """Check the members of a sample and parse its record; pixels and masks stay as they are.

    Raises:
        BadMember: incomplete, members missing, unknown or out of order, JSON that is not valid.
    """
    names = [name for name, _ in raw.members]
    last = f"{raw.key}.json"
    if last not in names:
        raise BadShardMember(raw.shard, last, "is missing, so the sample is incomplete; mine its unit again")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadShardMember(raw.shard, twice, "is there twice in one sample")
    data = dict(raw.members)
    record = parse_record(data[last], raw.shard, raw.key)
    expected = [frame_member(raw.key, i, len(record.frames), record.kind) for i in range(len(record.frames))]
    masks = f"{raw.key}.masks.json"
    expected += [masks, last] if record.has_masks else [last]
    _check_names(raw, names, expected)
    for name, frame in zip(expected, record.frames):
        if frame.member != name:
            raise BadShardMember(raw.shard, last, f"calls a frame {frame.member!r} that must be {name!r}")
    if record.stored.height * record.stored.width > MAX_PIXELS:
        raise BadShardMember(
            raw.shard, last, f"declares frames of {record.stored.height} x {record.stored.width}: too large"
        )
    jpegs = [data[name] for name in expected[: len(record.frames)]]
    return Sample(raw.shard, raw.offset, raw.size, record, jpegs, data.get(masks))


def parse_record(data: bytes, shard: str, key: str) -> SampleRecord:
    """The record of a sample from its JSON.

    Raises:
        BadShardMember: it is not valid, or that of another sample.
    """
    member = f"{key}.json"
    record = _parse(SampleRecord, data, shard, member)
    if record.key != key:
        raise BadShardMember(shard, member, f"says its key is {record.key!r}")
    return record


def decode_jpeg(
    data: bytes | memoryview, shard: str, member: str, height: int, width: int, least: tuple[int, int] = (0, 0)
) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a JPEG that must have the given size; the size is checked before any pixel is decoded.

    Strict: what libjpeg only warns of, such as data that is missing before the end mark, is an error. Pixels are those
    of libjpeg-turbo's exact transform with smooth chroma, which Pillow uses too.

    Args:
        data: the JPEG.
        shard, member: for messages.
        height, width: in pixels, from the record.
        least: height and width that are enough, where half of the picture's or less is: then libjpeg-turbo leaves out
            what a smaller picture does not show, which saves time. The sides are those of the picture times a number
            of eighths, rounded up. CMYK is always decoded whole.

    Raises:
        BadShardMember: another size, another format, damaged, or in more scans than `MAX_SCANS`.
    """
    try:
        found_height, found_width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if (found_height, found_width) != (height, width) or height * width > MAX_PIXELS:
            raise BadShardMember(
                shard, member, f"is {found_height} x {found_width}, its record says {height} x {width}; not decoded"
            )
        if _is_progressive(data) and bytes(data).count(b"\xff\xda") > MAX_SCANS:
            raise BadShardMember(shard, member, f"has more than {MAX_SCANS} scans, each of which costs time")
        if colours in ("CMYK", "YCCK"):  # libjpeg-turbo cannot convert these to RGB, but knows whether they are whole
            simplejpeg.decode_jpeg(data, "CMYK")
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                return np.asarray(image.convert("RGB"))
        smaller = {"min_height": least[0], "min_width": least[1], "min_factor": 2} if min(least) > 0 else {}
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", **smaller)
        return pixels
    except BadShardMember:
        raise
    except Exception as error:  # a decoder that is fed hostile bytes raises whatever it likes
        raise BadShardMember(shard, member, f"is not a whole JPEG ({error})") from None


def _is_progressive(data: bytes | memoryview) -> bool:
    """Whether the header of a JPEG says that its pixels come in several scans, each finer than the one before."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return marker not in (0xC0, 0xC1)
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return True


def _check_names(raw: RawSample, names: list[str], expected: list[str]) -> None:
    if names == expected:
        return
    missing = [name for name in expected if name not in names]
    if missing:
        raise BadShardMember(raw.shard, missing[0], "is missing from its sample; mine its unit again")
    unknown = [name for name in names if name not in expected]
    if unknown:
        raise BadShardMember(raw.shard, unknown[0], "is no member that this sample should have")
    first = next(name for name, other in zip(names, expected) if name != other)
    raise BadShardMember(raw.shard, first, "is out of order: frames come first, then masks, the JSON last")


def _parse(kind: type[T], data: bytes, shard: str, member: str) -> T:
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if where == "schema_version":
            what = f"has schema version {str(first['input'])[:40]}; this program reads {SCHEMA_VERSION}: update it"
        else:
            what = f"is not a valid record: {where + ': ' if where else ''}{first['msg']}"
        raise BadShardMember(shard, member, what) from None


def _counted(frame: FrameRecord, masks: FrameMasks) -> list[tuple[str, int, int]]:
    objects = ("objects", len(frame.objects.boxes) if frame.objects else 0, len(masks.objects))
    entries = masks.objects if masks.proposals is None else masks.proposals
    return [objects, ("proposals", len(frame.proposals.boxes), len(entries))]


def _cropped(mask: MaskRecord | None) -> CroppedMask | None:
    if mask is None:
        return None
    return CroppedMask(x=mask.x, y=mask.y, height=mask.height, width=mask.width, counts=mask.counts)
