"""A stored sample: what it gives, and that hostile bytes are refused and nothing else."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from PIL import Image

from tests.make_dataset import make_dataset
from tests.make_media import jpeg_bytes, make_scene
from trackmill.pipeline.loader.catalog import read_catalog
from trackmill.pipeline.loader.sample import ShardSample
from trackmill.pipeline.shards.decode import decode_jpeg
from trackmill.pipeline.shards.reader import open_dataset, read_sample
from trackmill.pipeline.shards.stream import BadShardMember, split_piece
from trackmill.pipeline.shards.tar import BadShard, TarWriter


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Bytes of a picture and of a clip in their tars."""
    root = str(tmp_path_factory.mktemp("stored"))
    make_dataset(root, num_images=2, num_frames=3)
    catalog = read_catalog(root)
    found = {"root": root.encode()}
    for name, sample in (("picture", 0), ("clip", 2)):
        data = Path(catalog.shard_urls[int(catalog.shard_of(sample))]).read_bytes()
        found[name] = data[catalog.offsets[sample] :][: catalog.sizes[sample]]
    return found


@pytest.mark.parametrize("kind", ["picture", "clip"])
def test_gives_what_the_checked_reader_gives(pieces: dict[str, bytes], kind: str) -> None:
    sample = ShardSample(pieces[kind], "x.tar", 0)
    checked = read_sample(open_dataset(pieces["root"].decode()), sample.key)
    assert sample.num_frames == len(checked.record.frames)
    assert sample.origin == checked.record.origin.uri and sample.source == checked.record.origin.source
    assert sample.video == ("" if kind == "picture" else checked.record.origin.source_id.removesuffix("#c000"))
    for number, frame in enumerate(checked.record.frames):
        boxes, scores = sample.proposals(number)
        assert boxes.dtype == scores.dtype == np.float32
        assert np.array_equal(boxes, np.array(frame.proposals.boxes, np.float32))
        assert np.array_equal(scores, np.array(frame.proposals.scores, np.float32))
        assert frame.objects is not None
        objects, ids = sample.objects(number)
        assert ids.dtype == np.int64 and ids.tolist() == frame.objects.ids
        assert np.array_equal(objects, np.array(frame.objects.boxes, np.float32))
        image = sample.image(number)
        assert image.dtype == np.uint8 and image.flags.writeable
        assert np.abs(image.astype(int) - checked.image(number)).max() <= 3


def rebuilt(piece: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The piece with another record."""
    raw = split_piece(piece, "x.tar", 0)
    out = io.BytesIO()
    writer = TarWriter(out)
    for name, data in raw.members:
        if name.endswith(".json") and not name.endswith(".masks.json"):
            record = orjson.loads(data)
            data = change(record) or orjson.dumps(record)
        writer.add(name, data)
    return out.getvalue()


def set_at(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(record: Any) -> None:
        *parents, last = path.split(".")
        for part in parents:
            record = record[int(part) if part.isdigit() else part]
        record[int(last) if last.isdigit() else last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_at("schema_version", 2), "schema version 2; this program reads 1: update it"),
        (set_at("key", "another"), "says its key is 'another'"),
        (set_at("frames", []), "does not fit the members"),
        (set_at("frames", None), "not a valid record"),
        (set_at("has_masks", False), "does not fit the members"),
        (set_at("kind", "clip"), "does not fit the members"),
        (set_at("stored.height", 10**9), "declares frames"),
        (set_at("stored.height", -48), "declares frames"),
        (set_at("stored.width", "wide"), "not a valid record"),
        (set_at("stored", None), "not a valid record"),
        (set_at("origin", 3), "not a valid record"),
        (lambda record: b"{", "not a valid record"),
        (lambda record: b"[" * 5000, "not a valid record"),
        (lambda record: b"7", "not a valid record"),
        (lambda record: orjson.dumps(record).replace(b'"width":', b'"width":1e999,"w":', 1), "not a valid record"),
    ],
)
def test_records_that_lie_are_refused(pieces: dict[str, bytes], change: Any, message: str) -> None:
    with pytest.raises(BadShard, match=message):
        ShardSample(rebuilt(pieces["picture"], change), "x.tar", 0)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("boxes", [[0, 0, 5, 5]] * 3),
        ("boxes", [[0, 0, 5]] * 4),
        ("boxes", [[0, 0, 5, 1e39]] * 4),
        ("boxes", [[0, 0, 5, None]] * 4),
        ("boxes", [[5, 0, 0, 5]] * 4),
        ("boxes", [["a", "0", "5", "5"]] * 4),
        ("boxes", [[0, 0, 5, [5]]] * 4),
        ("boxes", "abcd"),
        ("boxes", None),
        ("scores", []),
        ("scores", [1, 2, 3]),
        ("scores", [{}] * 4),
    ],
)
def test_boxes_that_lie_are_refused(pieces: dict[str, bytes], path: str, value: Any) -> None:
    change = set_at(f"frames.0.proposals.{path}", value)
    with pytest.raises(BadShardMember, match=r"x.tar: .*\.json: frame 0: "):
        ShardSample(rebuilt(pieces["picture"], change), "x.tar", 0)
    clip = ShardSample(rebuilt(pieces["clip"], change), "x.tar", 0)
    assert len(clip.proposals(1)[0]) == 4
    with pytest.raises(BadShardMember, match=r"x.tar: .*\.json: frame 0: "):
        clip.proposals(0)
    assert clip.problem


@pytest.mark.parametrize("ids", [[1.5, 2], [1], [2**63, 1], ["a", "b"], None])
def test_ids_that_lie_are_refused(pieces: dict[str, bytes], ids: Any) -> None:
    change = set_at("frames.0.objects.ids", ids)
    with pytest.raises(BadShardMember, match="frame 0: objects are not valid"):
        ShardSample(rebuilt(pieces["picture"], change), "x.tar", 0)
    with pytest.raises(BadShardMember, match="frame 0: objects are not valid"):
        ShardSample(rebuilt(pieces["clip"], change), "x.tar", 0).objects(0)


def test_a_frame_that_was_never_annotated(pieces: dict[str, bytes]) -> None:
    sample = ShardSample(rebuilt(pieces["picture"], set_at("frames.0.objects", None)), "x.tar", 0)
    assert sample.objects(0) is None
    empty = {"boxes": [], "ids": [], "scores": []}
    boxes, ids = ShardSample(rebuilt(pieces["picture"], set_at("frames.0.objects", empty)), "x.tar", 0).objects(0)
    assert boxes.shape == (0, 4) and ids.shape == (0,)


def test_pieces_that_are_no_sample(pieces: dict[str, bytes]) -> None:
    piece = pieces["picture"]
    damaged = [piece[:-512], piece[512:], piece + pieces["clip"], b"", b"\0" * 1024, piece[:100] + b"x" + piece[101:]]
    for data in damaged:
        with pytest.raises(BadShard):
            ShardSample(data, "x.tar", 0)


def test_pictures_of_one_tar_have_origins_of_their_own(pieces: dict[str, bytes]) -> None:
    changed = rebuilt(pieces["picture"], set_at("origin.byte_range", [512, 77]))
    assert ShardSample(changed, "x.tar", 0).origin.endswith(".jpg[512+77]")


@pytest.mark.parametrize("options", [{}, {"mode": "L"}, {"mode": "CMYK"}])
def test_pixels_are_those_that_pillow_decodes(options: dict[str, str]) -> None:
    data = jpeg_bytes(make_scene(50, 67, 3)[0], **options)
    found = decode_jpeg(memoryview(data), "s", "m", 50, 67)
    assert np.array_equal(found, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_damaged_jpegs_are_refused() -> None:
    data = jpeg_bytes(make_scene(50, 67)[0])
    out = io.BytesIO()
    Image.new("RGB", (67, 50)).save(out, "PNG")
    cut = data[: len(data) // 3] + b"\xff\xd9"
    cmyk = jpeg_bytes(make_scene(50, 67)[0], mode="CMYK")
    cut_cmyk = cmyk[: len(cmyk) // 2] + b"\xff\xd9"
    for damaged in (data[:-80], b"", b"\xff\xd8\xff", out.getvalue(), data[:-40] + b"\xff" * 40, cut, cut_cmyk):
        with pytest.raises(BadShardMember, match="s: m: is not a whole JPEG"):
            decode_jpeg(damaged, "s", "m", 50, 67)
    with pytest.raises(BadShardMember, match="is 50 x 67, its record says 50 x 68; not decoded"):
        decode_jpeg(data, "s", "m", 50, 68)


def test_a_jpeg_of_thousands_of_scans_is_not_decoded() -> None:
    out = io.BytesIO()
    Image.fromarray(make_scene(50, 67)[0]).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    assert decode_jpeg(data, "s", "m", 50, 67).shape == (50, 67, 3)
    last = data[data.rfind(b"\xff\xda") : -2]
    with pytest.raises(BadShardMember, match="more than 100 scans"):
        decode_jpeg(data[:-2] + last * 100 + data[-2:], "s", "m", 50, 67)
