"""Who can be seen in the packaged video, annotated by hand for this demonstration: three people, one after another.

The second is a cyclist who waits at a crossing; a van and a car hide him for almost a second. Of the third only the
legs are in view.
"""

from __future__ import annotations

from itertools import pairwise

from trackmill.pipeline.demo.objects import Truth

_SEEN: tuple[tuple[int, tuple[tuple[int, float, float, float, float], ...]], ...] = (
    (
        1,
        (
            (30, 165, 0, 384, 272),
            (32, 192, 0, 410, 272),
            (34, 208, 0, 440, 272),
            (36, 255, 0, 485, 272),
            (38, 272, 0, 528, 272),
            (40, 340, 0, 585, 272),
            (42, 385, 0, 636, 272),
            (44, 440, 0, 640, 272),
            (46, 517, 62, 640, 272),
        ),
    ),
    (2, ((76, 372, 52, 514, 272), (78, 373, 46, 510, 272), (80, 363, 45, 500, 205), (82, 372, 43, 470, 150))),
    (
        2,
        (
            (104, 340, 33, 470, 185),
            (106, 335, 25, 480, 205),
            (108, 340, 18, 475, 272),
            (114, 342, 10, 478, 272),
            (122, 342, 4, 484, 272),
            (126, 346, 0, 482, 272),
            (136, 350, 0, 490, 272),
        ),
    ),
    (
        3,
        (
            (188, 45, 0, 280, 245),
            (190, 60, 0, 285, 250),
            (192, 97, 0, 303, 248),
            (194, 180, 0, 316, 248),
            (196, 206, 0, 403, 250),
            (198, 206, 0, 497, 262),
            (200, 222, 0, 527, 272),
            (202, 277, 0, 510, 270),
            (204, 369, 0, 512, 272),
            (206, 421, 0, 591, 272),
            (208, 428, 0, 640, 262),
            (210, 436, 0, 640, 272),
            (212, 495, 80, 640, 272),
        ),
    ),
)
"""Stretches without a gap: identity, then frame of the video, from 0, and box `xyxy` in its pixels."""

NUM_PEOPLE = len({identity for identity, _ in _SEEN})


def people(frames: int, stride: int) -> list[Truth]:
    """Their boxes in every `stride`-th frame of the video, `frames` of them; identities from 1.

    Between two annotated frames a box moves straight from one to the other.
    """
    rows = []
    for frame in range(frames):
        for identity, stretch in _SEEN:
            box = _between(stretch, frame * stride)
            if box is not None:
                rows.append(Truth(frame=frame, identity=identity, box=box, visible=1.0))
    return rows


def _between(
    stretch: tuple[tuple[int, float, float, float, float], ...], frame: int
) -> tuple[float, float, float, float] | None:
    for (begin, *first), (end, *second) in pairwise(stretch):
        if begin <= frame <= end:
            share = (frame - begin) / (end - begin)
            x0, y0, x1, y1 = (one + share * (other - one) for one, other in zip(first, second, strict=True))
            return (x0, y0, x1, y1)
    return None
