"""A clip with track queries against the public code of MeMOTR: every array that is stored.

The test is a function of the file: clips of other lengths and sizes that lie beside it are checked alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.ipmot.filled import FOLDER, assert_as_stored, filled_state, pictures
from tests.shared_data import NEEDS_DATA
from trackmill.models.ipmot.clip_pass import run_clip
from trackmill.models.ipmot.clip_records import ClipPassSettings, ClipResult, ClipTargets, FrameRecord
from trackmill.models.ipmot.encoder import EncodedMaps
from trackmill.models.ipmot.loading import load_model
from trackmill.models.ipmot.losses.collective import collective_average
from trackmill.models.ipmot.model import IpMot
from trackmill.models.ipmot.positions import map_embedding
from trackmill.models.ipmot.queries import TrackQueries
from trackmill.models.ipmot.variants import VARIANTS

FILES = sorted(FOLDER.glob("tracker_clip*.npz"))

OUTPUTS, LOSSES, GRADIENTS = 1e-4, 1e-5, 2e-3
"""Absolute, relative, relative to the largest entry: the README's."""

MEMOTR = ClipPassSettings(newborn_iou_threshold=0.5, released="always")

NAMES = {"box_l1_loss": "l1", "box_giou_loss": "giou", "label_focal_loss": "focal"}

Stored = Mapping[str, NDArray[Any]]


@dataclass
class Clip:
    """A clip as stored, and as this code runs it."""

    stored: Stored
    model: IpMot
    images: torch.Tensor
    records: list[FrameRecord]
    maps: list[EncodedMaps]
    result: ClipResult


@pytest.fixture(scope="module", params=FILES or [None], ids=lambda path: path.stem if path else "missing")
def clip(request: pytest.FixtureRequest) -> Iterator[Clip]:
    path: Path | None = request.param
    if path is None:
        pytest.skip(f"{NEEDS_DATA} ../shared/reference/dab_deformable_detr")
    with np.load(path) as file:
        stored = {key: file[key] for key in file.files}
    threshold = float(stored["update_threshold"])
    variant = dataclasses.replace(VARIANTS["memotr"], keep_threshold=threshold, score_threshold=threshold)
    model = load_model(variant, filled_state("manifest_tracker.json")).train()
    model.requires_grad_(True)
    count = 1 + max(int(key.split(".")[0].removeprefix("frame")) for key in stored if key.startswith("frame"))
    height, width = (8 * int(side) for side in stored["frame0.backbone.0.shape"][-2:])
    images = pictures(count, height, width)
    targets = ClipTargets(
        boxes=[torch.from_numpy(stored[f"frame{index}.gt.boxes"]) for index in range(count)],
        ids=[torch.from_numpy(stored[f"frame{index}.gt.ids"]) for index in range(count)],
    )
    records: list[FrameRecord] = []
    maps: list[EncodedMaps] = []
    encode = model.encode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "encode", lambda *args: maps.append(encode(*args)) or maps[-1])
        masks = torch.zeros(len(images), height, width, dtype=torch.bool)
        result = run_clip(model, (images, masks), targets, MEMOTR, observe=records.append)
    average = collective_average(result.total(MEMOTR), result.num_boxes)
    assert average.item() == pytest.approx(float(stored["clip.total"]), rel=LOSSES)
    average.backward()
    yield Clip(stored, model, images, records, maps, result)


def test_pictures_to_memory(clip: Clip) -> None:
    detector, stored = clip.model.detector, clip.stored
    with torch.no_grad():
        images = clip.images[:1]
        masks = torch.zeros(1, *images.shape[-2:], dtype=torch.bool)
        for level, found in enumerate(detector.backbone[0](images)):
            assert_as_stored(found, stored, f"frame0.backbone.{level}", absolute=OUTPUTS)
        maps, padding = detector.pyramid(images, masks)
        for level, found in enumerate(maps):
            assert_as_stored(found, stored, f"frame0.proj.{level}", absolute=OUTPUTS)
            position = map_embedding(padding[level], found.shape[1], detector.sizes.map_temperature)
            assert_as_stored(position.permute(0, 3, 1, 2), stored, f"frame0.pos.{level}", absolute=OUTPUTS)
    for index, each in enumerate(clip.maps):
        assert_as_stored(each.memory, stored, f"frame{index}.memory", absolute=OUTPUTS)


def test_outputs_of_every_layer(clip: Clip) -> None:
    for record in clip.records:
        _check_outputs(record, clip.stored)


def test_who_is_assigned_and_who_goes_on(clip: Clip) -> None:
    for record in clip.records:
        _check_assignment(record, clip.stored)
    for before, after in zip(clip.records, clip.records[1:], strict=False):
        assert after.tracks is not None
        assert after.tracks.ids.tolist() == clip.stored[f"frame{before.index}.out.track_ids"].tolist()
        _check_tracks(after.tracks, clip.stored, before.index)


def test_losses(clip: Clip) -> None:
    stored = clip.stored
    so_far = {name: torch.zeros(len(clip.records[0].focal)) for name in NAMES.values()}
    for record in clip.records:
        for name, part in NAMES.items():
            so_far[part] = so_far[part] + getattr(record, part).detach()
            _check_loss(so_far[part], stored, f"frame{record.index}.cumulative.", name)
    assert clip.result.num_boxes == int(stored["n_targets"])
    for name, part in NAMES.items():
        _check_loss(getattr(clip.result, part) / clip.result.num_boxes, stored, "clip.", name)


def test_gradients(clip: Clip) -> None:
    gradients = {name: each.grad for name, each in clip.model.named_parameters()}
    keys = [
        key.removesuffix(".shape").removeprefix("grad.")
        for key in clip.stored
        if key.startswith("grad.") and key.endswith(".shape")
    ]
    assert keys
    for key in keys:
        gradient = gradients[_own_name(key)]
        assert gradient is not None, key
        assert_as_stored(gradient, clip.stored, f"grad.{key}", relative=GRADIENTS)


def test_each_frame_alone(clip: Clip) -> None:
    """From the track queries that are stored, so that one frame's error does not hide in the next."""
    for record, maps in zip(clip.records[1:], clip.maps[1:], strict=True):
        key = f"frame{record.index}.in."
        assert record.tracks is not None
        tracks = dataclasses.replace(
            record.tracks,
            content=torch.from_numpy(clip.stored[key + "track_query"]),
            reference=torch.from_numpy(clip.stored[key + "track_anchor_logit"]),
            ids=torch.from_numpy(clip.stored[key + "track_ids"]),
        )
        with torch.no_grad():
            output = clip.model.step(maps, tracks)
        _check_outputs(dataclasses.replace(record, output=output), clip.stored)


def _own_name(name: str) -> str:
    """A parameter of MeMOTR by the name that it has here; written out once more, for the sake of the test."""
    for theirs, ours in {
        "query_updater.": "query_update.",
        "det_query_embed": "detector.tgt_embed.weight",
        "det_anchor": "detector.refpoint_embed.weight",
        "feature_projs.": "detector.input_proj.",
        "backbone.backbone.backbone.": "detector.backbone.0.body.",
    }.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return f"detector.{name}"


def _check_outputs(record: FrameRecord, stored: Stored) -> None:
    key, output = f"frame{record.index}.", record.output
    for layer, hidden in enumerate(output.hidden):
        assert_as_stored(hidden[None], stored, f"{key}decoder.{layer}.hidden", absolute=OUTPUTS)
    for layer in range(len(output.hidden) - 1):
        assert_as_stored(output.logits[layer][None, :, None], stored, f"{key}aux.{layer}.logits", absolute=OUTPUTS)
        assert_as_stored(output.boxes[layer][None], stored, f"{key}aux.{layer}.boxes", absolute=OUTPUTS)
    assert_as_stored(output.logits[-1], stored, f"{key}pred_logits", absolute=OUTPUTS)
    assert_as_stored(output.boxes[-1], stored, f"{key}pred_boxes", absolute=OUTPUTS)


def _check_assignment(record: FrameRecord, stored: Stored) -> None:
    key, last, num_detect = f"frame{record.index}.", record.layers[-1], record.output.num_detect
    ids, people = stored[key + "gt.ids"], dict(zip(last.query.tolist(), last.target.tolist(), strict=True))
    born = last.query[record.born]
    # The reference lists newborns in the order of their identities or of their queries; either way they are pairs.
    found = {int(query): int(ids[people[int(query)]]) for query in born}
    assert found == dict(zip(stored[key + "new.query"].tolist(), stored[key + "new.ids"].tolist(), strict=True))
    overlaps = dict(zip(last.query.tolist(), record.overlaps.tolist(), strict=True))
    for query, overlap in zip(stored[key + "new.query"].tolist(), stored[key + "new.iou"].tolist(), strict=True):
        assert overlaps[query] == pytest.approx(overlap, abs=OUTPUTS)
    matched = stored[key + "tracked.matched_gt"].tolist()
    assert matched == [people.get(num_detect + place, -1) for place in range(len(matched))]
    for place, target in enumerate(matched):
        if target >= 0:  # the reference leaves the overlap of the last frame to those that are not there
            overlap = stored[key + "tracked.iou"][place]
            assert overlaps[num_detect + place] == pytest.approx(overlap, abs=OUTPUTS)


def _check_tracks(tracks: TrackQueries, stored: Stored, before: int) -> None:
    key = f"frame{before + 1}.in."
    assert tracks.ids.tolist() == stored[key + "track_ids"].tolist()
    assert_as_stored(tracks.content, stored, key + "track_query", absolute=OUTPUTS)
    # Logits of boxes: near an edge of the picture they are far steeper than the boxes, which are what is compared.
    anchors = torch.from_numpy(stored[key + "track_anchor_logit"])
    assert torch.allclose(tracks.reference.sigmoid(), anchors.sigmoid(), rtol=0, atol=OUTPUTS)
    assert tracks.long_memory is not None and tracks.last_output is not None
    assert_as_stored(tracks.long_memory, stored, f"frame{before}.out.long_memory", absolute=OUTPUTS)
    assert_as_stored(tracks.last_output, stored, f"frame{before}.out.last_output", absolute=OUTPUTS)


def _check_loss(layers: torch.Tensor, stored: Stored, prefix: str, name: str) -> None:
    assert layers[-1].item() == pytest.approx(float(stored[prefix + name]), rel=LOSSES), prefix + name
    assert layers[:-1].sum().item() == pytest.approx(float(stored[f"{prefix}aux_{name}"]), rel=LOSSES), prefix + name
