"""Names that live as long as a data set: sample keys and the files of a unit of work.

A key is a pure function of where a sample came from, so the same picture has the same key in every run, on any
number of workers, and a shard can always be traced back to its source.
"""

from __future__ import annotations

import hashlib
import re

KEY_PATTERN = re.compile(r"^[a-z0-9_-]{1,80}$")
"""No dot: WebDataset cuts a member's name into key and extension at the first dot."""

_CLIP = re.compile(r"#c[0-9]{3,}$")

MAX_STEM = 40
"""Most characters of a name in a key."""

_SHARD_NAME = re.compile(r"^part-(\d{8,})(?:-r(\d{2,}))?(?:-(\d{2,}))?\.tar$")
_PART_NAME = re.compile(r"^part-(\d{8,})(?:-r(\d{2,}))?\.parquet$")


def slug(text: str) -> str:
    """Lower-case `text` and keep letters, digits, `_` and `-`; at most 40 characters, never empty."""
    cleaned = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-")
    return cleaned[:MAX_STEM].rstrip("-") or "x"


def sample_key(source: str, name: str, source_id: str) -> str:
    """The key of the sample that `source_id` becomes.

    Args:
        source: name of the source, e.g. `sa1b`.
        name: what people call the item, e.g. `sa_223750` or `bikes-c002`; only for reading.
        source_id: the identity; two different ids give different keys (64 bits of SHA-256).
    """
    digest = hashlib.sha256(source_id.encode()).hexdigest()[:16]
    return f"{slug(source)}-{slug(name)}-{digest}"


def video_of(source_id: str) -> str:
    """What all clips of one video share: the `source_id` of a clip without the clip's number."""
    return _CLIP.sub("", source_id)


NO_KEY = -1
"""Of a box that belongs to no identity that lasts, such as one in a picture; every `identity_key` is above."""


def identity_key(dataset: str, sequence: str, identity: int | str) -> int:
    """The key of an identity over all data sets: the same on every machine and in every run, since it is a hash.

    Args:
        dataset: what the sequence belongs to, such as the name of the source that mined it.
        sequence: name of the video in it; two clips of one video give the same.
        identity: number, or name, of the identity in that video. 7 and "7" are the same.

    Returns:
        A number of 63 bits, never negative, so that it fits into an int64: the first 8 bytes of BLAKE2b, halved. That
        two of n identities share a key has about the odds n^2 / 2^64: 5 in a hundred million for a million identities.
    """
    # With their lengths: no two different triples give the same text.
    text = "".join(f"{len(part)}:{part}" for part in (dataset, sequence, str(identity)))
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def unit_name(unit: int) -> str:
    """`part-00000012`: the stem of every file that unit 12 writes."""
    return f"part-{unit:08d}"


def shard_name(unit: int, roll: int = 0, retry: int = 0) -> str:
    """File name of a unit's shard.

    Args:
        unit: number of the unit.
        roll: 0 for the first shard; 1, 2, ... where the unit outgrew the byte or sample limit of one shard.
        retry: 0 for the first run; n for the n-th `--only-quarantined` run that saved samples of this unit.
    """
    suffix = f"-r{retry:02d}" if retry else ""
    if roll:
        suffix += f"-{roll:02d}"
    return f"{unit_name(unit)}{suffix}.tar"


def receipt_name(unit: int) -> str:
    """File name of a unit's receipt, the marker that the unit is complete."""
    return f"{unit_name(unit)}.parquet"


def shard_numbers(name: str) -> tuple[int, int, int]:
    """(unit, retry, roll) of a shard, see `shard_name`.

    Raises:
        ValueError: not the name of a shard that mining wrote.
    """
    match = _SHARD_NAME.match(name)
    if match is None:
        raise ValueError(f"{name!r} is not named as mining names shards, such as part-00000012.tar")
    return int(match[1]), int(match[2] or 0), int(match[3] or 0)


def sidecar_part_name(unit: int, retry: int = 0) -> str:
    """File name of a unit's part of a sidecar; each retry of quarantined items has a part of its own, as its shards."""
    return f"{unit_name(unit)}-r{retry:02d}.parquet" if retry else f"{unit_name(unit)}.parquet"


def unit_of_part(name: str) -> tuple[int, int] | None:
    """(unit, retry) of a part of a sidecar; None for any other file name."""
    match = _PART_NAME.match(name)
    return (int(match[1]), int(match[2] or 0)) if match else None


def frame_member(key: str, position: int, num_frames: int, kind: str) -> str:
    """Member name of a frame: `{key}.jpg` for a picture, `{key}.f07.jpg` for the eighth frame of a clip."""
    if kind == "image":
        return f"{key}.jpg"
    return f"{key}.f{position:0{max(2, len(str(num_frames - 1)))}d}.jpg"
