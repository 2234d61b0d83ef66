"""What targets of media share: how items are read, and an input mined as a worker does it, without a run around it."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.target import Broken, Refused
from trackmill.pipeline.isolation.limits import Limits, too_much_memory
from trackmill.pipeline.media.errors import BadItem, NothingToStore
from trackmill.pipeline.sources import open_source
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.sources.check import check_media
from trackmill.pipeline.sources.claiming import claim_files, list_inputs
from trackmill.pipeline.storage.credentials import error_text
from trackmill.pipeline.storage.names import escaped
from trackmill.schemas.media import Media

EMPTY = "nothing to mine"
"""What an input that holds no file of a source is answered with; there is no file to name."""

_LIMITS = Limits(memory_bytes=3 << 30)
SETTINGS = ReadSettings(longest_side=48, frames_per_clip=4, max_pixels=4_000_000)


def read_all(folder: Path, source: str) -> list[Media]:
    """Every item of a folder, read.

    Raises:
        Refused: some could not be read; their reasons.
    """
    try:
        items, _ = claim_files(list_inputs([str(folder)], source), source, SETTINGS)
    except MemoryError:
        raise Refused([f"{EMPTY}: {too_much_memory(_LIMITS)}"]) from None
    odd = [text for item in items for text in (item.source_id, item.key, item.uri) if escaped(text) != text]
    if odd:
        raise Broken(f"{odd[0]!r} goes into receipts, logs and pages, and cannot be printed")
    opened = {source: open_source(source, SETTINGS) for source in {item.source for item in items}}
    read, reasons = [], []
    for item in items:
        try:
            media = opened[item.source].read(item)
        except MemoryError:  # in a run, reading is ended there, and this is what its child is said to have done
            reasons.append(f"{item.source_id}: {too_much_memory(_LIMITS)}")
        except (BadItem, OSError, NothingToStore) as error:
            reasons.append(error_text(error))  # as it stands in a receipt
        else:
            check_media(item.source, media)
            read.append(media)
    if reasons:
        raise Refused(reasons)
    return read
