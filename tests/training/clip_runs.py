"""Short runs on made-up clips, of ScaleTrack and IP-MOT: ellipses that move; two have identities and one has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from tests.make_dataset import DOCUMENT, FINGERPRINT, make_item, make_media, write_plan, write_samples
from tests.training.tiny_runs import TINY
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.manifest import write_manifest
from trackmill.pipeline.shards.receipts import write_receipt
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

SMALL: dict[str, Any] = {
    "embedding": 48,
    "short_side": 64,
    "long_side": 96,
    "detector.hidden": 32,
    "detector.heads": 4,
    "detector.encoder_layers": 1,
    "detector.decoder_layers": 2,
    "detector.feedforward": 32,
    "detector.queries": 12,
}
"""Changes of ip_mot_tiny for tests."""

SMALL_CLIPS: dict[str, Any] = {
    "frames": [[0, 2], [1, 3]],
    "resize": [48, 64],
    "crop_share": 0.5,
    "before_crop": [64],
    "crop": [48, 64],
    "per_frame": False,
}

IPMOT: dict[str, Any] = {
    "task": "ipmot",
    "model": {"variant": "ip_mot_tiny", "changes": SMALL},
    "clips": SMALL_CLIPS,
    "loss": {"layers": 2, "alignment": False},
    "optim": {
        "name": "adamw",
        "lr": 1e-3,
        "clip_norm": 0.1,
        "weight_decay": 1e-4,
        "groups": [{"match": "detector.backbone.*", "lr_factor": 0.1}],
    },
    "schedule": {"steps": 4, "warmup_steps": 0, "milestones": [3]},
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
    write_manifest(layout)
    return str(folder)


def scaletrack_recipe(url: str, **changes: Any) -> Recipe:
    """Eight steps of two clips."""
    return make_recipe(
        merge(merge({**TINY, **SCALETRACK}, {"data": {"url": url, "workers": 0}}), changes), "scaletrack"
    )


def ipmot_recipe(url: str, **changes: Any) -> Recipe:
    """Four steps of two clips; the clips of `make_clips` are two batches, so from the third step on they are longer."""
    return make_recipe(merge(merge({**TINY, **IPMOT}, {"data": {"url": url, "workers": 0}}), changes), "ipmot")
