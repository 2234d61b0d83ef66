"""The files of a folder, of a glob, or the one file, on any file system that fsspec knows."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from trackmill.pipeline.storage.credentials import protocol_of, redact
from trackmill.pipeline.storage.local_listing import walk
from trackmill.pipeline.storage.names import escaped
from trackmill.pipeline.storage.retries import retry
from trackmill.pipeline.storage.secrets.signed_urls import is_signed, without_signature
from trackmill.pipeline.storage.urls import basename, filesystem, has_magic, is_local
from trackmill.schemas.errors import InputError

log = logging.getLogger("trackmill")

_SIZES_AT_ONCE = 16


@dataclass(frozen=True, slots=True, order=True)
class FileInfo:
    """A file that a listing found: its URI (a plain absolute path if local) and its length in bytes."""

    uri: str
    size: int


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
