"""Producers by name. Importing this is cheap: torch is loaded by the one that is built and needs it."""

from __future__ import annotations

from trackmill.models.registry import choose, import_object, is_outside
from trackmill.pipeline.sidecars.producer import Producer
from trackmill.pipeline.sidecars.producers.chains import ChainProducer
from trackmill.pipeline.sidecars.producers.detections import DetectionProducer
from trackmill.schemas.errors import InputError

PRODUCERS: dict[str, type[Producer]] = {
    "chains": ChainProducer,
    "detections": DetectionProducer,
}


def producer_class(name: str) -> type[Producer]:
    """A producer by its name in `PRODUCERS`, or somebody's own as `my_package.my_module:Class`.

    Raises:
        InputError: there is none, or it is no producer; says which is near.
    """
    if not is_outside(name):
        return PRODUCERS[choose("producer", name, PRODUCERS)]
    found = import_object(name, "producer")
    if not (isinstance(found, type) and issubclass(found, Producer)):
        raise InputError(f"producer {name}: is not a subclass of trackmill.pipeline.sidecars.producer.Producer")
    return found


__all__ = ["PRODUCERS", "producer_class"]
