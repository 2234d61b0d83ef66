"""What a run leaves for others: `OUTPUT/final/model.safetensors`, which `models.*.load` reads, and a card beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from torch import Tensor, nn

from trackmill.pipeline.storage.files import join, read_bytes
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.tasks.base import Task
from trackmill.pipeline.training.checkpoint import write_tensors
from trackmill.pipeline.training.engines.base import EngineState


def result_url(output: str) -> str:
    """Where the weights lie."""
    return join(output, "final", "model.safetensors")


def network_of(task: Task, seed: int, state: EngineState, averaged: Mapping[str, Tensor] | None) -> nn.Module:
    """The network on the CPU in evaluation mode, with averaged weights where there are some.

    Built anew, because the engine's own may be spread over ranks; what is frozen comes from the file it started from.
    """
    module = task.build(seed)
    found = module.load_state_dict({**state.parameters, **(averaged or {})}, strict=False)
    frozen = {name for name, values in module.named_parameters() if not values.requires_grad}
    assert not found.unexpected_keys and set(found.missing_keys) <= frozen, "the engine gives all but the frozen part"
    return module.network.eval()


def write_result(output: str, network: nn.Module, task: Task, card: Mapping[str, Any]) -> str:
    """Write the weights, then the card that vouches for them; returns the URL of the weights. Rank 0 only.

    Args:
        output: root of the run.
        network: what `network_of` gave.
        task: gives the header that lets `load` know the variant.
        card: plain values: step, recipe, data, metrics.
    """
    url = result_url(output)
    file = write_tensors(url, network.state_dict(), task.metadata())
    publish_bytes(
        _card_url(output), orjson.dumps({**card, "file": file}, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    )
    return url


def read_card(output: str) -> dict[str, Any] | None:
    """The card of a run's result; None where it has none yet."""
    try:
        card: dict[str, Any] = orjson.loads(read_bytes(_card_url(output)))
    except FileNotFoundError:
        return None
    return card


def _card_url(output: str) -> str:
    return join(output, "final", "card.json")
