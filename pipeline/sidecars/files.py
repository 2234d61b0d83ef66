"""Files in the folder of a sidecar beside its parts: what all workers must have as the same bytes, like a vocabulary.

A producer names them (`Producer.shared_files`), `sidecar.json` holds their SHA-256, and workers get the bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping

from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.limits import FileTooLarge
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.urls import join

FILE_NAME = re.compile(r"^[a-z][a-z0-9_]{0,39}\.[a-z]{1,8}$")
RESERVED = "sidecar.json"
MAX_FILE_BYTES = 512 << 20
MAX_FILES = 8


def checked_names(files: Mapping[str, object]) -> list[str]:
    """Names of the files of a sidecar, in order.

    Raises:
        ValueError: one of them cannot be in the folder of a sidecar, or there are too many.
    """
    for name in files:
        if not FILE_NAME.match(name) or name == RESERVED:
            raise ValueError(f"{str(name)[:60]!r} cannot be the name of a file of a sidecar")
    if len(files) > MAX_FILES:
        raise ValueError(f"{len(files)} files are more than the {MAX_FILES} that a sidecar may have")
    return sorted(files)


def stored_files(layout: Layout, sidecar: str, sums: Mapping[str, str]) -> dict[str, bytes]:
    """Of the files that a `sidecar.json` names, those that lie there undamaged.

    Args:
        layout, sidecar: where.
        sums: SHA-256 by file name.

    Raises:
        OSError: one of them could not be read.
    """
    found = {}
    for name in checked_names(sums):
        try:
            data = read_bytes(join(layout.sidecar(sidecar), name), max_bytes=MAX_FILE_BYTES)
        except (FileNotFoundError, IsADirectoryError, FileTooLarge):
            continue
        if hashlib.sha256(data).hexdigest() == sums[name]:
            found[name] = data
    return found


def publish_files(layout: Layout, sidecar: str, files: Mapping[str, bytes], there: Mapping[str, bytes]) -> None:
    """Write the files of a sidecar that are not there yet, each whole or not at all.

    Raises:
        OSError: could not be written after several attempts.
    """
    for name in checked_names(files):
        if there.get(name) != files[name]:
            publish_bytes(join(layout.sidecar(sidecar), name), files[name])


def wrong_files(folder: str, sums: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Name of each file that is missing or not what `sidecar.json` says, and what is wrong with it.

    Raises:
        OSError: they could not be listed or read.
    """
    try:
        there = {file.uri.rpartition("/")[2] for file in list_files(folder)}
    except FileNotFoundError:
        there = set()
    for name in checked_names(sums):
        if name not in there:
            yield name, "is missing, and sidecar.json names it"
            continue
        try:
            data = read_bytes(join(folder, name), max_bytes=MAX_FILE_BYTES)
        except FileTooLarge as error:
            yield name, str(error)
            continue
        if hashlib.sha256(data).hexdigest() != sums[name]:
            yield name, "is damaged: its SHA-256 is not the one that sidecar.json says"
