"""Every number of an audit, on a scene that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.audit.scene import OBJECT, frame_record, negatives, person, sample_record, scene
from trackmill.pipeline.audit.measure import measure
from trackmill.pipeline.audit.settings import AuditSettings
from trackmill.pipeline.audit.shortlist import Shortlist, candidates_of
from trackmill.pipeline.audit.totals import MOST_CLASSES, OTHER_CLASSES, PerFrame, Totals


def totals_of(**settings: float) -> Totals:
    how = AuditSettings(**settings)
    totals = Totals(how)
    totals.add(*measure(*scene(), how))
    return totals


def test_counts_of_the_scene() -> None:
    totals = totals_of()
    assert (totals.samples, totals.clips, totals.frames, totals.frames_unannotated) == (1, 1, 4, 0)
    assert (totals.rows, totals.kept, totals.persistent, totals.moving) == (8, 7, 4, 4)
    assert (totals.suppressed, totals.suppressed_by_other, totals.beyond) == (1, 1, 0)
    assert totals.pairs == {("man", "person"): 1}
    assert (totals.near_object, totals.close, totals.inside, totals.lapsed) == (0, 1, 1, 1)
    assert int(totals.everything.on_proposal.sum()) == 2 and int(totals.everything.near.sum()) == 3
    values = {"mean": 2.0, "median": 2, "p95": 3, "most": 3, "frames_without": 0}
    assert totals.rows_per_frame.as_dict() == values
    assert totals.kept_per_frame.counts == {2: 3, 1: 1}
    assert totals.chains == {4: 1, 1: 3}
    person, thing = totals.classes["person"].as_dict(), totals.classes["thing"].as_dict()
    kept = {round(place / 20, 2): n for place, n in enumerate(person.pop("kept_by_score")) if n}
    assert kept == {0.8: 2, 0.9: 1, 0.95: 1} and sum(person.pop("persistent_by_score")) == 4
    assert not any(person.pop("near_by_score"))
    assert person == {
        "rows": 4,
        "on_proposal": 1,
        "kept": 4,
        "in_clips": 4,
        "persistent": 4,
        "moving": 4,
        "near": 0,
        "median_score": 0.825,
    }
    assert (thing["kept"], thing["persistent"], thing["near"], thing["median_score"]) == (2, 0, 2, 0.375)
    assert [label for label, _ in totals.by_number()] == ["person", "thing", "man", "wheel"]


def test_a_threshold_leaves_what_is_counted_with_it() -> None:
    """The table by score says what would be left, although NMS is not run again."""
    totals = totals_of()
    for score in (0.35, 0.4, 0.55, 0.85):
        again = totals_of(min_score=score)
        left = totals.at_least(round(score * 20))
        assert (left["rows"], left["kept"]) == (again.rows, again.kept), score
    assert totals_of(min_score=0.55).rows == 5


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        ({"max_boxes": 1}, "beyond", 3),
        ({"nms_iou": 1.0}, "suppressed", 0),
        ({"min_iou": 0.54}, "persistent", 0),  # the links are 7 / 13 = 0.538
        ({"persistent_frames": 5}, "persistent", 0),
        ({"moving_lengths": 0.7}, "moving", 0),  # 9 pixels of a box of 10 x 20: 0.64
        ({"min_iou": 0.4}, "near_object", 1),  # the loose box
    ],
)
def test_settings_decide(settings: dict[str, float], name: str, value: int) -> None:
    assert getattr(totals_of(**settings), name) == value


def test_frames_without_annotations_are_counted_apart() -> None:
    own = [negatives((OBJECT, 0.9, "a")), negatives(), negatives()]
    how = AuditSettings()
    totals = Totals(how)
    totals.add(*measure(sample_record([frame_record(None), frame_record(None), frame_record([])]), own, how))
    assert (totals.frames_unannotated, totals.rows_unannotated, totals.frames, totals.rows) == (2, 1, 2, 1)
    totals.add(*measure(sample_record([frame_record([])], annotated=False), [negatives()], how))
    assert (totals.frames_unannotated, totals.frames) == (3, 2)


def test_a_picture_has_no_persistence() -> None:
    how = AuditSettings()
    frames, chains = measure(sample_record([frame_record([OBJECT])]), [negatives((person(0), 0.9, "person"))], how)
    totals = Totals(how)
    totals.add(frames, chains)
    assert (totals.clips, totals.kept, int(totals.everything.in_clips.sum())) == (0, 1, 0) and not totals.chains
    (candidate,) = candidates_of("k", frames, chains)
    assert candidate.persistence == 0


def test_a_chain_is_one_candidate_in_its_best_frame() -> None:
    found = {c.label: c for c in candidates_of("k", *measure(*scene(), AuditSettings())) if c.label != "thing"}
    assert set(found) == {"person", "wheel"}  # `man` is not kept
    best = found["person"]
    assert (best.frame, best.row, best.chain.frames, best.persistence) == (2, 0, (0, 1, 2, 3), 1.0)
    assert best.chain.iou == pytest.approx(7 / 13) and best.chain.travel == pytest.approx(9 / 200**0.5)
    assert best.box == tuple(person(2)) and not best.near
    assert found["wheel"].inside and found["wheel"].object_iou == pytest.approx(0.2)


def test_a_shortlist_is_diverse_and_does_not_depend_on_the_order() -> None:
    how = AuditSettings()
    record = sample_record([frame_record([OBJECT])])
    boxes = [[x, 20.0, x + 4, 24] for x in (0.0, 10, 20, 30)]
    samples = {f"car{n:02d}": negatives(*((box, 0.9 - n / 100, "car") for box in boxes)) for n in range(12)}
    samples["dog"] = negatives((boxes[0], 0.31, "dog"))
    offered = {key: candidates_of(key, *measure(record, [own], how)) for key, own in samples.items()}
    chosen = []
    for keys in (list(offered), list(reversed(offered))):
        shortlist = Shortlist("best", 5, how)
        for key in keys:
            shortlist.offer(offered[key])
        chosen.append([(c.key, c.row) for c in shortlist.chosen()])
    # Two cars are a fifth of five; the others fill what the dog leaves, of the first sample.
    assert chosen[0] == chosen[1] == [("car00", 0), ("car00", 1), ("car00", 2), ("car00", 3), ("dog", 0)]
    assert not Shortlist("persistent", 5, how).chosen()


def test_memory_does_not_grow_with_names() -> None:
    totals = Totals(AuditSettings())
    for number in range(MOST_CLASSES + 5):
        totals._tally(f"class {number}").rows[0] += 1
    assert len(totals.classes) == MOST_CLASSES + 1
    assert totals.classes[OTHER_CLASSES].rows[0] == 5


def test_quantiles_are_exact() -> None:
    numbers = np.random.default_rng(0).integers(0, 40, 999)
    counts = PerFrame()
    counts.counts.update(numbers.tolist())
    for share in (0.5, 0.95):
        assert counts.quantile(share) == np.quantile(numbers, share, method="inverted_cdf")
    assert PerFrame().as_dict()["median"] == 0
