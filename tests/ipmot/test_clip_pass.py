"""A clip through a small tracker: what a wrong reading of the paper would change."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.ipmot.small import LAYERS, QUERIES, film, people, small_tracker
from trackmill.models.ipmot.clip_pass import run_clip
from trackmill.models.ipmot.clip_records import ClipPassSettings, ClipResult, ClipTargets, FrameRecord
from trackmill.models.ipmot.losses import collective, collective_average, extended_collective_average
from trackmill.models.ipmot.losses.detection import focal_loss
from trackmill.models.ipmot.model import IpMot
from trackmill.models.ipmot.queries import FALSE_POSITIVE

IDS = ([1, 2, 3], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4])


def follow(
    model: IpMot, ids: Sequence[Sequence[int]] = IDS, **settings: object
) -> tuple[ClipResult, list[FrameRecord]]:
    """Run a clip. Every newborn becomes a track, and every track holds on, as after some training."""
    records: list[FrameRecord] = []
    model.variant = dataclasses.replace(model.variant, iou_threshold=0.0)
    chosen = ClipPassSettings(**settings)  # type: ignore[arg-type]
    return run_clip(model, film(len(ids)), people(*ids), chosen, records.append), records


def gradients(model: IpMot, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def test_balance_of_positives_with_and_without_qbs() -> None:
    new, tracked = 4, 3 + 3 + 4 + 4
    with_qbs, _ = follow(small_tracker())
    without, _ = follow(small_tracker(qbs=False))
    for result, expected in ((with_qbs, 1 + new / tracked), (without, new / tracked)):
        balance = result.statistics["positives_detect"] / result.statistics["positives_track"]
        assert balance == pytest.approx(expected)
        assert result.statistics["newborn"] == new


def test_every_box_counts_once() -> None:
    for qbs in (True, False):
        result, _ = follow(small_tracker(qbs=qbs))
        assert result.num_boxes == 3 + 3 + 4 + 4 + 4


def test_pool_holds_all_positives_of_the_last_layers_with_their_identities() -> None:
    for wanted, expected in ((1, [2]), (2, [1, 2]), (5, [0, 1, 2])):
        result, records = follow(small_tracker(), alignment_layers=wanted)
        assert [pool.layer for pool in result.pools] == expected
        for pool in result.pools:
            ids = [
                people(*IDS).ids[record.index][target].item()
                for record in records
                for target in record.layers[pool.layer].target
            ]
            assert pool.ids.tolist() == ids
            assert pool.embeddings.shape == (len(ids), 8)
    assert not follow(small_tracker(embedding=0))[0].pools


def test_identities_live_on_through_the_clip_and_come_back() -> None:
    _, records = follow(small_tracker(), ([1, 2], [2], [1, 2]))
    held = [[] if each.tracks is None else sorted(each.tracks.ids.tolist()) for each in records]
    assert held == [[], [1, 2], [1, 2]]  # in the second frame person 1 is hidden, and the query waits
    last = records[-1]
    assert last.born.sum() == 0
    assert sorted(last.layers[-1].target[last.layers[-1].query >= QUERIES].tolist()) == [0, 1]


def test_identities_are_released_when_the_box_leaves_the_person() -> None:
    model = small_tracker()
    records: list[FrameRecord] = []
    # The boxes of fresh weights overlap nobody.
    result = run_clip(model, film(3), people([1, 2], [1, 2], [1, 2]), observe=records.append)
    assert result.statistics["released"] == 2  # in the second frame; in the third they are newborn again
    assert [len(each.kept.ids) for each in records] == [2, 0, 2]


def test_false_positives_enter_the_next_frame_as_background() -> None:
    model = small_tracker(keep_threshold=0.0)  # every query is sure
    _, records = follow(model, ([1], [1]))
    second = records[1]
    assert second.tracks is not None
    assert second.tracks.ids.tolist() == [1] + [FALSE_POSITIVE] * (QUERIES - 1)
    assert (second.layers[-1].query >= QUERIES).sum() == 1


def test_gradients_go_back_through_time_by_content_and_not_by_anchors() -> None:
    model = small_tracker(keep_threshold=0.0)
    images, masks = film(2)
    images.requires_grad_()
    records: list[FrameRecord] = []
    run_clip(model, (images, masks), people([1, 2], [1, 2]), observe=records.append)
    second = records[1]
    assert second.tracks is not None
    assert not second.tracks.reference.requires_grad
    assert second.tracks.content.requires_grad
    loss = second.output.logits[-1, QUERIES:].sum()  # of track queries alone, in the second frame
    (to_frames,) = torch.autograd.grad(loss, images)
    assert to_frames[0].abs().max() > 0


@pytest.mark.parametrize("update", ["qim", "memotr", "identity"])
def test_below_the_threshold_a_track_keeps_content_and_anchor(update: str) -> None:
    for threshold, changes in ((1.0, False), (0.0, True)):
        model = small_tracker(track_update=update, keep_threshold=threshold)
        _, records = follow(model, ([1], [1], [1]))
        first, then = records[1].tracks, records[2].tracks
        assert first is not None and then is not None
        assert torch.equal(first.content[0], then.content[0]) != changes
        assert torch.equal(first.reference[0], then.reference[0]) != changes
        if update == "memotr":
            assert first.long_memory is not None and then.long_memory is not None
            assert torch.equal(first.long_memory[0], then.long_memory[0]) != changes


def test_the_plain_form_tracks_with_positions_and_points() -> None:
    model = small_tracker("plain", keep_threshold=0.0)
    _, records = follow(model, ([1, 2], [1, 2], [1, 2]))
    tracks = records[2].tracks
    assert tracks is not None and tracks.position is not None
    assert tracks.reference.shape == (len(tracks), 2)
    assert not torch.equal(tracks.position[0], records[1].tracks.position[0])  # type: ignore[union-attr, index]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("form", "update"),
    [("dab", "qim"), ("dab", "memotr"), ("dab", "identity"), ("plain", "qim"), ("plain", "identity")],
)
def test_networks_of_another_precision_track(form: str, update: str, dtype: torch.dtype) -> None:
    model = small_tracker(form, track_update=update, keep_threshold=0.0).to(dtype)
    images, masks = film(2)
    result = run_clip(model, (images.to(dtype), masks), people([1, 2], [1, 2]))
    assert result.statistics["positives_track"] == 2
    result.total(ClipPassSettings()).backward()
    assert all(each.grad is None or each.grad.isfinite().all() for each in model.parameters())


def test_activation_checkpointing_changes_no_bit() -> None:
    found = []
    for again in (False, True):
        model = small_tracker()
        settings = ClipPassSettings(activation_checkpointing=again)
        result = run_clip(model, film(3), people([1, 2], [1, 2], [2, 3]), settings)
        loss = result.total(settings) + sum(pool.embeddings.square().sum() for pool in result.pools)
        found.append((loss.detach(), gradients(model, loss)))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1].keys() == found[1][1].keys()
    assert all(torch.equal(each, found[1][1][name]) for name, each in found[0][1].items())


def test_activation_checkpointing_keeps_little() -> None:
    def kept(frames: int, again: bool) -> int:
        """Bytes that wait for the backward pass."""
        seen: dict[int, int] = {}

        def note(values: Tensor) -> Tensor:
            seen[values.data_ptr()] = values.numel() * values.element_size()
            return values

        with torch.autograd.graph.saved_tensors_hooks(note, lambda values: values):
            model = small_tracker()
            run_clip(model, film(frames), people(*[[1, 2]] * frames), ClipPassSettings(activation_checkpointing=again))
        return sum(seen.values())

    # What one more frame takes.
    assert kept(4, True) - kept(3, True) < 0.3 * (kept(4, False) - kept(3, False))


@pytest.mark.parametrize(
    "ids",
    [
        ([], []),  # nobody at all
        ([1],),  # one frame: no query is updated
        ([], [1], []),  # somebody comes and goes
        (list(range(QUERIES + 5)), [3]),  # more people than queries
    ],
)
def test_clips_out_of_the_ordinary_leave_no_parameter_without_a_gradient(ids: Sequence[Sequence[int]]) -> None:
    model = small_tracker()
    settings = ClipPassSettings()
    result = run_clip(model, film(len(ids)), people(*ids), settings)
    assert result.num_boxes == sum(map(len, ids))
    assert result.statistics["left_over"] == (5 if len(ids[0]) > QUERIES else 0)
    # The embedding head learns by the alignment losses, which are added to the total.
    loss = collective_average(result.total(settings), result.num_boxes)
    assert loss.isfinite()
    given = gradients(model, loss)
    without = [name for name, each in model.named_parameters() if each.requires_grad and name not in given]
    assert not without
    assert all(each.isfinite().all() for each in given.values())


def test_a_clip_leaves_nothing_behind() -> None:
    model = small_tracker()
    settings = ClipPassSettings()
    alone = run_clip(model, film(2), people([1, 2], [1]), settings).total(settings)
    run_clip(model, film(2, seed=7), people([5], [5, 6]), settings)
    assert torch.equal(alone, run_clip(model, film(2), people([1, 2], [1]), settings).total(settings))


def test_no_loss_is_put_on_the_score() -> None:
    _, records = follow(small_tracker())
    assert all(not record.output.scores.requires_grad for record in records)
    c, d = records[-1].output.logits[-1].detach(), records[-1].output.duplicates
    assert d is not None
    expected = (c.sigmoid() * d.detach().sigmoid()).sqrt()
    assert torch.allclose(records[-1].output.scores, expected)


def test_deduplication_is_learnt_in_the_last_layer_from_its_table() -> None:
    result, records = follow(small_tracker())
    total = torch.zeros(())
    for record in records:
        confidence, last = record.output.duplicates, record.layers[-1]
        assert confidence is not None
        wanted = torch.zeros_like(confidence)
        held = set() if record.tracks is None else set(record.tracks.ids.tolist())
        for query, target in zip(last.query.tolist(), last.target.tolist(), strict=True):
            newborn = IDS[record.index][target] not in held
            wanted[query] = float(query >= QUERIES or newborn)
        total = total + focal_loss(confidence, wanted)
    assert result.deduplication is not None
    assert torch.allclose(result.deduplication, total, rtol=1e-6)


def test_total_is_the_weighted_sum_of_all_layers() -> None:
    settings = ClipPassSettings(class_weight=3, l1_weight=7, giou_weight=11, inner_weight=0.5, deduplication_weight=13)
    result, _ = follow(small_tracker())
    layer_weights = torch.tensor([0.5] * (LAYERS - 1) + [1.0])
    layers = 3 * result.focal + 7 * result.l1 + 11 * result.giou
    assert result.deduplication is not None
    expected = (layers * layer_weights).sum() + 13 * result.deduplication
    assert torch.allclose(result.total(settings), expected)


@pytest.mark.parametrize("people_of_ranks", [(6, 2), (0, 3), (0, 1), (0, 0)])
def test_collective_average_is_the_same_over_one_and_two_ranks(
    people_of_ranks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = torch.tensor(5.0), torch.tensor(11.0)
    alone = collective_average(sums[0] + sums[1], sum(people_of_ranks))
    monkeypatch.setattr(collective, "world_size", lambda: 2)
    ranks = []
    for own, other in ((0, 1), (1, 0)):

        def all_reduce(number: Tensor, other: int = other) -> None:
            number += people_of_ranks[other]

        monkeypatch.setattr(collective.dist, "all_reduce", all_reduce)
        ranks.append(collective_average(sums[own], people_of_ranks[own]))
    assert torch.stack(ranks).mean().item() == pytest.approx(alone.item())  # as engines average gradients


def test_extended_collective_average_adds_layers() -> None:
    found = extended_collective_average(torch.tensor(1.0), torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.25]))
    assert found.item() == 1 + 2 * 3 + 4 * 0.75


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: people([1, 1], [2]), "frame 0: identity 1 has several boxes"),
        (lambda: people([1], [-1]), "frame 1: identity -1"),
        (lambda: people([1], [1], [1]), "2 frames"),
        (lambda: ClipTargets(boxes=[torch.zeros(2, 4)], ids=[torch.zeros(1).long()]), "ids"),
    ],
)
def test_targets_that_cannot_be(make: Callable[[], ClipTargets], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        run_clip(small_tracker(), film(2), make())


def test_autocast_keeps_losses_in_float32() -> None:
    model = small_tracker()
    settings = ClipPassSettings()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = run_clip(model, film(2), people([1, 2], [1]), settings)
        total = result.total(settings)
    assert result.focal.dtype == result.l1.dtype == total.dtype == torch.float32
    assert all(each.isfinite().all() for each in gradients(model, total).values())
    exact = run_clip(model, film(2), people([1, 2], [1]), settings).total(settings)
    assert total.item() == pytest.approx(exact.item(), rel=0.05)
    assert np.isfinite(total.item())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_a_gpu_the_losses_are_those_of_the_cpu(precision: str) -> None:
    settings = ClipPassSettings()
    images, masks = film(3)
    expected = run_clip(small_tracker(), (images, masks), people([1, 2], [1, 2], [2]), settings).total(settings)
    model = small_tracker().cuda()
    targets = people([1, 2], [1, 2], [2])
    targets = ClipTargets(boxes=[each.cuda() for each in targets.boxes], ids=[each.cuda() for each in targets.ids])
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
        result = run_clip(model, (images.cuda(), masks.cuda()), targets, settings)
        total = result.total(settings)
    total.backward()
    assert total.device.type == "cuda"
    assert total.item() == pytest.approx(expected.item(), rel=0.05 if precision == "bfloat16" else 1e-2)
    assert all(each.grad is None or each.grad.isfinite().all() for each in model.parameters())
