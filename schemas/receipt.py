"""The receipt of a unit: one row per item, written after the unit's shards and never before.

A unit with a receipt is done; a unit without one is not, whatever files it left. The manifest of a data set is the
receipts laid end to end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "quarantined", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptRow:
    """What became of one item.

    Args:
        source_id, key, uri: the item, see `trackmill.schemas.media.WorkItem`.
        status: `ok`: stored; `quarantined`: could not be used, see `reason`; `skipped`: holds nothing to store.
        reason, error_class: why, empty when ok. Never holds a credential.
        unit: number of the unit.
        position: place of the item inside the unit.
        shard: file name under `shards/`, empty when nothing was stored.
        offset, size: byte range of the sample inside the shard; read it alone and it is a valid piece of tar.
        checksum: XXH3-64 of that range as a signed number; 0 where an older version wrote the receipt.
        frames, objects, proposals, negatives, refused: counts over the sample.
        mean_score: of its proposals, to four decimals; 0 where there are none, or where an older version wrote the
            receipt, which a mean of just 0 cannot be told from.
        license: of the stored sample.
        attempts: 1, and one more for each `--only-quarantined` run.
        seconds: time spent on the item.
    """

    source_id: str
    key: str
    uri: str
    status: Status
    reason: str = ""
    error_class: str = ""
    unit: int
    position: int
    shard: str = ""
    offset: int = -1
    size: int = 0
    frames: int = 0
    objects: int = 0
    proposals: int = 0
    negatives: int = 0
    refused: int = 0
    license: str = ""
    attempts: int = 1
    seconds: float = 0.0
    checksum: int = 0
    mean_score: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardInfo:
    """One shard of a unit: file name, length and SHA-256 of the whole tar, number of samples."""

    name: str
    num_bytes: int
    sha256: str
    num_samples: int
