"""Where the files inside a tar lie, found by walking its headers: nothing is unpacked, no link is followed."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass, field

from trackmill.pipeline.storage.files import open_for_seeking

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


def index_tar(url: str) -> TarIndex:
    """Walk an uncompressed tar.

    Raises:
        OSError: could not be fetched.
    """
    index = TarIndex()
    with open_for_seeking(url, block_size=_BLOCK_BYTES) as handle:
        size = handle.seek(0, 2)
        handle.seek(0)
        offset = 0
        try:
            with tarfile.open(fileobj=handle, mode="r:") as tar:
                while (member := tar.next()) is not None:
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


def _enter(index: TarIndex, member: tarfile.TarInfo, size: int) -> None:
    if member.isdir():
        return
    parts = member.name.split("/")
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
