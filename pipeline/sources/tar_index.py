"""Where the files inside a tar lie, found by walking its headers: nothing is unpacked, no link is followed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from functools import partial
from typing import IO, Any, cast

from trackmill.pipeline.media.errors import BadItem, TruncatedMedia
from trackmill.pipeline.sources.probing import probe_files
from trackmill.pipeline.sources.tar_headers import BLOCK, MAX_NAME_BYTES, DamagedTar, TarMember, walk_headers
from trackmill.pipeline.sources.tar_members import BadMember, TarIndex, TarRange
from trackmill.pipeline.sources.tar_store import index_folder, store_index, stored_index, version_now
from trackmill.pipeline.storage.credentials import path_error
from trackmill.pipeline.storage.files import open_for_seeking
from trackmill.pipeline.storage.forward_reads import FileChanged, ForwardFile, RemoteVersion, remote_version
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.pipeline.storage.names import escaped
from trackmill.pipeline.storage.retries import retry
from trackmill.pipeline.storage.urls import is_local

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
"""What is taken for a tar, by the end of its name in lower case; compressed ones only to say what to do."""

_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}
MAX_MEMBERS = 5_000_000
"""Most members of a tar that is read: the largest that is known, Places365 in one tar, has 1.8 million."""

MAX_NAMES_BYTES = 512 << 20
"""Most bytes in all names of a tar's members: what an index takes in memory follows from both limits."""

_BYTES_A_TIME = 1 << 30
"""Of a remote tar: for each so many bytes walking it may take `run.item_timeout_s` once more."""

_UNKNOWN_BYTES = 16 << 30
"""Taken for the size of a tar whose listing does not tell it; SA-1B's have 10 to 11 GB."""

_WORTH_STORING = 64 << 20
"""Bytes of a tar from which on its index is stored."""

_ALONE = 4
"""So few tars are not shared between processes that plan them at the same time."""

_ROUNDS = 3
"""How often a tar is begun anew because it was replaced while it was read."""


def index_tars(tars: Sequence[FileInfo]) -> Iterator[TarIndex | str]:
    """The index of each tar, in the order given; where one cannot be read, the reason why.

    Within `trackmill.pipeline.sources.tar_store.stored_tar_indexes` each is stored as it is made. Several processes
    that plan the same tars begin at different ones, and so walk each about once between them.
    """
    uris, folder = [tar.uri for tar in tars], index_folder()
    # A remote tar is read from end to end: its time grows with its size, where a listing tells it.
    sizes = [0 if is_local(tar.uri) else tar.size or _UNKNOWN_BYTES for tar in tars]
    times = 1 + max(sizes, default=0) // _BYTES_A_TIME
    if folder and not all(map(is_local, uris)) and len(uris) > _ALONE:
        first = random.randrange(len(uris))
        for _ in probe_files(uris[first:] + uris[:first], partial(_fill, folder), "tars", str, times):
            pass
    yield from probe_files(uris, partial(_index_or_reason, folder), "tars", str, times)


def index_tar(url: str, version: RemoteVersion | None = None) -> TarIndex:
    """Walk an uncompressed tar; what macOS adds (`._NAME`, `__MACOSX/`) and other hidden members are passed over.

    On this machine only headers are read. A remote tar is read once from its beginning to its end, by one long request
    where the store streams (see `trackmill.pipeline.storage.forward_reads`): headers lie all over it, and a request for
    each would take hours for a data set of millions of pictures.

    Args:
        url: the tar.
        version: as `trackmill.pipeline.sources.tar_store.version_now` gives it; asked for where nobody did.

    Raises:
        BadItem: it is compressed; says how to unpack it.
        OSError: could not be fetched.
    """
    if is_local(url):
        return retry(lambda: _walk_local(url), url)
    for left in reversed(range(_ROUNDS)):
        try:
            version = version or remote_version(url)
            with ForwardFile(url, version.size) as handle:
                return _walk(cast(IO[bytes], handle), url)
        except FileChanged:
            version = None
            if not left:
                raise
    raise AssertionError("the last round returns or raises")


def _walk_local(url: str) -> TarIndex:
    with open_for_seeking(url) as handle:
        return _walk(handle, url)


def _walk(handle: IO[bytes], url: str) -> TarIndex:
    index = TarIndex()
    size = handle.seek(0, 2)
    handle.seek(0)
    head = handle.read(8)
    for magic, (program, command) in _COMPRESSED.items():
        if head.startswith(magic):
            raise BadItem(
                f"{url}: compressed with {program}, so that its members cannot be read in place; unpack the tar "
                f"with `{command}` and mine that"
            )
    try:
        left = MAX_NAMES_BYTES
        for number, member in enumerate(walk_headers(handle, size)):
            left -= len(member.name)
            if number == MAX_MEMBERS or left < 0:
                limit = f"{MAX_MEMBERS} members" if left >= 0 else f"{MAX_NAMES_BYTES} bytes in its members' names"
                raise BadItem(f"{url}: the tar has more than {limit}; pack it into several")
            if _enter(index, member, size):
                break
    except DamagedTar as error:
        index.bad[f"@{error.offset}"] = BadMember(
            f"not a tar, or damaged or cut short, at byte {error.offset}: {error.reason}; what follows is lost",
            truncated=True,
        )
    return index


def _index_or_reason(folder: str, url: str) -> TarIndex | str:
    try:
        return _stored_or_walked(folder, url)
    except BadItem as error:
        return str(error).removeprefix(f"{url}: ")
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"the tar cannot be read: {path_error(error) or error}"


def _fill(folder: str, url: str) -> str:
    """Have an index stored. What is wrong with a tar is told when it is asked for."""
    with contextlib.suppress(BadItem, OSError):
        _stored_or_walked(folder, url)
    return ""


def _stored_or_walked(folder: str, url: str) -> TarIndex:
    if not folder:
        return index_tar(url)
    version = retry(lambda: version_now(url), url)
    if version.size < _WORTH_STORING:
        return index_tar(url, version)
    index = stored_index(folder, url, version)
    if index is None:
        index = index_tar(url, version)
        if version_now(url) == version:
            store_index(folder, url, version, index)
    return index


def is_hidden(name: str) -> bool:
    """Whether a member is one that listings of folders leave out too: `.NAME`, and macOS's `__MACOSX/`."""
    parts = name.split("/")
    return "__MACOSX" in parts or any(part[:1] == "." and part.strip(".") != "" for part in parts)


def explain(index: TarIndex | str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is wrong with a tar or its members: name of the member (empty for the tar), details of an item for it."""
    if isinstance(index, str):
        yield "", {"error": index}
        return
    for member, bad in index.bad.items():
        details: dict[str, Any] = {"error": f"this member {bad.reason}" if member[0] != "@" else bad.reason}
        if bad.truncated:
            details["truncated"] = True
        yield member, details


def raise_explained(source_id: str, details: dict[str, Any]) -> None:
    """Raise the error of an item that `explain` was the reason for; nothing happens for any other.

    Raises:
        BadItem: (TruncatedMedia where the tar was cut).
    """
    if "error" in details:
        kind = TruncatedMedia if details.get("truncated") else BadItem
        raise kind(f"{source_id}: {details['error']}")


def _enter(index: TarIndex, member: TarMember, size: int) -> bool:
    """Put a member into the index; True where it is one that the tar ends in, so that all has been told."""
    name = escaped(member.name)
    if member.kind == "folder" or is_hidden(name):
        return False
    if not name:
        index.bad[f"@{member.offset - BLOCK}"] = BadMember("there is a member that has no name")
        return False
    index.files.pop(name, None)
    index.bad.pop(name, None)
    if len(member.name) > MAX_NAME_BYTES:
        index.bad[f"{name[:80]}..."] = BadMember(f"has a name of more than {MAX_NAME_BYTES} bytes")
    elif member.kind != "file":
        index.bad[name] = BadMember("is a link, a device or a sparse file; only plain files are read")
    elif name.startswith("/") or ".." in name.split("/"):
        index.bad[name] = BadMember("has an absolute name or one with '..'; nothing outside the tar is ever meant")
    elif member.offset + member.size > size:
        left = max(0, size - member.offset)
        reason = f"is cut off: the tar ends after {left} of its {member.size} bytes"
        index.bad[name] = BadMember(reason, truncated=True)
        return True
    else:
        index.files[name] = TarRange(member.offset, member.size)
    return False
