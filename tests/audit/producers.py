"""Negatives for tests: of a hand-written scene, none at all, and some whose detector fails."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.sidecars.columns import Column
from trackmill.pipeline.sidecars.producer import CountedRows, Producer, Rows
from trackmill.schemas.config import Settings

HOSTILE = '<script>alert("x")</script> \x1b[31m 猫' + "n" * 300


class ScatterSettings(Settings):
    """What `Scatter` can be told."""

    fail: str = Field("", description="Part of the keys of the samples that cannot be used.")
    nothing: bool = Field(False, description="No rows at all.")


class Scatter(Producer):
    """Two boxes a frame: one that stays where it is, with a hostile name, and one that is elsewhere in each frame."""

    name = "scatter"
    version = 1
    Config = ScatterSettings
    columns = (
        Column(name="box", dtype="box", unit="px", description="Of a negative."),
        Column(name="score", dtype="float32", description="Confidence."),
        Column(name="label", dtype="string", description="Class."),
        Column(name="detector", dtype="string", description="Who found it."),
    )

    def __init__(self, config: ScatterSettings) -> None:
        self._config = config

    def rows(self, sample: Sample) -> Rows:
        """See `Producer.rows`."""
        if self._config.fail and self._config.fail in sample.key:
            raise ArithmeticError("nothing to see")
        found: dict[str, list[Any]] = {name: [] for name in ("frame", "box", "score", "label", "detector")}
        for frame in range(0 if self._config.nothing else len(sample.record.frames)):
            place = 6 * (frame % 8)
            for box, score, label in (
                ([50, 2, 62, 12], 0.7, HOSTILE),
                ([place, 20 * (frame % 2), place + 5, 20 * (frame % 2) + 8], 0.35, "thing"),
            ):
                for values, value in zip(found.values(), (frame, box, score, label, "scatter")):
                    values.append(value)
        return CountedRows(found, {"kept": len(found["frame"]), "overlaps an object": 2, "below the score": 0})
