"""A table of damages: each must be found and named, and must not hide what is wrong elsewhere."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest

from tests.make_dataset import make_dataset, make_item, write_plan
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import open_dataset
from trackmill.pipeline.shards.receipts import read_receipt, write_receipt
from trackmill.pipeline.shards.stream import ShardBytes, raw_samples
from trackmill.pipeline.shards.tar import END, BadShard, TarWriter
from trackmill.pipeline.shards.unfinished import unfinished
from trackmill.pipeline.shards.verify import verify
from trackmill.schemas.keys import receipt_name
from trackmill.schemas.masks import CroppedMask, decode_mask, format_counts

Members = list[tuple[str, bytes]]
SHARD = "part-00000000.tar"
OTHER = "part-00000001.tar"


@pytest.fixture
def layout(tmp_path) -> Layout:
    return make_dataset(str(tmp_path / "set"))


def faults_of(layout: Layout) -> str:
    return "\n".join(map(str, verify(layout.root)))


def read_members(path: Path) -> list[Members]:
    source = ShardBytes(str(path), path.stat().st_size)
    return [raw.members for raw in raw_samples(source, path.name)]


def rewrite(layout: Layout, samples: list[Members], shard: str = SHARD, raw: bytes | None = None) -> None:
    """Write a shard anew and let its receipt agree with its bytes, so that only deeper checks can find the damage."""
    out = io.BytesIO()
    tar = TarWriter(out)
    places = {}
    for members in samples:
        start = tar.position
        for name, data in members:
            tar.add(name, data)
        places.setdefault(members[0][0].partition(".")[0], (start, tar.position - start))
    tar.finish()
    data = out.getvalue() if raw is None else raw
    Path(layout.shard(shard)).write_bytes(data)
    unit = int(shard[5:13])
    receipt = read_receipt(layout.receipt(receipt_name(unit)))
    facts = {"num_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    shards = [dataclasses.replace(s, **facts) if s.name == shard else s for s in receipt.shards]
    rows = []
    for row in receipt.rows:
        if row.shard == shard and row.key in places:
            row = dataclasses.replace(row, offset=places[row.key][0], size=places[row.key][1])
        rows.append(row)
    write_receipt(layout, unit, rows, shards, receipt.fingerprint)


def change(layout: Layout, edit: Callable[[Members], Members]) -> None:
    """Edit the members of the second sample of the first shard."""
    samples = read_members(Path(layout.shard(SHARD)))
    rewrite(layout, [samples[0], edit(samples[1]), samples[2]])


def change_json(layout: Layout, ending: str, edit: Callable[[dict], None]) -> None:
    def apply(members: Members) -> Members:
        changed = []
        for name, data in members:
            if name.partition(".")[2] == ending:
                value = orjson.loads(data)
                edit(value)
                data = orjson.dumps(value)
            changed.append((name, data))
        return changed

    change(layout, apply)


def change_jpeg(layout: Layout, data: bytes) -> None:
    """Put other bytes in place of the picture, with a record that has their hash."""
    digest = hashlib.sha256(data).hexdigest()
    change(layout, lambda members: [(members[0][0], data), *members[1:]])
    change_json(layout, "json", lambda record: record["frames"][0].update(sha256=digest))


def bomb(kind: str, side: int = 60000) -> bytes:
    """The header of a picture of `side` x `side` pixels."""
    if kind == "png":
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        chunk = b"IHDR" + header
        return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    frame = struct.pack(">BHHB", 8, side, side, 3) + bytes([1, 17, 0, 2, 17, 0, 3, 17, 0])
    return (
        b"\xff\xd8\xff\xc0"
        + struct.pack(">H", len(frame) + 2)
        + frame
        + b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00"
    )


def edit_bytes(layout: Layout, shard: str, edit: Callable[[bytes], bytes]) -> None:
    path = Path(layout.shard(shard))
    path.write_bytes(edit(path.read_bytes()))


def flip_in_jpeg(layout: Layout) -> None:
    place = open_dataset(layout.root).stored[1].offset + 512 + 700
    edit_bytes(layout, SHARD, lambda data: data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])


def append_by_tarfile(layout: Layout, info: tarfile.TarInfo, data: bytes = b"") -> None:
    """Put a member that our writer would refuse in front of the first shard."""
    info.size = len(data)
    crafted = info.tobuf(tarfile.USTAR_FORMAT) + data + b"\0" * (-len(data) % 512)
    rewrite(layout, [], raw=crafted + Path(layout.shard(SHARD)).read_bytes())


def symlink(layout: Layout) -> None:
    info = tarfile.TarInfo("images-x.jpg")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    append_by_tarfile(layout, info)


def negative_size(layout: Layout) -> None:
    """A header whose length sends a careless reader back to itself, for ever."""
    block = bytearray(tarfile.TarInfo("images-x.jpg").tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = b"-0000001000\0"
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    rewrite(layout, [], raw=bytes(block) + Path(layout.shard(SHARD)).read_bytes())


def orphan(layout: Layout) -> None:
    Path(layout.shard("part-00000007.tar")).write_bytes(Path(layout.shard(SHARD)).read_bytes())


def duplicate_key(layout: Layout) -> None:
    """The second sample of unit 0 lies in unit 1 as well, with a row of its own."""
    members = read_members(Path(layout.shard(SHARD)))[1]
    first = read_receipt(layout.receipt(receipt_name(0)))
    receipt = read_receipt(layout.receipt(receipt_name(1)))
    copied = dataclasses.replace(first.rows[1], unit=1, position=9, shard=OTHER)
    shards = [dataclasses.replace(receipt.shards[0], num_samples=2)]
    write_receipt(layout, 1, [*receipt.rows, copied], shards, receipt.fingerprint)
    rewrite(layout, [*read_members(Path(layout.shard(OTHER))), members], OTHER)


def rewrite_rows(layout: Layout, unit: int, fingerprint: str | None = None, **values: object) -> None:
    receipt = read_receipt(layout.receipt(receipt_name(unit)))
    rows = [dataclasses.replace(receipt.rows[0], **values), *receipt.rows[1:]]
    write_receipt(layout, unit, rows, receipt.shards, fingerprint or receipt.fingerprint)


def rows_edit(unit: int, **values: object) -> Callable[[Layout], None]:
    return lambda layout: rewrite_rows(layout, unit, **values)  # type: ignore[arg-type]


def break_receipt(layout: Layout) -> None:
    Path(layout.receipt(receipt_name(1))).write_bytes(b"?")


def crafted_name(name: str) -> Callable[[Layout], None]:
    return lambda layout: append_by_tarfile(layout, tarfile.TarInfo(name), b"x")


def with_extra(members: Members) -> Members:
    return [(members[0][0] + ".exe", b"x"), *members]


def set_mask(**values: object) -> Callable[[dict], None]:
    return lambda masks: masks["frames"][0]["proposals"][0].update(values)


def mask_edit(**values: object) -> Callable[[Layout], None]:
    return lambda layout: change_json(layout, "masks.json", set_mask(**values))


def record_edit(edit: Callable[[dict], None]) -> Callable[[Layout], None]:
    return lambda layout: change_json(layout, "json", edit)


def frame_edit(place: str, name: str, value: object) -> Callable[[Layout], None]:
    return record_edit(lambda record: record["frames"][0][place].update({name: value}))


def first_box(box: list[float]) -> Callable[[Layout], None]:
    return record_edit(lambda record: record["frames"][0]["proposals"]["boxes"].__setitem__(0, box))


def amodal_box(box: list[float]) -> Callable[[Layout], None]:
    """A box of an object in a record that says that they may leave their frame."""

    def edit(record: dict) -> None:
        record["origin"]["amodal"] = True
        record["frames"][0]["objects"]["boxes"][0] = box

    return record_edit(edit)


def swapped(members: Members) -> Members:
    return [members[1], members[0], *members[2:]]


def apart(layout: Layout) -> None:
    """One sample's picture, then another sample, then the rest of the first."""
    first, second, third = read_members(Path(layout.shard(SHARD)))
    rewrite(layout, [first[:1], second, first[1:], third])


PIC = rf"{SHARD}: images-pic1-[0-9a-f]{{16}}"
"""Shard and key of the sample that most rows damage."""
DAMAGES = [
    # name, what is done, what must be told
    # bytes
    ("flipped byte in a JPEG", flip_in_jpeg, rf"{PIC}\.jpg: its SHA-256"),
    ("tar truncated inside a member", lambda s: edit_bytes(s, SHARD, lambda d: d[:8000]), rf"{PIC}\.jpg: ends"),
    ("tar without its end mark", lambda s: edit_bytes(s, SHARD, lambda d: d[:-1024]), rf"{SHARD}: the mark at its end"),
    ("bytes behind the end mark", lambda s: edit_bytes(s, SHARD, lambda d: d + d), rf"{SHARD}: \d+ bytes follow"),
    ("empty file", lambda s: edit_bytes(s, SHARD, lambda d: b""), rf"{SHARD}: has 0 bytes"),
    ("garbage", lambda s: edit_bytes(s, SHARD, lambda d: b"x" * len(d)), rf"{SHARD}: no tar header"),
    # files
    ("deleted shard", lambda s: Path(s.shard(SHARD)).unlink(), rf"{SHARD}: is missing; delete receipts/part-00000000"),
    ("tar that no receipt names", orphan, r"part-00000007\.tar: no receipt: its unit is unfinished"),
    ("damaged receipt", break_receipt, r"part-00000001\.parquet: .*not a"),
    ("config that is no JSON", lambda s: Path(s.config).write_bytes(b"{"), r"config\.json: .*no JSON at all"),
    # hostile headers
    ("path that climbs", crafted_name("../x.jpg"), rf"{SHARD}: .*'\.\./x\.jpg'"),
    ("absolute path", crafted_name("/etc/x.jpg"), rf"{SHARD}: .*'/etc/x\.jpg'"),
    ("symbolic link", symlink, rf"{SHARD}: .*'images-x\.jpg' is not a regular file"),
    ("negative length", negative_size, rf"{SHARD}: .*images-x\.jpg.*"),
    # members
    ("members out of order", lambda s: change(s, swapped), rf"{PIC}\.masks\.json: is out of order"),
    ("extra member", lambda s: change(s, with_extra), rf"{PIC}\.jpg\.exe: is no"),
    ("picture missing", lambda s: change(s, lambda m: m[1:]), rf"{PIC}\.jpg: is missing"),
    ("masks missing", lambda s: change(s, lambda m: [m[0], m[2]]), rf"{PIC}\.masks\.json: is missing"),
    ("record missing", lambda s: change(s, lambda m: m[:2]), rf"{PIC}\.json: is missing, so the sample"),
    ("member twice", lambda s: change(s, lambda m: [m[0], *m]), rf"{PIC}\.jpg: is there twice"),
    ("members apart", apart, rf"{SHARD}: images-pic0\S+\.masks\.json: does not lie beside"),
    ("key in two shards", duplicate_key, rf"{OTHER}: \S+\.json: its key is not unique: {SHARD}"),
    # records
    ("another key", record_edit(lambda r: r.update(key="other")), rf"{PIC}\.json: says its key is 'other'"),
    ("wrong schema", record_edit(lambda r: r.update(extra=1)), rf"{PIC}\.json: is not a valid record: extra"),
    ("later schema", record_edit(lambda r: r.update(schema_version=2)), rf"{PIC}\.json: has schema version 2; this"),
    ("other fingerprint", record_edit(lambda r: r.update(fingerprint="e")), rf"{PIC}\.json: fingerprint 'e'"),
    ("other item", record_edit(lambda r: r["origin"].update(source_id="z")), rf"{PIC}\.json: comes from 'z'"),
    ("huge frame", record_edit(lambda r: r["stored"].update(height=10**9)), rf"{PIC}\.json: declares frames of 10+ x"),
    ("box outside", first_box([10, 10, 65, 20]), rf"{PIC}\.json: \S+\.jpg: box 0 leaves its frame"),
    ("amodal box outside", amodal_box([-9, 10, -3, 20]), rf"{PIC}\.json: .*: box 0 lies outside of its frame"),
    ("endless amodal box", amodal_box([10, 10, 1e7, 20]), rf"{PIC}\.json: .*: box 0 lies outside of its frame"),
    ("amodal box that is none", amodal_box([10, 10, 9, 20]), rf"{PIC}\.json: \S+\.jpg: box 0 has no area of objects"),
    ("inverted box", first_box([20, 10, 10, 20]), rf"{PIC}\.json: \S+\.jpg: box 0 has no area"),
    ("endless scores", frame_edit("proposals", "scores", [1e308] * 4), rf"{PIC}\.json: \S+\.jpg: a score of proposals"),
    ("score above 1", frame_edit("proposals", "scores", [2, 1, 1, 1]), rf"{PIC}\.json: \S+\.jpg: a score of proposals"),
    ("wrong area", frame_edit("proposals", "areas", [1, 1, 1, 1]), rf"{PIC}\.masks\.json: .* mask 0 has \d+ pixels"),
    # masks
    ("runs too long", mask_edit(counts=format_counts(np.array([0, 10**6]))), rf"{PIC}\.masks\.json: .*mask 0 has"),
    ("runs too short", mask_edit(counts=format_counts(np.array([0, 1]))), rf"{PIC}\.masks\.json: .*mask 0 mask"),
    ("no run lengths", mask_edit(counts="\u00ff"), rf"{PIC}\.masks\.json: .*alphabet"),
    ("mask outside", mask_edit(x=60), rf"{PIC}\.masks\.json: .*leaves its frame"),
    (
        "one mask less",
        lambda s: change_json(s, "masks.json", lambda m: m["frames"][0]["proposals"].pop()),
        rf"{PIC}\.masks\.json: frame 0: 3 masks for 4 boxes of proposals",
    ),
    # pictures
    ("large JPEG", lambda s: change_jpeg(s, bomb("jpeg", 9000)), rf"{PIC}\.jpg: is 9000 x 9000, .*; not decoded"),
    ("JPEG bomb", lambda s: change_jpeg(s, bomb("jpeg")), rf"{PIC}\.jpg: is (60000 x 60000|not a whole JPEG .*bomb)"),
    ("PNG bomb", lambda s: change_jpeg(s, bomb("png")), rf"{PIC}\.jpg: is not a whole JPEG"),
    # receipts
    ("wrong score", rows_edit(0, mean_score=0.5), rf"{SHARD}: images-pic0\S+: its proposals have the mean score 0.65,"),
    ("wrong count", rows_edit(0, objects=99), rf"{SHARD}: images-pic0\S+: has 2 objects, its receipt says 99"),
    ("other licence", rows_edit(0, license="MIT"), rf"{SHARD}: images-pic0\S+: has licence 'CC BY 4.0', its receipt"),
    ("wrong place", rows_edit(0, offset=512), rf"{SHARD}: images-pic0\S+: lies in \d+ bytes at 0"),
    ("wrong shard", rows_edit(1, shard="part-00000009.tar"), r"part-00000009\.tar: .* does not list the"),
    ("item twice", rows_edit(1, source_id="/raw/images/pic0.jpg"), rf"{OTHER}: .*pic0\.jpg' has a row twice"),
    ("other run", rows_edit(1, fingerprint="0" * 16), r"part-00000001\.parquet: fingerprint '0{16}' is not"),
    ("odd status", rows_edit(0, status="fine"), r"status 'fine' is none of"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), [row[1:] for row in DAMAGES], ids=[row[0] for row in DAMAGES])
def test_damage_is_found_and_named(layout, damage, message):
    damage(layout)
    faults = faults_of(layout)
    assert re.search(message, faults), faults


@pytest.mark.parametrize("root", ["local", "memory"])
def test_a_clean_set_has_no_fault(root, tmp_path):
    layout = make_dataset(str(tmp_path) if root == "local" else f"memory://{tmp_path.name}")
    seen = []
    assert verify(open_dataset(layout.root), progress=seen.append) == []
    assert sum(seen) == 5
    assert verify(layout.shards) == [] and verify(layout.shard(SHARD)) == []
    assert unfinished(open_dataset(layout.root)) == []


def test_damage_in_one_shard_does_not_hide_another(layout):
    edit_bytes(layout, SHARD, lambda data: b"x" * len(data))
    edit_bytes(layout, OTHER, lambda data: data[:-2048])
    faults = faults_of(layout)
    assert f"{SHARD}: no tar header" in faults and f"{OTHER}: has " in faults


def test_rewriting_without_damage_is_no_fault(layout):
    """The helper of the table makes no damage of its own."""
    change(layout, lambda members: members)
    assert faults_of(layout) == ""


def test_keys_in_two_tars_alone(layout, tmp_path):
    for name in ("a.tar", "b.tar"):
        target = tmp_path / "tars" / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(Path(layout.shard(OTHER)).read_bytes())
    (fault,) = verify(str(tmp_path / "tars"))
    assert "holds this key as well" in fault.what


def test_shards_without_any_receipt_are_unfinished(layout):
    for folder in ("receipts", "manifest"):
        for path in (Path(layout.root) / folder).iterdir():
            path.unlink()
    assert [fault.shard for fault in verify(layout.root)] == sorted(
        [SHARD, "part-00000000-01.tar", OTHER]
    ) and "unfinished" in faults_of(layout)


@pytest.mark.parametrize("name", ["items.parquet", "shards.parquet"])
def test_a_damaged_manifest_is_found_and_written_anew(layout, name):
    path = Path(layout.root) / "manifest" / name
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:40] + bytes([whole[40] ^ 1]) + whole[41:], b""):
        path.write_bytes(data)
        (fault,) = verify(layout.root)
        assert fault.shard == f"manifest/{name}" and "run the mining command again" in fault.what


def test_planned_items_without_receipt_are_a_warning(layout):
    write_plan(layout, [(make_item("images", "late"), 5)], "plan-001.parquet")
    (warning,) = unfinished(open_dataset(layout.root))
    assert warning.startswith("1 planned items in 1 units") and verify(layout.root) == []


def test_runs_whose_sum_wraps_around_are_refused():
    """NumPy's `repeat` adds counts without looking at overflow: such a mask would be written outside its memory."""
    steps = np.zeros(80_001, np.int64)
    steps[1:] = (1 << 34) - 1
    runs = np.concatenate([np.cumsum(steps[0::2])[:1], steps[1:]])
    with pytest.raises(ValueError, match="longer than its 200 x 200"):
        decode_mask(CroppedMask(x=0, y=0, height=200, width=200, counts=format_counts(runs)), 200, 200)


def test_end_mark_constant_is_what_readers_expect():
    with pytest.raises(BadShard):
        list(raw_samples(_Bytes(END[:512]), "x.tar"))
    assert list(raw_samples(_Bytes(END), "x.tar")) == []


class _Bytes(ShardBytes):
    """A shard that lies in memory."""

    def __init__(self, data: bytes) -> None:
        super().__init__("memory://unused", len(data))
        self._chunk, self._fetched = data, len(data)
