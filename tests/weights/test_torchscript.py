"""Archives of torch.jit.save: their tensors are read under the names of the state dict, and their program never."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from trackmill.models.weights.errors import BadWeights  # noqa: E402
from trackmill.models.weights.read import read_checkpoint  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


class Inner(torch.nn.Module):  # type: ignore[misc]
    """Parameters, a buffer, a plain number, a list and a sequence of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 3)
        self.norm = torch.nn.LayerNorm(3)
        self.register_buffer("running", torch.arange(2.0))
        self.steps = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
        self.scale = 3
        self.sizes = [1, 2]

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear(self.steps(values) + self.running)) * self.scale + self.sizes[0]


class Outer(torch.nn.Module):  # type: ignore[misc]
    """One module that stands at two places, and a parameter that is a view of another order."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Inner()
        self.second = self.first
        self.turned = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).t())

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.first(values) + self.second(values) + self.turned.sum()


def archive(path: Path, module: Any, traced: bool = False) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.jit.trace(module, torch.ones(1, 2)) if traced else torch.jit.script(module)
        torch.jit.save(made, path)
    return path


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An archive in half precision, as OpenAI's are, and the state dict that it was made from."""
    module = Outer().half()
    return archive(tmp_path_factory.mktemp("archive") / "model.pt", module), module.state_dict()


@pytest.mark.parametrize("kind", ["half", "scripted", "traced"])
def test_tensors_have_the_names_of_the_state_dict(half: Any, tmp_path: Path, kind: str) -> None:
    if kind == "half":
        path, state = half
    else:
        module = Outer().eval()
        path, state = archive(tmp_path / "a.pt", module, kind == "traced"), module.state_dict()
    tensors = read_checkpoint(path)
    # A traced module gives a shared one's tensors once.
    expected = {name: each for name, each in state.items() if kind != "traced" or name in tensors}
    assert tensors.keys() == expected.keys() and any(name.startswith("first.steps.0.") for name in expected)
    for name, each in expected.items():
        assert tensors[name].dtype == each.dtype and torch.equal(tensors[name], each)
        assert tensors[name].stride() == each.stride()


def test_a_change_of_a_tensor_does_not_reach_the_file(half: Any) -> None:
    path, state = half
    read_checkpoint(path)["first.linear.bias"].zero_()
    assert torch.equal(read_checkpoint(path)["first.linear.bias"], state["first.linear.bias"])


def changed(path: Path, to: Path, change: Any) -> Path:
    """The archive with other records: `change(name, data)` gives the new data, or None to leave the record out."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(to, "w") as target:
        for record in source.infolist():
            data = change(record.filename, source.read(record))
            if data is not None:
                target.writestr(zipfile.ZipInfo(record.filename), data, compress_type=record.compress_type)
    return to


def with_list(path: Path, to: Path, pickled: bytes) -> Path:
    return changed(path, to, lambda name, data: pickled if name.endswith("/data.pkl") else data)


def refused(path: Path, said: str) -> None:
    with pytest.raises(BadWeights, match=said) as caught:
        read_checkpoint(path)
    assert path.name in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_the_program_is_never_read(half: Any, tmp_path: Path) -> None:
    path, state = half
    hostile = b"import os\nos.abort()\n" * 1000

    def hostile_code(name: str, data: bytes) -> bytes:
        return hostile if "/code/" in name or name.endswith("constants.pkl") else data

    tensors = read_checkpoint(changed(path, tmp_path / "code.pt", hostile_code))
    assert all(torch.equal(tensors[name], each) for name, each in state.items())


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_the_list_never_runs(half: Any, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    for trap in (Trap(sprung), {"a": Trap(sprung)}, [Trap(sprung)]):
        refused(with_list(half[0], tmp_path / "trap.pt", pickle.dumps(trap, protocol=2)), r"it asks for \w+\.\w+")
    assert not sprung.exists()
    pickle.loads(pickle.dumps(Trap(sprung)))  # the trap itself works
    assert sprung.exists()


HEAD = b"\x80\x02c__torch__\nM\n)\x81}("
STORAGE = b"(X\7\0\0\0storagectorch\n%s\nX\1\0\0\0%sX\3\0\0\0cpuK%ctQ"
TENSOR = b"X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(%sK%c(K%ct(K%ct\x89}tR"


def listed(kind: bytes = b"HalfStorage", key: bytes = b"0", numbers: int = 2, offset: int = 0, size: int = 2) -> bytes:
    """A list of one module with one tensor."""
    return HEAD + TENSOR % (STORAGE % (kind, key, numbers), offset, size, 1) + b"ub."


def test_a_list_made_by_hand_is_read(half: Any, tmp_path: Path) -> None:
    tensors = read_checkpoint(with_list(half[0], tmp_path / "a.pt", listed()))
    assert list(tensors) == ["a"] and tensors["a"].shape == (2,) and tensors["a"].dtype == torch.float16


@pytest.mark.parametrize(
    ("pickled", "said"),
    [
        (listed(numbers=200), "its record data/0 has .* of 400 bytes"),
        (listed(key=b"x"), "its record data/x has 0 of 4 bytes"),
        (listed(offset=1), "reaches beyond its record data/0"),
        (listed(size=200), "reaches beyond its record data/0"),
        (listed(kind=b"QInt8Storage"), "of a kind that is not read: torch.QInt8Storage"),
        (listed().replace(b"_rebuild_tensor_v2", b"_rebuild_qtensor"), "of a kind that is not read: _rebuild_qtensor"),
        (HEAD + b"X\1\0\0\0acos\nsystem\nX\4\0\0\0true\x85Rub.", r"it asks for os\.system"),
        (HEAD + b"X\1\0\0\0acbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85Rub.", r"it asks for builtins\.bytearray"),
        (b"\x80\x02\x96" + struct.pack("<Q", 1 << 40) + b".", "torch.jit.save never writes"),
        (b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"a.", "damaged"),
        (b"\x80\x02}.", "what it holds is no module"),
        (HEAD + b"X\1\0\0\0m" + b"c__torch__\nM\n)\x81}(" * 100 + b"ub" * 100 + b"ub.", "damaged|attribute|nested"),
        (b"", "damaged"),
        (listed()[:-20], "damaged"),
    ],
    ids=[
        "short record", "no record", "offset", "size", "kind of storage", "kind of tensor", "call", "memory",
        "operation", "long text", "no module", "marks", "empty", "cut",
    ],
)  # fmt: skip
def test_lists_of_other_things(half: Any, tmp_path: Path, pickled: bytes, said: str) -> None:
    refused(with_list(half[0], tmp_path / "bad.pt", pickled), said)


def test_modules_without_end(half: Any, tmp_path: Path) -> None:
    """A module inside itself, and one that doubles at every level."""
    inside_itself = b"\x80\x02c__torch__\nM\n)\x81q\0}(X\1\0\0\0ah\0ub."
    refused(with_list(half[0], tmp_path / "bad.pt", inside_itself), "nested without end")
    level = b"c__torch__\nM\n)\x81q%c}(X\1\0\0\0a%sX\1\0\0\0bh%cub"
    doubled = b"c__torch__\nM\n)\x81q\0}b"
    for number in range(1, 40):
        doubled = level % (number, doubled, number - 1)
    refused(with_list(half[0], tmp_path / "bad.pt", b"\x80\x02" + doubled + b"."), "nested without end")


def test_damaged_archives(half: Any, tmp_path: Path) -> None:
    path, state = half

    def packed_list(to: Path) -> Path:
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as target:
            for name in source.namelist():
                target.writestr(name, source.read(name))
        return to

    refused(packed_list(tmp_path / "packed.pt"), "its record '.*' is packed")
    refused(changed(path, tmp_path / "gone.pt", lambda n, d: None if n.endswith("data/0") else d), "has 0 of")
    refused(changed(path, tmp_path / "short.pt", lambda n, d: d[:1] if n.endswith("data/0") else d), "has 1 of")
    refused(
        changed(path, tmp_path / "none.pt", lambda n, d: None if n.endswith("data.pkl") else d), "0 records data.pkl"
    )
    refused(changed(path, tmp_path / "big.pt", lambda n, d: b"big" if n.endswith("byteorder") else d), "high byte")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two records with one name
        with zipfile.ZipFile(changed(path, tmp_path / "two.pt", lambda n, d: d), "a") as twice:
            name = next(each for each in twice.namelist() if each.endswith("data/0"))
            twice.writestr(name, b"\0" * 100)
    refused(tmp_path / "two.pt", "two of its records have one name")

    data = path.read_bytes()
    values = state["first.linear.weight"].numpy().tobytes()
    place = data.index(values)
    (tmp_path / "flipped.pt").write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    refused(tmp_path / "flipped.pt", "the checksum of its record .* differs")
    for length in (len(data) // 3, len(data) - 30):
        (tmp_path / "cut.pt").write_bytes(data[:length])
        refused(tmp_path / "cut.pt", "damaged")


def test_a_checkpoint_of_torch_save_is_none(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"code": torch.ones(2)}, buffer)
    (tmp_path / "a.pt").write_bytes(buffer.getvalue())
    assert read_checkpoint(tmp_path / "a.pt")["code"].tolist() == [1, 1]
