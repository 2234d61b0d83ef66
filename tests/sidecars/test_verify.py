"""Every fault that is planted in a sidecar is found and named, and a whole one has none."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.make_dataset import make_dataset
from trackmill.jobs.inspect_shards import main
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import open_dataset
from trackmill.pipeline.shards.verify import verify
from trackmill.pipeline.sidecars import part as part_module
from trackmill.pipeline.sidecars.about import find_sidecars, read_about
from trackmill.pipeline.sidecars.part import PartAbout, part_bytes, read_part
from trackmill.pipeline.sidecars.run import make_sidecar
from trackmill.pipeline.sidecars.verify import SidecarCheck
from trackmill.pipeline.storage.documents import document_bytes, read_document

PRODUCER = "tests.sidecars.producers:Brightness"
PART = "part-00000000.parquet"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A data set with a whole sidecar."""
    made = make_dataset(str(tmp_path / "set"))
    make_sidecar(made.root, "brightness", PRODUCER)
    return made


def faults_of(layout: Layout) -> str:
    dataset = open_dataset(layout.root, keep_damaged=True)
    check = SidecarCheck(dataset)
    return "\n".join(map(str, verify(dataset, beside=check.shard_done) + check.rest()))


def path_of(layout: Layout, part: str = PART) -> Path:
    return Path(layout.sidecar_part("brightness", part))


def edit_rows(edit: Callable[[dict[str, list[Any]]], None], part: str = PART) -> Callable[[Layout], None]:
    """Change values of a part; all else about it stays right."""

    def apply(layout: Layout) -> None:
        path = path_of(layout, part)
        read = read_part(str(path), part, read_about(layout, "brightness").columns)
        values = read.table.to_pydict()
        edit(values)
        path.write_bytes(part_bytes(read.about, pa.table(values, schema=read.table.schema.remove_metadata())))

    return apply


def set_value(column: str, value: Any, part: str = PART, row: int = 0) -> Callable[[Layout], None]:
    return edit_rows(lambda values: values[column].__setitem__(row, value), part)


def edit_about(edit: Callable[[PartAbout], PartAbout]) -> Callable[[Layout], None]:
    def apply(layout: Layout) -> None:
        path = path_of(layout)
        read = read_part(str(path), PART, read_about(layout, "brightness").columns)
        path.write_bytes(part_bytes(edit(read.about), read.table))

    return apply


def about(**changes: Any) -> Callable[[Layout], None]:
    return edit_about(lambda now: dataclasses.replace(now, **changes))


def other_sha(now: PartAbout) -> PartAbout:
    first, *rest = now.shards
    return dataclasses.replace(now, shards=(dataclasses.replace(first, sha256="0" * 64), *rest))


def flip(layout: Layout) -> None:
    """One bit in the first page, behind its header."""
    data = bytearray(path_of(layout).read_bytes())
    data[60] ^= 1
    path_of(layout).write_bytes(data)


def cut(layout: Layout) -> None:
    path_of(layout).write_bytes(path_of(layout).read_bytes()[:-100])


def another_column(layout: Layout) -> None:
    table = pq.read_table(io.BytesIO(path_of(layout).read_bytes()))
    pq.write_table(table.drop_columns(["label"]), path_of(layout))


def copied(layout: Layout) -> None:
    path_of(layout, "part-00000007.parquet").write_bytes(path_of(layout).read_bytes())


def swapped(layout: Layout) -> None:
    path_of(layout, "part-00000001.parquet").write_bytes(path_of(layout).read_bytes())


def edit_json(**changes: Any) -> Callable[[Layout], None]:
    def apply(layout: Layout) -> None:
        path = Path(layout.sidecar_about("brightness"))
        path.write_bytes(document_bytes(read_document(str(path)) | changes))

    return apply


P = r"sidecars/brightness/part-00000000\.parquet: "
KEY = rf"{P}images-pic\d-[0-9a-f]{{16}}: "
FAULTS = [
    # name, what is done, what is said
    # bytes
    ("flipped bit in a page", flip, rf"{P}damaged \(damaged: its checksum"),
    ("cut off", cut, rf"{P}damaged"),
    ("no Parquet", lambda s: path_of(s).write_bytes(b"x" * 900), rf"{P}damaged"),
    ("a column less", another_column, rf"{P}damaged .*has the columns key string, .*; its sidecar\.json "),
    # rows
    ("unknown key", edit_rows(lambda v: v["key"].__setitem__(slice(0, 2), ["zz-a"] * 2)), rf"{P}has rows about 'zz-a'"),
    ("frame beyond", set_value("frame", 10, "part-00000001.parquet", -1), r"frame 10, the sample has 10"),
    ("frame below", set_value("frame", -1), rf"{KEY}has a row about frame -1, the sample has 1"),
    ("frames out of order", set_value("frame", 8, "part-00000001.parquet"), r"frames of a sample are out of order"),
    ("box outside", set_value("box", [0, 0, 65, 5]), rf"{KEY}box \[0\.0, .*leaves its frame of 48 x 64"),
    ("box without area", set_value("box", [9, 9, 9, 12]), rf"{KEY}box .* has no area"),
    ("box of NaN", set_value("box", [float("nan")] * 4), rf"{KEY}box "),
    ("endless number", set_value("mean", float("inf")), rf"{KEY}mean holds a number that is not finite"),
    ("samples apart", edit_rows(lambda v: v["key"].append(v["key"].pop(0))), rf"{P}rows of one sample do not lie side"),
    # what it says about itself
    ("another shard", edit_about(other_sha), rf"{P}was made for another part-00000000\.tar \(SHA-256 0{{12}}"),
    ("a shard less", edit_about(lambda a: dataclasses.replace(a, shards=a.shards[:1])), rf"{P}does not describe part-"),
    ("fewer samples", about(samples=3), rf"{P}was made from 3 samples, its shards have 4"),
    ("other settings", about(fingerprint="0" * 16), rf"{P}was made with other settings \(0000"),
    ("other data set", about(dataset="0" * 16), rf"{P}was made for another data set"),
    ("other sidecar", about(name="chains"), rf"{P}was made for another sidecar \(chains"),
    ("part of another unit", swapped, r"part-00000001\.parquet: was made for another unit \(part-00000000"),
    # files
    ("unit without shards", copied, r"part-00000007\.parquet: describes a unit that has no shards"),
    (
        "no sidecar.json",
        lambda s: Path(s.sidecar_about("brightness")).unlink(),
        r"there is no sidecar\.json; restore it",
    ),
    (
        "later version",
        edit_json(sidecar_version=2),
        r"sidecars/brightness.*has sidecar version 2; this program reads 1",
    ),
    (
        "flipped bit in the description",
        lambda s: Path(s.sidecar_about("brightness")).write_bytes(
            Path(s.sidecar_about("brightness")).read_bytes().replace(b"float32", b"float22")
        ),
        r"sidecar\.json is damaged: what it says is not what was written",
    ),
    ("odd description", edit_json(columns=[]), r"sidecars/brightness: .*has at least one column"),
]


@pytest.mark.parametrize(("damage", "said"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_a_planted_fault_is_found_and_named(layout: Layout, damage: Callable[[Layout], None], said: str) -> None:
    damage(layout)
    faults = faults_of(layout)
    assert re.search(said, faults), faults
    assert main([layout.root, "--verify"]) == 1


def test_a_whole_sidecar_has_none(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    make_sidecar(layout.root, "chains")
    assert faults_of(layout) == ""
    assert main([layout.root, "--verify"]) == 0
    assert capsys.readouterr().out == "OK: 3 shards, 5 samples verified, sidecars brightness, chains\n"


def test_rewriting_without_damage_is_no_fault(layout: Layout) -> None:
    """The helpers of the table make no damage of their own."""
    edit_rows(lambda values: None)(layout)
    edit_about(lambda now: now)(layout)
    edit_json()(layout)
    assert faults_of(layout) == ""


def test_what_is_missing_is_a_warning(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    path_of(layout).unlink()
    assert main([layout.root, "--verify"]) == 0
    assert "sidecar brightness: 1 of 2 parts are missing; trackmill sidecar " in capsys.readouterr().err
    make_sidecar(layout.root, "brightness", PRODUCER, {"fail": "pic2"})
    assert main([layout.root, "--verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == ["sidecar brightness: 1 samples are quarantined in it"]


def test_many_faults_of_a_part_are_counted(layout: Layout) -> None:
    edit_rows(lambda values: values.update(box=[[0.0, 0.0, 999.0, 5.0]] * len(values["box"])))(layout)
    edit_rows(lambda values: values.update(mean=[float("inf")] * len(values["mean"])))(layout)
    assert re.search(r"3 more faults like these", faults_of(layout))


def test_a_part_that_declares_too_much_is_not_read(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = read_about(layout, "brightness").columns
    for name, limit, said in (
        ("MAX_ROWS", 3, r"declares \d+ rows"),
        ("MAX_TABLE_BYTES", 10, r"would take .* in memory"),
        ("MAX_PART_BYTES", 100, r"more than the limit of 100"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(part_module, name, limit)
            with pytest.raises(part_module.BadPart, match=said):
                read_part(str(path_of(layout)), PART, columns)


def test_hostile_bytes_raise_nothing_else(layout: Layout) -> None:
    """Bytes changed at random give the same rows or `BadPart`, never another error."""
    columns = read_about(layout, "brightness").columns
    whole = path_of(layout).read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for place in random.integers(len(data), size=random.integers(1, 4)):
            data[place] = random.integers(256)
        try:
            part_module.parse_part(bytes(data), PART, columns)
        except part_module.BadPart:
            refused += 1
    assert refused > 100
    assert find_sidecars(layout)["brightness"].parts[PART] == len(whole)
