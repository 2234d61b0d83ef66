"""What a run leaves for others: `OUTPUT/final/model.safetensors`, which `models.*.load` reads, and a card beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from torch import Tensor, nn

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import join, read_bytes
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.tasks.base import Task, TrainingModule
from trackmill.pipeline.training.weight_files import check_finite, write_tensors


def result_url(output: str) -> str:
    """Where the weights lie."""
    return join(output, "final", "model.safetensors")


def frozen_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The frozen parameters of a module by name: what no checkpoint holds. They are shared, not copied."""
    return {name: values.detach() for name, values in module.named_parameters() if not values.requires_grad}


def fill_network(module: TrainingModule, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network of a module in evaluation mode, with other weights.

    Args:
        module: as `Task.build` gives it; its tensors are written over.
        tensors: by the names of the module's state dict; frozen parameters may be missing, and stay as they are.
    """
    keys = module.load_state_dict(dict(tensors), strict=False)
    assert not keys.unexpected_keys and set(keys.missing_keys) <= frozen_tensors(module).keys(), "not of this module"
    return module.network.eval()


def write_result(output: str, network: nn.Module, task: Task, card: Mapping[str, Any]) -> str:
    """Write the weights, then the card that vouches for them; returns the URL of the weights. Rank 0 only.

    Args:
        output: root of the run.
        network: what `fill_network` gave.
        task: says which tensors are exported, and the header by which `load` knows the variant.
        card: plain values: step, recipe, data, metrics.

    Raises:
        NonFinite: weights are no numbers.
    """
    url = result_url(output)
    tensors = task.exported(network)
    check_finite(tensors, f"the result {redact(url)}")
    file = write_tensors(url, tensors, task.metadata())
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
