"""Files of torch.save are zips: what their list of tensors says of each record is compared with the record."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

_LIST = "data.pkl"


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
                _Lengths(archive.read(name), name.removesuffix(_LIST), lengths).load()


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

            return getattr(torch, name, _Anything)
        return _Anything

    def persistent_load(self, pid: Any) -> Any:
        _, kind, key, _, length = pid
        dtype = getattr(kind, "_dtype", None)  # without the underscore torch warns
        wanted = length * (getattr(dtype, "itemsize", None) or 1)
        name = f"{self._folder}data/{key}"
        if self._lengths.get(name, 0) < wanted:
            raise ShortRecord(f"its record data/{key!s:.40} has {self._lengths.get(name, 0):,} of {wanted:,} bytes")
        return _Anything()
