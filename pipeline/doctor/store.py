"""A bucket or folder: whether it can be listed, read and written, how fast, and whether its clock is ours."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from trackmill.pipeline.console.words import duration, readable_bytes
from trackmill.pipeline.doctor.finding import Finding, Level
from trackmill.pipeline.storage.credentials import error_text, protocol_of, redact
from trackmill.pipeline.storage.publish import publish_bytes, remove
from trackmill.pipeline.storage.retries import clearer
from trackmill.pipeline.storage.scratch import NOTHING_STAYS
from trackmill.pipeline.storage.urls import canonical, filesystem, has_magic, is_local, join

T = TypeVar("T")

PROBE_BYTES = 8 << 20
_SMALL_READS, _SMALL_BYTES = 5, 4096
SLOW_LATENCY_S, SLOW_BYTES_PER_S = 0.5, 10e6
"""A request that takes longer, or a stream that brings less, keeps a GPU waiting."""

SKEW_S, MOST_SKEW_S = 30.0, 300.0
"""Clocks that differ by more than the first confuse people; by 15 minutes, S3 refuses every request."""

_ADVICE = {
    "NoCredentialsError": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role",
    "PermissionError": "give the user or role the right to list, read and (of an output) write and delete there",
    "FileNotFoundError": "see whether bucket and folder are spelt right; for S3-compatible stores set AWS_ENDPOINT_URL",
    "MissingPackage": "install what it names",
    "InputError": "give another URL, of a folder or a bucket",
    "EndpointConnectionError": "see AWS_ENDPOINT_URL, the network and the proxy",
    "ConnectionError": "see the address, the network and the proxy",
    "gaierror": "see whether the server's name is spelt right, the network and the proxy",
}

_LOCAL_ADVICE = {
    "FileExistsError": "give a folder, or a name that nothing has yet",
    "NotADirectoryError": "give a folder, or a name that nothing has yet",
    "FileNotFoundError": "see whether it is spelt right, and whether its disk is mounted",
    "PermissionError": "see who owns it (ls -ld), or give a folder that you may use",
}
"""Of a path of this machine: no bucket, no credentials."""


def check_input(url: str) -> list[Finding]:
    """List the first files below a URL, and read the beginning of one.

    Args:
        url: a file, a folder, a bucket, or a glob, of which the folder before the first wildcard is looked at.
    """
    where = redact(url)
    root = canonical(url)
    while has_magic(root):
        root = root.rpartition("/")[0]
    try:
        fs, path = filesystem(root)
        began = time.monotonic()
        name, size = _first_file(fs, path)
        listed = time.monotonic() - began
        if not name:
            mend = "give a place with files in it"
            return [Finding(about="data", level=Level.FAULT, said=f"{where}: there is no file", mend=mend)]
        latency, rate = _read_speed(lambda start, end: fs.cat_file(name, start=start, end=end), size)
    except Exception as error:
        return [_failed("data", where, "listed and read", error)]
    said = f"{where}: first file listed in {_ms(listed)}, {_speed(latency, rate)}"
    return [_judge("data", said, latency, rate, local=is_local(root))]


def check_output(url: str) -> list[Finding]:
    """Write a probe below a URL, list it, read it back, compare clocks, and delete it.

    Nothing else there is touched; folders that had to be made are removed again.
    """
    where = redact(url)
    root = canonical(url)
    if protocol_of(root) == "memory":
        said = f"{where}: the memory of one process"
        return [Finding(about="output", level=Level.FAULT, said=said, mend=NOTHING_STAYS)]
    probe = join(root, f".doctor-{os.urandom(6).hex()}")
    made = _missing_folders(root)
    try:
        data = os.urandom(PROBE_BYTES)  # nothing on the way can compress it
        before = time.time()
        written = _timed(lambda: publish_bytes(probe, data))[0]
        middle = (before + time.time()) / 2
        fs, path = filesystem(probe)
        fs.invalidate_cache()
        info: dict[str, Any] = fs.info(path)
        latency, rate = _read_speed(lambda start, end: fs.cat_file(path, start=start, end=end), PROBE_BYTES)
        back = fs.cat_file(path)
    except Exception as error:
        with contextlib.suppress(Exception):  # what failed first is what people should read
            _take_away(probe, made)
        return [_failed("output", where, "written to and read", error)]
    try:
        _take_away(probe, made)
    except Exception as error:
        return [_failed("output", where, "cleaned: files can be written there, but not deleted", error)]
    if back != data:
        mend = "do not use this store: what is read is not what was written"
        return [Finding(about="output", level=Level.FAULT, said=f"{where}: other bytes came back", mend=mend)]
    said = f"{where}: writes {readable_bytes(PROBE_BYTES / max(written, 1e-6))}/s, {_speed(latency, rate)}"
    found = [_judge("output", said, latency, min(rate, PROBE_BYTES / max(written, 1e-6)), local=is_local(root))]
    return found + judge_clock(_modified(info), middle, where)


def _take_away(probe: str, folders: list[str]) -> None:
    remove(probe)
    for folder in folders:
        os.rmdir(folder)


def judge_clock(theirs: float | None, ours: float, where: str) -> list[Finding]:
    """Whether a store's clock is ours.

    Args:
        theirs: when the store says that the probe was written; None where it says nothing.
        ours: local time in the middle of writing it.
        where: for messages.
    """
    if theirs is None:
        return []
    skew = theirs - ours
    # Stores count whole seconds.
    said = f"{where}: its clock is {'ours' if abs(skew) < 2 else f'{duration(abs(skew))} {_way(skew)} ours'}"
    if abs(skew) <= SKEW_S:
        return [Finding(about="clock", said=said)]
    level = Level.FAULT if abs(skew) > MOST_SKEW_S else Level.WARNING
    mend = "set this machine's clock (timedatectl set-ntp true, or chronyd); S3 refuses requests that are 15 min off"
    return [Finding(about="clock", level=level, said=said, mend=mend)]


def _way(skew: float) -> str:
    return "ahead of" if skew > 0 else "behind"


def _modified(info: dict[str, Any]) -> float | None:
    """When a listing says that a file was written; each file system has a name of its own for that."""
    for key in ("LastModified", "last_modified", "mtime", "updated", "modified"):
        value = info.get(key)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    return None


def _first_file(fs: Any, path: str) -> tuple[str, int]:
    """Name and length of a file at or below a path, by as few listings as possible; "" where there is none."""
    fs.invalidate_cache()
    info = fs.info(path)
    if info["type"] == "file":
        return str(info["name"]), int(info.get("size") or 0)
    folders = [path]
    for _ in range(100):
        if not folders:
            break
        entries = sorted(fs.ls(folders.pop(0), detail=True), key=lambda entry: entry["name"])
        files = [each for each in entries if each["type"] == "file" and each.get("size")]
        if files:
            return str(files[0]["name"]), int(files[0]["size"])
        folders = [each["name"] for each in entries if each["type"] == "directory"] + folders
    return "", 0


def _read_speed(read: Callable[[int, int], bytes], size: int) -> tuple[float, float]:
    """(seconds for a small range, bytes a second of a large one)."""
    small = min(_SMALL_BYTES, max(1, size))
    latencies = sorted(_timed(lambda: read(0, small))[0] for _ in range(_SMALL_READS))
    large = min(PROBE_BYTES, max(1, size))
    seconds, data = _timed(lambda: read(0, large))
    # Of a small file nothing but the latency can be measured.
    rate = len(data) / max(seconds, 1e-6) if large >= PROBE_BYTES // 8 else float("inf")
    return latencies[len(latencies) // 2], rate


def _timed(action: Callable[[], T]) -> tuple[float, T]:
    began = time.monotonic()
    result = action()
    return time.monotonic() - began, result


def _speed(latency: float, rate: float) -> str:
    read = f", reads {readable_bytes(rate)}/s" if rate != float("inf") else ""
    return f"{_ms(latency)} a small read{read}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms" if seconds < 0.1 else f"{1000 * seconds:.0f} ms"


def _judge(about: str, said: str, latency: float, rate: float, local: bool) -> Finding:
    if latency > SLOW_LATENCY_S or rate < SLOW_BYTES_PER_S:
        mend = (
            "a slow disk or a network file system: keep shards on a local disk, or train with data.cache"
            if local
            else "run in the region of the bucket, see the proxy and the network; train with data.cache, and mine with "
            "more workers, which wait at the same time"
        )
        return Finding(about=about, level=Level.WARNING, said=f"{said}: slow", mend=mend)
    return Finding(about=about, said=said)


def _failed(about: str, where: str, what: str, error: Exception) -> Finding:
    local = protocol_of(where) in ("file", "local")
    known = _ADVICE | _LOCAL_ADVICE if local else _ADVICE
    if not local:
        error = clearer(error, where)
    cause: BaseException | None = error
    advice = ""
    while cause is not None and not advice:
        advice = next((known[each.__name__] for each in type(cause).__mro__ if each.__name__ in known), "")
        cause = cause.__cause__
    text = error_text(error).removeprefix(f"{where}: ")
    if "RequestTimeTooSkewed" in text:
        advice = "set this machine's clock: the store refuses requests that are 15 min off"
    if "Service Unavailable" in text or "SlowDown" in text:
        advice = advice or "the store is down, or asked too much: wait, and look at its own page of status"
    said = f"{where}: cannot be {what}: {text}"
    by_hand = f"try the same by hand, such as with {_client(where)}"
    mend = advice or (by_hand if local else f"{by_hand}; credentials come from the environment")
    return Finding(about=about, level=Level.FAULT, said=said, mend=mend)


def _client(where: str) -> str:
    known = {"s3": "aws s3 ls", "gs": "gcloud storage ls", "hf": "hf auth whoami", "file": "ls -l", "local": "ls -l"}
    return known.get(protocol_of(where), "curl -I")


def _missing_folders(root: str) -> list[str]:
    """Folders of this machine that writing will make, the deepest first."""
    if not is_local(root):
        return []
    path, missing = filesystem(root)[1], []
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing
