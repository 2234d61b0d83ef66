"""JPEG files: what costs much more than it shows is refused before decoding, and decoders agree on what is whole."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from tests.make_media import make_scene
from trackmill.pipeline.media import jpeg_files
from trackmill.pipeline.media.errors import BadItem, TruncatedMedia
from trackmill.pipeline.media.jpeg_files import check_jpeg_body, check_jpeg_header, read_structure
from trackmill.pipeline.media.pictures import Picture, decode_picture
from trackmill.pipeline.shards.decode import decode_jpeg

END = b"\xff\xd9"
KINDS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "one sampling": {"subsampling": "4:4:4"},
    "half sampling": {"subsampling": "4:2:2"},
    "optimised": {"optimize": True},
    "rgb": {"keep_rgb": True},
}


def jpeg(height: int = 120, width: int = 160, mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(make_scene(height, width)[0]).convert(mode).save(out, "JPEG", **options)
    return out.getvalue()


def decode(data: bytes, max_pixels: int = 100_000_000) -> Picture:
    return decode_picture(data, "x.jpg", max_pixels=max_pixels, longest_side=4096)


def with_size(data: bytes, height: int, width: int) -> bytes:
    place = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: place + 5] + struct.pack(">HH", height, width) + data[place + 9 :]


def scans(data: bytes) -> list[bytes]:
    """A progressive file cut before each scan, and before its end mark: header first."""
    places = [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"]
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data) - 2])]


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_jpeg_is_stored_untouched_and_all_decoders_give_its_pixels(kind):
    data = jpeg(**KINDS[kind])
    picture = decode(data)
    assert picture.encoded == data
    assert np.array_equal(picture.image, decode_jpeg(data, "s", "m", 120, 160))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.2, 0.34, 0.6, 0.9])
def test_a_cut_jpeg_with_an_end_mark_put_behind_is_refused(kind, share):
    data = jpeg(**KINDS[kind])
    body = read_structure(data).body
    with pytest.raises(TruncatedMedia, match=r"x\.jpg: .*(only a part|scans are missing|cannot hold)"):
        decode(data[: body + int(share * (len(data) - body))] + END)


def test_a_progressive_jpeg_that_lacks_its_last_scans_is_refused():
    pieces = scans(jpeg(progressive=True))
    assert len(pieces) == 11
    for count in range(2, len(pieces)):
        with pytest.raises(TruncatedMedia, match="scans are missing"):
            decode(b"".join(pieces[:count]) + END)
    assert decode(b"".join(pieces) + END).encoded


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_gray_and_cmyk_are_held_to_the_same(mode):
    data = jpeg(mode=mode)
    assert decode(data).image.shape == (120, 160, 3)
    with pytest.raises(TruncatedMedia, match="only a part"):
        decode(data[: len(data) * 2 // 3] + END)


def test_decoders_agree_on_any_mutated_jpeg():
    rng = np.random.default_rng(5)
    kept = 0
    for kind in ("baseline", "progressive", "restarts"):
        original = jpeg(48, 64, **KINDS[kind])
        for _ in range(150):
            data = bytearray(original)
            for place in rng.integers(2, len(data), rng.integers(1, 3)):
                data[place] = rng.integers(256)
            try:
                picture = decode(bytes(data))
            except BadItem:
                continue
            if picture.encoded is not None:
                kept += 1
                again = decode_jpeg(bytes(data), "s", "m", picture.height, picture.width)
                assert np.array_equal(picture.image, again)
    assert kept > 20


def test_a_jpeg_of_thousands_of_empty_scans_is_refused_before_it_is_decoded():
    pieces = scans(jpeg(progressive=True))
    with pytest.raises(BadItem, match="160 x 120 pixels in 5010 scans, each of which costs time; at most 100"):
        decode(b"".join(pieces) + pieces[-1] * 5000 + END)


def test_scans_count_more_in_a_large_picture(monkeypatch):
    data = b"".join(scans(jpeg(progressive=True))) + END
    monkeypatch.setattr(jpeg_files, "MAX_SCANNED_PIXELS", 9 * 120 * 160)
    with pytest.raises(BadItem, match="in 10 scans"):
        decode(data)
    assert decode(jpeg()).encoded


def test_scans_are_not_looked_for_in_metadata_or_behind_the_end():
    preview = b"\xff\xda" * 300
    data = jpeg()
    commented = data[:2] + b"\xff\xfe" + struct.pack(">H", len(preview) + 2) + preview + data[2:]
    for each in (commented, data + preview):
        assert read_structure(each).num_scans == 1 and decode(each).encoded is None


@pytest.mark.parametrize("kind", ["baseline", "progressive"])
def test_a_small_jpeg_that_says_it_is_large_is_refused_before_it_is_decoded(kind):
    data = with_size(jpeg(16, 16, **KINDS[kind]), 9999, 9999)
    with pytest.raises(TruncatedMedia, match="bytes of coded pixels cannot hold 9999 x 9999 pixels, which take"):
        decode(data)


@pytest.mark.parametrize("kind", ["baseline", "progressive", "one sampling"])
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (8, 8), (17, 4000), (3000, 3000)])
def test_the_emptiest_picture_is_large_enough(kind, size):
    out = io.BytesIO()
    Image.new("RGB", size, (255, 255, 255)).save(out, "JPEG", quality=1, optimize=True, **KINDS[kind])
    check_jpeg_header(out.getvalue(), "x")
    assert check_jpeg_body(out.getvalue(), "x")


def test_a_jpeg_without_an_end_mark_ends_early():
    with pytest.raises(TruncatedMedia, match="ends early"):
        decode(jpeg()[:-2])


@pytest.mark.parametrize("broken", [False, True])
def test_odd_metadata_is_no_damage_and_hides_none(broken):
    data = jpeg()
    odd = data.replace(b"JFIF\0\x01", b"JFIF\0\x07", 1)
    assert odd != data and not check_jpeg_body(odd, "x")
    if broken:
        with pytest.raises(TruncatedMedia):
            decode(odd[: len(odd) // 2] + END)
    else:
        assert decode(odd).encoded is None


def test_numbers_of_a_baseline_scan_that_some_cameras_write_are_no_damage():
    data = jpeg()
    place = data.find(b"\xff\xda") + 4 + 7
    assert data[place : place + 3] == b"\x00\x3f\x00"
    odd = data[:place] + b"\x00\x00\x00" + data[place + 3 :]
    assert decode(odd).encoded is None
    with pytest.raises(TruncatedMedia):
        decode(odd[: len(odd) // 2] + END)


def test_colours_sampled_as_no_program_does_are_refused():
    data = jpeg(64, 64, subsampling="4:4:4")
    place = data.find(b"\xff\xc0")
    odd = bytearray(data)
    odd[place + 14] = 0x12  # an MCU of four blocks in place of three
    with pytest.raises(BadItem, match=r"save it anew|only a part"):
        decode(bytes(odd))


def test_bytes_that_nobody_decodes_are_damage():
    with pytest.raises(BadItem, match="extraneous bytes before marker"):
        decode(jpeg()[:-2] + bytes(50) + END)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xda", b"\xff\xd8\xff\xc0\0\2\xff\xda\0\0"]
)
def test_any_start_of_a_jpeg_has_a_structure(data):
    check_jpeg_header(data, "x")
    assert read_structure(data).num_scans <= 1
