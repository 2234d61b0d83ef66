"""Whether a video file was cut short, by what its container says about bytes: a half download is no whole video.

A container that was streamed says nothing; whether such a file is whole cannot be known. AVI and plain MP4 declare how
many frames they have, which `packet_index` compares.
"""

from __future__ import annotations

from typing import IO

from trackmill.pipeline.media.matroska import missing_bytes

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_FLV_TAGS = (8, 9, 18)  # sound, picture, script
_MOST_HEADER = 1 << 16
_ONE_SECOND_MS = 1000


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
            return _flv(handle, end, duration_s)
        if "asf" in container:
            return _asf(handle, end)
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


def _flv(handle: IO[bytes], end: int, duration_s: float) -> bool:
    """Adobe's FLV 10.1, annex E: behind each tag stands how long it was; some writers put a wrong number there."""
    size = int.from_bytes(_at(handle, end - 4, 4), "big")
    head = _at(handle, end - 4 - size, 11)
    if size < 11 or int.from_bytes(head[1:4], "big") != size - 11:
        return _flv_tags_end_behind(handle, end)
    last_ms = int.from_bytes(head[4:7], "big") | head[7] << 24
    return duration_s * 1000 - last_ms > _ONE_SECOND_MS


def _flv_tags_end_behind(handle: IO[bytes], end: int) -> bool:
    position = int.from_bytes(_at(handle, 5, 4), "big") + 4
    while position + 11 <= end:
        head = _at(handle, position, 11)
        if head[0] & 0x1F not in _FLV_TAGS:
            return False  # damaged, which is not the question here
        position += 11 + int.from_bytes(head[1:4], "big") + 4
    return position != end


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
