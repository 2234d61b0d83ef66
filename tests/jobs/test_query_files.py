"""Published files of trackers and detectors by query become files of ours; ours are exported. Small networks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torchvision.models.resnet import Bottleneck, ResNet  # noqa: E402

from tests.ipmot.drawn import SMALL, small_model  # noqa: E402
from trackmill.jobs import convert, export  # noqa: E402
from trackmill.models.backbones.multilevel import BACKBONES, MultiLevelBackbone  # noqa: E402
from trackmill.models.backbones.resnet import FrozenBatchNorm, FrozenResNet  # noqa: E402
from trackmill.models.ipmot.detector import DeformableDetr  # noqa: E402
from trackmill.models.ipmot.detector_loading import load_detector  # noqa: E402
from trackmill.models.ipmot.loading import load_model  # noqa: E402
from trackmill.models.ipmot.metadata import metadata_of  # noqa: E402
from trackmill.models.ipmot.model import IpMot  # noqa: E402
from trackmill.models.ipmot.sizes import DetectorSizes  # noqa: E402
from trackmill.models.ipmot.variants import VARIANTS  # noqa: E402
from trackmill.pipeline.export.query_files import NAMES  # noqa: E402


class ThinResNet(FrozenResNet):
    """A ResNet-50 whose blocks are a sixteenth as wide inside: the same names, a tenth of the numbers."""

    def __init__(self) -> None:
        ResNet.__init__(self, Bottleneck, [3, 4, 6, 3], norm_layer=FrozenBatchNorm, width_per_group=4)
        del self.avgpool, self.fc


def thin() -> MultiLevelBackbone:
    return MultiLevelBackbone("resnet50", ThinResNet(), channels=(512, 1024, 2048), strides=(8, 16, 32))


@pytest.fixture(autouse=True)
def thin_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "resnet50", thin)


SIZES = DetectorSizes(hidden=32, encoder_layers=1, decoder_layers=2, feedforward=16, queries=5, classes=91)


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    expected = other.state_dict()
    return all(torch.equal(each, expected[name]) for name, each in one.state_dict().items())


def test_a_detector_of_coco(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detector = DeformableDetr(SIZES)
    tensors = dict(detector.state_dict())
    copies = {f"transformer.decoder.{name}": each for name, each in tensors.items() if name.startswith("bbox_embed.")}
    torch.save({"model": tensors | copies}, tmp_path / "coco.pth")
    assert convert.main(["--weights", str(tmp_path / "coco.pth"), "--output", str(tmp_path / "out")]) == 0
    written = tmp_path / "out" / "dab-deformable-detr.safetensors"
    assert equal(load_detector(written), detector)
    with safe_open(written, "pt") as file:
        assert set(file.keys()) == set(tensors), "the heads are there once"
        assert json.loads(file.metadata()["trackmill"])["source"] == "coco.pth"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "--detections dab-deformable-detr:dab-deformable-detr.safetensors" in card and "| classes | 91 |" in card
    capsys.readouterr()
    line = ["--weights", str(tmp_path / "coco.pth"), "--output", str(tmp_path / "no"), "--model"]
    assert convert.main([*line, "deformable-detr"]) == 2
    assert "is dab-deformable-detr, not deformable-detr" in capsys.readouterr().err
    assert convert.main([*line, "memotr"]) == 2
    assert "is no MeMOTR" in capsys.readouterr().err


def test_a_tracker_of_memotr(tmp_path: Path) -> None:
    large = VARIANTS["memotr"]
    small = replace(large, detector=replace(SIZES, classes=1, conventions="memotr", separate_first_layers=1))
    names = {
        "detector.backbone.0.body.": "backbone.backbone.backbone.",
        "detector.input_proj.": "feature_projs.",
        "detector.tgt_embed.weight": "det_query_embed",
        "detector.refpoint_embed.weight": "det_anchor",
        "query_update.": "query_updater.",
        "detector.": "",
    }
    tensors = {}
    with mock.patch.dict(VARIANTS, memotr=small):
        tracker = IpMot(small)
        for name, each in tracker.state_dict().items():
            old = next(beginning for beginning in names if name.startswith(beginning))
            tensors[names[old] + name.removeprefix(old)] = each
        torch.save({"model": tensors}, tmp_path / "memotr.pth")
        assert convert.main(["--weights", str(tmp_path / "memotr.pth"), "--output", str(tmp_path / "out")]) == 0
    # The file says its sizes itself.
    assert equal(load_model("memotr", tmp_path / "out" / "memotr.safetensors"), tracker)


def test_an_export_loads_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_model()
    save_file(model.state_dict(), tmp_path / "mine.safetensors", metadata_of(SMALL, step="3"))
    line = ["--weights", str(tmp_path / "mine.safetensors"), "--output", str(tmp_path / "out")]
    assert export.main(line) == 0
    found = load_model("ip_mot_tiny", tmp_path / "out" / "ip_mot_tiny.safetensors")
    assert found.variant == SMALL and equal(found, model)
    card = (tmp_path / "out" / "README.md").read_text()
    for words in (
        'VideoTracker("ip_mot_tiny", weights="ip_mot_tiny.safetensors")',
        "one ends after 2 frames without being seen",
        "DAB-Deformable-DETR, 12 queries, conventions of coco",
        "MobileNetV2 inside is of the package",
    ):
        assert words in card, words
    capsys.readouterr()
    assert export.main([*line, "--onnx"]) == 2
    assert "--onnx: ip_mot_tiny remembers earlier frames, and there is no graph" in capsys.readouterr().err
    assert convert.main([*line[:3], str(tmp_path / "no")]) == 2
    assert "ip_mot_tiny has no official checkpoints to convert" in capsys.readouterr().err


def test_help_names_what_is_converted() -> None:
    assert convert.QUERY_FILES == NAMES
