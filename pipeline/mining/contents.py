"""What an item is read from, as a SHA-256: of its files, or of the sample that was made of it where those are gone."""

from __future__ import annotations

import contextlib
from functools import cached_property

from trackmill.pipeline.mining.reading import ItemReader
from trackmill.pipeline.mining.settings import MineConfig
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import Dataset, open_dataset, read_row
from trackmill.pipeline.sources.check import BadMedia
from trackmill.schemas.media import WorkItem
from trackmill.schemas.receipt import ReceiptRow


class ItemContents:
    """Answers for one run; see `trackmill.pipeline.mining.places.Contents`."""

    def __init__(self, config: MineConfig, layout: Layout) -> None:
        self._layout = layout
        self._reader = ItemReader(config)

    def __call__(self, item: WorkItem) -> str | None:
        """SHA-256 in hexadecimal digits; None where neither the files nor a sample can be read."""
        # Broken or gone: what matters here is only whether it can be compared.
        with contextlib.suppress(BadMedia):
            if (media := self._reader.read(item).media) is not None:
                return media.sha256
        return self._stored(item.source_id)

    def _stored(self, source_id: str) -> str | None:
        row = self._rows.get(source_id)
        if row is None or self._dataset is None:
            return None
        try:
            return read_row(self._dataset, row).record.origin.sha256
        except (OSError, ValueError):
            return None

    @cached_property
    def _dataset(self) -> Dataset | None:
        try:
            return open_dataset(self._layout.root, keep_damaged=True)
        except (OSError, ValueError):
            return None

    @cached_property
    def _rows(self) -> dict[str, ReceiptRow]:
        rows = self._dataset.recorded if self._dataset else None
        return {row.source_id: row for row in rows or () if row.status == "ok"}
