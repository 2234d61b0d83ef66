"""Whether a video file was cut short, by what its container says about bytes: a half download is no whole video.

A container that was streamed says nothing; whether such a file is whole cannot be known. AVI and plain MP4 declare how
many frames they have, which `packet_index` compares. A transport stream has no end; one that ends within a packet was
cut, though nobody knows how much is missing.
"""

from __future__ import annotations

from typing import IO

from trackmill.pipeline.media.flash_video import flv_is_cut_short
from trackmill.pipeline.media.matroska import missing_bytes
from trackmill.pipeline.media.transport_stream import ends_within_packet

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_MOST_HEADER = 1 << 16


def is_cut_short(handle: IO[bytes], container: str, duration_s: float) -> bool:
    """Whether bytes are missing at the end of the file.

    Args:
        handle: seekable; its position stays as it is.
        container: FFmpeg's names of the format.
        duration_s: as the header says; 0 where it does not.
    """
    before = handle.tell()
    try:
        end = handle.seek(0, 2)
        if "matroska" in container:
            return missing_bytes(handle) > 0
        if "mp4" in container:
            return _mp4(handle, end)
        if "flv" in container:
            return flv_is_cut_short(handle, duration_s)
        if "asf" in container:
            return _asf(handle, end)
        if container == "mpegts":
            return ends_within_packet(handle)
        return "ogg" in container and _ogg(handle, end)
    finally:
        handle.seek(before)


def _mp4(handle: IO[bytes], end: int) -> bool:
    """ISO/IEC 14496-12: every box of the file says how long it is."""
    position = 0
    while position + 8 <= end:
        head = _at(handle, position, 16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        if size == 0 and position:  # up to the end, wherever that is
            return False
        if size < 8:
            return False  # no box; what it is, is not told
        position += size
    return position > end


def _asf(handle: IO[bytes], end: int) -> bool:
    """ASF 1.20, section 3.2: the header says how many bytes the file has; 0 while it is being written."""
    head = _at(handle, 0, _MOST_HEADER)
    place = head.find(_ASF_FILE_PROPERTIES)
    if not head.startswith(_ASF_HEADER) or place < 0:
        return False
    return int.from_bytes(head[place + 40 : place + 48], "little") > end


def _ogg(handle: IO[bytes], end: int) -> bool:
    """RFC 3533: the last page of a stream bears a mark; a page says in its head how long it is."""
    tail = _at(handle, max(0, end - _MOST_HEADER - 512), _MOST_HEADER + 512)
    place = tail.rfind(b"OggS")
    if place < 0 or len(tail) < place + 27:
        return True
    segments = tail[place + 26]
    body = sum(tail[place + 27 : place + 27 + segments])
    return place + 27 + segments + body > len(tail) or not tail[place + 5] & 0x04


def _at(handle: IO[bytes], position: int, count: int) -> bytes:
    handle.seek(max(0, position))
    return handle.read(count)
