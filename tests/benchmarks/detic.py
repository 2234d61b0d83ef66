"""Detic, batched against one image at a time; and on a GPU images a second, where the time goes, what precision costs.

Run it with `python -m tests.benchmarks.detic`, when nothing else runs; it needs neither Ray nor DeepSpeed. Weights are
drawn by the recipe of the reference numbers, so a run is as much work as one with official weights; only the number of
detections is not that of a trained network. On the CPU both sides take turns in one process, and the least time of each
counts: the ratio is what matters. Peak memory is measured in a fresh process for each side.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.detic import rebuild
from trackmill.models import detic
from trackmill.models.detic.cascade import clip
from trackmill.models.detic.centernet import proposals
from trackmill.models.detic.model import Detic
from trackmill.models.detic.preprocessing import make_batch, resized_size
from trackmill.models.detic.selection import Candidates, find_candidates, select
from trackmill.models.detic.settings import DetectionSettings
from trackmill.schemas.boxes import iou_matrix
from trackmill.schemas.detections import Detections

FOLDERS = {"r50": "detic_r50", "swinb": "detic_swinb"}
Stages = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--variant", default="r50", choices=list(FOLDERS), help="on the CPU; a GPU measures both")
    add("--images", type=int, default=4, help="on the CPU, in a batch and one at a time")
    add("--size", type=int, nargs=2, default=(480, 640), help="height and width on the CPU")
    add("--rounds", type=int, default=3)
    add("--classes", type=int, default=1203, help="in the made vocabulary")
    add("--threads", type=int, default=1)
    add("--skip", nargs="*", default=[], choices=["cpu", "memory", "gpu"], help="parts to leave out")
    add("--skip-compiled", action="store_true", help="on a GPU, leave the compiled network out: it takes minutes")
    add("--variants", nargs="*", default=list(FOLDERS), choices=list(FOLDERS), help="on a GPU")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if "cpu" not in options.skip:
        on_cpu(options)
    if "memory" not in options.skip:
        memory(options)
    if "gpu" not in options.skip:
        if torch.cuda.is_available():
            for variant in options.variants:
                on_gpu(variant, options)
        else:
            print("no GPU here: images a second, stages and precision are not measured")


def make(variant: str, classes: int, **options: Any) -> Detic:
    """The full network with drawn weights and a drawn vocabulary."""
    vectors = np.random.default_rng(0).standard_normal((classes, 512)).astype(np.float32)
    made = detic.load(rebuild.rebuild_state(FOLDERS[variant]), vectors, **options)
    rebuild.forget()
    return made


def pictures(count: int, height: int, width: int) -> list[Any]:
    """Different pictures of one size."""
    return [rebuild.noise_image(height, width, seed) for seed in range(count)]


def on_cpu(options: argparse.Namespace) -> None:
    """CPU seconds an image, in a batch and one at a time, in turns; and whether the detections are the same."""
    detector, images = make(options.variant, options.classes), pictures(options.images, *options.size)
    sides: dict[str, Callable[[], list[Detections]]] = {
        "one at a time": lambda: detector.detect(images, resize=None, batch_size=1),
        f"a batch of {len(images)}": lambda: detector.detect(images, resize=None, batch_size=len(images)),
    }
    best, found = dict.fromkeys(sides, float("inf")), {}
    for _ in range(options.rounds):
        for name, run in sides.items():
            start = time.process_time()
            found[name] = run()
            best[name] = min(best[name], (time.process_time() - start) / len(images))
    one, batch = best.values()
    height, width = options.size
    print(f"{options.variant}, {width} x {height}, float32, CPU, {options.threads} thread(s), seconds of CPU an image")
    shown = "".join(f"  {name}: {seconds:.2f}" for name, seconds in best.items())
    print(f"{shown}  ratio {one / batch:.2f}")
    with torch.inference_mode():
        for each in (images[:1], images):
            stages = time_stages(detector, each)
            total = sum(stages.values())
            parts = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in stages.items())
            print(f"  at 800/1333, {total / len(each):.1f} s an image in a batch of {len(each)}: {parts}")
    show_agreement("  batched", *found.values())


def memory(options: argparse.Namespace) -> None:
    """Peak memory of each side, beyond what the loaded network takes."""
    peaks = {}
    for size in (1, options.images):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peaks[size] = pool.apply(_peak, (options.variant, options.classes, options.images, options.size, size))
    shown = ", ".join(f"batch of {size}: {peak / 1e6:,.0f} MB" for size, peak in peaks.items())
    print(f"{options.variant}, peak memory beyond the loaded network: {shown}")


def _peak(variant: str, classes: int, count: int, size: tuple[int, int], batch_size: int) -> int:
    torch.set_num_threads(1)
    detector, images = make(variant, classes), pictures(count, *size)
    gc.collect()
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # Linux forgets the peak of loading
    detector.detect(images, resize=None, batch_size=batch_size)
    return _resident("VmHWM") - before


def _resident(kind: str) -> int:
    """Bytes in memory now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))


def on_gpu(variant: str, options: argparse.Namespace) -> None:
    """Images a second at batch 1, 8, 32 for each precision; where the time goes; what lower precision changes."""
    print(f"{variant} on {torch.cuda.get_device_name()}: images of 1280 x 720 at 800/1333, {options.classes} classes")
    images = pictures(32, 720, 1280)
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("float32", {}),
        ("bfloat16", {"dtype": "bfloat16"}),
        ("float16", {"dtype": "float16"}),
    ]
    if not options.skip_compiled:
        kinds.append(("bfloat16, compiled", {"dtype": "bfloat16", "compile": True}))
    reference: list[Detections] | None = None
    for name, more in kinds:
        detector = make(variant, options.classes, device="cuda", **more)
        rates = {size: rate(detector, images, size, options.rounds) for size in (1, 8, 32)}
        shown = "  ".join(f"batch {size}: {each:6.1f}" for size, each in rates.items())
        print(f"  {name:<20} images a second  {shown}   peak {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")
        if "compile" not in more:
            show_stages(detector, images[:8])
        found = detector.detect(images[:8], 0.1, batch_size=8)
        if reference is None:
            reference = found
        else:
            show_agreement(f"    {name} against float32", reference, found)
        del detector
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def rate(detector: Detic, images: Sequence[Any], batch_size: int, rounds: int) -> float:
    """Images a second with everything, from uint8 arrays to `Detections`; the best of some rounds."""
    some = list(images[: max(batch_size, 8)])
    detector.detect(some, batch_size=batch_size)
    best = float("inf")
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        detector.detect(some, batch_size=batch_size)
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return len(some) / best


@torch.inference_mode()
def show_stages(detector: Detic, images: Sequence[Any]) -> None:
    """Share of each stage in the time of a batch."""
    best: Stages = {}
    for _ in range(3):
        stages = time_stages(detector, images)
        best = {name: min(seconds, best.get(name, seconds)) for name, seconds in stages.items()}
    total = sum(best.values())
    shown = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in best.items())
    print(f"    {total * 1000 / len(images):.1f} ms an image in a batch of {len(images)}: {shown}")


def time_stages(detector: Detic, images: Sequence[Any]) -> Stages:
    """Seconds of each stage, one after the other with the device waited for."""
    network, device = detector.network, detector.device
    spent: Stages = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if device.type == "cuda":
            torch.cuda.synchronize()
        spent[name] = time.perf_counter() - start

    settings = DetectionSettings()
    sizes = [resized_size(image.shape[0], image.shape[1], (800, 1333)) for image in images]
    low = detector._dtype != torch.float32
    with torch.autocast(device.type, detector._dtype, enabled=low):
        with stage("resizing"):
            batch = make_batch(images, sizes, device)
        with stage("backbone"):
            maps = network.backbone_maps(batch)
        with stage("pyramid"):
            levels = network.backbone.levels(maps)
        with stage("heatmaps"):
            logits, distances = network.proposal_generator(levels)
        with stage("proposals"):
            proposed = proposals(logits, distances)
        with stage("cascade"):
            boxes, features = network.roi_heads(levels, [each for each, _ in proposed], sizes)
        with stage("classes"):
            scores = torch.cat([each for _, each in proposed])
            candidates = find_candidates(network.roi_heads.classifiers, features, scores, boxes, settings)
        with stage("selection"):
            first = 0
            for (own, _), size in zip(proposed, sizes, strict=True):
                mine = (candidates.rows >= first) & (candidates.rows < first + len(own))
                part = Candidates(*(each[mine] for each in candidates))
                select(part._replace(rows=part.rows - first), clip(boxes[first : first + len(own)], size), settings)
                first += len(own)
    return spent


def show_agreement(what: str, reference: Sequence[Detections], found: Sequence[Detections]) -> None:
    """How many detections have a partner of their class with an IoU of 0.9, and how far such pairs are apart."""
    total = matched = 0
    scores, pixels = [0.0], [0.0]
    for one, other in zip(reference, found, strict=True):
        total += len(one)
        if not len(one) or not len(other):
            continue
        overlaps = iou_matrix(one.boxes, other.boxes) * (one.labels[:, None] == other.labels)
        partners = overlaps.argmax(axis=1)
        near = overlaps.max(axis=1) >= 0.9
        matched += int(near.sum())
        scores += np.abs(one.scores - other.scores[partners])[near].tolist()
        pixels += np.abs(one.boxes - other.boxes[partners]).max(axis=1)[near].tolist()
    share = matched / total if total else 1.0
    print(
        f"{what}: {share:.2%} of {total} detections matched; pairs differ by {np.mean(scores):.1e} in score (at most "
        f"{max(scores):.1e}), {np.mean(pixels):.1e} px (at most {max(pixels):.1e})"
    )


if __name__ == "__main__":
    main()
