"""Producers by name. Importing this is cheap: torch is loaded by the one that is built and needs it."""

from __future__ import annotations

from typing import Any

from trackmill.models.outside import choose, import_object, is_outside, require_class
from trackmill.pipeline.sidecars.producer import Producer
from trackmill.pipeline.sidecars.producers.chains import ChainProducer
from trackmill.pipeline.sidecars.producers.detections import DetectionProducer
from trackmill.pipeline.sidecars.producers.negatives import NegativeProducer
from trackmill.pipeline.sidecars.producers.video_chains import VideoChainProducer

PRODUCERS: dict[str, type[Producer]] = {
    "chains": ChainProducer,
    "detections": DetectionProducer,
    "negatives": NegativeProducer,
    "video-chains": VideoChainProducer,
}


def producer_class(name: str) -> type[Producer]:
    """A producer by its name in `PRODUCERS`, or somebody's own as `my_package.my_module:Class`.

    Raises:
        InputError: there is none, or it is no producer; says which is near.
    """
    if not is_outside(name):
        return PRODUCERS[choose("producer", name, PRODUCERS)]
    attributes = {
        "name": "what it is called",
        "version": "a number, raised whenever the same sample may give other rows",
        "columns": "of its rows, a tuple of trackmill.pipeline.sidecars.columns.Column",
    }
    base: Any = Producer  # an abstract class, which mypy does not take for a type
    return require_class(import_object(name, "producer"), base, "producer", name, attributes)


__all__ = ["PRODUCERS", "producer_class"]
