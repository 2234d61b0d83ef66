"""Tensors into a network: all or none, every difference counted and named, no NaN."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from trackmill.models.weights.checkpoint import Checkpoint  # noqa: E402
from trackmill.models.weights.errors import BadWeights  # noqa: E402
from trackmill.models.weights.fit import SHOWN, fit  # noqa: E402


class Network(nn.Module):
    """One tensor of each kind that there are rules for."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)
        self.norm = nn.BatchNorm1d(3)
        self.attention = nn.Module()
        self.attention.register_buffer("relative_position_index", torch.arange(4))


class Wrapped(nn.Module):
    """Whose own names begin as a training tool's prefix does."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(2, 3)


def state() -> dict[str, Tensor]:
    """Other numbers than a fresh network's."""
    torch.manual_seed(1)
    return {
        name: each + torch.rand_like(each) if each.is_floating_point() else each
        for name, each in Network().state_dict().items()
    }


def test_all_tensors_arrive() -> None:
    network, given = Network(), state()
    fit(network, given, "it")
    assert all(torch.equal(each, given[name]) for name, each in network.state_dict().items())


def test_what_follows_from_the_architecture_may_be_absent() -> None:
    given = state()
    del given["attention.relative_position_index"], given["norm.num_batches_tracked"]
    fit(Network(), given, "it")
    with pytest.raises(BadWeights, match=r"1 missing: norm\.num_batches_tracked"):
        fit(Network(), given, "it", may_be_absent=(".relative_position_index",))
    given["attention.relative_position_index"] = torch.arange(4).flip(0)
    with pytest.raises(BadWeights, match="1 numbered in another order: attention"):
        fit(Network(), given, "it")


def test_all_differences_are_told_together_and_nothing_is_changed() -> None:
    network, given = Network(), state()
    before = {name: each.clone() for name, each in network.state_dict().items()}
    given["layer.weight"] = torch.zeros(3, 5)
    given["layer.bias"] = torch.zeros(3, dtype=torch.int64)
    del given["norm.weight"]
    given |= {f"extra.{i}": torch.zeros(1) for i in range(SHOWN + 3)}
    with pytest.raises(BadWeights) as raised:
        fit(network, Checkpoint(tensors=given, where="odd.pth"), "it", advice="take another")
    text = str(raised.value)
    for part in (
        "odd.pth: does not fit it: 1 missing: norm.weight; ",
        f"{SHOWN + 3} unexpected: extra.0, ",
        f"extra.{SHOWN - 1}, ...; ",
        "1 of another shape: layer.weight (3, 5) instead of (3, 2); ",
        "1 of another kind: layer.bias torch.int64 instead of torch.float32; take another",
    ):
        assert part in text
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())


def test_what_is_set_aside_is_not_loaded_nor_looked_at() -> None:
    given = state() | {"detector.head.weight": torch.full((2,), torch.nan)}
    fit(Network(), given, "it", set_aside=("detector.",))
    with pytest.raises(BadWeights, match=r"1 unexpected: detector\.head\.weight"):
        fit(Network(), given, "it")


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_is_refused_by_name(value: float, kind: torch.dtype) -> None:
    network, given = (
        Network(),
        {name: each.to(kind) if each.is_floating_point() else each for name, each in state().items()},
    )
    given["layer.weight"][1] = value
    given["norm.running_var"][0] = value
    with pytest.raises(BadWeights, match=r"2 with NaN or infinity: layer\.weight \(2 of 6 values\), norm\.running_var"):
        fit(network, given, "it")
    assert torch.isfinite(network.layer.weight).all()


def test_tensors_without_plain_numbers_are_refused_by_name() -> None:
    given = state()
    for values, what in ((given["layer.weight"].to("meta"), "meta"), (given["layer.weight"].to_sparse(), "sparse")):
        with pytest.raises(BadWeights, match=rf"1 without plain numbers: layer\.weight \({what}\)"):
            fit(Network(), given | {"layer.weight": values}, "it")


def test_infinities_that_cancel_are_seen() -> None:
    given = state()
    given["layer.weight"][0] = torch.tensor([torch.inf, -torch.inf])
    with pytest.raises(BadWeights, match=r"1 with NaN or infinity: layer\.weight \(2 of 6"):
        fit(Network(), given, "it")


def test_large_numbers_are_numbers() -> None:
    """Their sum is not finite, they are."""
    given = state()
    given["layer.weight"] = torch.full((3, 2), 3e38)
    fit(Network(), given, "it")


def test_a_networks_own_prefix_is_put_back() -> None:
    network = Wrapped()
    given = {"weight": torch.ones(3, 2), "bias": torch.ones(3)}  # as a reader leaves it
    fit(network, given, "it")
    assert network.model.weight.sum() == 6


def test_tensors_are_copied() -> None:
    network, given = Network(), state()
    fit(network, given, "it")
    given["layer.weight"].zero_()
    assert network.layer.weight.abs().sum() > 0
