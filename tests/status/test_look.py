"""What `trackmill status` finds out of a data set and a sidecar, from their files alone."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import orjson
import pyarrow as pa
import pytest

from tests.make_dataset import DOCUMENT, make_dataset, make_item, make_row
from tests.s3_server import s3_server
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import to_parquet, write_receipt
from trackmill.pipeline.sidecars.run import make_sidecar
from trackmill.pipeline.status import data_set, quarantined
from trackmill.pipeline.status.lines import lines
from trackmill.pipeline.status.look import look
from trackmill.pipeline.storage.claims import Claims
from trackmill.pipeline.storage.output_lock import NAME, locked
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.schemas.errors import InputError


def make_receipts(root: str, units: int, items: int, planned: int, bad_every: int = 0) -> Layout:
    """A data set without shards: the plan of `planned` units, and receipts of the first `units`."""
    layout = Layout(root)
    rows = [{"unit": unit} for unit in range(planned) for _ in range(items)]
    publish_bytes(f"{layout.plan}/plan-0000.parquet", to_parquet(pa.Table.from_pylist(rows)))
    publish_bytes(layout.config, orjson.dumps(DOCUMENT | {"inputs": ["/raw/images"]}))
    for unit in range(units):
        made = []
        for place in range(items):
            bad = bool(bad_every) and place % bad_every == 0
            values = {"status": "quarantined", "error_class": "Torn", "reason": "too short"} if bad else {}
            made.append(make_row(make_item("images", f"{unit}-{place}"), unit, place, **values))
        write_receipt(layout, unit, made, [], "f" * 16)
    return layout


def test_a_data_set_that_is_done(tmp_path: Path) -> None:
    make_dataset(str(tmp_path))
    status = look(str(tmp_path))
    assert (status.kind, status.state, status.done, status.total, status.left) == ("data set", "done", 2, 2, 0)
    assert (status.items_done, status.items, status.items_exact) == (7, 7, True)
    assert status.quarantine is not None
    assert status.quarantine.statuses == {"ok": 5, "quarantined": 1, "skipped": 1}
    assert [(each.error_class, each.count) for each in status.quarantine.reasons] == [("TruncatedMedia", 1)]
    assert status.exit_code(stale_after_s=0) == 0
    assert status.next.endswith("--only-quarantined")
    printed = "\n".join(lines(status))
    assert "2 of 2 units (100%), 7 of 7 items; 0 units left" in printed
    assert "1 of 7 items, 14.29%, in all 2 receipts" in printed
    assert "1 TruncatedMedia, such as /raw/images/broken.jpg: cut off after 100 of 200 bytes" in printed
    assert json.loads(json.dumps(status.as_dict(), allow_nan=False))["left"] == 0


def test_more_than_allowed_is_incomplete(tmp_path: Path) -> None:
    make_dataset(str(tmp_path))
    limited = DOCUMENT | {"config": {"run": {"max_quarantined": "10%"}}}
    (tmp_path / "config.json").write_bytes(orjson.dumps(limited))
    status = look(str(tmp_path))
    assert status.exit_code() == 3
    assert "run.max_quarantined = 10% allows" in status.notes[0]


def test_what_is_left_and_what_goes_on(tmp_path: Path) -> None:
    layout = make_receipts(str(tmp_path), units=3, items=4, planned=10)
    for unit in range(3):
        os.utime(layout.receipt(f"part-{unit:08d}.parquet"), (1000.0 + 20 * unit,) * 2)
    status = look(str(tmp_path))
    assert (status.state, status.done, status.left, status.items_done, status.items) == ("stopped", 3, 7, 12, 40)
    assert status.pace.recent == status.pace.overall == pytest.approx(0.05)
    assert status.eta_s == pytest.approx(140)
    assert status.next == (
        f"trackmill mine --input /raw/images --output {tmp_path} --source auto --proposer graph "
        "--set graph.min_area=0.001"
    )
    assert status.is_stale(600) and status.exit_code(600) == 1
    assert "ETA 2 min 20 s once it goes on" in "\n".join(lines(status))


def test_units_that_are_done_but_not_summed_up(tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path))
    os.unlink(layout.manifest)
    status = look(str(tmp_path))
    assert (status.state, status.left) == ("stopped", 0)
    assert "the manifest is missing" in status.notes[0]


def test_who_holds_it(tmp_path: Path) -> None:
    make_receipts(str(tmp_path), units=1, items=2, planned=2)
    with locked(str(tmp_path), "mine"):
        status = look(str(tmp_path))
        assert status.state == "going"
        assert status.holders[0].alive and f"process {os.getpid()}" in status.holders[0].who
        assert status.signs[0].what == "a process's beat" and not status.signs[0].progress
        held = json.loads((tmp_path / NAME).read_text())
        # Of another machine nothing is known but when the file was written.
        other = {**held, "machine": "elsewhere-1", "host": "elsewhere"}
        (tmp_path / NAME).write_text(json.dumps(other))
        assert look(str(tmp_path)).state == "going"
        now = (tmp_path / NAME).stat().st_mtime
        os.utime(tmp_path / NAME, (now - 3600, now - 3600))
        status = look(str(tmp_path))
        assert (status.state, status.holders[0].alive) == ("stopped", False)
        assert "it is dead" in "\n".join(lines(status))
        (tmp_path / NAME).write_text(json.dumps(held))


def test_who_works_on_units_of_it(tmp_path: Path) -> None:
    make_receipts(str(tmp_path), units=1, items=2, planned=2)
    with contextlib.closing(Claims(str(tmp_path), "mine")) as claims:
        claims.join()
        claims.claim(["part-00000001"])
        status = look(str(tmp_path))
        assert status.state == "going"
        assert [(each.alive, f"process {os.getpid()}" in each.who) for each in status.holders] == [(True, True)]
        assert status.signs[0].what == "a process's beat"
    assert look(str(tmp_path)).state == "stopped"


def test_of_a_large_plan_only_the_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_set, "_SMALL_PLAN", 0)
    monkeypatch.setattr(quarantined, "SAMPLE", 2)
    monkeypatch.setattr(data_set, "read_bytes", None)  # would be called for the whole plan
    monkeypatch.setattr(data_set, "chosen", lambda names: chosen(names, 2))
    chosen = quarantined.chosen
    make_receipts(str(tmp_path), units=5, items=4, planned=10, bad_every=2)
    status = look(str(tmp_path))
    assert (status.done, status.total, status.items_done, status.items) == (5, 10, 20, 40)
    assert not status.items_exact
    assert "about 20 of 40 items" in "\n".join(lines(status))
    assert "4 of 8 items, 50.00%, in 2 of 5 receipts (--all reads all)" in "\n".join(lines(status))
    everything = look(str(tmp_path), everything=True)
    assert everything.items_exact and everything.quarantine is not None
    assert (everything.quarantine.receipts, everything.quarantine.quarantined) == (5, 10)


def test_a_damaged_receipt_is_told(tmp_path: Path) -> None:
    layout = make_dataset(str(tmp_path))
    Path(layout.receipt("part-00000001.parquet")).write_bytes(b"PAR1" * 8)
    status = look(str(tmp_path))
    assert status.quarantine is not None and len(status.quarantine.damaged) == 1
    assert any("1 receipt is damaged, such as" in note for note in status.notes)


def test_in_an_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as (host, port):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        import s3fs

        s3fs.S3FileSystem().mkdir("bucket")
        make_receipts("s3://bucket/set", units=2, items=3, planned=4)
        with locked("s3://bucket/set", "mine"):
            status = look("s3://bucket/set")
        assert (status.state, status.done, status.total, status.items_done) == ("going", 2, 4, 6)
        assert status.clock == "store"
        assert status.signs and all(0 <= sign.age_s < 3600 for sign in status.signs)
        assert look("s3://bucket/set/").state == "stopped"
        with pytest.raises(InputError, match=r"no config.json and no sidecar.json there"):
            look("s3://bucket/nothing")


def test_a_sidecar(tmp_path: Path) -> None:
    make_dataset(str(tmp_path))
    make_sidecar(str(tmp_path), "brightness", "tests.sidecars.producers:Brightness")
    folder = tmp_path / "sidecars" / "brightness"
    status = look(str(folder))
    assert (status.kind, status.state, status.done, status.total) == ("sidecar", "done", 2, 2)
    assert status.quarantine is not None and status.quarantine.items == 5
    (folder / "part-00000001.parquet").unlink()
    status = look(str(folder))
    assert (status.state, status.done, status.left) == ("stopped", 1, 1)
    assert status.next.startswith(f"trackmill sidecar {tmp_path} brightness")


def test_something_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give the --output of trackmill mine or train"):
        look(str(tmp_path))
    (tmp_path / "config.json").write_text('{"hello": 1}')
    with pytest.raises(InputError, match="made by neither"):
        look(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="restore it"):
        look(str(tmp_path))
