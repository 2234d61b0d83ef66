"""Data sets out of data sets: filtered, merged, split, with what lies beside them, and whole after a kill."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.make_dataset import DOCUMENT, make_dataset, make_item, make_media, make_row, write_plan, write_samples
from tests.shards.test_manifest import as_of_an_older_version
from trackmill.jobs.main import main
from trackmill.pipeline.datasets.groups import END, Grouping, inside, places, spans
from trackmill.pipeline.datasets.selection import Chooser, Selection, read_keys
from trackmill.pipeline.loader.catalog import read_catalog
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.manifest import write_manifest
from trackmill.pipeline.shards.reader import Dataset, open_dataset, read_row
from trackmill.pipeline.shards.receipts import read_receipt, rows_table, write_receipt
from trackmill.pipeline.shards.unfinished import unfinished, unfinished_units
from trackmill.pipeline.shards.verify import verify
from trackmill.pipeline.sidecars.about import About, find_sidecars, read_about
from trackmill.pipeline.sidecars.columns import Column
from trackmill.pipeline.sidecars.part import PartAbout, PartRows, Quarantined, part_bytes
from trackmill.pipeline.sidecars.tables import SidecarTables
from trackmill.pipeline.sidecars.verify import SidecarCheck
from trackmill.pipeline.storage.documents import publish_document
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.schemas.errors import InputError
from trackmill.schemas.keys import receipt_name

FINGERPRINT = "e" * 16
COLUMNS = (Column(name="box", dtype="box", unit="px", description="A box."),)


def files(root: Path) -> dict[str, str]:
    """SHA-256 of all that a data set consists of, by path; times and the like are left out."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_file() and name != "manifest/made-from.json":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def samples(root: object) -> dict[str, bytes]:
    """The bytes of each sample, by key."""
    dataset = open_dataset(str(root))
    found = {}
    for row in dataset.stored:
        sample = read_row(dataset, row)
        found[row.key] = b"".join([*sample.jpegs, sample.masks_json or b"", sample.record.model_dump_json().encode()])
    return found


def whole(root: object) -> Dataset:
    """The data set, which has no fault and nothing left to do."""
    dataset = open_dataset(str(root), keep_damaged=True)
    check = SidecarCheck(dataset)
    assert [str(fault) for fault in verify(dataset, beside=check.shard_done) + check.rest()] == []
    assert unfinished(dataset) == [] and all("quarantined in it" in line for line in check.unfinished())
    return dataset


def another(root: Path, first: int = 100, num: int = 3) -> Layout:
    """A data set of other pictures, mined with other settings."""
    layout = Layout(str(root))
    made = [
        (make_item("photos", f"p{i}", f"/raw/photos/p{i}.jpg"), make_media(i), i) for i in range(first, first + num)
    ]
    rows, shards = write_samples(layout, 0, made)
    write_receipt(layout, 0, rows, shards, "f" * 16)
    publish_document(layout.config, {"fingerprint": "f" * 16, "parts": {}, "config": {"proposer": "sam"}, "inputs": []})
    write_plan(layout, [(item, 0) for item, _, _ in made])
    write_manifest(layout)
    return layout


def with_sidecar(layout: Layout, name: str = "boxes", fingerprint: str = FINGERPRINT) -> None:
    """A sidecar with a box for each frame of each sample; one sample is quarantined in it."""
    dataset = open_dataset(layout.root)
    maker = {"producer": {"name": "my_boxes", "version": "1"}}
    about = About(
        name=name,
        fingerprint=fingerprint,
        dataset=dataset.receipts[0].fingerprint,
        columns=COLUMNS,
        parts=maker,
        settings={},
        trackmill="0",
    )
    publish_document(layout.sidecar_about(name), about.model_dump(mode="json"))
    for head in dataset.receipts:
        rows = PartRows(COLUMNS)
        stored = [row for shard in head.shards for row in dataset.rows_of(shard.name)]
        for number, row in enumerate(stored):
            if number == 1:
                rows.add(row.key, Quarantined(key=row.key, error_class="Bad", reason="was too dark"))
                continue
            boxes = np.tile(np.array([[1, 2, 10 + number, 20]], np.float32), (row.frames, 1))
            rows.add(row.key, {"frame": np.arange(row.frames, dtype=np.int32), "box": boxes})
        part = PartAbout(
            name=name,
            fingerprint=fingerprint,
            dataset=head.fingerprint,
            unit=head.unit,
            retry=0,
            shards=tuple(head.shards),
            samples=rows.samples,
            quarantined=tuple(rows.quarantined),
            counts={"kept": rows.rows, "frames": sum(rows._counts)},
        )
        publish_bytes(layout.sidecar_part(name, part.file_name), part_bytes(part, rows.table()))


def test_all_of_it_is_the_same_samples_and_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = make_dataset(str(tmp_path / "old"))
    with_sidecar(layout)
    before = files(tmp_path / "old")
    assert main(["filter", layout.root, "--output", str(tmp_path / "new"), "--unit-frames", "3"]) == 0
    assert "5 of 5 samples in 3 shards" in capsys.readouterr().out
    assert samples(layout.root) == samples(tmp_path / "new")
    assert files(tmp_path / "old") == before
    dataset = whole(tmp_path / "new")
    # A shard has pictures or clips: 4 pictures in units of three, one clip.
    assert [len({row.frames > 1 for row in dataset.rows_of(shard.name)}) for shard in dataset.shards] == [1, 1, 1]
    assert dataset.config["samples_from"] == ["f" * 16] and dataset.config["fingerprint"] != "f" * 16
    assert "trackmill filter" in (tmp_path / "new" / "README.md").read_text()
    # Rows about what was kept, and who was quarantined, come along.
    old, new = (open_dataset(str(tmp_path / name)) for name in ("old", "new"))
    tables = [SidecarTables(find_sidecars(each.layout), each.shards) for each in (old, new) if each.layout]
    for row in new.stored:
        was = old.find(row.key)
        assert was is not None
        parts = [tables[0].part("boxes", was.shard), tables[1].part("boxes", row.shard)]
        assert parts[0].quarantined(row.key) == parts[1].quarantined(row.key)
        np.testing.assert_array_equal(parts[0].of_sample(row.key)["box"], parts[1].of_sample(row.key)["box"])


CASES: dict[str, tuple[list[str], int]] = {
    "only clips": (["--kind", "clip"], 1),
    "only pictures": (["--kind", "picture"], 4),
    "a source": (["--source", "Videos"], 1),
    "a licence, however it is spelt": (["--licence", "cc by 4.0"], 4),
    "at least so many frames": (["--min-frames", "2"], 1),
    "at most so many objects": (["--max-objects", "2"], 4),
    "between": (["--min-objects", "1", "--max-negatives", "2"], 4),
    "a mean score": (["--min-mean-score", "0.65", "--max-mean-score", "0.65"], 5),
    "every second": (["--every", "2"], 3),
    "every second picture": (["--kind", "picture", "--every", "3"], 2),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_kept(tmp_path: Path, name: str) -> None:
    options, count = CASES[name]
    layout = make_dataset(str(tmp_path / "old"))
    assert main(["filter", layout.root, "--output", str(tmp_path / "new"), *options]) == 0
    kept = samples(tmp_path / "new")
    assert len(kept) == count and kept.items() <= samples(layout.root).items()
    whole(tmp_path / "new")


def test_keys_from_a_file(tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path / "old"))
    keys = sorted(samples(layout.root))
    (tmp_path / "keys.txt").write_text(f"# mine\n{keys[0]}\n\n{keys[2]}.json\n")
    for option, expected in (("--keys", {keys[0], keys[2]}), ("--without-keys", set(keys) - {keys[0], keys[2]})):
        output = tmp_path / option
        assert main(["filter", layout.root, "--output", str(output), option, str(tmp_path / "keys.txt")]) == 0
        assert set(samples(output)) == expected
    (tmp_path / "keys.txt").write_text("no key!\n")
    with pytest.raises(InputError, match="line 1"):
        read_keys(str(tmp_path / "keys.txt"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_keys_from_a_file_of_windows(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "keys.txt").write_bytes("sa1b-x-0\r\nsa1b-y-1\r\n".encode(encoding))
    assert read_keys(str(tmp_path / "keys.txt")) == {"sa1b-x-0", "sa1b-y-1"}


def test_nothing_left_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = make_dataset(str(tmp_path / "old"))
    assert main(["filter", layout.root, "--output", str(tmp_path / "new"), "--min-objects", "1000"]) == 2
    assert "none of the 5 samples is left" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_objects_are_asked_for_where_there_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = make_dataset(str(tmp_path / "old"))
    for unit in (0, 1):
        receipt = read_receipt(layout.receipt(receipt_name(unit)))
        rows = [dataclasses.replace(row, objects=0) for row in receipt.rows]
        write_receipt(layout, unit, rows, receipt.shards, receipt.fingerprint)
    words = ["filter", layout.root, "--output", str(tmp_path / "new")]
    assert main([*words, "--min-objects", "1"]) == 2
    assert "none has annotated objects: --min-proposals counts" in capsys.readouterr().err


def test_an_input_without_samples_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.jpg").write_bytes(b"no picture")
    data = str(tmp_path / "data")
    assert main(["mine", "--input", str(tmp_path / "in"), "--output", data, "--executor", "inline"]) == 3
    assert main(["filter", data, "--output", str(tmp_path / "new"), "--min-objects", "1"]) == 2
    assert (
        "none of the 0 samples is left: an empty data set is not written; the input has none" in capsys.readouterr().err
    )


def test_samples_without_a_score_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = make_dataset(str(tmp_path / "old"))
    for unit in (0, 1):
        as_of_an_older_version(layout, unit)
        write_manifest(layout)
        output = str(tmp_path / f"new{unit}")
        assert main(["filter", layout.root, "--output", output, "--min-mean-score", "0.6"]) == 2 * unit
    printed = capsys.readouterr()
    assert "4 samples were left out: they have no mean score" in printed.err
    assert "none of the 5 samples is left" in printed.err and "5 have no mean score" in printed.err
    more = ["--output", str(tmp_path / "one"), "--min-mean-score", "0.6", "--kind", "clip", "--max-objects", "3"]
    assert main(["filter", layout.root, *more]) == 2
    assert "1 have no mean score" not in capsys.readouterr().err, "who is left out for another reason is not counted"
    assert main(["filter", layout.root, "--output", str(tmp_path / "new2"), "--min-mean-score", "nan"]) == 2


def test_two_sets_become_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = make_dataset(str(tmp_path / "one")), another(tmp_path / "two")
    with_sidecar(one), with_sidecar(two)
    with_sidecar(one, "only-here")
    with_sidecar(one, "other", "a" * 16), with_sidecar(two, "other", "b" * 16)
    assert main(["merge", one.root, two.root, "--output", str(tmp_path / "both")]) == 0
    assert samples(tmp_path / "both") == samples(one.root) | samples(two.root)
    dataset = whole(tmp_path / "both")
    assert [row.key.split("-")[0] for row in dataset.stored] == ["images"] * 4 + ["videos"] + ["photos"] * 3
    assert list(find_sidecars(Layout(str(tmp_path / "both"))).by_name) == ["boxes"]
    told = capsys.readouterr().err
    assert "only-here does not come along" in told and "other does not come along" in told


def test_a_sample_in_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = another(tmp_path / "one", 100, 3), another(tmp_path / "two", 102, 3)
    assert main(["merge", one.root, two.root, "--output", str(tmp_path / "both")]) == 2
    assert "--duplicates first" in capsys.readouterr().err
    assert main(["merge", one.root, two.root, "--output", str(tmp_path / "both"), "--duplicates", "first"]) == 0
    assert "1 sample is in an earlier input too" in capsys.readouterr().err
    assert samples(tmp_path / "both") == samples(one.root) | samples(two.root)
    whole(tmp_path / "both")
    assert main(["merge", one.root, one.root, "--output", str(tmp_path / "again")]) == 2
    assert "is given twice" in capsys.readouterr().err


def clips_of(videos: int, clips: int) -> pa.Table:
    """Rows of clips of some videos."""
    rows = []
    for number in range(videos):
        for clip in range(clips):
            item = make_item("videos", f"v{number}-c{clip:03d}", f"/raw/d{number % 7}/v{number}.mp4")
            rows.append(make_row(dataclasses.replace(item, source_id=f"{item.uri}#c{clip:03d}"), 0, 0))
    return rows_table(rows)


def test_frames_of_a_video_are_never_in_two_parts() -> None:
    table = clips_of(300, 4)
    parts = spans({"train": "0.7", "val": "0.2", "test": "0.1"})
    assert parts["test"][1] == END and parts["train"][1] == parts["val"][0]
    groupings: tuple[Grouping, ...] = ("video", "folder", "sample")
    where = {by: np.stack([inside(places(table, by, 0), span) for span in parts.values()]) for by in groupings}
    for by, found in where.items():
        assert (found.sum(0) == 1).all(), f"by {by}, a sample is in no part, or in two"
    assert (where["video"].reshape(3, 300, 4) == where["video"].reshape(3, 300, 4)[:, :, :1]).all()
    shares = where["video"].mean(1)
    assert np.abs(shares - [0.7, 0.2, 0.1]).max() < 0.06
    folders = np.array([int(uri.split("/d")[1].split("/")[0]) for uri in table["uri"].to_pylist()])
    assert all(len({int(part) for part in where["folder"].argmax(0)[folders == number]}) == 1 for number in range(7))
    assert not (where["sample"].reshape(3, 300, 4) == where["sample"].reshape(3, 300, 4)[:, :, :1]).all()
    other = inside(places(table, "video", 1), parts["train"])
    assert (other != where["video"][0]).any()


def test_places_are_the_same_everywhere() -> None:
    """The hash must not change from release to release: parts that were split once are trained on for years."""
    assert places(clips_of(1, 1), "video", 0).tolist() == [3115626105940229007]


@pytest.mark.parametrize(
    "shares", [{"a": "0"}, {"a": "1.2"}, {"a": "x"}, {"a": "0.6", "b": "0.5"}, {"a": "1e9"}, {"a": ""}]
)
def test_shares_that_cannot_be(shares: dict[str, str]) -> None:
    with pytest.raises(InputError):
        spans(shares)


def test_every_counts_over_blocks() -> None:
    table = clips_of(10, 1)
    chooser = Chooser(Selection(every=4))
    found = np.concatenate([chooser.choose(table.slice(begin, 3)) for begin in range(0, 10, 3)])
    assert np.flatnonzero(found).tolist() == [0, 4, 8]


def test_split_is_a_partition(tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path / "old"), num_images=12)
    words = ["split", layout.root, "--output", str(tmp_path / "parts"), "--parts", "train=0.6", "val=0.4"]
    assert main(words) == 0
    parts = {name: samples(tmp_path / "parts" / name) for name in ("train", "val")}
    assert parts["train"] and parts["val"] and not parts["train"].keys() & parts["val"].keys()
    assert parts["train"] | parts["val"] == samples(layout.root)
    for name in parts:
        whole(tmp_path / "parts" / name)
    # What was split is merged again to the same samples, and remembers who mined them.
    roots = [str(tmp_path / "parts" / name) for name in parts]
    assert main(["merge", *roots, "--output", str(tmp_path / "again")]) == 0
    assert samples(tmp_path / "again") == samples(layout.root)
    assert whole(tmp_path / "again").config["samples_from"] == ["f" * 16]


def test_killed_between_units_it_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = make_dataset(str(tmp_path / "old"), num_images=9)
    with_sidecar(layout)
    words = ["filter", layout.root, "--unit-frames", "2", "--workers", "1", "--output"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    import trackmill.pipeline.datasets.derive as derive

    def dies(*arguments: object) -> None:
        if arguments[1] == 2:
            raise KeyboardInterrupt
        write_receipt(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(derive, "write_receipt", dies)
    assert main([*words, str(tmp_path / "killed")]) == 130
    monkeypatch.undo()
    broken = open_dataset(str(tmp_path / "killed"))
    assert 2 <= len(broken.receipts) < 6 and "run the filter command again" in unfinished(broken)[0]
    receipts = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed" / "receipts").iterdir()}
    assert main([*words[:-3], "--workers", "7", "--output", str(tmp_path / "killed")]) == 0
    assert all(path.stat().st_mtime_ns == written for path, written in receipts.items())
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    before = files(tmp_path / "killed")
    assert main([*words, str(tmp_path / "killed")]) == 0
    assert files(tmp_path / "killed") == before


def test_an_attempt_that_finished_nothing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = make_dataset(str(tmp_path / "old"), num_images=9)
    with_sidecar(layout)
    words = ["filter", layout.root, "--unit-frames", "2", "--workers", "1", "--output", str(tmp_path / "new")]
    import trackmill.pipeline.datasets.derive as derive

    def dies(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(derive, "write_receipt", dies)
    assert main(words) == 130
    monkeypatch.undo()
    left = files(tmp_path / "new")
    assert {"shards/part-00000000.tar", "sidecars/boxes/part-00000000.parquet", "plan/plan-000.parquet"} <= left.keys()
    # What is not ours stays: of people, and a sidecar of another data set.
    mine = [tmp_path / "new" / name for name in ("shards/mine.tar", "plan/mine.txt", "sidecars/other/notes.txt")]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"mine")
    new = Layout(str(tmp_path / "new"))
    foreign = read_about(new, "boxes").model_copy(update={"name": "foreign", "dataset": "0" * 16})
    publish_document(new.sidecar_about("foreign"), foreign.model_dump(mode="json"))

    whole_words = ["filter", layout.root, "--max-frames", "1", "--unit-frames", "100", "--no-sidecars", "--output"]
    assert main([*whole_words, new.root]) == 0 and main([*whole_words, str(tmp_path / "straight")]) == 0
    assert all(path.read_bytes() == b"mine" for path in mine)
    found, kept = files(tmp_path / "new"), {str(path.relative_to(tmp_path / "new")) for path in mine}
    assert found.keys() - kept - {"sidecars/foreign/sidecar.json"} == files(tmp_path / "straight").keys()
    assert files(tmp_path / "straight").items() <= found.items()
    left_units, _ = unfinished_units(new)
    assert left_units == 0, "it can be pushed"


def test_a_manifest_alone_is_not_taken_for_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With other settings the shards of an output without units are removed."""
    layout = make_dataset(str(tmp_path / "old"))
    words = ["filter", layout.root, "--output", str(tmp_path / "new")]
    assert main(words) == 0
    for root in ("old", "new"):
        for path in (tmp_path / root / "receipts").iterdir():
            path.unlink()
    before = files(tmp_path / "new"), files(tmp_path / "old")
    assert main([*words, "--kind", "picture"]) == 2
    assert "was begun with other settings" in capsys.readouterr().err
    (tmp_path / "new" / "config.json").rename(tmp_path / "config.json")
    assert main(words) == 2
    assert "has units of a data set and no config.json" in capsys.readouterr().err
    (tmp_path / "config.json").rename(tmp_path / "new" / "config.json")
    (tmp_path / "pictures").mkdir()
    inline = ["--proposer", "annotations", "--executor", "inline"]
    publish_document(layout.config, {**DOCUMENT, "inputs": []})
    before = before[0], files(tmp_path / "old")
    Image.new("RGB", (64, 64)).save(tmp_path / "pictures" / "a.png")
    assert main(["mine", "--input", str(tmp_path / "pictures"), "--output", layout.root, *inline]) == 2
    assert "was begun with other settings" in capsys.readouterr().err
    assert (files(tmp_path / "new"), files(tmp_path / "old")) == before


def test_sidecars_that_were_made_later_stay_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = make_dataset(str(tmp_path / "old"))
    with_sidecar(layout)
    words = ["filter", layout.root, "--unit-frames", "2", "--output", str(tmp_path / "new")]
    assert main(words) == 0
    before = files(tmp_path / "new")
    with_sidecar(layout, "chains")
    for missing in (False, True):
        if missing:
            (tmp_path / "new" / "receipts" / "part-00000001.parquet").unlink()
        capsys.readouterr()
        assert main(words) == 0
        told = capsys.readouterr()
        assert told.out.rstrip().endswith("; sidecars boxes" + ("" if missing else "; all was there already"))
        assert "the sidecar chains does not come along: the output was begun before it was made" in told.err
        assert files(tmp_path / "new") == before
    with_sidecar(layout, "boxes", "a" * 16)
    (tmp_path / "new" / "receipts" / "part-00000001.parquet").unlink()
    assert main(words) == 0
    assert "boxes does not come along: the output has one that was made with other" in capsys.readouterr().err
    assert find_sidecars(Layout(str(tmp_path / "new"))).by_name["boxes"].about.fingerprint == FINGERPRINT
    with_sidecar(layout)
    (tmp_path / "new" / "sidecars" / "boxes" / "part-00000000.parquet").unlink()
    assert main(words) == 0
    told = capsys.readouterr()
    assert "boxes does not come along: the output has it for 2 of 3 units only" in told.err
    assert "; sidecars" not in told.out


def test_an_output_is_of_one_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = make_dataset(str(tmp_path / "old"))
    assert main(["filter", layout.root, "--output", str(tmp_path / "new"), "--kind", "picture"]) == 0
    assert main(["filter", layout.root, "--output", str(tmp_path / "new"), "--kind", "clip"]) == 2
    assert "kind" in capsys.readouterr().err
    assert main(["filter", layout.root, "--output", layout.root]) == 2
    assert "was not made by filter" in capsys.readouterr().err
    # Another picture came in: what was filtered before is of the data set as it was.
    made = [(make_item("images", "late"), make_media(77), 77)]
    rows, shards = write_samples(layout, 2, made)
    write_receipt(layout, 2, rows, shards, "f" * 16)
    assert main(["filter", layout.root, "--output", str(tmp_path / "new"), "--kind", "picture"]) == 2
    assert "other shards than then" in capsys.readouterr().err


def test_it_is_not_mined_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = make_dataset(str(tmp_path / "old"))
    assert main(["filter", layout.root, "--output", str(tmp_path / "new")]) == 0
    (tmp_path / "pictures").mkdir()
    assert main(["mine", "--input", str(tmp_path / "pictures"), "--output", str(tmp_path / "new")]) == 2
    assert "was made by trackmill filter" in capsys.readouterr().err


def test_its_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = make_dataset(str(tmp_path / "old"))
    assert main(["filter", layout.root, "--output", str(tmp_path / "new")]) == 0
    capsys.readouterr()
    assert main(["status", str(tmp_path / "new"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "done"
    (next((tmp_path / "new" / "receipts").iterdir())).unlink()
    main(["status", str(tmp_path / "new"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["state"] == "stopped" and found["next"].startswith(f"trackmill filter {layout.root} --output")


def test_a_damaged_sample_is_not_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = make_dataset(str(tmp_path / "old"))
    shard = tmp_path / "old" / "shards" / "part-00000000.tar"
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    assert main(["filter", layout.root, "--output", str(tmp_path / "new")]) != 0
    assert "checksum" in capsys.readouterr().err
    assert (
        not list((tmp_path / "new" / "shards").glob("*.tar")) or len(open_dataset(str(tmp_path / "new")).receipts) < 2
    )


def test_a_manifest_alone_suffices(tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path / "old"))
    before = samples(layout.root)
    for path in (tmp_path / "old" / "receipts").iterdir():
        path.unlink()
    assert main(["filter", layout.root, "--output", str(tmp_path / "new")]) == 0
    assert samples(tmp_path / "new") == before
    whole(tmp_path / "new")


def test_in_memory_stores(tmp_path: Path) -> None:
    make_dataset("memory://filter-in")
    assert main(["filter", "memory://filter-in", "--output", "memory://filter-out", "--kind", "picture"]) == 0
    assert len(samples("memory://filter-out")) == 4
    whole("memory://filter-out")


def test_it_is_what_training_reads(tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path / "old"))
    assert main(["filter", layout.root, "--output", str(tmp_path / "new"), "--kind", "picture"]) == 0
    catalog = read_catalog(str(tmp_path / "new"))
    assert sum(catalog.frames) == 4 and catalog.checksums is not None and all(catalog.checksums)


def test_the_plan_is_a_table(tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path / "old"))
    assert main(["filter", layout.root, "--output", str(tmp_path / "new"), "--unit-frames", "3"]) == 0
    planned = pq.read_table(tmp_path / "new" / "plan" / "plan-000.parquet").to_pylist()
    assert [row["unit"] for row in planned] == [0, 0, 0, 1, 2]
