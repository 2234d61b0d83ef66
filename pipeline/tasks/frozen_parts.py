"""Parts of a network that a recipe leaves as they are: `model.freeze`, names of the state dict and all below them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from trackmill.schemas.config import ConfigError
from trackmill.schemas.names import nearest


def freeze_parts(network: nn.Module, parts: Sequence[str]) -> None:
    """Take the gradients of parts; their modules go into evaluation mode by `frozen_to_eval`."""
    for name, parameter in network.named_parameters():
        if is_in(name, parts):
            parameter.requires_grad_(False)


def frozen_to_eval(network: nn.Module, parts: Sequence[str]) -> None:
    """Put the modules of frozen parts into evaluation mode, after `train` put all into training mode."""
    for name, module in network.named_modules():
        if name in parts:
            module.eval()


def check_frozen(network: nn.Module, parts: Sequence[str], variant: str) -> None:
    """See that every part is one, and that something is left to train.

    Args:
        network: its names alone are looked at.
        parts: `model.freeze`.
        variant: the network's name, for messages.

    Raises:
        ConfigError: the network has no such part; names the nearest.
    """
    names = [name for name, _ in network.named_parameters()]
    modules = [name for name, _ in network.named_modules() if name]
    for part in parts:
        if not any(is_in(name, [part]) for name in names):
            known = ", ".join(each for each in modules if "." not in each)
            advice = nearest(part, modules) or f"known: {known}"
            raise ConfigError(f"model.freeze: {variant} has no part {part!r}; {advice}")
    if all(is_in(name, parts) for name in names):
        raise ConfigError(f"model.freeze: nothing of {variant} is left to train")


def is_in(name: str, parts: Sequence[str]) -> bool:
    """Whether a parameter is one of the parts, or in one."""
    return any(name == part or name.startswith(f"{part}.") for part in parts)
