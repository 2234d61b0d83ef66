"""One object into one local file, going on where an earlier attempt stopped.

What arrived stays in a partial file: bytes from the beginning without a gap. The next attempt, of this process or of
another one days later, asks for the rest only. Whoever calls gives each version of an object a partial file of its own,
so that bytes of two versions do not meet.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import IO, Any

from fsspec.asyn import sync

from trackmill.pipeline.storage.credentials import protocol_of, redact
from trackmill.pipeline.storage.files import ShortRead
from trackmill.pipeline.storage.limits import MAX_DOWNLOAD_BYTES, FileTooLarge, Pace, check_plain
from trackmill.pipeline.storage.retries import retry

_RANGE = 16 << 20
"""Bytes in one ranged read of an object store."""

_AT_ONCE = 4
"""Ranged reads at once: they share a link that one connection seldom fills, and take 64 MB of memory."""

_CHUNK = 1 << 20

_CONNECT_S, _SILENCE_S = 30, 60
"""How long a server may take to answer, and to send the next bytes. The whole body has a least rate, see `Pace`."""

_STRONG_ETAG = re.compile(r'^"[^"]*"$')
_CONTENT_RANGE = re.compile(r"^bytes (\d+)-\d+/(\d+)$")


class ObjectChanged(FileNotFoundError):
    """The object is another one by now: the version that was asked for is gone."""


def download(fs: Any, remote: str, url: str, part: Path, *, size: int | None, version: str) -> bool:
    """Bring an object into `part`.

    Args:
        fs, remote: file system and the path in it.
        url: for messages, and for its protocol.
        part: the partial file; it need not exist.
        size: of the object in bytes; None where the server does not say, and then nothing is resumed.
        version: what changes with the object (an ETag, a time); "" where there is no such thing: nothing is resumed.

    Returns:
        Whether the bytes came by more than one request. Then they may be of two versions, if the object was
        overwritten meanwhile; whoever calls compares the version again.

    Raises:
        ObjectChanged: the server sends another version by now.
        FileNotFoundError, PermissionError: no such object, or not for us.
        OSError: still incomplete after several attempts that brought nothing new.
    """
    resumable = size is not None and bool(version)
    furthest = _length(part) if resumable else 0
    requests = 1 if furthest else 0

    def attempt() -> None:
        nonlocal requests
        start = _length(part) if resumable else 0
        if size is not None and start > size:
            start = 0
        if size is None or start < size or not start:
            with open(part, "r+b" if part.exists() else "w+b") as handle:
                handle.truncate(start)
                handle.seek(start)
                if protocol_of(url) in ("http", "https"):
                    requests += 1
                    sync(fs.loop, _stream, fs, remote, url, handle, start, size, version)
                else:
                    requests += _ranges(fs, remote, handle, start, size)
        arrived = _length(part)
        if size is not None and arrived != size:
            raise ShortRead(f"{redact(url)}: {arrived} of {size} bytes arrived")

    def advanced() -> bool:
        nonlocal furthest
        before, furthest = furthest, max(furthest, _length(part))
        return furthest > before

    retry(attempt, url, advanced)
    return requests > 1


async def _stream(
    fs: Any, remote: str, url: str, handle: IO[bytes], start: int, size: int | None, version: str
) -> None:
    """One GET whose body goes into the file as it arrives; a server without ranges sends all of it again."""
    import aiohttp

    options = dict(fs.kwargs)
    headers = {**options.pop("headers", {}), "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if _STRONG_ETAG.match(version) or version.endswith(" GMT"):
            headers["If-Range"] = version  # who has another version by now sends that one, whole
    options.setdefault("timeout", aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S))
    session = await fs.set_session()
    async with session.get(fs.encode_url(remote), headers=headers, **options) as response:
        check_status(response.status, url)
        if response.status == 206:
            placed = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
            if placed is None or int(placed[1]) != start:
                handle.truncate(0)
                raise ShortRead(f"{redact(url)}: the server sends another range than the one that was asked for")
            whole: int | None = int(placed[2])
        else:
            handle.truncate(0)
            handle.seek(0)
            whole = response.content_length
        check_plain(response.headers, url)
        if size is not None and whole is not None and whole != size:
            raise ObjectChanged(f"{redact(url)}: has {whole} bytes now, had {size} before")
        left = MAX_DOWNLOAD_BYTES if size is None else size - handle.tell()
        pace = Pace(redact(url))
        async for chunk in response.content.iter_chunked(_CHUNK):
            left -= len(chunk)
            if left < 0:
                limit = f"the limit of {MAX_DOWNLOAD_BYTES:,} bytes" if size is None else f"its {size:,} bytes"
                raise FileTooLarge(f"{redact(url)}: the server sends more than {limit}")
            handle.write(chunk)
            pace.arrived(len(chunk), time.monotonic())


def check_status(status: int, url: str) -> None:
    """Raise what a status of HTTP means, unless it is 200 or 206.

    Raises:
        FileNotFoundError, PermissionError: for good.
        StorageError: it may pass.
    """
    match status:
        case 200 | 206:
            return
        case 404 | 410:
            raise FileNotFoundError(f"{redact(url)}: no such file (HTTP {status})")
        case 401 | 403:
            raise PermissionError(
                f"{redact(url)}: the server refuses it (HTTP {status}); is a token or signature missing?"
            )
        case 416:
            raise ObjectChanged(f"{redact(url)}: is shorter now than before")
    raise ShortRead(f"{redact(url)}: HTTP {status}")


def _ranges(fs: Any, remote: str, handle: IO[bytes], start: int, size: int | None) -> int:
    """Ranged reads, a few at once, written in order; the number of requests."""
    if size is None:
        handle.write(fs.cat_file(remote))
        return 1
    requests = 0
    for begin in range(start, size, _RANGE * _AT_ONCE):
        starts = list(range(begin, min(begin + _RANGE * _AT_ONCE, size), _RANGE))
        ends = [min(each + _RANGE, size) for each in starts]
        for block, first, last in zip(fs.cat_ranges([remote] * len(starts), starts, ends), starts, ends, strict=True):
            requests += 1
            if isinstance(block, Exception):
                raise block
            handle.write(block)
            if len(block) != last - first:
                return requests  # what comes after this gap must not be written
    return requests


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
