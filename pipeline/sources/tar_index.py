"""Where the files inside a tar lie, found by walking its headers: nothing is unpacked, no link is followed."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from trackmill.pipeline.media.errors import BadItem, TruncatedMedia
from trackmill.pipeline.sources.probing import probe_files
from trackmill.pipeline.storage.credentials import path_error
from trackmill.pipeline.storage.files import open_for_seeking, retry
from trackmill.pipeline.storage.names import spelt

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
"""What is taken for a tar, by the end of its name in lower case; compressed ones only to say what to do."""

_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}
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
        files: regular files; of two with one name the later, as when unpacking.
        bad: links, devices, unsafe names, the member that is cut off. A tar that cannot be walked to its end has an
            entry `@N`, N being the byte where it stops making sense.
    """

    files: dict[str, TarRange] = field(default_factory=dict)
    bad: dict[str, BadMember] = field(default_factory=dict)


def index_tars(uris: Sequence[str]) -> Iterator[TarIndex | str]:
    """The index of each tar, in the order given; where one cannot be read, the reason why."""
    return probe_files(uris, _index_or_reason, "tars")


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
        handle.seek(0)
        offset = 0
        try:
            with tarfile.open(fileobj=handle, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    member.name = spelt(member.name)
                    offset = member.offset_data
                    _enter(index, member, size)
                    if member.name in index.bad and index.bad[member.name].truncated:
                        return index
                    # The list would hold every member of an 11 GB tar once more.
                    tar.members = []  # type: ignore[attr-defined]
                offset = tar.offset
        except (tarfile.TarError, ValueError, UnicodeError, EOFError) as error:
            index.bad[f"@{offset}"] = BadMember(f"not a tar, or damaged, after byte {offset}: {error}", truncated=True)
            return index
        # `tarfile` takes a broken header for the end; the real end is marked by a block of zeros.
        handle.seek(offset)
        block = handle.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE or any(block):
            index.bad[f"@{offset}"] = BadMember(
                f"the tar has no end mark at byte {offset}: it was cut short or is damaged, and what follows is lost",
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


def _enter(index: TarIndex, member: tarfile.TarInfo, size: int) -> None:
    parts = member.name.split("/")
    if member.isdir() or is_hidden(member.name):
        return
    if not member.isreg() or member.issparse():
        reason = "is a link, a device or a sparse file; only plain files are read"
    elif member.name.startswith("/") or ".." in parts:
        reason = "has an absolute name or one with '..'; nothing outside the tar is ever meant"
    elif member.offset_data + member.size > size:
        left = max(0, size - member.offset_data)
        index.bad[member.name] = BadMember(
            f"is cut off: the tar ends after {left} of its {member.size} bytes", truncated=True
        )
        return
    else:
        index.files[member.name] = TarRange(member.offset_data, member.size)
        return
    index.bad[member.name] = BadMember(reason)
