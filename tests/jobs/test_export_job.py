"""Exporting: a run's result or any of its checkpoints, with a card that says where it comes from; one-line errors."""

from __future__ import annotations

import json
import os
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

import trackmill.models.masa
from tests.make_dataset import make_dataset
from trackmill.jobs.export import main
from trackmill.models.masa.model import Masa
from trackmill.models.weights.read import read_checkpoint

pytest.importorskip("albumentations", reason='needs pip install -e ".[train]"')

SECRET = "token-in-a-query"


@pytest.fixture(scope="module", autouse=True)
def offline() -> None:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """masa_lite0 trained for three steps, with checkpoints of steps 2 and 3."""
    from trackmill.jobs import train

    root = tmp_path_factory.mktemp("export")
    make_dataset(str(root / "data"), num_images=5)
    arguments = ["--recipe", "masa_lite0", "--data", str(root / "data"), "--output", str(root / "run")]
    arguments += ["--launcher", "local", "--device", "cpu", "--max-steps", "3", "--checkpoint-every", "2"]
    # Fresh weights but for what is frozen: nothing that a package would have to bring.
    for setting in ("model.weights=''", "data.batch_size=2", "data.workers=0", "views.size=64", "ema.decay=0.5"):
        arguments += ["--set", setting]
    assert train.main([*arguments, "--set", "telemetry.tensorboard=false"]) == 0
    return root / "run"


def exported(*arguments: str, output: Path) -> dict[str, torch.Tensor]:
    """The tensors that an export writes."""
    assert main([*arguments, "--output", str(output)]) == 0
    return trackmill.models.masa.load("masa_lite0", output / "masa_lite0.safetensors").state_dict()


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether all tensors are the same."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_is_exported_from_its_result_and_from_its_checkpoints(run: Path, tmp_path: Path) -> None:
    result = trackmill.models.masa.load("masa_lite0", run / "final" / "model.safetensors").state_dict()
    final = exported("--run", str(run), output=tmp_path / "final")
    latest = exported("--run", str(run), "--checkpoint", "latest", output=tmp_path / "latest")
    second = exported("--run", str(run), "--checkpoint", "2", output=tmp_path / "second")
    assert equal(final, result)
    assert equal(latest, result), "the checkpoint lacks what is frozen, which is built anew"
    changed = {name for name in final if not torch.equal(final[name], second[name])}
    assert changed and all(name.startswith("track_head.") for name in changed)


def test_the_file_and_the_card_say_where_they_come_from(run: Path, tmp_path: Path) -> None:
    exported("--run", str(run), "--checkpoint", "2", output=tmp_path)
    printed = json.loads((run / "checkpoints" / "step-00000002" / "checkpoint.json").read_text())
    metadata = read_checkpoint(tmp_path / "masa_lite0.safetensors").metadata
    assert metadata["variant"] == "masa_lite0" and metadata["step"] == "2" and metadata["recipe"] == "masa_lite0"
    assert metadata["data_fingerprint"] == printed["data"]["fingerprint"]
    assert metadata["source_sha256"] == printed["files"]["ema.safetensors"]["sha256"], "averaged weights win"
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[1])
    card = (tmp_path / "README.md").read_text()
    for part in (
        'trackmill.models.masa.load("masa_lite0", "masa_lite0.safetensors")',
        f"| its fingerprint | {printed['data']['fingerprint']} |",
        "| steps | 2 |",
        "| samples seen | 4 |",
        "| weights are averaged | yes |",
        "| backbone | 2,958,848 | 0 |",
        "| track\\_head | 223,262 | 223,262 |",
        "| optim.name | adamw |",
        f"| loss | {row['loss']:.6g} |",
        "| CC BY 4.0 | 5 |",
    ):
        assert part in card, part
    assert "## ONNX" not in card


def test_the_same_again_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    def files() -> dict[str, bytes]:
        exported("--run", str(run), output=tmp_path)
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    first = files()
    assert sorted(first) == ["README.md", "masa_lite0.safetensors"]
    assert files() == first


def test_a_run_and_its_export_may_lie_behind_urls(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKMILL_CACHE", str(tmp_path / "cache"))
    bucket = f"memory://export-{os.urandom(4).hex()}"
    memory = fsspec.filesystem("memory")
    memory.put(str(run), f"{bucket}/run", recursive=True)
    for which in ("final", "3"):
        assert main(["--run", f"{bucket}/run", "--checkpoint", which, "--output", f"{bucket}/{which}"]) == 0
        local = tmp_path / f"{which}.safetensors"
        memory.get_file(f"{bucket}/{which}/masa_lite0.safetensors", str(local))
        result = trackmill.models.masa.load("masa_lite0", run / "final" / "model.safetensors").state_dict()
        assert equal(trackmill.models.masa.load("masa_lite0", local).state_dict(), result)
        assert b"## Training" in memory.cat_file(f"{bucket}/{which}/README.md")


@pytest.mark.slow
def test_any_checkpoint_becomes_a_graph_that_was_checked(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason='needs pip install -e ".[export]"')
    pytest.importorskip("onnxscript", reason='needs pip install -e ".[export]"')
    weights = run / "final" / "model.safetensors"
    size = ["--onnx", "--height", "70", "--width", "90"]
    model = trackmill.models.masa.load("masa_lite0", weights)
    exported("--weights", str(weights), *size, output=tmp_path)
    assert "the graph differs from PyTorch by" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(tmp_path / "masa_lite0.onnx"), providers=["CPUExecutionProvider"])
    images = torch.rand(1, 3, 70, 90, generator=torch.Generator().manual_seed(2)) * 255
    boxes = torch.tensor([[3.0, 4.0, 50.0, 60.0], [-20.0, 10.0, 30.0, 100.0]])
    given = {"images": images.numpy(), "boxes": boxes.numpy(), "box_images": np.zeros(2, np.int64)}
    right = model.embed(images, [boxes])[0].numpy()
    np.testing.assert_allclose(session.run(None, given)[0], right, atol=1e-4)
    card = (tmp_path / "README.md").read_text()
    assert "H = 70 and W = 90 only" in card and "## Training" not in card
    assert "| exported from | model.safetensors |" in card


def test_a_graph_that_is_wrong_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A graph of the right shapes whose numbers are not the model's."""
    onnx = pytest.importorskip("onnx", reason='needs pip install -e ".[export]"')
    pytest.importorskip("onnxruntime", reason='needs pip install -e ".[export]"')
    from onnx import TensorProto, helper

    def zeros(model: Masa, size: tuple[int, int] | None) -> onnx.ModelProto:
        """A graph with the right shapes: every value is 0."""
        width = helper.make_tensor("width", TensorProto.INT64, [1], [model.variant.embed_channels])
        nodes = [
            helper.make_node("Shape", ["box_images"], ["count"]),
            helper.make_node("Concat", ["count", "width"], ["shape"], axis=0),
            helper.make_node("ConstantOfShape", ["shape"], ["embeddings"]),
        ]
        value = helper.make_tensor_value_info
        taken = [
            value("images", TensorProto.FLOAT, ["b", 3, "h", "w"]),
            value("boxes", TensorProto.FLOAT, ["n", 4]),
            value("box_images", TensorProto.INT64, ["n"]),
        ]
        given = [value("embeddings", TensorProto.FLOAT, ["n", "d"])]
        graph = helper.make_graph(nodes, "zeros", taken, given, [width])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    monkeypatch.setattr("trackmill.models.masa.onnx.to_onnx", zeros)
    weights = str(run / "final" / "model.safetensors")
    assert main(["--weights", weights, "--onnx", "--output", str(tmp_path / "out")]) == 1
    assert "the ONNX graph differs from the model by" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_mistakes_are_told_in_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("# Mine\n")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_bytes((run / "config.json").read_bytes())
    final = str(run / "final" / "model.safetensors")
    out = str(tmp_path / "out")
    cases = {
        "is no training run": ["--run", str(tmp_path / "none"), "--output", out],
        "has no result yet; to export a run that is not finished": ["--run", str(unfinished), "--output", out],
        "no checkpoint at": ["--run", str(unfinished), "--checkpoint", "latest", "--output", out],
        "has no checkpoint of step 7": ["--run", str(run), "--checkpoint", "7", "--output", out],
        "should be final, latest or the number": ["--run", str(run), "--checkpoint", "best", "--output", out],
        "somebody else's": ["--run", str(run), "--output", str(mine)],
        "--height and --width together": ["--run", str(run), "--onnx", "--height", "64", "--output", out],
        "add --onnx": ["--run", str(run), "--height", "64", "--width", "64", "--output", out],
        "a run knows its own": ["--run", str(run), "--model", "masa_lite0", "--output", out],
        "--weights is one file": ["--weights", final, "--checkpoint", "latest", "--output", out],
        "did you mean 'masa_lite0'": ["--weights", final, "--model", "masa_lite", "--output", out],
        "look like masa_lite0, not masa_r50": ["--weights", final, "--model", "masa_r50", "--output", out],
        "user name or password": ["--run", f"s3://me:{SECRET}@bucket/run", "--output", out],
    }
    for said, arguments in cases.items():
        assert main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert said in error and error.startswith("error: ") and error.count("\n") == 1, (said, error)
        assert SECRET not in error
    assert not (tmp_path / "out").exists()
    assert [path.name for path in mine.iterdir()] == ["README.md"]
