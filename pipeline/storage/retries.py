"""Which failures of a store may pass, and how often they are tried again."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from trackmill.pipeline.storage.credentials import error_text, protocol_of, redact
from trackmill.pipeline.storage.hub_errors import hub_error
from trackmill.schemas.errors import StorageError

T = TypeVar("T")
log = logging.getLogger("trackmill")

ATTEMPTS = 5
"""How often a read or write is tried before it counts as failed."""

pause = time.sleep
"""Between attempts. A name of its own, so that a test can leave pauses out without hurrying other threads."""

_TOLD_AT = 2
"""One failure is nothing in a store; whoever waits for a second one should know what for."""

_FINAL = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ValueError,
    ImportError,
    NotImplementedError,
    MemoryError,
    RecursionError,
)

_ADVICE = {
    "NoCredentialsError": "; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}
"""What mends an error of a client library, by the error's class."""


def retry(action: Callable[[], T], what: str, advanced: Callable[[], bool] | None = None) -> T:
    """Run `action`, again after a pause when it fails in a way that may pass (0.2, 0.4, 0.8, ... s, with jitter).

    Args:
        action: what is done.
        what: its URL, for messages.
        advanced: of an action that goes on where it stopped: whether the attempt that just failed has brought it
            forward. Such an attempt does not count.

    Raises:
        StorageError: `ATTEMPTS` attempts failed.
    """
    failed = 0
    while True:
        try:
            return action()
        except Exception as caught:
            error = clearer(caught, what)
            if isinstance(error, _FINAL):
                if error is caught:
                    raise
                raise error from caught
            failed = 0 if advanced is not None and advanced() else failed + 1
            if failed == ATTEMPTS:
                advice = _ADVICE.get(type(error).__name__, "")
                said = str(error).removeprefix(f"{redact(what)}: ")
                if not isinstance(error, StorageError):
                    said = f"{type(error).__name__}: {said}"
                raise StorageError(f"{redact(what)}: gave up after {ATTEMPTS} attempts: {said}{advice}") from error
            if failed == _TOLD_AT:
                log.info("%s: failed %d times, and is tried again: %s", redact(what), failed, error_text(error))
            pause(0.2 * 2 ** max(failed - 1, 0) * (0.5 + random.random()))


def clearer(error: Exception, what: str) -> Exception:
    """The error, or a clearer one: over HTTP fsspec calls every failure a missing file, with the address as text."""
    if protocol_of(what) == "hf" and (told := hub_error(error, what)) is not None:
        return told
    if isinstance(error, PermissionError) and not error.filename and what not in str(error):
        return PermissionError(f"{redact(what)}: not allowed ({error})")  # of a bucket, whose client names no URL
    if protocol_of(what) in ("http", "https") and type(error).__module__.partition(".")[0] == "aiohttp":
        cause: BaseException | None = error
    elif not isinstance(error, FileNotFoundError) or error.errno is not None:
        return error
    else:
        cause = error.__cause__
    # A damaged answer bears a status too, 400, which no server sent.
    if cause is not None and type(cause.__cause__).__module__ == "aiohttp.http_exceptions":
        return ConnectionError("what the server answers is no HTTP, or is damaged")
    status = getattr(cause, "status", None)
    if type(cause).__module__.partition(".")[0] != "aiohttp" or status in (404, 410):
        # An address may carry a signature.
        return error if " " in str(error) else FileNotFoundError(f"{redact(what)}: no such file or folder")
    if status is not None and 400 <= status < 500 and status not in (408, 429):
        return PermissionError(f"{redact(what)}: the server refuses (HTTP {status})")
    if type(cause).__name__ == "TooManyRedirects":  # its text holds addresses
        return StorageError(f"{redact(what)}: the server sends from one address to the next without end")
    return ConnectionError(f"HTTP {status}" if status is not None else f"{type(cause).__name__}: {cause}")
