"""What is known of the members of a tar: where their contents lie, and which cannot be read."""

from __future__ import annotations

from dataclasses import dataclass, field


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
