"""The TrackBook: who is absent stays, who is present moves as by AdamW, and neither ranks nor restarts show."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tests.clip.towers import small_towers  # noqa: E402
from tests.shared_data import DATA, needs_data  # noqa: E402
from trackmill.models.clip.towers import ClipTowers  # noqa: E402
from trackmill.models.ipmot import trackbook  # noqa: E402
from trackmill.models.ipmot.crops import cut_crops  # noqa: E402
from trackmill.models.ipmot.losses import image_to_text, similarity, text_to_image  # noqa: E402
from trackmill.models.ipmot.prompts import encode_prompts  # noqa: E402
from trackmill.models.ipmot.trackbook import TrackBook, TrackBookFull, TrackBookSettings  # noqa: E402

Tensor = torch.Tensor
NOTHING = {"i2t": 0, "t2i": 0, "crops": 0, "identities": 0}


@pytest.fixture(scope="module")
def towers() -> ClipTowers:
    return small_towers()


def book(total: int | None = None, seed: int = 0, **settings: Any) -> TrackBook:
    return TrackBook(TrackBookSettings(**{"capacity": 8} | settings), width=64, seed=seed, total_iterations=total)


def drawn_crops(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 32, 16, generator=torch.Generator().manual_seed(seed))


def keys(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def state(learnt: TrackBook) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in learnt.state_dict().items()}


def row(learnt: TrackBook, key: int) -> dict[str, Tensor]:
    place = int((learnt.keys == key).nonzero())
    return {name: each[place].clone() for name, each in learnt.named_buffers() if name != "iteration"}


def test_all_state_is_buffers_of_fixed_shapes(towers: ClipTowers) -> None:
    learnt = book(capacity=5, vectors=2)
    before = {name: (each.shape, each.dtype) for name, each in learnt.state_dict().items()}
    learnt.update(towers, drawn_crops(3), keys(1, 2, 3))
    assert {name: (each.shape, each.dtype) for name, each in learnt.state_dict().items()} == before
    assert not list(learnt.parameters()) and before["tokens"] == ((5, 2, 64), torch.float32)


def test_absent_identities_are_untouched_to_the_bit(towers: ClipTowers) -> None:
    learnt = book(weight_decay=0.5)
    learnt.update(towers, drawn_crops(3), keys(30, 10, 20))
    absent, present = [row(learnt, 10), row(learnt, 20)], row(learnt, 30)
    for seed in range(3):
        learnt.update(towers, drawn_crops(2, seed), keys(30, 40))
    for before, key in zip(absent, (10, 20), strict=True):
        assert all(torch.equal(each, before[name]) for name, each in row(learnt, key).items())
    assert not torch.equal(row(learnt, 30)["tokens"], present["tokens"])
    assert int(row(learnt, 30)["steps"]) == 4 and int(row(learnt, 20)["steps"]) == 1 and int(learnt.iteration) == 4


@pytest.mark.parametrize("settings", [{}, {"similarity": "cosine", "text_to_image": "mean_log", "betas": (0.5, 0.9)}])
def test_present_identities_move_as_by_an_adamw_of_their_own(towers: ClipTowers, settings: dict[str, Any]) -> None:
    """Two identities that are there in other steps, each against torch's AdamW over its vectors alone."""
    learnt, seen = book(total=6, weight_decay=0.3, learning_rate=0.05, **settings), ([7, 9], [7], [9, 7], [9])
    started = {key: learnt._initial(key) for key in (7, 9)}
    own = {key: torch.nn.Parameter(each.clone()) for key, each in started.items()}
    given = learnt.settings
    optimisers = {
        key: torch.optim.AdamW([each], lr=0.05, betas=given.betas, weight_decay=0.3) for key, each in own.items()
    }
    for iteration, present in enumerate(seen):
        crops, labels = drawn_crops(4, iteration), [present[each % len(present)] for each in range(4)]
        rate = 0.05 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * iteration / 6)).item())
        assert learnt.learning_rate == pytest.approx(rate, rel=1e-6)
        numbers = learnt.update(towers, crops, keys(*labels))

        texts = encode_prompts(towers.text, torch.stack([own[key] for key in sorted(present)]))
        scores = similarity(towers.image(crops), texts, given.similarity, given.temperature)
        columns = torch.tensor([sorted(present).index(key) for key in labels])
        i2t, t2i = image_to_text(scores, columns), text_to_image(scores, columns, given.text_to_image)
        (i2t + t2i).backward()
        assert torch.allclose(numbers["i2t"], i2t) and torch.allclose(numbers["t2i"], t2i)
        assert (int(numbers["crops"]), int(numbers["identities"])) == (4, len(present))
        for key in present:
            optimisers[key].param_groups[0]["lr"] = rate
            optimisers[key].step()
            optimisers[key].zero_grad()
    for key, expected in own.items():
        assert torch.allclose(row(learnt, key)["tokens"], expected, atol=2e-6), key
        assert not torch.allclose(expected, started[key], atol=1e-2)


def test_the_rate_falls_along_a_cosine_to_zero(towers: ClipTowers) -> None:
    learnt = book(total=4)
    rates = []
    for _ in range(6):
        rates.append(learnt.learning_rate)
        before = state(learnt)["tokens"]
        learnt.update(towers, drawn_crops(2), keys(1, 2))
    half = 3.5e-4 / 2
    assert rates == pytest.approx([2 * half, half * (1 + 0.5**0.5), half, half * (1 - 0.5**0.5), 0, 0])
    assert torch.equal(learnt.tokens, before)  # the last steps have the rate 0
    assert book().learning_rate == 3.5e-4
    learnt.total_iterations = 12
    assert learnt.learning_rate == pytest.approx(half)


def test_saved_and_loaded_it_goes_on_to_the_bit(towers: ClipTowers) -> None:
    learnt, resumed = book(total=5), book(total=5)
    for step in range(4):
        if step == 2:
            resumed.load_state_dict(copy.deepcopy(learnt.state_dict()))
        for each in (learnt, resumed)[: 1 + step // 2]:
            each.update(towers, drawn_crops(3, step), keys(step, 50, step))
    assert all(torch.equal(each, resumed.state_dict()[name]) for name, each in learnt.state_dict().items())


def test_the_order_of_crops_and_of_arrival_does_not_matter(towers: ClipTowers) -> None:
    crops, order = drawn_crops(4), torch.tensor([2, 0, 3, 1])
    one, other = book(), book()
    one.update(towers, crops, keys(5, 3, 5, 4))
    other.update(towers, crops[order], keys(5, 3, 5, 4)[order])
    assert torch.equal(one.keys, other.keys) and torch.allclose(one.tokens, other.tokens, atol=1e-6)

    late = book()
    late.update(towers, drawn_crops(1, 9), keys(99))
    late.update(towers, crops, keys(5, 3, 5, 4))
    for key in (3, 4, 5):
        assert torch.allclose(row(late, key)["tokens"], row(one, key)["tokens"], atol=1e-6)
    assert torch.equal(late._initial(5), book()._initial(5)) and not torch.equal(late._initial(5), late._initial(6))
    assert not torch.equal(book(seed=1)._initial(5), late._initial(5))
    many = torch.stack([late._initial(key) for key in range(200)])
    assert float(many.std()) == pytest.approx(0.02, rel=0.02) and abs(float(many.mean())) < 1e-3


def test_crops_without_an_identity_are_not_read(towers: ClipTowers) -> None:
    crops, learnt, other = drawn_crops(4), book(), book()
    crops[1] = torch.nan
    learnt.update(towers, crops, keys(5, -1, 3, -1))
    other.update(towers, crops[[0, 2]], keys(5, 3))
    assert all(torch.equal(each, other.state_dict()[name]) for name, each in learnt.state_dict().items())
    for nothing in (keys(-1, -1), keys()):
        before = state(learnt)
        numbers = learnt.update(towers, crops[: len(nothing)], nothing)
        assert {name: float(each) for name, each in numbers.items()} == NOTHING
        assert int(learnt.iteration) == int(before.pop("iteration")) + 1  # the schedule goes on
        assert all(torch.equal(learnt.state_dict()[name], each) for name, each in before.items())
    with pytest.raises(ValueError, match="only identities with a key"):
        learnt.texts(towers, keys(5, -1))
    with pytest.raises(ValueError, match="3 keys for 4 crops"):
        learnt.update(towers, crops, keys(1, 2, 3))


def test_a_loss_that_is_not_finite_changes_nothing(towers: ClipTowers) -> None:
    learnt = book()
    learnt.update(towers, drawn_crops(2), keys(5, 3))
    before, crops = state(learnt), drawn_crops(3)
    crops[1] = torch.inf
    numbers = learnt.update(towers, crops, keys(5, 4, 3))
    assert not numbers["i2t"].isfinite()
    assert all(torch.equal(learnt.state_dict()[name], each) for name, each in before.items())


def test_a_full_book_names_the_setting(towers: ClipTowers) -> None:
    learnt = book(capacity=3)
    learnt.update(towers, drawn_crops(2), keys(5, 3))
    before = state(learnt)
    with pytest.raises(TrackBookFull, match=r"trackbook\.capacity: .* more than 3 identities, 4 so far"):
        learnt.update(towers, drawn_crops(3), keys(5, 7, 8))
    assert all(torch.equal(learnt.state_dict()[name], each) for name, each in before.items())
    learnt.update(towers, drawn_crops(3), keys(5, 7, 3))  # the last row
    assert learnt.keys.tolist() == [3, 5, 7]


def test_texts_have_the_vectors_after_the_update(towers: ClipTowers) -> None:
    learnt = book()
    before = learnt.texts(towers, keys(5, 2**62 + 1))
    expected = encode_prompts(towers.text, torch.stack([learnt._initial(5), learnt._initial(2**62 + 1)]))
    assert torch.allclose(before, expected, atol=1e-6) and not before.requires_grad
    assert bool((learnt.keys == -1).all())  # asking creates no entry
    learnt.update(towers, drawn_crops(2), keys(2**62 + 1, 5))
    after = learnt.texts(towers, keys(5, 6, 2**62 + 1))
    expected = encode_prompts(towers.text, torch.stack([row(learnt, 5)["tokens"], learnt._initial(6)]))
    assert torch.allclose(after[:2], expected, atol=1e-6) and not torch.allclose(after[0], before[0], atol=1e-6)
    assert learnt.texts(towers, keys()).shape == (0, 48)


def test_chunks_change_nothing(towers: ClipTowers) -> None:
    whole, parts = book(), book(chunk=2)
    for learnt in (whole, parts):
        learnt.update(towers, drawn_crops(7), keys(5, 3, 5, 4, 8, 9, 8))
    assert torch.allclose(whole.tokens, parts.tokens, atol=1e-6)


def test_under_autocast_it_learns_in_float32(towers: ClipTowers) -> None:
    plain, low = book(), book()
    plain.update(towers, drawn_crops(3), keys(5, 3, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        low.update(towers, drawn_crops(3), keys(5, 3, 5))
        texts = low.texts(towers, keys(5))
    assert torch.equal(plain.tokens, low.tokens) and torch.equal(texts, plain.texts(towers, keys(5)))


class Ranks:
    """Threads that stand for ranks: what one gives to a collective, all get."""

    def __init__(self, world: int) -> None:
        self.world, self.barrier, self.own = world, threading.Barrier(world, timeout=120), threading.local()
        self.given: list[Any] = [None] * world

    def all(self, value: Any) -> list[Any]:
        """What every rank gave."""
        self.given[self.own.rank] = value
        self.barrier.wait()
        values = list(self.given)
        self.barrier.wait()
        return values

    def get_rank(self) -> int:
        """Of this thread."""
        return int(self.own.rank)

    def run(
        self, learnt: list[TrackBook], towers: ClipTowers, batches: Sequence[Sequence[tuple[Tensor, Tensor]]]
    ) -> Any:
        """Every rank updates its book with its batch of every step; gives the numbers of ranks and steps."""
        numbers: list[list[dict[str, Tensor]]] = [[] for _ in learnt]

        def work(rank: int) -> None:
            self.own.rank = rank
            try:
                for crops, of in (step[rank] for step in batches):
                    numbers[rank].append(learnt[rank].update(towers, crops, of))
            except BaseException:
                self.barrier.abort()
                raise

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(self.world)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return numbers


def test_two_ranks_learn_what_one_does_with_all_crops(towers: ClipTowers, monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks(2)
    batches = [
        [(drawn_crops(3, 0), keys(5, 3, 5)), (drawn_crops(2, 1), keys(4, 5))],  # one identity on both
        [(drawn_crops(0), keys()), (drawn_crops(2, 2), keys(1, -1))],  # one rank without crops, fewer people than ranks
        [(drawn_crops(0), keys()), (drawn_crops(1, 3), keys(-1))],  # nobody
        [(drawn_crops(4, 4), keys(9, 3, 1, 8)), (drawn_crops(1, 5), keys(9))],  # new ones on both
    ]
    alone, learnt = book(total=5, weight_decay=0.1), [book(total=5, weight_decay=0.1) for _ in range(2)]
    expected = [alone.update(towers, *(torch.cat(parts) for parts in zip(*step, strict=True))) for step in batches]

    monkeypatch.setattr(trackbook, "world_size", lambda: 2)
    monkeypatch.setattr(trackbook, "gather_counts", lambda own, device: ranks.all(own))
    monkeypatch.setattr(trackbook, "gather_rows", lambda own, counts: torch.cat(ranks.all(own)))
    monkeypatch.setattr(trackbook.dist, "get_rank", ranks.get_rank)
    for numbers in ranks.run(learnt, towers, batches):
        assert len(numbers) == len(batches)
        for own, one in zip(numbers, expected, strict=True):
            assert {name: float(each) for name, each in own.items()} == pytest.approx(
                {name: float(each) for name, each in one.items()}, rel=1e-4, abs=1e-6
            )
    first, second, one = (each.state_dict() for each in (*learnt, alone))
    assert all(torch.equal(each, second[name]) for name, each in first.items())  # to the bit
    assert all(torch.allclose(each.float(), one[name].float(), atol=1e-6) for name, each in first.items())
    assert torch.equal(first["keys"], one["keys"]) and torch.equal(first["steps"], one["steps"])


@needs_data("mot15")
def test_texts_separate_two_people_of_a_real_sequence() -> None:
    import numpy as np
    from PIL import Image

    folder = DATA / "mot15" / "PETS09-S2L1"
    rows = [[float(each) for each in line.split(",")] for line in (folder / "gt" / "gt.txt").read_text().splitlines()]
    chosen = range(1, 20, 3)
    seen = [{row[1] for row in rows if row[0] == frame} for frame in chosen]
    two = sorted(set.intersection(*seen))[:2]
    crops, labels = [], []
    for frame in chosen:
        picture = Image.open(next((folder / "img1").glob(f"{frame:06d}.*"))).convert("RGB")
        image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
        people = [row for row in rows if row[0] == frame and row[1] in two]
        boxes = torch.tensor([[x, y, x + w, y + h] for _, _, x, y, w, h, *_ in people])
        crops.append(cut_crops(image, [boxes], size=(64, 32)).images)
        labels += [int(row[1]) for row in people]
    towers, learnt = small_towers(), book(learning_rate=0.02)
    images, of = torch.cat(crops), torch.tensor(labels)
    history = [learnt.update(towers, images, of) for _ in range(40)]
    first, last = (float(each["i2t"] + each["t2i"]) for each in (history[0], history[-1]))
    who, columns = of.unique(return_inverse=True)
    right = similarity(towers.image(images), learnt.texts(towers, who)).argmax(dim=1) == columns
    assert len(labels) == 14 and last < 0.5 * first and float(right.float().mean()) > 0.9
