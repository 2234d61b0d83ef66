"""Signed URLs as inputs: read with their signatures, known without them, and the signatures stay in the plan alone."""

from __future__ import annotations

import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.feather as feather
import pytest

from tests.make_media import make_pictures
from tests.runs import mine as mine_by_process
from tests.runs import rows
from tests.storage.folder_server import FolderServer, serving_folder
from trackmill.jobs import mine_proposals
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.secrets import signed_urls
from trackmill.pipeline.storage.secrets.signed_urls import SignaturesDiffer, with_signature, without_signature

FIRST, SECOND = "5f3c09d1e2b84a76first", "88e1d0c2b3a4958second"


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed_urls, "_queries", {})
    monkeypatch.setattr(signed_urls, "_for_all", set())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FolderServer]:
    pytest.importorskip("aiohttp", reason='needs pip install -e ".[http]"')
    make_pictures(tmp_path / "in", 3)
    with serving_folder(tmp_path / "in") as server:
        server.signature = FIRST
        yield server


def write_list(server: FolderServer, path: Path) -> Path:
    names = sorted(each.name for each in server.root.iterdir())
    path.write_text("".join(f"{server.url}/{name}{server.query}\n" for name in names))
    return path


def everything(root: Path) -> bytes:
    """Every name and byte below a folder."""
    return b"".join(str(path).encode() + (path.read_bytes() if path.is_file() else b"") for path in root.rglob("*"))


def mine(tmp_path: Path, *words: str) -> int:
    return mine_proposals.main(["--output", str(tmp_path / "out"), "--executor", "inline", *words])


def test_a_list_of_signed_urls(
    server: FolderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One picture is bad at first; the next day its signature is another."""
    bad = server.root / "picture_1.jpg"
    good = bad.read_bytes()
    bad.write_bytes(good[:100])
    assert mine(tmp_path, "--input-list", str(write_list(server, tmp_path / "list.txt"))) == 0
    assert {row.source_id.rpartition("/")[2]: row.status for row in rows(tmp_path / "out")} == {
        "picture_0.jpg": "ok",
        "picture_1.jpg": "quarantined",
        "picture_2.jpg": "ok",
    }
    kept = tmp_path / "out" / "plan" / "signatures.arrow"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert feather.read_table(kept).to_pylist() == [{"uri": f"{server.url}/picture_1.jpg", "query": server.query[1:]}]
    printed = "".join(capsys.readouterr())
    assert "3 signatures of the inputs' URLs are kept in" in printed and "which only you can read" in printed
    kept.rename(tmp_path / "kept")
    assert FIRST.encode() not in everything(tmp_path / "out")
    (tmp_path / "kept").rename(kept)

    forget(monkeypatch)
    server.signature = SECOND
    bad.write_bytes(good)
    listed = str(write_list(server, tmp_path / "list.txt"))
    assert mine(tmp_path, "--input-list", listed) == 0  # a new signature is no new item
    assert "nothing was left to do" in capsys.readouterr().out
    assert feather.read_table(kept).to_pylist()[0]["query"] == server.query[1:]
    assert mine(tmp_path, "--only-quarantined") == 0  # with the signatures of the plan
    assert {row.status for row in rows(tmp_path / "out")} == {"ok"} and not kept.exists()
    printed += "".join(capsys.readouterr())
    for signature in (FIRST, SECOND):
        assert signature.encode() not in everything(tmp_path / "out") and signature not in printed


@pytest.mark.slow
@pytest.mark.ray
def test_ray_gets_signatures_and_keeps_none(server: FolderServer, tmp_path: Path) -> None:
    """The sibling without mining, of Ray's folder alone, is in `tests/test_ray_cluster.py`."""
    (server.root / "picture_1.jpg").write_bytes(b"no picture")
    listed = str(write_list(server, tmp_path / "list.txt"))
    folder = Path(tempfile.mkdtemp(prefix="tm-"))  # short, for the names of Ray's sockets
    words = ["--input-list", listed, "--workers", "1", f"--input={server.url}/picture_0.jpg{server.query}"]
    try:
        printed = mine_by_process("--output", tmp_path / "out", *words, RAY_TMPDIR=str(folder), WANDB_API_KEY=SECOND)
        assert sorted(row.status for row in rows(tmp_path / "out")) == ["ok", "ok", "quarantined"]
        left = everything(folder)
        assert len(left) > 1000
        for secret in (FIRST, SECOND):
            assert secret.encode() not in left and secret not in printed
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_page_whose_links_are_signed(server: FolderServer, tmp_path: Path) -> None:
    assert mine(tmp_path, "--input", server.url) == 0
    assert sorted(row.source_id for row in rows(tmp_path / "out")) == [
        f"{server.url}/picture_{n}.jpg" for n in range(3)
    ]
    assert FIRST.encode() not in everything(tmp_path / "out")


def test_one_signed_url_on_the_command_line(server: FolderServer, tmp_path: Path) -> None:
    assert mine(tmp_path, "--input", f"{server.url}/picture_0.jpg{server.query}", "--set", "run.progress_s=1") == 0
    assert [row.status for row in rows(tmp_path / "out")] == ["ok"]
    assert FIRST.encode() not in everything(tmp_path / "out")


def test_a_signed_page_says_that_files_are_signed(
    server: FolderServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mine(tmp_path, "--input", f"{server.url}/?token=abcdefgh1") == 2
    said = capsys.readouterr().err
    assert "a signature is good for one file" in said and "abcdefgh1" not in said


def test_a_signed_url_is_known_by_what_stands_before_the_query(server: FolderServer) -> None:
    plain = without_signature(f"{server.url}/picture_0.jpg{server.query}#x")
    assert plain == f"{server.url}/picture_0.jpg#x"
    assert with_signature(plain) == f"{server.url}/picture_0.jpg{server.query}#x"
    assert read_bytes(plain.removesuffix("#x")) == (server.root / "picture_0.jpg").read_bytes()
    for url in ("https://h/a.jpg?size=1", "s3://b/a?sig=1", "/a?sig=1", "https://h/a.jpg", "see https://h/a?sig=1"):
        assert without_signature(url) == url


def test_two_files_behind_one_name_are_not_taken_for_one() -> None:
    without_signature("https://h/get.jpg?id=1&token=a&expires=1")
    assert without_signature("https://h/get.jpg?expires=2&token=b&id=1") == "https://h/get.jpg"
    with pytest.raises(SignaturesDiffer, match=r"https://h/get\.jpg: given twice, with queries that differ in more"):
        without_signature("https://h/get.jpg?id=2&token=a&expires=1")


def test_links_to_sa_1b_are_signed() -> None:
    """By two parameters of two letters, which mean nothing alone."""
    plain = "https://cdn.example/m1/v/t6/An9a.tar"
    old, new = (f"{plain}?ccb=10-5&oh=00_Af{each * 20}&oe=66AABB{each}C&_nc_sid=0fdd51" for each in "12")
    assert without_signature(old) == without_signature(new) == plain
    assert with_signature(plain) == new
    assert without_signature(f"{plain}?oh=1") == f"{plain}?oh=1"
