"""Pieces of work are claimed: by one of many, taken over from the dead, never trusted, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import orjson
import pytest

from tests.s3_server import s3_server
from trackmill.pipeline.storage import create
from trackmill.pipeline.storage.claim_files import FOLDER, read_claims
from trackmill.pipeline.storage.claims import Claims
from trackmill.pipeline.storage.create import create_bytes
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.owner import this_process
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.signs_of_life import SignsOfLife

PIECE = "part-00000012"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create, "SETTLE_S", 0.02)


@pytest.fixture(params=["local", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path / "out")
        return
    with s3_server() as (host, port):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        create._KNOWN.clear()
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket/out"


def _foreign(**more: object) -> bytes:
    values = this_process("mine part 7/8").values()
    return orjson.dumps(values | {"host": "node-7", "machine": "node-7-1", "alone": True, "deaths": 0} | more)


def _dead(claims: Claims) -> None:
    """Let `claims` have looked for so long that all who are still are dead."""
    now = [0.0]
    claims._signs = SignsOfLife(claims.expires_s, lambda: now[0])
    for seconds in range(0, int(claims.expires_s) + 20, 20):
        now[0] = float(seconds)
        claims.look()


def test_one_of_two_gets_a_piece_and_leaves_nothing_behind(output: str) -> None:
    first, second = Claims(output, "mine"), Claims(output, "mine")
    first.join()
    second.join()
    assert first.claim([PIECE, "part-00000013"]) == [PIECE, "part-00000013"]
    assert second.claim([PIECE, "part-00000014"]) == ["part-00000014"]
    assert second.pieces() == {PIECE, "part-00000013", "part-00000014"}
    assert {claim.piece for claim in read_claims(output)} == second.pieces()
    assert second.others()[0] == 1
    first.release(PIECE)
    first.close()
    second.close()
    fs, path = fsspec.core.url_to_fs(f"{output}/{FOLDER}")
    fs.invalidate_cache()
    assert not fs.exists(path) or not fs.find(path)


def test_what_the_dead_had_in_hand_is_taken_over_by_one(output: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "trackmill")
    publish_bytes(f"{output}/{FOLDER}/{PIECE}.json", _foreign())
    claims = Claims(output, "mine")
    claims.join()
    claims.look()
    assert claims.sign(PIECE) == "unknown"
    assert claims.claim([PIECE]) == []
    _dead(claims)
    assert claims.sign(PIECE) == "dead"
    assert claims.take_over([PIECE]) == [PIECE]
    assert "part-00000012 is taken over" in caplog.text
    assert [(claim.piece, claim.deaths) for claim in read_claims(output)] == [(PIECE, 1)]
    claims.close()
    assert read_claims(output) == []


def test_who_was_taken_for_dead_says_that_it_did_the_piece_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    claims = Claims(str(tmp_path), "mine")
    claims.join()
    claims.claim([PIECE])
    publish_bytes(f"{tmp_path}/{FOLDER}/{PIECE}.json", _foreign())
    claims.release(PIECE)
    claims.close()
    assert "part-00000012 was also done by another process" in caplog.text
    assert "bytes are equal" in caplog.text
    assert [claim.piece for claim in read_claims(str(tmp_path))] == [PIECE], "the other's claim is not ours to remove"


def test_a_process_of_this_machine_is_looked_up(tmp_path: Path) -> None:
    boot = this_process("mine").started.partition("-")[0]
    publish_bytes(
        f"{tmp_path}/{FOLDER}/{PIECE}.json", orjson.dumps(this_process("x").values() | {"started": f"{boot}-1"})
    )
    publish_bytes(f"{tmp_path}/{FOLDER}/part-00000013.json", orjson.dumps(this_process("x").values()))
    claims = Claims(str(tmp_path), "mine")
    claims.look()
    assert claims.sign(PIECE) == "dead"
    assert claims.sign("part-00000013") == "alive"


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\xff\x00{",
        b"[1, 2]",
        b"{" * 10_000,
        b'"' + b"x" * 200_000 + b'"',
        _foreign(token="../../../etc/passwd"),
        _foreign(host="\x1b[2Jevil\nerror: all is lost", deaths=-5),
        _foreign(deaths=10**15, alone="yes"),
        _foreign(pid="1"),
    ],
)
def test_a_hostile_claim_is_data(tmp_path: Path, document: bytes) -> None:
    path = tmp_path / FOLDER / f"{PIECE}.json"
    path.parent.mkdir()
    path.write_bytes(document)
    claims = Claims(str(tmp_path), "mine")
    claims.join()
    claims.look()
    assert claims.claim([PIECE]) == []
    assert claims.deaths(PIECE) <= 1000
    assert claims.owner_of(PIECE).isprintable()
    _dead(claims)
    assert claims.take_over([PIECE]) == [PIECE]
    claims.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_a_claim_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / FOLDER / f"{PIECE}.json").mkdir(parents=True)
    claims = Claims(str(tmp_path), "mine")
    claims.join()
    assert claims.claim([PIECE]) == []
    _dead(claims)
    assert claims.take_over([PIECE]) == []
    claims.close()


def test_a_store_that_ignores_the_condition_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create, "_CONDITIONAL", ("memory",))
    fs = fsspec.filesystem("memory")
    monkeypatch.setattr(type(fs), "pipe_file", lambda self, path, data, **_: self.store_it(path, data), raising=False)

    def store_it(self: object, path: str, data: bytes) -> None:
        with fs.open(path, "wb") as handle:
            handle.write(data)

    monkeypatch.setattr(type(fs), "store_it", store_it, raising=False)
    create._KNOWN.clear()
    assert create_bytes("memory://bucket/a", b"mine")
    assert not any(create._KNOWN.values())
    assert not create_bytes("memory://bucket/a", b"yours")
    assert read_bytes("memory://bucket/a") == b"mine"


def test_signs_of_life_are_counted_by_the_one_who_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 4e9)  # a clock that jumps changes nothing
    now = [0.0]
    signs = SignsOfLife(60, lambda: now[0])
    for second in range(0, 61, 20):
        now[0] = float(second)
        signs.look({"beats": second, "still": 1})
        assert signs.of("still") == ("dead" if second == 60 else "unknown")
    assert signs.of("beats") == "alive"
    now[0] = 500.0  # this process stood still itself: nobody is dead because of that
    signs.look({"beats": 40, "still": 1})
    assert {signs.of("beats"), signs.of("still"), signs.of("never seen")} == {"unknown"}
