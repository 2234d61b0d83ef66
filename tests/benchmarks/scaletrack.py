"""Frames a second of ScaleTrack while it streams, where the time goes, and what training takes.

Run it with `python -m tests.benchmarks.scaletrack`, when nothing else runs; `--short` takes a minute on a CPU. There,
in one thread, seconds are those of the process. Weights are fresh, which costs the same as trained ones. The time of a
part is that of its modules, one after the other. Where torch sees a GPU, the network also runs in bfloat16, compiled,
and as a CUDA graph; each row says how near its embeddings are to those of float32. The paper states 42 frames a second
on an RTX 4090, at 504 x 504 pixels.
"""

from __future__ import annotations

import argparse
import copy
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import trackmill.models.scaletrack.model as scaletrack
from trackmill.models.scaletrack.model import ScaleTrack
from trackmill.models.scaletrack.variants import VARIANTS

PICTURE = (720, 1280)
WARM_UP = 3

Step = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]
"""(1, 3, S, S) and boxes (N, 4) of a frame, and what is remembered, to embeddings (N, D) and what is remembered."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--variant", default="scaletrack_s", choices=VARIANTS)
    add("--sides", type=int, nargs="*", default=[504, 518], help="of the network's square")
    add("--boxes", type=int, default=100, help="in each frame")
    add("--frames", type=int, default=20, help="measured in each mode, after a warm-up")
    add("--clip", type=int, default=10, help="frames of a clip that is trained on")
    add("--steps", type=int, default=3, help="of training, after one that is not counted")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--threads", type=int, default=1, help="on a CPU")
    add("--skip", nargs="*", default=[], choices=["parts", "modes", "training"], help="what to leave out")
    add("--short", action="store_true", help="3 frames, 1 step, clips of 2 frames")
    options = parser.parse_args()
    if options.short:
        options.frames, options.steps, options.clip = 3, 1, 2
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if device.type == "cpu" and options.threads == 1:
        Clock.now = staticmethod(time.process_time)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {options.threads} thread(s)"
    for side in options.sides:
        print(f"\n{options.variant} at {side} x {side}, {options.boxes} boxes, {where}, torch {torch.__version__}")
        torch.manual_seed(0)
        model = ScaleTrack(replace(VARIANTS[options.variant], side=side)).to(device).eval()
        if "parts" not in options.skip:
            parts(model, options.boxes, options.frames)
        if "modes" not in options.skip and device.type == "cuda":
            modes(model, options.boxes, options.frames)
        if "training" not in options.skip:
            training(model, options.boxes, options.clip, options.steps)


class Clock:
    """Seconds: those of the wall, or, in one thread of a CPU, those of the process, whatever else the machine does."""

    now: Callable[[], float] = staticmethod(time.perf_counter)


def wait(device: torch.device) -> None:
    """Until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def inputs(model: ScaleTrack, boxes: int, frames: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Frames (T, 3, H, W) and boxes (T, N, 4) within them, on the model's device."""
    generator = torch.Generator().manual_seed(0)
    ends = torch.tensor([size[1], size[0]], dtype=torch.float32)
    corners = torch.rand(frames, boxes, 2, 2, generator=generator) * ends
    located = torch.cat([corners.amin(2), corners.amax(2)], dim=2)
    return torch.rand(frames, 3, *size, generator=generator).to(model.device), located.to(model.device)


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

    def on(self, module: nn.Module | None, part: str) -> list[Any]:
        """Hooks that count a module's calls to a part."""
        if module is None:
            return []
        return [
            module.register_forward_pre_hook(lambda *_: self.enter(part)),
            module.register_forward_hook(lambda *_: self.leave(part)),
        ]


@contextmanager
def watched(model: ScaleTrack) -> Iterator[Watch]:
    """Counts the parts of a model while it runs. Waiting for each part costs a little time on a GPU."""
    watch = Watch(model.device)
    hooks = watch.on(model.backbone, "backbone")
    if model.encoder is not None:
        for module in (*model.encoder.projections, *model.encoder.norms):
            hooks += watch.on(module, "projection")
        for module in model.encoder.layers or ():
            hooks += watch.on(module, "encoder")
    for layer in model.decoder.layers if model.decoder is not None else ():
        hooks += watch.on(layer.spatial, "pooling")
        hooks += watch.on(layer.modulation, "modulation")
        hooks += watch.on(layer.cross_attention, "cross-attention")
        hooks += watch.on(layer.temporal, "temporal")
        if layer.temporal is not None:
            hooks += watch.on(layer.temporal.value, "temporal")
    for head in model.heads or ():
        hooks += watch.on(head, "head")
    hooks += watch.on(model.band_head, "head")
    original = scaletrack.pooled_regions

    def pooled_regions(*args: Any) -> Tensor:
        watch.enter("pooling")
        regions = original(*args)
        watch.leave("pooling")
        return regions

    with mock.patch.object(scaletrack, "pooled_regions", pooled_regions):
        yield watch
    for hook in hooks:
        hook.remove()


def parts(model: ScaleTrack, boxes: int, frames: int) -> None:
    """Frames a second from a picture of 720 x 1280 on the device to embeddings, and milliseconds by part."""
    pictures, located = inputs(model, boxes, 4, PICTURE)
    stream = model.stream()

    def run(count: int) -> float:
        wait(model.device)
        start = Clock.now()
        for index in range(count):
            stream.step(pictures[index % 4], located[index % 4])
        wait(model.device)
        return (Clock.now() - start) / count

    run(WARM_UP if model.device.type == "cuda" else 1)
    seconds = run(frames)
    print(f"  streaming, float32: {1 / seconds:.2f} frames/s, {1000 * seconds:.1f} ms a frame")
    with watched(model) as watch:
        whole = run(frames)
    by_part = {part: each / frames for part, each in watch.seconds.items()}
    by_part["rest (resizing, positions, ...)"] = whole - sum(by_part.values())
    for part, each in by_part.items():
        print(f"    {part:<34} {1000 * each:8.2f} ms  {each / whole:6.1%}")


def stepper(model: ScaleTrack, boxes: int) -> Step:
    """The network alone, on frames of its own size."""
    frame_of_box = torch.zeros(boxes, dtype=torch.int64, device=model.device)

    def step(frame: Tensor, located: Tensor, earlier: Tensor | None) -> tuple[Tensor, Tensor | None]:
        maps = model.backbone_maps(frame)
        layers, earlier = model.encode_maps(maps, located, frame_of_box, earlier=earlier)
        return layers[-1], earlier

    return step


@torch.no_grad()
def modes(model: ScaleTrack, boxes: int, frames: int) -> None:
    """Frames a second of the network alone: float32, bfloat16, compiled, and as a CUDA graph."""
    side = model.variant.side
    pictures, located = inputs(model, boxes, frames, (side, side))
    half = copy.deepcopy(model).bfloat16()
    eager, reduced = stepper(model, boxes), stepper(half, boxes)
    reference = played(eager, pictures, located)[0]
    rows: dict[str, Callable[[], Step]] = {
        "eager float32": lambda: eager,
        "eager bfloat16": lambda: reduced,
        "compiled bfloat16": lambda: torch.compile(reduced, dynamic=False),
        "CUDA graph, bfloat16": lambda: captured(reduced, pictures[0], located[0]),
        "compiled, CUDA graph, bfloat16": lambda: captured(
            torch.compile(reduced, dynamic=False), pictures[0], located[0]
        ),
    }
    for name, make in rows.items():
        step = make()
        played(step, pictures[:WARM_UP], located[:WARM_UP])
        torch.cuda.reset_peak_memory_stats()
        found, seconds = played(step, pictures, located)
        near = F.cosine_similarity(found.float(), reference.float(), dim=-1).min()
        memory = torch.cuda.max_memory_allocated() / 2**30
        print(
            f"  {name:<32} {frames / seconds:8.1f} frames/s  {1000 * seconds / frames:7.2f} ms  {memory:5.2f} GiB  "
            f"least cosine with float32 {near:.4f}"
        )


def played(step: Step, pictures: Tensor, located: Tensor) -> tuple[Tensor, float]:
    """Embeddings (T, N, D) of a video, and the seconds that it took."""
    wait(pictures.device)
    start = Clock.now()
    earlier: Tensor | None = None
    found = []
    for picture, each in zip(pictures, located):
        embeddings, earlier = step(picture[None], each, earlier)
        found.append(embeddings.clone())  # a graph writes the next ones to the same place
    wait(pictures.device)
    return torch.stack(found), Clock.now() - start


def captured(step: Step, picture: Tensor, located: Tensor) -> Step:
    """The step as a CUDA graph, which reads its inputs, and keeps what is remembered, in fixed places."""
    frame, boxes = picture[None].clone(), located.clone()
    kept = step(frame, boxes, None)[1]
    assert kept is not None
    earlier = kept.clone()
    # Work before the capture happens on another stream: libraries choose their kernels and take their memory then.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            step(frame, boxes, earlier)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        embeddings, following = step(frame, boxes, earlier)
        assert following is not None
        earlier.copy_(following)

    def replay(new: Tensor, where: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor | None]:
        frame.copy_(new)
        boxes.copy_(where)
        if before is None:  # the first frame of a video fills the buffer with itself
            first = step(frame, boxes, None)[1]
            assert first is not None
            earlier.copy_(first)
        graph.replay()
        return embeddings, earlier

    return replay


def training(model: ScaleTrack, boxes: int, clip: int, steps: int) -> None:
    """Clips a second and peak memory: forward, backward and a step of AdamW, one clip at a time."""
    side, device = model.variant.side, model.device
    frames, located = inputs(model, boxes, clip, (side, side))
    frame_of_box = torch.arange(clip, device=device).repeat_interleave(boxes)
    model.train()
    optimiser = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-6)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            layers = model.encode(frames[None], located.flatten(0, 1), frame_of_box)
        # In place of the loss, which takes no time worth counting: embeddings of neighbouring frames are compared.
        by_frame = layers.float().unflatten(1, (clip, boxes))
        loss = -torch.log_softmax(by_frame[:, 1:] @ by_frame[:, :-1].mT / 0.07, -1).diagonal(dim1=-2, dim2=-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    step()
    wait(device)
    start = Clock.now()
    for _ in range(steps):
        step()
    wait(device)
    seconds = (Clock.now() - start) / steps
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else kilobytes / 2**20
    kind = "mixed precision, of the GPU" if on_gpu else "float32, of the process"
    print(
        f"  training, {clip} frames of {boxes} boxes: {1 / seconds:.3f} clips/s, {seconds:.2f} s a clip, "
        f"peak {memory:.2f} GiB ({kind})"
    )
    model.eval()


if __name__ == "__main__":
    main()
