"""Checkpoints: fetched whole or not at all, the right file or none, and never run."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import fsspec
import pytest

from trackmill.pipeline.storage import fetched as weights
from trackmill.pipeline.storage.fetched import BadWeights, Weights, fetch_weights, load_state_dict

torch = pytest.importorskip("torch")

DATA = b"not really a checkpoint " * 1000


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("TRACKMILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def remote() -> str:
    """A checkpoint on a remote file system."""
    url = f"memory://weights-{os.urandom(4).hex()}/mine.pth"
    fsspec.filesystem("memory").pipe_file(url, DATA)
    return url


def cached(cache: Path) -> list[str]:
    """Names in the cache, without the locks."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def saved(path: Path, content: Any) -> Weights:
    """`content` as torch saves it, fetched."""
    torch.save(content, path)
    return fetch_weights(str(path))


def test_a_local_file_is_used_where_it_lies(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(DATA)
    found = fetch_weights(str(path))
    assert found == Weights(path=path, name="mine.pth", sha256=hashlib.sha256(DATA).hexdigest())
    assert found.name == "mine.pth"
    assert not cache.exists()


def test_a_remote_file_is_fetched_once(cache: Path, remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fetch_weights(remote)
    assert first.path.read_bytes() == DATA and first.name == "mine.pth"
    assert first.sha256 == hashlib.sha256(DATA).hexdigest()
    monkeypatch.setattr(weights, "_download", None)  # a second download would fail
    assert fetch_weights(remote) == first
    assert cached(cache) == [first.path.name]


def test_a_remote_file_that_was_replaced_is_fetched_again(cache: Path, remote: str) -> None:
    first = fetch_weights(remote)
    changed = DATA[::-1]  # trained again: another file of the same size
    fsspec.filesystem("memory").pipe_file(remote, changed)
    second = fetch_weights(remote)
    assert second.sha256 == hashlib.sha256(changed).hexdigest() != first.sha256


def test_a_download_that_breaks_is_tried_again(cache: Path, remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fs = fsspec.filesystem("memory")
    get_file, calls = fs.get_file, []
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    def flaky(source: str, target: str) -> None:
        calls.append(target)
        if len(calls) == 1:
            raise ConnectionError("reset by peer")
        get_file(source, target)
        if len(calls) == 2:
            os.truncate(target, 100)  # ended early without an error

    monkeypatch.setattr(fs, "get_file", flaky)
    assert fetch_weights(remote).path.read_bytes() == DATA
    assert len(calls) == 3


def test_a_failed_download_leaves_nothing(cache: Path, remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(fsspec.filesystem("memory"), "get_file", lambda source, target: Path(target).write_bytes(b"x"))
    with pytest.raises(OSError, match=f"1 of {len(DATA)} bytes arrived"):
        fetch_weights(remote)
    assert cached(cache) == []


def test_a_missing_file_is_named(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.pth"):
        fetch_weights(str(tmp_path / "gone.pth"))
    with pytest.raises(FileNotFoundError):
        fetch_weights("memory://nowhere/gone.pth")


@pytest.mark.parametrize(
    "name",
    [
        "sam_vit_h_4b8939.pth",  # the full sum is known
        "sam_vit_b_ffffff.pth",  # only the six digits in the name are
    ],
)
def test_an_official_name_promises_an_md5(tmp_path: Path, cache: Path, name: str) -> None:
    (tmp_path / name).write_bytes(DATA)
    with pytest.raises(BadWeights, match=f"MD5 is .*{name} has .*damaged or was renamed"):
        fetch_weights(str(tmp_path / name))

    url = f"memory://official/{name}"
    fsspec.filesystem("memory").pipe_file(url, DATA)
    with pytest.raises(BadWeights, match="fetch it again"):
        fetch_weights(url)
    assert cached(cache) == []


def test_an_md5_that_is_kept(tmp_path: Path) -> None:
    path = tmp_path / f"sam_vit_b_{hashlib.md5(DATA).hexdigest()[:6]}.pth"
    path.write_bytes(DATA)
    assert fetch_weights(str(path)).name == path.name


def test_workers_must_have_the_drivers_file(tmp_path: Path, cache: Path, remote: str) -> None:
    planned = fetch_weights(remote).sha256
    assert fetch_weights(remote, planned).sha256 == planned
    path = tmp_path / "mine.pth"
    path.write_bytes(DATA + b"!")
    with pytest.raises(BadWeights, match=f"planned with {planned}"):
        fetch_weights(str(path), planned)


@pytest.mark.parametrize("wrapper", ["", "model", "state_dict"])
def test_state_dicts_are_unwrapped(tmp_path: Path, wrapper: str) -> None:
    tensors = {"a.weight": torch.arange(3.0), "a.bias": torch.zeros(1)}
    loaded = load_state_dict(saved(tmp_path / "w.pth", {wrapper: tensors, "epoch": 3} if wrapper else tensors))
    assert list(loaded) == list(tensors) and (loaded["a.weight"] == tensors["a.weight"]).all()


@pytest.mark.parametrize("content", [torch.zeros(3), {}, {"a": torch.zeros(1), "epoch": 3}])
def test_anything_but_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(BadWeights, match=r"state dict|no tensors"):
        load_state_dict(saved(tmp_path / "w.pth", content))


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_checkpoint_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    sprung, path = tmp_path / "sprung", tmp_path / "trap.pth"
    if how == "torch":
        torch.save({"model": Trap(sprung)}, path)
    else:
        path.write_bytes(pickle.dumps(Trap(sprung), protocol=2))
    with pytest.raises(BadWeights, match="more than tensors") as raised:
        load_state_dict(fetch_weights(str(path)))
    assert not sprung.exists()
    assert "weights_only" not in str(raised.value)  # no advice to switch the protection off

    pickle.loads(pickle.dumps(Trap(sprung)))  # the trap itself works
    assert sprung.exists()


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 100, b"PK\x03\x04 cut off", pickle.dumps(os.system, protocol=2)],
    ids=["empty", "zeros", "cut zip", "a bare function"],
)
def test_damaged_files_are_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "broken.pth"
    path.write_bytes(data)
    with pytest.raises(BadWeights, match=r"broken\.pth: not loaded, because it is damaged") as raised:
        load_state_dict(fetch_weights(str(path)))
    assert "weights_only" not in str(raised.value)


def test_safetensors_where_installed(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    try:
        from safetensors.torch import save_file
    except ImportError:
        path.write_bytes(DATA)
        with pytest.raises(RuntimeError, match="pip install safetensors"):
            load_state_dict(fetch_weights(str(path)))
        return
    save_file({"a": torch.ones(2)}, path)
    assert load_state_dict(fetch_weights(str(path)))["a"].tolist() == [1, 1]
