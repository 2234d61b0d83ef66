"""What the ranks of a run tell each other. Alone, a rank tells itself; nothing here needs a process group then."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from trackmill.schemas.errors import JobError

T = TypeVar("T")


_GONE = (
    "closed by peer",
    "reset by peer",
    "Broken pipe",
    "Connection refused",
    "network error or a remote process exiting",
)
"""What gloo and NCCL say when whom they talk to has ended."""


class OtherRankFailed(JobError):
    """Another rank could not do what all wait for, or has ended; the text says what is known."""


def this_rank() -> int:
    """Number of this rank, from 0."""
    return dist.get_rank() if _several() else 0


def num_ranks() -> int:
    """How many there are."""
    return dist.get_world_size() if _several() else 1


def on_first_rank(action: Callable[[], T]) -> T:
    """Let rank 0 act while the others wait, and tell all of them the result, which is small and plain.

    Raises:
        OtherRankFailed: on every other rank, where the action raised on rank 0: a rank that went on alone would hang in
            its next collective call, and the run with it.
    """
    if not _several():
        return action()
    shared: list[Any] = [None, None]  # the result, the error
    failure: Exception | None = None
    if this_rank() == 0:
        try:
            shared[0] = action()
        except Exception as error:
            failure = error
            shared[1] = f"{type(error).__name__}: {error}"
    dist.broadcast_object_list(shared, src=0)
    if failure is not None:
        raise failure
    if shared[1] is not None:
        raise OtherRankFailed(f"rank 0: {shared[1]}")
    result: T = shared[0]
    return result


@contextlib.contextmanager
def telling_who_is_gone() -> Iterator[None]:
    """Name the end of another rank as what it is: PyTorch raises a bare error of the connection in whoever is left.

    Raises:
        OtherRankFailed: in place of such an error.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if isinstance(error, JobError) or not any(sign in text for sign in _GONE):
            raise
        if not isinstance(error, dist.DistError) and "gloo" not in text:
            raise
        raise OtherRankFailed(
            "another rank has ended, or cannot be reached any more; why, its own output says. The same command goes on "
            f"from the last checkpoint ({text.splitlines()[0][:200]})"
        ) from error


def largest_of_ranks(number: float, device: torch.device) -> float:
    """The largest of the ranks' numbers; the same answer everywhere."""
    if not _several():
        return number
    numbers = torch.tensor(number, dtype=torch.float32, device=device)
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    return float(numbers.item())


def gather(values: Tensor) -> Tensor:
    """The tensors of all ranks, of one shape, stacked along a new first axis in the order of ranks."""
    if not _several():
        return values[None]
    parts = [torch.empty_like(values) for _ in range(num_ranks())]
    dist.all_gather(parts, values.contiguous())
    return torch.stack(parts)


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
