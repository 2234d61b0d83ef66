"""The check that a data set is whole: every byte of every shard against receipts, hashes and schemas."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from trackmill.pipeline.shards.check import Fault, SampleShape, check_sample, shape_of
from trackmill.pipeline.shards.reader import Dataset, open_dataset
from trackmill.pipeline.shards.row_checks import check_rows, rows_of_other_units
from trackmill.pipeline.shards.stream import BadShardMember, ShardBytes, raw_samples
from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.parquet.on_disk import StoredTable
from trackmill.pipeline.storage.urls import basename
from trackmill.schemas.keys import receipt_name
from trackmill.schemas.receipt import ReceiptRow, ShardInfo

Progress = Callable[[int], None]
"""Called with the number of samples looked at since the last call; from one thread at a time."""


MADE_FROM = "samples_from"
"""In `config.json`: fingerprints of the mining runs whose samples are in a data set that was made from others."""

Beside = Callable[[ShardInfo, Mapping[str, SampleShape]], list[Fault]]
"""Called after each shard, from any thread, with the shapes of those of its samples that can be read, by key. Returns
what is wrong with tables that lie beside the shards."""


def verify(
    dataset: Dataset | str, threads: int = 4, progress: Progress | None = None, beside: Beside | None = None
) -> list[Fault]:
    """Check all shards and receipts of a data set, or tars alone (then only what can be known without receipts).

    Damage in one shard never keeps the others from being looked at. At most `threads` chunks and samples are in memory.

    Args:
        dataset: opened with `keep_damaged=True`, or its URL.
        threads: shards that are looked at side by side.
        progress: see `Progress`.
        beside: see `Beside`.

    Returns:
        What is wrong, in the order of the shards; empty when all is well.

    Raises:
        OSError, UnsafeURL: the data set could not be opened or listed at all.
    """
    if isinstance(dataset, str):
        dataset = open_dataset(dataset, keep_damaged=True)
    faults = [Fault(name, "", what) for name, what in dataset.damaged]
    faults += check_rows(dataset)
    faults += _check_fingerprints(dataset)
    faults += _check_manifest(dataset)
    on_disk = _listing(dataset)
    known = {shard.name for shard in dataset.shards} if dataset.receipts or dataset.recorded is not None else set()
    if dataset.layout is not None:
        for name in sorted(set(on_disk) - known):
            if name.endswith(".tar"):
                what = f"no receipt: its unit is unfinished; run the {dataset.made_by} command again"
                faults.append(Fault(name, "", what))
    work = _ShardCheck(dataset, on_disk, progress, beside)
    with ThreadPoolExecutor(threads) as pool:
        for found in pool.map(work.check, dataset.shards):
            faults += found
    return faults + work.keys_in_two_shards()


def _check_manifest(dataset: Dataset) -> Iterator[Fault]:
    """The tables that hold all receipts end to end: whoever reads them, and no receipt, must not be misled."""
    if dataset.layout is None:
        return
    for url in (dataset.layout.manifest, dataset.layout.manifest_shards):
        try:
            StoredTable(url).close()
        except FileNotFoundError:
            continue  # not written yet
        except (OSError, ValueError) as error:
            what = f"damaged ({error}); delete it and run the {dataset.made_by} command again, which writes it anew"
            yield Fault(f"manifest/{basename(url)}", "", what)


class _ShardCheck:
    """Looks at one shard after another, from several threads, and remembers whose keys it saw."""

    def __init__(
        self, dataset: Dataset, on_disk: dict[str, int], progress: Progress | None, beside: Beside | None
    ) -> None:
        self._dataset, self._on_disk, self._progress, self._beside = dataset, on_disk, progress, beside
        self._lock = threading.Lock()
        self._units = {shard.name: receipt.unit for receipt in dataset.receipts for shard in receipt.shards}
        self._fingerprints = {receipt.unit: receipt.fingerprint for receipt in dataset.receipts}
        # A data set that was made from others has their samples as they are.
        self._made_from = set(_made_from(dataset))
        # Only for tars alone: with receipts, each sample has its row and the rows are compared with each other.
        self._shard_of: dict[str, str] = {}
        self._twice: list[Fault] = []

    def check(self, shard: ShardInfo) -> list[Fault]:
        """All that is wrong with one shard, and with what lies beside it."""
        shapes: dict[str, SampleShape] = {}
        faults = self._shard(shard, shapes)
        return faults + self._beside(shard, shapes) if self._beside else faults

    def _shard(self, shard: ShardInfo, shapes: dict[str, SampleShape]) -> list[Fault]:
        try:
            url = self._dataset.shard_url(shard.name)
        except ValueError as error:
            return [Fault(shard.name, "", str(error))]
        size = self._on_disk.get(shard.name)
        if size is None:
            return [Fault(shard.name, "", f"is missing{self._mend(shard)}")]
        faults = []
        if size != shard.num_bytes:
            faults.append(
                Fault(shard.name, "", f"has {size} bytes, its receipt says {shard.num_bytes}{self._mend(shard)}")
            )
        source = ShardBytes(url, size)
        try:
            faults += self._samples(source, shard, shapes)
            if shard.sha256 and source.sha256() != shard.sha256:
                faults.append(Fault(shard.name, "", f"its SHA-256 is not that of its receipt{self._mend(shard)}"))
        except OSError as error:
            faults.append(Fault(shard.name, "", f"could not be read: {error}"))
        return faults

    def keys_in_two_shards(self) -> list[Fault]:
        """Keys that more than one of the tars alone holds."""
        return sorted(self._twice, key=str)

    def _samples(self, source: ShardBytes, shard: ShardInfo, shapes: dict[str, SampleShape]) -> Iterator[Fault]:
        recorded = self._dataset.recorded is not None
        rows: dict[str, ReceiptRow] = {}
        for row in self._dataset.rows_of(shard.name) if recorded else ():
            rows.setdefault(row.key, row)
        seen: set[str] = set()
        stopped = False
        try:
            for raw in raw_samples(source, shard.name):
                member = raw.members[0][0]
                own = rows.get(raw.key)
                if raw.key in seen:
                    yield Fault(shard.name, member, "does not lie beside the rest of its sample, or is there twice")
                elif recorded and own is None:
                    yield Fault(shard.name, member, "has no row in the receipt of this shard")
                seen.add(raw.key)
                faults, record = check_sample(raw, own)
                yield from faults
                fingerprint = record.fingerprint if record else ""
                if record is not None:
                    shapes[raw.key] = shape_of(record)
                expected = self._fingerprints.get(self._units.get(shard.name, -1))
                if fingerprint and expected and fingerprint != expected and fingerprint not in self._made_from:
                    yield Fault(
                        shard.name, f"{raw.key}.json", f"fingerprint {fingerprint!r}, its receipt: {expected!r}"
                    )
                self._saw(raw.key, shard.name, recorded)
        except BadShardMember as error:
            stopped = True
            yield Fault(shard.name, error.member, f"{error.what}; the rest of the shard was not looked at")
        except BadShard as error:
            stopped = True
            what = str(error).removeprefix(f"{shard.name}: ")
            yield Fault(shard.name, "", f"{what}; the rest of the shard was not looked at")
        lost = [row for key, row in rows.items() if key not in seen]
        if lost and stopped:
            yield Fault(shard.name, "", f"{len(lost)} samples of its receipt were not reached")
        elif lost:
            yield from (Fault(shard.name, f"{row.key}.json", "is in the receipt, not in the shard") for row in lost)
        if not stopped and shard.num_samples not in (-1, len(seen)):
            yield Fault(shard.name, "", f"has {len(seen)} samples, its receipt says {shard.num_samples}")

    def _saw(self, key: str, shard: str, recorded: bool) -> None:
        with self._lock:
            if not recorded and self._shard_of.setdefault(key, shard) != shard:
                self._twice.append(Fault(shard, f"{key}.json", f"{self._shard_of[key]} holds this key as well"))
            if self._progress:
                self._progress(1)

    def _mend(self, shard: ShardInfo) -> str:
        unit = self._units.get(shard.name)
        return (
            ""
            if unit is None
            else f"; delete receipts/{receipt_name(unit)} and run the {self._dataset.made_by} command again"
        )


def _listing(dataset: Dataset) -> dict[str, int]:
    if dataset.layout is None:
        return {shard.name: shard.num_bytes for shard in dataset.shards}
    try:
        return {basename(file.uri): file.size for file in list_files(dataset.layout.shards, sizes=True)}
    except FileNotFoundError:
        return {}


def _made_from(dataset: Dataset) -> list[str]:
    """Fingerprints of the runs whose samples a data set has, where it was made from others."""
    try:
        listed = dataset.config.get(MADE_FROM, [])
    except ValueError:
        return []  # `_check_fingerprints` tells of it
    return [str(each) for each in listed] if isinstance(listed, list) else []


def _check_fingerprints(dataset: Dataset) -> Iterator[Fault]:
    try:
        expected = dataset.config.get("fingerprint")
    except ValueError as error:
        yield Fault("config.json", "", str(error))
        expected = None
    said_by = "config.json"
    of_other_units = rows_of_other_units(dataset)
    for receipt in dataset.receipts:
        name = receipt_name(receipt.unit)
        if not expected:
            expected, said_by = receipt.fingerprint, name
        elif receipt.fingerprint != expected:
            yield Fault(name, "", f"fingerprint {receipt.fingerprint!r} is not the {expected!r} of {said_by}")
        yield from of_other_units.get(receipt.unit, ())
