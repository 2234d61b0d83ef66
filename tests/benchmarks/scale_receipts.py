"""How summing up grows with a data set: `python -m tests.benchmarks.scale_receipts [--most 11000000]`.

Receipts of 512 items each are made up, as real Parquet files in a scratch folder: some 600 MB for 11 million items, and
as much again for the manifest. Each row is a process of its own, so that its peak memory is its own: the sums with
which a resumed run begins, the compaction to a manifest, the table that `trackmill inspect` prints, the catalog from
receipts, and the catalog from the manifest alone. Requests are counted in a store that is asked for the smallest data
set. `tests.benchmarks.scale` prints the same rows.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import known_implementations

from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import ROW_SCHEMA, to_parquet
from trackmill.schemas.keys import receipt_name

SIZES = (100_000, 1_000_000, 11_000_000)
STEPS = ("begin", "compaction", "inspect", "catalog", "manifest")
UNIT = 512
_STEP = 300_000
"""Bytes from one sample to the next."""

requests: Counter[str] = Counter()


class Counted(LocalFileSystem):  # type: ignore[misc]
    """Files of this machine behind the protocol `counted`, which is none: every request is counted."""

    protocol = "counted"
    cachable = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(path).removeprefix("counted://")

    def info(self, path: str, **options: Any) -> Any:
        """One HEAD."""
        requests["HEAD"] += 1
        return super().info(path, **options)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        """One GET."""
        requests["GET"] += 1
        data = Path(path).read_bytes()
        return data[start:end]

    def put_file(self, lpath: str, rpath: str, *args: Any, **options: Any) -> None:
        """One PUT."""
        requests["PUT"] += 1
        Path(rpath).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(lpath, rpath)

    def pipe_file(self, path: str, value: bytes, *args: Any, **options: Any) -> None:
        """One PUT."""
        requests["PUT"] += 1
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(value)

    def find(self, path: str, *args: Any, **options: Any) -> Any:
        """As many LIST as a store needs for pages of 1000 names."""
        names = {
            str(file): {"name": str(file), "size": file.stat().st_size, "type": "file"}
            for file in Path(path).rglob("*")
            if file.is_file()
        }
        requests["LIST"] += max(1, -(-len(names) // 1000))
        return names

    def exists(self, path: str, **options: Any) -> bool:
        """One HEAD."""
        requests["HEAD"] += 1
        return Path(path).exists()


known_implementations["counted"] = {"class": "tests.benchmarks.scale_receipts.Counted"}


def write_receipts(root: str, items: int) -> None:
    """Receipts of pictures of SA-1B, of which one in a hundred is quarantined; without any shard."""
    layout = Layout(root)
    Path(layout.receipts).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for unit in range(-(-items // UNIT)):
        count = min(UNIT, items - unit * UNIT)
        Path(layout.receipt(receipt_name(unit))).write_bytes(to_parquet(_receipt(unit, count, rng)))


def _receipt(unit: int, count: int, rng: np.random.Generator) -> pa.Table:
    numbers, places = range(unit * UNIT, unit * UNIT + count), np.arange(count)
    marks = rng.integers(1 << 62, size=count)
    ok = rng.random(count) > 0.01
    folder, shard = f"s3://made-up/sa1b/{unit // 20:06d}", f"part-{unit:08d}.tar"
    uris = [f"{folder}/sa_{number:010d}.jpg" for number in numbers]
    columns = {
        "source_id": uris,
        "key": [f"images-sa_{number:010d}-{mark:016x}" for number, mark in zip(numbers, marks)],
        "uri": uris,
        "status": np.where(ok, "ok", "quarantined"),
        "reason": np.where(ok, "", "cut off after 100 of 200 bytes"),
        "error_class": np.where(ok, "", "TruncatedMedia"),
        "unit": np.full(count, unit),
        "position": places,
        "shard": np.where(ok, shard, ""),
        "offset": np.where(ok, places * _STEP, -1),
        "size": np.where(ok, _STEP - 512 * rng.integers(1, 100, size=count), 0),
        "frames": np.where(ok, 1, 0),
        "objects": np.where(ok, rng.integers(0, 100, size=count), 0),
        "proposals": np.where(ok, rng.integers(1, 100, size=count), 0),
        "negatives": np.where(ok, rng.integers(0, 20, size=count), 0),
        "refused": np.where(ok, rng.integers(0, 9, size=count), 0),
        "license": np.where(ok, "SA-1B", ""),
        "attempts": np.ones(count, np.int64),
        "seconds": rng.random(count),
        "checksum": np.where(ok, rng.integers(-(1 << 62), 1 << 62, size=count), 0),
        "mean_score": np.where(ok, np.round(rng.random(count), 4), 0.0),
    }
    shards = [
        {"name": shard, "num_bytes": count * _STEP + 1024, "sha256": f"{unit:064x}", "num_samples": int(ok.sum())}
    ]
    table = pa.table({name: pa.array(columns[name], ROW_SCHEMA.field(name).type) for name in ROW_SCHEMA.names})
    return table.cast(ROW_SCHEMA).replace_schema_metadata(
        {b"trackmill.shards": json.dumps(shards).encode(), b"trackmill.fingerprint": b"f" * 16}
    )


def measure(step: str, root: str) -> dict[str, float]:
    """One step in this process: seconds, peak memory in MB, and requests by kind."""
    work = _STEPS[step]
    before, begun = time.process_time(), time.perf_counter()
    work(root)
    figures = {"seconds": time.perf_counter() - begun, "cpu_s": time.process_time() - before}
    # Not `getrusage`: its peak is handed down by the parent.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {**figures, "peak_mb": int(status["VmHWM"].split()[0]) / 1024, **requests}


def _begin(root: str) -> None:
    from trackmill.pipeline.mining.run import done_before
    from trackmill.pipeline.shards.receipts import listed_receipts

    assert done_before(Layout(root), listed_receipts(Layout(root)))[0]


def _compaction(root: str) -> None:
    from trackmill.pipeline.shards.manifest import write_manifest

    assert write_manifest(Layout(root)).items


def _inspect(root: str) -> None:
    from trackmill.pipeline.inspect.table import dataset_parts, print_tables
    from trackmill.pipeline.shards.reader import open_dataset

    print_tables(dataset_parts(open_dataset(root, keep_damaged=True)), io.StringIO())


def _catalog(root: str) -> None:
    from trackmill.pipeline.loader.catalog import read_catalog

    catalog = read_catalog(root)
    assert catalog.key(len(catalog) - 1).startswith("images-sa_")


_STEPS: dict[str, Callable[[str], None]] = {
    "begin": _begin,
    "compaction": _compaction,
    "inspect": _inspect,
    "catalog": _catalog,
    "manifest": _catalog,
}


def rows(sizes: Sequence[int] = SIZES) -> Iterator[str]:
    """Measure, and give the lines of a table, one for each step and size."""
    yield f"{'summing up':12} {'items':>12} {'items/s':>10} {'CPU s':>8} {'peak MB':>8}  requests an item"
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="scale-receipts-") as name:
            root = f"{name}/set"
            write_receipts(root, size)
            asked: dict[str, dict[str, float]] = {}
            if size == min(sizes):
                asked = {step: in_a_process(step, f"counted://{root}") for step in STEPS[:-1]}
            for step in STEPS:
                if step == "manifest":
                    shutil.rmtree(f"{root}/receipts")
                found = in_a_process(step, root)
                kinds = {kind: count / size for kind, count in asked.get(step, {}).items() if kind.isupper()}
                told = ", ".join(f"{count:.4f} {kind}" for kind, count in sorted(kinds.items()))
                yield (
                    f"{step:12} {size:12,} {size / found['seconds']:10,.0f} {found['cpu_s']:8.1f} "
                    f"{found['peak_mb']:8.0f}  {told}"
                )


def in_a_process(step: str, root: str) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.scale_receipts", "--measure", step, root]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{step}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="items of the largest data set")
    parser.add_argument("--measure", nargs=2, metavar=("STEP", "ROOT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    for line in rows([size for size in SIZES if size <= options.most] or [options.most]):
        print(line, flush=True)


if __name__ == "__main__":
    # By its name: the counting store is found by it, and its counter must be the same.
    from tests.benchmarks import scale_receipts

    scale_receipts.main()
