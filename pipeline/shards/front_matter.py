"""The YAML at the head of a data set's card, which Hugging Face's Hub and `datasets` read: licence, parts, columns.

Pictures and clips are configurations of their own: `datasets` takes the columns of the first sample it meets for those
of all, and so would leave out every frame of a clip. Columns are listed for the same reason: clips differ in length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from trackmill.pipeline.shards.shard_names import patterns
from trackmill.pipeline.shards.totals import Totals
from trackmill.schemas.keys import frame_member

PICTURES, CLIPS = "pictures", "clips"
_HUB_LICENCES = re.compile(
    r"^(cc-by(-nc)?(-nd|-sa)?-[234]\.[05]|cc0-1\.0|mit|apache-2\.0|bsd-[23]-clause|odc-by|odbl|pddl|unknown|other)$"
)
_TWO_DIGITS = 100
_LARGEST = 10_000
"""Frames of a clip that columns are listed for."""

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGER = ((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"))


def front_matter(totals: Totals) -> str:
    """The YAML between its two lines of dashes.

    Args:
        totals: of the data set.
    """
    return "---\n" + "".join(f"{line}\n" for line in _lines(totals)) + "---\n"


def mixed_shards(totals: Totals) -> list[str]:
    """Shards with pictures and clips, which are in neither configuration."""
    return sorted(totals.pictures.keys() & totals.clips.keys())


def hub_licence(licences: Iterable[str]) -> str:
    """The Hub's identifier for the licence of a data set: `other` where it has none, and for several licences."""
    found = {_identifier(text) for text in licences}
    return found.pop() if len(found) == 1 else "other" if found else "unknown"


def _lines(totals: Totals) -> Iterator[str]:
    yield f"license: {hub_licence(totals.licenses)}"
    yield "task_categories:\n- object-detection"
    yield f"size_categories:\n- {_size(totals.statuses['ok'])}"
    yield "tags:\n- webdataset\n- tracking\n- trackmill"
    mixed = set(mixed_shards(totals))
    pictures, clips = (sorted(each.keys() - mixed) for each in (totals.pictures, totals.clips))
    kinds = [(PICTURES, pictures, clips), (CLIPS, clips, pictures)]
    kinds = [(name, own, [*others, *mixed]) for name, own, others in kinds if own]
    if kinds:
        yield "configs:"
    for name, own, others in kinds:
        yield f"- config_name: {name}\n  data_files:\n  - split: train\n    path:"
        for pattern in patterns(own, others):
            yield f"    - {json.dumps(f'shards/{pattern}')}"
    if kinds:
        yield "dataset_info:"
    for name, _, _ in kinds:
        yield f"- config_name: {name}\n  features:"
        for column, dtype in _columns(name, totals.longest_clip):
            yield f"  - name: {json.dumps(column)}\n    dtype: {dtype}"


def _columns(kind: str, longest: int) -> Iterator[tuple[str, str]]:
    """Each with its type, as `datasets` names them."""
    if kind == PICTURES:
        yield "jpg", "image"
    else:
        # Frames are numbered with as many digits as their clip needs, two at least.
        lengths = {min(longest, _TWO_DIGITS), min(longest, _LARGEST)}
        for length in sorted(lengths):
            for number in range(length):
                yield frame_member("", number, length, "clip").lstrip("."), "image"
    yield "masks.json", "json"
    yield "json", "json"
    yield "__key__", "string"
    yield "__url__", "string"


def _identifier(text: str) -> str:
    name = re.sub(r"[\s_]+", "-", text.strip().lower()).replace("attribution", "by")
    name = {"cc0": "cc0-1.0", "": "unknown", "public-domain": "cc0-1.0"}.get(name, name)
    return name if _HUB_LICENCES.match(name) else "other"


def _size(samples: int) -> str:
    return next((name for limit, name in (*_SIZES, *_LARGER) if samples < limit), "100M<n<1B")
