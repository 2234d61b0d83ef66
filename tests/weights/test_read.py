"""Reading a file: what training tools put around the tensors comes off, nothing runs, and a bad file is named."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

from trackmill.models.weights.errors import BadWeights, MissingPackage  # noqa: E402
from trackmill.models.weights.read import read_checkpoint, state_dict_of  # noqa: E402

TENSORS = {"layer.weight": torch.arange(3.0), "layer.bias": torch.zeros(1)}


def saved(path: Path, content: Any, **options: Any) -> Path:
    """`content` as torch saves it."""
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"model": {"state_dict": state}, "epoch": 3},
        # Averaged weights, as several detectors' trainers keep them: one wrapper inside another, and a counter.
        lambda state: {"ema": {"module": state, "updates": 100}, "optimizer": {"state": {}}},
        lambda state: {"ema": {f"module.{name}": each for name, each in state.items()}},
        # torch.compile around one part of the model alone.
        lambda state: {name.replace("layer.", "layer._orig_mod."): each for name, each in state.items()},
        # A wrapper that is there and holds nothing is not it.
        lambda state: {"state_dict": {}, "model": state},
        # Lightning puts the attribute's name before every name.
        lambda state: {"state_dict": {f"model.{name}": each for name, each in state.items()}},
    ],
    ids=["bare", "model", "nested", "ema", "ema of ddp", "compiled part", "empty wrapper", "lightning"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["torch", "torch before 1.6"])
def test_wrappers_and_prefixes_come_off(tmp_path: Path, wrap: Any, zipped: bool) -> None:
    path = saved(tmp_path / "w.pth", wrap(TENSORS), _use_new_zipfile_serialization=zipped)
    for loaded in (read_checkpoint(path), state_dict_of(wrap(TENSORS))):
        assert list(loaded) == list(TENSORS)
        assert all(torch.equal(loaded[name], each) for name, each in TENSORS.items())


def test_a_prefix_that_not_all_names_have_stays() -> None:
    state = {"model.weight": torch.zeros(1), "head.weight": torch.zeros(1)}
    assert list(state_dict_of(state)) == list(state)


@pytest.mark.parametrize("content", [torch.zeros(3), {}, {"a": torch.zeros(1), "epoch": 3}])
def test_anything_but_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(BadWeights, match=r"state dict|no tensors"):
        read_checkpoint(saved(tmp_path / "w.pth", content))


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["torch", "torch before 1.6", "pickle"])
def test_code_in_a_checkpoint_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    sprung, path = tmp_path / "sprung", tmp_path / "trap.pth"
    if how != "pickle":
        torch.save({"model": Trap(sprung)}, path, _use_new_zipfile_serialization=how == "torch")
    else:
        path.write_bytes(pickle.dumps(Trap(sprung), protocol=2))
    with pytest.raises(BadWeights, match="more than tensors") as raised:
        read_checkpoint(path)
    assert not sprung.exists()
    assert "weights_only" not in str(raised.value)  # no advice to switch the protection off

    pickle.loads(pickle.dumps(Trap(sprung)))  # the trap itself works
    assert sprung.exists()


@pytest.mark.parametrize(
    "data",
    [b"\0" * 100, b"PK\x03\x04 cut off", pickle.dumps(os.system, protocol=2)],
    ids=["zeros", "cut zip", "a bare function"],
)
def test_damaged_files_are_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "broken.pth"
    path.write_bytes(data)
    with pytest.raises(BadWeights, match=r"broken\.pth: not loaded, because it is damaged") as raised:
        read_checkpoint(path)
    assert "weights_only" not in str(raised.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty; fetch it again"),
        (b"\n<!DOCTYPE html><html>sign in first</html>", "a web page or a server's answer"),
        (b'{"error": "not found"}', "a web page or a server's answer"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n", "`git lfs pull` fetches that"),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_what_lies_in_a_checkpoints_place_is_named(tmp_path: Path, data: bytes, message: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(BadWeights, match=f"{name}: .*{message}"):
        read_checkpoint(path)


def test_safetensors_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "anything.pth"  # the content counts, not the name
    save_file(TENSORS, path)
    assert read_checkpoint(path)["layer.weight"].tolist() == [0, 1, 2]
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(MissingPackage, match="pip install safetensors"):
        read_checkpoint(path)


def test_without_torch_it_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "w.pth", TENSORS)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackage, match="pip install"):
        read_checkpoint(path)
