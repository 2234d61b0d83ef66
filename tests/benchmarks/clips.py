"""What clips cost beside decoding: clips/s against the JPEG decoder on the same frames.

Run it with `python -m tests.benchmarks.clips`, when nothing else runs. A data set of clips with masklets, chains and
pseudo-negatives is read through the loader in this process, as ScaleTrack's recipe reads it (10 frames, 518 x 518,
large-scale jitter). The ceiling decodes the frames that each of these clips used, whole, from memory. CPU time is what
counts; ratios hold on other machines, seconds do not. Frames that become smaller than half are decoded smaller.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from tests.make_dataset import FINGERPRINT, make_item, make_media, write_samples
from trackmill.pipeline.loader.catalog import Catalog, read_catalog
from trackmill.pipeline.loader.clips import ClipExample, ClipSettings, ClipSources
from trackmill.pipeline.loader.loader import ShardLoader, keep_memory
from trackmill.pipeline.loader.settings import DataSettings
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.manifest import write_manifest
from trackmill.pipeline.shards.reader import open_dataset, read_row
from trackmill.pipeline.shards.receipts import write_receipt
from trackmill.pipeline.sidecars.run import make_sidecar
from trackmill.pipeline.tasks.scaletrack.examples import MakeScaleTrackExample


def make_clips(root: str, clips: int, frames: int, height: int, width: int) -> None:
    """Clips with masklets and stored proposals, and sidecars of both."""
    layout = Layout(root)
    samples = [
        (make_item("videos", f"clip{n}", frames=frames), make_media(n, frames, height, width), n) for n in range(clips)
    ]
    rows, shards = write_samples(layout, 0, samples, max_bytes=1 << 30)
    write_receipt(layout, 0, rows, shards, FINGERPRINT)
    write_manifest(layout)
    make_sidecar(root, "chains")
    make_sidecar(root, "negatives", settings={"detector": "proposals"})


def read(catalog: Catalog, sources: ClipSources, settings: ClipSettings, count: int) -> tuple[float, list[ClipExample]]:
    """CPU seconds of `count` clips through the loader, and the clips."""
    make_example = MakeScaleTrackExample(clips=settings, sources=sources)
    data = DataSettings(workers=0, verify="samples")
    loader = ShardLoader(catalog, data, batch_size=1, make_example=make_example, collate=list)
    next(loader)
    begin, found = time.process_time(), []
    for _ in range(count):
        found += next(loader)
    spent = time.process_time() - begin
    loader.close()
    return spent, found


def decode(jpegs: dict[str, list[bytes]], examples: list[ClipExample]) -> float:
    """CPU seconds of decoding the frames of these clips whole."""
    begin = time.process_time()
    for example in examples:
        for frame in example.frames.tolist():
            simplejpeg.decode_jpeg(jpegs[example.key][frame], "RGB")
    return time.process_time() - begin


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=40, help="clips that are read for each figure")
    parser.add_argument("--height", type=int, default=576)
    parser.add_argument("--width", type=int, default=1024)
    arguments = parser.parse_args()
    keep_memory()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = str(Path(folder, "data"))
        make_clips(root, 4, 32, arguments.height, arguments.width)
        catalog, dataset = read_catalog(root), open_dataset(root)
        jpegs = {row.key: read_row(dataset, row).jpegs for row in dataset.stored}
        mean = np.mean([len(each) for group in jpegs.values() for each in group]) / 1e3
        print(f"clips of 32 frames of {arguments.width} x {arguments.height}, JPEGs of {mean:.0f} kB; 10 frames a clip")
        negatives = {"sidecar": "negatives"}
        for name, sources, settings in (
            ("masklets", ClipSources(), ClipSettings()),
            ("masklets, negatives", ClipSources(negatives=negatives), ClipSettings()),
            ("chains, negatives", ClipSources(masklets=False, chains="chains", negatives=negatives), ClipSettings()),
            ("scales of 0.5 and less", ClipSources(), ClipSettings(resize=(0.1, 0.5))),
            ("scales of 1 and more", ClipSources(), ClipSettings(resize=(1, 2))),
            ("colours too", ClipSources(), ClipSettings(hue=5, saturation=30, value=30, contrast=0.1)),
        ):
            spent, examples = read(catalog, sources, settings, arguments.clips)
            ceiling = decode(jpegs, examples)
            rate = len(examples) / spent
            print(f"{name:24} {rate:6.1f} clips/s of one core, {ceiling / spent:5.2f} of decoding the same frames")


if __name__ == "__main__":
    main()
