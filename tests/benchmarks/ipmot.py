"""Frames a second of IP-MOT with the share of each part, and time and memory of a clip that is trained on.

Run it with `python -m tests.benchmarks.ipmot`, when nothing else runs; `--short` takes some minutes on a CPU. There, in
one thread, seconds are those of the process. Weights are fresh, which costs the same as trained ones; a score threshold
of 0 keeps as many tracks alive as are asked for. The time of a part is that of its modules, one after the other. Where
torch sees a GPU, the network also runs in bfloat16 and compiled. A clip is trained on in a process of its own for each
row, so that peaks are its own. Needs neither Ray nor DeepSpeed.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trackmill.models.ipmot.clip_pass import run_clip
from trackmill.models.ipmot.clip_records import ClipPassSettings, ClipTargets
from trackmill.models.ipmot.frames import fitted, network_input
from trackmill.models.ipmot.model import IpMot
from trackmill.models.ipmot.stream import Stream, StreamSettings
from trackmill.models.ipmot.variants import VARIANTS

PICTURE = (1080, 1920)
PEOPLE = 20
CHECKPOINTING = {
    "none": "all activations are kept",
    "blocks": "layers and blocks of the backbone forget theirs (engine)",
    "frames": "whole frames forget theirs (clip pass)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--variant", default="ip_mot", choices=VARIANTS)
    add("--short-side", type=int, help="in pixels; default: the variant's")
    add("--tracks", type=int, default=50, help="live ones in every frame")
    add("--frames", type=int, default=20, help="measured in each mode, after a warm-up")
    add("--clip", type=int, default=2, help="frames of a clip that is trained on")
    add("--clip-side", type=int, help="its shorter side; default: 800 on a GPU, 256 on a CPU")
    add("--steps", type=int, default=3, help="of training, after one that is not counted")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--threads", type=int, default=1, help="on a CPU")
    add("--skip", nargs="*", default=[], choices=["parts", "modes", "training"], help="what to leave out")
    add("--short", action="store_true", help="1 frame, 1 step")
    add("--train-one", choices=CHECKPOINTING, help=argparse.SUPPRESS)  # what a child process does
    options = parser.parse_args()
    if options.short:
        options.frames, options.steps = (1, 1) if options.device == "cpu" else (5, 1)
    logging.getLogger("trackmill").setLevel(logging.ERROR)  # that tracks are bounded is meant here
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    options.clip_side = options.clip_side or (800 if device.type == "cuda" else 256)
    if device.type == "cpu" and options.threads == 1:
        Clock.now = staticmethod(time.process_time)
    if options.train_one:
        print(json.dumps(trained(options, device)))
        return
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {options.threads} thread(s)"
    print(f"{options.variant}, {where}, torch {torch.__version__}")
    if "parts" not in options.skip:
        parts(options, device)
    if "modes" not in options.skip and device.type == "cuda":
        modes(options, device)
    if "training" not in options.skip:
        training(options, device)


class Clock:
    """Seconds: those of the wall, or, in one thread of a CPU, those of the process, whatever else the machine does."""

    now: Callable[[], float] = staticmethod(time.perf_counter)


def wait(device: torch.device) -> None:
    """Until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_model(options: argparse.Namespace, device: torch.device) -> IpMot:
    """Fresh weights, the same every time."""
    torch.manual_seed(0)
    return IpMot(VARIANTS[options.variant]).to(device).eval()


def make_stream(options: argparse.Namespace, model: IpMot, precision: str = "float32") -> Stream:
    """Every query is a track, until there are as many as asked for."""
    side = options.short_side
    long_side = None if side is None else max(side, round(side * model.variant.long_side / model.variant.short_side))
    settings = StreamSettings.of(
        model.variant,
        score_threshold=0.0,
        max_tracks=options.tracks,
        short_side=side,
        long_side=long_side,
        precision=precision,
    )
    return Stream(model, settings)


def pictures(count: int = 4) -> list[NDArray[np.uint8]]:
    """Random pixels cost what others do."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*PICTURE, 3), dtype=np.uint8) for _ in range(count)]


def seconds_a_frame(stream: Stream, frames: int, device: torch.device, stage: Any = None) -> float:
    """From a picture on the CPU to boxes on the CPU; the stream has seen frames before."""
    images = pictures()
    wait(device)
    start = Clock.now()
    for index in range(frames):
        stream.step(images[index % len(images)], *([stage] if stage else []))
    wait(device)
    return (Clock.now() - start) / frames


class Watch:
    """Seconds by part, of whatever runs between `enter` and `leave`."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds, self._started = device, defaultdict[str, float](float), dict[str, float]()

    def enter(self, part: str) -> None:
        wait(self.device)
        self._started[part] = Clock.now()

    def leave(self, part: str) -> None:
        wait(self.device)
        self.seconds[part] += Clock.now() - self._started[part]

    @contextmanager
    def stage(self, part: str) -> Iterator[None]:
        """As `Stream.step` counts its stages."""
        self.enter(part)
        yield
        self.leave(part)

    def on(self, module: nn.Module | None, part: str) -> list[Any]:
        """Hooks that count a module's calls to a part."""
        if module is None:
            return []
        return [
            module.register_forward_pre_hook(lambda *_: self.enter(part)),
            module.register_forward_hook(lambda *_: self.leave(part)),
        ]


def parts(options: argparse.Namespace, device: torch.device) -> None:
    """Frames a second while it streams, and milliseconds by part."""
    model = make_model(options, device)
    stream = make_stream(options, model)
    size = fitted(*PICTURE, stream.settings.short_side, stream.settings.long_side)
    seconds_a_frame(stream, 3 if device.type == "cuda" else 1, device)
    seconds = seconds_a_frame(stream, options.frames, device)
    print(
        f"\nStreaming pictures of {PICTURE[0]} x {PICTURE[1]} at {size[0]} x {size[1]}, {stream.num_live} live tracks, "
        f"float32: {1 / seconds:.3g} frames/s, {seconds:.3g} s a frame\n"
    )
    watch, detector = Watch(device), model.detector
    hooks = [
        *watch.on(detector.backbone[0], "backbone"),
        *watch.on(detector.transformer.encoder, "encoder"),
        *watch.on(model.deduplication, "DEM"),
    ]
    decode = detector.decode

    def timed_decode(*args: Any, **keywords: Any) -> Any:
        with watch.stage("decoder"):
            return decode(*args, **keywords)

    with mock.patch.object(detector, "decode", timed_decode):
        whole = seconds_a_frame(stream, options.frames, device, watch.stage) * options.frames
    for hook in hooks:
        hook.remove()
    found = watch.seconds
    rows = {name: found[name] for name in ("resize", "backbone", "encoder", "decoder", "DEM", "update")}
    rows["rest (projections, positions, scores, transfer)"] = whole - sum(rows.values())
    print("| part | ms a frame | share |\n| --- | ---: | ---: |")
    for name, each in rows.items():
        print(f"| {name} | {1000 * each / options.frames:,.1f} | {each / whole:.1%} |")


def modes(options: argparse.Namespace, device: torch.device) -> None:
    """Frames a second on a GPU: eager, bfloat16, compiled; and how far boxes are from those of float32."""
    reference: NDArray[np.float32] | None = None
    image = pictures(1)[0]
    print("\n| mode | frames/s | ms a frame | GiB | first frame: largest difference of a box, pixels |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, precision, compiled in (
        ("eager, float32", "float32", False),
        ("eager, bfloat16", "bfloat16", False),
        ("compiled, float32", "float32", True),
        ("compiled, bfloat16", "bfloat16", True),
    ):
        model = make_model(options, device)
        if compiled:
            # Frames have one size; the number of tracks changes from frame to frame.
            model.detector.encode = torch.compile(model.detector.encode, dynamic=False)  # type: ignore[method-assign]
            model.detector.decode = torch.compile(model.detector.decode, dynamic=True)  # type: ignore[method-assign]
        stream = make_stream(options, model, precision)
        torch.cuda.reset_peak_memory_stats()
        first = stream.step(image)
        boxes = first.boxes[np.argsort(first.indices)]
        reference = boxes if reference is None else reference
        off = np.abs(boxes - reference).max() if boxes.shape == reference.shape else float("nan")
        seconds_a_frame(stream, 5, device)
        seconds = seconds_a_frame(stream, options.frames, device)
        memory = torch.cuda.max_memory_allocated() / 2**30
        print(f"| {name} | {1 / seconds:.1f} | {1000 * seconds:.1f} | {memory:.2f} | {off:.2f} |", flush=True)
        del model, stream
        torch.cuda.empty_cache()


def training(options: argparse.Namespace, device: torch.device) -> None:
    """Time and peak memory of a clip, each way of forgetting activations in a process of its own."""
    kind = "mixed precision, memory of the GPU" if device.type == "cuda" else "float32, memory of the process"
    print(f"\nTraining: {options.clip} frames with {PEOPLE} people, shorter side {options.clip_side}, {kind}\n")
    print("| activations | s a clip | peak GiB |\n| --- | ---: | ---: |")
    for name, meaning in CHECKPOINTING.items():
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.ipmot", "--train-one", name, *_forwarded(options)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            print(f"| {meaning} | failed: {lines[-1]} | |", flush=True)
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"| {meaning} | {found['seconds']:.2f} | {found['gib']:.2f} |", flush=True)


def _forwarded(options: argparse.Namespace) -> list[str]:
    names = ("variant", "clip", "clip_side", "steps", "device", "threads")
    return [text for name in names for text in (f"--{name.replace('_', '-')}", str(getattr(options, name)))]


def trained(options: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """Forward, backward and a step of AdamW on one clip: seconds of a clip, and the peak."""
    model = make_model(options, device).train()
    if options.train_one == "blocks":
        from trackmill.pipeline.training.engines.activation_checkpointing import checkpoint_blocks

        checkpoint_blocks(model)
    settings = ClipPassSettings(activation_checkpointing=options.train_one == "frames")
    size = fitted(*PICTURE, options.clip_side, 2 * options.clip_side)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(options.clip, 3, *size, generator=generator).to(device)
    ready = network_input(images, model.detector.mean, model.detector.std)
    centres = torch.rand(PEOPLE, 2, generator=generator)
    boxes = torch.cat([centres, 0.05 + 0.1 * torch.rand(PEOPLE, 2, generator=generator)], dim=1).to(device)
    targets = ClipTargets(boxes=[boxes] * options.clip, ids=[torch.arange(PEOPLE)] * options.clip)
    optimiser = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-6)
    on_gpu = device.type == "cuda"

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            result = run_clip(model, ready, targets, settings)
        optimiser.zero_grad()
        (result.total(settings) / max(1, result.num_boxes)).backward()
        optimiser.step()

    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    step()
    wait(device)
    start = Clock.now()
    for _ in range(options.steps):
        step()
    wait(device)
    seconds = (Clock.now() - start) / options.steps
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else kilobytes / 2**20}


if __name__ == "__main__":
    main()
