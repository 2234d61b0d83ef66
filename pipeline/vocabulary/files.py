"""Files of names and of vectors: read whole, with an error that says what was wanted; and what lies beside them."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import urlsplit

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import read_bytes
from trackmill.schemas.errors import InputError


def read_file(url: str, max_bytes: int) -> bytes:
    """All bytes of a file.

    Raises:
        FileNotFoundError: there is none.
        InputError: larger than `max_bytes`, or a folder.
        OSError: it could not be read.
    """
    try:
        return read_bytes(url, max_bytes=max_bytes)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"classes: there is no file {redact(url)}; check the path") from error
    except IsADirectoryError:
        raise InputError(f"classes: {redact(url)} is a folder; name a file in it") from None


def suffix_of(url: str) -> str:
    """`.npy` and the like, in small letters; "" where there is none."""
    return PurePosixPath(urlsplit(url).path if "://" in url else url).suffix.lower()


def beside(url: str, suffix: str) -> str:
    """The URL with another suffix; "" for one that is signed, since its signature is good for one file."""
    if "://" in url and ("?" in url or "#" in url):
        return ""
    return url[: len(url) - len(suffix_of(url))] + suffix
