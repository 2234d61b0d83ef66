"""All targets by name; a new one is a `Target` in a file here, and that file in the list below."""

from __future__ import annotations

from tests.fuzz.target import Target
from tests.fuzz.targets import archives, datasets, jobs, labels, listings, pictures, runs, settings, tracks, videos

_FILES = (pictures, videos, archives, labels, listings, tracks, datasets, runs, settings, jobs)
_ALL: list[Target] = [target for file in _FILES for target in file.ALL]

TARGETS: dict[str, Target] = {target.name: target for target in _ALL}
assert len(TARGETS) == len(_ALL), "two targets have one name"
