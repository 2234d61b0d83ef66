"""Limits of reading and listing from any storage: bytes, files, nested folders, and time."""

from __future__ import annotations

from collections.abc import Mapping

from trackmill.pipeline.storage.credentials import redact
from trackmill.schemas.errors import InputError, StorageError

MAX_BODY_BYTES = 2 << 30
"""Of a file that is read whole and under no limit of its own. Larger ones are shards and videos, read in parts."""

MAX_PAGE_BYTES = 64 << 20
"""Of one page of a web server's listing. A folder of 100,000 files has 10 MB."""

MAX_LISTED_FILES = 30_000_000
"""Of all that one listing of folders finds. SA-1B, unpacked, is 22 million files."""

MAX_LINKED_FILES = 1_000_000
"""The same for a web server, whose pages cost nothing to make: a list of links says what is meant."""

MAX_DOWNLOAD_BYTES = 64 << 30
"""Of a checkpoint whose server does not say how long it is."""

MAX_LISTING_DEPTH = 64
"""Nested folders. Real file systems seldom have more than a dozen."""

ANSWER_S = 60
"""How long a server may take to answer, and to send the next bytes."""

MIN_BYTES_PER_S = 256
"""What a server has to send at least, over every `PACE_S` seconds: else a body of one byte a second never ends."""

PACE_S = 60


class FileTooLarge(InputError):
    """A file is larger than the limit it is read under."""


class ListingTooLarge(InputError):
    """A listing has more files, pages or nested folders than a limit allows."""


class Pace:
    """Checks that a body arrives at a minimum speed.

    Args:
        where: name of the body in errors.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._since: float | None = None
        self._bytes = 0

    def arrived(self, num_bytes: int, now: float) -> None:
        """Count what came.

        Raises:
            StorageError: too little in the last `PACE_S` seconds.
        """
        if self._since is None:
            self._since = now
        self._bytes += num_bytes
        if now - self._since < PACE_S:
            return
        if self._bytes < MIN_BYTES_PER_S * (now - self._since):
            raise StorageError(
                f"{self._where}: the server sends less than {MIN_BYTES_PER_S} bytes a second; try again later, or copy "
                "the file here"
            )
        self._since, self._bytes = now, 0


def check_plain(headers: Mapping[str, str], url: str) -> None:
    """Check that a response has no content encoding (compression).

    Raises:
        StorageError: the body is compressed, so its decompressed length is unknown.
    """
    packed = headers.get("Content-Encoding", "identity").strip().lower()
    if packed not in ("", "identity"):
        raise StorageError(
            f"{redact(url)}: the server packs it ({packed[:20]!r}), though its own bytes were asked for; "
            "store it without Content-Encoding"
        )
