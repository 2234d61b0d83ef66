"""What every entry of the registry must offer; a new model, detector or proposer needs no line here."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from trackmill.models.choice import Entry  # noqa: E402
from trackmill.models.outside import choose, import_object, is_outside  # noqa: E402
from trackmill.models.registry import (  # noqa: E402
    DETECTORS,
    MODELS,
    PROPOSERS,
    find_detector,
    find_model,
    names_detector,
    proposer_class,
    recognise,
)
from trackmill.models.weights.checkpoint import Checkpoint  # noqa: E402
from trackmill.models.weights.metadata import from_header  # noqa: E402
from trackmill.schemas.config import Settings, build  # noqa: E402
from trackmill.schemas.errors import InputError  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TABLES = {"model": MODELS, "detector": DETECTORS, "proposer": PROPOSERS}
EVERY = {f"{what}-{name}": entry for what, table in TABLES.items() for name, entry in table.items()}
SMALL = "fasterrcnn_mobilenet_v3_large_320_fpn"
ON_A_LAPTOP = ("masa_lite0", "masa_r50", "scaletrack_lite0")
"""Models that take no more than a second or two to build."""


@pytest.mark.parametrize("entry", EVERY.values(), ids=EVERY)
def test_an_entry_offers_what_the_registry_asks_for(entry: Entry) -> None:
    offer = entry.load()
    assert callable(offer.build) and callable(offer.recognise)
    assert issubclass(offer.Config, Settings)
    named = {entry.argument: "x"} if entry.argument_is_folder else {}
    config = build(offer.Config, {**entry.options, **named}, "options")
    for settings in entry.words.values():
        assert build(offer.Config, {**entry.options, **settings}, "words") != config
    assert not entry.argument or entry.argument_is_weights or entry.argument in offer.Config.model_fields
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert entry.extra in ("", *extras)
    assert 0 < len(entry.summary) < 80 and not entry.summary.endswith(".")
    assert offer.recognise({}) is None and offer.recognise({"a.weight": torch.zeros(2)}) is None


def shapes(name: str) -> Mapping[str, torch.Tensor]:
    """A model's tensors without their numbers, as a file of ours has them: ViT-H alone has 2.5 GB."""
    variant = find_model(name).config.variant
    with torch.device("meta"):
        if name.startswith("scaletrack"):
            return scaletrack_shapes(variant)
        if MODELS[name].end_to_end:
            from trackmill.models.ipmot.model import IpMot
            from trackmill.models.ipmot.variants import VARIANTS as TRACKERS

            return IpMot(TRACKERS[variant]).state_dict()
        from trackmill.models.masa.model import Masa
        from trackmill.models.masa.variants import VARIANTS

        tensors: Mapping[str, torch.Tensor] = Masa(VARIANTS[variant]).state_dict()
    return tensors


def scaletrack_shapes(variant: str) -> Checkpoint:
    """Two variants have the same tensors, on backbones of different files: what the header says tells them apart."""
    from trackmill.models.scaletrack.metadata import metadata_of
    from trackmill.models.scaletrack.model import ScaleTrack
    from trackmill.models.scaletrack.variants import VARIANTS

    header = from_header(metadata_of(VARIANTS[variant]), variant)
    return Checkpoint(tensors=ScaleTrack(VARIANTS[variant]).state_dict(), metadata=header)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_recognises_its_own_tensors(name: str) -> None:
    assert recognise(shapes(name)) == name
    longer, shorter = find_model(name).frame_size()
    assert 192 <= shorter <= longer <= 2048


def test_tensors_of_others_are_not_recognised() -> None:
    sam = {"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768)}
    detector = find_detector(f"torchvision:{SMALL}").build()
    assert recognise({}) is None and recognise(sam) is None and recognise(detector._model.state_dict()) is None
    assert proposer_class("sam").recognise(sam) == "sam"
    assert proposer_class("sam").recognise(shapes("masa_sam_vitb")) is None
    assert proposer_class("graph").recognise(sam) is None


@pytest.mark.parametrize("name", ON_A_LAPTOP)
def test_a_model_is_built_and_takes_its_own_tensors(name: str) -> None:
    choice = find_model(name, {"seed": 1})
    network = choice.build()
    assert not network.training
    again = find_model(name).build(network.state_dict(), "cpu")
    with torch.inference_mode():
        assert torch.equal(embedded(network), embedded(again))
    with pytest.raises(ValueError, match="2 with NaN or infinity"):
        odd = {name: each.clone() for name, each in network.state_dict().items()}
        for place in list(odd)[:2]:
            odd[place].view(-1)[0] = torch.nan
        choice.build(odd)


def test_a_tracker_is_built_and_takes_its_own_tensors() -> None:
    choice = find_model("ip_mot_tiny", {"seed": 1, "miss_tolerance": 7})
    tracker = choice.build()
    assert not tracker.network.training and tracker.stream.settings.miss_tolerance == 7
    tensors = tracker.network.state_dict()
    again = find_model("ip_mot_tiny").build(tensors, "cpu")
    assert all(torch.equal(each, tensors[name]) for name, each in again.network.state_dict().items())
    assert again.stream.settings.miss_tolerance == again.network.variant.miss_tolerance
    with pytest.raises(ValueError, match="1 missing: query_update"):
        choice.build({name: each for name, each in tensors.items() if name != "query_update.norm1.weight"})


def embedded(network: Any) -> torch.Tensor:
    """A box in a black picture."""
    boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0]])
    if hasattr(network, "embedder"):
        black = np.zeros((64, 64, 3), np.uint8)
        return torch.from_numpy(network.embedder().embed([black], [boxes.numpy()])[0])
    rows: torch.Tensor = network.embed(torch.zeros(1, 3, 64, 64), [boxes])[0]
    return rows


def test_detectors_are_built() -> None:
    from trackmill.models.detectors.base import Detector
    from trackmill.models.detectors.frame_scaling import FrameScaling

    image = np.zeros((60, 80, 3), np.uint8)
    detector = find_detector(f"torchvision:{SMALL}", {"names": ["nothing", "thing"], "min_size": 64}).build()
    assert isinstance(detector, Detector) and detector.names == ("nothing", "thing")
    assert len(detector.detect([image])) == 1
    model = find_model("masa_lite0")
    features = model.offer.features(model.build(), FrameScaling(long_side=128, short_side=128), "cpu")
    choice = find_detector("masa", {"max_boxes": 5, "min_score": 0})
    assert choice.entry.on_features
    (found,) = choice.build(features=features).detect([image])
    assert 0 < len(found) <= 5
    with pytest.raises(InputError, match="no weights of its own"):
        choice.build({"a": torch.zeros(1)}, features=features)


def test_default_weights_are_the_published_ones() -> None:
    assert find_detector(f"torchvision:{SMALL}").default_weights().endswith(".pth")
    assert find_model("masa_r50").default_weights() == ""


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: find_model("masa-r50"), "no model is called 'masa-r50'; did you mean 'masa_r50'"),
        (lambda: find_model("x"), "known: masa_r50, masa_sam_vitb, .*your own: my_package"),
        (lambda: find_model("masa_r50", {"sed": 1}), "model masa_r50: unknown key 'sed'; did you mean 'seed'"),
        (lambda: find_detector("torchvision"), "say which one: torchvision:NAME"),
        (lambda: find_detector("torchvision:x").build(), "torchvision has none of that name"),
        (lambda: find_detector(f"torchvision:{SMALL}", {"min_sise": 1}).build(), "'min_sise'; did you mean 'min_size'"),
        (lambda: find_detector(f"torchvison:{SMALL}"), f"no module 'torchvison'; did you mean 'torchvision:{SMALL}'"),
        (lambda: proposer_class("graphh"), "no proposer is called 'graphh'; did you mean 'graph'"),
        (lambda: proposer_class("no_such_package.x:Y"), "there is no module 'no_such_package'; looked in"),
        (lambda: find_model("trackmill.models.masa.model:Massa"), "has no 'Massa'; did you mean 'Masa'"),
        (lambda: proposer_class("pathlib:Path"), "no class derived from trackmill.models.proposers.base.Proposer"),
        (lambda: choose("source", "sa1", ["sa1b"]), "no source is called 'sa1'"),
    ],
)
def test_mistakes_are_named(call: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()


def test_what_names_somebody_elses_code() -> None:
    for text in ("my_package.my_module:Class", "module:Class"):
        assert is_outside(text)
    for text in ("masa_r50", "s3://bucket/file", "C:/weights.pth", "a/b:c", "a.b:", ":c", "torchvision:a-b"):
        assert not is_outside(text)
    assert names_detector("masa") and names_detector("torchvision:x") and names_detector("mine:Detector")
    assert not names_detector("detections.txt") and not names_detector("s3://bucket/detections.parquet")


def test_a_package_that_is_missing_inside_a_module_is_not_told_as_a_missing_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_more.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_nobody_has"):
        import_object("needs_more:Thing", "model")


def test_the_names_cost_nothing() -> None:
    code = (
        "import sys; from trackmill.models.registry import DETECTORS, MODELS, PROPOSERS;"
        "print(len(MODELS), [name for name in ('torch', 'numpy', 'pydantic', 'timm') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{len(MODELS)} []"
