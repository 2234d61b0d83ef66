"""Whether results can be written where somebody wants them, found out before the work is done."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.scratch import check_writable
from trackmill.pipeline.storage.urls import filesystem, is_local
from trackmill.schemas.errors import InputError

_LONGEST_NAME = 240
"""Bytes: file systems take 255, and a partial result has a few more than the name."""


def check_output_folder(url: str, names: Sequence[str], option: str) -> None:
    """Find out that files of these names can be written into a folder, which need not exist; nothing is left there.

    Args:
        url: the folder; of a store only what can never be written is refused.
        names: of the files.
        option: what the folder was given by, for the message.

    Raises:
        InputError: a file stands where a folder is needed or the other way, nothing can be made there, or a name is too
            long; says what to do.
    """
    check_writable(url)
    for name in names:
        if len(os.fsencode(name)) > _LONGEST_NAME:
            raise InputError(f"{name[:40]}...: {len(os.fsencode(name))} bytes are too long for a file's name")
    if not is_local(url):
        return
    folder = Path(filesystem(url)[1])
    existing = folder
    try:
        existing = next(each for each in (folder, *folder.parents) if _exists(each))
        if not existing.is_dir():
            raise InputError(f"{option} {redact(url)}: {existing} is a file; give a folder, which need not exist")
        with tempfile.TemporaryFile(dir=existing):
            pass
        taken = next((name for name in names if (folder / name).is_dir()), None)
    except OSError as error:
        reason = "the name is too long" if error.errno == errno.ENAMETOOLONG else f"nothing can be made in {existing}"
        raise InputError(f"{option} {redact(url)}: {reason}; give a folder that you may write to") from None
    if taken is not None:
        raise InputError(f"{option} {redact(url)}: {folder / taken} is a folder, a file of that name is to be written")


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
