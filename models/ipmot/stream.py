"""A video frame by frame: pictures in, boxes with identities out.

    stream = Stream(model)                # an IpMot in evaluation mode; several streams may share it
    found = stream.step(image)            # (H, W, 3) uint8 RGB: found.ids, found.boxes, found.scores
    stream.reset()                        # another video

Held from frame to frame are the live tracks alone, at most `max_tracks` of them: memory does not grow with the video.
Frames may change their size: what is held is relative to the picture, so tracks go on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from trackmill.models.detectors.base import check_image
from trackmill.models.ipmot.frames import fitted, network_input, resized
from trackmill.schemas.boxes import Boxes
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    from trackmill.models.ipmot.model import FrameOutput, IpMot
    from trackmill.models.ipmot.queries import TrackQueries
    from trackmill.models.ipmot.variants import Variant

log = logging.getLogger("trackmill")

Stage = Callable[[str], AbstractContextManager[None]]
"""Counts the time of a named part: `with stage("encode"): ...`."""


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """How a stream decides; `of` a variant are those that the variant says.

    Args:
        score_threshold: a track with a score s of at least this is seen in the frame, and a detect query becomes a new
            identity. Higher: fewer false tracks, more people missed (paper, section 4.2: 0.5 for both).
        miss_tolerance: a track ends when it has not been seen in so many frames one after the other [D]. Higher:
            people are found again after longer occlusions, and false tracks live longer.
        min_area: boxes of at most so many square pixels of the frame are not output; their tracks live on.
        short_side, long_side: see `fitted`.
        max_tracks: live tracks, seen or not, at most. Nothing of the paper: it bounds time and memory of each frame.
        precision: of the network's arithmetic; `bfloat16` is faster on a GPU, and rounds.
    """

    score_threshold: float = 0.5
    miss_tolerance: int = 15
    min_area: float = 100.0
    short_side: int = 800
    long_side: int = 1536
    max_tracks: int = 1000
    precision: Literal["float32", "bfloat16"] = "float32"

    @classmethod
    def of(cls, variant: Variant, **changes: object) -> StreamSettings:
        """What the variant says, with changes; a change to None is none."""
        own = {
            name: getattr(variant, name)
            for name in ("score_threshold", "miss_tolerance", "min_area", "short_side", "long_side")
        }
        return cls(**{**own, **{name: value for name, value in changes.items() if value is not None}})

    def __post_init__(self) -> None:
        for name in ("miss_tolerance", "short_side", "long_side", "max_tracks"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.score_threshold <= 1:
            raise InputError(f"score_threshold must be in 0..1, not {self.score_threshold}")
        if not 0 <= self.min_area < math.inf:
            raise InputError(f"min_area must be 0 or more and finite, not {self.min_area}")
        if self.precision not in ("float32", "bfloat16"):
            raise InputError(f"precision must be float32 or bfloat16, not {self.precision!r}")
        if self.long_side < self.short_side:
            raise InputError(f"long_side ({self.long_side}) must not be below short_side ({self.short_side})")


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamObjects:
    """N objects of one frame: tracks in the order of their birth.

    Args:
        ids: (N,) int64, from 0 in the order in which identities are first output.
        boxes: (N, 4) float32 xyxy in pixels of the frame. They may leave it: ground truth of MOT17 and MOT20 does so
            too, and is compared with boxes as they are, so nothing is clipped.
        scores: (N,) float32, s of Eq. 6.
        indices: (N,) int64, places among the frame's queries: detect queries, then track queries.
    """

    ids: NDArray[np.int64]
    boxes: Boxes
    scores: NDArray[np.float32]
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)


class Stream:
    """Tracks one video.

    Args:
        model: in evaluation mode. With or without QBS, of every `track_update`.
        settings: see there; None: the variant's.
    """

    def __init__(self, model: IpMot, settings: StreamSettings | None = None) -> None:
        self.model = model
        self.settings = settings or StreamSettings.of(model.variant)
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next frame is the first of another video, and identities begin at 0 again."""
        self._tracks: TrackQueries | None = None
        # Of each live track, in the order of its queries: how often in a row it was not seen, and what it is called in
        # the output; -1: it has not been output so far.
        self._misses, self._names = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._born, self.num_tracks, self._noted = 0, 0, False

    @property
    def num_live(self) -> int:
        """Tracks that are held, seen in the latest frame or not."""
        return len(self._misses)

    @torch.inference_mode()
    def step(self, image: NDArray[np.uint8], stage: Stage = lambda name: nullcontext()) -> StreamObjects:
        """Track the next frame.

        Args:
            image: (H, W, 3) uint8 RGB, of any size.
            stage: counts time: `resize`, `encode` (backbone and encoder), `decode boxes` (decoder and scores), `update`
                (who lives on, and the queries of the next frame). On a GPU work is waited for once a frame, in `decode
                boxes`: time of the parts before it is counted there.

        Raises:
            InputError: the image is none, or the network gives numbers that are not finite. The stream is as before
                then.
        """
        check_image(image)
        settings, variant = self.settings, self.model.variant
        height, width = image.shape[:2]
        device = next(self.model.parameters()).device
        with stage("resize"):
            size = fitted(height, width, settings.short_side, settings.long_side)
            # A picture that must not be written to is copied: torch knows no such tensors, and warns.
            pixels = torch.from_numpy(np.require(image, requirements=("C", "W"))).to(device).permute(2, 0, 1)[None]
            detector = self.model.detector
            images, masks = network_input(resized(pixels, size), detector.mean, detector.std)
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            with stage("encode"):
                maps = self.model.encode(images, masks)
            with stage("decode boxes"):
                output = self.model.step(maps, self._tracks)
                rows = torch.cat([output.scores[:, None], output.boxes[-1]], dim=1).float().cpu().numpy()
            with stage("update"):
                if not np.isfinite(rows).all():
                    raise InputError(
                        f"{variant.name}: the network gives scores or boxes that are not finite"
                        + ("; try precision float32" if settings.precision != "float32" else "")
                    )
                return self._advance(output, rows[:, 0], _pixels(rows[:, 1:], height, width))

    def _advance(self, output: FrameOutput, scores: NDArray[np.float32], boxes: Boxes) -> StreamObjects:
        """Decide who lives on, and make the queries of the next frame."""
        settings, num_detect = self.settings, output.num_detect
        seen = scores >= settings.score_threshold
        self._misses = np.where(seen[num_detect:], 0, self._misses + 1)
        alive = np.flatnonzero(self._misses < settings.miss_tolerance)
        newborn = np.flatnonzero(seen[:num_detect])
        alive, newborn = self._within_limit(alive, newborn, scores)
        places = np.concatenate([num_detect + alive, newborn])
        self._misses = np.concatenate([self._misses[alive], np.zeros(len(newborn), np.int64)])
        names = np.concatenate([self._names[alive], np.full(len(newborn), -1, np.int64)])
        corners = boxes[places]
        large = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]) > settings.min_area
        shown = np.flatnonzero((self._misses == 0) & large)
        unnamed = shown[names[shown] < 0]
        names[unnamed] = self.num_tracks + np.arange(len(unnamed))
        self.num_tracks += len(unnamed)
        self._names = names
        self._tracks = self._next_tracks(output, places, len(newborn))
        return StreamObjects(
            ids=names[shown], boxes=corners[shown], scores=scores[places[shown]], indices=places[shown]
        )

    def _next_tracks(self, output: FrameOutput, places: NDArray[np.int64], num_newborn: int) -> TrackQueries | None:
        # The network does not look at identities while it tracks; each track has another one all the same.
        ids = torch.arange(self._born, self._born + num_newborn)
        self._born += num_newborn
        if self._tracks is not None:
            old = torch.from_numpy(places[: len(places) - num_newborn] - output.num_detect)
            ids = torch.cat([self._tracks.ids[old], ids])
        keep = torch.from_numpy(places).to(output.scores.device, non_blocking=True)
        return self.model.next_tracks(output, self._tracks, keep, ids)

    def _within_limit(
        self, alive: NDArray[np.int64], newborn: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """At most `max_tracks`: who is seen stays, then come newborns by score, then who was seen last."""
        most = self.settings.max_tracks
        if len(alive) + len(newborn) <= most:
            return alive, newborn
        if not self._noted:
            log.warning(
                "more than %d live tracks: those that have not been seen for longest end early, and the least sure new "
                "ones do not begin (max_tracks)",
                most,
            )
            self._noted = True
        num_seen = int((self._misses[alive] == 0).sum())
        best = np.argsort(-scores[newborn], kind="stable")[: most - num_seen]
        latest = np.argsort(self._misses[alive], kind="stable")[: most - len(best)]
        return alive[np.sort(latest)], newborn[np.sort(best)]


def _pixels(boxes: NDArray[np.float32], height: int, width: int) -> Boxes:
    """(Q, 4) cxcywh in 0..1 of the picture to xyxy in its pixels."""
    centres, halves = boxes[:, :2], boxes[:, 2:] / 2
    scale = np.array([width, height, width, height], np.float32)
    return np.concatenate([centres - halves, centres + halves], axis=1) * scale
