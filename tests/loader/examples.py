"""Data sets and examples for tests of the loader."""

from __future__ import annotations

import io
import resource
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tests.make_dataset import FINGERPRINT, make_item, make_media, write_samples
from trackmill.pipeline.loader.catalog import Catalog
from trackmill.pipeline.loader.contract import StoredSample
from trackmill.pipeline.loader.loader import ShardLoader
from trackmill.pipeline.loader.settings import DataSettings
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.manifest import write_manifest
from trackmill.pipeline.shards.receipts import write_receipt
from trackmill.pipeline.shards.tar import BLOCK, END, TarWriter


def make_shards(root: str, num_samples: int = 26, per_shard: int = 5, units: int = 2) -> Layout:
    """A data set of small pictures in several shards of each unit."""
    layout = Layout(root)
    for unit in range(units):
        numbers = range(unit, num_samples, units)
        samples = [(make_item("images", f"pic{n}"), make_media(n, 1, 16, 24), n) for n in numbers]
        rows, shards = write_samples(layout, unit, samples, max_samples=per_shard)
        write_receipt(layout, unit, rows, shards, FINGERPRINT)
    write_manifest(layout)
    return layout


class Everything:
    """Makes examples that tell all there is: what was read, what was drawn, who the partner was."""

    def __call__(
        self, sample: StoredSample, rng: np.random.Generator, another: Callable[[], StoredSample]
    ) -> dict[str, Any]:
        partner = another()
        found = sample.objects(0)
        return {
            "key": sample.key,
            "partner": partner.key,
            "pixels": int(sample.image(0).astype(np.int64).sum()) + int(partner.image(0)[0, 0, 0]),
            "boxes": sample.proposals(0)[0],
            "ids": found[1] if found else None,
            "drawn": float(rng.random()),
        }


class TooLarge:
    """Makes 4 MB of each sample, in a process that may write no file (and no shared memory) of more than 1 MB."""

    def __call__(
        self, sample: StoredSample, rng: np.random.Generator, another: Callable[[], StoredSample]
    ) -> np.ndarray[Any, Any]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return np.zeros(1_000_000, np.float32)


def plain(batch: Iterable[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """A batch that can be compared with `==`, bit by bit."""
    return [(e["key"], e["partner"], e["pixels"], e["boxes"].tobytes(), e["ids"].tobytes(), e["drawn"]) for e in batch]


def keys(batch: Iterable[dict[str, Any]]) -> list[str]:
    """Keys of a batch."""
    return [example["key"] for example in batch]


def open_loader(catalog: Catalog, batch_size: int = 8, **values: Any) -> ShardLoader:
    """A loader of `Everything`; settings and arguments of `ShardLoader` alike."""
    settings = {name: values.pop(name) for name in list(values) if name in DataSettings.model_fields}
    settings = {"workers": 0, "window": 16, **settings}
    values = {"make_example": Everything(), "collate": list, **values}
    return ShardLoader(catalog, DataSettings(**settings), batch_size=batch_size, **values)


def rewrite_member(path: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """Change the bytes of one member of a shard, keeping its length and so everything's place."""
    with tarfile.open(path) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    assert name in dict(members)
    out = io.BytesIO()
    writer = TarWriter(out)
    for member, data in members:
        changed = change(data) if member == name else data
        assert len(changed) == len(data)
        writer.add(member, changed)
    writer.finish()
    assert len(out.getvalue()) == path.stat().st_size and out.getvalue().endswith(END) and BLOCK
    path.write_bytes(out.getvalue())
