"""Listing and reading files on any file system fsspec knows, with retries and a check that nothing is missing."""

from __future__ import annotations

import glob
import logging
import os
import posixpath
import random
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile
from typing import IO, Any, TypeVar

import fsspec

from trackmill.pipeline.storage.credentials import check_url, error_text, protocol_of, redact
from trackmill.pipeline.storage.hub_errors import hub_error, tell_of_reads
from trackmill.pipeline.storage.limits import MAX_BODY_BYTES
from trackmill.pipeline.storage.limits import FileTooLarge as FileTooLarge
from trackmill.pipeline.storage.local_listing import walk
from trackmill.pipeline.storage.names import escaped, existing_in_store, existing_path
from trackmill.pipeline.storage.pipes import open_local
from trackmill.pipeline.storage.secrets.signed_urls import is_signed, with_signature, without_signature
from trackmill.pipeline.storage.whole_objects import can_get_whole, get_whole, too_large
from trackmill.pipeline.storage.windows import from_window
from trackmill.schemas.errors import InputError, MissingPackage, StorageError
from trackmill.schemas.install import install

T = TypeVar("T")
log = logging.getLogger("trackmill")

ATTEMPTS = 5
"""How often a read or write is tried before it counts as failed."""

pause = time.sleep
"""Between attempts. A name of its own, so that a test can leave pauses out without hurrying other threads."""

_SIZES_AT_ONCE = 16
_TOLD_AT = 2
"""One failure is nothing in a store; whoever waits for a second one should know what for."""
_FINAL = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ValueError,
    ImportError,
    NotImplementedError,
    MemoryError,
    RecursionError,
)
_INSTALL = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http", "hf": "hf"}
_SCHEMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}
"""Names of one store that other programs use, and ours for it."""

_ADVICE = {
    "NoCredentialsError": "; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}
"""What mends an error of a client library, by the error's class."""


class ShortRead(StorageError):
    """Fewer bytes arrived than the file has."""


@dataclass(frozen=True, slots=True, order=True)
class FileInfo:
    """A file that a listing found: its URI (a plain absolute path if local) and its length in bytes."""

    uri: str
    size: int


def retry(action: Callable[[], T], what: str, advanced: Callable[[], bool] | None = None) -> T:
    """Run `action`, again after a pause when it fails in a way that may pass (0.2, 0.4, 0.8, ... s, with jitter).

    Args:
        action: what is done.
        what: its URL, for messages.
        advanced: of an action that goes on where it stopped: whether the attempt that just failed has brought it
            forward. Such an attempt does not count.

    Raises:
        StorageError: `ATTEMPTS` attempts failed.
    """
    failed = 0
    while True:
        try:
            return action()
        except Exception as caught:
            error = clearer(caught, what)
            if isinstance(error, _FINAL):
                if error is caught:
                    raise
                raise error from caught
            failed = 0 if advanced is not None and advanced() else failed + 1
            if failed == ATTEMPTS:
                advice = _ADVICE.get(type(error).__name__, "")
                said = str(error).removeprefix(f"{redact(what)}: ")
                if not isinstance(error, StorageError):
                    said = f"{type(error).__name__}: {said}"
                raise StorageError(f"{redact(what)}: gave up after {ATTEMPTS} attempts: {said}{advice}") from error
            if failed == _TOLD_AT:
                log.info("%s: failed %d times, and is tried again: %s", redact(what), failed, error_text(error))
            pause(0.2 * 2 ** max(failed - 1, 0) * (0.5 + random.random()))


def clearer(error: Exception, what: str) -> Exception:
    """The error, or a clearer one: over HTTP fsspec calls every failure a missing file, with the address as text."""
    if protocol_of(what) == "hf" and (told := hub_error(error, what)) is not None:
        return told
    if isinstance(error, PermissionError) and not error.filename and what not in str(error):
        return PermissionError(f"{redact(what)}: not allowed ({error})")  # of a bucket, whose client names no URL
    if protocol_of(what) in ("http", "https") and type(error).__module__.partition(".")[0] == "aiohttp":
        cause: BaseException | None = error
    elif not isinstance(error, FileNotFoundError) or error.errno is not None:
        return error
    else:
        cause = error.__cause__
    # A damaged answer bears a status too, 400, which no server sent.
    if cause is not None and type(cause.__cause__).__module__ == "aiohttp.http_exceptions":
        return ConnectionError("what the server answers is no HTTP, or is damaged")
    status = getattr(cause, "status", None)
    if type(cause).__module__.partition(".")[0] != "aiohttp" or status in (404, 410):
        # An address may carry a signature.
        return error if " " in str(error) else FileNotFoundError(f"{redact(what)}: no such file or folder")
    if status is not None and 400 <= status < 500 and status not in (408, 429):
        return PermissionError(f"{redact(what)}: the server refuses (HTTP {status})")
    if type(cause).__name__ == "TooManyRedirects":  # its text holds addresses
        return StorageError(f"{redact(what)}: the server sends from one address to the next without end")
    return ConnectionError(f"HTTP {status}" if status is not None else f"{type(cause).__name__}: {cause}")


def canonical(url: str) -> str:
    """The one spelling of a URL: checked, local paths made absolute, no trailing slash, no signature.

    Raises:
        UnsafeURL: see `check_url`.
    """
    check_url(url)
    if protocol_of(url) in ("file", "local"):
        path = url.split("://", 1)[1] if "://" in url else url
        return escaped(os.path.abspath(os.path.expanduser(path)))
    return one_scheme(without_signature(url).rstrip("/"))


def one_scheme(url: str) -> str:
    """The URL with the usual name of its scheme, where a store has several: `s3://` for `s3a://`."""
    scheme, mark, rest = url.partition("://")
    return f"{_SCHEMES.get(scheme.lower(), scheme)}{mark}{rest}" if mark else url


def filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path inside it.

    The name is taken as it is: unlike fsspec's own, it never means a chain of file systems (`a::b`). The path of a
    signed URL has its query, see `trackmill.pipeline.storage.secrets.signed_urls`.

    Raises:
        UnsafeURL: see `check_url`.
        ImportError: the protocol's package is missing; says which extra brings it.
    """
    check_url(url)
    protocol = protocol_of(url)
    if is_local(url):
        return fsspec.filesystem("file"), existing_path(canonical(url))
    try:
        opened = _hugging_face(url) if protocol == "hf" else with_signature(url)
        if protocol in ("http", "https"):
            from trackmill.pipeline.storage.http_files import HttpFiles

            fs, path = HttpFiles(), opened
        else:
            fs, path = _as_it_is(protocol, opened) if "::" in opened else fsspec.core.url_to_fs(opened)
    except ImportError as error:
        extra = _INSTALL.get(protocol)
        advice = install(extra) if extra else str(error)
        raise MissingPackage(f"{redact(url)} needs another package: {advice}") from error
    except OSError as error:  # ftp:// and its like connect at once
        raise StorageError(f"{redact(url)}: its server cannot be reached ({error.strerror or error})") from error
    return fs, existing_in_store(str(path), fs.exists)


def _as_it_is(protocol: str, url: str) -> tuple[Any, Any]:
    cls = fsspec.get_filesystem_class(protocol)
    return fsspec.filesystem(protocol, **cls._get_kwargs_from_urls(url)), cls._strip_protocol(url)


def _hugging_face(url: str) -> str:
    """`hf://org/repo/file@revision` as the client library spells it: `hf://org/repo@revision/file`."""
    scheme, _, path = url.partition("://")
    before, at, revision = path.rpartition("@")
    kind = next((each for each in ("datasets/", "spaces/") if before.startswith(each)), "")
    before = before.removeprefix(kind)
    if not at or "/" in revision or before.count("/") < 2:
        return url
    owner, repo, *rest = before.split("/")
    return f"{scheme}://{kind}{owner}/{repo}@{revision}/{'/'.join(rest)}"


def is_local(url: str) -> bool:
    """Whether the URL is a path on this machine."""
    return protocol_of(url) in ("file", "local")


def join(root: str, *parts: str) -> str:
    """Append path parts to a URL."""
    return posixpath.join(root, *parts)


def basename(uri: str) -> str:
    """Last part of a URI's path."""
    return uri.rstrip("/").rsplit("/", 1)[-1]


def dirname(uri: str) -> str:
    """Everything before the last part of a URI's path."""
    return uri.rstrip("/").rsplit("/", 1)[0]


def list_files(url: str, sizes: bool = False) -> list[FileInfo]:
    """All files under a folder, matching a glob, or the one file; sorted by URI. Hidden names (`.x`) are left out.

    On this machine links are followed, see `local_listing.walk`. Folders that match a glob are left out, as a warning
    says; `/**` at its end takes what is in them.

    Args:
        url: file, folder or glob.
        sizes: whether the sizes matter. A web server's pages tell none, so the server is asked for each file then;
            without it they are 0.

    Raises:
        FileNotFoundError: there is nothing at that URL.
        InputError: a glob matches nothing but folders.
        StorageError: a folder cannot be listed.
    """
    fs, path = filesystem(url)
    if is_local(url):
        return sorted(FileInfo(escaped(name), size) for name, size in _list_local(fs, path))
    scheme = f"{protocol_of(url)}://"

    def look() -> dict[str, dict[str, Any]]:
        fs.invalidate_cache()
        if lone := _lone_file_over_http(fs, path, url):
            return {path: lone}
        if is_signed(url):
            raise InputError(
                f"{redact(url)}: is a page or a folder, and a signature is good for one file; name the files, with the "
                "signature of each, by --input-list"
            )
        if has_magic(path) and not fs.exists(path):
            found: dict[str, dict[str, Any]] = fs.glob(path, detail=True)
        else:
            found = fs.find(path, detail=True)
        if not found:
            info = fs.info(path)  # raises FileNotFoundError where there is nothing
            found = {path: info} if info["type"] == "file" else {}
        return found

    files, folders = [], []
    root = "/".join(takewhile(lambda part: not has_magic(part), path.split("/")))
    for name, info in retry(look, url).items():
        name = name.split("://", 1)[-1]
        if info["type"] != "file":
            folders.append(name)
        elif not is_hidden_below(root, name) and not name.endswith("/"):  # consoles of stores make `folder/`
            uri = escaped(without_signature(scheme + name, for_all=False))
            files.append(FileInfo(uri, int(info.get("size") or 0)))
    if folders and "**" not in path:
        _tell_of_folders(url, [scheme + name for name in folders], bool(files))
    if sizes and protocol_of(url) in ("http", "https"):
        with ThreadPoolExecutor(_SIZES_AT_ONCE, thread_name_prefix="sizes") as pool:
            files = list(pool.map(lambda file: file if file.size else FileInfo(file.uri, _size(file.uri)), files))
    return sorted(files)


def has_magic(path: str) -> bool:
    """Whether a path may be a glob."""
    return any(mark in path for mark in "*?[")


def _size(url: str) -> int:
    fs, path = filesystem(url)
    return int(retry(lambda: fs.info(path).get("size") or 0, url))


def _list_local(fs: Any, path: str) -> Iterator[tuple[str, int]]:
    if os.path.isdir(path):
        yield from walk(path)
        return
    names = {path} if os.path.lexists(path) else set()
    if not names and has_magic(path):
        # fsspec lets `**` stand inside a name, and does not look through links.
        names = {*glob.glob(path, recursive=True), *fs.glob(path)}
    if not names:
        raise FileNotFoundError(f"{path}: no such file or folder")
    listed, folders = [], []
    for name in names:
        if os.path.isdir(name):
            folders.append(name)
        elif not os.path.exists(name):
            if name == path:
                raise FileNotFoundError(f"{name}: a link to {os.readlink(name)}, where nothing is")
            listed.append((name, 0))  # as in a folder: whoever reads it says that it is gone
        elif os.path.isfile(name) and not (name != path and basename(name).startswith(".")):
            listed.append((name, os.path.getsize(name)))
    if folders and "**" not in path:
        _tell_of_folders(path, folders, bool(listed))
    yield from listed


def is_hidden_below(root: str, name: str) -> bool:
    """Whether a part of a name is hidden that was not asked for, as on this machine."""
    return any(part.startswith(".") for part in name.removeprefix(root).split("/"))


def _tell_of_folders(url: str, folders: list[str], files_too: bool) -> None:
    """Say that a glob does not look into folders; a shell's own does not either, but hands them over."""
    some = f"{redact(min(folders))}{f' and {len(folders) - 1} more' if len(folders) > 1 else ''}"
    said = f"{redact(url)}: matches folders, such as {some}"
    if not files_too:
        raise InputError(f"{said}, and no file; end it with /** for what is in them")
    log.warning("%s, which are left out; end it with /** for what is in them", said)


def _lone_file_over_http(fs: Any, path: str, url: str) -> dict[str, Any] | None:
    """What a server says of one file. A listing would download it, to look for links in it."""
    if protocol_of(url) not in ("http", "https") or path.partition("?")[0].endswith("/"):
        return None
    info: dict[str, Any] = fs.info(path)
    return None if "html" in str(info.get("mimetype", "")) else info


def exists(url: str) -> bool:
    """Whether a file or folder is there."""
    fs, path = filesystem(url)

    def look() -> bool:
        fs.invalidate_cache()
        return bool(fs.exists(path))

    return retry(look, url)


def read_bytes(
    url: str, offset: int = -1, length: int = -1, max_bytes: int | None = None, size: int | None = None
) -> bytes:
    """Bytes of a file, all of them or a range.

    Args:
        url: the file.
        offset, length: byte range; both -1 for the whole file.
        max_bytes: refuse a file or range longer than this; None: a whole file longer than `MAX_BODY_BYTES`.
        size: of the whole file as a listing told it, which saves a question to some stores; the store is asked all the
            same where something else arrives.

    Raises:
        FileNotFoundError: no such file.
        FileTooLarge: longer than `max_bytes`.
        OSError: still failing after `ATTEMPTS` attempts (`ShortRead` when bytes were missing).
    """
    fs, path = filesystem(url)
    limit = MAX_BODY_BYTES if max_bytes is None and offset < 0 else max_bytes
    if is_local(url):
        return retry(lambda: _read_local(path, url, offset, length, limit), url)

    def read() -> bytes:
        if offset < 0:
            return _read_whole(fs, path, url, limit, size)
        if limit is not None and length > limit:
            raise too_large(url, length, limit)
        ahead = from_window(url, offset, length)
        if ahead is not None:
            return ahead
        data: bytes = fs.cat_file(path, start=offset, end=offset + length)
        if len(data) != length:
            raise ShortRead(f"{redact(url)}: {len(data)} of {length} bytes arrived")
        return data

    return retry(read, url)


def read_once(url: str, begin: int, end: int) -> bytes:
    """Bytes `begin` to `end` of a remote file in one attempt, fewer where it ends before; for `storage.windows`."""
    fs, path = filesystem(url)
    data: bytes = fs.cat_file(path, start=begin, end=end)
    return data


def _read_whole(fs: Any, path: str, url: str, limit: int | None, listed: int | None) -> bytes:
    """All bytes of a remote file. Its length is always learnt, so that a connection cut in the middle is noticed."""

    def ask() -> int | None:
        size = fs.info(path).get("size")
        return None if size is None else int(size)

    expected: int | None
    if can_get_whole(fs):
        data, expected = get_whole(fs, path, url, limit)
        expected = ask() if expected is None else expected
    else:
        expected = ask() if listed is None or (limit is not None and listed > limit) else listed
        if limit is not None and expected is not None and expected > limit:
            raise too_large(url, expected, limit)
        data = fs.cat_file(path)
        if listed is not None and len(data) != listed:
            fs.invalidate_cache()
            expected = ask()  # it may have been replaced since it was listed
    if expected is not None and len(data) != expected:
        raise ShortRead(f"{redact(url)}: {len(data)} of {expected} bytes arrived")
    return data


def _read_local(path: str, url: str, offset: int, length: int, limit: int | None) -> bytes:
    """Bytes of a file of this machine; a pipe or a device, which have no length, is read up to the limit."""
    with open_local(path) as handle:
        status = os.fstat(handle.fileno())
        has_length = stat.S_ISREG(status.st_mode)
        expected = length if offset >= 0 else status.st_size
        if limit is not None and has_length and expected > limit:
            raise too_large(url, expected, limit)
        if has_length and offset + expected > status.st_size:
            raise ShortRead(f"{redact(url)}: {max(0, status.st_size - offset)} of {expected} bytes are there")
        if offset > 0:
            handle.seek(offset)
        data = handle.read(expected if has_length or limit is None else limit + 1)
        if not has_length and limit is not None and len(data) > limit:
            raise FileTooLarge(f"{redact(url)}: more than {limit:,} bytes, the limit it is read under")
        if has_length and len(data) != expected:
            raise ShortRead(f"{redact(url)}: {len(data)} of {expected} bytes arrived")
        return data


def open_for_seeking(url: str, block_size: int = 256 * 1024) -> IO[bytes]:
    """A seekable file for reading headers: remote bytes are fetched in blocks of `block_size` as they are touched."""
    fs, path = filesystem(url)
    if is_local(url):
        return open_local(path)

    def begin() -> IO[bytes]:
        handle: IO[bytes] = fs.open(path, "rb", block_size=block_size, cache_type="blockcache")
        if protocol_of(url) == "hf":
            tell_of_reads(handle, url)
        return handle

    return retry(begin, url)
