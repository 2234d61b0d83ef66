"""The ZeRO engine: DeepSpeed 0.19 behind the same calls, stages 0 to 3, on CPUs (gloo) and GPUs.

DeepSpeed's own checkpoints and its bf16 and fp16 modes are not used: the former are pickled and belong to one number of
ranks, the latter keep the module's weights in half precision, which deformable convolution, batch norm and exact
exchange with the plain engine do not bear. Weights are float32 here and autocast lowers the precision, as there.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trackmill.pipeline.tasks.base import TrainingModule
from trackmill.pipeline.training.engines.activation_checkpointing import checkpoint_blocks
from trackmill.pipeline.training.engines.base import EngineSettings, EngineState, OptimSettings
from trackmill.pipeline.training.engines.ddp_module import EngineModule, sync_batch_norms, to_device
from trackmill.pipeline.training.engines.optimiser import (
    check_state,
    clip_gradients,
    fresh_state,
    kept_tensors,
    make_optimizer,
    moment_kinds,
    read_moments,
    set_rate,
    trained_parameters,
    write_moments,
)
from trackmill.pipeline.training.engines.precision import LossScale, prepare_numerics
from trackmill.pipeline.training.engines.statistics import RunningStatistics
from trackmill.schemas.errors import MissingPackage
from trackmill.schemas.install import install


class DeepSpeedEngine:
    """See `trackmill.pipeline.training.engines.base.Engine` and `make_engine`.

    ZeRO-3 collects parameters as modules run, so every rank must run the same modules in the same order in each step;
    the others cope with parts that one rank skips. Where the difference shows before something hangs, it is an error.
    """

    def __init__(
        self,
        module: TrainingModule,
        settings: EngineSettings,
        optim: OptimSettings,
        device: torch.device,
        rank: int,
        world: int,
    ) -> None:
        prepare_numerics(settings, device)
        deepspeed = _import_deepspeed(device)
        _join_group(device, world)
        if settings.sync_batch_norm and device.type == "cuda" and world > 1:
            sync_batch_norms(module)
        if settings.activation_checkpointing:
            checkpoint_blocks(module)
        self.module = module.to(device)
        self.device = device
        self._stage = settings.zero_stage
        self._optim = optim
        self._rank = rank
        self._world = world
        self._trained = trained_parameters(module)
        self._shapes = {name: each.shape for name, each in self._trained.items()}
        self._scale = LossScale(settings)
        self._statistics = RunningStatistics(module)
        self.kept_statistics = 0
        self._steps = 0
        self._parts = 0
        self._optimizer = make_optimizer(self._trained, optim)
        with _quiet():
            self._parallel, _, _, _ = deepspeed.initialize(
                model=EngineModule(module, settings, device, "none" if self._stage == 3 else "before forward"),
                optimizer=self._optimizer,
                config=_config(self._stage, optim, sum(each.numel() for each in self._trained.values())),
                dist_init_required=False,
            )

    def forward(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Engine.forward`."""
        if not self._parts:
            self._statistics.keep()
        losses: dict[str, Tensor] = self._parallel(to_device(batch, self.device), generator)
        return losses

    def backward(self, loss: Tensor, last: bool) -> None:
        """See `Engine.backward`."""
        if self._stage == 3:
            self._check_parts(loss)
            if not self._parts:
                # It writes over the gradients of the step before, but not where a parameter has none in this one.
                self._parallel.optimizer.grad_partitions_flat_buffer.zero_()
        self._parts += 1
        assert last == (self._parts == self._optim.accumulate), f"part {self._parts} of {self._optim.accumulate}"
        self._parallel.set_gradient_accumulation_boundary(last)
        if self._stage == 0:
            loss = loss * self._scale.value
        elif self._scale.dynamic:
            self._parallel.optimizer.override_loss_scale(self._scale.value)  # scales, and divides again in the step
        self._parallel.backward(loss)

    def step(self, lr: float) -> float:
        """See `Engine.step`."""
        assert self._parts == self._optim.accumulate, f"a step after {self._parts} of {self._optim.accumulate} parts"
        self._parts = 0
        sound = self._statistics.finite()
        norm = self._take_step(lr)
        taken = math.isfinite(norm)
        self.kept_statistics += taken and not sound
        if not (taken and sound):
            self._statistics.restore()
        return norm

    def _take_step(self, lr: float) -> float:
        set_rate(self._parallel.optimizer, lr)
        if self._stage == 0:
            # Gradients were averaged in the backward pass; DeepSpeed would clip too, but keeps the norm to itself.
            norm = clip_gradients(self._trained, self._optim.clip_norm, self._scale.value)
            if not self._scale.update(norm):
                self._parallel.zero_grad()
                return norm
            self._parallel.step()
        else:
            self._parallel.step()  # leaves out a step whose norm is not finite, and calls it inf then
            norm = float(self._parallel.get_global_grad_norm())
            if not self._scale.update(norm):
                return norm
        self._steps += 1
        return norm

    @property
    def loss_scale(self) -> float:
        """See `Engine`."""
        return self._scale.value

    def state(self) -> EngineState | None:
        """See `Engine.state`."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        kinds = moment_kinds(self._optim)
        buffers = {name: each for name, each in self._kept().items() if name not in self._shapes}
        if self._stage == 0:
            tensors = {name: each.detach() for name, each in self._trained.items()}
            moments = read_moments(self._optimizer, self._trained, self._optim) if self._rank == 0 else {}
        else:
            self._link_states()
            tensors, moments = {}, {}
            for name, each in self._trained.items():
                # One after the other and to the CPU at once: no rank ever holds two whole ones.
                tensors[name] = self._whole(safe_get_full_fp32_param(each))
                for kind in kinds:
                    begun = self._steps > 0
                    zeros = torch.zeros(self._shapes[name])
                    moments[f"{name}/{kind}"] = (
                        self._whole(safe_get_full_optimizer_state(each, kind)) if begun else zeros
                    )
        if self._rank:
            return None
        whole = {**buffers, **tensors}
        parameters = {name: whole[name] for name in self._kept() if name in whole}
        return EngineState(
            parameters={name: each.detach().to("cpu", copy=True) for name, each in parameters.items()},
            moments=moments,
            numbers={"steps": self._steps, **self._scale.numbers()},
        )

    @torch.no_grad()
    def load(self, state: EngineState) -> None:
        """See `Engine.load`."""
        kinds = moment_kinds(self._optim)
        kept = self._kept()
        shapes = {name: self._shapes.get(name, each.shape) for name, each in kept.items()}
        check_state(state, shapes, {f"{name}/{kind}": self._shapes[name] for name in self._shapes for kind in kinds})
        steps = state.numbers["steps"]
        for name, each in kept.items():
            if name not in self._shapes:
                each.copy_(state.parameters[name])
        if self._stage == 0:
            for name, parameter in self._trained.items():
                parameter.copy_(state.parameters[name])
            write_moments(self._optimizer, self._trained, self._optim, state)
        else:
            zero = self._parallel.optimizer
            flat = zero.fp32_partitioned_groups_flat if self._stage == 3 else zero.single_partition_of_fp32_groups
            for each in flat:
                zero.optimizer.state[each] = fresh_state(each, self._optim, steps)
            self._link_states()
            for name in self._trained:
                tensors = {kind: state.moments[f"{name}/{kind}"] for kind in kinds}
                self._spread(name, state.parameters[name].to(self.device), tensors)
            if self._stage < 3:
                zero.update_lp_params()
        self._steps = steps
        self._scale.load(state.numbers)

    def close(self) -> None:
        """See `Engine.close`. The process group stays."""
        self._parallel.destroy()
        self._optimizer.state.clear()

    def _check_parts(self, loss: Tensor) -> None:
        """Ranks must send the same gradients in the same order, or they add up what does not belong together."""
        if self._world == 1:
            return
        code = zlib.crc32(",".join(_uses(loss, self._trained)).encode())
        extremes = torch.tensor([code, -code], device=self.device)
        dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
        highest, lowest = int(extremes[0]), -int(extremes[1])
        if highest != lowest:
            raise RuntimeError(
                "ZeRO-3 needs the same parts of the network at work on every rank, and a part had nothing to do on one "
                "of them in this batch: set engine.zero_stage = 2"
            )

    def _kept(self) -> dict[str, Tensor]:
        """As `kept_tensors`; of a parameter that ZeRO-3 has spread, an empty placeholder."""
        return kept_tensors(self.module)

    def _whole(self, tensor: Tensor) -> Tensor:
        return tensor.to("cpu", copy=True) if self._rank == 0 else torch.empty(0)

    def _link_states(self) -> None:
        # DeepSpeed 0.19.8 links moments to parameters in the first step of the first group, once: with two groups the
        # second has none then (`exp_avg not found in optimizer state fragment`). Linking anew mends it.
        zero = self._parallel.optimizer
        if self._stage < 3 and zero.optimizer.state:
            zero._hp_optimizer_states_linked = False
            zero._lazy_init_hp_params_optimizer_state()

    def _spread(self, name: str, value: Tensor, moments: dict[str, Tensor]) -> None:
        """Give each rank its part of a whole parameter and its moments."""
        import deepspeed
        from deepspeed.utils import (
            safe_set_full_fp32_param,
            safe_set_full_optimizer_state,
            safe_set_local_fp32_param,
            safe_set_local_optimizer_state,
        )

        parameter = self._trained[name]
        if self._stage < 3:
            safe_set_full_fp32_param(parameter, value)
            for kind, moment in moments.items():
                safe_set_full_optimizer_state(parameter, moment.to(self.device), kind)
            return
        # The setters of whole tensors fail where the size is no multiple of the number of ranks.
        safe_set_local_fp32_param(parameter, self._own_part(parameter, value))
        for kind, moment in moments.items():
            safe_set_local_optimizer_state(parameter, self._own_part(parameter, moment.to(self.device)), kind)
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if self._rank == 0:
                parameter.copy_(value)

    def _own_part(self, parameter: nn.Parameter, value: Tensor) -> Tensor:
        size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
        padded = value.new_zeros(size * dist.get_world_size())
        padded[: value.numel()] = value.flatten()
        return padded[self._rank * size : (self._rank + 1) * size]


def _uses(loss: Tensor, trained: Mapping[str, nn.Parameter]) -> list[str]:
    """Names of the parameters that a loss depends on, each as often as it is used, in the order of the graph."""
    names = {id(each): name for name, each in trained.items()}
    uses, seen, waiting = [], {loss.grad_fn}, [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        for below, _ in node.next_functions if node is not None else ():
            if below is None:
                continue
            if hasattr(below, "variable"):
                uses.append(names.get(id(below.variable), "?"))
            elif below not in seen:
                seen.add(below)
                waiting.append(below)
    return uses


def _config(stage: int, optim: OptimSettings, trained: int) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": 1,  # only counted, never used: batches come from outside
        "gradient_accumulation_steps": optim.accumulate,
        "gradient_clipping": optim.clip_norm if stage else 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": stage,
            # Its default is 2 GB of float32 on every rank, whatever the size of the model.
            "reduce_bucket_size": min(500_000_000, trained),
            # Sent as they come in the backward pass, gradients would overwrite a buffer that is still on its way.
            "overlap_comm": False,
        },
        "steps_per_print": 1 << 60,
        "wall_clock_breakdown": False,
    }


def _import_deepspeed(device: torch.device) -> Any:
    """The package, with the environment that it would otherwise guess from.

    Raises:
        ImportError: it is missing; says what to type.
    """
    if device.type == "cpu":
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # warns that there is no GPU
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        # Its reduction in shared memory needs to know that all ranks are on one host; Ray sets the other name only.
        if "LOCAL_WORLD_SIZE" in os.environ:
            os.environ.setdefault("LOCAL_SIZE", os.environ["LOCAL_WORLD_SIZE"])
        os.environ.setdefault("LOCAL_RANK", "0")
    else:
        os.environ["LOCAL_RANK"] = str(device.index or 0)  # which GPU it takes
    try:
        import deepspeed
    except ImportError as error:
        raise MissingPackage(
            f'engine.name = "deepspeed" needs an extra: {install("deepspeed")}; or set it to "torch"'
        ) from error
    return deepspeed


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the news that an operator was built and that torch's optimisers are "untested"; errors are shown."""
    logger = logging.getLogger("DeepSpeed")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _join_group(device: torch.device, world: int) -> None:
    """Make sure that there is a process group: alone, one of a single rank in memory, without a port.

    It stays to the end, since DeepSpeed remembers its groups.
    """
    if dist.is_initialized():
        return
    if world > 1:
        raise ValueError(f"{world} ranks need a process group before the engine is made")
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
