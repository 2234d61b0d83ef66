"""Which tests run in one process of pytest-xdist.

Not by `--dist loadgroup`: xdist 3.8 writes the groups into names that pytest 9.2 no longer reads.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

from tests.starts_ray import starts_ray


class FilesTogether(LoadScopeScheduling):
    """The tests of a file stay in one process, and all files that start Ray in one, too."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "ray" if starts_ray(file) else file
