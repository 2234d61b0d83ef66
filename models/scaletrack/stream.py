"""A video frame by frame: the numbers of the whole clip at once, while only the buffer of earlier frames is held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from trackmill.models.scaletrack.frames import as_tensor, prepare
from trackmill.models.scaletrack.variants import Variant


class Network(Protocol):
    """What a stream needs of `trackmill.models.scaletrack.model.ScaleTrack`."""

    @property
    def variant(self) -> Variant:
        """Its parts."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""

    @property
    def divisor(self) -> int:
        """Sides of its input are multiples of so many pixels."""

    def backbone_maps(self, frames: Tensor, sizes: Tensor | None = None) -> list[Tensor]:
        """See `ScaleTrack.backbone_maps`."""

    def encode_maps(
        self,
        maps: Sequence[Tensor],
        boxes: Tensor,
        frame_of_box: Tensor,
        sizes: Tensor | None = None,
        *,
        clips: int = 1,
        earlier: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """See `ScaleTrack.encode_maps`."""


class Stream:
    """One video; `trackmill.models.scaletrack.model.ScaleTrack.stream` makes it.

    Args:
        model: whose weights are used. Several streams may share it.
    """

    def __init__(self, model: Network) -> None:
        self.model = model
        self._earlier: Tensor | None = None
        self._shapes: list[tuple[int, ...]] = []

    def reset(self) -> None:
        """Forget all frames: the next one is the first of another video."""
        self._earlier = None

    @torch.no_grad()
    def step(self, frame: Tensor, boxes: Tensor) -> Tensor:
        """Embeddings of the boxes of the next frame. A frame without boxes has to be given too: later ones look at it.

        Args:
            frame: (3, H, W) float RGB 0..1.
            boxes: (N, 4) xyxy in pixels of it; N may be 0.

        Returns:
            (N, D) of unit length.

        Raises:
            ValueError: as `ScaleTrack.forward`. The buffer is as before then.
        """
        frame = as_tensor(frame, "frame")
        if frame.ndim != 3:
            raise ValueError(f"frame must have the shape (3, H, W), not {tuple(frame.shape)}")
        model = self.model
        ready = prepare(frame[None], [boxes], model.variant, model.device)
        maps = model.backbone_maps(ready.frames, ready.sizes)
        return self._advance(maps, ready.boxes, ready.sizes)

    @torch.no_grad()
    def step_maps(self, maps: Sequence[Tensor], boxes: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """As `step`, from maps that the backbone made of the frame, for those who need the maps themselves.

        Args:
            maps: all maps of the backbone, (1, C_l, H_l, W_l) each, as `ScaleTrack.backbone_maps` gives them.
            boxes: (N, 4) xyxy in pixels of the network's input.
            size: height and width of the picture in this input, which is padded right and below; None: all of it.

        Raises:
            ValueError: the maps have other shapes than those of the frames before. The buffer is as before then.
        """
        device = self.model.device
        sizes = None if size is None else torch.tensor([size], device=device)
        return self._advance(maps, torch.as_tensor(boxes, dtype=torch.float32).to(device), sizes)

    def _advance(self, maps: Sequence[Tensor], boxes: Tensor, sizes: Tensor | None) -> Tensor:
        shapes = [tuple(each.shape[1:]) for each in maps]
        if self._earlier is not None and shapes != self._shapes:
            raise ValueError(
                f"maps of {shapes} do not follow maps of {self._shapes}: frames of a stream are padded to one size; "
                "call reset() before another video"
            )
        self._shapes = shapes
        frame_of_box = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        layers, self._earlier = self.model.encode_maps(maps, boxes, frame_of_box, sizes, earlier=self._earlier)
        return layers[-1]
