"""The optimiser over what is trained: its groups, and its state by the names of parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trackmill.pipeline.training.engines.base import EngineState, OptimSettings
from trackmill.pipeline.training.engines.parameter_groups import split_parameters
from trackmill.schemas.errors import InputError

Optimizer = torch.optim.Optimizer


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters with `requires_grad` by their names, each once, in the module's order.

    Raises:
        ValueError: there are none, or one is not float32.
    """
    trained = {name: each for name, each in module.named_parameters() if each.requires_grad}
    if not trained:
        raise InputError("nothing to train: every parameter is frozen; check which parts the recipe freezes")
    for name, each in trained.items():
        if each.dtype != torch.float32:
            raise ValueError(f"{name} is {each.dtype}: weights are trained in float32, engine.precision says the rest")
    return trained


def make_optimizer(trained: Mapping[str, nn.Parameter], optim: OptimSettings) -> Optimizer:
    """SGD (no dampening, no Nesterov) or AdamW (eps 1e-8) over all trained parameters, see `split_parameters`."""
    groups = [
        {
            "params": list(each.parameters.values()),
            "lr_factor": each.lr_factor,  # of our own, see `set_rate`
            "weight_decay": each.weight_decay,
        }
        for each in split_parameters(trained, optim)
    ]
    if optim.name == "sgd":
        return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum)
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas)


def moment_kinds(optim: OptimSettings) -> tuple[str, ...]:
    """Names of the tensors that the optimiser keeps for each parameter."""
    if optim.name == "adamw":
        return ("exp_avg", "exp_avg_sq")
    return ("momentum_buffer",) if optim.momentum else ()


def fresh_state(parameter: Tensor, optim: OptimSettings, steps: int) -> dict[str, Tensor]:
    """State of one parameter after `steps` steps with its moments zero, to be filled in.

    SGD makes its buffer in the first step as a copy of the gradient, which a buffer of zeros becomes too.
    """
    state = {kind: torch.zeros_like(parameter, memory_format=torch.preserve_format) for kind in moment_kinds(optim)}
    if optim.name == "adamw":
        state["step"] = torch.tensor(float(steps))
    return state


def set_rate(optimizer: Optimizer, lr: float) -> None:
    """The rate of the next step, times the factor of each group."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def clip_gradients(trained: Mapping[str, nn.Parameter], limit: float, scale: float) -> float:
    """Divide gradients by the loss scale and clip their common norm; returns the norm before clipping."""
    for each in trained.values():
        if each.grad is None:
            each.grad = torch.zeros_like(each)
    gradients = [each.grad for each in trained.values() if each.grad is not None]
    if scale != 1:
        torch._foreach_mul_(gradients, 1 / scale)
    norm = torch.nn.utils.get_total_norm(gradients)
    if limit:
        torch.nn.utils.clip_grads_with_norm_(trained.values(), limit, norm)
    return float(norm)


def read_moments(optimizer: Optimizer, trained: Mapping[str, nn.Parameter], optim: OptimSettings) -> dict[str, Tensor]:
    """Moments of an optimiser that holds the parameters themselves, copied to the CPU."""
    moments = {}
    for name, each in trained.items():
        state = optimizer.state.get(each, {})
        for kind in moment_kinds(optim):
            moment = state.get(kind)
            zeros = torch.zeros(each.shape)
            moments[f"{name}/{kind}"] = zeros if moment is None else moment.detach().to("cpu", copy=True)
    return moments


def write_moments(
    optimizer: Optimizer, trained: Mapping[str, nn.Parameter], optim: OptimSettings, state: EngineState
) -> None:
    """Put the moments of a checked state into such an optimiser."""
    for name, each in trained.items():
        mine = fresh_state(each, optim, int(state.numbers["steps"]))
        for kind in moment_kinds(optim):
            mine[kind].copy_(state.moments[f"{name}/{kind}"])
        optimizer.state[each] = mine


def kept_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Tensors of the state dict that a checkpoint holds: all but frozen parameters; the tensors themselves."""
    tensors = module.state_dict(keep_vars=True)
    return {name: each for name, each in tensors.items() if each.requires_grad or not isinstance(each, nn.Parameter)}


def check_state(state: EngineState, shapes: Mapping[str, torch.Size], moments: Mapping[str, torch.Size]) -> None:
    """Find out before anything is changed that a state belongs to another module or optimiser.

    Args:
        state: from any engine.
        shapes: of every tensor of `kept_tensors`, whole.
        moments: likewise, by their names in `EngineState.moments`.

    Raises:
        ValueError: it does; names tensors.
    """
    for what, expected, given in (
        ("weights", shapes, state.parameters),
        ("moments", moments, state.moments),
    ):
        problems = [f"{name} is missing" for name in expected if name not in given]
        problems += [f"{name} is not known" for name in given if name not in expected]
        problems += [
            f"{name} has the shape {tuple(given[name].shape)}, not {tuple(shape)}"
            for name, shape in expected.items()
            if name in given and given[name].shape != shape
        ]
        if problems:
            shown = "; ".join(problems[:4]) + ("; ..." if len(problems) > 4 else "")
            raise InputError(f"the checkpoint's {what} are not those of this recipe: {len(problems)} tensors, {shown}")
    if not isinstance(state.numbers.get("steps"), int):
        raise InputError("the checkpoint does not say how many optimiser steps were taken (numbers.steps)")
