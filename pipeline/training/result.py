"""What a run leaves for others: `OUTPUT/final/model.safetensors`, which `models.*.load` reads, and a card beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.documents import DamagedDocument, publish_document, read_document
from trackmill.pipeline.storage.urls import filesystem, is_local, join
from trackmill.pipeline.tasks.base import Task, TrainingModule
from trackmill.pipeline.training.checkpoint_document import FileRecord, PastChange
from trackmill.pipeline.training.weight_files import check_finite, write_tensors


class ResultCard(BaseModel):
    """`final/card.json`.

    Args:
        step, samples: how much was trained.
        recipe: all settings, see `trackmill.pipeline.training.recipe.stored_recipe`.
        data: what identifies the data set.
        metrics: of the last evaluation; None for what is no number.
        averaged: the weights are those of the moving average.
        history: settings that were changed on the way.
        file: length and SHA-256 of the weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    step: int
    samples: int
    recipe: dict[str, Any]
    data: dict[str, Any]
    metrics: dict[str, float | None]
    averaged: bool
    history: list[PastChange] = []
    file: FileRecord


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
    """Write the weights, then the card with their SHA-256; returns the URL of the weights. Rank 0 only.

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
    publish_document(_card_url(output), {**card, "file": file})
    return url


def is_whole(output: str, card: ResultCard) -> bool:
    """Whether the weights have the SHA-256 of the card; in a store only their length is compared."""
    fs, path = filesystem(result_url(output))
    try:
        if not is_local(output):
            return int(fs.info(path)["size"]) == card.file.bytes
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest() == card.file.sha256
    except OSError:
        return False


def read_card(output: str) -> ResultCard | None:
    """The card of a run's result; None where it has none yet.

    Raises:
        DamagedDocument: it is not as it was written; names it.
    """
    url = _card_url(output)
    try:
        return ResultCard.model_validate(read_document(url))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DamagedDocument(f"{redact(url)} is damaged: {where}: {first['msg']}") from None


def _card_url(output: str) -> str:
    return join(output, "final", "card.json")
