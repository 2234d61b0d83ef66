"""Changes of pictures and videos that keep their frame: segments, chunks and boxes, with checksums mended."""

from __future__ import annotations

import struct
import zlib
from functools import cache
from random import Random

from tests.fuzz.mutators.raw import BYTES, EXTREMES, put_integer
from tests.fuzz.target import Mutator


def jpeg_segment(rng: Random, data: bytes) -> bytes:
    """A segment is doubled by the thousand, dropped, or one of its bytes is another."""
    segments = _segments(data)
    begin, end = rng.choice(segments)
    kind = rng.randrange(5)
    if kind == 0:
        return data[:begin] + data[end:]
    if kind == 1:
        return data[:end] + data[begin:end] * rng.choice((1, 10, 3000)) + data[end:]
    if kind == 2:
        return put_integer(rng, data, begin + 2, 2, "big")
    if kind == 3:
        return data[: begin + 1] + bytes([rng.randrange(0xC0, 0xFF)]) + data[begin + 2 :]
    return put_integer(rng, data, rng.randrange(begin + 4, max(begin + 5, end)), rng.choice((1, 2)), "big")


def jpeg_size(rng: Random, data: bytes) -> bytes:
    """The frame header says another size."""
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    if at < 0:
        return data
    height, width = (rng.choice((0, 1, 8, 47, 49, 1000, 9999, 30_000, 65_535)) for _ in range(2))
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def jpeg_scans(rng: Random, data: bytes) -> bytes:
    """Cut anywhere, with an end mark put behind; or scans by the thousand."""
    if rng.random() < 0.6:
        return data[: rng.randrange(len(data))] + b"\xff\xd9"
    at = data.find(b"\xff\xda")
    return data[:at] + data[at:-2] * rng.choice((2, 50, 2000)) + b"\xff\xd9"


JPEG: tuple[Mutator, ...] = (*(jpeg_segment,) * 4, jpeg_size, jpeg_size, jpeg_scans, jpeg_scans)


def png_chunk(rng: Random, data: bytes) -> bytes:
    """A chunk is changed and its CRC mended, doubled, dropped, moved, or given another name."""
    chunks = _png_chunks(data)
    place = rng.randrange(len(chunks))
    name, body = chunks[place]
    kind = rng.randrange(6)
    if kind == 0:
        del chunks[place]
    elif kind == 1:
        chunks[place:place] = [(name, body)] * rng.choice((1, 20, 2000))
    elif kind == 2:
        chunks.append(chunks.pop(place))
    elif kind == 3:
        chunks[place] = (
            rng.choice((b"tRNS", b"PLTE", b"acTL", b"fcTL", b"fdAT", b"zTXt", b"iCCP", b"eXIf", b"IDAT")),
            body,
        )
    else:
        chunks[place] = (name, rng.choice(BYTES)(rng, body))
    return _png(chunks)


def png_header(rng: Random, data: bytes) -> bytes:
    """Size, depth, colour type or interlacing of the header, its CRC mended."""
    chunks = _png_chunks(data)
    header = bytearray(chunks[0][1])
    place, width = rng.choice(((0, 4), (4, 4), (8, 1), (9, 1), (10, 1), (11, 1), (12, 1)))
    value = rng.choice((rng.choice(EXTREMES), rng.randrange(20), 10_000, 30_000)) % (1 << 8 * width)
    header[place : place + width] = value.to_bytes(width, "big")
    chunks[0] = (chunks[0][0], bytes(header))
    return _png(chunks)


def png_bomb(rng: Random, data: bytes) -> bytes:
    """Text or pixels that unfold to a hundred megabytes."""
    chunks = _png_chunks(data)
    unfolds = _unfolds()
    extra = rng.choice(((b"zTXt", b"Comment\0\0" + unfolds), (b"iCCP", b"x\0\0" + unfolds), (b"IDAT", unfolds)))
    return _png([chunks[0], extra, *chunks[1:]])


PNG: tuple[Mutator, ...] = (*(png_chunk,) * 5, *(png_header,) * 3, png_bomb)


def riff_chunk(rng: Random, data: bytes) -> bytes:
    """The size or the contents of a chunk of WebP or AVI."""
    places = [at for at in range(12, len(data) - 8) if data[at : at + 4].isalnum() and data[at : at + 4].isascii()]
    at = rng.choice(places or [12])
    if rng.random() < 0.5:
        return put_integer(rng, data, at + 4, 4, "little")
    return put_integer(rng, data, at + 8 + rng.randrange(64), rng.choice((1, 2, 4)), "little")


RIFF: tuple[Mutator, ...] = (riff_chunk,)


def chunk_of_gif(rng: Random, data: bytes) -> bytes:
    """Fields of the screen, or frames by the hundred."""
    if rng.random() < 0.5:
        return put_integer(rng, data, rng.randrange(6, min(len(data), 40)), rng.choice((1, 2)), "little")
    at = data.find(b"\x21\xf9")
    return data[:at] + data[at:-1] * rng.choice((2, 300)) + data[-1:]


CHUNKED: tuple[Mutator, ...] = (chunk_of_gif,)
_HOLDERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"meta", b"iprp", b"ipco", b"jp2h", b"dinf")
_FULL = (b"meta",)


def box_size(rng: Random, data: bytes) -> bytes:
    """The size of a box of MP4, JPEG 2000 or AVIF."""
    at, _, _ = rng.choice(_boxes(data, 0, len(data)))
    return put_integer(rng, data, at, 4, "big")


def box_field(rng: Random, data: bytes) -> bytes:
    """A count or field inside a box; the tables of samples are the likeliest."""
    boxes = _boxes(data, 0, len(data))
    tables = [box for box in boxes if box[2][:2] in (b"st", b"ct", b"el", b"md", b"mv", b"tk", b"av", b"is", b"il")]
    at, end, _ = rng.choice(tables if tables and rng.random() < 0.8 else boxes)
    return put_integer(
        rng, data, rng.randrange(at + 8, max(at + 9, min(end, at + 40))), rng.choice((1, 2, 4, 4, 8)), "big"
    )


def box_whole(rng: Random, data: bytes) -> bytes:
    """A box is dropped, doubled, or of another kind."""
    boxes = _boxes(data, 0, len(data))
    at, end, _ = rng.choice(boxes)
    kind = rng.randrange(3)
    if kind == 0:
        return data[:at] + data[end:]
    if kind == 1:
        return data[:end] + data[at:end] * rng.choice((1, 30)) + data[end:]
    return data[: at + 4] + rng.choice(boxes)[2] + data[at + 8 :]


def nested_boxes(rng: Random, data: bytes) -> bytes:
    """Boxes in boxes in boxes."""
    inner = data
    for _ in range(rng.choice((30, 1000))):
        inner = struct.pack(">I4s", 8 + len(inner), rng.choice((b"moov", b"udta", b"free"))) + inner
        if len(inner) > 5_000_000:
            break
    return data[:32] + inner


BOXES: tuple[Mutator, ...] = (*(box_field,) * 6, *(box_size,) * 2, *(box_whole,) * 2, nested_boxes)


def ebml_element(rng: Random, data: bytes) -> bytes:
    """The id, length or value of an element near the beginning of a Matroska file, or of any."""
    at = rng.randrange(min(len(data), rng.choice((300, len(data)))))
    if rng.random() < 0.5:
        return (
            data[:at]
            + rng.choice((b"\x01\xff\xff\xff\xff\xff\xff\xff", b"\xff", b"\x80", b"\x10\0\0\0"))
            + data[at + 1 :]
        )
    return put_integer(rng, data, at, rng.choice((1, 2, 4)), "big")


EBML: tuple[Mutator, ...] = (ebml_element,)


def transport_packet(rng: Random, data: bytes) -> bytes:
    """A packet of 188 bytes is lost, doubled, moved, or one byte of its header is another."""
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    place = rng.randrange(len(packets))
    kind = rng.randrange(4)
    if kind == 0:
        del packets[place : place + rng.choice((1, 3, 20))]
    elif kind == 1:
        packets[place:place] = packets[place : place + rng.choice((1, 20))]
    elif kind == 2:
        packets.insert(rng.randrange(len(packets)), packets.pop(place))
    else:
        packets[place] = put_integer(rng, packets[place], rng.randrange(20), 1)
    return b"".join(packets)


PACKETS: tuple[Mutator, ...] = (transport_packet,)


@cache
def _unfolds() -> bytes:
    return zlib.compress(b"\0" * 100_000_000, 1)


def _segments(data: bytes) -> list[tuple[int, int]]:
    found, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in (0xDA, 0xD9):
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        found.append((at, end))
        at = end
    return found


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, body in chunks:
        parts.append(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)))
    return b"".join(parts)


def _boxes(data: bytes, at: int, end: int) -> list[tuple[int, int, bytes]]:
    found = []
    while at + 8 <= end:
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        stop = end if size == 0 or size < 8 else min(end, at + size)
        found.append((at, stop, kind))
        if kind in _HOLDERS:
            found += _boxes(data, at + (12 if kind in _FULL else 8), stop)
        at = stop
    return found
