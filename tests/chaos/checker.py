"""Whether a data set is what an undisturbed run makes: every file, every row, every byte but the times.

Reads Parquet and files by itself, not through the code under test.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TIMES = ("seconds",)
"""Columns that say how long something took."""
TIMED = ("manifest/items.parquet", "manifest/made-from.json")
"""Files beside receipts that hold such columns, or the times of files."""
MOST_TOLD = 8


def faults(result: Path, undisturbed: Path, expected: Mapping[str, str]) -> list[str]:
    """What is wrong with `result`; empty when all is well.

    Args:
        result: root of the data set that things happened to.
        undisturbed: root of the one that nothing happened to.
        expected: what each item is to become, by source id: "ok", or an error class.
    """
    return [
        *_files(result, undisturbed),
        *_items(result, expected),
        *_receipts(result, undisturbed),
        *_manifest(result),
    ]


def _names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


def _folders(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir()}


def _files(result: Path, undisturbed: Path) -> list[str]:
    """Names, and the bytes of all but what holds times."""
    here, there = _names(result), _names(undisturbed)
    found = [*_few("missing", there - here), *_few("left behind", here - there)]
    found += _few("folder left behind", _folders(result) - _folders(undisturbed))
    timed = {name for name in here & there if name.startswith("receipts/") or name in TIMED}
    other = {name for name in (here & there) - timed if _bytes(result / name) != _bytes(undisturbed / name)}
    return found + _few("other bytes than in the undisturbed run", other)


def _bytes(path: Path) -> bytes:
    """Of a file; of `config.json` without how the work was run, which is no part of the result."""
    if path.name != "config.json":
        return path.read_bytes()
    document = json.loads(path.read_bytes())
    document.pop("checksum", None)
    for values in (document, document.get("config", {})):
        values.pop("run", None)
    return json.dumps(document).encode()


def _items(result: Path, expected: Mapping[str, str]) -> list[str]:
    """Each item in exactly one row, as what it should be."""
    times: Counter[str] = Counter()
    wrong = set()
    for path in sorted((result / "receipts").glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            source_id = row["source_id"]
            times[source_id] += 1
            became = row["error_class"] if row["status"] == "quarantined" else row["status"]
            if became != expected.get(source_id):
                wrong.add(f"{source_id} is {became} ({row['reason']}), should be {expected.get(source_id)}")
    return [
        *_few("lost, in no receipt", expected.keys() - times.keys()),
        *_few("double", {f"{source_id} has {count} rows" for source_id, count in times.items() if count > 1}),
        *_few("not what it should be", wrong),
    ]


def _receipts(result: Path, undisturbed: Path) -> list[str]:
    """Rows and lists of shards, but for the times."""
    other = set()
    for path in sorted((result / "receipts").glob("*.parquet")):
        twin = undisturbed / "receipts" / path.name
        if twin.exists() and _content(path) != _content(twin):
            other.add(path.name)
    return _few("a receipt with other rows than the undisturbed run's", other)


def _manifest(result: Path) -> list[str]:
    """All receipts end to end, to the last digit of the times."""
    receipts = sorted((result / "receipts").glob("*.parquet"))
    manifest = result / "manifest" / "items.parquet"
    if not manifest.exists() or not receipts:
        return ["the manifest or the receipts are missing"]
    tables = [pq.read_table(path).replace_schema_metadata() for path in receipts]
    if not pa.concat_tables(tables).equals(pq.read_table(manifest).replace_schema_metadata()):
        return ["manifest/items.parquet is not the receipts laid end to end"]
    return []


def _content(receipt: Path) -> tuple[list[dict], object, bytes]:
    table = pq.read_table(receipt)
    metadata = table.schema.metadata or {}
    rows = table.drop_columns([name for name in TIMES if name in table.column_names]).to_pylist()
    return rows, json.loads(metadata[b"trackmill.shards"]), metadata[b"trackmill.fingerprint"]


def _few(what: str, names: set[str]) -> list[str]:
    """One line for each of the first few."""
    lines = [f"{what}: {name}" for name in sorted(names)[:MOST_TOLD]]
    return lines + ([f"{what}: {len(names) - MOST_TOLD} more"] if len(names) > MOST_TOLD else [])
