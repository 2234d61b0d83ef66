"""All targets by name; a new one is a `Target` in a file here and its place in the list below."""

from __future__ import annotations

from tests.fuzz.target import Target
from tests.fuzz.targets import archives, datasets, labels, pictures, runs, settings, tracks, videos

_ALL: tuple[Target, ...] = (
    *pictures.ALL,
    *archives.ALL,
    *labels.ALL,
    *videos.ALL,
    *tracks.ALL,
    *datasets.ALL,
    *runs.ALL,
    *settings.ALL,
)

TARGETS: dict[str, Target] = {target.name: target for target in _ALL}
assert len(TARGETS) == len(_ALL), "two targets have one name"
