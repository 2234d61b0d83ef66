"""A mined data set: shards, receipts, manifest, plan, configuration, sidecars; verified, listed, and trained on."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.target import Files, Refused, Target, files_of
from tests.make_dataset import make_dataset, make_item

_ROOT = "data"


@cache
def _made() -> Files:
    from trackmill.pipeline.mining.plan import extend, store_plan
    from trackmill.pipeline.mining.settings import ShardSettings
    from trackmill.pipeline.sidecars.run import make_sidecar

    with TemporaryDirectory() as folder:
        root = str(Path(folder, _ROOT))
        layout = make_dataset(root, num_images=4, num_frames=3, height=16, width=24)
        make_sidecar(root, "brightness", "tests.sidecars.producers:Brightness", {})
        for path in Path(root, "plan").iterdir():
            path.unlink()
        items = [make_item("images", f"pic{i}", f"/raw/images/pic{i}.jpg") for i in range(4)]
        store_plan(layout, extend(None, items, ShardSettings(), "0" * 64))
        return files_of(Path(folder))


def _seeds() -> list[Files]:
    return [_made()]


def _with_and_without_receipts() -> list[Files]:
    """The manifest alone is what a copy of a data set may have."""
    return [_made(), {name: data for name, data in _made().items() if "/receipts/" not in name}]


def _verify(folder: Path) -> object:
    from trackmill.pipeline.shards.reader import open_dataset
    from trackmill.pipeline.shards.unfinished import unfinished
    from trackmill.pipeline.shards.verify import verify
    from trackmill.pipeline.sidecars.verify import SidecarCheck

    dataset = open_dataset(str(folder / _ROOT), keep_damaged=True)
    sidecars = SidecarCheck(dataset)
    faults = verify(dataset, beside=sidecars.shard_done) + sidecars.rest()
    if faults:
        raise Refused([str(fault) for fault in faults])
    return (list(dataset.rows), dataset.receipts), unfinished(dataset), sidecars.names


def _open(folder: Path) -> object:
    from trackmill.pipeline.inspect.table import dataset_parts
    from trackmill.pipeline.mining.plan import read_plan
    from trackmill.pipeline.shards.reader import iter_samples, open_dataset

    dataset = open_dataset(str(folder / _ROOT))
    assert dataset.layout is not None
    plan = read_plan(dataset.layout)
    dataset_parts(dataset)
    samples = [sample.record for shard in dataset.shards for sample in iter_samples(dataset, shard)]
    return plan.items(0, plan.num_items) if plan is not None else None, samples


def _catalog(folder: Path) -> object:
    from trackmill.pipeline.loader.catalog import read_catalog

    catalog = read_catalog(str(folder / _ROOT))
    keys = [catalog.key(i) for i in range(len(catalog))]
    return catalog.shards, catalog.first, catalog.offsets, catalog.sizes, catalog.frames, keys


def _load(folder: Path) -> object:
    from tests.loader.examples import Everything, plain
    from trackmill.pipeline.loader.catalog import read_catalog
    from trackmill.pipeline.loader.loader import ShardLoader
    from trackmill.pipeline.loader.settings import DataSettings

    catalog = read_catalog(str(folder / _ROOT))
    # How damaged samples are told apart is of interest, not how many a run may have.
    settings = DataSettings(workers=0, window=16, max_bad=1.0, **_VERIFIED)
    loader = ShardLoader(catalog, settings, batch_size=2, make_example=Everything(), collate=list)
    try:
        batches = [plain(next(loader)) for _ in range(4)]
        bad = [f"{key}: {reason}" for key, reason in loader.bad_samples()]
    finally:
        loader.close()
    if bad:
        raise Refused(bad)
    return batches


_VERIFIED: dict[str, object] = {}


def _tables(folder: Path) -> object:
    from trackmill.pipeline.shards.layout import Layout
    from trackmill.pipeline.sidecars.about import find_sidecars
    from trackmill.pipeline.sidecars.part import read_part

    found = find_sidecars(Layout(str(folder / _ROOT)))
    if found.damaged or not found.by_name:
        raise Refused(list(found.damaged.values()) or ["brightness: there is no such sidecar"])
    sidecar = found.by_name["brightness"]
    parts = [read_part(f"{sidecar.folder}/{part}", part, sidecar.about.columns) for part in sorted(sidecar.parts)]
    return sidecar.about, [(part.about, part.table) for part in parts]


ALL = (
    Target(name="shard", seeds=_seeds, run=_verify, mutated=("*/shards/*",), covered="all", share=50),
    Target(
        name="receipt", seeds=_seeds, run=_verify, mutated=("*/receipts/*", "*/manifest/*"), covered="bytes", share=30
    ),
    Target(name="plan", seeds=_seeds, run=_open, mutated=("*/plan/*", "*/config.json"), covered="bytes", share=25),
    Target(
        name="catalog",
        seeds=_with_and_without_receipts,
        run=_catalog,
        torch=True,
        mutated=("*/receipts/*", "*/manifest/*"),
        covered="bytes",
        share=25,
    ),
    Target(name="loader", seeds=_seeds, run=_load, torch=True, mutated=("*/shards/*",), covered="all", share=30),
    Target(name="sidecar", seeds=_seeds, run=_tables, mutated=("*/sidecars/*",), covered="bytes", share=40),
)
