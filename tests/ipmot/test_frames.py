"""From pictures to what the network reads."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from trackmill.models.ipmot.frames import fitted, network_input, resized  # noqa: E402


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (1080, 1920, (800, 1422)),  # the shorter side decides
        (480, 640, (800, 1067)),  # small pictures are enlarged
        (1920, 1080, (1422, 800)),  # upright
        (600, 2000, (461, 1536)),  # the longer side decides
        (1, 5000, (1, 1536)),  # nothing vanishes
    ],
)
def test_the_shorter_side_decides_unless_the_longer_one_is_too_long(
    height: int, width: int, expected: tuple[int, int]
) -> None:
    assert fitted(height, width, 800, 1536) == expected


def test_padding_is_right_and_below_and_zero_behind_the_norm() -> None:
    images = torch.full((2, 3, 33, 64), 0.5)
    ready, masks = network_input(images, mean=(0.5, 0.25, 0.5), std=(1.0, 0.5, 0.5))
    assert ready.shape == (2, 3, 64, 64) and masks.shape == (2, 64, 64) and masks.dtype == torch.bool
    assert not masks[:, :33].any() and masks[:, 33:].all()
    assert ready[0, :, 0, 0].tolist() == [0, 0.5, 0]
    assert (ready[:, :, 33:] == 0).all()


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    bytes_ = torch.randint(0, 256, (1, 3, 40, 50), dtype=torch.uint8)
    assert torch.equal(resized(bytes_, (40, 50)), bytes_.float() / 255)
    assert torch.equal(resized(bytes_.float() / 255, (40, 50)), bytes_.float() / 255)
    assert resized(bytes_, (20, 25)).shape == (1, 3, 20, 25)
    assert resized(torch.full((1, 3, 40, 50), 128, dtype=torch.uint8), (80, 70)).sub(128 / 255).abs().max() < 1e-6
