"""A sidecar made while mining is the sidecar made later, byte for byte; also after faults, retries and kills."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.make_dataset import make_dataset
from tests.make_media import make_pictures, make_video
from trackmill.pipeline.mining.inline import InlineExecutor
from trackmill.pipeline.mining.prepare import Run, add_sidecars, prepare_mining, reopen
from trackmill.pipeline.mining.progress import MiningProgress
from trackmill.pipeline.mining.run import execute
from trackmill.pipeline.mining.settings import mine_config
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import read_receipts
from trackmill.pipeline.shards.verify import verify
from trackmill.pipeline.sidecars import making
from trackmill.pipeline.sidecars.about import SidecarError
from trackmill.pipeline.sidecars.producer import BadRows
from trackmill.pipeline.sidecars.requests import request_sidecars
from trackmill.pipeline.sidecars.run import make_sidecar

BRIGHTNESS = "brightness=tests.sidecars.producers:Brightness"
PRODUCER = "tests.sidecars.producers:Brightness"
VALUES = {
    "graph": {"backend": "skimage"},
    "run": {"executor": "inline"},
    "shards": {"unit_frames": 3, "max_samples": 2},
}


def mined(root: Path, media: Path, sidecars: tuple[str, ...] = (), again: bool = False, **sections: object) -> Run:
    """Mine a folder of media, in this process."""
    config = mine_config(VALUES, "test")
    run = reopen(config, [str(media)], str(root)) if again else prepare_mining(config, [str(media)], str(root))
    add_sidecars(run, request_sidecars(list(sidecars), sections))
    progress = MiningProgress(run.plan.num_items, run.plan.num_frames)
    execute(run, lambda: InlineExecutor(run.job(), progress.tick), progress, only_quarantined=again)
    return run


def files(root: Path, *below: str) -> dict[str, bytes]:
    """Bytes of all files under a folder, by path."""
    folder = root.joinpath(*below)
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def media(tmp_path: Path) -> Iterator[Path]:
    make_pictures(tmp_path / "in", count=5)
    make_video(tmp_path / "in" / "clip.mp4", num_frames=40)
    yield tmp_path / "in"


def test_in_one_pass_and_later_are_the_same_bytes(tmp_path: Path, media: Path) -> None:
    mined(tmp_path / "one", media, (BRIGHTNESS, "chains"), chains={"min_length": 1})
    mined(tmp_path / "two", media)
    make_sidecar(str(tmp_path / "two"), "brightness", PRODUCER)
    outcome = make_sidecar(str(tmp_path / "two"), "chains", settings={"min_length": 1})
    assert sum(result.rows for result in outcome.made) > 0, "there is something to compare"
    assert any(b"-01.tar" in data for data in files(tmp_path / "one", "sidecars").values()), "a unit of two shards"
    assert files(tmp_path / "one", "sidecars") == files(tmp_path / "two", "sidecars")
    assert files(tmp_path / "one", "shards") == files(tmp_path / "two", "shards")


def test_mining_without_sidecars_knows_nothing_of_them(tmp_path: Path, media: Path) -> None:
    run = mined(tmp_path / "one", media)
    assert not Path(run.layout.sidecars).exists()
    document = orjson.loads(Path(run.layout.config).read_bytes())
    assert "sidecars" not in document["config"] and "sidecars" not in document["parts"]


def test_a_retry_has_a_part_of_its_own_both_ways(tmp_path: Path, media: Path) -> None:
    broken = media / "picture_2.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 3])
    for name in ("one", "two"):
        mined(tmp_path / name, media, (BRIGHTNESS,) if name == "one" else ())
    broken.write_bytes(whole)
    for name in ("one", "two"):
        mined(tmp_path / name, media, (BRIGHTNESS,) if name == "one" else (), again=True)
    make_sidecar(str(tmp_path / "two"), "brightness", PRODUCER)
    names = set(files(tmp_path / "one", "sidecars", "brightness"))
    assert any("-r01" in name for name in names), names
    assert files(tmp_path / "one", "sidecars") == files(tmp_path / "two", "sidecars")


def test_a_sample_that_a_producer_cannot_use_is_quarantined_in_the_sidecar_alone(tmp_path: Path, media: Path) -> None:
    root = mined(tmp_path / "two", media).layout.root
    key = next(row.key for receipt in read_receipts(Layout(root)) for row in receipt.rows)
    run = mined(tmp_path / "one", media, (BRIGHTNESS,), brightness={"fail": key})
    outcome = make_sidecar(root, "brightness", PRODUCER, {"fail": key})
    assert files(tmp_path / "one", "shards") == files(tmp_path / "two", "shards")
    assert verify(run.layout.root) == []
    ours, theirs = (files(tmp_path / name, "sidecars", "brightness") for name in ("one", "two"))
    assert {n: d for n, d in ours.items() if "part" in n} == {n: d for n, d in theirs.items() if "part" in n}
    (bad,) = [entry for result in outcome.made for entry in result.quarantined]
    assert bad == (key, "ArithmeticError", "nothing to see in shard")

    assert make_sidecar(root, "brightness", PRODUCER).made == [], "nothing is missing"
    retried = make_sidecar(root, "brightness", PRODUCER, only_quarantined=True)
    assert len(retried.made) == 1 and retried.made[0].num_quarantined == 0
    assert make_sidecar(root, "brightness", PRODUCER, only_quarantined=True).made == []


def test_the_same_again_does_nothing(tmp_path: Path) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    first = make_sidecar(root, "brightness", PRODUCER)
    before = files(tmp_path / "set")
    again = make_sidecar(root, "brightness", PRODUCER, {"batch": 7})  # changes no row, so it may change
    assert (len(first.made), len(again.made), again.done_before, again.parts) == (2, 0, 2, 2)
    assert files(tmp_path / "set") == before


def test_killed_between_two_parts_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, other = (make_dataset(str(tmp_path / name)).root for name in ("killed", "whole"))
    publish, calls = making.publish_bytes, []

    def dies(url: str, data: bytes) -> None:
        calls.append(url)
        if len(calls) == 2:
            raise KeyboardInterrupt
        publish(url, data)

    monkeypatch.setattr(making, "publish_bytes", dies)
    with pytest.raises(KeyboardInterrupt):
        make_sidecar(root, "brightness", PRODUCER)
    there = set(files(tmp_path / "killed", "sidecars", "brightness"))
    # Threads put them into their place, in any order.
    assert there == {"sidecar.json", "part-00000000.parquet"} or there == {"sidecar.json", "part-00000001.parquet"}
    monkeypatch.undo()
    outcome = make_sidecar(root, "brightness", PRODUCER)
    assert (outcome.done_before, len(outcome.made)) == (1, 1)
    make_sidecar(other, "brightness", PRODUCER)
    assert files(tmp_path / "killed", "sidecars") == files(tmp_path / "whole", "sidecars")


def test_changed_settings_are_refused_by_name(tmp_path: Path, media: Path) -> None:
    run = mined(tmp_path / "one", media, (BRIGHTNESS,))
    with pytest.raises(SidecarError, match=r"begun with other settings[^$]*producer\.settings\.level: 128 -> 50"):
        make_sidecar(run.layout.root, "brightness", PRODUCER, {"level": 50})
    with pytest.raises(SidecarError, match=r"producer\.settings\.level: 128 -> 50"):
        add_sidecars(run, request_sidecars([BRIGHTNESS], {"brightness": {"level": 50}}))


def test_a_sidecar_that_was_only_begun_may_begin_anew(tmp_path: Path) -> None:
    root = make_dataset(str(tmp_path / "set")).root
    make_sidecar(root, "brightness", PRODUCER)
    for part in Path(root, "sidecars", "brightness").glob("part-*"):
        part.unlink()
    assert len(make_sidecar(root, "brightness", PRODUCER, {"level": 50}).made) == 2


@pytest.mark.parametrize("how", ["later", "same pass"])
def test_a_producer_that_breaks_its_contract_stops_the_run(tmp_path: Path, media: Path, how: str) -> None:
    wrong = "tests.sidecars.producers:Wrong"
    with pytest.raises(BadRows, match=r"wrong: \S+: 'box': row 0 is .* leaves its frame of"):
        if how == "later":
            make_sidecar(make_dataset(str(tmp_path / "out")).root, "wrong", wrong)
        else:
            mined(tmp_path / "out", media, (f"wrong={wrong}",))
    assert not list(tmp_path.rglob("sidecars/wrong/part-*"))
