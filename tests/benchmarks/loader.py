"""What reading costs beside decoding: our loader, WebDataset, LitData and Mosaic Streaming against the JPEG decoder.

Run it with `python -m tests.benchmarks.loader`, when nothing else runs. Everybody reads the same samples (a JPEG and a
JSON record with 60 boxes) in this process, with the same JPEG and JSON decoders where they leave the choice, and gives
pixels and boxes. The ceiling decodes the same bytes from memory into one buffer. CPU time is what counts; ratios hold
on other machines, seconds do not.

LitData and Mosaic Streaming are compared where they can be imported. Their dependencies conflict with ours, so put them
aside: `uv pip install --target /tmp/peers --no-deps litdata lightning-utilities obstore mosaicml-streaming`, with what
else they miss, and set PYTHONPATH=/tmp/peers.
"""

from __future__ import annotations

import argparse
import io
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import simplejpeg
import webdataset
from PIL import Image

from tests.make_dataset import FINGERPRINT, STAMP, make_item, make_row
from trackmill.pipeline.loader.catalog import Catalog, read_catalog
from trackmill.pipeline.loader.contract import StoredSample
from trackmill.pipeline.loader.loader import ShardLoader, keep_memory
from trackmill.pipeline.loader.settings import DataSettings
from trackmill.pipeline.shards.encode import encode_sample
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import write_receipt
from trackmill.pipeline.shards.writer import ShardWriter
from trackmill.schemas.media import Annotations, Frame, Media, ProposalSet

BATCH, NUM_BOXES, PER_SHARD = 16, 60, 128
Record = tuple[np.ndarray, np.ndarray]


class FirstFrame:
    """Pixels and boxes, as every reader of this comparison gives them."""

    def __call__(self, sample: StoredSample, rng: np.random.Generator, another: Callable[[], StoredSample]) -> Record:
        return sample.image(0), sample.proposals(0)[0]


def make_samples(root: str, count: int, height: int, width: int) -> list[tuple[bytes, bytes]]:
    """A data set of noisy pictures with `NUM_BOXES` proposals each; (JPEG, JSON) of every sample."""
    layout, rng = Layout(root), np.random.default_rng(0)
    rows, members_of = [], []
    writer = ShardWriter(layout, 0, 1 << 30, PER_SHARD)
    with writer:
        for number in range(count):
            smooth = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8))
            image = np.asarray(smooth.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
            image = np.clip(image + rng.integers(-18, 19, image.shape), 0, 255).astype(np.uint8)
            out = io.BytesIO()
            Image.fromarray(image).save(out, "JPEG", quality=90)
            corners = rng.uniform(0, [width / 2, height / 2], (NUM_BOXES, 2))
            boxes = np.concatenate([corners, corners + rng.uniform(8, height / 2, (NUM_BOXES, 2))], 1)
            proposals = ProposalSet(
                boxes=boxes.astype(np.float32),
                scores=np.linspace(1, 0.5, NUM_BOXES, dtype=np.float32),
                masks=[None] * NUM_BOXES,
            )
            frames = [Frame(image=image, index=0, time_s=None, annotations=Annotations())]
            media = Media(
                kind="image",
                frames=frames,
                original_height=height,
                original_width=width,
                sha256=f"{number:064x}",
                num_bytes=len(out.getvalue()),
                annotated=False,
            )
            item = make_item("images", f"pic{number:05d}")
            members, _ = encode_sample(item, media, [proposals], [[]], STAMP, lambda _, data=out: data.getvalue())
            shard, offset, size = writer.write(members)
            place = {"shard": shard, "offset": offset, "size": size, "checksum": writer.checksum}
            rows.append(make_row(item, 0, number, **place, frames=1, proposals=NUM_BOXES))
            data = dict(members)
            members_of.append((data[f"{item.key}.jpg"], data[f"{item.key}.json"]))
    write_receipt(layout, 0, rows, writer.shards, FINGERPRINT)
    return members_of


def record_boxes(data: bytes) -> np.ndarray:
    """Boxes of a record, as we take them out of it."""
    return np.array(orjson.loads(data)["frames"][0]["proposals"]["boxes"], np.float32)


def ceiling(samples: list[tuple[bytes, bytes]], height: int, width: int) -> Iterator[Record]:
    """Nothing but decoding, into one buffer."""
    buffer = np.empty((height, width, 3), np.uint8)
    boxes = np.zeros((NUM_BOXES, 4), np.float32)
    for jpeg, _ in samples:
        yield simplejpeg.decode_jpeg(jpeg, "RGB", buffer=buffer), boxes


def ours(catalog: Catalog, count: int) -> Iterator[Record]:
    """Our loader in this process."""
    settings = DataSettings(workers=0, window=256)
    loader = ShardLoader(catalog, settings, batch_size=BATCH, make_example=FirstFrame(), collate=list)
    for _ in range(count // BATCH):
        yield from next(loader)
    loader.close()


def through_webdataset(urls: list[str]) -> Iterator[Record]:
    """WebDataset with a shuffle buffer, and the decoders that we use."""
    for sample in webdataset.WebDataset(urls, shardshuffle=len(urls), seed=0).shuffle(256):
        yield simplejpeg.decode_jpeg(sample["jpg"], "RGB"), record_boxes(sample["json"])


def through_litdata(folder: Path, samples: list[tuple[bytes, bytes]]) -> Callable[[], Iterator[Record]]:
    """LitData's own chunks of the same bytes."""
    from litdata import StreamingDataset
    from litdata.streaming.cache import Cache

    cache = Cache(str(folder), chunk_bytes=16 << 20)
    for number, (jpeg, record) in enumerate(samples):
        cache[number] = {"jpg": jpeg, "json": record}
    cache.done()
    cache.merge()

    dataset = StreamingDataset(str(folder), shuffle=True)

    def read() -> Iterator[Record]:
        for sample in dataset:
            yield simplejpeg.decode_jpeg(sample["jpg"], "RGB"), record_boxes(sample["json"])

    return read


def through_mosaic(folder: Path, samples: list[tuple[bytes, bytes]]) -> Callable[[], Iterator[Record]]:
    """Mosaic's own shards of the same bytes."""
    from streaming import MDSWriter, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    with MDSWriter(out=str(folder), columns={"jpg": "bytes", "json": "bytes"}, size_limit=16 << 20) as writer:
        for jpeg, record in samples:
            writer.write({"jpg": jpeg, "json": record})

    clean_stale_shared_memory()
    dataset = StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH, shuffle_block_size=256)

    def read() -> Iterator[Record]:
        for sample in dataset:
            yield simplejpeg.decode_jpeg(sample["jpg"], "RGB"), record_boxes(sample["json"])

    return read


def measure(read: Callable[[], Iterator[Record]], count: int) -> tuple[float, float]:
    """CPU and wall seconds per sample; one batch of pixels is held at a time."""
    held: list[Any] = []
    seen, cpu, wall = 0, time.process_time(), time.perf_counter()
    for image, boxes in read():
        held.append((image, boxes))
        if len(held) == BATCH:
            held.clear()
        seen += 1
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert seen >= count // BATCH * BATCH, f"{seen} of {count} samples came"
    return cpu / seen, wall / seen


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1008)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--height", type=int, default=384)
    parser.add_argument("--width", type=int, default=512)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root, height, width = str(folder / "ours"), options.height, options.width
        samples = make_samples(root, options.samples, height, width)
        catalog = read_catalog(root)
        mean = sum(len(jpeg) for jpeg, _ in samples) / len(samples) / 1000
        readers: dict[str, Callable[[], Iterator[Record]]] = {
            "JPEG decoder alone": lambda: ceiling(samples, height, width),
            "ours": lambda: ours(catalog, options.samples),
            "webdataset": lambda: through_webdataset(catalog.shard_urls),
        }
        print(f"{len(samples)} samples of {width} x {height}, JPEGs of {mean:.0f} kB, {NUM_BOXES} boxes each")
        for peer, prepare in (("litdata", through_litdata), ("mosaicml-streaming", through_mosaic)):
            try:
                readers[peer] = prepare(folder / peer, samples)
            except ImportError as error:
                print(f"  {peer} is not compared: {error}; see this file's first lines for what to install")
        for tuned in (False, True):
            if tuned:
                keep_memory()
            compare(readers, len(samples), options.repeats, tuned)


def compare(readers: dict[str, Callable[[], Iterator[Record]]], count: int, repeats: int, tuned: bool) -> None:
    """All readers in turn, `repeats` times; prints minima, and medians of the ratios to the ceiling of each turn."""
    found: dict[str, list[tuple[float, float]]] = {reader: [] for reader in readers}
    for _ in range(repeats):
        for reader, read in readers.items():
            found[reader].append(measure(read, count))
    ceilings = [cpu for cpu, _ in found["JPEG decoder alone"]]
    print("freed memory is kept, as in our workers" if tuned else "memory as the C library manages it by default")
    for reader, values in found.items():
        cpu, wall = min(cpu for cpu, _ in values), min(wall for _, wall in values)
        median = float(np.median([best / own for best, (own, _) in zip(ceilings, values)]))
        print(
            f"  {reader:<19} {1 / cpu:6.0f} samples/s of CPU time, {1 / wall:6.0f} of wall time; {cpu * 1000:.3f} ms "
            f"CPU; {min(ceilings) / cpu:.3f} of the ceiling by minima, {median:.3f} by medians"
        )


if __name__ == "__main__":
    main()
