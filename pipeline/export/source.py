"""Loads the model to export, from a training run (finished or not) or any checkpoint, with all facts about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow.compute as pc
from torch import nn

from trackmill.models.outside import choose
from trackmill.models.registry import MODELS, recognise
from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.pipeline.export.kinds import HEADER, Exportable
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.documents import DamagedDocument, read_document
from trackmill.pipeline.storage.fetched import fetch_weights
from trackmill.pipeline.storage.files import exists, read_bytes
from trackmill.pipeline.storage.parquet.reading import MAX_TABLE_FILE_BYTES, ParquetData
from trackmill.pipeline.storage.urls import basename, canonical, join
from trackmill.pipeline.training import changes, checkpoint, saved_checkpoint
from trackmill.pipeline.training.checkpoint_document import DOCUMENT, EMA, MODEL
from trackmill.pipeline.training.recipe import Recipe, effective, make_recipe, make_task
from trackmill.pipeline.training.result import fill_network, read_card, result_url
from trackmill.pipeline.training.telemetry.lines import read_lines
from trackmill.pipeline.weights import build_model, read_fetched
from trackmill.schemas.config import ConfigError
from trackmill.schemas.errors import InputError

_TASKS = ("masa", "scaletrack", "ipmot")
"""Whose networks are `Exportable`."""

WHICH = ("final", "latest")
"""Values that `--checkpoint` takes, besides the number of a step."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """The training of a model, as its run records it.

    Args:
        url: root of the run, without credentials.
        recipe: the resolved recipe.
        step: number of steps done.
        data: the data set's fingerprint and number of samples.
        frozen: parts that were not trained, besides a frozen detector.
        averaged: whether the weights are a moving average.
        losses: the last row of `metrics.jsonl` up to that step.
        evaluation: the last row of `evaluations.jsonl` up to that step; empty if nothing was evaluated.
        licences: samples by licence; None where the data set could not be read.
    """

    url: str
    recipe: Recipe
    step: int
    data: Mapping[str, Any]
    frozen: tuple[str, ...]
    averaged: bool
    losses: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    licences: Mapping[str, int] | None


@dataclass(frozen=True, kw_only=True)
class ExportSource:
    """A model and its origin.

    Args:
        model: on the CPU in evaluation mode.
        name: name of its file or checkpoint, without credentials.
        sha256: SHA-256 of that file; empty if it is not a file.
        training: None for a checkpoint without a run.
        metadata: the file's metadata.
    """

    model: Exportable
    name: str
    sha256: str
    training: Training | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def from_weights(weights: str, variant: str | None) -> ExportSource:
    """The model of a checkpoint without a run.

    Args:
        weights: path or URL of an official `.pth` or our `.safetensors`; `imagenet` for masa_lite0(_colour).
        variant: the expected variant; None recognises it.

    Raises:
        ValueError: there is no such variant, or the weights do not fit it.
        OSError: the file cannot be fetched.
    """
    if variant is not None:
        choose("model", variant, MODELS)
    named = next((name for name, entry in MODELS.items() if weights in entry.words), None)
    if named is not None:
        return ExportSource(model=_network(variant or named, weights), name=weights, sha256="")
    fetched = fetch_weights(weights)
    read = read_fetched(fetched)
    recognised = variant or recognise(read)
    if recognised is None:
        raise InputError(f"{fetched.name}: cannot tell the variant from its tensors; name it with --model")
    model = _network(recognised, read)
    return ExportSource(model=model, name=fetched.name, sha256=fetched.sha256, metadata=_words(read.metadata))


def from_run(run: str, which: str) -> ExportSource:
    """The model of a training run.

    Args:
        run: root of the run, the `--output` of `jobs/train.py`.
        which: `final`: its result; `latest`: its newest whole checkpoint; or the number of a step.

    Raises:
        ValueError: `run` is not a run of a model that can be exported, has no such step, or the checkpoint does not fit
            its recipe; the message says what to give.
        OSError: a file cannot be read.
    """
    run = canonical(run)
    recipe = _recipe_of(run)
    if which == "final":
        return _final(run, recipe)
    return _stored(run, recipe, which)


def _final(run: str, recipe: Recipe) -> ExportSource:
    try:
        card = read_card(run)
    except DamagedDocument as error:
        raise InputError(f"{error}; the command that trained it writes it again from the last checkpoint") from None
    if card is None or not exists(result_url(run)):
        raise InputError(
            f"{redact(run)} has no result yet; to export a run that is not finished, say --checkpoint latest"
        )
    fetched = fetch_weights(result_url(run), card.file.sha256)
    read = read_fetched(fetched)
    variant = recognise(read)
    if variant is None:
        raise InputError(
            f"{redact(run)} trains the task {recipe.task!r}, whose network is no model of the registry and cannot be "
            f"exported; its weights are in {redact(result_url(run))}"
        )
    model = _network(variant, read)
    metadata = _words(read.metadata)
    # Not the run's `config.json`, which may be newer: the card was written with the weights.
    recipe = make_recipe(card.recipe, f"{redact(run)}/final/card.json")
    training = _training(run, recipe, card.step, card.data, metadata, card.averaged)
    return ExportSource(
        model=model, name="final/model.safetensors", sha256=fetched.sha256, training=training, metadata=metadata
    )


def _stored(run: str, recipe: Recipe, which: str) -> ExportSource:
    if which == "latest":
        stored = saved_checkpoint.open_checkpoint(run)
    else:
        if not which.isdigit():
            raise InputError(f"--checkpoint {which!r}: should be {', '.join(WHICH)} or the number of a step")
        folder = saved_checkpoint.folder_of(run, int(which))
        if not exists(join(folder, DOCUMENT)):
            raise InputError(f"{redact(run)} has no checkpoint of step {which}; --checkpoint latest takes the newest")
        stored = saved_checkpoint.open_checkpoint(folder)
    changes.check_fits(stored, *effective(recipe), data=stored.document.data)
    state, averaged = saved_checkpoint.read_state(stored)
    task = make_task(recipe)
    network = fill_network(task.build(recipe.seed), {**state.parameters, **(averaged or {})})
    if not isinstance(network, Exportable):
        raise InputError(f"{redact(run)} has trained no MASA, ScaleTrack or IP-MOT but a {type(network).__name__}")
    # Frozen parts are not in the checkpoint: they were rebuilt, from files that may have changed since.
    changes.check_frozen(stored, checkpoint.frozen_digest(nn.ModuleDict({"network": network})))
    files = stored.document.files
    used, record = (EMA, files[EMA]) if averaged is not None else (MODEL, files[MODEL])
    metadata = _words(orjson.loads(next(iter(task.metadata().values()))))
    return ExportSource(
        model=network,
        name=f"checkpoints/{basename(stored.url)}/{used}",
        sha256=record.sha256,
        training=_training(run, recipe, stored.step, stored.document.data, metadata, averaged is not None),
        metadata=metadata,
    )


def _recipe_of(run: str) -> Recipe:
    url = join(run, "config.json")
    try:
        values = read_document(url)
    except FileNotFoundError:
        raise InputError(f"{redact(run)} is no training run, it has no config.json: give a run's --output") from None
    except DamagedDocument as error:
        raise InputError(f"{error}; the command that trained it writes it again") from None
    return make_recipe(values, redact(url))


def _training(
    run: str, recipe: Recipe, step: int, data: Mapping[str, Any], metadata: Mapping[str, str], averaged: bool
) -> Training:
    if recipe.task not in _TASKS:
        raise ConfigError(
            f"{redact(run)} has trained {recipe.task!r}; only MASA, ScaleTrack and IP-MOT can be exported so far"
        )
    return Training(
        url=redact(run),
        recipe=recipe,
        step=step,
        data=data,
        frozen=tuple(filter(None, metadata.get("frozen", "").split(", "))),
        averaged=averaged,
        losses=_last_row(join(run, "metrics.jsonl"), step),
        evaluation=_last_row(join(run, "evaluations.jsonl"), step),
        licences=_licences(recipe.data.url),
    )


def _last_row(url: str, step: int) -> dict[str, Any]:
    try:
        rows = [row for row in read_lines(url) if row.get("step", step + 1) <= step]
    except FileNotFoundError:
        return {}
    return rows[-1] if rows else {}


def _licences(data_url: str) -> dict[str, int] | None:
    """Samples by licence, from the manifest; reads only two columns, since there may be millions of rows."""
    try:
        manifest = read_bytes(Layout(canonical(data_url)).manifest, max_bytes=MAX_TABLE_FILE_BYTES)
        table = ParquetData(manifest).read(["status", "license"], row_bytes=8)
    except (OSError, ValueError, ImportError):
        return None  # moved or unreachable: the card says so, and the model is exported anyway
    stored = table.filter(pc.equal(table["status"], "ok"))["license"].to_pylist()
    return dict(Counter(stored).most_common())


def _network(name: str, weights: str | Checkpoint) -> Exportable:
    """A model of the registry as a network, also where the registry builds a tracker around it."""
    built = build_model(name, weights)
    network: Exportable = built.network if MODELS[name].end_to_end else built
    return network


def _words(metadata: Mapping[str, Any]) -> dict[str, str]:
    """A file's own metadata, without the entries that `metadata_of` writes again."""
    return {key: str(value) for key, value in metadata.items() if key not in HEADER}
