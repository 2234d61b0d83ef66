"""Storage: nothing half-written under a final name, nothing missing after a read, nothing unsafe opened."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from trackmill.pipeline.storage import publish, retries, scratch, urls
from trackmill.pipeline.storage.credentials import UnsafeURL, check_url, redact, scrub
from trackmill.pipeline.storage.files import exists, read_bytes
from trackmill.pipeline.storage.limits import FileTooLarge
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.processes import machine
from trackmill.pipeline.storage.publish import publish_bytes, publish_file
from trackmill.pipeline.storage.retries import retry
from trackmill.pipeline.storage.scratch import scratch_file, sweep_scratch
from trackmill.pipeline.storage.urls import canonical
from trackmill.schemas.errors import InputError


@pytest.mark.parametrize(
    "url",
    [
        "pipe:cat /etc/passwd",  # WebDataset would run it
        "PIPE:curl x",  # however it is written
        "  pipe:ls",
        "|cat /etc/passwd",
        "$(reboot)",
        "`reboot`",
        "; reboot",
        "simplecache::s3://bucket/x",  # a second URL behind the first
        "zip://a.jpg::s3://bucket/x.zip",
        "zip://a.jpg::/data/x.zip",
        "a::b.jpg",
        "reference://x",  # fsspec protocols that wrap others or run code
        "ssh://host/x",
        "gopher://host/x",  # unknown
        "s3://key:secret@bucket/x",  # credentials
        "https://user:password@host/x.jpg",
        "a\nb",
        "",
    ],
)
def test_unsafe_urls_are_refused(url: str) -> None:
    with pytest.raises(UnsafeURL) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)
    assert "password@" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "/data",
        "data/x.jpg",
        "file:///x",
        "s3://b/x",
        "gs://b",
        "https://h/x?y=1",
        "memory://x",
        "/data/a::b.jpg",  # a name and no chain
        "./simplecache::x",
        "/data/a\nb",
        "s3://b/a::b.jpg",
    ],
)
def test_ordinary_urls_are_taken(url: str) -> None:
    assert check_url(url) == url


def test_local_paths_have_one_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert canonical("a/") == canonical(f"file://{tmp_path}/a") == str(tmp_path / "a")
    assert canonical("s3://b/x/") == "s3://b/x"


def test_redaction() -> None:
    assert redact("https://me:pw@host/a.jpg?X-Amz-Signature=abc") == "https://host/a.jpg?..."
    assert redact("/plain/path?x") == "/plain/path?x"
    assert redact("s3://key:secret@bucket/x?y=1") == "s3://bucket/x"
    assert redact("https://host/a#access_token=abc") == "https://host/a"


def test_redaction_keeps_the_names_of_members_and_clips() -> None:
    """Which member of a tar is broken is told, also where the tar lies on S3."""
    assert redact("s3://bucket/sa_000000.tar#./sa_1.jpg") == "s3://bucket/sa_000000.tar#./sa_1.jpg"
    assert redact("https://host/sav_000.tar?sig=abc#sav_1.mp4#c003") == "https://host/sav_000.tar?...#sav_1.mp4#c003"
    assert "#./sa_1.jpg: broken" in scrub("item s3://bucket/sa_000000.tar#./sa_1.jpg: broken")


def test_scrubbing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret-value")
    text = scrub("signing with very-secret-value failed for https://a:b@host/x?sig=1 (see s3://bucket/y)")
    assert text == "signing with *** failed for https://host/x?... (see s3://bucket/y)"


def test_scrubbing_keeps_the_sentence_around_a_url() -> None:
    assert scrub("(https://host/a.jpg?sig=abc); then https://host/b?sig=1: gone") == (
        "(https://host/a.jpg?...); then https://host/b?...: gone"
    )
    assert scrub("https://host/b?...: gone") == "https://host/b?...: gone"


def test_listing_is_sorted_and_leaves_hidden_files_out(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "a/1.jpg", ".hidden", "b/.DS_Store"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"xy")
    found = list_files(str(tmp_path))
    assert [Path(file.uri).relative_to(tmp_path).as_posix() for file in found] == ["a/1.jpg", "b/2.jpg"]
    assert [file.size for file in found] == [2, 2]
    assert list_files(str(tmp_path / "*" / "1.jpg")) == found[:1]
    assert list_files(str(tmp_path / "b" / "2.jpg")) == found[1:]
    with pytest.raises(FileNotFoundError):
        list_files(str(tmp_path / "nothing"))


@pytest.mark.parametrize("store", ["folder", "memory"])
def test_a_glob_says_that_it_leaves_folders_out(store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = str(tmp_path / "in") if store == "folder" else f"memory:///{tmp_path.name}-glob"
    for name in ("a.jpg", "sub/b.jpg", "sub/deep/c.jpg"):
        publish_bytes(f"{root}/{name}", b"xy")
    names = [file.uri.removeprefix(f"{root}/") for file in list_files(f"{root}/*")]
    assert names == ["a.jpg"]
    assert (
        "matches folders, such as" in caplog.text and f"{root}/sub, which are left out; end it with /**" in caplog.text
    )
    with pytest.raises(InputError, match=r"matches folders, such as .*/sub, and no file; end it with /\*\*"):
        list_files(f"{root}/s*")
    caplog.clear()
    found = [file.uri.removeprefix(f"{root}/") for file in list_files(f"{root}/s*/**")]
    assert found == ["sub/b.jpg", "sub/deep/c.jpg"] and not caplog.text


def test_stores_leave_out_hidden_folders_as_this_machine_does() -> None:
    """And what consoles of stores put there for a folder without files."""
    root = "memory:///hidden-names"
    for name in ("a.jpg", ".thumbnails/a.jpg", "b/.ipynb_checkpoints/c.jpg", "b/.d.jpg", ".set/e.jpg"):
        publish_bytes(f"{root}/{name}", b"xy")
    assert [file.uri for file in list_files(root)] == [f"{root}/a.jpg"]
    assert [file.uri for file in list_files(f"{root}/.set")] == [f"{root}/.set/e.jpg"], "it was asked for"


def test_ranges_and_limits() -> None:
    publish_bytes("memory://storage/x", b"0123456789")
    assert read_bytes("memory://storage/x", 3, 4) == b"3456"
    with pytest.raises(FileTooLarge, match="10 bytes"):
        read_bytes("memory://storage/x", max_bytes=9)


def test_a_read_that_comes_up_short_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    publish_bytes("memory://storage/short", b"0123456789")
    fs, _ = urls.filesystem("memory://storage/short")
    answers = iter([b"0123", ConnectionResetError("gone"), b"0123456789"])

    def cat_file(path: str, **_: Any) -> bytes:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(retries, "pause", lambda _: None)
    monkeypatch.setattr(fs, "cat_file", cat_file)
    assert read_bytes("memory://storage/short") == b"0123456789"


def test_giving_up_names_the_file_and_the_cause(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="trackmill")
    monkeypatch.setattr(retries, "pause", lambda _: None)
    calls = []

    def broken() -> None:
        calls.append(1)
        raise ConnectionResetError("peer")

    with pytest.raises(OSError, match="s3://b/x: gave up after 5 attempts: ConnectionResetError: peer"):
        retry(broken, "s3://u:secret@b/x")
    assert len(calls) == 5
    assert caplog.messages == ["s3://b/x: failed 2 times, and is tried again: peer"]


def test_missing_credentials_say_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    exceptions = pytest.importorskip("botocore.exceptions")
    monkeypatch.setattr(retries, "pause", lambda _: None)

    def nobody() -> None:
        raise exceptions.NoCredentialsError

    with pytest.raises(OSError, match="set AWS_PROFILE, or AWS_ACCESS_KEY_ID"):
        retry(nobody, "s3://b/x")


def test_what_is_not_allowed_names_the_url() -> None:
    def denied() -> None:
        raise PermissionError("Access Denied")

    with pytest.raises(PermissionError, match=r"s3://b/x: not allowed \(Access Denied\)"):
        retry(denied, "s3://b/x")


def test_what_cannot_pass_is_not_tried_again() -> None:
    calls = []

    def missing() -> None:
        calls.append(1)
        raise FileNotFoundError("x")

    with pytest.raises(FileNotFoundError):
        retry(missing, "x")
    assert len(calls) == 1


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = str(tmp_path / "x")
    publish_bytes(target, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publish.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        publish_bytes(target, b"new")
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_scratch_of_another_container_with_this_hosts_name_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the number of a living writer may be nobody's number here."""
    with monkeypatch.context() as there:
        there.setattr(scratch, "machine", lambda: f"{socket.gethostname()}-1")
        there.setattr(scratch.os, "getpid", lambda: 2**22 - 1)
        theirs = scratch_file(str(tmp_path / "x.tar"))
    monkeypatch.setattr(scratch.os, "getpid", lambda: 2**22 - 1)
    ours = scratch_file(str(tmp_path / "x.tar"))
    assert sweep_scratch(str(tmp_path)) == 1
    assert theirs.exists() and not ours.exists()


def test_scratch_of_a_killed_upload_is_swept_from_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(tmp_path))
    with monkeypatch.context() as killed:
        killed.setattr(scratch.os, "getpid", lambda: 2**22 - 1)
        left = scratch_file("memory://bucket/part-00000000.tar")
    assert tmp_path in left.parents
    scratch_file("memory://bucket/part-00000001.tar")
    assert left.exists(), "what was changed a moment ago may still be read, as what a dead miner had in hand is"
    os.utime(left, (0, 0))
    scratch_file("memory://bucket/part-00000002.tar")
    assert not left.exists()


def test_publishing_a_file(tmp_path: Path) -> None:
    for url in (str(tmp_path / "deep" / "x.tar"), "memory://storage/deep/x.tar"):
        scratch = scratch_file(url)
        scratch.write_bytes(b"content")
        assert not exists(url)
        publish_file(scratch, url)
        assert read_bytes(url) == b"content"
        assert not scratch.exists()


def test_a_clock_that_was_set_back_keeps_nothing_of_the_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / f".tmp-{machine()}~999999999~0-1~0-part-00000000.tar.part"
    left.touch()
    monkeypatch.setattr("time.time", lambda: 1000.0)
    assert sweep_scratch(str(tmp_path), unchanged_s=60) == 0
    assert sweep_scratch(str(tmp_path)) == 1 and not left.exists()


def test_sweeping_spares_the_living(tmp_path: Path) -> None:
    mine = scratch_file(str(tmp_path / "x.tar"))
    dead = mine.with_name(mine.name.replace(f"~{os.getpid()}~", "~999999999~"))
    dead.touch()
    assert sweep_scratch(str(tmp_path)) == 1
    assert os.listdir(tmp_path) == [mine.name]
