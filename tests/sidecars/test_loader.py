"""Sidecars through the loader: the right rows for every sample, from anywhere; one clear error where there are none."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from tests.loader.examples import make_shards, open_loader
from tests.make_dataset import make_dataset
from tests.s3_server import s3_server
from trackmill.pipeline.loader.catalog import read_catalog
from trackmill.pipeline.loader.contract import StoredSample
from trackmill.pipeline.loader.loader import TooManyBad
from trackmill.pipeline.loader.sample import ShardSample
from trackmill.pipeline.shards.reader import open_dataset, read_row
from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.sidecars import tables as tables_module
from trackmill.pipeline.sidecars.about import NoSidecar
from trackmill.pipeline.sidecars.run import make_sidecar
from trackmill.pipeline.sidecars.tables import OtherShards

PRODUCER = "tests.sidecars.producers:Brightness"


class Rows:
    """Examples that hold a sample's rows of a sidecar."""

    def __init__(self, name: str = "brightness") -> None:
        self._name = name

    def __call__(
        self, sample: StoredSample, rng: np.random.Generator, another: Callable[[], StoredSample]
    ) -> dict[str, Any]:
        rows = [sample.sidecar(self._name, frame) for frame in range(sample.num_frames)]
        return {"key": sample.key, "partner": another().sidecar(self._name, 0)["box"].tolist(), "rows": rows}


def plain(batch: list[dict[str, Any]]) -> list[Any]:
    return [
        (e["key"], e["partner"], [{name: values.tolist() for name, values in rows.items()} for rows in e["rows"]])
        for e in batch
    ]


def batches(root: str, name: str = "brightness", count: int = 6, **options: Any) -> list[Any]:
    loader = open_loader(read_catalog(root), make_example=Rows(name), **options)
    found = [plain(next(loader)) for _ in range(count)]
    loader.close()
    return found


def sample_of(root: str, name: str) -> ShardSample:
    """The sample whose key holds `name`, as a reader has it in memory."""
    catalog = read_catalog(root)
    number = next(number for number in range(len(catalog)) if name in catalog.key(number))
    shard = int(catalog.shard_of(number))
    data = Path(catalog.shard_urls[shard]).read_bytes()[catalog.offsets[number] :][: catalog.sizes[number]]
    tables = pickle.loads(pickle.dumps(tables_module.SidecarTables(catalog.sidecars, catalog.shards)))
    return ShardSample(data, catalog.shards[shard].name, int(catalog.offsets[number]), tables)


def test_a_frame_gives_its_own_rows(tmp_path: Path) -> None:
    root = make_dataset(str(tmp_path)).root
    make_sidecar(root, "brightness", PRODUCER)
    clip, record = sample_of(root, "bikes"), read_row(open_dataset(root), open_dataset(root).stored[4]).record
    assert clip.num_frames == 10
    for frame in range(10):
        rows = clip.sidecar("brightness", frame)
        expected = [] if frame % 2 else record.frames[frame].proposals.boxes[:2]
        assert rows["box"].tolist() == expected and rows["box"].dtype == np.float32 and rows["box"].shape[1] == 4
        assert rows["mean"].shape == (len(expected),) and rows["pixels"].dtype == np.int64
        assert set(rows["label"]) <= {"hell ☀", "dunkel"} and rows["bright"].dtype == np.bool_


def test_the_same_rows_with_workers_and_from_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = str(tmp_path / "data")
    make_shards(local)
    make_sidecar(local, "brightness", PRODUCER)
    expected = batches(local)
    assert any(rows for _, _, frames in expected[0] for rows in frames)
    assert batches(local, workers=2) == expected
    monkeypatch.setattr(tables_module, "HELD_BYTES", 1)
    assert batches(local) == expected, "one part at a time"
    with s3_server() as (host, port):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTNOTREAL00000")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-this-test")
        fsspec.filesystem("s3").mkdir("bucket")
        root = "s3://bucket/data"
        make_shards(root)
        make_sidecar(root, "brightness", PRODUCER)
        assert len(make_sidecar(root, "brightness", PRODUCER).made) == 0
        assert batches(root, cache=str(tmp_path / "cache")) == expected
        assert batches(root) == expected


def test_a_sidecar_that_is_missing_names_the_command(tmp_path: Path) -> None:
    root = make_dataset(str(tmp_path)).root
    missing = rf"no sidecar 'chains' \(there are none\): trackmill mine-chains --data {root} \.\.\. makes it"
    with pytest.raises(NoSidecar, match=missing):
        sample_of(root, "pic0").sidecar("chains", 0)
    with pytest.raises(NoSidecar, match="there are none"):
        read_catalog(root).sidecars["chains"]
    make_sidecar(root, "brightness", PRODUCER)
    Path(root, "sidecars", "brightness", "part-00000001.parquet").unlink()
    assert sample_of(root, "pic0").sidecar("brightness", 0)
    with pytest.raises(NoSidecar, match=r"no sidecars/brightness/part-00000001\.parquet: trackmill sidecar "):
        sample_of(root, "bikes").sidecar("brightness", 0)
    with pytest.raises(NoSidecar, match="there are brightness"):
        batches(root, "bright", window=2, batch_size=2)


def test_tars_alone_have_none(tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path))
    make_sidecar(layout.root, "brightness", PRODUCER)
    assert not read_catalog(layout.shards).sidecars.by_name


def test_a_damaged_part_makes_its_samples_bad_and_names_itself(tmp_path: Path) -> None:
    root = make_dataset(str(tmp_path)).root
    make_sidecar(root, "brightness", PRODUCER)
    part = Path(root, "sidecars", "brightness", "part-00000000.parquet")
    data = bytearray(part.read_bytes())
    data[40] ^= 255
    part.write_bytes(data)
    sample = sample_of(root, "pic0")
    for _ in range(2):
        with pytest.raises(BadShard, match=r"sidecars/brightness/part-00000000\.parquet: damaged .*delete it"):
            sample.sidecar("brightness", 0)
    assert "part-00000000.parquet" in sample.problem
    assert sample_of(root, "bikes").sidecar("brightness", 0), "the other unit is whole"
    with pytest.raises(TooManyBad, match=r"part-00000000\.parquet: damaged"):
        batches(root, window=2, batch_size=2)


def test_a_quarantined_sample_is_left_out_of_training(tmp_path: Path) -> None:
    root = make_dataset(str(tmp_path)).root
    make_sidecar(root, "brightness", PRODUCER, {"fail": "pic1"})
    with pytest.raises(BadShard, match=r"images-pic1-.* is quarantined: ArithmeticError: nothing to see"):
        sample_of(root, "pic1").sidecar("brightness", 0)
    keys = {key for batch in batches(root, window=5, batch_size=5, max_bad=0.5) for key, _, _ in batch}
    assert not any("pic1" in key for key in keys) and len(keys) == 4


def test_a_sidecar_of_other_shards_is_refused(tmp_path: Path) -> None:
    one = make_dataset(str(tmp_path / "one"))
    two = make_dataset(str(tmp_path / "two"), height=64)
    make_sidecar(one.root, "brightness", PRODUCER)
    Path(one.sidecars).rename(two.sidecars)
    with pytest.raises(OtherShards, match=r"part-00000000\.parquet: was made for another part-00000000\S*\.tar"):
        sample_of(two.root, "pic0").sidecar("brightness", 0)
    with pytest.raises(OtherShards, match="was made for another"):
        make_sidecar(two.root, "brightness", PRODUCER)
