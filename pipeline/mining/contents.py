"""What an item is read from, as a SHA-256: of its files, or of the sample that was made of it where those are gone."""

from __future__ import annotations

from functools import cached_property

from trackmill.pipeline.mining.settings import MineConfig, source_settings
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import Dataset, open_dataset, read_row
from trackmill.pipeline.sources import open_source, sources_of
from trackmill.pipeline.sources.base import Source
from trackmill.schemas.media import WorkItem
from trackmill.schemas.receipt import ReceiptRow


class ItemContents:
    """Answers for one run; see `trackmill.pipeline.mining.places.Contents`."""

    def __init__(self, config: MineConfig, layout: Layout) -> None:
        self._config = config
        self._layout = layout
        self._sources: dict[str, Source] = {}

    def __call__(self, item: WorkItem) -> str | None:
        """SHA-256 in hexadecimal digits; None where neither the files nor a sample can be read."""
        try:
            return self._source(item.source).read(item).sha256
        except Exception:
            # Broken or gone: what matters here is only whether it can be compared.
            return self._stored(item.source_id)

    def _source(self, name: str) -> Source:
        if name not in self._sources:
            chosen = self._config.source if name in sources_of(self._config.source) else name
            chosen = name if chosen == "auto" else chosen
            self._sources[name] = open_source(chosen, self._config.read, source_settings(self._config))
        return self._sources[name]

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
