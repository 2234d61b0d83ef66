"""Short runs of ScaleTrack on made-up clips: ellipses that move, of which two have identities and one has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from tests.make_dataset import DOCUMENT, FINGERPRINT, make_item, make_media, write_plan, write_samples
from tests.training.tiny_runs import TINY
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import read_receipts, write_manifest, write_receipt
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.training.recipe import Recipe, make_recipe
from trackmill.schemas.config import merge

NARROW: dict[str, Any] = {"channels": 32, "norm_groups": 8, "feedforward": 32, "dimensions": 16, "roi_size": 3}
"""Changes of scaletrack_lite0 for tests."""

SCALETRACK: dict[str, Any] = {
    "task": "scaletrack",
    "model": {"variant": "scaletrack_lite0", "changes": NARROW},
    "clips": {"size": 64, "frames": 3, "resize": [0.9, 1.2]},
    "optim": {"name": "adamw", "lr": 1e-3, "clip_norm": 10.0, "weight_decay": 1e-4},
    "schedule": {"steps": 8, "warmup_steps": 0, "milestones": [5]},
    "checkpoint": {"every": 3},
    "data": {"batch_size": 2},
}


def make_clips(folder: Path, num_clips: int = 4, num_frames: int = 6, height: int = 48, width: int = 64) -> str:
    """A data set of clips alone; returns its root."""
    layout = Layout(str(folder))
    items = [make_item("videos", f"walk{each}-c000", frames=num_frames) for each in range(num_clips)]
    samples = [(item, make_media(seed, num_frames, height, width), seed) for seed, item in enumerate(items)]
    rows, shards = write_samples(layout, 0, samples, max_samples=3)
    write_receipt(layout, 0, rows, shards, FINGERPRINT)
    publish_bytes(layout.config, orjson.dumps(DOCUMENT))
    write_plan(layout, [(item, 0) for item in items])
    write_manifest(layout, read_receipts(layout))
    return str(folder)


def scaletrack_recipe(url: str, **changes: Any) -> Recipe:
    """Eight steps of two clips."""
    return make_recipe(
        merge(merge({**TINY, **SCALETRACK}, {"data": {"url": url, "workers": 0}}), changes), "scaletrack"
    )
