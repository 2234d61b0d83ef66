"""Indexes of tars, stored as they are made: a planning that is killed, or one on another machine, need not walk them.

Each is one Parquet file, named after the tar's URI (without a signature), its size and what its store calls its
version: a tar that is replaced has another name, and is walked anew.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import orjson
import pyarrow as pa

from trackmill.pipeline.shards.receipts import to_parquet, typed_table
from trackmill.pipeline.sources.tar_members import BadMember, TarIndex, TarRange
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.forward_reads import RemoteVersion, remote_version
from trackmill.pipeline.storage.parquet.reading import ParquetData
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.urls import filesystem, is_local, join

_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("reason", pa.string()),
        ("truncated", pa.bool_()),
    ]
)
_ABOUT = b"trackmill.tar"
_MAX_BYTES = 1 << 30
_ROW_BYTES = 64

log = logging.getLogger("trackmill")

_FOLDER: ContextVar[str] = ContextVar("tar indexes", default="")


@contextmanager
def stored_tar_indexes(folder: str) -> Iterator[None]:
    """Within, indexes of tars are kept in a folder, and those that are there already are used; "": nothing is kept."""
    token = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(token)


def index_folder() -> str:
    """That of the innermost `stored_tar_indexes`; "" outside of any."""
    return _FOLDER.get()


def version_now(tar: str) -> RemoteVersion:
    """Size and version of a tar.

    Raises:
        OSError: it is not there, or cannot be asked for.
    """
    if not is_local(tar):
        return remote_version(tar)
    status = os.stat(filesystem(tar)[1])
    return RemoteVersion(status.st_size, str(status.st_mtime_ns))


def stored_index(folder: str, tar: str, version: RemoteVersion) -> TarIndex | None:
    """The index of a tar, if one is stored for this version of it; a file that is damaged is named in a warning."""
    if not version.mark:
        return None
    url = _url(folder, tar, version)
    try:
        return _parse(read_bytes(url, max_bytes=_MAX_BYTES), tar, version)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s: the stored index of %s cannot be used (%s); it is walked again", redact(url), tar, error)
        return None


def store_index(folder: str, tar: str, version: RemoteVersion, index: TarIndex) -> None:
    """Keep an index; where that fails, a warning says so: it is only walked again then."""
    if not version.mark:
        return
    rows = [(name, place.offset, place.length, "", False) for name, place in index.files.items()]
    rows += [(name, -1, -1, bad.reason, bad.truncated) for name, bad in index.bad.items()]
    arrays = [pa.array([row[place] for row in rows], field.type) for place, field in enumerate(_SCHEMA)]
    table = pa.Table.from_arrays(arrays, schema=_SCHEMA.with_metadata({_ABOUT: _about(tar, version)}))
    url = _url(folder, tar, version)
    try:
        publish_bytes(url, to_parquet(table))
    except OSError as error:
        log.warning("%s: the index of %s cannot be stored: %s", redact(url), tar, error)


def _parse(data: bytes, tar: str, version: RemoteVersion) -> TarIndex:
    file = ParquetData(data)
    if file.metadata.get(_ABOUT) != _about(tar, version):
        raise ValueError("it is that of another tar")
    table = typed_table(file, _SCHEMA, row_bytes=_ROW_BYTES)
    index = TarIndex()
    for name, offset, length, reason, truncated in zip(*(column.to_pylist() for column in table.columns)):
        if offset < 0:
            index.bad[name] = BadMember(reason, truncated)
        elif not name or length < 0 or offset + length > version.size:
            raise ValueError(f"its member {name[:80]!r} lies outside of the tar")
        else:
            index.files[name] = TarRange(offset, length)
    if len(index.files) + len(index.bad) != len(table):
        raise ValueError("two of its members have one name")
    return index


def _about(tar: str, version: RemoteVersion) -> bytes:
    return orjson.dumps({"uri": redact(tar), "size": version.size, "version": version.mark, "form": 1})


def _url(folder: str, tar: str, version: RemoteVersion) -> str:
    return join(folder, f"{hashlib.sha256(_about(tar, version)).hexdigest()[:32]}.parquet")
