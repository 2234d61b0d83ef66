"""The files in `OUTPUT/.claims/`, as anybody may read them: pieces in work, and the processes that are there.

What they hold is checked before it is used. Claiming and releasing is in `claims`.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import Any

import orjson

from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.limits import FileTooLarge
from trackmill.pipeline.storage.owner import MAX_OWNER_BYTES, Owner, read_owner
from trackmill.pipeline.storage.retries import retry
from trackmill.pipeline.storage.urls import basename, filesystem, is_local, join

FOLDER = ".claims"
"""Below the output; hidden, so that no listing takes what is in it for data."""

PIECE_FILE = re.compile(r"^(part-[0-9a-z-]{8,60})\.json$")
PROCESS_FILE = re.compile(r"^by-([0-9a-f]{16})\.json$")
_TOKEN = re.compile(r"^[0-9a-f]{16}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A piece in work.

    Args:
        piece: its name, such as `part-00000012`.
        owner: who has it in hand; None where the file names nobody.
        alone: whether that process works on nothing else, so that its death may be the piece's fault.
        deaths: processes that died so before.
    """

    piece: str
    owner: Owner | None
    alone: bool = False
    deaths: int = 0


def list_claims(folder: str) -> dict[str, dict[str, Any]]:
    """What a listing says of each file in a folder of claims, by name; nothing where there is none."""
    fs, path = filesystem(folder)
    if is_local(folder):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as scanned:
            return {entry.name: {} for entry in scanned if not entry.name.startswith(".")}
        return {}

    def look() -> dict[str, dict[str, Any]]:
        fs.invalidate_cache()
        try:
            return {basename(name): info for name, info in fs.find(path, detail=True).items()}
        except FileNotFoundError:
            return {}

    return retry(look, folder)


def read_claim_file(url: str) -> bytes | None:
    """A claim or a sign of life; None where there is none, or something else under its name."""
    if is_local(url) and not os.path.isfile(filesystem(url)[1]):
        return None
    try:
        return read_bytes(url, max_bytes=MAX_OWNER_BYTES)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, FileTooLarge):
        return None


def parse_claim(name: str, data: bytes | None) -> Claim:
    """What a claim says, as far as it can be believed."""
    owner = read_owner(data)
    piece = name.removesuffix(".json")
    if owner is None or not _TOKEN.match(owner.token):  # which becomes part of a file's name
        return Claim(piece=piece, owner=None)
    values = orjson.loads(data or b"")
    deaths = values.get("deaths")
    return Claim(
        piece=piece,
        owner=owner,
        alone=values.get("alone") is True,
        deaths=deaths if type(deaths) is int and 0 <= deaths < 1000 else 0,
    )


def read_claims(output: str) -> list[Claim]:
    """The pieces of an output that are in work, or were when their process died."""
    folder = join(output, FOLDER)
    names = [name for name in list_claims(folder) if PIECE_FILE.match(name)]
    return [parse_claim(name, read_claim_file(join(folder, name))) for name in sorted(names)]


def at_work(output: str) -> list[Owner]:
    """The processes that work on an output, and those that died there and were not swept away yet."""
    folder = join(output, FOLDER)
    found = (
        read_owner(read_claim_file(join(folder, name))) for name in list_claims(folder) if PROCESS_FILE.match(name)
    )
    return [owner for owner in found if owner is not None]
