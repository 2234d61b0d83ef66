"""Files of tracks that were made to fill memory: each is refused in one line, by name, before it does."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import orjson
import pytest

from trackmill.pipeline.evaluation.readers.mot_sequence_file import member_names, unpacked
from trackmill.pipeline.formats import json_files, packed
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.json_files import load_json
from trackmill.pipeline.formats.mot_text import MAX_LINE_BYTES, parse_mot_text
from trackmill.pipeline.formats.packed import gunzipped

ROW = b"1,1,1,1,1,1,1\n"


@pytest.fixture(autouse=True)
def lower_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the files of these tests are small and made fast."""
    monkeypatch.setattr(packed, "UNPACKED_FLOOR", 1 << 20)
    monkeypatch.setattr(json_files, "PARSED_FLOOR", 4 << 20)


def refused(data: bytes, match: str) -> None:
    with pytest.raises(BadTracks, match=rf"^a\.txt: {match}") as caught:
        parse_mot_text(data, "a.txt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"1" * (MAX_LINE_BYTES + 1), "line 1 is longer than"),
        (ROW + b"\n" + b"2,1," + b"1" * MAX_LINE_BYTES + b",1,1,1,1\n", "line 3 is longer than"),
        (b"1 " * MAX_LINE_BYTES, "line 1 is longer than"),
        (ROW + b"2,1,1e308,1,1,1,1\n", "line 2: the box lies farther than 1e.09 pixels"),
        (ROW + b"2,1,1,1,1e308,1,1\n", "line 2: the box lies farther"),
        (ROW + b"2,1,1e308,1,1e308,1,1\n", "line 2: the box lies farther"),
        (ROW + b"2,1,1,inf,1,1,1\n", "line 2: column 4 is not finite"),
        (ROW + b"2,1,1,1,nan,1,1\n", "line 2: column 5 is not finite"),
        (
            ROW + b"1e18,1,1,1,1,1,1\n",
            "line 2: the frame should be a whole number below 2.53, found 1e.18",
        ),
        (ROW + b"1e12,1,1,1,1,1,1\n", "line 2: frame 1000000000000, but the largest may be 16777216"),
        (ROW + b"2,1e300,1,1,1,1,1\n", "line 2: the id should be a whole number"),
    ],
)
def test_lines_and_numbers_without_end(text: bytes, said: str) -> None:
    refused(text, said)


def test_lines_of_old_editors_are_not_one_long_line() -> None:
    rows = parse_mot_text(b"".join(b"%d,1,1,1,1,1,1\r" % number for number in range(1, 9000)), "a.txt")
    assert len(rows) == 8999


def test_gzip_unpacks_to_a_multiple_of_its_size() -> None:
    text = b"".join(b"%d,%d,1.5,2.5,3,4,1\n" % (number, number) for number in range(1, 100_000))
    assert gunzipped(gzip.compress(text[: 1 << 19]) + gzip.compress(text[1 << 19 :]) + b"\0" * 9, "a", 1 << 30) == text
    with pytest.raises(BadTracks, match=r"a: unpacks to more than 1,048,576 bytes, which [\d,]+ packed bytes may not"):
        gunzipped(gzip.compress(b"\n" * (2 << 20)), "a", 1 << 30)
    with pytest.raises(BadTracks, match="a: unpacks to more than 1,000 bytes"):
        gunzipped(gzip.compress(text), "a", 1000)
    with pytest.raises(BadTracks, match="a gzip file that ends early"):
        gunzipped(gzip.compress(text)[:-9], "a", 1 << 30)
    with pytest.raises(BadTracks, match="a broken gzip file"):
        gunzipped(gzip.compress(text) + b"more", "a", 1 << 30)


def test_parts_of_a_gzip_file_are_read_in_one_go() -> None:
    """Of a hundred thousand parts: copying what is left after each of them would take minutes."""
    assert gunzipped(gzip.compress(b"1") * 30_000, "a", 1 << 30) == b"1" * 30_000


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_of_archives_too(tmp_path: Path, method: int) -> None:
    path = tmp_path / "results.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("A.txt", ROW * (1 << 18))
        archive.writestr("B.txt", ROW)
    assert unpacked(str(path), "B.txt") == ROW
    with pytest.raises(BadTracks, match=r"results\.zip: A\.txt unpacks to more than"):
        unpacked(str(path), "A.txt")


def test_an_archive_of_endless_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MAX_DIRECTORY_BYTES", 1000)
    path = tmp_path / "results.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(100):
            archive.writestr(f"{number}.txt", ROW)
    with pytest.raises(BadTracks, match=r"its list of members has .* bytes, more than 1,000"):
        member_names(str(path))


@pytest.mark.parametrize("value", [b"[]", b"{}", b"[[0]]", b'{"a":0}', b'{"a":{"b":{}}}'])
def test_json_of_values_without_end(tmp_path: Path, value: bytes) -> None:
    path = tmp_path / "tracks.json"
    path.write_bytes(b"[" + b",".join([value] * (400_000 // len(value))) + b"]")
    with pytest.raises(BadTracks, match=r"tracks\.json: its values would take about [\d,]+ bytes in memory, more than"):
        load_json(str(path))


def test_json_as_people_have_it_is_far_from_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    box = {"id": 1, "image_id": 2, "category_id": 3, "bbox": [1.5, 2.25, 30.125, 4], "score": 0.875, "track_id": 3}
    polygon = {"id": 1, "segmentation": [[10.5, 20.5, 30.25, 40.25] * 9], "area": 1.5, "iscrowd": 0}
    counts = {"size": [480, 640], "counts": "WPW1?S[3e0Z@1:K2O:2M[O8nN3L4M2O1N2N1O001O0O10" * 9}
    for document in (box, polygon, counts, {"bbox": [1, 2, 3, 4], "id": 5}):
        data = orjson.dumps([document] * 1000)
        assert json_files._cost(data) < json_files.PARSED_PER_BYTE * len(data)


def test_json_that_is_packed_a_thousandfold(tmp_path: Path) -> None:
    path = tmp_path / "tracks.json.gz"
    path.write_bytes(gzip.compress(b"[" + b"[]," * 1_000_000 + b"0]"))
    with pytest.raises(BadTracks, match=r"tracks\.json\.gz: unpacks to more than 1,048,576 bytes"):
        load_json(str(path))
    path.write_bytes(gzip.compress(b"[" * 3000))
    with pytest.raises(BadTracks, match=r"tracks\.json\.gz: not valid JSON"):
        load_json(str(path))


BELOW = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.json_files import load_json
from trackmill.pipeline.evaluation.readers.mot_sequence_file import SequenceFile
for path in sys.argv[1:]:
    try:
        member = "A.txt" if ".zip" in path else ""
        load_json(path) if ".json" in path else SequenceFile(name="A", url=path, member=member).read()
    except BadTracks as error:
        print(error)
"""


def test_all_ends_below_three_gigabytes(tmp_path: Path) -> None:
    """With the limits that people have: a hundred million empty lists, and a gigabyte of line ends."""
    paths = [tmp_path / name for name in ("lists.json.gz", "A.txt.gz", "A.zip")]
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as handle:
        for _ in range(100):
            handle.write(b"[]," * 1_000_000)
    paths[0].write_bytes(buffer.getvalue())
    paths[1].write_bytes(gzip.compress(b"\n" * 1_000_000, 1) * 300)
    with zipfile.ZipFile(paths[2], "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("A.txt", ROW * 10_000_000)
    ended = subprocess.run([sys.executable, "-c", BELOW, *map(str, paths)], capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(" unpacks to more than ") == 3, ended.stdout
