"""What a task is: everything that training asks of it. How it is trained is the business of `pipeline/training`.

A task is a class. A recipe names it, and the class says which sections the recipe then has:

    class Guess(Task):
        name = "guess"
        sections = {"model": GuessModel, "evaluation": GuessEvaluation}

        def __init__(self, model: GuessModel, evaluation: GuessEvaluation) -> None: ...

`tests/tasks/test_contract.py` holds what every task promises here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trackmill.pipeline.loader.catalog import Catalog
from trackmill.pipeline.loader.contract import MakeExample
from trackmill.schemas.config import Settings


class TrainingModule(nn.Module):
    """The network together with its losses, so that engines wrap one forward pass.

    What is frozen has `requires_grad` off and stays in evaluation mode, whatever is passed to `train`. What is trained
    is float32. A module may also learn by itself, in buffers (a table of identities with an optimiser of its own):
    buffers are in checkpoints too, those of rank 0. So every rank must give them the same values, as from examples
    gathered over ranks, and they keep their shapes.
    """

    network: nn.Module
    """What is exported; its parameters are named `network.*` here. What only training needs lies beside it."""

    def forward(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            batch: what the task's `collate` returned, moved to the module's device.
            generator: all randomness of this step; on the CPU or the module's device.

        Returns:
            Scalars: `total`, with gradients; its parts and whatever else belongs into the row of a step. The same names
            in every step and on every rank.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A measurement of the network while it is trained.

    Args:
        every: steps between two; there is one after the last step, too.
        measure: (network in evaluation mode, device that it is on) -> numbers by name. Runs on rank 0, without
            gradients, while the others wait. It must not change what is trained; it may draw random numbers.
        check: looks before the first step at what it will read, so that a wrong path does not wait for the first
            measurement. Raises what `measure` would.
    """

    every: int
    measure: Callable[[nn.Module, torch.device], Mapping[str, float]]
    check: Callable[[], None] = lambda: None


class Task(ABC):
    """One thing to learn.

    The class is called with its sections by name, as in `MyTask(model=..., loss=...)`, on the driver and on every rank.
    It checks there what can be checked without building anything, and raises `ConfigError` with the key in its text.
    """

    name: ClassVar[str]
    """What runs are known by. It stands in checkpoints, the module does not: a class may move to another module."""

    sections: ClassVar[Mapping[str, type[Settings]]]
    """Its sections of the recipe, by name."""

    no_effect: ClassVar[Sequence[str]] = ()
    """Its sections, or keys such as `model.cache`, that may change when a run goes on: they change no result."""

    added_later: ClassVar[Mapping[str, Any]] = {}
    """Keys that came after the first runs, each with the plain value that means what runs before it did. At this value
    a key is left out of what a checkpoint is compared by, so that older runs go on."""

    needed: ClassVar[Sequence[str]] = ()
    """Numbers of a step, of those that the module returns, without which nothing is learnt, such as the number of
    positive pairs: a run in which one stays 0 is an error, not a success."""

    without_zero_3: ClassVar[str] = ""
    """Why ZeRO stage 3 cannot train it, to be read by people; empty: it can."""

    def scheduled(self, steps: int, parts: int) -> None:  # noqa: B027  most tasks do not ask
        """How long training will be, for a module that follows a schedule of its own.

        Called on the driver and on every rank, before `build`. `max_steps` cuts a run short and changes neither number.

        Args:
            steps: of the optimiser, in the whole schedule.
            parts: forward passes in each of them, on each rank (`optim.accumulate`).
        """

    @abstractmethod
    def build(self, seed: int, read_weights: bool = True) -> TrainingModule:
        """The network with its losses and starting weights, on the CPU in training mode.

        Args:
            seed: the same seed gives the same weights. torch's own random state is as before afterwards.
            read_weights: whether files of weights are read. Without them the module has the same names, shapes and
                frozen parts, for counting (on torch's meta device, where possible) or to be filled from a checkpoint.

        Raises:
            ValueError: weights that do not fit; names the file and what is wrong with it.
            OSError: they cannot be read.
        """

    @abstractmethod
    def make_example(self) -> MakeExample:
        """What loader processes do with a stored sample; a small picklable object.

        Where examples change while training goes on, as clips that grow longer, it has `at_epoch(epoch)`, see
        `trackmill.pipeline.loader.contract.MakesByEpoch`.
        """

    def sidecars(self) -> Sequence[str] | Mapping[str, Sequence[str]]:
        """Names of the tables beside the shards that examples read (`StoredSample.sidecar`).

        They are checked before anything starts, and a run goes on only with the ones that it began with.

        Returns:
            Names, or for each name the columns that the table has to have.
        """
        return ()

    def needs_boxes(self) -> bool:
        """Whether samples that are stored without a box are left out, as by default; no, where a sidecar has boxes."""
        return True

    def usable(self, catalog: Catalog) -> Catalog:
        """The samples that this task can learn from, such as clips alone; all, unless a task says otherwise.

        Called before anything starts, and on every rank. What is left out is in no epoch and counts nowhere.

        Args:
            catalog: the whole data set.

        Raises:
            ConfigError: there are none; says what to do.
        """
        return catalog

    @abstractmethod
    def collate(self, examples: Sequence[Any]) -> Any:
        """A rank's part of a batch, out of its examples in order.

        Returns:
            Tensors in dataclasses, dicts, lists and tuples, beside other values that stay on the CPU.
        """

    def evaluation(self) -> Evaluation | None:
        """How the network is measured while it is trained; None if the recipe does not want it."""
        return None

    @abstractmethod
    def metadata(self) -> dict[str, str]:
        """What is written into the header of the exported safetensors file, so that the model's `load` knows it."""

    def exported(self, network: nn.Module) -> Mapping[str, Tensor]:
        """The tensors of the exported file, by name."""
        return network.state_dict()
