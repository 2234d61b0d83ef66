"""Hundreds of pictures, each of another size: memory does not grow."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import weakref
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import psutil
import pytest

pytest.importorskip("segment_anything")

from tests.parity.synthetic import painting_sam, picture
from tests.proposers.scenes import tiny_sam
from trackmill.models.sam import FastMaskGenerator


def test_a_long_list_keeps_records_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of one call: what was encoded and scanned of the first is gone when the last is decoded."""
    generator = FastMaskGenerator(painting_sam(0), points_per_side=3)
    segmenter, alive = generator.pipelined.segmenter, []
    decode, kept = segmenter.decode, []

    def watched(features: Any, **options: Any) -> Any:
        kept.append(weakref.ref(features.embedding))
        alive.append(sum(reference() is not None for reference in set(kept)))
        return decode(features, **options)

    monkeypatch.setattr(segmenter, "decode", watched)
    assert len(generator.generate_batch([picture(40, 50)] * 12)) == 12
    assert max(alive) <= 3, alive


def memory_of_three_hundred(model: str) -> tuple[int, list[float]]:
    """Number of records, and the process's memory in MiB after every ten pictures."""
    sam = painting_sam(0) if model == "painted" else tiny_sam(0)
    gates = {} if model == "painted" else {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    generator = FastMaskGenerator(sam, points_per_side=4, crop_n_layers=1, images_per_batch=3, **gates)
    sizes = np.random.default_rng(0).integers(40, 600, (300, 2)).tolist()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: 0)  # glibc's
    process, measured, found = psutil.Process(), [], 0
    for begin in range(0, len(sizes), 10):
        found += sum(map(len, generator.generate_batch([picture(*size) for size in sizes[begin : begin + 10]])))
        gc.collect()
        trim(0)  # what is freed goes back, so that only what is held is measured
        measured.append(process.memory_info().rss / 2**20)
    return found, measured


@pytest.mark.slow
@pytest.mark.parametrize("model", ["painted", "tiny"])
def test_three_hundred_pictures(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")  # or else each thread keeps memory of its own
    # In a process of its own: what earlier tests left in the allocator's arenas would be measured too.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        found, measured = fresh.submit(memory_of_three_hundred, model).result()
    assert found > 300
    # The first third fills the tables of sizes and the allocator's arenas.
    settled = measured[len(measured) // 3 :]
    slope = np.polyfit(np.arange(len(settled)) * 10, settled, 1)[0]
    print(f"{model}: {measured[0]:.0f} MiB after 10 pictures, {settled[0]:.0f} after 100, {measured[-1]:.0f} after 300")
    assert slope < 0.05, f"{1024 * slope:.0f} KiB more with each picture: {[round(each) for each in measured]}"
