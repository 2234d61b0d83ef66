"""When files were written, as their store says, and what time it is there.

Only times of one store are compared with each other: the clocks of two machines differ. Where a store tells its own
time, ages are true; elsewhere this machine's clock stands in for it, and `StoreTime.whose` says so.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from trackmill.pipeline.storage.credentials import protocol_of
from trackmill.pipeline.storage.retries import retry
from trackmill.pipeline.storage.urls import filesystem, is_local
from trackmill.pipeline.storage.versions import entity_tag

_KEYS = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")
"""What file systems call the time in their listings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTime:
    """A file of a folder.

    Args:
        name: without the folder.
        size: in bytes.
        modified: when it was written, in Unix seconds; nan: not told.
        version: differs whenever the file was replaced or changed; "" where the store tells nothing that surely does.
    """

    name: str
    size: int
    modified: float
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreTime:
    """What time it is where files are written, in Unix seconds, and whose clock says so: `store` or `this machine`."""

    now: float
    whose: str


def list_times(folder: str) -> list[FileTime]:
    """The files right in a folder, hidden ones too, in no order; none where there is no such folder.

    On S3 this is one request for a thousand files; nothing is opened.

    Raises:
        OSError: it cannot be listed.
    """
    fs, path = filesystem(folder)
    if is_local(folder):
        return _list_local(path)

    def look() -> list[FileTime]:
        fs.invalidate_cache()
        try:
            entries = fs.ls(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [
            FileTime(
                name=str(entry["name"]).rstrip("/").rpartition("/")[2],
                size=int(entry.get("size") or 0),
                modified=_seconds(entry),
                version=entity_tag(entry),
            )
            for entry in entries
            if entry.get("type") == "file" and not str(entry["name"]).endswith("/")
        ]

    return retry(look, folder)


def list_names(folder: str) -> set[str]:
    """Names of everything right in a folder, folders too; none where there is no such folder.

    Raises:
        OSError: it cannot be listed.
    """
    fs, path = filesystem(folder)

    def look() -> set[str]:
        fs.invalidate_cache()
        try:
            return {str(name).rstrip("/").rpartition("/")[2] for name in fs.ls(path, detail=False)}
        except (FileNotFoundError, NotADirectoryError):
            return set()

    return retry(look, folder)


def store_time(url: str) -> StoreTime:
    """What time it is in the store of a URL. On this machine's disks that is this machine's time."""
    here = StoreTime(now=time.time(), whose="this machine")
    if is_local(url):
        return here
    fs, path = filesystem(url)
    if protocol_of(url) == "s3":
        try:
            bucket, _, key = path.partition("/")
            answer = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
            said = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
            return StoreTime(now=parsedate_to_datetime(said).timestamp(), whose="store")
        except (OSError, KeyError, ValueError, TypeError):
            return here
    return here


def _list_local(path: str) -> list[FileTime]:
    found = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                try:
                    status = entry.stat()
                except OSError:  # gone meanwhile, or a link to nothing
                    continue
                if entry.is_file():
                    # What takes the place of a file by a rename is another inode; what is written over has other times.
                    version = f"{status.st_ino}-{status.st_mtime_ns}-{status.st_ctime_ns}"
                    found.append(
                        FileTime(name=entry.name, size=status.st_size, modified=status.st_mtime, version=version)
                    )
    except (FileNotFoundError, NotADirectoryError):
        return []
    return found


def _seconds(entry: dict[str, Any]) -> float:
    """The time of a listing's entry."""
    for key in _KEYS:
        value = entry.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
        if isinstance(value, str):
            try:
                return datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
            except ValueError:
                continue
    return math.nan
