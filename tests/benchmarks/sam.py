"""Everything mode, segment-anything's and ours, stage by stage and end to end; and images a second on a GPU.

Run it with `python -m tests.benchmarks.sam`, when nothing else runs. On the CPU both sides take turns in one process
and one thread, and the least CPU time of each counts: ratios are what matters. Weights are made up, masks are painted:
a model of random weights does all its work, then realistic logits take the place of its own
(`tests.benchmarks.recorded`). Where torch sees a GPU, images a second follow, with the share of what the arithmetic
alone would allow.
"""

from __future__ import annotations

import argparse
import resource
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam
from segment_anything.utils.amg import build_point_grid
from skimage import data

import trackmill.models.sam
from tests.benchmarks.recorded import Recording, recorded, with_recording
from tests.parity.synthetic import assert_same, painting_sam
from trackmill.models.sam import FastMaskGenerator
from trackmill.models.sam.sam1 import Sam1Segmenter

SIZE = (683, 1024)
SETTINGS: dict[str, Any] = {"pred_iou_thresh": 0.88, "stability_score_thresh": 0.95, "min_mask_region_area": 100}
END_TO_END_AIM, POST_AIM, IMAGES_AIM = 4, 50, 40
FLOOR_MS = {"vit_b": (5.9, 3.4), "vit_h": (12.2, 9.7)}
"""Of one picture on an H100 in bfloat16, from counted operations: the reference's algebra, and with the decoder
folded."""

Timed = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--points-per-side", type=int, default=32, help="of the end-to-end part; 32 takes the reference 5 minutes")
    add("--post-points-per-side", type=int, default=16, help="of post-processing alone")
    add("--rounds", type=int, default=3, help="of each stage; end to end runs once")
    add("--variant", default="vit_b", choices=["vit_b", "vit_l", "vit_h"])
    add("--skip", nargs="*", default=[], choices=["stages", "post", "end", "overlap", "gpu"], help="parts to leave out")
    add("--weights", help="a checkpoint of the variant, for the overlap of masks; default: made-up weights, no gates")
    add("--images", nargs="*", help="pictures for it; default: photographs of scikit-image")
    options = parser.parse_args()
    torch.set_num_threads(1)
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    parts: dict[str, Callable[[], None]] = {
        "stages": lambda: stages(options.variant, image, options.rounds),
        "post": lambda: post_processing(image, options.post_points_per_side, options.rounds),
        "end": lambda: end_to_end(options.variant, image, options.points_per_side),
        "overlap": lambda: overlap(options.variant, options.weights, options.images),
        "gpu": lambda: on_gpu(image),
    }
    for name, part in parts.items():
        if name not in options.skip:
            part()


def make_sam(variant: str) -> Sam:
    """Weights of torch's own initialisation, with relative positions that are not zero."""
    torch.manual_seed(0)
    sam = trackmill.models.sam.load(variant, None)
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                parameter.normal_(0, 0.02)
    return sam


def interleaved(sides: dict[str, Callable[[], Any]], rounds: int) -> Timed:
    """Least CPU seconds of each side, which take turns."""
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(rounds):
        for name, run in sides.items():
            start = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - start)
    return best


def show(what: str, best: Timed, aim: float = 0) -> None:
    reference, *others = best
    print(f"{what:<44} {best[reference]:8.2f} s", end="")
    for name in others:
        print(f"   {name} {best[name]:8.3f} s  {best[reference] / best[name]:6.1f}x", end="")
    print(f"   (aim {aim}x)" if aim else "", flush=True)


@torch.inference_mode()
def stages(variant: str, image: np.ndarray, rounds: int) -> None:
    """Encoder and decoder alone."""
    print(f"{variant}, {SIZE[1]} x {SIZE[0]}, float32, one thread; CPU seconds of segment-anything, then ours")
    sam = make_sam(variant)
    segmenter = Sam1Segmenter(sam)
    batch = torch.randn(1, 3, 1024, 1024)
    best = interleaved(
        {"reference": lambda: sam.image_encoder(batch), "ours": lambda: segmenter._encoder(batch)}, rounds
    )
    show("image encoder", best)

    (features,) = segmenter.encode([image])
    points = build_point_grid(8) * np.array([[SIZE[1], SIZE[0]]])
    sparse, dense = sam.prompt_encoder(
        points=(torch.from_numpy(points)[:, None], torch.ones(len(points), 1)), boxes=None, masks=None
    )

    def reference() -> None:
        sam.mask_decoder(
            image_embeddings=features.embedding[None],
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )

    best_of = segmenter.decode(features, points=points).iou.amax(1)
    half = float(best_of.median())
    sides: dict[str, Callable[[], Any]] = {
        "reference": reference,
        "all prompts": lambda: segmenter.decode(features, points=points),
        "half of them": lambda: segmenter.decode(features, points=points, iou_above=half),
    }
    show("mask decoder, 64 points", interleaved(sides, rounds))


def post_processing(image: np.ndarray, points_per_side: int, rounds: int) -> None:
    """Everything after the decoder: logits in, records out."""
    recording = Recording(points_per_side, SIZE)
    sam = painting_sam(0, 1024, 256)
    sam.mask_decoder.forward = lambda sparse_prompt_embeddings, **unused: _taken(  # type: ignore[method-assign]
        recording, len(sparse_prompt_embeddings)
    )
    settings = {"points_per_side": points_per_side, **SETTINGS}
    reference = SamAutomaticMaskGenerator(sam, output_mode="coco_rle", **settings)
    fast = FastMaskGenerator(sam, **settings)

    def run(generate: Callable[[np.ndarray], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        recording.rewind()
        return generate(image)

    ours = run(fast.generate)
    assert_same(ours, run(reference.generate))
    recording.rewind()
    (found,) = fast.generate_masks([image])
    print(
        f"painted masks of {points_per_side**2} points: {recording.iou.numel()} candidates, "
        f"{recording.iou.numel() - found.low_iou} pass the predicted IoU, {len(found.boxes)} the stability, "
        f"{len(ours)} records; both sides' records are equal to the byte"
    )
    show(
        "post-processing",
        interleaved({"reference": lambda: run(reference.generate), "ours": lambda: run(fast.generate)}, rounds),
        POST_AIM,
    )


def _taken(recording: Recording, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    now = recording.take(count)
    return recording.logits[now], recording.iou[now]


def end_to_end(variant: str, image: np.ndarray, points_per_side: int) -> None:
    """A picture in, records out; each side once, its peak memory beside it."""
    sam, recording = make_sam(variant), Recording(points_per_side, SIZE)
    settings = {"points_per_side": points_per_side, **SETTINGS}
    fast = FastMaskGenerator(sam, **settings)
    reference = SamAutomaticMaskGenerator(with_recording(sam, recording), output_mode="coco_rle", **settings)
    print(f"end to end, {variant}, {points_per_side**2} points, real model, painted masks")
    with recorded(fast, recording), peak_memory("ours"):
        recording.rewind()
        start = time.process_time()
        records = fast.generate(image)
        ours = time.process_time() - start
    with peak_memory("segment-anything"):
        recording.rewind()
        start = time.process_time()
        theirs = reference.generate(image)
        slow = time.process_time() - start
    assert_same(records, theirs)
    show(f"end to end, {len(records)} equal records", {"reference": slow, "ours": ours}, END_TO_END_AIM)


@contextmanager
def peak_memory(who: str) -> Any:
    """Print how far the process grew meanwhile."""
    process, finished = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not finished.wait(0.02):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()
        whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"  {who}: {(peak - before) / 2**30:.2f} GiB above the {before / 2**30:.2f} GiB it began with", end="")
        print(f" (process so far at most {whole:.2f} GiB)", flush=True)


def overlap(variant: str, weights: str | None, paths: list[str] | None) -> None:
    """What share of the float32 masks bfloat16 keeps, matched at a mask IoU of 0.9."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sam = (trackmill.models.sam.load(variant, weights) if weights else make_sam(variant)).to(device)
    everything = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0, "points_per_side": 4}
    gates: dict[str, Any] = {} if weights else everything
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths or []] or [data.coffee()]
    plain = FastMaskGenerator(sam, **gates)
    expected = [plain.generate(picture) for picture in pictures]
    for compiled in (False, True) if device == "cuda" else (False,):
        other = FastMaskGenerator(sam, precision="bfloat16", compiled=compiled, **gates)
        kept = count = 0
        for picture, records in zip(pictures, expected):
            masks, others = ([each["segmentation"] for each in found] for found in (records, other.generate(picture)))
            count += len(masks)
            kept += int((coco_mask.iou(others, masks, [0] * len(masks)).max(0) >= 0.9).sum()) if others and masks else 0
        print(
            f"{variant} on {device}, {weights or 'made-up weights, no gates'}: "
            f"bfloat16{' compiled' if compiled else ''} keeps {kept} of {count} masks at IoU >= 0.9",
            flush=True,
        )


def on_gpu(image: np.ndarray, variants: tuple[str, ...] = ("vit_b", "vit_h"), device: str = "cuda") -> None:
    """Images a second of everything mode with 1024 points."""
    if device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: images a second, bfloat16 and compiled models are not measured")
        return
    recording = Recording(32, SIZE)
    if device == "cuda":
        print(f"{torch.cuda.get_device_name()}; aim: {IMAGES_AIM} images/s with vit_h")
    for variant in variants:
        sam = make_sam(variant).to(device)
        for precision, compiled in (("float32", False), ("bfloat16", False), ("bfloat16", True)):
            for count in (1, 4, 8):
                settings = {**SETTINGS, "precision": precision, "compiled": compiled, "images_per_batch": count}
                fast = FastMaskGenerator(sam, points_per_batch=256, **settings)
                rate, records = images_a_second(fast, recording.to(device), [image] * count)
                floors = FLOOR_MS[variant]
                print(
                    f"{variant} {precision} {'compiled' if compiled else 'eager':<8} {count} images: "
                    f"{rate:6.1f} images/s, {rate * floors[0] / 10:3.0f} % of the floor, "
                    f"{rate * floors[1] / 10:3.0f} % of the folded one, {records} records",
                    flush=True,
                )


def images_a_second(fast: FastMaskGenerator, recording: Recording, images: list[np.ndarray]) -> tuple[float, int]:
    """Rate over at least ten seconds after a warm-up, and the number of records of a picture."""
    with recorded(fast, recording):
        for _ in range(2):
            recording.rewind()
            records = fast.generate_batch(images)
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < 10:
            recording.rewind()
            records = fast.generate_batch(images * 4)
            done += 4 * len(images)
        return done / (time.perf_counter() - start), len(records[0])


if __name__ == "__main__":
    main()
