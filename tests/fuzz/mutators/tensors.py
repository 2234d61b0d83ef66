"""Changes of files of arrays: headers of NumPy and safetensors, and what lies in the zips and pickles of PyTorch."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from random import Random

from tests.fuzz.mutators.documents import JSON
from tests.fuzz.mutators.raw import BYTES, EXTREMES
from tests.fuzz.target import Mutator


def npy_header(rng: Random, data: bytes) -> bytes:
    """Shape, type or order in the header of an array, its length mended."""
    length = struct.unpack("<H", data[8:10])[0]
    header = data[10 : 10 + length].decode("latin-1").strip()
    shapes = ("(0,)", "(1, 0)", f"({2**40},)", f"({2**62}, 4)", "(-1,)", "(2,)", "()", "(True,)", "(1.5,)", "(" * 200)
    kinds = ("<f8", "<i1", "|O", "<U9", "|V8", "<M8[ns]", ">f4", "x" * 300, "<f2", "|S0")
    begin = header.find("'shape':")
    changed = rng.choice(
        (
            f"{header[:begin]}'shape': {rng.choice(shapes)}, }}",
            header.replace("'<f4'", f"'{rng.choice(kinds)}'").replace("'<i8'", f"'{rng.choice(kinds)}'"),
            header.replace("False", "True"),
            header.replace("'descr'", "'descrs'"),
            "__import__('os')",
            "{" * 500,
            "[" * 5000,
            "",
        )
    )
    padded = changed.encode("latin-1") + b"\n"
    return data[:8] + struct.pack("<H", len(padded) % 65536) + padded + data[10 + length :]


NPY: tuple[Mutator, ...] = (npy_header,)


def _zipped(change: Mutator, suffix: str) -> Mutator:
    def rewritten(rng: Random, data: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(info, archive.read(info)) for info in archive.infolist()]
        places = [i for i, (info, _) in enumerate(members) if info.filename.endswith(suffix)]
        place = rng.choice(places or range(len(members)))
        members[place] = (members[place][0], change(rng, members[place][1]))
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for info, contents in members:
                archive.writestr(info.filename, contents)
        return out.getvalue()

    return rewritten


def drop_member(rng: Random, data: bytes) -> bytes:
    """A member of the zip is missing or doubled."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    place = rng.randrange(len(members))
    members[place : place + 1] = rng.choice(([], [members[place]] * 2))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, contents in members:
            archive.writestr(name, contents)
    return out.getvalue()


NPZ: tuple[Mutator, ...] = (
    _zipped(npy_header, ".npy"),
    *(_zipped(change, ".npy") for change in BYTES[:4]),
    drop_member,
)


def safetensors_header(rng: Random, data: bytes) -> bytes:
    """The JSON before the tensors, its length mended or not."""
    length = struct.unpack("<Q", data[:8])[0]
    header = rng.choice(JSON)(rng, data[8 : 8 + length])
    stated = len(header) if rng.random() < 0.8 else rng.choice(EXTREMES) % 2**64
    return struct.pack("<Q", stated) + header + data[8 + length :]


def safetensors_entry(rng: Random, data: bytes) -> bytes:
    """Type, shape or place of one tensor, or the metadata."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    name = rng.choice(sorted(header))
    if name == "__metadata__":
        key = rng.choice(sorted(header[name]))
        header[name][key] = rng.choice(
            ("", "[" * 200_000, "{}", "null", "1e999", "\x1b[31m", "x" * 50_000, '{"a":' * 5000)
        )
    else:
        field = rng.choice(sorted(header[name]))
        header[name][field] = {
            "dtype": lambda: rng.choice(("F64", "I8", "BOOL", "F8_E4M3", "", "X", 3)),
            "shape": lambda: rng.choice(([], [0], [2**63], [-1], [2**40, 2**40], [1] * 100, "4")),
            "data_offsets": lambda: rng.choice(([0, 0], [0, 2**63], [5, 1], [-1, 4], [0], [1, 2, 3])),
        }[field]()
    written = json.dumps(header).encode()
    return struct.pack("<Q", len(written)) + written + data[8 + length :]


SAFETENSORS: tuple[Mutator, ...] = (safetensors_header, safetensors_entry, safetensors_entry)


def pickle_code(rng: Random, data: bytes) -> bytes:
    """One opcode of a pickle is another; names of classes in it are others."""
    if rng.random() < 0.4:
        names = (
            (b"FloatStorage", b"EvilStorage"),
            (b"_rebuild_tensor_v2", b"_rebuild_tensor_v3"),
            (b"collections", b"subprocess"),
        )
        return data.replace(*rng.choice(names))
    at = rng.randrange(len(data))
    code = rng.choice(b"(.0125FNKMJ\x88\x89\x8aXU]}Rbhjqrstu\x85\x86\x87c\x93\x81\x95ae")
    return data[:at] + bytes([code]) + data[at + 1 :]


def pickle_bomb(rng: Random, data: bytes) -> bytes:
    """A pickle that doubles a list again and again, nests for ever, or asks for a huge text."""
    doubled = b"\x80\x02]q\x00" + b"".join(b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(60)) + b"."
    return rng.choice(
        (doubled, b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f")
    )


PICKLES: tuple[Mutator, ...] = (
    *(_zipped(pickle_code, "data.pkl"),) * 3,
    _zipped(pickle_bomb, "data.pkl"),
    pickle_code,
    pickle_code,
    drop_member,
    *(_zipped(change, "") for change in BYTES[:6]),
)
