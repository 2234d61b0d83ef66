"""Files of torch.save are zips: their records are compared with their checksums, and with the list of tensors.

torch compares neither: a flipped bit is another weight, and behind a record that is too short it reads on in the file.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

_LIST = "data.pkl"
_CHUNK_BYTES = 1 << 20
_LOCAL_HEADER = struct.Struct("<26x2H")  # ends in the lengths of what stands before the record


class ShortRecord(ValueError):
    """A tensor has more bytes in the list than in its record: torch would give what comes behind it in the file."""


def check_lengths(path: Path) -> None:
    """Hold each record to the length that the list of tensors gives it. For a file that torch took.

    Raises:
        ShortRecord: one is shorter.
    """
    with zipfile.ZipFile(path) as archive:
        lengths: dict[str, int] = {}
        for record in archive.infolist():  # of two with one name the shorter counts
            lengths[record.filename] = min(record.file_size, lengths.get(record.filename, record.file_size))
        for name in lengths:
            if name == _LIST or name.endswith(f"/{_LIST}"):
                _Lengths(stored_bytes(path, archive.getinfo(name)), name.removesuffix(_LIST), lengths).load()


def stored_bytes(path: Path, record: zipfile.ZipInfo) -> bytes:
    """The bytes of a record that is not packed, whatever its checksum says."""
    with open(path, "rb") as handle:
        handle.seek(place_of(path, record))
        return handle.read(record.file_size)


def place_of(path: Path, record: zipfile.ZipInfo) -> int:
    """Where in the file the bytes of a record begin."""
    with open(path, "rb") as handle:
        handle.seek(record.header_offset)
        name, extra = _LOCAL_HEADER.unpack(handle.read(_LOCAL_HEADER.size))
    return record.header_offset + _LOCAL_HEADER.size + int(name) + int(extra)


class DamagedRecord(ValueError):
    """A record has another CRC-32 than the zip says, as others have not."""


def check_crcs(path: Path, only: Collection[str] | None = None) -> None:
    """Compare each record with its CRC-32; reads the whole file, about a gigabyte a second.

    Args:
        path: of the zip.
        only: names of the records that are compared; None: all.

    Files whose writer was told to compute none (`torch.serialization.set_crc32_options`) have not one that is right,
    and are passed.

    Raises:
        DamagedRecord: some records have another checksum.
    """
    right, wrong = 0, []
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            if only is not None and record.filename not in only:
                continue
            try:
                with archive.open(record) as handle:
                    while handle.read(_CHUNK_BYTES):
                        pass
                right += record.file_size > 0
            except zipfile.BadZipFile:
                wrong.append(record.filename)
    if wrong and right:
        raise DamagedRecord(f"the checksum of its record {wrong[0]:.80} differs: the file is damaged")


class _Anything:
    """Stands for whatever a list of tensors makes: nothing of it is looked at, and no code of it is run."""

    def __new__(cls, *_: Any, **__: Any) -> _Anything:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """As of a list."""

    def extend(self, _: Any) -> None:
        """As of a list."""


class _Lengths(pickle._Unpickler):
    """Goes over the list and looks at records alone. The one in C makes room for each number that a memo names."""

    def __init__(self, pickled: bytes, folder: str, lengths: dict[str, int]) -> None:
        super().__init__(io.BytesIO(pickled))
        self._folder = folder
        self._lengths = lengths

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            import torch

            # The width of its numbers, and nothing that could be called.
            dtype = getattr(getattr(torch, name, None), "_dtype", None)
            return type(name, (_Anything,), {"_dtype": dtype})
        return _Anything

    def persistent_load(self, pid: Any) -> Any:
        _, kind, key, _, length = pid
        dtype = getattr(kind, "_dtype", None)  # without the underscore torch warns
        wanted = length * (getattr(dtype, "itemsize", None) or 1)
        name = f"{self._folder}data/{key}"
        if self._lengths.get(name, 0) < wanted:
            raise ShortRecord(f"its record data/{key!s:.40} has {self._lengths.get(name, 0):,} of {wanted:,} bytes")
        return _Anything()
