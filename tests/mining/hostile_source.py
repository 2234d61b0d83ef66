"""A source whose files say what reading them does: `good`, `hang`, `eat`, `crash`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from tests.isolation.hostile import Reader
from trackmill.pipeline.sources.base import Claim, Source, file_item
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.schemas.media import Frame, Media, WorkItem


class Hostile(Source):
    """`X.odd` is a gray picture unless it says otherwise."""

    name = "hostile"
    version = 1
    annotated = False
    looked_for = "files ending in .odd"

    def claim(self, files: Sequence[FileInfo]) -> Claim:
        uris = [file.uri for file in files if file.uri.endswith(".odd")]
        return Claim([file_item(self.name, uri, uri, uri, {}) for uri in uris], set(uris))

    def read(self, item: WorkItem) -> Media:
        data = read_bytes(item.uri)
        Reader().read(data.decode())
        pixels = np.full((48, 64, 3), 128, np.uint8)
        digest = hashlib.sha256(data).hexdigest()
        return Media(
            kind="image",
            frames=[Frame(image=pixels)],
            original_height=48,
            original_width=64,
            sha256=digest,
            num_bytes=len(data),
            annotated=False,
        )
