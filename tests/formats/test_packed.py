"""Archives whose fields lie: each is one error that names the archive and, where it is known, the member."""

from __future__ import annotations

import io
import zipfile

import pytest

from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.packed import member_bytes, open_archive

ENTRY, END = b"PK\1\2", b"PK\5\6"
# A field of an entry of the directory, or of the end: its place and width, and what no archive has there.
LIES = {
    "the member lies behind the end": (ENTRY, 42, 4, 0xFFFFFFFE),
    "packed by a method nobody knows": (ENTRY, 10, 2, 99),
    "needs a password": (ENTRY, 8, 2, 1),
    "other bytes than were packed": (ENTRY, 16, 4, 12345),
    "the directory lies a byte further": (END, 16, 4, 1 << 20),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("first", [b"", b"something before the archive" * 9])
def test_a_member_that_cannot_be_unpacked_is_named(lie: str, first: bytes) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MOT17-01.txt", "1,1,0,0,5,5,1\n" * 9)
    data = bytearray(first + out.getvalue())
    magic, place, width, value = LIES[lie]
    entry = data.index(magic) + place
    data[entry : entry + width] = value.to_bytes(width, "little")
    with (
        pytest.raises(BadTracks, match=r"results\.zip: .*(MOT17-01\.txt|not a zip archive)"),
        open_archive(bytes(data), "results.zip") as archive,
    ):
        member_bytes(archive, "MOT17-01.txt", "results.zip", 1 << 20)
