"""Settings in layers: what no setting can mean is refused in one line that names the key or the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from trackmill.pipeline.console.layers import layered
from trackmill.pipeline.mining.settings import MineConfig
from trackmill.schemas.config import MOST_LEVELS, ConfigError, build


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # What a parser that calls itself can follow, and what it cannot.
        ("graph.x=" + "[" * 100 + "]" * 100, "--set graph.x.*more than 32 lists or sections"),
        ("graph.x=" + "[" * 3000 + "]" * 3000, "--set graph.x.*more than 32 lists or sections"),
        ("graph.x=" + "{a=" * 3000 + "1" + "}" * 3000, "--set graph.x.*more than 32 lists or sections"),
        ("a." * 3000 + "b=1", "no setting lies in so many sections"),
        ("read.longest_side=" + "9" * 5000, "--set read.longest_side: holds a number of thousands of digits"),
        ("x" * 5000, "should be KEY=VALUE"),
    ],
)
def test_values_that_no_setting_needs(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        layered(None, [text], [])
    assert len(str(error.value)) < 400


def test_files_that_no_setting_needs(tmp_path: Path) -> None:
    for number, (text, said) in enumerate(
        [
            ("x = " + "[" * 5000 + "]" * 5000, "more than 32 lists or sections"),
            ("a" + ".a" * 5000 + " = 1", "more than 32 lists or sections"),
            ("x = " + "9" * 5000, "a number of thousands of digits"),
        ]
    ):
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        with pytest.raises(ConfigError, match=rf"{number}\.toml: .*{said}"):
            layered(str(path), [], [])


def test_a_file_of_windows_is_read(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_bytes(b"\xef\xbb\xbf[graph]\r\nmin_area = 0.5\r\n")
    assert layered(str(tmp_path / "run.toml"), [], []) == {"graph": {"min_area": 0.5}}


def test_what_settings_may_hold_is_read() -> None:
    deepest = "[" * (MOST_LEVELS - 1) + "1" + "]" * (MOST_LEVELS - 1)
    assert layered(None, [f"x={deepest}"], [])["x"][0][0][0]
    assert layered(None, ["a.b.c=[1, {d = 2}]"], []) == {"a": {"b": {"c": [1, {"d": 2}]}}}


def test_many_mistakes_are_named_up_to_a_number() -> None:
    with pytest.raises(ConfigError, match="and 492 more mistakes") as error:
        build(MineConfig, {f"unknown_{number}": 1 for number in range(500)}, "run.toml")
    assert "unknown_0" in str(error.value) and len(str(error.value)) < 4000
