"""Converting official files: the same tensors under the same names, a card that says from where, one-line errors."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import fsspec
import pytest
import torch

import trackmill.models.masa
from trackmill.jobs.convert import main
from trackmill.models.masa.variants import recognise
from trackmill.models.weights.read import read_checkpoint


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as official ones are: wrapped, with two tensors in one storage."""
    state = trackmill.models.masa.load("masa_lite0", seed=3).state_dict()
    name = "roi_head.bbox_head.fc_cls.bias"
    state[name] = torch.cat([state[name], state[name] + 1])[: len(state[name])]
    path = tmp_path_factory.mktemp("official") / "lite0_masa.pth"
    torch.save({"meta": {"epoch": 1}, "state_dict": state}, path)
    return path


def test_the_result_loads_and_holds_the_same(
    official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--weights", str(official), "--output", str(tmp_path / "out")]) == 0
    written = tmp_path / "out" / "masa_lite0.safetensors"
    state = torch.load(official, weights_only=True)["state_dict"]
    found = trackmill.models.masa.load("masa_lite0", written).state_dict()
    assert all(torch.equal(found[name], values) for name, values in state.items())
    assert recognise(found) == "masa_lite0"
    digest = hashlib.sha256(official.read_bytes()).hexdigest()
    assert read_checkpoint(written).metadata == {
        "variant": "masa_lite0",
        "compatible_offsets": False,
        "source": "lite0_masa.pth",
        "source_sha256": digest,
    }
    card = (tmp_path / "out" / "README.md").read_text()
    for part in (
        "masa_lite0",
        "`lite0_masa.pth`",
        digest,
        f"| tensors | {len(state)},",
        "Licence",
        "trackmill.models.masa.load(",
    ):
        assert part in card
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "masa_lite0.safetensors"]
    assert str(written) in capsys.readouterr().out
    assert written.stat().st_mode & 0o777 == (tmp_path / "out" / "README.md").stat().st_mode & 0o777


def test_the_same_again_gives_the_same_bytes(official: Path, tmp_path: Path) -> None:
    def run() -> dict[str, bytes]:
        assert main(["--weights", str(official), "--output", str(tmp_path), "--variant", "masa_lite0"]) == 0
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    assert run() == run()


def test_it_reads_and_writes_urls(official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKMILL_CACHE", str(tmp_path / "cache"))
    bucket = f"memory://convert-{os.urandom(4).hex()}"
    memory = fsspec.filesystem("memory")
    memory.pipe_file(f"{bucket}/mine.pth", official.read_bytes())
    assert main(["--weights", f"{bucket}/mine.pth", "--output", f"{bucket}/out"]) == 0
    memory.get_file(f"{bucket}/out/masa_lite0.safetensors", str(tmp_path / "got.safetensors"))
    trackmill.models.masa.load("masa_lite0", tmp_path / "got.safetensors")
    assert b"`mine.pth`" in memory.cat_file(f"{bucket}/out/README.md")


def changed(official: Path, path: Path, **tensors: torch.Tensor) -> Path:
    """The checkpoint with further tensors."""
    torch.save(torch.load(official, weights_only=True)["state_dict"] | tensors, path)
    return path


def test_mistakes_are_told_in_one_line(official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = tmp_path / "odd.pth"
    torch.save({"a": torch.zeros(1)}, odd)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("# Mine\n")
    cases = {
        "no checkpoint at": [tmp_path / "none.pth", tmp_path / "out"],
        "cannot tell the variant": [odd, tmp_path / "out"],
        "1 unexpected: extra": [changed(official, tmp_path / "more.pth", extra=torch.zeros(1)), tmp_path / "out"],
        "look like masa_lite0, not masa_r50": [official, tmp_path / "out", "--variant", "masa_r50"],
        "SHA-256": [official, tmp_path / "out", "--sha256", "0" * 64],
        "somebody else's": [official, mine],
    }
    for said, (weights, output, *more) in cases.items():
        assert main(["--weights", str(weights), "--output", str(output), *more]) == 2
        error = capsys.readouterr().err
        assert said in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert [path.name for path in mine.iterdir()] == ["README.md"]
