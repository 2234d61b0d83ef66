"""The scan of low-resolution logits against masks drawn at full size by torch: every count, box and run."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("segment_anything")

import torch
from segment_anything.utils.amg import (
    batched_mask_to_box,
    calculate_stability_score,
    mask_to_rle_pytorch,
    uncrop_masks,
)

from tests.parity.synthetic import KINDS, Painter
from trackmill.models.sam import ResizeChain, ResizeStage, device_scan, resize
from trackmill.models.sam.device_scan import measure_masks
from trackmill.models.sam.regions import intervals_counts
from trackmill.models.sam.scan import Place, Thresholds, scan, upscale_logits

CUTOFFS = Thresholds(mask=0.0, high=1.0, low=-1.0)


def sam_chain(height: int, width: int, image_size: int = 256) -> ResizeChain:
    """Twice, with padding between, as SAM does it."""
    scale = image_size / max(height, width)
    kept = (int(height * scale + 0.5), int(width * scale + 0.5))
    stages = (ResizeStage((image_size, image_size), kept), ResizeStage((height, width), (height, width)))
    return ResizeChain((image_size // 4, image_size // 4), stages)


def sam2_chain(height: int, width: int) -> ResizeChain:
    """Once, as SAM 2 does it."""
    return ResizeChain((64, 64), (ResizeStage((height, width), (height, width)),))


def _tables(chain: ResizeChain, channels: int) -> resize.ResizeTables:
    tables = resize.resize_tables(chain, channels)
    assert tables is not None
    return tables


def painted(seed: int, count: int = 12, side: int = 64, kinds: tuple[str, ...] = KINDS) -> np.ndarray:
    painter = Painter(seed, side, 4 * side, kinds)
    places = np.random.default_rng(seed).uniform(0, 4 * side, (count, 2))
    return np.concatenate([painter._paint(place.tolist(), True)[0] for place in places])


def check(logits: np.ndarray, chain: ResizeChain, channels: int, place: Place | None = None) -> None:
    height, width = chain.size
    place = place or Place(0, 0, height, width)
    found = scan(logits, chain, CUTOFFS, place, channels)
    full = upscale_logits(torch.from_numpy(logits), chain, channels)
    masks = full > 0
    stability = calculate_stability_score(full, 0.0, 1.0).numpy()
    np.testing.assert_array_equal(found.stability, stability)
    np.testing.assert_array_equal(found.boxes, batched_mask_to_box(masks).numpy())
    crop = [place.x, place.y, place.x + width, place.y + height]
    runs = mask_to_rle_pytorch(uncrop_masks(masks, crop, place.height, place.width))
    for intervals, expected in zip(found.intervals, runs, strict=True):
        assert intervals_counts(intervals, place.height * place.width).tolist() == expected["counts"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(96, 128), (301, 77), (512, 512), (2, 100), (100, 2), (1, 7), (20, 13)])
def test_scan_is_the_full_size_mask(size: tuple[int, int], channels: int) -> None:
    for seed in (0, 1):
        check(painted(seed), sam_chain(*size), channels)
        check(painted(seed), sam2_chain(*size), channels)


@pytest.mark.parametrize("size", [(40, 56), (7, 64)])
def test_masks_finer_than_the_models_input(size: tuple[int, int]) -> None:
    """First made smaller, then larger: no SAM does it, and drawing them is all that is left."""
    chain = sam_chain(*size)
    shrinking = ResizeChain((64, 64), (ResizeStage((16, 16), (16, 16)), chain.stages[-1]))
    assert resize.resize_tables(shrinking, 3) is None
    check(painted(6), shrinking, 3)


def test_a_crop_in_its_picture() -> None:
    logits = painted(2)
    check(logits, sam_chain(90, 60), 3, Place(15, 31, 150, 111))
    # Runs that reach the crop's lower edge join those of the next column only where the crop fills the picture.
    check(np.full((2, 64, 64), 3.0, np.float32), sam_chain(90, 60), 3, Place(0, 10, 100, 60))
    check(np.full((2, 64, 64), 3.0, np.float32), sam_chain(90, 60), 3, Place(0, 0, 90, 60))


def test_only_what_the_picture_reaches_is_needed() -> None:
    logits, chain = painted(3), sam_chain(60, 200)
    rows, columns = _tables(chain, 3).needed
    assert rows < 25 and columns == 64
    whole = scan(logits, chain, CUTOFFS, Place(0, 0, 60, 200))
    part = scan(np.ascontiguousarray(logits[:, :rows]), chain, CUTOFFS, Place(0, 0, 60, 200))
    assert all(np.array_equal(a, b) for a, b in zip(whole.intervals, part.intervals, strict=True))
    with pytest.raises(ValueError, match="the resize reads"):
        scan(np.ascontiguousarray(logits[:, : rows - 1]), chain, CUTOFFS, Place(0, 0, 60, 200))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="found out on x86-64 only")
@pytest.mark.parametrize("channels", [1, 3])
def test_the_arithmetic_of_this_torch_is_known(channels: int) -> None:
    """Otherwise masks with a pixel on a cutoff are drawn at full size: right, but no longer fast."""
    for size in ((683, 1024), (300, 200), (40, 60)):
        rules = [stage.rule for stage in _tables(sam_chain(*size, 1024), channels).stages]
        assert resize.UNKNOWN_RULE not in rules


def test_where_the_arithmetic_is_unknown_torch_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize, "_RULES", ())
    resize._stage.cache_clear()
    resize.resize_tables.cache_clear()
    try:
        assert _tables(sam_chain(96, 128), 3).stages[0].rule == resize.UNKNOWN_RULE
        check(painted(4), sam_chain(96, 128), 3)
    finally:
        monkeypatch.undo()
        resize._stage.cache_clear()
        resize.resize_tables.cache_clear()


def test_more_runs_than_expected() -> None:
    """Chess boards have half as many runs as pixels."""
    board = np.where(np.indices((64, 64)).sum(0) % 2, 5.0, -5.0).astype(np.float32)
    check(np.stack([board, -board, board]), sam2_chain(256, 256), 3)


def test_a_chain_of_three_is_refused() -> None:
    stage = ResizeStage((8, 8), (8, 8))
    with pytest.raises(ValueError, match="one or two stages"):
        resize.resize_tables(ResizeChain((4, 4), (stage,) * 3), 3)
    with pytest.raises(ValueError, match="cannot keep"):
        resize.resize_tables(ResizeChain((4, 4), (ResizeStage((8, 8), (9, 8)),)), 3)


def test_a_devices_own_scan_agrees() -> None:
    logits, chain = painted(5, count=30, kinds=("blobs", "specks", "noise")), sam_chain(150, 210)
    stability, boxes = measure_masks(torch.from_numpy(logits), chain, CUTOFFS)
    found = scan(logits, chain, CUTOFFS, Place(0, 0, 150, 210))
    # Another order of additions: pixels within rounding of a cutoff may fall on its other side.
    np.testing.assert_allclose(stability, found.stability, atol=2e-3, equal_nan=True)
    assert (boxes == found.boxes).all(1).mean() > 0.95
    assert measure_masks(torch.zeros(0, 64, 64), chain, CUTOFFS)[1].shape == (0, 4)


@pytest.mark.slow  # the interpreter takes seconds
def test_the_kernel_agrees_under_tritons_interpreter() -> None:
    """On a GPU it is compiled; here its lines are run one by one."""
    pytest.importorskip("triton")
    code = """
import numpy as np, torch
from trackmill.models.sam.scan import Place, scan
from trackmill.models.sam.triton_scan import measure_fused
from tests.sam.test_scan import CUTOFFS, painted, sam2_chain, sam_chain
for chain in (sam_chain(20, 140), sam2_chain(35, 20)):
    logits = painted(5, count=2, kinds=("blobs", "specks", "empty", "full"))
    found = scan(logits, chain, CUTOFFS, Place(0, 0, *chain.size))
    numbers = measure_fused(torch.from_numpy(logits), chain, (0.0, 1.0, -1.0)).numpy()
    assert abs(numbers[:, 0] - found.high).max() <= 2 and abs(numbers[:, 1] - found.low).max() <= 2
    empty = np.array([not len(each) for each in found.intervals])
    assert 0 < empty.sum() < len(empty)
    assert (numbers[~empty, 2:] == found.boxes[~empty]).all(1).mean() > 0.9
    assert (numbers[empty, 4:] == -1).all()
assert measure_fused(torch.zeros(0, 64, 64), chain, (0.0, 1.0, -1.0)).shape == (0, 6)
"""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_kernel_that_fails_or_miscounts_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("no compiler")

    for kernel, shown in ((broken, "no compiler"), (lambda *_: torch.zeros(8, 6, dtype=torch.int64), "instead of")):
        monkeypatch.setattr(device_scan, "_fused", kernel)
        device_scan._fused_works.cache_clear()
        with pytest.warns(RuntimeWarning, match=shown):
            assert not device_scan._fused_works("cpu")
    monkeypatch.setattr(device_scan, "_fused", device_scan._upscaled)
    device_scan._fused_works.cache_clear()
    assert device_scan._fused_works("cpu")
