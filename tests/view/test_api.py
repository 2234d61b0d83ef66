"""What the viewer answers: pages, filters, samples, pictures, masks, sidecars; also while mining goes on."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.make_dataset import DOCUMENT, make_dataset, make_item, make_media, make_row, write_samples
from tests.view.served import Served, served
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import open_dataset, read_sample
from trackmill.pipeline.shards.receipts import write_receipt
from trackmill.pipeline.sidecars.run import make_sidecar
from trackmill.pipeline.storage.documents import publish_document


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = make_dataset(str(tmp_path_factory.mktemp("view") / "set"), num_images=7).root
    make_sidecar(url, "chains", settings={"min_iou": 0.3})
    make_sidecar(url, "brightness", "tests.sidecars.producers:Brightness")
    return url


@pytest.fixture(scope="module")
def view(root: str) -> Iterator[Served]:
    with served(root) as running:
        yield running


def test_the_head(view: Served, root: str) -> None:
    about = view.get("about")
    assert about["samples"] == 8 and about["statuses"] == {"ok": 8, "quarantined": 1, "skipped": 1}
    assert about["sources"] == [{"name": "images", "count": 7}, {"name": "videos", "count": 1}]
    assert about["reasons"] == [{"name": "TruncatedMedia", "count": 1}]
    assert not about["going"] and about["fingerprint"] == "f" * 16
    assert [(s["name"], s["boxes"]) for s in about["sidecars"]] == [("brightness", True), ("chains", True)]


def test_pages_hold_every_sample_once(view: Served, root: str) -> None:
    keys = [row.key for row in open_dataset(root).stored]
    pages = [view.get("rows", begin=begin, count=3) for begin in (0, 3, 6, 9)]
    assert [row["key"] for page in pages for row in page["rows"]] == keys
    assert [len(page["rows"]) for page in pages] == [3, 3, 2, 0]
    assert all(page["complete"] and page["found"] == 8 for page in pages)
    assert len(view.rows(count=100_000)) == 8


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"source": "images"}, 7),
        ({"source": "image"}, 0),  # a whole name
        ({"kind": "clip"}, 1),
        ({"kind": "picture"}, 7),
        ({"negatives": "with"}, 8),
        ({"negatives": "without"}, 0),
        ({"min_objects": 3}, 1),  # the clip
        ({"max_objects": 2, "min_proposals": 4}, 7),
        ({"min_mean_score": 0.65, "max_mean_score": 0.65}, 8),  # 0.9, 0.73, 0.57 and 0.4
        ({"min_mean_score": 0.66}, 0),
        ({"max_mean_score": -1.0}, 0),
        ({"text": "PIC3"}, 1),
        ({"text": "/raw/videos"}, 1),
        ({"text": ".*"}, 0),  # not a pattern
        ({"source": "images", "text": "pic", "max_proposals": 3}, 0),
        ({"status": "quarantined"}, 1),
        ({"status": "quarantined", "reason": "TruncatedMedia"}, 1),
        ({"status": "quarantined", "reason": "Other"}, 0),
        ({"status": "skipped"}, 1),
    ],
)
def test_filters(view: Served, filters: dict[str, str | int], count: int) -> None:
    page = view.get("rows", **filters)
    assert (len(page["rows"]), page["found"], page["complete"]) == (count, count, True)


def test_what_was_set_aside_says_why(view: Served) -> None:
    (row,) = view.rows(status="quarantined")
    assert (row["error_class"], row["reason"]) == ("TruncatedMedia", "cut off after 100 of 200 bytes")


def test_a_sample_and_where_it_came_from(view: Served, root: str) -> None:
    row = view.rows(kind="clip")[0]
    found = view.get("sample", row=row["number"], key=row["key"])
    stored = read_sample(open_dataset(root), row["key"])
    assert (found["num_frames"], found["width"], found["height"]) == (10, 64, 48)
    layers = found["frames"]["3"]["layers"]
    record = stored.record.frames[3]
    assert [entry["id"] for entry in layers["objects"]] == ["7", "12"]
    assert [entry["box"] for entry in layers["negatives"]] == [record.proposals.boxes[i] for i in (2, 3)]
    assert [entry["mask"] for entry in layers["proposals"]] == [0, 1]
    assert [entry["title"] for entry in layers["refused"]] == ["refused: small", "refused: unstable"]
    said = {(line["heading"], line["name"]): line["value"] for line in found["lineage"]}
    assert said["origin", "URI"] == stored.record.origin.uri
    assert said["origin", "SHA-256"] == stored.record.origin.sha256
    assert said["conversion", "fingerprint"] == "f" * 16
    assert said["shard", "file"] == f"{root}/shards/{stored.shard}"
    assert said["shard", "byte range"] == f"{stored.size:,} bytes at {stored.offset:,}"
    assert said["receipt", "file"] == "receipts/part-00000001.parquet, position 0"
    only = view.get("sample", row=row["number"], key=row["key"], frame=0)
    assert list(only["frames"]) == ["0"] and "lineage" not in only


def test_a_sample_is_found_by_its_key_alone(view: Served) -> None:
    key = view.rows()[2]["key"]
    assert view.get("sample", key=key)["key"] == key
    assert view.get("sample", key=key, row=5)["key"] == key, "a number of an older opening"
    assert view.ask("api/sample", key="images-none-0").status == 404
    assert view.ask("api/sample", key=view.rows(status="quarantined")[0]["key"]).status == 404


def test_frames_are_those_of_the_shard(view: Served, root: str) -> None:
    row = view.rows(kind="clip")[0]
    stored = read_sample(open_dataset(root), row["key"])
    answer = view.ask("api/frame", row=row["number"], key=row["key"], frame=4)
    assert answer.body == stored.jpegs[4] and answer.headers["content-type"] == "image/jpeg"
    small = Image.open(io.BytesIO(view.ask("api/frame", key=row["key"], frame=4, width=200).body))
    assert small.size == (64, 48), "never larger than what is stored"
    assert np.abs(np.asarray(small).astype(int) - stored.image(4)).mean() < 8
    assert view.ask("api/frame", key=row["key"], frame=10).status == 404
    assert view.ask("api/frame", key=row["key"], frame=4, width=100_000).status == 404


def test_masks_are_run_lengths(view: Served, root: str) -> None:
    row = view.rows()[0]
    found = view.get("masks", row=row["number"], key=row["key"], frame=0)
    stored = read_sample(open_dataset(root), row["key"])
    assert [mask["counts"] for mask in found["proposals"]] == [m.counts for m in stored.proposal_masks(0) if m]
    assert len(found["objects"]) == 2


def test_sidecars(view: Served) -> None:
    row = view.rows(kind="clip")[0]
    chains = view.get("sidecar", name="chains", row=row["number"], key=row["key"])["frames"]
    assert len(chains) == 10
    first, last = ({entry["id"]: entry["colour"] for entry in chains[frame]} for frame in (0, 9))
    assert first.keys() & last.keys(), "a chain goes through the clip"
    assert all(first[chain] == last[chain] for chain in first.keys() & last.keys()), "in one colour"
    other = view.get("sidecar", name="brightness", row=row["number"], key=row["key"])["frames"]
    assert other[0][0]["id"] is None and "mean" in other[0][0]["title"]
    missing = view.ask("api/sidecar", name="masks", row=row["number"], key=row["key"])
    assert missing.status == 502 and "no sidecar 'masks'" in missing.json["error"]


def test_thumbnails_and_samples_stay_within_their_memory(root: str) -> None:
    with served(root, sample_bytes=1, picture_bytes=1) as tight:
        for row in tight.rows():
            assert tight.ask("api/frame", row=row["number"], key=row["key"], width=200).status == 200
        now = tight.data._now
        assert len(now.thumbnails._entries) == len(now._samples._entries) == 1, "the newest stays"


def test_a_data_set_that_is_being_mined(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / "set"))
    publish_document(layout.config, DOCUMENT)
    with served(layout.root) as view:
        about = view.get("about")
        assert about["going"] and about["samples"] == 0 and view.rows() == []
        for unit in (0, 1):
            item = make_item("images", f"pic{unit}")
            rows, shards = write_samples(layout, unit, [(item, make_media(unit), unit)])
            write_receipt(layout, unit, rows, shards, "f" * 16)
            assert len(view.rows()) == unit, "what is seen does not change by itself"
            assert view.get("about", again=1)["samples"] == unit + 1
            assert view.rows()[-1]["key"] == item.key
        assert view.ask("api/frame", key=item.key).status == 200


def test_a_damaged_receipt_and_a_damaged_sample_hide_nothing_else(tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path))
    Path(layout.receipt("part-00000001.parquet")).write_bytes(b"PAR1 nothing PAR1")
    shard = Path(layout.shard("part-00000000.tar"))
    data = bytearray(shard.read_bytes())
    data[600] ^= 255
    shard.write_bytes(data)
    with served(layout.root) as view:
        assert "part-00000001.parquet" in view.get("about")["damaged"][0]
        first, *others = view.rows()
        answer = view.ask("api/sample", key=first["key"])
        assert answer.status == 502 and "is damaged" in answer.json["error"]
        assert [view.ask("api/sample", key=row["key"]).status for row in others] == [200] * 3


def test_tars_alone(root: str) -> None:
    with served(f"{root}/shards") as view:
        assert len(view.rows()) == 8 and not view.get("about")["counted"]
        row = view.rows()[0]
        found = view.get("sample", row=row["number"], key=row["key"])
        assert "receipt" not in {line["heading"] for line in found["lineage"]}


def test_names_and_reasons_of_strangers_are_text(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>\x1b[2J"
    uri = f"https://user:secret@host/{evil}"
    layout = make_dataset(str(tmp_path), uri_prefix=uri, reason=f"{evil} at {uri}?token=secret2")
    with served(layout.root) as view:
        row, bad = view.rows()[0], view.rows(status="quarantined")[0]
        whole = view.ask("api/sample", key=row["key"])
        assert "<img src=x" in row["uri"] and "<img src=x" in bad["reason"], "escaped where it is shown, as text"
        for text in (row["uri"], bad["reason"], bad["uri"], whole.body.decode()):
            assert "secret" not in text and "\x1b" not in text and "\\u001b" not in text
        assert whole.headers["content-type"] == "application/json"
        assert whole.headers["x-content-type-options"] == "nosniff"


def test_a_receipt_that_points_elsewhere_leads_nowhere(tmp_path: Path) -> None:
    """A shard's name in a receipt is all that could become a path."""
    (tmp_path / "secret.tar").write_bytes(b"secret" * 1000)
    layout = make_dataset(str(tmp_path / "set"))
    item = make_item("images", "outside")
    row = make_row(item, 2, 0, shard="../../secret.tar", offset=0, size=1024, frames=1)
    write_receipt(layout, 2, [row], [], "f" * 16)
    with served(layout.root) as view:
        answer = view.ask("api/sample", key=item.key)
        assert answer.status == 502 and "cannot be the name of a shard" in answer.json["error"]


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("api/rows", {"begin": "x"}),
        ("api/rows", {"begin": "9" * 30}),
        ("api/rows", {"begin": "0" * 20 + "5"}),
        ("api/rows", {"min_objects": "many"}),
        ("api/rows", {"status": "gone"}),
        ("api/rows", {"text": "x" * 10_000}),
        ("api/frame", {"key": "k", "frame": "-7"}),
    ],
)
def test_values_that_no_page_sends(view: Served, path: str, values: dict[str, str]) -> None:
    answer = view.ask(path, **values)
    assert answer.status == 400 and answer.json["error"]


def test_looking_changes_nothing(view: Served, root: str) -> None:
    def state() -> dict[str, str]:
        files = sorted(path for path in Path(root).rglob("*") if path.is_file())
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = state()
    for row in view.rows():
        view.get("sample", row=row["number"], key=row["key"])
    view.get("about", again=1)
    assert state() == before
