"""The virtual camera: what it sees is where the box says, it never looks beyond the photograph, it repeats itself."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from trackmill.pipeline.demo.camera import HEIGHT, WIDTH, Pose, camera_path, enlarged, seen_box, take

PATCH = (255, 0, 255)


def photograph(shape: str) -> tuple[Image.Image, np.ndarray]:
    """A dark picture with one bright patch, and the middles of the patch's pixels."""
    picture = Image.new("RGB", (600, 460), (0, 40, 0))
    draw = ImageDraw.Draw(picture)
    getattr(draw, shape)((270, 200, 329, 259), fill=PATCH)
    y, x = np.nonzero(np.asarray(picture)[..., 0] == 255)
    return picture, np.column_stack([x, y]) + 0.5


@pytest.mark.parametrize("shape", ["rectangle", "ellipse"])
@pytest.mark.parametrize(
    "pose",
    [
        Pose(x=300, y=230),
        Pose(x=240.3, y=251.7, zoom=1.6, angle=0.4),
        Pose(x=350.9, y=200.2, zoom=0.8, angle=-0.7, gain=0.8),
        Pose(x=300 + WIDTH / 2 - 10, y=230, zoom=1.0),  # the patch is cut by the left edge
    ],
)
def test_a_patch_is_where_its_box_says(shape: str, pose: Pose) -> None:
    picture, pixels = photograph(shape)
    view = take(picture, pose).astype(int)
    y, x = np.nonzero(view[..., 0] > 0.5 * pose.gain * 255)
    found = x.min(), y.min(), x.max() + 1, y.max() + 1
    box, visible = seen_box(pixels, pose)
    # A pixel counts as patch when half of it is, so an edge may be half a pixel off, and a turned corner a whole one.
    np.testing.assert_allclose(found, box, atol=1.3 if pose.angle else 0.6)
    inside = len(x) / (len(pixels) * pose.zoom**2)
    assert visible == pytest.approx(inside, abs=0.04)


def test_what_is_out_of_view_has_no_box() -> None:
    _, pixels = photograph("rectangle")
    assert seen_box(pixels, Pose(x=0, y=0)) == ((0.0, 0.0, 0.0, 0.0), 0.0)


def test_the_gain_brightens() -> None:
    picture = Image.new("RGB", (600, 460), (100, 50, 200))
    assert take(picture, Pose(x=300, y=230, gain=1.2))[120, 160].tolist() == [120, 60, 240]


@pytest.mark.parametrize("size", [(512, 512), (600, 400), (1411, 300)])
def test_the_camera_stays_within_the_photograph(size: tuple[int, int]) -> None:
    picture = enlarged(Image.new("L", size, 255))
    assert picture.mode == "RGB"
    for seed in range(4):
        path = camera_path(picture.width, picture.height, 30, np.random.default_rng(seed))
        corners = np.array([[0, 0], [WIDTH, 0], [0, HEIGHT], [WIDTH, HEIGHT]])
        for pose in path:
            matrix = pose.matrix()
            seen = np.linalg.solve(matrix[:, :2], (corners - matrix[:, 2]).T).T
            assert (seen > -1e-6).all() and (seen < np.array(picture.size) + 1e-6).all()
        dim = Pose(x=path[7].x, y=path[7].y, zoom=path[7].zoom, angle=path[7].angle)
        assert take(picture, dim).min() == 255
        # It moves, and comes back across.
        x = np.array([pose.x for pose in path])
        assert np.ptp(x) > 40
        assert np.count_nonzero(np.diff(np.sign(np.diff(x)))) >= 2


def test_the_way_is_a_function_of_the_seed() -> None:
    def way(seed: int) -> list[Pose]:
        return camera_path(700, 500, 10, np.random.default_rng(seed))

    assert way(1) == way(1)
    assert way(1) != way(2)


def test_a_photograph_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match=f"too small for a view of {WIDTH} x {HEIGHT}"):
        camera_path(WIDTH, HEIGHT, 5, np.random.default_rng(0))
