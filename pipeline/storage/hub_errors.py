"""What Hugging Face's client library raises, as errors of ours.

Its classes are known by name, as the package may be missing. Under it lies another HTTP client from release to release
(requests, httpx, httpx2), whose errors are no `OSError`s.
"""

from __future__ import annotations

from typing import Any

from trackmill.pipeline.storage.credentials import error_text, redact
from trackmill.schemas.errors import InputError, StorageError

_CLIENTS = ("requests", "httpx", "httpx2", "hf_xet")
_ANSWERED = "HfHubHTTPError"
"""Of an answer of the Hub, which says itself what is wrong."""


def hub_error(error: Exception, where: str) -> InputError | StorageError | None:
    """The error that people get: an `InputError` for what they can mend, a `StorageError` for what may pass.

    Args:
        error: any.
        where: URL or name of what was asked for.

    Returns:
        None for an answer of the Hub, and for what does not come from the client library.
    """
    classes = type(error).__mro__
    names = {each.__name__ for each in classes}
    shown = redact(where)
    if "OfflineModeIsEnabled" in names:
        return InputError(
            f"{shown}: the Hub's client is offline: unset HF_HUB_OFFLINE, or give the path of a copy on this machine"
        )
    if "HFValidationError" in names:
        return InputError(f"{shown}: the Hub has no such names: {error_text(error, 300)}")
    if _ANSWERED in names:
        return None
    if isinstance(error, (ConnectionError, TimeoutError)) or any(
        each.__module__.partition(".")[0] in _CLIENTS for each in classes
    ):
        name = type(error).__name__
        said = error_text(error, 300)
        return StorageError(f"{shown}: could not be reached ({name if said == name else f'{name}: {said}'})")
    return None


def tell_of_reads(handle: Any, url: str) -> None:
    """Let the reads of an open file of the Hub raise errors of ours; they come when nobody tries anything again."""
    fetch = handle.cache.fetcher

    def fetcher(start: int, end: int) -> bytes:
        try:
            data: bytes = fetch(start, end)
        except Exception as error:
            if (told := hub_error(error, url)) is None:
                raise
            raise told from error
        return data

    handle.cache.fetcher = fetcher
