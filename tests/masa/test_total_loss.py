"""All losses of a step on a small model: what is drawn, what counts, what is refused."""

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from trackmill.models.masa.losses import PAPER, RELEASED, LossSettings, Targets, masa_losses
from trackmill.models.masa.losses.pairing import ContrastPairs, pair_telemetry
from trackmill.models.masa.model import Masa
from trackmill.models.masa.rpn_inference import RpnSettings
from trackmill.models.masa.variants import VARIANTS

PARTS = ("rpn_cls", "rpn_bbox", "roi_cls", "roi_bbox", "track", "track_aux")
KEY_BOXES = torch.tensor([[10.0, 10.0, 60.0, 70.0], [50.0, 20.0, 120.0, 90.0]])
MIRRORED = torch.tensor([[68.0, 10.0, 118.0, 70.0], [8.0, 20.0, 78.0, 90.0]])
FEW = RpnSettings(before_nms=100, kept=60)
SMALL = LossSettings(key_proposals=FEW, ref_proposals=FEW)
NO_OBJECTS = Targets(boxes=torch.zeros(0, 4), ids=torch.zeros(0, dtype=torch.int64))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine, threads that wait for each other make these small networks ten times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> Masa:
    torch.manual_seed(0)
    return Masa(
        replace(VARIANTS["masa_lite0"], channels=32, head_channels=16, track_head="convs", embed_channels=8)
    ).train()


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _views(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    key = torch.rand(count, 3, 96, 128, generator=_seeded(9)) * 255
    return key, key.flip(-1)


def _targets(boxes: torch.Tensor, *ids: int) -> Targets:
    return Targets(boxes=boxes, ids=torch.tensor(ids))


@torch.no_grad()
def _values(losses: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(each) for name, each in losses.items()}


def _step(model: Masa, seed: int = 0, settings: LossSettings = SMALL) -> dict[str, torch.Tensor]:
    key, ref = [_targets(KEY_BOXES, 1, 2)] * 2, [_targets(MIRRORED, 1, 2)] * 2
    return masa_losses(model, *_views(), key, ref, _seeded(seed), settings=settings)


def test_total_is_the_sum_and_reaches_every_parameter(model: Masa) -> None:
    model.zero_grad()
    losses = _step(model)
    values = _values(losses)
    assert set(losses) == {*PARTS, "total", "positives", "effective_negatives", "similarity_gap"}
    assert all(each.ndim == 0 and bool(each.isfinite()) for each in losses.values())
    assert values["total"] == pytest.approx(sum(values[part] for part in PARTS), rel=1e-6)
    assert all(values[part] > 0 for part in PARTS)
    assert [name for name, each in losses.items() if each.requires_grad] == [*PARTS, "total"]
    losses["total"].backward()
    without = [name for name, each in model.named_parameters() if each.grad is None or not each.grad.isfinite().all()]
    assert without == []


def test_a_step_depends_on_the_generator_alone(model: Masa) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = _step(model, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again, other = _step(model, seed=5), _step(model, seed=6)
    assert all(torch.equal(first[part], again[part]) for part in first)
    assert not torch.equal(first["rpn_cls"], other["rpn_cls"])


def test_the_papers_losses(model: Masa) -> None:
    assert (PAPER.contrast, PAPER.auxiliary_weight) == ("paper", 0)
    paper = _values(_step(model, settings=replace(PAPER, key_proposals=FEW, ref_proposals=FEW)))
    released = _values(_step(model))
    assert paper["track_aux"] == 0
    # A sum over pairs at temperature 0.07 against a quarter of a mean without one.
    assert paper["track"] > 10 * released["track"]
    assert [paper[part] for part in PARTS[:4]] == [released[part] for part in PARTS[:4]]


def test_settings_are_those_of_the_released_configuration() -> None:
    assert (RELEASED.contrast, RELEASED.auxiliary_weight) == ("released", 1)
    for settings, before_nms in ((RELEASED.key_proposals, 2000), (RELEASED.ref_proposals, 1000)):
        assert (settings.before_nms, settings.iou_threshold, settings.kept) == (before_nms, 0.7, 1000)


def test_the_variant_says_which_box_loss_the_proposal_head_has(model: Masa, monkeypatch: pytest.MonkeyPatch) -> None:
    """Smooth L1 is below L1 everywhere, by half its beta at most."""
    smooth = _values(_step(model))
    monkeypatch.setattr(model, "variant", replace(model.variant, rpn_loss="l1"))
    sharp = _values(_step(model))
    assert model.variant.rpn_loss == "l1" and sharp["rpn_bbox"] > smooth["rpn_bbox"]
    assert sharp["rpn_cls"] == smooth["rpn_cls"]


def test_views_without_objects_give_detection_losses_only(model: Masa) -> None:
    for key, ref in ((NO_OBJECTS, NO_OBJECTS), (NO_OBJECTS, _targets(MIRRORED, 1, 2))):
        model.zero_grad()
        losses = masa_losses(model, *_views(1), [key], [ref], _seeded(), settings=SMALL)
        losses["total"].backward()
        counted = [name for name, value in _values(losses).items() if value != 0]
        assert counted == ["rpn_cls", "roi_cls", "total"]
        assert all(each.grad is not None and bool(each.grad.isfinite().all()) for each in model.parameters())


def test_given_proposals_take_the_place_of_the_networks(model: Masa) -> None:
    """One good proposal of the first object and one of nothing, in either view; the ground truth joins them."""
    nothing = torch.tensor([[90.0, 0.0, 110.0, 15.0]])
    seen = []
    handle = model.track_head.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    try:
        losses = masa_losses(
            model,
            *_views(1),
            [_targets(KEY_BOXES, 1, 2)],
            [_targets(MIRRORED, 1, 7)],
            _seeded(),
            key_proposals=[torch.cat([KEY_BOXES[:1] + 1, nothing])],
            ref_proposals=[torch.cat([MIRRORED[:1] + 1, nothing])],
        )
    finally:
        handle.remove()
    assert seen == [3, 4]  # key: three positives; reference: these and a negative
    assert float(losses["positives"]) == 2  # the second object has another id in the reference view
    assert 1 <= float(losses["effective_negatives"]) <= 2


def test_views_may_differ_in_size(model: Masa) -> None:
    key, ref = _views(1)
    larger = torch.nn.functional.pad(ref, (0, 40, 0, 20), value=100.0)
    targets = ([_targets(KEY_BOXES, 1, 2)], [_targets(MIRRORED, 1, 2)])
    losses = masa_losses(model, key, larger, *targets, _seeded(), settings=SMALL)
    assert bool(losses["total"].isfinite()) and float(losses["positives"]) >= 2


def test_losses_stay_in_full_precision_under_autocast(model: Masa, monkeypatch: pytest.MonkeyPatch) -> None:
    features = model.features

    @torch.autocast("cpu", enabled=False)
    def without_autocast(images: torch.Tensor) -> list[torch.Tensor]:
        return features(images)  # the CPU has no deformable convolution in bfloat16

    plain = _step(model)
    monkeypatch.setattr(model, "features", without_autocast)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = _step(model)
    assert all(mixed[name].dtype == torch.float32 for name in mixed)
    full, half = _values(plain), _values(mixed)
    assert half["track_aux"] == pytest.approx(full["track_aux"], rel=0.2)
    assert half["rpn_cls"] == pytest.approx(full["rpn_cls"], rel=0.02)


def test_telemetry_worked_by_hand() -> None:
    key = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    ref = torch.tensor([[2.0, 0.0], [0.0, math.log(3)], [0.0, 0.0]])
    targets = torch.tensor([[True, False, False], [True, False, False], [False, False, False]])
    pairs = ContrastPairs(rows=key, columns=ref, targets=targets)
    without_positives = ContrastPairs(rows=key, columns=ref, targets=torch.zeros_like(targets))
    without_negatives = ContrastPairs(rows=key[:1], columns=ref[:1], targets=targets[:1, :1])
    found = pair_telemetry([pairs, without_positives, without_negatives])
    assert float(found["positives"]) == 1  # two, none and one
    # First row: both negatives weigh 1/2, so 2 share the weight; second: 3/4 and 1/4, so 1 / (9/16 + 1/16).
    assert float(found["effective_negatives"]) == pytest.approx((2 + 16 / 10) / 2)
    # Cosines of the positives 1 and 0, of the negatives 0, 0, 1 and 0.
    assert float(found["similarity_gap"]) == pytest.approx(1 / 2 - 1 / 4)


def test_bad_targets_are_refused() -> None:
    ids = torch.tensor([1, 2])
    with pytest.raises(ValueError, match=r"boxes \(G, 4\) and ids \(G,\), got \(2, 4\) and \(1,\)"):
        Targets(boxes=KEY_BOXES, ids=ids[:1])
    for wrong in (math.nan, math.inf, 10.0):
        boxes = KEY_BOXES.clone()
        boxes[1, 2:] = wrong
        with pytest.raises(ValueError, match="target box 1 is empty or not finite"):
            Targets(boxes=boxes, ids=ids)


def test_numbers_that_do_not_fit_are_refused(model: Masa) -> None:
    key, ref = _views()
    two = [_targets(KEY_BOXES, 1, 2)] * 2
    with pytest.raises(ValueError, match="ref_targets has 1 entries for 2 key images"):
        masa_losses(model, key, ref, two, two[:1], _seeded())
    with pytest.raises(ValueError, match="ref_images has 1 entries for 2 key images"):
        masa_losses(model, key, ref[:1], two, two, _seeded())
    with pytest.raises(ValueError, match="key_proposals has 1 entries for 2 key images"):
        masa_losses(model, key, ref, two, two, _seeded(), key_proposals=[KEY_BOXES])


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="contrast = 'infonce' is unknown; it is one of released, paper"):
        LossSettings(contrast="infonce")  # type: ignore[arg-type]
