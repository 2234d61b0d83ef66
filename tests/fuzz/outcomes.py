"""What became of one input, and whether that is allowed."""

from __future__ import annotations

import dataclasses
import hashlib
import traceback
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from tests.fuzz.target import Refused, Target
from trackmill.pipeline.console.output import clean
from trackmill.schemas.errors import InputError, JobError, MissingPackage, StorageError

MOST_CHARACTERS = 1000
"""Of one message; longer ones nobody reads."""
_ANSWERS = (InputError, StorageError, JobError, MissingPackage)
_RAW = ("[Errno ", "Traceback (most", " object at 0x", "<class '")


class Kind(StrEnum):
    """What became of an input; the last six are always failures, `different` is where a checksum covers the change."""

    SAME = "same"
    DIFFERENT = "different"
    ERROR = "error"
    UNCLEAR = "unclear"
    """An error of ours whose text names no file, cannot be printed, or has more than one line."""
    TRACEBACK = "traceback"
    MEMORY = "memory"
    HANG = "hang"
    DEATH = "death"
    SILENT = "silent"
    """Different, though a checksum covers what was changed."""


FAILURES = (Kind.UNCLEAR, Kind.TRACEBACK, Kind.MEMORY, Kind.HANG, Kind.DEATH, Kind.SILENT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an input.

    Args:
        kind: see `Kind`.
        text: digest of what was understood, or the error's text.
        place: of a failure, where it came from.
        cpu_s: processor time.
        peak_mb: largest resident memory of the process so far.
    """

    kind: Kind
    text: str = ""
    place: str = ""
    cpu_s: float = 0.0
    peak_mb: int = 0


def judge_error(error: BaseException, target: Target, names: Iterable[str], folder: Path) -> Outcome:
    """Whether an error is one clear line.

    Args:
        error: what was raised.
        target: see `Target.others` and `Target.about`.
        names: of the files of the input, of which the text should name one.
        folder: where they lay.
    """
    place = "".join(traceback.format_exception(error))[-3000:]
    if isinstance(error, MemoryError):
        return Outcome(kind=Kind.MEMORY, text=str(error), place=place)
    # Without a number it is not the operating system's: somebody wrote the text for people.
    told = isinstance(error, OSError) and error.errno is None
    if not isinstance(error, (*_ANSWERS, *target.others)) and not told:
        return Outcome(kind=Kind.TRACEBACK, text=f"{type(error).__name__}: {error}"[:500], place=place)
    # What ends a job is printed by its frame, which lets no control code and no second line through.
    lines = error.lines if isinstance(error, Refused) else [clean(str(error))]
    for line in lines:
        if fault := _fault_of(line.replace(f"{folder}/", ""), target, names):
            return Outcome(kind=Kind.UNCLEAR, text=f"{type(error).__name__} {fault}: {line[:1500]!r}", place=place)
    return Outcome(kind=Kind.ERROR, text=f"{type(error).__name__}: {' | '.join(lines)}".replace(f"{folder}/", ""))


def _fault_of(line: str, target: Target, names: Iterable[str]) -> str:
    if len(line) > MOST_CHARACTERS:
        return f"has {len(line)} characters"
    if not line.isprintable():
        return "cannot be printed"
    if raw := next((word for word in _RAW if word in line), ""):
        return f"holds {raw!r}"
    known = {*target.about, *names}
    for name in names:  # one that is gone may be named by its folder
        known |= {Path(name).name, Path(name).stem, *Path(name).parts}
    if not any(name and name in line for name in known):
        return "names no file"
    return ""


def digest(value: object, folder: Path) -> str:
    """SHA-256 of what was understood; the folder's path in texts is no difference."""
    hashed = hashlib.sha256()
    for part in _parts(value, str(folder)):
        hashed.update(b"%d:" % len(part))
        hashed.update(part)
    return hashed.hexdigest()


def _parts(value: Any, folder: str) -> Iterator[Any]:
    yield type(value).__name__.encode()
    if value is None or isinstance(value, (bool, int, float, complex, str)):
        yield str(value).replace(folder, "").encode("utf-8", "surrogateescape")
    elif isinstance(value, (bytes, bytearray, memoryview)):
        yield bytes(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _parts(getattr(value, field.name), folder)
    elif isinstance(value, Mapping):
        for key in value:
            yield from _parts(key, folder)
            yield from _parts(value[key], folder)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _parts(each, folder)
    elif isinstance(value, (set, frozenset)):
        yield from sorted(b"".join(_parts(each, folder)) for each in value)
    elif hasattr(value, "model_dump"):
        yield from _parts(value.model_dump(), folder)
    elif hasattr(value, "to_batches"):
        yield str(value.schema.remove_metadata()).encode()
        # In pieces, and without Python objects, which would take more memory than what is tested.
        for batch in value.to_batches(max_chunksize=256):
            yield batch.serialize()
    elif hasattr(value, "detach"):
        import torch

        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif hasattr(value, "tobytes") and hasattr(value, "dtype"):
        yield f"{value.dtype} {value.shape}".encode()
        yield value.tobytes()
    else:
        raise TypeError(f"a target returned a {type(value)}, which nothing here can compare")
