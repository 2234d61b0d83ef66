"""Where the files inside a tar lie, found by walking its headers: nothing is unpacked, no link is followed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from trackmill.pipeline.media.errors import BadItem, TruncatedMedia
from trackmill.pipeline.sources.probing import probe_files
from trackmill.pipeline.sources.tar_headers import BLOCK, MAX_NAME_BYTES, DamagedTar, TarMember, walk_headers
from trackmill.pipeline.storage.credentials import path_error
from trackmill.pipeline.storage.files import open_for_seeking, retry
from trackmill.pipeline.storage.names import escaped

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
"""What is taken for a tar, by the end of its name in lower case; compressed ones only to say what to do."""

_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}
MAX_MEMBERS = 5_000_000
"""Most members of a tar that is read: the largest that is known, Places365 in one tar, has 1.8 million."""

MAX_NAMES_BYTES = 512 << 20
"""Most bytes in all names of a tar's members: what an index takes in memory follows from both limits."""

# Of a remote tar one block is fetched for each header; a larger one would fetch mostly pixels.
_BLOCK_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class TarRange:
    """Byte range of one member's contents inside the tar."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class BadMember:
    """A member that must not, or cannot, be read; `truncated` where the tar ends inside it."""

    reason: str
    truncated: bool = False


@dataclass(slots=True)
class TarIndex:
    """The members of a tar by name.

    Args:
        files: regular files; of two members with one name the later counts, as when unpacking.
        bad: links, devices, unsafe names, the member that is cut off. A tar that cannot be walked to its end has an
            entry `@N`, N being the byte where it stops making sense.
    """

    files: dict[str, TarRange] = field(default_factory=dict)
    bad: dict[str, BadMember] = field(default_factory=dict)


def index_tars(uris: Sequence[str]) -> Iterator[TarIndex | str]:
    """The index of each tar, in the order given; where one cannot be read, the reason why."""
    return probe_files(uris, _index_or_reason, "tars", str)


def index_tar(url: str) -> TarIndex:
    """Walk an uncompressed tar; what macOS adds (`._NAME`, `__MACOSX/`) and other hidden members are passed over.

    Raises:
        BadItem: it is compressed; says how to unpack it.
        OSError: could not be fetched.
    """
    index = TarIndex()
    with open_for_seeking(url, block_size=_BLOCK_BYTES) as handle:
        size = handle.seek(0, 2)
        handle.seek(0)
        head = handle.read(8)
        for magic, (program, command) in _COMPRESSED.items():
            if head.startswith(magic):
                raise BadItem(
                    f"{url}: compressed with {program}, so that its members cannot be read in place; unpack the tar "
                    f"with `{command}` and mine that"
                )
        try:
            left = MAX_NAMES_BYTES
            for number, member in enumerate(walk_headers(handle, size)):
                left -= len(member.name)
                if number == MAX_MEMBERS or left < 0:
                    limit = f"{MAX_MEMBERS} members" if left >= 0 else f"{MAX_NAMES_BYTES} bytes in its members' names"
                    raise BadItem(f"{url}: the tar has more than {limit}; pack it into several")
                if _enter(index, member, size):
                    break
        except DamagedTar as error:
            index.bad[f"@{error.offset}"] = BadMember(
                f"not a tar, or damaged or cut short, at byte {error.offset}: {error.reason}; what follows is lost",
                truncated=True,
            )
    return index


def _index_or_reason(url: str) -> TarIndex | str:
    try:
        return retry(lambda: index_tar(url), url)
    except BadItem as error:
        return str(error).removeprefix(f"{url}: ")
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"the tar cannot be read: {path_error(error) or error}"


def is_hidden(name: str) -> bool:
    """Whether a member is one that listings of folders leave out too: `.NAME`, and macOS's `__MACOSX/`."""
    parts = name.split("/")
    return "__MACOSX" in parts or any(part[:1] == "." and part.strip(".") != "" for part in parts)


def explain(index: TarIndex | str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is wrong with a tar or its members: name of the member (empty for the tar), details of an item for it."""
    if isinstance(index, str):
        yield "", {"error": index}
        return
    for member, bad in index.bad.items():
        details: dict[str, Any] = {"error": f"this member {bad.reason}" if member[0] != "@" else bad.reason}
        if bad.truncated:
            details["truncated"] = True
        yield member, details


def raise_explained(source_id: str, details: dict[str, Any]) -> None:
    """Raise the error of an item that `explain` was the reason for; nothing happens for any other.

    Raises:
        BadItem: (TruncatedMedia where the tar was cut).
    """
    if "error" in details:
        kind = TruncatedMedia if details.get("truncated") else BadItem
        raise kind(f"{source_id}: {details['error']}")


def _enter(index: TarIndex, member: TarMember, size: int) -> bool:
    """Put a member into the index; True where it is one that the tar ends in, so that all has been told."""
    name = escaped(member.name)
    if member.kind == "folder" or is_hidden(name):
        return False
    if not name:
        index.bad[f"@{member.offset - BLOCK}"] = BadMember("there is a member that has no name")
        return False
    index.files.pop(name, None)
    index.bad.pop(name, None)
    if len(member.name) > MAX_NAME_BYTES:
        index.bad[f"{name[:80]}..."] = BadMember(f"has a name of more than {MAX_NAME_BYTES} bytes")
    elif member.kind != "file":
        index.bad[name] = BadMember("is a link, a device or a sparse file; only plain files are read")
    elif name.startswith("/") or ".." in name.split("/"):
        index.bad[name] = BadMember("has an absolute name or one with '..'; nothing outside the tar is ever meant")
    elif member.offset + member.size > size:
        left = max(0, size - member.offset)
        reason = f"is cut off: the tar ends after {left} of its {member.size} bytes"
        index.bad[name] = BadMember(reason, truncated=True)
        return True
    else:
        index.files[name] = TarRange(member.offset, member.size)
    return False
