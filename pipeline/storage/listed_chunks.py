"""Listing folders of millions of files: names and lengths come in lots, and no more than a lot is in memory.

An object store lists a thousand objects a request, with their lengths, and its pages are taken as they come. Where a
store has no such way in, and for globs and single files, `list_files` lists all at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import fsspec

from trackmill.pipeline.storage.credentials import protocol_of
from trackmill.pipeline.storage.list_files import is_hidden_below, list_files
from trackmill.pipeline.storage.local_listing import walk
from trackmill.pipeline.storage.names import escaped
from trackmill.pipeline.storage.retries import retry
from trackmill.pipeline.storage.urls import filesystem, has_magic, is_local

_LOT = 20_000


@dataclass(frozen=True, slots=True)
class Lot:
    """Some files of a listing.

    Args:
        uris, sizes: of each file.
        links: whether a link was met so far, on this machine; `list_files` does not say, so its files count as links.
    """

    uris: list[str]
    sizes: list[int]
    links: bool = False


def list_lots(url: str) -> Iterator[Lot]:
    """All files under a folder, matching a glob, or the one file, in any order; see `list_files`.

    After a failed request the files of earlier lots may come once more.

    Raises:
        as `list_files`.
    """
    fs, path = filesystem(url)
    if is_local(url) and os.path.isdir(path):
        yield from _local_lots(path)
        return
    found = False
    if protocol_of(url) == "s3" and hasattr(fs, "_iterdir") and not has_magic(path):
        for lot in _store_lots(fs, path, url):
            found = True
            yield lot
    if not found:
        files = list_files(url)
        links = is_local(url) and any(os.path.islink(file.uri) or "\\x" in file.uri for file in files)
        yield Lot([file.uri for file in files], [file.size for file in files], links)


def _local_lots(path: str) -> Iterator[Lot]:
    links: list[str] = []
    walked = walk(path, links)
    while some := list(islice(walked, _LOT)):
        yield Lot([escaped(name) for name, _ in some], [size for _, size in some], bool(links))


def _store_lots(fs: Any, path: str, url: str) -> Iterator[Lot]:
    bucket, key, _ = fs.split_path(path)
    scheme = f"{protocol_of(url)}://"
    pages: list[Any] = []

    def pull() -> list[dict[str, Any]]:
        if not pages:
            pages.append(fs._iterdir(bucket, delimiter="", prefix=f"{key}/" if key else ""))
        try:
            some: list[dict[str, Any]] = fsspec.asyn.sync(fs.loop, _some, pages[0])
            return some
        except Exception as error:
            pages.clear()  # from the beginning: only the store knows where it was
            raise _as_os_error(error) from error

    while some := retry(pull, url):
        names = [(each["name"], int(each["size"] or 0)) for each in some if each["type"] == "file"]
        kept = [(name, size) for name, size in names if not name.endswith("/") and not is_hidden_below(path, name)]
        yield Lot([escaped(scheme + name) for name, _ in kept], [size for _, size in kept])


def _as_os_error(error: Exception) -> Exception:
    try:
        from s3fs.errors import translate_boto_error
    except ImportError:
        return error
    translated: Exception = translate_boto_error(error)
    return translated


async def _some(pages: Any) -> list[dict[str, Any]]:
    found = []
    async for each in pages:
        found.append(each)
        if len(found) >= _LOT:
            break
    return found
