"""Reading back: by key in one ranged read, streaming, from receipts, manifest, tars alone, and in memory."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.make_dataset import make_dataset
from trackmill.pipeline.loader.catalog import read_catalog
from trackmill.pipeline.shards import reader
from trackmill.pipeline.shards import rows as rows_module
from trackmill.pipeline.shards.decode import parse_sample
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import UnknownKey, iter_samples, open_dataset, read_sample
from trackmill.pipeline.shards.receipts import BadReceipt, read_receipts, to_parquet
from trackmill.pipeline.shards.stream import RawSample, ShardBytes, raw_samples
from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.storage.credentials import UnsafeURL
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.schemas.masks import mask_box
from trackmill.schemas.receipt import ReceiptRow


def root_of(kind: str, tmp_path) -> str:
    return str(tmp_path / "set") if kind == "local" else f"memory://{tmp_path.name}/set"


@pytest.fixture(params=["local", "memory"])
def layout(request, tmp_path) -> Layout:
    return make_dataset(root_of(request.param, tmp_path))


def key_like(dataset, part: str) -> str:
    return next(row.key for row in dataset.rows if part in row.key)


def test_opens_by_receipts_and_reads_one_sample_in_one_ranged_read(layout, monkeypatch):
    dataset = open_dataset(layout.root)
    assert len(dataset.receipts) == 2 and len(dataset.shards) == 3 and len(dataset.rows) == 7
    reads = []
    real = reader.read_bytes

    def counted(url, offset=-1, length=-1):
        reads.append((url, offset, length))
        return real(url, offset, length)

    monkeypatch.setattr(reader, "read_bytes", counted)
    row = dataset.find(key_like(dataset, "pic1"))
    sample = read_sample(dataset, row.key)
    assert reads == [(layout.shard(row.shard), row.offset, row.size)]
    assert sample.record.origin.source_id == row.source_id
    assert sample.image(0).shape == (48, 64, 3)


def test_streaming_gives_the_same_samples_as_reading_by_key(layout):
    dataset = open_dataset(layout.root)
    streamed = [sample for shard in dataset.shards for sample in iter_samples(dataset, shard)]
    assert [sample.key for sample in streamed] == [row.key for row in dataset.stored]
    for sample in streamed:
        alone = read_sample(dataset, sample.key)
        assert (alone.offset, alone.size, alone.jpegs) == (sample.offset, sample.size, sample.jpegs)
        assert alone.record == sample.record and alone.masks == sample.masks


@pytest.mark.parametrize("chunk_bytes", [1, 511, 513, 1 << 20])
def test_chunks_cut_anywhere_make_no_difference(tmp_path, chunk_bytes):
    dataset = open_dataset(make_dataset(str(tmp_path), num_images=2).root)
    shard = dataset.shards[0]
    source = ShardBytes(dataset.shard_url(shard.name), shard.num_bytes, chunk_bytes)
    assert [raw.key for raw in raw_samples(source, shard.name)] == [row.key for row in dataset.stored[:2]]
    assert source.sha256() == shard.sha256


def test_masks_of_proposals_that_are_the_objects(tmp_path):
    dataset = open_dataset(make_dataset(str(tmp_path)).root)
    sample = read_sample(dataset, key_like(dataset, "pic0"))
    assert len(sample.objects_masks(0)) == 2
    boxes = [list(map(float, mask_box(mask))) for mask in sample.proposal_masks(0)]
    assert boxes == sample.record.frames[0].proposals.boxes
    # Null stands for "the same as the objects": the counts of boxes have to follow.
    frame = sample.masks.frames[0].model_copy(update={"proposals": None})
    sample.masks = sample.masks.model_copy(update={"frames": [frame]})
    assert sample.proposal_masks(0) == sample.objects_masks(0)


def test_manifest_serves_where_there_are_no_receipts(tmp_path):
    layout = make_dataset(str(tmp_path))
    rows = open_dataset(layout.root).rows
    for path in (tmp_path / "receipts").iterdir():
        path.unlink()
    without = open_dataset(layout.root)
    assert without.receipts == [] and list(without.rows) == list(rows)
    assert read_sample(without, rows[0].key).key == rows[0].key


def test_receipts_win_over_a_manifest_that_is_behind(tmp_path):
    layout = make_dataset(str(tmp_path))
    publish_bytes(layout.manifest, b"stale")
    assert len(open_dataset(layout.root).rows) == 7


@pytest.mark.parametrize("held", [100_000, 0], ids=["small", "as a large one"])
def test_by_its_manifest_a_data_set_is_the_same(layout, monkeypatch, held):
    """Read instead of the receipts where it was made from the very same ones."""
    expected = open_dataset(layout.root)
    reads = []
    units = reader.read_unit
    monkeypatch.setattr(reader, "read_unit", lambda *given, **more: reads.append(given) or units(*given, **more))
    for module in (reader, rows_module):
        monkeypatch.setattr(module, "HELD_ROWS", held)
    found = open_dataset(layout.root, by_manifest=True)
    assert list(found.rows) == list(expected.rows) and list(found.stored) == list(expected.stored)
    assert found.shards == expected.shards
    assert not reads or layout.root.startswith("memory:"), "a store that says nothing of versions: receipts are surer"
    for name in ("items", "statuses", "stored", "counts", "sources", "reasons", "examples"):
        assert getattr(found.totals, name) == getattr(expected.totals, name)
    for shard in expected.shards:
        assert list(found.rows_of(shard.name)) == list(expected.rows_of(shard.name))


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_tars_alone(kind, tmp_path):
    layout = make_dataset(root_of(kind, tmp_path))
    stored = {row.key: (row.shard, row.offset, row.size, row.frames) for row in open_dataset(layout.root).stored}
    folder = open_dataset(layout.shards)
    assert {row.key: (row.shard, row.offset, row.size, row.frames) for row in folder.rows} == stored
    one = open_dataset(layout.shard("part-00000001.tar"))
    (row,) = one.rows
    assert row.frames == 10 and len(read_sample(one, row.key).jpegs) == 10


def test_errors_name_what_to_do(tmp_path):
    dataset = open_dataset(make_dataset(str(tmp_path)).root)
    key = key_like(dataset, "pic1")
    with pytest.raises(UnknownKey, match=f"did you mean {key}"):
        read_sample(dataset, key[:-3])
    with pytest.raises(UnknownKey, match="was quarantined, not stored: cut off"):
        read_sample(dataset, key_like(dataset, "broken"))
    with pytest.raises(FileNotFoundError, match="no data set here"):
        open_dataset(str(tmp_path / "nothing"))
    with pytest.raises(UnsafeURL):
        open_dataset("pipe:cat x.tar")


def test_damaged_receipt_fails_unless_asked_to_go_on(tmp_path):
    layout = make_dataset(str(tmp_path))
    publish_bytes(layout.receipt("part-00000001.parquet"), b"PAR1 no more")
    with pytest.raises(BadReceipt, match=r"part-00000001\.parquet.*delete it"):
        open_dataset(layout.root)
    dataset = open_dataset(layout.root, keep_damaged=True)
    assert [name for name, _ in dataset.damaged] == ["part-00000001.parquet"] and len(dataset.rows) == 5


@pytest.mark.parametrize(
    ("shards", "said"),
    [
        (
            b'[{"name": "a.tar", "num_bytes": "512", "sha256": "", "num_samples": 1}]',
            "should be a shard with name, num_",
        ),
        (b'[{"name": "a.tar", "num_bytes": 5.5, "sha256": "", "num_samples": 1}]', "should be a shard with"),
        (b'[{"name": "a.tar"}]', "should be a shard with name, num_bytes, sha256, num_samples"),
        (b'["a.tar"]', "should be a shard"),
        (b'{"a": 1}', "its list of shards is none"),
        (b"[" * 3000, "not a readable receipt"),
        (None, "it says nothing of b'trackmill.shards'"),
    ],
)
def test_metadata_of_a_receipt_of_other_types_is_a_sentence(tmp_path, shards, said):
    layout = make_dataset(str(tmp_path))
    url = layout.receipt("part-00000001.parquet")
    table = pq.read_table(url)
    metadata = {b"trackmill.fingerprint": b"f"} | ({b"trackmill.shards": shards} if shards else {})
    publish_bytes(url, to_parquet(table.replace_schema_metadata(metadata)))
    for read in (open_dataset, read_catalog):
        with pytest.raises(BadReceipt, match=rf"part-00000001\.parquet: not a readable receipt \(.*{said}|{said}"):
            read(layout.root)


def test_a_receipt_that_unfolds_is_refused(tmp_path):
    layout = make_dataset(str(tmp_path))
    url = layout.receipt("part-00000001.parquet")
    table = pq.read_table(url)
    rows = pa.array(np.zeros(200_000, np.int32))
    publish_bytes(url, to_parquet(table.take(rows).replace_schema_metadata(table.schema.metadata)))
    with pytest.raises(BadReceipt, match="200,000 rows would take 280,000,000 bytes in memory, more than a file of"):
        open_dataset(layout.root)


def test_shard_names_from_a_receipt_cannot_leave_the_data_set(tmp_path):
    dataset = open_dataset(make_dataset(str(tmp_path)).root)
    with pytest.raises(BadReceipt, match="cannot be the name"):
        dataset.shard_url("../../secret.tar")


@pytest.mark.parametrize("shift", [512, -512])
def test_wrong_place_in_a_receipt_is_found(tmp_path, shift):
    dataset = open_dataset(make_dataset(str(tmp_path)).root)
    row: ReceiptRow = dataset.stored[1]
    wrong = ReceiptRow(**{name: getattr(row, name) for name in row.__slots__} | {"offset": row.offset + shift})
    with pytest.raises(BadShard, match=r"part-00000000\.tar"):
        reader.read_row(dataset, wrong)


def test_incomplete_sample_names_shard_and_member():
    raw = RawSample("part-00000009.tar", "a-b", 0, [("a-b.jpg", b"x"), ("a-b.masks.json", b"{}")])
    with pytest.raises(BadShard, match=r"part-00000009\.tar: a-b\.json: is missing, so the sample is incomplete"):
        parse_sample(raw)


def test_the_maker_is_deterministic(tmp_path):
    first, second = make_dataset(str(tmp_path / "a")), make_dataset(str(tmp_path / "b"))
    assert [r.shards for r in read_receipts(first)] == [r.shards for r in read_receipts(second)]
    assert np.array_equal(*(read_sample(open_dataset(x.root), key_like(open_dataset(x.root), "pic0")).image(0)
                            for x in (first, second)))  # fmt: skip
