"""Tensors into a network, all or none: every one must be known, be there, have its shape, and hold numbers.

The one rule for every model of ours, and for those of others that the registry loads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from trackmill.models.weights.checkpoint import Checkpoint
from trackmill.models.weights.errors import BadWeights
from trackmill.models.weights.read import PREFIXES

COMPUTED = (".relative_position_index",)
"""Ends of names of buffers that follow from the architecture. If they are there, they must say what we compute."""

MAY_BE_ABSENT = (*COMPUTED, ".num_batches_tracked")
"""Ends of names that a checkpoint may leave out: the above, and counters that nothing reads."""

SHOWN = 8
"""So many names are shown of each kind of difference; all are counted."""


def fit(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    what: str,
    *,
    may_be_absent: tuple[str, ...] = MAY_BE_ABSENT,
    set_aside: tuple[str, ...] = (),
    advice: str = "",
) -> None:
    """Copy tensors into `network`; on an error it is as before.

    Args:
        network: on any device.
        tensors: by name, a `Checkpoint` or any mapping; of any floating kind, which becomes the network's.
        what: name of the network, for messages.
        may_be_absent: ends of names that may be missing; the network's own values stay.
        set_aside: beginnings of names that are known and not loaded, such as a detector around a backbone.
        advice: what to do about it, for messages.

    Raises:
        BadWeights: tensors are missing, unexpected, of another shape or kind, or hold NaN or infinity; counts all and
            names the first of each. A `ValueError`.
    """
    where = tensors.where if isinstance(tensors, Checkpoint) else "the weights"
    expected = network.state_dict()
    given = _renamed({name: each for name, each in tensors.items() if not name.startswith(set_aside)}, expected)
    problems = tensor_differences(given, expected, may_be_absent)
    if not any(problems):
        # The numbering of pairs is not loaded but computed; a table made for another one would fit and mean nothing.
        indices = [name for name in given if name.endswith(COMPUTED)]
        odd = [name for name in indices if not torch.equal(given[name].to(expected[name]), expected[name])]
        problems = [listing("numbered in another order", odd)]
    if any(problems):
        more = f"; {advice}" if advice else ""
        raise BadWeights(f"{where}: does not fit {what}: " + "; ".join(filter(None, problems)) + more)
    check_finite(given, where)
    network.load_state_dict({**expected, **given}, strict=True)


def tensor_differences(
    given: Mapping[str, Tensor], expected: Mapping[str, Tensor], may_be_absent: tuple[str, ...] = MAY_BE_ABSENT
) -> list[str]:
    """What keeps `given` from being loaded where `expected` is: one text for each kind of difference, "" for none."""
    both = [name for name in expected if name in given]
    return [
        listing("missing", (name for name in expected if name not in given and not name.endswith(may_be_absent))),
        listing("unexpected", (name for name in given if name not in expected)),
        listing(
            "of another shape",
            (
                f"{name} {tuple(given[name].shape)} instead of {tuple(expected[name].shape)}"
                for name in both
                if given[name].shape != expected[name].shape
            ),
        ),
        listing(
            "of another kind",
            (
                f"{name} {given[name].dtype} instead of {expected[name].dtype}"
                for name in both
                if given[name].is_floating_point() != expected[name].is_floating_point()
            ),
        ),
        listing(
            "without plain numbers",
            (
                f"{name} ({'meta' if given[name].is_meta else 'sparse'})"
                for name in both
                if given[name].layout != torch.strided or (given[name].is_meta and not expected[name].is_meta)
            ),
        ),
    ]


def check_shapes(given: Checkpoint, expected: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Refuse tensors that `fit` would refuse, before memory is taken for the network: a header may ask for any size.

    Args:
        given: what is to be loaded.
        expected: shape of each tensor of the network.
        what: name of the network, for messages.

    Raises:
        BadWeights: tensors are missing, unexpected or of another shape; counts all and names the first of each.
    """
    misshapen = [
        f"{name} {tuple(each.shape)} instead of {expected[name]}"
        for name, each in given.items()
        if name in expected and tuple(each.shape) != expected[name]
    ]
    missing = [name for name in expected if name not in given.tensors and not name.endswith(MAY_BE_ABSENT)]
    unexpected = [name for name in given if name not in expected]
    problems = [listing("missing", missing), listing("unexpected", unexpected), listing("of another shape", misshapen)]
    if any(problems):
        raise BadWeights(f"{given.where}: does not fit {what}: " + "; ".join(filter(None, problems)))


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse NaN and infinity, which would spread silently into every result.

    Raises:
        BadWeights: some tensors hold them; counts all, names the first and how many of their values.
    """
    odd = [f"{name} ({_num_odd(each):,} of {each.numel():,} values)" for name, each in tensors.items() if _is_odd(each)]
    if odd:
        raise BadWeights(
            f"{where}: {listing('with NaN or infinity', odd)}; the file is damaged or its training diverged: take "
            "another file, or an earlier checkpoint of that training"
        )


def listing(what: str, names: Iterable[str]) -> str:
    """`3 missing: a, b, c`, with at most `SHOWN` names; "" for no name."""
    every = list(names)
    shown = ", ".join(every[:SHOWN]) + (", ..." if len(every) > SHOWN else "")
    return f"{len(every)} {what}: {shown}" if every else ""


def _is_odd(values: Tensor) -> bool:
    if not (values.is_floating_point() or values.is_complex()):
        return False
    # A sum needs one pass and no memory, and is not finite if a value is not. It may also have overflowed.
    return not bool(values.sum().isfinite()) and bool(_num_odd(values))


def _num_odd(values: Tensor) -> int:
    return values.numel() - int(values.isfinite().sum())


def _renamed(given: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names with the prefix that the network itself has: it looked like a training tool's and was taken off."""
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in expected) and not any(name.startswith(prefix) for name in given):
            return {prefix + name: each for name, each in given.items()}
    return given
