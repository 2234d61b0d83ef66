"""A stream around real networks with drawn weights: every variant, against the rules as a plain loop."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.ipmot.drawn import PLAIN, SMALL, small_film, small_model  # noqa: E402
from tests.test_imports import imports  # noqa: E402
from trackmill.models.ipmot.frames import fitted, network_input, resized  # noqa: E402
from trackmill.models.ipmot.model import IpMot  # noqa: E402
from trackmill.models.ipmot.stream import Stream, StreamObjects, StreamSettings  # noqa: E402

VARIANTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "QBS and DEM": (SMALL, {}),
    "without QBS": (SMALL, {"qbs": False}),
    "QBS without DEM": (SMALL, {"dem": False}),
    "plain form": (PLAIN, {"qbs": False}),
    "MeMOTR's update": (SMALL, {"track_update": "memotr"}),
    "no update": (SMALL, {"track_update": "identity", "seed": 3}),
}


@pytest.fixture(scope="module", params=VARIANTS)
def model(request: pytest.FixtureRequest) -> IpMot:
    variant, changes = VARIANTS[request.param]
    return small_model(variant, **changes)


def run(model: IpMot, images: list[Any], **settings: Any) -> list[StreamObjects]:
    stream = Stream(model, StreamSettings.of(model.variant, **settings))
    return [stream.step(image) for image in images]


def plain_loop(model: IpMot, images: list[Any]) -> list[dict[int, list[float]]]:
    """Section 8 of the specification, one query at a time: by birth, the boxes of each frame."""
    variant, tracks, live, born, frames = model.variant, None, list[list[int]](), 0, []
    for image in images:
        height, width = image.shape[:2]
        size = fitted(height, width, variant.short_side, variant.long_side)
        picture = resized(torch.from_numpy(image).permute(2, 0, 1)[None], size)
        output = model.step(model.encode(*network_input(picture, model.detector.mean, model.detector.std)), tracks)
        rows: dict[int, list[float]] = {}
        keep, ids, still = [], [], []

        def write(identity: int, query: int) -> None:
            x, y, w, h = (float(value) for value in output.boxes[-1][query])  # noqa: B023  called at once
            if w * width * h * height > variant.min_area:  # noqa: B023
                rows[identity] = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]  # noqa: B023

        for place, (identity, misses) in enumerate(live):
            query = output.num_detect + place
            misses = 0 if output.scores[query] >= 0.5 else misses + 1
            if misses == 0:
                write(identity, query)
            if misses < variant.miss_tolerance:
                keep.append(query)
                ids.append(identity)
                still.append([identity, misses])
        for query in range(output.num_detect):
            if output.scores[query] >= 0.5:
                write(born, query)
                keep.append(query)
                ids.append(born)
                still.append([born, 0])
                born += 1
        live = still
        tracks = model.next_tracks(output, tracks, torch.tensor(keep, dtype=torch.int64), torch.tensor(ids))
        frames.append(rows)
    return frames


def test_it_follows_the_specification_line_by_line(model: IpMot) -> None:
    images = small_film(6)
    found = run(model, images)
    names: dict[int, int] = {}
    for each, expected in zip(found, plain_loop(model, images), strict=True):
        assert len(each) == len(expected)
        for identity, box, (birth, wanted) in zip(each.ids.tolist(), each.boxes, expected.items(), strict=True):
            # Identities are counted as they are first output; which they are is the same otherwise.
            assert names.setdefault(birth, identity) == identity
            np.testing.assert_allclose(box, wanted, atol=1e-3)
    assert sorted(names.values()) == list(range(len(names))) and len(names) > 3
    seen = [identity for each in found for identity in each.ids.tolist()]
    assert len(seen) > len(set(seen)), "somebody is seen more than once"


def same(some: list[StreamObjects], others: list[StreamObjects]) -> bool:
    pairs = list(zip(some, others, strict=True))
    return all(
        np.array_equal(one.ids, other.ids)
        and np.array_equal(one.boxes, other.boxes)
        and np.array_equal(one.scores, other.scores)
        for one, other in pairs
    )


def test_the_same_tracks_again_and_without_what_only_training_needs() -> None:
    """C6: the head of instance embeddings is deleted; TrackBook and CLIP were never there."""
    images = small_film(6)
    model = small_model()
    stream = Stream(model)
    first = [stream.step(image) for image in images]
    stream.step(images[0])
    stream.reset()
    assert same([stream.step(image) for image in images], first)
    assert model.embedding is not None
    model.embedding = None
    assert same(run(model, images), first)
    whole = imports()
    reached, left = set[str](), ["models.ipmot.entry", "models.ipmot.loading"]
    while left:
        if (module := left.pop()) not in reached:
            reached.add(module)
            left += whole.get(module, ())
    assert "models.ipmot.stream" in reached
    unneeded = ("models.clip", "models.ipmot.trackbook", "models.ipmot.prompts", "scipy")
    assert not [each for each in reached if each.startswith(unneeded)]


def test_bfloat16_is_near() -> None:
    images = small_film(1)
    model = small_model(PLAIN)
    (exact,), (rounded,) = run(model, images), run(model, images, precision="bfloat16")
    both = sorted(set(exact.indices.tolist()) & set(rounded.indices.tolist()))
    assert len(both) >= 5
    boxes = [each.boxes[[each.indices.tolist().index(query) for query in both]] for each in (exact, rounded)]
    assert 0 < np.abs(boxes[0] - boxes[1]).max() < 4, "in pixels of a picture of 48 x 80"


def test_nothing_of_earlier_frames_is_held() -> None:
    stream = Stream(small_model(track_update="memotr"), StreamSettings.of(SMALL, score_threshold=0, max_tracks=9))

    def held() -> tuple[int, int]:
        gc.collect()
        alive = [each for each in gc.get_objects() if type(each) is torch.Tensor]
        return len(alive), sum(each.untyped_storage().nbytes() for each in alive)

    images = small_film(4)
    for image in images:
        stream.step(image)
    before = held()
    for _ in range(3):
        for image in images:
            stream.step(image)
    assert held() == before and stream.num_live == 9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    images = small_film(6)
    exact, there = run(small_model(), images), run(small_model().cuda(), images)
    assert [each.ids.tolist() for each in there] == [each.ids.tolist() for each in exact]
    for one, other in zip(exact, there, strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.05)
