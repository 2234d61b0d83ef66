"""Curves as a PNG: where lines are, and what runs that lie over each other look like."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trackmill.jobs import draw_curves
from trackmill.pipeline.training.telemetry.curves import write_picture
from trackmill.pipeline.training.telemetry.picture import _COLOURS, draw_png
from trackmill.pipeline.training.telemetry.plot import as_line


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def near(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """(rows, columns) of pixels of a colour."""
    return np.argwhere(np.abs(image - colour).sum(axis=2) < 30)


def test_a_line_that_falls_is_drawn_falling() -> None:
    png = draw_png({"loss": {"run": as_line([1, 2, 3], [3.0, 2.0, 1.0])}})
    image = pixels(png)
    found = near(image, _COLOURS[0])
    first, last = found[found[:, 1].argmin()], found[found[:, 1].argmax()]
    assert last[0] > first[0] + 60, "lower, and by much"
    assert png == draw_png({"loss": {"run": as_line([1, 2, 3], [3.0, 2.0, 1.0])}})


def test_each_run_has_its_colour_and_gaps_stay_open() -> None:
    lines = {"a": as_line([1, 2], [1.0, 1.0]), "b": as_line([1, 2, 3, 4], [2.0, 2.0, None, 2.0])}
    image = pixels(draw_png({"gap": lines}, marked=("gap",)))
    plot = image[60:]  # under the legend
    assert len(near(plot, _COLOURS[0]))
    columns = np.unique(near(plot, _COLOURS[1])[:, 1])
    assert np.diff(columns).max() > 60, "nothing is drawn where there is no value"


@pytest.mark.parametrize("values", [[], [None], [float("inf")], [5.0], [0.0, 0.0]])
def test_odd_lines_do_not_break_it(values: list[float | None]) -> None:
    assert pixels(draw_png({"x": {"run": as_line(list(range(len(values))), values)}})).shape[2] == 3


def test_runs_of_several_seeds_in_one_picture(tmp_path: Path) -> None:
    for seed in (0, 1):
        for name, row in (
            ("metrics", {"loss": 1.0, "layer_1": 0.5, "data_wait": 0.1}),
            ("evaluations", {"mAP@20": 80}),
        ):
            file = tmp_path / str(seed) / f"{name}.jsonl"
            file.parent.mkdir(exist_ok=True)
            lines = [{"step": step, **{key: value - 0.1 * step for key, value in row.items()}} for step in (1, 2)]
            file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    runs = {f"seed {seed}": str(tmp_path / str(seed)) for seed in (0, 1)}
    write_picture(runs, str(tmp_path / "curves.png"))
    words = [f"{name}={run}" for name, run in runs.items()]
    assert draw_curves.main([*words, "--output", str(tmp_path / "command.png")]) == 0
    assert (tmp_path / "command.png").read_bytes() == (tmp_path / "curves.png").read_bytes()
    page = str(tmp_path / "page.html")
    assert draw_curves.main([words[0], "--output", page]) == 0
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "metrics.jsonl").touch()
    assert draw_curves.main([words[0], str(empty), "--output", str(tmp_path / "other.png")]) == 2
    for wrong in ([*words, "--output", page], [words[0], words[0], "--output", page], [words[0], "--output", "x.svg"]):
        assert draw_curves.main(wrong) == 2
    image = pixels((tmp_path / "curves.png").read_bytes())
    assert image.shape[1] == 3 * 400
    assert len(near(image[60:], _COLOURS[1])), "the second seed lies over the first"
    assert not len(near(image[320:], _COLOURS[1])), "three plots, in one row"
