"""Producers for tests: one that looks at pixels, and ones that fail or lie on purpose."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.sidecars.columns import Column
from trackmill.pipeline.sidecars.producer import Producer, Rows
from trackmill.schemas.config import Settings


class BrightnessSettings(Settings):
    """What `Brightness` can be told."""

    level: int = Field(128, ge=0, le=255, description="Pixels above it are bright.")
    batch: int = Field(1, ge=1, description="Changes no row.")
    fail: str = Field("", description="Part of the keys of the samples that cannot be used.")


class Brightness(Producer):
    """The two best proposals of every second frame, and how bright the pixels in them are."""

    name = "brightness"
    version = 1
    Config = BrightnessSettings
    not_in_fingerprint = frozenset({"batch", "fail"})
    columns = (
        Column(name="box", dtype="box", unit="px", description="A proposal."),
        Column(name="mean", dtype="float32", description="Mean level of the pixels in it, 0..255."),
        Column(name="bright", dtype="bool", description="Whether that is above the level that was asked for."),
        Column(name="label", dtype="string", description="A word for it."),
        Column(name="pixels", dtype="int64", unit="px", description="Pixels of the box."),
    )

    def __init__(self, config: BrightnessSettings) -> None:
        self._config = config

    def rows(self, sample: Sample) -> Rows:
        """See `Producer.rows`."""
        if self._config.fail and self._config.fail in sample.key:
            raise ArithmeticError(f"nothing to see in {sample.shard}")
        found: dict[str, list[Any]] = {name: [] for name in ("frame", "box", "mean", "bright", "label", "pixels")}
        for frame, record in enumerate(sample.record.frames):
            if frame % 2:
                continue
            image = sample.image(frame)
            for box in record.proposals.boxes[:2]:
                x0, y0, x1, y1 = map(int, box)
                inside = image[y0:y1, x0:x1]
                mean = float(inside.mean())
                bright = mean > self._config.level
                row = (frame, box, mean, bright, "hell ☀" if bright else "dunkel", inside.size // 3)
                for values, value in zip(found.values(), row):
                    values.append(value)
        return found


class Wrong(Brightness):
    """Breaks its contract: a box outside its frame."""

    name = "wrong"

    def rows(self, sample: Sample) -> Rows:
        """See `Producer.rows`."""
        rows = dict(super().rows(sample))
        rows["box"] = np.array(rows["box"], np.float32).reshape(-1, 4) + 1000
        return rows


class Dying(Brightness):
    """Its process ends when it sees a certain sample."""

    name = "dying"

    def rows(self, sample: Sample) -> Rows:
        """See `Producer.rows`."""
        import os

        if self._config.fail and self._config.fail in sample.key:
            os._exit(3)
        return super().rows(sample)
