"""The detector against the published code of DAB-Deformable-DETR: every array that is stored, of both files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.fixtures import packed
from tests.ipmot.filled import assert_as_stored, filled_state
from tests.ipmot.small_detector import batch_of
from trackmill.models.ipmot import load_detector
from trackmill.models.ipmot.detector import Decoded, DeformableDetr
from trackmill.models.ipmot.encoder import EncodedMaps
from trackmill.models.ipmot.losses.criterion import DetectorLosses, detector_losses
from trackmill.models.ipmot.positions import map_embedding

OUTPUTS, LOSSES = 1e-4, 1e-5
"""Absolute and relative: the README's."""

SIZES = {"detector_single": [(192, 256)], "detector_padded_pair": [(192, 256), (160, 224)]}


@dataclass
class Run:
    """A batch as stored, and as this code runs it."""

    stored: Mapping[str, NDArray[Any]]
    backbone: list[Tensor]
    projected: list[Tensor]
    masks: list[Tensor]
    maps: EncodedMaps
    decoded: Decoded
    losses: DetectorLosses


@pytest.fixture(scope="module")
def detector() -> DeformableDetr:
    """As from the published file: in its wrapper, with the box heads that are in it twice."""
    return load_detector({"model": filled_state("manifest.json")})


@pytest.fixture(scope="module", params=SIZES)
def run(request: pytest.FixtureRequest, detector: DeformableDetr) -> Iterator[Run]:
    stored = packed.read_arrays(f"dab_deformable_detr/{request.param}.npz")
    generator = torch.Generator().manual_seed(0)
    sizes = SIZES[request.param]
    images, masks = batch_of([torch.rand(3, *size, generator=generator) for size in sizes])
    seen: list[list[Tensor]] = []
    handle = detector.backbone[0].register_forward_hook(lambda *call: seen.append(call[-1]))
    with torch.no_grad():
        projected, padding = detector.pyramid(images, masks)
        handle.remove()
        maps = detector.encode(images, masks)
        decoded = detector.decode(maps, detector.detect_queries())
        targets = [
            {name: torch.from_numpy(stored[f"target.{number}.{name}"]) for name in ("boxes", "labels")}
            for number in range(len(sizes))
        ]
        losses = detector_losses(detector.report(decoded), targets)
    yield Run(stored, seen[0], projected, padding, maps, decoded, losses)


def test_every_array_is_that_of_the_published_code(run: Run) -> None:
    decoded = run.decoded
    found: dict[str, Tensor] = {"memory": run.maps.memory, "pred_boxes": decoded.boxes[-1]}
    found |= {f"backbone.{level}": each for level, each in enumerate(run.backbone)}
    found |= {f"proj.{level}": each for level, each in enumerate(run.projected)}
    # The published code stores channels first.
    embedded = [map_embedding(mask, 256, 10000.0).permute(0, 3, 1, 2) for mask in run.masks]
    found |= {f"pos.{level}": each for level, each in enumerate(embedded)}
    for layer in range(6):
        found[f"decoder.{layer}.hidden"] = decoded.hidden[layer]
        found[f"decoder.{layer}.ref"] = found[f"layer.{layer}.boxes"] = decoded.boxes[layer]
        found[f"layer.{layer}.logits"] = decoded.logits[layer]
    if "pred_logits" in run.stored:
        found["pred_logits"] = decoded.logits[-1]
    else:
        found["pred_logits.every8"] = decoded.logits[-1][:, ::8]
    for key, each in found.items():
        assert_as_stored(each, run.stored, key, absolute=OUTPUTS)
    endings = (".shape", ".stats", ".sample")
    kept = {next((key.removesuffix(end) for end in endings if key.endswith(end)), key) for key in run.stored}
    others = {key for key in kept - set(found) if not key.startswith(("target.", "match.", "loss.", "mask."))}
    assert others == set(), "arrays that no comparison knows"


def test_padding_of_each_map_is_that_of_the_published_code(run: Run) -> None:
    stored = [key for key in run.stored if key.startswith("mask.")]
    assert len(stored) >= 3
    for key in stored:
        np.testing.assert_array_equal(run.masks[int(key.removeprefix("mask."))].numpy(), run.stored[key])


def test_assignments_are_equal(run: Run) -> None:
    keys = [key for key in run.stored if key.startswith("match.") and key.endswith(".query")]
    assert len(keys) == 6 * run.decoded.boxes.shape[1]
    for key in keys:
        _, layer, picture, _ = key.split(".")
        query, target = run.losses.matches[int(layer)][int(picture)]
        np.testing.assert_array_equal(query.numpy(), run.stored[key])
        np.testing.assert_array_equal(target.numpy(), run.stored[key.replace(".query", ".target")])


def test_losses_are_those_of_the_published_code(run: Run) -> None:
    parts = {"ce": run.losses.labels, "bbox": run.losses.l1, "giou": run.losses.giou}
    found = {f"loss_{name}_{layer}": part[layer] for name, part in parts.items() for layer in range(5)}
    found |= {f"loss_{name}": part[5] for name, part in parts.items()} | {"total": run.losses.total}
    assert {f"loss.{name}" for name in found} == {key for key in run.stored if key.startswith("loss.")}
    for name, each in found.items():
        assert float(each) == pytest.approx(float(run.stored[f"loss.{name}"]), rel=LOSSES), name


def test_memotrs_conventions_are_those_of_its_code() -> None:
    """The first frame of its clip has no tracks: a plain forward pass."""
    stored = packed.read_arrays("dab_deformable_detr/tracker_clip3.npz")
    tracker = load_detector(filled_state("manifest_tracker.json"), "memotr")
    image = torch.rand(1, 3, 192, 256, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(1, 192, 256, dtype=torch.bool)
    with torch.no_grad():
        found = tracker(image, masks)
    assert_as_stored(found["pred_logits"], stored, "frame0.pred_logits", absolute=OUTPUTS)
    assert_as_stored(found["pred_boxes"], stored, "frame0.pred_boxes", absolute=OUTPUTS)
    for layer, each in enumerate(found["aux"]):
        assert_as_stored(each["pred_logits"], stored, f"frame0.aux.{layer}.logits", absolute=OUTPUTS)
        assert_as_stored(each["pred_boxes"], stored, f"frame0.aux.{layer}.boxes", absolute=OUTPUTS)
