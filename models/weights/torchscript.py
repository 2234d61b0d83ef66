"""Tensors out of a TorchScript archive (`torch.jit.save`), such as OpenAI's CLIP files. No code in it is read or run.

Such a file is a zip: `NAME/data.pkl` says which module holds which tensor, `NAME/data/KEY` has the numbers of a tensor,
`NAME/code/` the program. Modules become plain dictionaries here, and a tensor is called by the path to it:
`transformer.resblocks.0.ln_1.weight`, as in the state dict of the module that was saved.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from trackmill.models.weights.errors import BadWeights
from trackmill.models.weights.records import check_crcs, place_of, stored_bytes

if TYPE_CHECKING:
    import torch

MAX_PICKLE_BYTES = 64 << 20
"""Of `data.pkl`. That of CLIP ViT-L/14 has 0.1 MB."""

MAX_MODULES = 100_000
"""Places at which modules stand; a module may stand at several. CLIP ViT-B/32 has 330."""

MAX_DEPTH = 64
"""Modules within modules."""

_MAX_NAME = 200
_KINDS = ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
_REBUILD = ("torch._utils", "_rebuild_tensor_v2")


def is_torchscript(path: Path) -> bool:
    """Whether a zip is of `torch.jit.save`; one of `torch.save` holds no program."""
    with zipfile.ZipFile(path) as archive:
        return any(name.partition("/")[2].startswith(("constants.pkl", "code/")) for name in archive.namelist())


def read_torchscript(path: Path, *, verified: bool = False) -> dict[str, torch.Tensor]:
    """Every tensor of the archive's modules: parameters, buffers, and other attributes that are tensors.

    Args:
        path: of the file. It is mapped: bytes of tensors that nobody uses are not read.
        verified: its bytes were compared with a checksum before.

    Returns:
        By name, on the CPU, of the kind that the file has (half precision for OpenAI's).

    Raises:
        BadWeights: damaged, or its list holds other things than modules, tensors and plain values.
        DamagedRecord: a record does not match its CRC-32.
        Exception: of a file that is no such archive, whatever the parsers raise.
    """
    with zipfile.ZipFile(path) as archive:
        lists = [each for each in archive.infolist() if each.filename.partition("/")[2] == "data.pkl"]
        if len(lists) != 1:
            raise BadWeights(f"it has {len(lists)} records data.pkl instead of one")
        folder = lists[0].filename.removesuffix("data.pkl")
        tensors = [each for each in archive.infolist() if each.filename.startswith(f"{folder}data/")]
        order = [each for each in archive.infolist() if each.filename == f"{folder}byteorder"]
    records = {each.filename: each for each in tensors}
    if len(records) != len(tensors):
        raise BadWeights("two of its records have one name")
    for record in (*lists, *tensors, *order):
        # The program may be packed: nobody opens it.
        if record.compress_type != zipfile.ZIP_STORED:
            raise BadWeights(f"its record {record.filename[:80]!r} is packed")
    if lists[0].file_size > MAX_PICKLE_BYTES:
        raise BadWeights(f"its list of tensors has {lists[0].file_size:,} bytes, more than {MAX_PICKLE_BYTES:,}")
    if not verified:
        check_crcs(path, {each.filename for each in (*lists, *tensors)})
    if order and stored_bytes(path, order[0])[:16] != b"little":
        raise BadWeights("its numbers are stored with the high byte first")
    root = _Reader(stored_bytes(path, lists[0])).load()
    if not isinstance(root, _Module):
        raise BadWeights("what it holds is no module")
    make = _Maker(path, folder, records)
    return {name: make(tensor) for name, tensor in _named(root).items()}


@dataclass(frozen=True, eq=False)
class _Storage:
    """The numbers of one record, as the list describes them."""

    kind: str
    key: str
    length: int


@dataclass(frozen=True, eq=False)
class _Tensor:
    """A view of a storage: in numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Module:
    """A module of the archive: its attributes, and nothing that could be called."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}


@dataclass(frozen=True)
class _Name:
    """What a name in the list stands for; the thing itself is never imported."""

    module: str
    name: str


class _Value:
    """A plain value that holds no tensor of a module: lists of numbers, objects of the program and the like."""


class _Reader(pickle._Unpickler):
    """Goes over the list with the few operations that torch writes; everything else is refused.

    The one of the standard library would import what a name says, call it, and set attributes.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        operation[0]: pickle._Unpickler.dispatch[operation[0]]
        for operation in (
            pickle.PROTO, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.BINPERSID, pickle.NONE, pickle.NEWTRUE,
            pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT,
            pickle.BINUNICODE, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3,
            pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS,
            pickle.BINPUT, pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET,
        )
    }  # fmt: skip

    stack: list[Any]

    def __init__(self, pickled: bytes) -> None:
        super().__init__(io.BytesIO(pickled))

    def load(self) -> Any:
        try:
            return super().load()
        except KeyError as error:  # no such operation
            code = error.args[0] if error.args else None
            shown = f" ({chr(code)!r})" if isinstance(code, int) and 0 <= code < 256 else ""
            raise BadWeights(f"its list of tensors holds something that torch.jit.save never writes{shown}") from None

    def find_class(self, module: str, name: str) -> Any:
        return _Name(module, name)

    def persistent_load(self, pid: Any) -> Any:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and isinstance(pid[1], _Name)):
            raise BadWeights("one of its tensors names no record")
        _, kind, key, _, length = pid  # the device does not matter: all goes to the CPU
        short = kind.name.removesuffix("Storage")
        if kind.module not in ("torch", "torch.storage") or short not in _KINDS or not kind.name.endswith("Storage"):
            raise BadWeights(f"its tensors are of a kind that is not read: {kind.module}.{kind.name}"[:160])
        if not (isinstance(key, str) and _is_count(length)):
            raise BadWeights("one of its tensors names no record")
        return _Storage(short, key, length)

    def _reduce(self) -> None:
        arguments, called = self.stack.pop(), self.stack[-1]
        self.stack[-1] = _Value()
        if not isinstance(called, _Name) or not isinstance(arguments, tuple):
            raise BadWeights("its list of tensors asks for a call")
        if (called.module, called.name) == _REBUILD:
            self.stack[-1] = _as_tensor(arguments)
        elif called.module == "torch._utils":
            raise BadWeights(f"its tensors are of a kind that is not read: {called.name}"[:160])
        elif called.module not in ("torch.jit._pickle", "collections"):
            raise BadWeights(f"it asks for {called.module}.{called.name}"[:160])

    def _new_object(self) -> None:
        self.stack.pop()
        if not isinstance(self.stack[-1], _Name):
            raise BadWeights("its list of tensors asks for an object of no class")
        self.stack[-1] = _Module()

    def _build(self) -> None:
        state, module = self.stack.pop(), self.stack[-1]
        if not isinstance(module, _Module):
            raise BadWeights("its list of tensors fills something that is no module")
        if isinstance(state, dict):  # objects of the program that are no modules have other states
            module.attributes = state

    dispatch[pickle.REDUCE[0]] = _reduce
    dispatch[pickle.NEWOBJ[0]] = _new_object
    dispatch[pickle.BUILD[0]] = _build


def _as_tensor(arguments: tuple[Any, ...]) -> _Tensor:
    storage, offset, shape, strides = arguments[:4] if len(arguments) >= 4 else (None,) * 4
    if (
        isinstance(storage, _Storage)
        and _is_count(offset)
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and len(shape) == len(strides)
        and all(map(_is_count, shape))
        and all(map(_is_count, strides))
    ):
        return _Tensor(storage, offset, shape, strides)
    raise BadWeights("the shape of one of its tensors makes no sense")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _named(root: _Module) -> dict[str, _Tensor]:
    """Tensors by the path to them; a module that stands at two places gives its tensors twice, as state dicts do."""
    found: dict[str, _Tensor] = {}
    waiting, visited = [("", root, 0)], 0
    while waiting:
        path, module, depth = waiting.pop()
        visited += 1
        if visited > MAX_MODULES or depth > MAX_DEPTH:
            raise BadWeights("its modules are nested without end")
        below = []
        for name, value in module.attributes.items():
            if not isinstance(value, _Tensor | _Module):
                continue
            if not isinstance(name, str) or len(name) > _MAX_NAME:
                raise BadWeights("one of its modules has an attribute without a proper name")
            if isinstance(value, _Tensor):
                found[path + name] = value
                if len(found) > MAX_MODULES:
                    raise BadWeights("its modules are nested without end")
            else:
                below.append((f"{path}{name}.", value, depth + 1))
        waiting.extend(reversed(below))
    return found


class _Maker:
    """Makes tensors over the bytes of the file."""

    def __init__(self, path: Path, folder: str, records: dict[str, zipfile.ZipInfo]) -> None:
        self._path = path
        self._folder = folder
        self._records = records
        # Copy on write, so that whoever changes a tensor does not change the file.
        self._file = np.memmap(path, np.uint8, mode="c")
        self._bytes: dict[str, Any] = {}

    def __call__(self, tensor: _Tensor) -> torch.Tensor:
        import torch

        storage = tensor.storage
        name = f"{self._folder}data/{storage.key}"
        dtype: torch.dtype = getattr(torch, f"{storage.kind}Storage")._dtype
        record = self._records.get(name)
        has, wanted = record.file_size if record else 0, storage.length * dtype.itemsize
        if record is None or has < wanted:
            raise BadWeights(f"its record data/{storage.key:.40} has {has:,} of {wanted:,} bytes")
        reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides))
        if 0 not in tensor.shape and tensor.offset + reach >= storage.length:
            raise BadWeights(f"a tensor of shape {tensor.shape} reaches beyond its record data/{storage.key:.40}"[:200])
        if name not in self._bytes:
            start = place_of(self._path, record)
            if start + has > len(self._file):
                raise BadWeights(f"its record data/{storage.key:.40} ends behind the file")
            self._bytes[name] = self._file[start : start + has]
        numbers = self._bytes[name][:wanted]
        if numbers.ctypes.data % dtype.itemsize:  # torch itself begins records at multiples of 64 bytes
            numbers = numbers.copy()
        whole = torch.from_numpy(numbers).view(dtype)
        if 0 in tensor.shape:
            return torch.empty(tensor.shape, dtype=dtype)
        return whole.as_strided(tensor.shape, tensor.strides, tensor.offset)
