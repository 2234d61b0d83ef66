"""Checkpoints apart from any training: which one is found, what is refused, what stays and what goes."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import orjson
import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from trackmill.pipeline.console.exit_codes import ExitCode, exit_code_of
from trackmill.pipeline.storage.documents import document_bytes, read_document
from trackmill.pipeline.storage.scratch import scratch_file
from trackmill.pipeline.training import changes, checkpoint, saved_checkpoint, weight_files
from trackmill.pipeline.training.checkpoint_document import DamagedCheckpoint, NewerCheckpoint
from trackmill.pipeline.training.engines.base import EngineState
from trackmill.pipeline.training.saved_checkpoint import SavedCheckpoint
from trackmill.pipeline.training.weight_files import write_tensors
from trackmill.schemas.config import ConfigError, digest
from trackmill.schemas.errors import StorageError


class FixedEngine:
    """Has a state and nothing else."""

    def __init__(self, parameters: dict[str, Tensor]) -> None:
        moments = {f"{name}/momentum_buffer": -values for name, values in parameters.items()}
        self._state = EngineState(parameters=parameters, moments=moments, numbers={"steps": 3, "loss_scale": 0.1})

    def state(self) -> EngineState:
        return self._state


RECIPE: dict[str, Any] = {"optim.lr": 0.1, "seed": 0}
DATA = {"fingerprint": "a" * 64, "samples": 14}


def write(output: str, step: int, keep: int = 9, averaged: dict[str, Tensor] | None = None) -> str:
    """A checkpoint whose weights say which step it is."""
    engine = FixedEngine({"network.w": torch.full((2, 3), float(step)), "network.n": torch.tensor(step)})
    return checkpoint.save(output, step, engine, averaged, describe(step), keep)


def describe(step: int) -> dict[str, Any]:
    return checkpoint.describe_checkpoint(
        step=step,
        seed=0,
        world=1,
        loader={"batches_done": step},
        recipe=RECIPE,
        digest=digest(RECIPE),
        data=DATA,
        frozen="",
    )


@pytest.fixture(params=["local", "memory"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """The operating system refuses to write more than so many bytes into one file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def change(url: str, data: bytes) -> None:
    with fsspec.open(url, "wb") as handle:
        handle.write(data)


def content(url: str) -> bytes:
    with fsspec.open(url, "rb") as handle:
        return handle.read()


def test_a_disk_without_room_leaves_the_checkpoint_before_and_nothing_half_written(tmp_path: Path) -> None:
    output = str(tmp_path)
    write(output, 4)
    large = {"network.w": torch.rand(1000), "network.v": torch.rand(100_000)}
    document = describe(8)
    with files_up_to(64_000), pytest.raises(StorageError) as caught:
        checkpoint.save(output, 8, FixedEngine(large), None, document, keep=1)
    said = str(caught.value)
    assert (
        f"the checkpoint of step 8 could not be written to {output}/checkpoints/step-00000008 (File too large)" in said
    )
    assert "it takes 808.0 kB, and" in said and "are free there" in said
    assert said.endswith("What was half written is removed; the checkpoint of step 4 is kept")
    assert [path.name for path in (tmp_path / "checkpoints").rglob("*") if path.is_dir()] == ["step-00000004"]
    found = saved_checkpoint.find(output)
    assert found is not None and found.step == 4
    with pytest.MonkeyPatch.context() as patch:  # as on a full disk
        patch.setattr(weight_files, "save_file", refuse)
        with pytest.raises(StorageError, match=r"\(No space left on device\); it takes .*step 4 is kept"):
            write(output, 8)


def test_a_file_of_weights_that_cannot_be_written_says_which(tmp_path: Path) -> None:
    """The result of a run, an export and a converted checkpoint are written so."""
    target = tmp_path / "final" / "model.safetensors"
    with files_up_to(64_000), pytest.raises(OSError, match="File too large") as caught:
        write_tensors(str(target), {"a": torch.zeros(100_000)})
    assert caught.value.filename == str(target) and exit_code_of(caught.value) is ExitCode.STORAGE
    assert list(target.parent.iterdir()) == []


def refuse(*_: Any) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_scratch_of_a_killed_save_is_swept_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    write(str(tmp_path), 4)
    own = scratch_file(str(tmp_path / "checkpoints/step-00000008/model.safetensors"))
    dead = Path(str(own).replace(f"~{os.getpid()}~", "~999999999~"))
    beside = [dead, *(tmp_path / part / dead.name for part in ("checkpoints/step-00000012", "final", "."))]
    for path in beside:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    checkpoint.sweep(str(tmp_path))
    assert [path.exists() for path in (own, *beside)] == [True, False, False, False, False]
    assert not (tmp_path / "checkpoints/step-00000012").exists()
    assert saved_checkpoint.find(str(tmp_path)).step == 4


def test_what_is_saved_is_read_again_to_the_bit(output: str) -> None:
    averaged = {"network.w": torch.rand(2, 3)}
    write(output, 7, averaged=averaged)
    found = saved_checkpoint.find(output)
    assert found is not None
    assert (found.step, found.document.data, found.damaged) == (7, DATA, ())
    state, average = saved_checkpoint.read_state(found)
    assert torch.equal(state.parameters["network.w"], torch.full((2, 3), 7.0))
    assert state.parameters["network.n"].dtype == torch.int64
    assert torch.equal(state.moments["network.w/momentum_buffer"], torch.full((2, 3), -7.0))
    assert state.numbers == {"steps": 3, "loss_scale": 0.1}
    assert average is not None
    assert torch.equal(average["network.w"], averaged["network.w"])
    assert saved_checkpoint.open_checkpoint(found.url).step == saved_checkpoint.open_checkpoint(output).step == 7


def test_nothing_is_found_where_nothing_is(output: str) -> None:
    assert saved_checkpoint.find(output) is None
    assert checkpoint.sweep(output) == []
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*checkpoint\.json"):
        saved_checkpoint.open_checkpoint(output)


def cut(folder: str) -> None:
    change(f"{folder}/model.safetensors", content(f"{folder}/model.safetensors")[:-1])


def flip(folder: str) -> None:
    data = bytearray(content(f"{folder}/optimizer.safetensors"))
    data[-1] ^= 1
    change(f"{folder}/optimizer.safetensors", bytes(data))


def lose(folder: str) -> None:
    fs, path = fsspec.core.url_to_fs(f"{folder}/model.safetensors")
    fs.rm(path)


def scribble(folder: str) -> None:
    change(f"{folder}/checkpoint.json", content(f"{folder}/checkpoint.json")[:40])


def from_the_future(folder: str) -> None:
    document = read_document(f"{folder}/checkpoint.json")
    change(f"{folder}/checkpoint.json", document_bytes({**document, "format": 99, "more": []}))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(cut, "model.safetensors has .* of .* bytes", id="a file is short"),
        pytest.param(flip, "optimizer.safetensors is damaged: its SHA-256", id="a bit has flipped"),
        pytest.param(lose, "model.safetensors has no of", id="a file is gone"),
        pytest.param(scribble, r"checkpoint.json cannot be read", id="the document is cut"),
    ],
)
def test_a_damaged_one_is_named_and_the_one_before_is_used(damage: Any, reason: str, output: str) -> None:
    write(output, 8)
    damage(write(output, 16))
    found = saved_checkpoint.find(output)
    assert found is not None
    assert found.step == 8
    assert len(found.damaged) == 1
    with pytest.raises(DamagedCheckpoint, match=reason):
        saved_checkpoint.open_checkpoint(saved_checkpoint.folder_of(output, 16))


def test_any_flipped_bit_in_any_file_of_a_checkpoint_passes_it_over_for_the_one_before(tmp_path: Path) -> None:
    """Also where the document stays valid JSON and says another step, format, hash, world or number of streams."""
    output, averaged = str(tmp_path), {"network.w": torch.rand(2, 3)}
    write(output, 8)
    folder = Path(write(output, 16, averaged=averaged))
    draw = random.Random(0)
    for name in ("checkpoint.json", "model.safetensors", "optimizer.safetensors", "ema.safetensors"):
        whole = (folder / name).read_bytes()
        for place in range(0, len(whole), 3 if name.endswith(".json") else 40):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << draw.randrange(8)
            (folder / name).write_bytes(flipped)
            found = saved_checkpoint.find(output)
            assert found is not None and found.step == 8, f"{name}, byte {place}: {flipped[place - 9 : place + 9]!r}"
            assert len(found.damaged) == 1 and f"step-00000016/{name}" in found.damaged[0], found.damaged
        (folder / name).write_bytes(whole)
    found = saved_checkpoint.find(output)
    assert found is not None and found.step == 16


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        pytest.param("step", 24, "of another folder: it says step 24", id="the step of another folder"),
        pytest.param("step", "16", "step: Input should be a valid integer", id="a step that is a text"),
        pytest.param("files", {}, "has no model.safetensors", id="no files"),
        pytest.param("world", 0, "world: Input should be greater than 0", id="no ranks"),
        pytest.param("engine", {"steps": 3, "stpes": 3}, "engine.stpes: Extra inputs", id="a key nobody wrote"),
        pytest.param("engine", None, "engine: Input should be", id="no engine"),
    ],
)
def test_a_document_of_an_older_version_has_no_checksum_but_every_key_is_looked_at(
    key: str, value: Any, said: str, tmp_path: Path
) -> None:
    output = str(tmp_path)
    write(output, 8)
    folder = write(output, 16)
    url = f"{folder}/checkpoint.json"
    values = read_document(url)
    change(url, orjson.dumps(values))
    found = saved_checkpoint.find(output)
    assert found is not None and found.step == 16, "as an older version wrote it"
    change(url, orjson.dumps({**values, key: value}))
    found = saved_checkpoint.find(output)
    assert found is not None and found.step == 8
    assert said in found.damaged[0]


def test_a_document_that_is_a_folder_or_a_disk_that_cannot_read_it_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = str(tmp_path)
    for step in (8, 16, 24):
        write(output, step)
    (tmp_path / "checkpoints/step-00000024/model.safetensors").unlink()
    (tmp_path / "checkpoints/step-00000024/model.safetensors").mkdir()
    read = saved_checkpoint.read_bytes

    def bad_sector(url: str, **options: Any) -> bytes:
        if "step-00000016" in url:
            raise OSError(errno.EIO, "Input/output error", url)
        return read(url, **options)

    monkeypatch.setattr(saved_checkpoint, "read_bytes", bad_sector)
    found = saved_checkpoint.find(output)
    assert found is not None and found.step == 8
    assert [text.rsplit("/", 1)[-1][:13] for text in found.damaged] == ["model.safeten", "model.safeten"]


def test_old_checkpoints_that_cannot_be_removed_cost_the_new_one_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = str(tmp_path)
    write(output, 8)

    def refuse_to_remove(url: str) -> None:
        if "step-00000008" in url:
            raise PermissionError(errno.EACCES, "Permission denied", url)

    monkeypatch.setattr(checkpoint, "remove", refuse_to_remove)
    with pytest.raises(PermissionError):
        write(output, 16, keep=1)
    found = saved_checkpoint.find(output)
    assert found is not None and found.step == 16


def test_what_a_newer_version_wrote_is_neither_passed_over_nor_removed(output: str) -> None:
    write(output, 8)
    newer = write(output, 16)
    from_the_future(newer)
    for look in (saved_checkpoint.find, saved_checkpoint.open_checkpoint):
        with pytest.raises(NewerCheckpoint, match=r"step-00000016 was written by a newer version .*format 99.*another"):
            look(output)
    assert saved_checkpoint.open_checkpoint(saved_checkpoint.folder_of(output, 8)).step == 8
    change(f"{newer}/weights.bin", b"of a kind that is not known here")
    for step in (20, 24, 28):
        write(output, step, keep=1)
    checkpoint.sweep(output)
    assert content(f"{newer}/weights.bin")
    with pytest.raises(NewerCheckpoint, match="left alone"):
        write(output, 16)
    fs, path = fsspec.core.url_to_fs(f"{newer}/checkpoint.json")
    fs.rm(path)
    checkpoint.sweep(output)
    assert content(f"{newer}/weights.bin"), "half written by somebody else: not ours to sweep"


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_anew_by_itself(output: str) -> None:
    flip(write(output, 8))
    with pytest.raises(DamagedCheckpoint, match=r"no checkpoint of .* is whole"):
        saved_checkpoint.find(output)
    assert saved_checkpoint.find(output, thorough=False) is not None, "a quick look reads no file"


def test_what_was_not_finished_does_not_count_and_is_swept(output: str) -> None:
    write(output, 8)
    half = write(output, 16)
    fs, path = fsspec.core.url_to_fs(f"{half}/checkpoint.json")
    fs.rm(path)
    found = saved_checkpoint.find(output)
    assert found is not None
    assert (found.step, found.damaged) == (8, ())
    assert [folder.rsplit("/", 1)[1] for folder in checkpoint.sweep(output)] == ["step-00000016"]
    assert checkpoint.sweep(output) == []
    assert saved_checkpoint.find(output) == found


def test_the_newest_stay(output: str) -> None:
    for step in (5, 10, 99_999_999, 100_000_000):
        write(output, step, keep=2)
    kept = [step for step in (5, 10, 99_999_999, 100_000_000) if _is_there(output, step)]
    assert kept == [99_999_999, 100_000_000]
    assert saved_checkpoint.find(output).step == 100_000_000  # type: ignore[union-attr]
    # A run that was set back writes earlier steps again, beside later ones that stay.
    write(output, 10, keep=2)
    assert _is_there(output, 100_000_000)


def test_the_same_step_again_replaces_what_was_there(output: str) -> None:
    flip(write(output, 8))
    write(output, 8)
    assert saved_checkpoint.find(output).damaged == ()  # type: ignore[union-attr]


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = write(str(tmp_path / "a"), 8), write(str(tmp_path / "b"), 8)
    for name in ("model.safetensors", "optimizer.safetensors", "checkpoint.json"):
        assert Path(first, name).read_bytes() == Path(second, name).read_bytes()


def test_tied_weights_are_stored_under_both_names(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    write_tensors(str(tmp_path / "t.safetensors"), {"a": shared, "b": shared, "c": shared[2:4]})
    found = saved_checkpoint.load((tmp_path / "t.safetensors").read_bytes())
    assert torch.equal(found["a"], shared)
    assert torch.equal(found["b"], shared)
    assert torch.equal(found["c"], torch.tensor([2.0, 3.0]))


def test_another_recipe_or_other_data_is_refused(output: str) -> None:
    write(output, 8)
    found = saved_checkpoint.find(output)
    assert isinstance(found, SavedCheckpoint)
    changes.check_fits(found, RECIPE, digest(RECIPE), DATA)
    other = {"optim.lr": 0.2, "seed": 0, "loss.new": True}
    with pytest.raises(ConfigError, match=r"loss\.new was 'not set', now True; optim\.lr was 0\.1, now 0\.2\. Give"):
        changes.check_fits(found, other, digest(other), DATA)
    with pytest.raises(ConfigError, match=r"other data: .*samples was 14, now 15"):
        changes.check_fits(found, RECIPE, digest(RECIPE), {**DATA, "samples": 15})


def test_changes_that_are_allowed_are_recorded_and_all_others_refused(output: str) -> None:
    write(output, 8)
    found = saved_checkpoint.find(output)
    assert found is not None
    other = {"optim.lr": 0.2, "seed": 1}
    data = {**DATA, "samples": 15}
    with pytest.raises(ConfigError, match=r"seed was 0, now 1\. .*add --allow-changed seed, which"):
        changes.check_fits(found, other, digest(other), DATA, ["optim"])
    with pytest.raises(ConfigError, match=r"--allow-changed optim\.rl: did you mean 'optim\.lr'"):
        changes.check_fits(found, other, digest(other), DATA, ["optim.rl"])
    with pytest.raises(ConfigError, match="add --allow-changed data, which"):
        changes.check_fits(found, RECIPE, digest(RECIPE), data)
    done = changes.check_fits(found, other, digest(other), data, ["optim.lr", "seed", "data"])
    assert changes.history_of(found, done) == [
        {"step": 8, "key": "optim.lr", "before": 0.1, "now": 0.2},
        {"step": 8, "key": "seed", "before": 0, "now": 1},
        {"step": 8, "key": "samples", "before": 14, "now": 15},
    ]


def test_frozen_weights_are_told_apart() -> None:
    def part(seed: int, frozen: bool) -> nn.Module:
        torch.manual_seed(seed)
        layer = nn.Linear(2, 2)
        return layer.requires_grad_(not frozen)

    assert checkpoint.frozen_digest(part(0, False)) == ""
    assert checkpoint.frozen_digest(part(0, True)) == checkpoint.frozen_digest(part(0, True))
    assert checkpoint.frozen_digest(part(0, True)) != checkpoint.frozen_digest(part(1, True))


def _is_there(output: str, step: int) -> bool:
    fs, path = fsspec.core.url_to_fs(saved_checkpoint.folder_of(output, step))
    return bool(fs.exists(path))
