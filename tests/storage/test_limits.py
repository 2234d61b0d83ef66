"""Bodies and listings without end, from web servers, folders and devices: each ends in one line that says why."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.file_server import listening
from tests.storage.hostile_server import HostileServer
from trackmill.pipeline.storage import http_files, limits, local_listing, retries
from trackmill.pipeline.storage.files import open_for_seeking, read_bytes
from trackmill.pipeline.storage.limits import FileTooLarge, ListingTooLarge
from trackmill.pipeline.storage.list_files import list_files
from trackmill.schemas.errors import StorageError

pytest.importorskip("aiohttp")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[HostileServer, str]]:
    monkeypatch.setattr(retries, "pause", lambda seconds: None)
    server = HostileServer()
    with listening(server) as address:
        yield server, address


def test_a_body_without_end_is_read_to_its_limit(server: tuple[HostileServer, str]) -> None:
    hostile, url = server
    with pytest.raises(FileTooLarge, match=r"/endless: more than 3,000,000 bytes, the limit it is read under"):
        read_bytes(f"{url}/endless", max_bytes=3_000_000)
    assert hostile.sent < 30_000_000


def test_a_range_ends_where_it_should(server: tuple[HostileServer, str]) -> None:
    _, url = server
    assert read_bytes(f"{url}/endless_range", 4, 6) == b"000000"
    assert read_bytes(f"{url}/no_range", 4, 6) == b"456789"
    with pytest.raises(StorageError, match="another range than the one that was asked for"):
        read_bytes(f"{url}/other_range", 4, 6)
    with open_for_seeking(f"{url}/endless_range", block_size=6) as handle:
        handle.seek(4)
        with pytest.raises(StorageError, match="another range"):
            handle.read(7)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("packed", "the server packs it .'gzip'., though its own bytes were asked for"),
        ("too_short", "gave up after 5 attempts"),
        ("circle", "the server sends from one address to the next without end"),
    ],
)
def test_servers_that_lie(server: tuple[HostileServer, str], name: str, said: str) -> None:
    _, url = server
    with pytest.raises(StorageError, match=rf"/{name}: .*{said}") as caught:
        read_bytes(f"{url}/{name}")
    assert "\n" not in str(caught.value)


def test_a_server_that_drips_is_given_up(server: tuple[HostileServer, str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, url = server
    monkeypatch.setattr(limits, "PACE_S", 0.2)
    with pytest.raises(StorageError, match=r"/drips: .*sends less than 256 bytes a second"):
        read_bytes(f"{url}/drips")


def test_a_body_that_is_damaged_and_ends_is_not_waited_for(
    server: tuple[HostileServer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, url = server
    monkeypatch.setattr(http_files, "ANSWER_S", 0.3)
    with pytest.raises(StorageError, match="/broken_chunks: "):
        read_bytes(f"{url}/broken_chunks")


def test_folders_of_a_web_server_that_nest_for_ever(
    server: tuple[HostileServer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile, url = server
    monkeypatch.setattr(http_files, "MAX_LISTING_DEPTH", 12)
    with pytest.raises(ListingTooLarge, match="12 folders lie in each other; name the folder that you mean"):
        list_files(f"{url}/nested/")
    assert hostile.asked < 40


def test_a_page_that_links_to_itself_has_one_file(server: tuple[HostileServer, str]) -> None:
    _, url = server
    assert [file.uri for file in list_files(f"{url}/itself/")] == [f"{url}/itself/a.jpg"]


def test_pages_of_too_much(server: tuple[HostileServer, str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, url = server
    assert len(list_files(f"{url}/crowded/")) == 5000
    monkeypatch.setattr(http_files, "MAX_LINKED_FILES", 1000)
    with pytest.raises(ListingTooLarge, match="more than 1,000 files and folders"):
        list_files(f"{url}/crowded/")
    monkeypatch.setattr(http_files, "MAX_PAGE_BYTES", 1 << 20)
    with pytest.raises(ListingTooLarge, match="its listing has more than 1,048,576 bytes"):
        list_files(f"{url}/long_page/")


def test_a_page_of_openings_is_read_in_no_time() -> None:
    assert http_files._links("<a " * 2_000_000, "http://host/folder", True) == []


def test_folders_of_this_machine_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path
    for _ in range(70):
        folder = folder / "a"
        folder.mkdir()
    with pytest.raises(ListingTooLarge, match="64 folders lie in each other; name the folder that you mean"):
        list_files(str(tmp_path))
    for number in range(5):
        (folder / f"{number}.jpg").touch()
    assert len(list_files(str(folder))) == 5
    monkeypatch.setattr(local_listing, "MAX_LISTED_FILES", 4)
    with pytest.raises(ListingTooLarge, match="more than 4 files; name fewer folders at once"):
        list_files(str(folder))


def test_a_device_without_end_and_a_pipe(tmp_path: Path) -> None:
    with pytest.raises(FileTooLarge, match="/dev/zero: more than 1,000,000 bytes, the limit it is read under"):
        read_bytes("/dev/zero", max_bytes=1_000_000)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"seed = 3\n"))
    writer.start()
    assert read_bytes(str(pipe), max_bytes=1000) == b"seed = 3\n"
    writer.join()


def test_a_range_behind_the_end_of_a_file_makes_no_room_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "pause", lambda seconds: None)
    (tmp_path / "a").write_bytes(b"0123")
    with pytest.raises(StorageError, match="2 of 1099511627776 bytes are there"):
        read_bytes(str(tmp_path / "a"), 2, 1 << 40)
