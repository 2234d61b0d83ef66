"""A ScaleTrack is exported with all that it needs to load by its name; what there is not of it is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from safetensors.torch import save_file  # noqa: E402

from trackmill.jobs import convert, export  # noqa: E402
from trackmill.models import scaletrack  # noqa: E402
from trackmill.models.backbones.multilevel import BACKBONES  # noqa: E402
from trackmill.models.scaletrack.metadata import metadata_of  # noqa: E402
from trackmill.models.scaletrack.variants import VARIANTS  # noqa: E402
from trackmill.pipeline.export.licences import BACKBONE_LICENCES  # noqa: E402

VARIANT = replace(VARIANTS["scaletrack_lite0"], side=96, window=2, decoder_layers=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    save_file(dict(scaletrack.load(VARIANT).state_dict()), path, metadata_of(VARIANT, step="3"))
    return path


def test_an_export_loads_by_its_name(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export.main(["--weights", str(weights), "--output", str(out)]) == 0
    found = scaletrack.load("scaletrack_lite0", out / "scaletrack_lite0.safetensors")
    assert found.variant == VARIANT
    expected = scaletrack.load("scaletrack_lite0", weights).state_dict()
    assert all(torch.equal(values, expected[name]) for name, values in found.state_dict().items())
    card = (out / "README.md").read_text()
    for words in (
        "# scaletrack_lite0",
        "ScaleTrack (",
        'trackmill.models.scaletrack.load("scaletrack_lite0", "scaletrack_lite0.safetensors")',
        "| remembers | 2 earlier frames |",
        "EfficientNet-Lite0 inside is Google's",
    ):
        assert words in card, words


def test_what_there_is_not_is_one_line(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert export.main(["--weights", str(weights), "--output", str(out), "--onnx"]) == 2
    assert "--onnx: scaletrack_lite0 remembers earlier frames, and there is no graph" in capsys.readouterr().err
    assert convert.main(["--weights", str(weights), "--output", str(out)]) == 2
    assert "scaletrack_lite0 has no official checkpoints to convert" in capsys.readouterr().err
    assert not list(out.glob("*"))


def test_the_licence_of_every_backbone_is_known() -> None:
    assert set(BACKBONES) <= set(BACKBONE_LICENCES)
