"""The second look at tracks: what it joins, what it must not, and that it learns from the video how alike is alike."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from trackmill.models.association.offline import OfflineSettings, Pieces, join_pieces

DIM = 16


class Scene:
    """Objects that walk, each with an appearance of its own; an online rule may lose them.

    Args:
        people: how many; each walks on a line of its own.
        noise: of the embeddings.
    """

    def __init__(self, people: int, noise: float = 0.1, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.looks = self.rng.normal(size=(people, DIM))
        self.noise = noise

    def box(self, person: int, frame: int) -> NDArray[np.float32]:
        x, y = 20 + 3 * frame, 40 + 90 * person
        return np.array([x, y, x + 20, y + 60], np.float32)

    def pieces(
        self, seen: list[tuple[int, int, range]], settings: OfflineSettings | None = None, fps: float = 10.0
    ) -> tuple[Pieces, dict[tuple[int, int], int]]:
        """(online identity, person, frames) of each stretch; also the piece of each person and frame."""
        pieces = Pieces(settings or OfflineSettings())
        where: dict[tuple[int, int], int] = {}
        for frame in range(max(stretch.stop for _, _, stretch in seen)):
            now = [(track, person) for track, person, stretch in seen if frame in stretch]
            vectors = [self.looks[person] + self.rng.normal(0, self.noise, DIM) for _, person in now]
            places = pieces.add(
                frame,
                frame / fps,
                np.array([track for track, _ in now], np.int64),
                np.array([self.box(person, frame) for _, person in now], np.float32).reshape(-1, 4),
                np.zeros(len(now), np.int64),
                np.array(vectors, np.float32).reshape(-1, DIM),
            )
            where |= {(person, frame): int(place) for (_, person), place in zip(now, places, strict=True)}
        return pieces, where


def identities(scene: Scene, seen: list[tuple[int, int, range]], **settings: float) -> dict[tuple[int, int], int]:
    """The identity of each person in each frame."""
    chosen = OfflineSettings(**settings)
    pieces, where = scene.pieces(seen, chosen)
    groups = join_pieces(pieces.all, chosen)
    return {key: int(groups[place]) for key, place in where.items()}


def test_somebody_who_was_hidden_is_one_again() -> None:
    seen = [(0, 0, range(20)), (5, 0, range(40, 60)), (1, 1, range(60)), (2, 2, range(60))]
    found = identities(Scene(3), seen)
    assert found[0, 0] == found[0, 59]
    assert len({found[person, 50] for person in range(3)}) == 3


def test_a_track_that_changed_to_another_person_is_cut_and_put_right() -> None:
    # Two online tracks exchange their people while both are hidden for some frames.
    seen = [
        *((0, 0, range(20)), (1, 1, range(20))),
        *((0, 1, range(26, 50)), (1, 0, range(26, 50))),
        (2, 2, range(50)),
    ]
    found = identities(Scene(3), seen)
    assert found[0, 0] == found[0, 49] and found[1, 0] == found[1, 49] and found[0, 0] != found[1, 0]


def test_two_who_are_seen_together_stay_two_however_alike() -> None:
    scene = Scene(2, noise=0.0)
    scene.looks[1] = scene.looks[0]
    found = identities(scene, [(0, 0, range(30)), (1, 1, range(30))])
    assert found[0, 0] != found[1, 0]


def test_where_all_look_alike_less_is_joined() -> None:
    """Twins come and go: appearance says nothing, so what is learnt here joins few of the strangers."""
    scene = Scene(16, noise=0.0)
    scene.looks[:] = scene.looks[0] + scene.rng.normal(0, 0.3, scene.looks.shape)
    seen = [(person, person, range(30)) for person in range(8)]
    seen += [(person, person, range(33, 60)) for person in range(8, 16)]
    found = identities(scene, seen, reach=50.0)
    strangers = sum(found[a, 0] == found[b, 59] for a in range(8) for b in range(8, 16))
    fixed = identities(scene, seen, reach=50.0, share=0.0)
    assert strangers <= 4
    assert sum(fixed[a, 0] == fixed[b, 59] for a in range(8) for b in range(8, 16)) == 8


@pytest.mark.parametrize(("gap", "settings", "one"), [(30, {}, True), (30, {"max_gap_s": 2.0}, False)])
def test_gaps_end(gap: int, settings: dict[str, float], one: bool) -> None:
    seen = [(0, 0, range(20)), (5, 0, range(20 + gap, 70)), (1, 1, range(70)), (2, 2, range(70))]
    found = identities(Scene(3), seen, **settings)
    assert (found[0, 0] == found[0, 69]) is one


@pytest.mark.parametrize("others", [[], [(3, 3, range(130, 170))]])
def test_who_was_cut_from_the_same_track_is_joined_whoever_comes_before(others: list[tuple[int, int, range]]) -> None:
    """The online rule has carried an identity over 15 s, more than `max_gap_s`; a stranger begins after 13 s."""
    seen = [(0, 0, range(20)), (0, 0, range(170, 200)), (1, 1, range(200)), (2, 2, range(200)), *others]
    found = identities(Scene(4), seen, max_gap_s=10.0)
    assert found[0, 0] == found[0, 199]
    assert all(found[person, frame] != found[0, 0] for _, person, frames in others for frame in frames)


def test_nobody_jumps() -> None:
    scene = Scene(3)
    places = scene.box
    scene.box = lambda person, frame: places(person, frame) + (900 if person == 0 and frame >= 40 else 0)  # type: ignore[method-assign]
    seen = [(0, 0, range(38)), (5, 0, range(40, 60)), (1, 1, range(60)), (2, 2, range(60))]
    found = identities(scene, seen)
    assert found[0, 0] != found[0, 59]


def test_classes_are_kept_apart() -> None:
    settings, scene = OfflineSettings(), Scene(1)
    pieces = Pieces(settings)
    for frame in range(20):
        box = scene.box(0, frame)[None]
        label = np.array([int(frame >= 10)])
        pieces.add(frame, frame / 10, np.array([7]), box, label, scene.looks[:1].astype(np.float32))
    assert join_pieces(pieces.all, settings).tolist() == [0, 1]


def test_nothing_at_all() -> None:
    assert join_pieces([], OfflineSettings()).shape == (0,)


def test_one_vector_is_kept_of_a_piece() -> None:
    pieces, _ = Scene(1).pieces([(0, 0, range(500))])
    assert len(pieces.all) == 1 and pieces.all[0].total.shape == (DIM,)


def test_the_same_again() -> None:
    seen = [(0, 0, range(20)), (5, 0, range(40, 60)), (1, 1, range(60)), (2, 2, range(60))]
    assert identities(Scene(3), seen) == identities(Scene(3), seen)
