"""Numbers that no setting can mean are refused, with the key's name."""

from __future__ import annotations

import pytest

from trackmill.pipeline.console.layers import assignment
from trackmill.pipeline.training.recipe import make_recipe
from trackmill.schemas.config import ConfigError, Settings, build, parse_toml


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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("value = " + "[" * 5000 + "]" * 5000, "more than 32 lists or sections"),
        (".".join(["a"] * 3000) + " = 1", "more than 32 lists or sections"),
        ("value = " + "{a = " * 2000 + "1" + "}" * 2000, "more than 32 lists or sections"),
        (f"[optim]\nlr = {2**63}", "optim.lr: a whole number of more than 64 bits"),
        (f"[[optim.groups]]\nlr = [1, -{2**70}]", "optim.groups.lr: a whole number of more than 64 bits"),
        ("a = 1 # " + "x" * (1 << 20), "characters, more than 1,048,576"),
    ],
)
def test_settings_without_end_are_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"^run\.toml: .*{said}") as caught:
        parse_toml(text, "run.toml")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x=" + "[" * 3000, "--set x: more than 32"),
        (f"x.y={2**64}", "--set x.y: value: a whole number of more than 64 bits"),
        ("x=" + "7" * 5000, "--set x: holds a number of thousands of digits"),
        ("x=" + "y" * (2 << 20), "--set x: .* characters, more than"),
    ],
)
def test_assignments_without_end_are_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        assignment(text)
    assert len(str(caught.value)) < 300


def test_one_value_where_a_list_should_be_is_shown_a_list() -> None:
    with pytest.raises(
        ConfigError, match=r"settings: section\.scale: should be a list in brackets, such as \[0\.5,1\.5\]$"
    ):
        build(_Whole, {"section": {"scale": 5}}, "settings")
    with pytest.raises(ConfigError, match=r"optim\.groups: should be a list in brackets$"):
        make_recipe({"optim": {"groups": 1}}, "recipe")
