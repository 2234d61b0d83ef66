"""Other people's readers take our shards as they are: nothing is converted, and every frame is there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.make_dataset import CONFIG, make_dataset, make_item, make_media, write_samples
from tests.runs import job_environment
from trackmill.jobs.main import main
from trackmill.pipeline.shards.card import write_card
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.manifest import write_manifest
from trackmill.pipeline.shards.reader import open_dataset, read_row
from trackmill.pipeline.shards.receipts import write_receipt
from trackmill.pipeline.shards.verify import verify

NEEDS = 'needs pip install -e ".[readers]"'


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Four pictures, and two clips of different lengths, the shorter one first."""
    layout = make_dataset(str(tmp_path / "set"), num_frames=3)
    video = make_item("videos", "cars-c000", frames=7)
    rows, shards = write_samples(layout, 2, [(video, make_media(9, 7), 9)])
    write_receipt(layout, 2, rows, shards, "f" * 16)
    write_card(layout, CONFIG, write_manifest(layout))
    return layout


def expected(layout: Layout) -> dict[str, list[bytes]]:
    """The frames of each sample, by key."""
    dataset = open_dataset(layout.root)
    return {row.key: read_row(dataset, row).jpegs for row in dataset.stored}


def frames_of(sample: dict[Any, Any]) -> list[bytes]:
    """The frames of a sample, by its member names, in order."""
    return [sample[name] for name in sorted(each for each in sample if str(each).endswith("jpg"))]


def test_webdataset(layout: Layout) -> None:
    webdataset = pytest.importorskip("webdataset", reason='needs pip install -e ".[dev]"')
    tars = sorted(str(path) for path in Path(layout.shards).glob("*.tar"))
    found = {each["__key__"]: each for each in webdataset.WebDataset(tars, shardshuffle=False)}
    assert {key: frames_of(each) for key, each in found.items()} == expected(layout)
    assert all(json.loads(each["json"])["key"] == key for key, each in found.items())


@pytest.mark.parametrize("streaming", [True, False])
def test_hugging_face_datasets(
    layout: Layout, streaming: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", minversion="4.7", reason=NEEDS)
    assert datasets.get_dataset_config_names(layout.root) == ["pictures", "clips"]
    found: dict[str, list[bytes]] = {}
    records = []
    for name in ("pictures", "clips"):
        rows = datasets.load_dataset(
            layout.root, name, split="train", streaming=streaming, cache_dir=str(tmp_path / "cache")
        )
        for column in rows.features:
            if column.endswith("jpg"):
                rows = rows.cast_column(column, datasets.Image(decode=False))
        for row in rows:
            columns = sorted(each for each in row if each.endswith("jpg") and row[each] is not None)
            found[row["__key__"]] = [row[each]["bytes"] for each in columns]
            records.append(row["json"])
    assert found == expected(layout), "also of the longer clip, whose frames the first one does not have"
    assert {record["key"] for record in records} == found.keys()
    assert all(len(record["frames"]) == len(found[record["key"]]) for record in records)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_ray_data(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    data = pytest.importorskip("ray.data")
    for name, value in job_environment().items():
        monkeypatch.setenv(name, value)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        rows = data.read_webdataset(layout.shards, decoder=None).take_all()
    finally:
        ray.shutdown()
    # What a sample does not have is filled in, since rows have the columns of all.
    found = {row["__key__"]: frames_of({name: v for name, v in row.items() if isinstance(v, bytes)}) for row in rows}
    assert found == expected(layout)


def test_litdata(layout: Layout) -> None:
    litdata = pytest.importorskip("litdata", reason=NEEDS)
    if not hasattr(litdata, "iter_webdataset_tar"):
        pytest.skip("this litdata reads no tars")
    tars = sorted(Path(layout.shards).glob("*.tar"))
    found = {each["__key__"]: frames_of(each) for tar in tars for each in litdata.iter_webdataset_tar(str(tar))}
    assert found == expected(layout)


def test_megatron_energon(layout: Layout, tmp_path: Path) -> None:
    energon = pytest.importorskip("megatron.energon", reason=NEEDS)
    assert main(["export-data", layout.root, "--format", "energon"]) == 0

    @energon.stateless
    def cook(sample: dict[str, Any]) -> dict[str, Any]:
        return sample

    class Encoder(energon.DefaultTaskEncoder):  # type: ignore[misc, name-defined]
        decoder = None
        cookers = (energon.Cooker(cook),)

        def batch(self, samples: list[Any]) -> Any:
            return samples

    rows = energon.get_train_dataset(
        layout.root,
        worker_config=energon.WorkerConfig(rank=0, world_size=1, num_workers=0),
        batch_size=1,
        shuffle_buffer_size=None,
        max_samples_per_sequence=None,
        repeat=False,
        task_encoder=Encoder(),
    )
    found = {each["__key__"].rpartition("/")[2]: frames_of(each) for (each,) in energon.get_loader(rows)}
    assert found == expected(layout)


def test_energon_gets_what_its_own_command_makes(layout: Layout, tmp_path: Path) -> None:
    pytest.importorskip("megatron.energon", reason=NEEDS)
    shutil.copytree(layout.root, tmp_path / "theirs")
    command = [str(Path(sys.executable).with_name("energon")), "prepare", str(tmp_path / "theirs"), "--non-interactive"]
    command += ["--split-ratio", "1,0,0", "--sample-type", "CrudeWebdataset", "--num-workers", "1"]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    assert main(["export-data", layout.root, "--format", "energon"]) == 0
    indexes = sorted(Path(layout.shards).glob("*.tar.idx"))
    assert len(indexes) == 4
    for path in indexes:
        assert path.read_bytes() == (tmp_path / "theirs" / "shards" / path.name).read_bytes()
    ours, theirs = (Path(root) / ".nv-meta" / ".info.json" for root in (layout.root, tmp_path / "theirs"))
    assert json.loads(ours.read_text())["shard_counts"] == json.loads(theirs.read_text())["shard_counts"]


def test_energons_files_are_no_fault(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export-data", layout.root, "--format", "energon"]) == 0
    assert "4 shards, 6 samples" in capsys.readouterr().out
    assert verify(layout.root) == []
    split = json.loads((Path(layout.root) / ".nv-meta" / "split.yaml").read_text())["split_parts"]
    assert [len(split[name]) for name in ("train", "pictures", "clips")] == [4, 2, 2]
    assert main(["export-data", layout.root, "--format", "energon", "--output", "elsewhere"]) == 2
    assert main(["export-data", layout.root, "--format", "coco"]) == 2
    assert "needs --output" in capsys.readouterr().err
