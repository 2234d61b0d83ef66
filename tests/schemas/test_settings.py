"""Numbers that no setting can mean are refused, with the key's name."""

from __future__ import annotations

import pytest

from trackmill.pipeline.training.recipe import make_recipe
from trackmill.schemas.config import ConfigError, Settings, build


class _Section(Settings):
    rate: float = 0.5
    limit: float | None = None
    scale: tuple[float, float] = (0.5, 1.5)
    count: int = 1


class _Whole(Settings):
    section: _Section = _Section()


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 1e308, -1e308, 1e10])
@pytest.mark.parametrize("key", ["rate", "limit", "scale"])
def test_a_number_that_is_not_finite_or_without_bounds_is_refused_everywhere(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"settings: section\.{key}"):
        build(_Whole, {"section": {key: (0.5, value) if key == "scale" else value}}, "settings")


def test_whole_numbers_keep_their_own_limits() -> None:
    """Sizes in bytes are larger than any rate."""
    assert build(_Whole, {"section": {"count": 64 << 30, "rate": 1e9}}, "settings").section.count == 64 << 30


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"lr": float("inf")}, "optim.lr"),
        ({"lr": float("nan")}, "optim.lr"),
        ({"lr": -0.1}, "optim.lr"),
        ({"lr": 1e308}, "optim.lr"),
        ({"lr": 1e4}, "optim.lr"),
        ({"betas": (0.9, 1.0)}, "optim.betas.1"),
        ({"weight_decay": 1e6}, "optim.weight_decay"),
        ({"groups": ({"match": "a*", "lr_factor": float("inf")},)}, "optim.groups.0.lr_factor"),
    ],
)
def test_an_optimiser_that_could_only_overflow_is_refused_by_its_key(values: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        make_recipe({"optim": values}, "recipe")
