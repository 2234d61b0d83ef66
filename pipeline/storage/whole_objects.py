"""A whole object by one request: its length comes with its bytes, so nobody has to ask for it first."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from fsspec.asyn import sync

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.limits import MAX_BODY_BYTES, FileTooLarge

_CHUNK = 1 << 20


def can_get_whole(fs: Any) -> bool:
    """Whether `get_whole` works with a file system: that of S3, and ours for web servers."""
    return hasattr(fs, "_call_s3") or hasattr(fs, "get_body")


def get_whole(fs: Any, path: str, url: str, limit: int | None) -> tuple[bytes, int | None]:
    """All bytes of an object, and its length as the store states it; None where a web server does not.

    Args:
        fs, path: see `trackmill.pipeline.storage.urls.filesystem`.
        url: for messages.
        limit: refuse a longer one, before its bytes are read where the length is stated; None: `MAX_BODY_BYTES`.

    Raises:
        FileNotFoundError: there is no such object.
        FileTooLarge: longer than the limit.
        Exception: what the client of the store raises; it may pass.
    """
    most = MAX_BODY_BYTES if limit is None else limit
    body: tuple[bytes, int | None]
    body = (
        sync(fs.loop, fs.get_body, path, most) if hasattr(fs, "get_body") else sync(fs.loop, _s3, fs, path, url, most)
    )
    return body


def too_large(url: str, size: int, limit: int) -> FileTooLarge:
    """For a file whose length is known to be beyond the limit it is read under."""
    return FileTooLarge(f"{redact(url)}: {size} bytes, more than the limit of {limit}")


def range_header(begin: int, end: int, size: int) -> str:
    """What asks for bytes `begin` to `end` of an object of `size` bytes; open where that is all that is left."""
    return f"bytes={begin}-{'' if end == size else end - 1}"


async def open_s3(fs: Any, path: str, headers: dict[str, str] | None = None) -> Any:
    """The answer of S3 to a GET, its body not read.

    Raises:
        FileNotFoundError: there is no such object.
    """
    bucket, key, version = fs.split_path(path)
    chosen = {"VersionId": version} if version else {}
    asked = {**fs.req_kw, **chosen, **(headers or {})}
    request: Awaitable[Any] = fs._call_s3("get_object", Bucket=bucket, Key=key, **asked)
    try:
        return await request
    except FileNotFoundError as error:
        if "bucket" in str(error):
            raise
        raise FileNotFoundError(path) from error  # the client's own text names no object


async def _s3(fs: Any, path: str, url: str, limit: int) -> tuple[bytes, int]:
    answer = await open_s3(fs, path)
    stated, body, data = int(answer["ContentLength"]), answer["Body"], bytearray()
    try:
        if stated > limit:
            raise too_large(url, stated, limit)
        while chunk := await body.read(_CHUNK):
            data += chunk
            if len(data) > stated:
                break  # the length that was stated is no limit to a server that lies
    finally:
        body.close()
    return bytes(data), stated
