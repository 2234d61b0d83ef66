"""From the settings of a run to a proposer: decided once on the driver, built alike on every worker."""

from __future__ import annotations

import difflib

from trackmill.models.proposers import PROPOSERS, Proposer, SamProposer, SamSettings
from trackmill.pipeline.storage.fetched import fetch_weights, load_state_dict
from trackmill.schemas.config import Settings
from trackmill.schemas.errors import InputError


def resolve_proposer(name: str, settings: Settings) -> tuple[Settings, dict[str, str]]:
    """Decide on the driver everything that could come out differently on another machine.

    Args:
        name: a key of `PROPOSERS`.
        settings: that proposer's section.

    Returns:
        The settings to hand to the workers (no `auto` left, the checkpoint's SHA-256 filled in), and what else decides
        the output: libraries with versions, the checkpoint's name and SHA-256. Both belong in the fingerprint.

    Raises:
        ValueError: no such proposer, or another proposer's settings.
        ProposerUnavailable: a package or the checkpoint's path is missing; says what to type.
        BadWeights, OSError: see `trackmill.pipeline.storage.fetched.fetch_weights`.
    """
    proposer = _proposer_class(name, settings)
    settings = proposer.resolve(settings)
    implementation = proposer.implementation(settings)
    if isinstance(settings, SamSettings):
        weights = fetch_weights(settings.weights, settings.weights_sha256)
        settings = settings.model_copy(update={"weights_sha256": weights.sha256})
        implementation |= {"weights": weights.name, "weights_sha256": weights.sha256}
    return settings, implementation


def build_proposer(name: str, settings: Settings) -> Proposer:
    """Build a proposer on the machine that runs it; `sam` takes the GPU where torch sees one.

    Args:
        name: a key of `PROPOSERS`.
        settings: as `resolve_proposer` returned them.

    Raises:
        ValueError: no such proposer, another proposer's settings, or a checkpoint of another model.
        ProposerUnavailable: this machine lacks a package that the driver has.
        BadWeights, OSError: this machine's checkpoint is not the driver's, or cannot be had.
    """
    proposer = _proposer_class(name, settings)
    settings = proposer.resolve(settings)
    if isinstance(settings, SamSettings):
        state_dict = load_state_dict(fetch_weights(settings.weights, settings.weights_sha256))

        import torch

        return SamProposer(settings, state_dict, "cuda" if torch.cuda.is_available() else "cpu")
    built: Proposer = proposer(settings)  # type: ignore[call-arg]  # every proposer but sam takes its settings alone
    return built


def _proposer_class(name: str, settings: Settings) -> type[Proposer]:
    if name not in PROPOSERS:
        near = difflib.get_close_matches(name, PROPOSERS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(PROPOSERS)}"
        raise InputError(f"no proposer is called {name!r}; {hint}")
    proposer = PROPOSERS[name]
    if not isinstance(settings, proposer.Config):
        raise ValueError(f"{name} takes {proposer.Config.__name__}, not {type(settings).__name__}")
    return proposer
