"""The harness's own checkers: each kind of damage is noticed, and what may differ is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.chaos.checker import faults
from tests.chaos.items import make_items
from tests.chaos.ledger import Ledger
from tests.chaos.schedule import events
from tests.chaos.setting import WEIGHTS
from tests.chaos.training_run import different
from trackmill.pipeline.mining.inline import InlineExecutor
from trackmill.pipeline.mining.prepare import prepare_mining
from trackmill.pipeline.mining.run import begin_progress, execute
from trackmill.pipeline.mining.settings import mine_config


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A small corpus, mined in this process, and what its items are to become."""
    folder = tmp_path_factory.mktemp("calm")
    expected = make_items(folder / "in", 60, seed=3)
    values = {"proposer": "tests.chaos.tiny_proposer:TinyProposer", "proposer_settings": {"seconds": 0.0}}
    config = mine_config({**values, "shards": {"unit_frames": 8}, "run": {"isolate": False}}, "test")
    run = prepare_mining(config, [str(folder / "in")], str(folder / "out"))
    execute(run, lambda: InlineExecutor(run.job(), lambda states: None), begin_progress(run))
    assert len(set(expected.values())) > 2, "there are bad ones of several kinds"
    return folder / "out", expected


def rewrite(change: Callable[[pa.Table], pa.Table], name: str = "receipts/part-00000002.parquet"):
    """A damage that changes the table of one file."""

    def damage(root: Path) -> None:
        table = pq.read_table(root / name)
        pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), root / name)

    return damage


def column(table: pa.Table, name: str, values: object) -> pa.Table:
    """A table with another column."""
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))


def flip(name: str):
    """A damage that changes one byte of a file."""

    def damage(root: Path) -> None:
        data = bytearray((root / name).read_bytes())
        data[len(data) // 2] ^= 1
        (root / name).write_bytes(data)

    return damage


DAMAGES = {
    "lost, in no receipt": rewrite(lambda table: table.slice(1)),
    "has 2 rows": rewrite(lambda table: pa.concat_tables([table, table.slice(0, 1)])),
    "should be ok": rewrite(lambda table: column(table, "status", ["quarantined"] * len(table))),
    "a receipt with other rows": rewrite(lambda table: column(table, "size", pc.add(table["size"], 1).to_pylist())),
    "not the receipts laid end to end": rewrite(lambda table: table.slice(1), "manifest/items.parquet"),
    "other bytes than in the undisturbed run: shards/": flip("shards/part-00000001.tar"),
    "other bytes than in the undisturbed run: plan/": flip("plan/plan-0000.parquet"),
    "missing: manifest/shards.parquet": lambda root: (root / "manifest/shards.parquet").unlink(),
    "missing: shards/": lambda root: (root / "shards/part-00000001.tar").unlink(),
    "left behind: shards/.tmp-x.part": lambda root: (root / "shards/.tmp-x.part").touch(),
    "folder left behind: .claims": lambda root: (root / ".claims").mkdir(),
}


def copied(root: Path, target: Path) -> Path:
    shutil.copytree(root, target)
    return target


def test_an_equal_data_set_has_no_faults(calm: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    root, expected = calm
    here = copied(root, tmp_path / "out")
    assert faults(here, root, expected) == []
    # It may have taken longer, which receipts and manifest say alike.
    for path in sorted(here.glob("receipts/*.parquet")):
        rewrite(lambda table: column(table, "seconds", [9.0] * len(table)), f"receipts/{path.name}")(here)
    rewrite(lambda table: column(table, "seconds", [9.0] * len(table)), "manifest/items.parquet")(here)
    assert faults(here, root, expected) == []


@pytest.mark.parametrize("said", DAMAGES)
def test_a_damage_is_noticed(said: str, calm: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    root, expected = calm
    here = copied(root, tmp_path / "out")
    DAMAGES[said](here)
    assert said in "\n".join(faults(here, root, expected))


def test_a_bad_item_must_be_refused_for_its_own_reason(calm: tuple[Path, dict[str, str]]) -> None:
    root, expected = calm
    bad = next(name for name, what in expected.items() if what != "ok")
    assert f"{bad} is {expected[bad]}" in "\n".join(faults(root, root, expected | {bad: "ok"}))


def make_run(root: Path, losses: list[float], weights: bytes) -> Path:
    """What a training run leaves."""
    (root / "final").mkdir(parents=True)
    lines = [json.dumps({"step": step, "loss": loss, "data_wait": 0.1}) for step, loss in enumerate(losses, 1)]
    (root / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (root / "final" / "model.safetensors").write_bytes(weights)
    return root


@pytest.mark.parametrize(
    ("losses", "weights", "extra", "said"),
    [
        ([3.0, 2.0, 1.0], b"w", "", ""),
        ([3.0, 2.0, 1.5], b"w", "", "step 3 gave other numbers"),
        ([3.0, 2.0], b"w", "", "has the steps [1, 2]"),
        ([3.0, 2.0, 1.0], b"v", "", "final/model.safetensors has other bytes"),
        ([3.0, 2.0, 1.0], b"w", "checkpoints/.tmp-x.part", "left behind: checkpoints/.tmp-x.part"),
    ],
)
def test_what_of_a_training_run_is_different(
    losses: list[float], weights: bytes, extra: str, said: str, tmp_path: Path
) -> None:
    there = make_run(tmp_path / "there", [3.0, 2.0, 1.0], b"w")
    here = make_run(tmp_path / "here", losses, weights)
    if extra:
        (here / extra).parent.mkdir()
        (here / extra).touch()
    found = "\n".join(different(here, there))
    assert said in found and bool(found) == bool(said)


def test_a_seed_repeats_what_happens() -> None:
    first, again, other = (events(seed, WEIGHTS, (1, 5)) for seed in (7, 7, 8))
    drawn = [next(first) for _ in range(400)]
    assert drawn == [next(again) for _ in range(400)]
    assert drawn != [next(other) for _ in range(400)]
    assert {each.kind for each in drawn} == set(WEIGHTS), "every kind comes"


def test_the_table_sums_up() -> None:
    ledger = Ledger("items")
    ledger.done("SIGKILL of an actor", kills=1, again=3)
    ledger.done("SIGKILL of an actor", kills=1, again=5)
    ledger.done("the clock jumps")
    lines = ledger.table(92)
    assert ledger.kills == 2
    assert lines[2].split()[-4:-1] == ["2", "2", "8"]
    assert "useful share: 0.9200 of the work (92 items, 8 again)" in lines[-1]
