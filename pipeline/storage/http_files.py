"""Files behind HTTP, from untrusted servers: limits on bytes, files, depth and time of bodies and listings.

fsspec's own client reads a body of any length, decompresses it where the server compressed it, and follows links of
listings without end. This one stops at the range that was asked for, asks for uncompressed bytes, gives up on a server
that sends next to nothing, and counts folders and files.
"""

from __future__ import annotations

import asyncio
import html
import re
import time
from collections.abc import AsyncIterator
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from fsspec.asyn import sync_wrapper
from fsspec.implementations.http import HTTPFile, HTTPFileSystem

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.limits import (
    ANSWER_S,
    MAX_BODY_BYTES,
    MAX_LINKED_FILES,
    MAX_LISTING_DEPTH,
    MAX_PAGE_BYTES,
    FileTooLarge,
    ListingTooLarge,
    Pace,
    check_plain,
)
from trackmill.pipeline.storage.whole_objects import range_header, too_large
from trackmill.schemas.errors import StorageError

_CHUNK = 1 << 20
_CONNECT_S = 30
_HREF = re.compile(r"""<a\s[^<>]{0,4096}?href\s{0,9}=\s{0,9}["']([^"'<>]+)""", re.IGNORECASE)
_BARE = re.compile(r"""https?://[^\s"'<>]+""")
_CONTENT_RANGE = re.compile(r"^bytes (\d+)-")
_NO_FILES = ("mailto:", "javascript:", "data:", "tel:")


class HttpFiles(HTTPFileSystem):  # type: ignore[misc]  # fsspec has no types
    """fsspec's file system for `http` and `https`, with limits. Its settings come from fsspec's as before."""

    async def _cat_file(self, url: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """A body, or bytes `start` to `end` of it.

        Args:
            url: of the file.
            start, end: None, None for all of it.
            kwargs: `max_bytes`, of a whole body; more is an error.

        Raises:
            FileTooLarge: more than `max_bytes`.
            FileNotFoundError, aiohttp.ClientError, StorageError: it does not come, or not as it was asked for.
        """
        if start is not None and end is not None and start >= end:
            return b""
        return (await self._body(url, start, end, kwargs.get("max_bytes") or MAX_BODY_BYTES))[0]

    async def get_body(self, url: str, limit: int) -> tuple[bytes, int | None]:
        """A whole body, and its length where it is certain that nothing is missing.

        Raises:
            FileTooLarge, FileNotFoundError, aiohttp.ClientError, StorageError: see `_cat_file`.
        """
        return await self._body(url, None, None, limit)

    async def open_body(self, url: str, start: int, end: int, size: int) -> tuple[Any, AsyncIterator[bytes], int, Any]:
        """Bytes `start` to `end` of a file of `size` bytes, as they arrive.

        Returns:
            The answer, to be closed by the caller; its bytes; which byte of the file the first is, 0 where a server
            knows no ranges; and the length of the whole file, None where the server does not say.

        Raises:
            FileNotFoundError, aiohttp.ClientError, StorageError: see `_cat_file`.
        """
        headers = {**self.kwargs.get("headers", {}), "Accept-Encoding": "identity"}
        if (start, end) != (0, size):
            headers["Range"] = range_header(start, end, size)
        response = await self._answer(url, headers)
        try:
            self._raise_not_found_for_status(response, url)
            if response.status != 206:
                return response, _chunks(response, url), 0, response.content_length
            placed = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
            if placed is None or int(placed[1]) != start:
                raise StorageError(f"{redact(url)}: the server sends another range than the one that was asked for")
            whole = response.headers["Content-Range"].rpartition("/")[2]
            return response, _chunks(response, url), start, int(whole) if whole.isdecimal() else None
        except BaseException:
            response.close()
            raise

    async def _body(self, url: str, start: int | None, end: int | None, limit: int) -> tuple[bytes, int | None]:
        headers = {**self.kwargs.get("headers", {}), "Accept-Encoding": "identity"}
        if start is not None or end is not None:
            headers["Range"] = await self._process_limits(url, start, end)
        body, skipped = bytearray(), start or 0
        async with await self._answer(url, headers) as response:
            self._raise_not_found_for_status(response, url)
            stated = response.content_length
            if response.status == 206:
                placed = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
                if placed is None or int(placed[1]) != skipped:
                    raise StorageError(f"{redact(url)}: the server sends another range than the one that was asked for")
                skipped = 0
            wanted = None if end is None else end - (start or 0)
            if wanted is None and stated is not None and stated > limit:
                raise too_large(url, stated, limit)
            async for chunk in _chunks(response, url):
                part = chunk[skipped:] if skipped else chunk
                skipped = max(0, skipped - len(chunk))
                body += part
                if wanted is not None and len(body) >= wanted:
                    return bytes(body[:wanted]), wanted
                if wanted is None and len(body) > limit:
                    raise FileTooLarge(f"{redact(url)}: more than {limit:,} bytes, the limit it is read under")
            if stated is None and "chunked" in response.headers.get("Transfer-Encoding", "").lower():
                stated = len(body)  # its end is marked
        return bytes(body), stated

    async def _ls_real(self, url: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """The files and folders that a page links to and that lie below it."""
        page = bytearray()
        async with await self._answer(
            url, {**self.kwargs.get("headers", {}), "Accept-Encoding": "identity"}
        ) as response:
            self._raise_not_found_for_status(response, url)
            kind = response.headers.get("Content-Type", "text/html").partition(";")[0].strip()
            if kind == "text/html":
                async for chunk in _chunks(response, url):
                    page += chunk
                    if len(page) > MAX_PAGE_BYTES:
                        raise ListingTooLarge(
                            f"{redact(url)}: its listing has more than {MAX_PAGE_BYTES:,} bytes; give a list of links"
                        )
        links = set(_links(page.decode("utf-8", "ignore"), url, self.simple_links))
        if not detail:
            return sorted(links)
        return [
            {"name": link, "size": None, "type": "directory" if link.endswith("/") else "file"}
            for link in sorted(links)
        ]

    async def _walk(
        self, path: str, maxdepth: int | None = None, on_error: str = "omit", **kwargs: Any
    ) -> AsyncIterator[tuple[str, Any, Any]]:
        """Folder after folder: its name, the folders in it, the files in it; each an entry of a listing by its name.

        Raises:
            ListingTooLarge: more folders in each other, or more files, than a listing may have.
        """
        waiting, known, listed = [(self._strip_protocol(path), 1)], set(), 0
        while waiting:
            folder, depth = waiting.pop()
            if depth > MAX_LISTING_DEPTH:
                raise ListingTooLarge(
                    f"{redact(folder)}: {MAX_LISTING_DEPTH} folders lie in each other; name the folder that you mean"
                )
            try:
                entries = await self._ls(folder, detail=True)
            except FileNotFoundError:
                continue
            listed += len(entries)
            if listed > MAX_LINKED_FILES:
                raise ListingTooLarge(
                    f"{redact(path)}: more than {MAX_LINKED_FILES:,} files and folders; name fewer folders at once"
                )
            folders, files = {}, {}
            for entry in entries:
                name = entry["name"].rstrip("/")
                if entry["type"] != "directory" or name == folder.rstrip("/"):
                    files[name] = entry
                elif name not in known:
                    folders[name] = entry
                    known.add(name)
            yield folder, folders, files
            if maxdepth is None or depth < maxdepth:
                waiting += [(name, depth + 1) for name in reversed(folders)]

    async def _find(self, path: str, maxdepth: int | None = None, withdirs: bool = False, **kwargs: Any) -> Any:
        found = await super()._find(path, maxdepth=maxdepth, withdirs=withdirs, detail=True)
        # Of a lone file fsspec says nothing at all.
        found = {name: entry or {"name": name, "size": None, "type": "file"} for name, entry in found.items()}
        return found if kwargs.get("detail") else list(found)

    async def _answer(self, url: str, headers: dict[str, str]) -> Any:
        """The answer of a server, its body not read."""
        options = {**self.kwargs, "headers": headers}
        options.setdefault("timeout", aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=ANSWER_S))
        session = await self.set_session()
        try:
            async with asyncio.timeout(ANSWER_S):
                response = await session.get(self.encode_url(url), **options)
        except TimeoutError:
            raise StorageError(f"{redact(url)}: the server does not answer within {ANSWER_S} s") from None
        except aiohttp.TooManyRedirects:
            raise StorageError(f"{redact(url)}: the server sends from one address to the next without end") from None
        try:
            check_plain(response.headers, url)
        except StorageError:
            response.close()
            raise
        return response

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> Any:
        info = self.info(path)
        if mode != "rb" or not info.get("size") or not info.get("partial", True) or not (block_size or self.block_size):
            return super()._open(path, mode=mode, block_size=block_size, **kwargs)
        for name in ("autocommit", "size"):
            kwargs.pop(name, None)
        return _File(
            self, path, session=None, mode=mode, block_size=block_size or self.block_size, size=info["size"],
            cache_type=kwargs.pop("cache_type", None) or self.cache_type, loop=self.loop, asynchronous=False,
            cache_options=kwargs.pop("cache_options", None) or self.cache_options, **kwargs,
        )  # fmt: skip


class _File(HTTPFile):  # type: ignore[misc]
    """A file that is read in ranges, each under the limits of `HttpFiles`."""

    async def async_fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = await self.fs._cat_file(self.path, start=start, end=end)
        return data

    _fetch_range = sync_wrapper(async_fetch_range)


async def _chunks(response: Any, url: str) -> AsyncIterator[bytes]:
    """The body as it arrives.

    Raises:
        StorageError: next to nothing arrives.
    """
    pace = Pace(redact(url))
    arriving = response.content.iter_chunked(_CHUNK)
    while True:
        try:
            # A clock of our own: aiohttp stops its own where a connection ends in the middle of a damaged chunk.
            async with asyncio.timeout(ANSWER_S):
                chunk = await anext(arriving, b"")
        except TimeoutError:
            raise StorageError(f"{redact(url)}: the server sends nothing for {ANSWER_S} s") from None
        if not chunk:
            return
        pace.arrived(len(chunk), time.monotonic())
        yield chunk


def _links(page: str, url: str, bare: bool) -> list[str]:
    """What a page links to and what lies below it, without itself."""
    base = url.rstrip("/") + "/"
    parts = urlsplit(url)
    texts = chain(
        (html.unescape(match[1]) for match in _HREF.finditer(page)),
        (match[0] for match in _BARE.finditer(page) if bare),
    )
    found: list[str] = []
    for link in map(str.strip, texts):
        if len(found) > 2 * MAX_LINKED_FILES:  # a link may stand there twice, in the page's text as well
            raise ListingTooLarge(f"{redact(url)}: its listing has more than {MAX_LINKED_FILES:,} files and folders")
        if link.lower().startswith(_NO_FILES) or link.startswith(("#", "?")):
            continue
        if link.startswith("//"):
            link = f"{parts.scheme}:{link}"
        elif link.startswith("/"):
            link = f"{parts.scheme}://{parts.netloc}{link}"
        elif not link.lower().startswith(("http://", "https://")):
            link = base + link
        below = _below(link, base)
        if below:
            # As the page spells it: from http to https and back too.
            found.append(f"{link.partition('://')[0]}://{base.partition('://')[2]}{below}")
    return found


def _below(link: str, base: str) -> str:
    """What follows `base` in a link, without `.` and `..`; "" for the page itself and for what is not below it."""
    address, base = link.partition("://")[2], base.partition("://")[2]
    if not address.startswith(base):
        return ""
    path, mark, query = address[len(base) :].partition("?")
    names: list[str] = []
    for name in path.split("/"):
        if name == ".." and not names:
            return ""
        if name == "..":
            names.pop()
        elif name not in (".", ""):
            names.append(name)
    if not names:
        return ""
    return "/".join(names) + ("/" if path.endswith(("/", "/.", "/..")) else "") + mark + query
