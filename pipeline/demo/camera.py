"""A virtual camera over a photograph: it pans, zooms, turns, changes its exposure, and what is where is known exactly.

Coordinates are continuous: pixel (i, j) covers [i, i + 1) x [j, j + 1). A point p of the photograph is seen at
q = zoom R(angle) (p - centre) + (width, height) / 2 of the view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trackmill.schemas.errors import InputError

WIDTH, HEIGHT = 320, 240
"""Of the view, in pixels."""
FPS = 10
_ZOOM, _DEGREES, _STOPS = 1.2, 6.0, 0.3
"""Furthest zoom in or out, turn to either side, and change of exposure, in steps of twice the light."""
_ROOM = 1.75
_CYCLES = (1.5, 1.0, 0.8, 0.6, 0.5)
"""Over a sequence: of x, y, zoom, angle, exposure. One and a half across: what leaves the view comes back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """How the camera stands in one frame.

    Args:
        x, y: the point of the photograph in the middle of the view, in its pixels.
        zoom: pixels of the view for one of the photograph.
        angle: by which the photograph appears turned, radians, from x to y.
        gain: factor of the pixel values.
    """

    x: float
    y: float
    zoom: float = 1.0
    angle: float = 0.0
    gain: float = 1.0

    def matrix(self) -> NDArray[np.float64]:
        """(2, 3): view from photograph, for column vectors (x, y, 1)."""
        cosine, sine = self.zoom * math.cos(self.angle), self.zoom * math.sin(self.angle)
        turn = np.array([[cosine, -sine], [sine, cosine]])
        shift = np.array([WIDTH / 2, HEIGHT / 2]) - turn @ [self.x, self.y]
        return np.column_stack([turn, shift])


def enlarged(image: Image.Image) -> Image.Image:
    """The photograph as RGB, scaled up or down until it is just `_ROOM` times the view each way."""
    factor = _ROOM * max(WIDTH / image.width, HEIGHT / image.height)
    size = math.ceil(image.width * factor - 1e-6), math.ceil(image.height * factor - 1e-6)
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def camera_path(width: int, height: int, frames: int, rng: np.random.Generator) -> list[Pose]:
    """A smooth way over a photograph, `frames` poses long, that never sees beyond its edges.

    Args:
        width, height: of the photograph, as `enlarged` makes it.
        frames: 1 or more.
        rng: decides where the sine waves of position, zoom, angle and exposure begin.

    Raises:
        ValueError: the photograph is too small for the view.
    """
    phases = rng.uniform(0, 2 * math.pi, len(_CYCLES))
    poses = []
    for frame in range(frames):
        x, y, zoom, angle, gain = np.sin(2 * math.pi * np.array(_CYCLES) * frame / frames + phases).tolist()
        zoom, angle = _ZOOM**zoom, math.radians(_DEGREES) * angle
        # Half of the upright box around the turned view, in pixels of the photograph.
        across = (WIDTH * math.cos(angle) + HEIGHT * abs(math.sin(angle))) / 2 / zoom
        down = (HEIGHT * math.cos(angle) + WIDTH * abs(math.sin(angle))) / 2 / zoom
        room_x, room_y = width / 2 - across, height / 2 - down
        if room_x < 0 or room_y < 0:
            raise InputError(f"a photograph of {width} x {height} is too small for a view of {WIDTH} x {HEIGHT}")
        centre = width / 2 + room_x * x, height / 2 + room_y * y
        poses.append(Pose(x=centre[0], y=centre[1], zoom=zoom, angle=angle, gain=2 ** (_STOPS * gain)))
    return poses


def take(photograph: Image.Image, pose: Pose) -> NDArray[np.uint8]:
    """(HEIGHT, WIDTH, 3) uint8 RGB: what the camera sees, bicubic; black beyond the photograph."""
    matrix = np.vstack([pose.matrix(), [0, 0, 1]])
    coefficients = np.linalg.inv(matrix)[:2].ravel().tolist()
    view = photograph.transform((WIDTH, HEIGHT), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    seen: NDArray[np.uint8] = np.clip(np.rint(np.asarray(view, np.float32) * pose.gain), 0, 255).astype(np.uint8)
    return seen


def seen_box(pixels: NDArray[np.float64], pose: Pose) -> tuple[tuple[float, float, float, float], float]:
    """Where the camera sees some pixels of the photograph.

    Args:
        pixels: (N, 2) middles (x, y) of an object's pixels, at least one.
        pose: of the camera.

    Returns:
        The tight box `xyxy` around those that are in view, cut at the view's edges (zeros where none is), and the share
        of the pixels that are in view.
    """
    matrix = pose.matrix()
    points = pixels @ matrix[:, :2].T + matrix[:, 2]
    size = np.array([WIDTH, HEIGHT])
    inside = ((points >= 0) & (points < size)).all(axis=1)
    if not inside.any():
        return (0.0, 0.0, 0.0, 0.0), 0.0
    # A turned square pixel reaches so far from its middle.
    reach = np.abs(matrix[0, :2]).sum() / 2
    low = np.clip(points[inside].min(axis=0) - reach, 0, size)
    high = np.clip(points[inside].max(axis=0) + reach, 0, size)
    return (float(low[0]), float(low[1]), float(high[0]), float(high[1])), float(inside.mean())
