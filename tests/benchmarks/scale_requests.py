"""Requests an item on an object store: planning, mining and resuming, of folders of pairs and of two kinds of tars.

`python -m tests.benchmarks.scale_requests [--items 100 1000 10000]`. The store is one of this machine that speaks S3
and counts (`tests/object_store.py`). Its pictures are tiny, so that only requests are told, no times; `--tar-members`
walks besides a tar of so many members of the size that SA-1B's have, of which only the headers are kept.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import fsspec
import orjson

from tests.benchmarks import dummy_proposer
from tests.make_media import jpeg_bytes, make_scene, sa1b_document
from tests.object_store import ObjectStore, Sparse, object_store
from tests.sources.test_tar_headers import ZEROS, header, member
from trackmill.models import registry
from trackmill.pipeline.mining.inline import InlineExecutor
from trackmill.pipeline.mining.prepare import Run, prepare_mining
from trackmill.pipeline.mining.run import begin_progress, execute
from trackmill.pipeline.mining.settings import mine_config
from trackmill.pipeline.sources.tar_index import index_tar

KINDS = {"folders": "sa1b", "official tars": "sa1b", "webdataset tars": "webdataset"}
_FIRST = 1_000_000  # so that the names are as many letters long, and their order is that of the numbers
A_TAR = 500
"""Pictures in one tar of those that are mined."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--tar-members", type=int, default=22_000, help="of the tar that is only walked; 0: none")
    options = parser.parse_args()
    print("\n".join(table(options.items)))
    if options.tar_members:
        print(walked(options.tar_members))


def rows(sizes: Sequence[int]) -> Iterator[str]:
    """Lines for `tests.benchmarks.scale`: real requests take too long for its sizes, so there are fewer items here."""
    yield from table([size for size in (100, 1000, 10_000) if size <= max(sizes)])
    yield walked(22_000)


def table(sizes: Sequence[int]) -> Iterator[str]:
    """Rows of requests an item, for each kind of input and each number of items."""
    yield (f"{'requests an item':<17}{'items':>8}{'stage':>10}   HEAD    GET    PUT   LIST    all")
    for kind in KINDS:
        for items in sizes:
            for stage, counts in measured(kind, items).items():
                each = [counts[name] / items for name in ("HEAD", "GET", "PUT", "LIST")]
                numbers = "".join(f"{number:7.3f}" for number in [*each, counts.total() / items])
                yield f"{kind:<17}{items:>8}{stage:>10}{numbers}"


def measured(kind: str, items: int) -> dict[str, Counter[str]]:
    """Requests of each stage.

    Args:
        kind: a key of `KINDS`.
        items: pictures.
    """
    found: dict[str, Counter[str]] = {}
    with object_store() as store:
        fill(store, kind, items)
        # By the module's name, as in `tests.benchmarks.mining`, which would bring Ray along.
        dummy = "tests.benchmarks.dummy_proposer:DummyProposer"
        registry.PROPOSERS["graph"] = replace(registry.PROPOSERS["graph"], target=dummy)
        dummy_proposer.PROPOSAL_S = 0

        def run(make: Callable[[], Run], stage: str) -> Run:
            store.forget()
            made = make()
            found[stage] = store.counts.copy()
            return made

        def prepare() -> Run:
            fsspec.filesystem("s3").invalidate_cache()
            values = {
                "source": KINDS[kind],
                "graph": {"backend": "skimage"},
                "run": {"executor": "inline", "isolate": False},
            }
            return prepare_mining(mine_config(values, "benchmark"), ["s3://b/in"], "s3://b/out")

        planned = run(prepare, "planning")
        run(lambda: mine(planned), "mining")
        run(lambda: mine(prepare()), "resuming")
    return found


def mine(run: Run) -> Run:
    """Do what is not done."""
    progress = begin_progress(run)
    outcome = execute(run, lambda: InlineExecutor(run.job(), progress.tick), progress)
    assert outcome.statuses["ok"] == outcome.items, outcome
    return run


def fill(store: ObjectStore, kind: str, items: int) -> None:
    """Put pictures and their annotations into a store."""
    image, masks = make_scene(32, 32)
    picture = jpeg_bytes(image)
    tars: dict[str, list[bytes]] = {}
    for number in range(_FIRST, _FIRST + items):
        notes = orjson.dumps(sa1b_document(number, masks))
        if kind == "folders":
            store.objects[f"b/in/sa_{number}.jpg"] = picture
            store.objects[f"b/in/sa_{number}.json"] = notes
            continue
        tar = tars.setdefault(f"b/in/sa_{(number - _FIRST) // A_TAR:06d}.tar", [])
        tar += [member(f"sa_{number}.jpg".encode(), picture), member(f"sa_{number}.json".encode(), notes)]
    store.objects |= {name: b"".join([*parts, ZEROS]) for name, parts in tars.items()}


def sparse_tar(members: int, picture: int = 500_000, notes: int = 150_000) -> Sparse:
    """A tar of SA-1B of which only the headers are kept."""
    pieces: list[tuple[int, bytes]] = []
    place = 0
    for number in range(members):
        kind, length = ("json", notes) if number % 2 else ("jpg", picture)
        pieces.append((place, header(f"sa_{number // 2}.{kind}".encode(), length)))
        place += 512 + -(-length // 512) * 512
    return Sparse(place + 1024, (*pieces, (place, ZEROS)))


def walked(members: int) -> str:
    """Requests of walking one large tar."""
    with object_store() as store:
        tar = sparse_tar(members)
        store.objects["b/sa_000000.tar"] = tar
        found = len(index_tar("s3://b/sa_000000.tar").files)
    assert found == members
    return f"a tar of {members} members, {tar.size / 1e9:.2f} GB, is walked by {dict(store.counts)}"


if __name__ == "__main__":
    main()
