"""From the settings of a run to a proposer: decided once on the driver, built alike on every worker."""

from __future__ import annotations

from trackmill.models.proposers import Proposer, WeightsSettings
from trackmill.models.registry import proposer_class
from trackmill.pipeline.storage.fetched import fetch_weights
from trackmill.pipeline.weights import read_weights
from trackmill.schemas.config import Settings


def resolve_proposer(name: str, settings: Settings) -> tuple[Settings, dict[str, str]]:
    """Decide on the driver everything that could come out differently on another machine.

    Args:
        name: a key of `trackmill.models.registry.PROPOSERS`, or `my_package.my_module:Class`.
        settings: that proposer's section.

    Returns:
        The settings to hand to the workers (no `auto` left, the checkpoint's SHA-256 filled in), and what else decides
        the output: libraries with versions, the checkpoint's name and SHA-256. Both belong in the fingerprint.

    Raises:
        ValueError: no such proposer, another proposer's settings, or no checkpoint where one is needed.
        MissingPackage: a package is missing; says what to type.
        BadWeights, OSError: see `trackmill.pipeline.storage.fetched.fetch_weights`.
    """
    proposer = _checked_class(name, settings)
    settings = proposer.resolve(settings)
    implementation = proposer.implementation(settings)
    if isinstance(settings, WeightsSettings) and settings.weights:
        weights = fetch_weights(settings.weights, settings.weights_sha256)
        settings = settings.model_copy(update={"weights_sha256": weights.sha256})
        implementation |= {"weights": weights.name, "weights_sha256": weights.sha256}
    return settings, implementation


def build_proposer(name: str, settings: Settings) -> Proposer:
    """Build a proposer on the machine that runs it; one that can use a GPU takes it where torch sees one.

    Args:
        name: a key of `trackmill.models.registry.PROPOSERS`, or `my_package.my_module:Class`.
        settings: as `resolve_proposer` returned them.

    Raises:
        ValueError: no such proposer, another proposer's settings, or a checkpoint of another model.
        MissingPackage: this machine lacks a package that the driver has.
        BadWeights, OSError: this machine's checkpoint is not the driver's, or cannot be had.
    """
    proposer = _checked_class(name, settings)
    settings = proposer.resolve(settings)
    tensors = None
    if isinstance(settings, WeightsSettings) and settings.weights:
        tensors = read_weights(settings.weights, settings.weights_sha256)
    return proposer.build(settings, tensors, _device() if proposer.uses_gpu else "cpu")


def _device() -> str:
    try:
        import torch
    except ImportError:  # then it has no model of torch's, and knows itself what it runs on
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "cpu"


def _checked_class(name: str, settings: Settings) -> type[Proposer]:
    proposer = proposer_class(name)
    if not isinstance(settings, proposer.Config):
        raise ValueError(f"{name} takes {proposer.Config.__name__}, not {type(settings).__name__}")
    return proposer
