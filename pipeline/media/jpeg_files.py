"""The structure of a JPEG file, read before a pixel is decoded, and whether all of it can be decoded.

libjpeg only warns where data is missing or damaged, and fills the rest with gray. Pillow keeps the warning to itself,
while the decoder of the training loader takes it for an error. A picture is mined only where both agree, so data that
libjpeg warns of is refused here, with its warning as the reason.

Markers are those of ITU-T T.81, annex B.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import simplejpeg

from trackmill.pipeline.media.errors import BadItem, TruncatedMedia
from trackmill.schemas.sample import MAX_SCANS

MAX_SCANNED_PIXELS = 3_000_000_000
"""Most pixels times scans: 30 scans of the 100 million pixels that `read.max_pixels` allows by default."""

# What next_marker of libjpeg takes for one: neither a coded FF, nor fill bytes, nor a restart.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_START, _END, _TEMPORARY, _SCAN = 0xD8, 0xD9, 0x01, 0xDA
_HUFFMAN = (0xC0, 0xC1, 0xC2, 0xC3)
_PROGRESSIVE = 0xC2
_FRAMES = (*_HUFFMAN, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_SAMPLES = 64
"""Coefficients of a block of 8 x 8 pixels."""

_SHRUNK = 8  # asked for an eighth of each side, a decoder does all but draw the picture
_DAMAGE = ("corrupt jpeg data", "premature end", "inconsistent progression")
_ABOUT_METADATA = ("unknown jfif", "unknown adobe", "bad icc", "invalid sos")


@dataclass(slots=True)
class JpegStructure:
    """What the markers of a JPEG say.

    Args:
        frame: marker of the frame: C0 baseline, C2 progressive, ...; 0 where none was found.
        height, width: in pixels.
        components: for each, how often it is sampled across and down, by its number.
        num_scans: how many scans there are.
        body: where the first scan begins, in bytes.
        ended: whether there is an end mark.
        seen: components of which at least the average of each block is there.
        left: for each component, the coefficients of which bits are still to come.
    """

    frame: int = 0
    height: int = 0
    width: int = 0
    components: dict[int, tuple[int, int]] = field(default_factory=dict)
    num_scans: int = 0
    body: int = 0
    ended: bool = False
    seen: set[int] = field(default_factory=set)
    left: dict[int, list[bool]] = field(default_factory=dict)


def check_jpeg_header(data: bytes, name: str) -> None:
    """Refuse, before anything is decoded, a JPEG that costs much more than it shows, or that cannot be whole.

    Args:
        data: the file.
        name: its URI, for the errors.

    Raises:
        BadItem: more scans than `MAX_SCANS`, or than `MAX_SCANNED_PIXELS` allows.
        TruncatedMedia: fewer bytes than its blocks need, or scans are missing.
    """
    found = read_structure(data)
    pixels = found.height * found.width
    if found.num_scans > MAX_SCANS or found.num_scans * pixels > max(MAX_SCANNED_PIXELS, 2 * pixels):
        raise BadItem(
            f"{name}: {found.width} x {found.height} pixels in {found.num_scans} scans, each of which costs time; at "
            f"most {MAX_SCANS} scans are decoded, and {MAX_SCANNED_PIXELS} pixels in all of them"
        )
    if found.frame not in _HUFFMAN or not found.num_scans:
        return  # what else there is, the decoder says
    needed = _least_bytes(found)
    if len(data) - found.body < needed:
        raise TruncatedMedia(
            f"{name}: {len(data) - found.body} bytes of coded pixels cannot hold {found.width} x {found.height} "
            f"pixels, which take {needed} at least"
        )
    if not found.ended or not found.components:
        return  # Pillow says how much is missing
    first = next(iter(found.components))
    if set(found.components) - found.seen or (found.frame == _PROGRESSIVE and any(found.left[first])):
        raise TruncatedMedia(f"{name}: ends early: scans are missing, so that only a rough picture is there")


def check_jpeg_body(data: bytes, name: str) -> bool:
    """Decode a JPEG once more, at an eighth of its size, and refuse it where libjpeg would only warn.

    That costs a fifth of reading a picture of the size of SA-1B's, and a hundredth of mining one.

    Args:
        data: the file; `check_jpeg_header` has passed it.
        name: its URI, for the errors.

    Returns:
        Whether the strict decoder takes the file as it is; if not, the file's metadata is odd, or it is of a kind that
        this decoder does not know.

    Raises:
        TruncatedMedia: data is missing at its end.
        BadItem: data is damaged, or colours are sampled in a way that the strict decoder does not know.
    """
    warning = _warning(data)
    taken = not warning
    if any(each in warning.lower() for each in _ABOUT_METADATA):
        # The decoder stops at its first warning; what matters may come behind.
        warning = _warning(_pixels_alone(data))
    if any(each in warning.lower() for each in _DAMAGE):
        kind = TruncatedMedia if "premature" in warning.lower() else BadItem
        raise kind(f"{name}: the picture is damaged, only a part of it can be decoded: {warning}")
    if "subsampling" in warning.lower():
        raise BadItem(
            f"{name}: its colours are sampled in a way that no common program writes, and whether all of it is there "
            "cannot be told; save it anew as a JPEG of 4:2:0 or 4:4:4"
        )
    return taken


def is_plain_jpeg(data: bytes) -> bool:
    """Whether JPEG bytes may be stored untouched, which loses nothing and costs no encoding.

    Only three-channel 8-bit baseline or progressive files, which every decoder reads alike, and only without
    anything that could tell more than the picture shows: EXIF and XMP (they hold places, dates and serial numbers),
    IPTC, comments, embedded previews, and anything appended after the end of the picture.
    """
    position = 2
    colours = False
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position + 4 : position + 2 + length]
        if marker in (0xC0, 0xC1, 0xC2):
            colours = len(segment) >= 6 and segment[0] == 8 and segment[5] == 3
        elif marker == _SCAN:
            # Inside coded pixels FF D9 cannot occur by chance; a second one is a preview or an appended file.
            return colours and data.count(b"\xff\xd9") == 1 and data.endswith(b"\xff\xd9")
        elif not (marker in (0xC4, 0xDB, 0xDD) or _harmless(marker, segment)):
            return False
        position += 2 + length
    return False


def read_structure(data: bytes) -> JpegStructure:
    """Walk the markers of a JPEG up to its end mark; what cannot be understood is passed over, as decoders do."""
    found = JpegStructure()
    for marker, start, end in _segments(data):
        segment = data[start:end]
        if marker == _END:
            found.ended = True
        elif marker in _FRAMES and not found.frame and len(segment) >= 6:
            found.frame = marker
            found.height, found.width = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
            for place in range(6, min(len(segment), 6 + 3 * segment[5]) - 2, 3):
                found.components[segment[place]] = (segment[place + 1] >> 4, segment[place + 1] & 0x0F)
            found.left = {each: [True] * _SAMPLES for each in found.components}
        elif marker == _SCAN:
            found.body = found.body or end
            found.num_scans += 1
            _enter_scan(found, segment)
    return found


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Each marker with where its segment begins and ends, its length left out."""
    position = 2
    while match := _MARKER.search(data, position):
        marker, position = data[match.end() - 1], match.end()
        if marker in (_END, _START, _TEMPORARY):
            yield marker, position, position
            if marker == _END:
                return
            continue
        end = position + max(2, int.from_bytes(data[position : position + 2], "big"))
        yield marker, position + 2, end
        position = end


def _enter_scan(found: JpegStructure, segment: bytes) -> None:
    count = segment[0] if segment else 0
    if len(segment) < 1 + 2 * count + 3:
        return
    ids = [segment[1 + 2 * i] for i in range(count)]
    first, last, low_bit = segment[1 + 2 * count], segment[2 + 2 * count], segment[3 + 2 * count] & 0x0F
    if found.frame != _PROGRESSIVE:
        first, last, low_bit = 0, _SAMPLES - 1, 0
    for each in ids:
        if each not in found.left:
            continue
        if first == 0:
            found.seen.add(each)
        if low_bit == 0:
            for place in range(first, min(last, _SAMPLES - 1) + 1):
                found.left[each][place] = False


def _least_bytes(found: JpegStructure) -> int:
    """Every block of every component takes a Huffman code for its average, and no code is shorter than a bit."""
    if not found.components:
        return 0
    across, down = (max(each[axis] for each in found.components.values()) or 1 for axis in (0, 1))
    blocks = sum(
        (found.width * h // across // 8) * (found.height * v // down // 8) for h, v in found.components.values()
    )
    return blocks // 8


def _warning(data: bytes) -> str:
    """What libjpeg warns of while it decodes; empty where it does not."""
    try:
        colours = simplejpeg.decode_jpeg_header(data)[2]
        wanted = "CMYK" if colours in ("CMYK", "YCCK") else "GRAY"
        simplejpeg.decode_jpeg(data, wanted, min_height=1, min_width=1, min_factor=_SHRUNK)
    except Exception as error:  # the decoder may raise anything on hostile bytes
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            raise MemoryError(str(error)) from None  # which is no fault of the picture
        return str(error) or type(error).__name__
    return ""


def _pixels_alone(data: bytes) -> bytes:
    """The file without application segments and comments, and with the numbers that baseline scans have to have."""
    parts, copied, baseline = [], 0, False
    for marker, start, end in _segments(data):
        if 0xE0 <= marker <= 0xEF or marker == 0xFE:
            parts.append(data[copied : start - 4])
            copied = end
        elif marker in _FRAMES:
            baseline = marker in (0xC0, 0xC1)
        elif marker == _SCAN and baseline:
            parts += [data[copied : end - 3], b"\x00\x3f\x00"]
            copied = end
    return b"".join([*parts, data[copied:]])


def _harmless(marker: int, segment: bytes) -> bool:
    jfif = marker == 0xE0 and segment.startswith(b"JFIF\0")
    profile = marker == 0xE2 and segment.startswith(b"ICC_PROFILE\0")
    return jfif or profile or (marker == 0xEE and segment.startswith(b"Adobe"))
