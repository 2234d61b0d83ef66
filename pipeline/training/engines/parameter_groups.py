"""Which learning rate and which weight decay each trained parameter has: `optim.groups`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from trackmill.pipeline.training.engines.base import OptimSettings
from trackmill.schemas.config import ConfigError

_NETWORK = "network."


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters that the optimiser treats alike.

    Args:
        match: the pattern of `optim.groups` that they match; empty for those that match none.
        parameters: by their names in the module, in its order.
        lr_factor: their learning rate is that of the schedule times this.
        weight_decay: theirs.
    """

    match: str
    parameters: dict[str, nn.Parameter]
    lr_factor: float
    weight_decay: float


def split_parameters(
    trained: Mapping[str, nn.Parameter], optim: OptimSettings, frozen: tuple[str, ...] = ()
) -> list[ParameterGroup]:
    """Share trained parameters out among the groups; a parameter belongs to the first group whose pattern matches.

    Groups come in the order of the settings, then what no pattern matches. Where `decay_norms` is false, vectors have a
    group of their own after each, without decay.

    Args:
        trained: by their names in the module.
        optim: settings.
        frozen: names of the module's other parameters, for the error.

    Raises:
        ConfigError: a pattern matches nothing that is trained, or only what earlier ones match; names what is near.
    """
    rest = dict(trained)
    groups: list[ParameterGroup] = []
    for each in optim.groups:
        matched = {name: rest.pop(name) for name in list(rest) if _matches(name, each.match)}
        if not matched:
            raise ConfigError(f"optim.groups: match = {each.match!r} {_why_nothing(each.match, trained, frozen)}")
        decay = optim.weight_decay if each.weight_decay is None else each.weight_decay
        groups += _by_decay(each.match, matched, each.lr_factor, decay, optim.decay_norms)
    return groups + _by_decay("", rest, 1.0, optim.weight_decay, optim.decay_norms)


def _by_decay(
    match: str, parameters: dict[str, nn.Parameter], lr_factor: float, weight_decay: float, decay_norms: bool
) -> list[ParameterGroup]:
    """One group, or two where vectors are not decayed; none for no parameters."""
    parts = [(parameters, weight_decay)]
    if not decay_norms:
        vectors = {name: each for name, each in parameters.items() if each.ndim < 2}
        others = {name: each for name, each in parameters.items() if each.ndim >= 2}
        parts = [(others, weight_decay), (vectors, 0.0)]
    return [
        ParameterGroup(match=match, parameters=part, lr_factor=lr_factor, weight_decay=decay)
        for part, decay in parts
        if part
    ]


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name.removeprefix(_NETWORK), pattern)


def _why_nothing(pattern: str, trained: Mapping[str, nn.Parameter], frozen: tuple[str, ...]) -> str:
    if any(_matches(name, pattern) for name in trained):
        return "matches only parameters of earlier groups, and the first match wins; put it before them"
    if any(_matches(name, pattern) for name in frozen):
        return "matches only frozen parameters, which have no learning rate; leave the group out"
    known: dict[str, None] = {}
    for name in trained:
        words = name.removeprefix(_NETWORK).split(".")
        known |= dict.fromkeys(f"{'.'.join(words[:count])}.*" for count in range(1, len(words)))
        known[".".join(words)] = None
    near = difflib.get_close_matches(pattern, known, n=3, cutoff=0.5)
    top = dict.fromkeys(name.removeprefix(_NETWORK).split(".")[0] for name in trained)
    hint = f"near are {', '.join(near)}" if near else f"trained are {', '.join(f'{name}.*' for name in top)}"
    return f"matches no parameter; {hint}"
