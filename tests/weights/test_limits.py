"""Checkpoints that were made to fill memory or time are refused by name; old ones that hold tensors alone are read."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from trackmill.models.weights.errors import BadWeights  # noqa: E402
from trackmill.models.weights.read import as_checkpoint, read_checkpoint  # noqa: E402
from trackmill.models.weights.records import check_lengths  # noqa: E402

STATE = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2, dtype=torch.float16)}


def with_record(path: Path, record: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    """A file of torch.save with another pickle in it."""
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w", method) as target:
        for name in source.namelist():
            target.writestr(name, record if record and name.endswith("data.pkl") else source.read(name))
    return path


def safetensors_of(path: Path, header: bytes, length: int | None = None) -> Path:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + b"\0" * 16)
    return path


def refused(path: Path, said: str) -> None:
    with pytest.raises(BadWeights, match=said) as caught:
        read_checkpoint(path)
    assert path.name in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("wrapped", [False, True])
def test_files_from_before_torch_1_6_are_read_everywhere(tmp_path: Path, wrapped: bool) -> None:
    path = tmp_path / "old.pth"
    state = {"state_dict": STATE, "epoch": 3} if wrapped else STATE
    torch.save(state, path, _use_new_zipfile_serialization=False)
    for read in (read_checkpoint, as_checkpoint):
        assert {name: each.tolist() for name, each in read(path).items()} == {
            name: each.tolist() for name, each in STATE.items()
        }


@pytest.mark.parametrize("legacy", [False, True])
def test_a_tensor_that_repeats_its_bytes_without_end(tmp_path: Path, legacy: bool) -> None:
    endless = {"a": torch.as_strided(torch.ones(2), (1 << 40,), (0,))}
    torch.save(endless, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    refused(tmp_path / "a.pth", "a says that it has 1,099,511,627,776 values, and holds fewer")
    torch.save({"a": torch.ones(1).expand(5)}, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    assert read_checkpoint(tmp_path / "a.pth")["a"].tolist() == [1] * 5


def test_a_record_that_is_shorter_than_its_tensor(tmp_path: Path) -> None:
    """Mapped, torch would take what lies behind it in the file."""
    torch.save(STATE, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as source, zipfile.ZipFile(tmp_path / "a.pth", "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name)[:20] if name.endswith("data/0") else source.read(name))
    refused(tmp_path / "a.pth", "its record data/0 has 20 of 48 bytes")


def test_a_flipped_bit_is_another_weight(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(STATE, path)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        (record,) = (each for each in archive.infolist() if each.filename.endswith("data/0"))
    place = data.index(STATE["a.weight"].numpy().tobytes(), record.header_offset)
    path.write_bytes(data[: place + 5] + bytes([data[place + 5] ^ 16]) + data[place + 6 :])
    refused(path, "the checksum of its record .*data/0 differs")


def test_a_file_that_was_written_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    tensors = read_checkpoint(tmp_path / "a.pth")
    assert torch.equal(tensors["a.weight"], STATE["a.weight"])


@pytest.mark.parametrize(
    "state",
    [
        {"state_dict": OrderedDict(STATE), "meta": {"epoch": 3, "names": ("a", "b"), "set": {1, 2}}},
        {"a": STATE["a.weight"][1:, :2], "b": STATE["a.weight"], "c": torch.nn.Parameter(torch.ones(3))},
        {"a": torch.ones(3, dtype=torch.bfloat16), "b": torch.ones(2, dtype=torch.complex64), "c": torch.ones(0)},
        {"a": torch.ones(4, dtype=torch.int8).double(), "b": torch.ones(2, dtype=torch.bool)},
        torch.nn.Linear(3, 2).state_dict(),
    ],
)
def test_whole_files_of_many_kinds_pass(tmp_path: Path, state: object) -> None:
    torch.save(state, tmp_path / "a.pth")
    check_lengths(tmp_path / "a.pth")


def test_records_that_unfold(tmp_path: Path) -> None:
    refused(with_record(tmp_path / "a.pth", b"", zipfile.ZIP_DEFLATED), "its record '.*' is packed")


@pytest.mark.parametrize(
    "record",
    [
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"\0.",
        b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"a.",
        b"\x80\x02" + b"(" * 100_000 + b".",
        b"\x80\x02)" + b"\x85" * 100_000 + b".",
        b"\x80\x02" + b"]" * 1000 + b"r" + struct.pack("<I", 2**32 - 1) + b".",
        b"\x80\x02cos\nsystem\nX\4\0\0\0true\x85R.",
        b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    ],
    ids=["a number", "a text", "marks", "tuples in tuples", "lists", "code", "gigabytes of zeros"],
)
def test_pickles_of_other_things(tmp_path: Path, record: bytes) -> None:
    refused(with_record(tmp_path / "a.pth", record), "more than tensors|tensors by name")


def test_headers_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    refused(safetensors_of(path, b"{}", 1 << 40), "a header of 1,099,511,627,776 bytes, more than")
    refused(safetensors_of(path, b"{" + b"[" * 200_000), "not a whole safetensors file")
    same = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    refused(safetensors_of(path, json.dumps({"a": same, "b": same}).encode()), "not a whole safetensors file")
    deep = {"__metadata__": {"trackmill": "[" * 200_000}, "a": same}
    with pytest.raises(ValueError, match="its metadata 'trackmill' is not what trackmill writes"):
        read_checkpoint(safetensors_of(path, json.dumps(deep).encode()))


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"hello")
    refused(tmp_path / "a.pth", "neither of torch.save nor safetensors")
    (tmp_path / "a.pth").write_bytes(b"PK\3\4" + b"\0" * 50)
    refused(tmp_path / "a.pth", "damaged")
