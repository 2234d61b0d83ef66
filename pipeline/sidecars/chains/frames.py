"""The frames of a clip that are linked, stored ones and those in between, with their boxes and the cuts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.shots.cuts import cut_finder
from trackmill.pipeline.shots.small_frames import small_frame
from trackmill.pipeline.sidecars.chains.counts import (
    AS_STORED,
    BETWEEN,
    BEYOND,
    CUTS_AS_STORED,
    DUPLICATE,
    HOLES,
    LOW,
    NATIVE,
    OUTSIDE,
)
from trackmill.pipeline.sidecars.chains.settings import PROPOSALS, SIDECAR, VideoChainSettings
from trackmill.pipeline.sidecars.chains.source_frames import NotAtHand, SourceReader, indices_between, source_of
from trackmill.pipeline.sidecars.producer import Rows
from trackmill.pipeline.sidecars.producers import detector_choice
from trackmill.schemas.boxes import Boxes, clip_boxes, nms
from trackmill.schemas.errors import InputError
from trackmill.schemas.sample import FrameRecord

log = logging.getLogger("trackmill")


@dataclass
class LinkedFrames:
    """The frames of a clip that are linked, stored ones and those in between, in order: T of them.

    Args:
        indices: their numbers in the source.
        stored: which frame of the sample each is; -1: in between.
        cuts: (T - 1,) see `link_boxes`.
        num_cuts: transitions, of one frame or many.
        boxes, scores, labels: of each frame, the best box first.
        numbers: of each frame the places of its boxes in what was given, before any was left out.
    """

    indices: list[int] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    cuts: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    num_cuts: int = 0
    boxes: list[Boxes] = field(default_factory=list)
    scores: list[NDArray[np.float32]] = field(default_factory=list)
    labels: list[list[str]] = field(default_factory=list)
    numbers: list[NDArray[np.int64]] = field(default_factory=list)


class FrameCollector:
    """Looks at clips: has boxes found and cuts sought in stored frames and those in between.

    Args:
        config: see `VideoChainSettings`.
        detect: what `detector_choice.build` gives; None where boxes are stored ones.
    """

    def __init__(self, config: VideoChainSettings, detect: detector_choice.Detect | None) -> None:
        self._config, self._detect = config, detect
        self._needs_pixels = detect is not None and not config.detector.startswith(detector_choice.FILE)
        self._find_cuts = cut_finder(config.cuts, config.device)
        self._reader = SourceReader(config.source)

    def collect(self, sample: Sample, others: Mapping[str, Rows], counts: Counter[str]) -> LinkedFrames:
        """Boxes and cuts of a clip: at the native rate if that can be, else of the stored frames.

        Args:
            sample: the clip.
            others: rows of the sidecars that settings name.
            counts: what is counted is added here.

        Raises:
            NotAtHand: frames in between are required, and cannot be had.
            LimitReached, OSError: reading the source takes too much, or storage failed for good.
        """
        config, record = self._config, sample.record
        indices = [frame.index for frame in record.frames]
        step_by_step = all(a < b for a, b in pairwise(indices))
        between = indices_between(indices, record.origin.fps, config.link_fps) if step_by_step else []
        needed = bool(between) and (self._detect is not None or self._find_cuts is not None)
        reason = "never" if between and config.native == "never" else ""
        if needed and not reason:
            try:
                watched = self._look(sample, between, others, counts)
            except NotAtHand as error:
                if config.native == "required":
                    raise
                log.warning("%s: stored frames alone are looked at, because of its source: %s", sample.key, error)
                reason = error.why
            else:
                return self._counted(watched, between, "" if self._detect is not None else "boxes", counts)
        if between and self._find_cuts is not None:
            counts[CUTS_AS_STORED] += 1
        if self._detect is not None and not self._needs_pixels and reason != "never":
            # Files tell what is in the frames in between, whoever has their pixels.
            return self._counted(self._look(sample, between, others, counts, read=False), between, "", counts)
        watched = self._look(sample, [], others, counts)
        return self._counted(watched, between, reason or ("boxes" if between else ""), counts)

    def _counted(
        self, watched: LinkedFrames, between: Sequence[int], reason: str, counts: Counter[str]
    ) -> LinkedFrames:
        """Count what was looked at, and at which rate: at the stored one because of `reason`, if there is one."""
        seen = sum(place < 0 for place in watched.stored)
        counts[BETWEEN] += seen
        if between and not seen and not reason:
            reason = "none"
        counts[AS_STORED[reason] if reason else NATIVE] += len(watched.stored) > 1 or bool(reason)
        if self._find_cuts is not None:
            counts[f"cuts ({self._config.cuts})"] += watched.num_cuts
        return watched

    def _look(
        self,
        sample: Sample,
        between: Sequence[int],
        others: Mapping[str, Rows],
        counts: Counter[str],
        read: bool = True,
    ) -> LinkedFrames:
        """Boxes and cuts of the stored frames and of those `between`, the latter without pixels if not to be `read`.

        Raises:
            NotAtHand, LimitReached, OSError: see `SourceReader.read`.
        """
        frames = list(enumerate(sample.record.frames))
        merged = sorted([(frame.index, place) for place, frame in frames] + [(index, -1) for index in between])
        if not between:  # their numbers may be anything
            merged = [(frame.index, place) for place, frame in frames]
        clip = _Clip(sample, [index for index, _ in merged])
        watched, own = LinkedFrames(), Counter[str]()
        seen: list[int] = []
        small: list[NDArray[np.uint8]] = []
        linked: list[int] = []
        pixels = self._needs_pixels or self._find_cuts is not None
        for begin in range(0, len(merged), self._config.batch_size):
            batch = range(begin, min(begin + self._config.batch_size, len(merged)))
            looked_at = [number for number in batch if pixels and (read or merged[number][1] >= 0)]
            clip.images = self._images(sample, merged, looked_at)
            if self._find_cuts is not None:
                seen += clip.images
                small += [small_frame(image) for image in clip.images.values()]
            for number, found in self._boxes(sample, clip, merged, batch, others):
                linked.append(number)
                self._keep(sample, watched, merged[number], found, own)
        clip.images = {}
        for name, count in own.items():
            counts[name] += count
        counts[HOLES] += self._detect is not None and len(frames) < len(linked) < len(merged)
        steps = np.zeros(max(len(merged) - 1, 0), bool)
        if self._find_cuts is not None and len(small) > 1:
            flagged = self._find_cuts(np.stack(small))
            for place in np.flatnonzero(flagged):
                steps[seen[place] : seen[place + 1]] = True
            watched.num_cuts = int((np.diff(flagged.astype(np.int8), prepend=0) > 0).sum())
        watched.cuts = np.array([steps[a:b].any() for a, b in pairwise(linked)], bool)
        return watched

    def _images(
        self, sample: Sample, merged: Sequence[tuple[int, int]], batch: Sequence[int]
    ) -> dict[int, NDArray[np.uint8]]:
        """Frames of a batch by their places in `merged`; what cannot be read in between is missing."""
        wanted = [number for number in batch if merged[number][1] < 0]
        images: dict[int, NDArray[np.uint8] | None] = {}
        if wanted:
            source = source_of(sample.record, self._config.source.moved)
            images.update(zip(wanted, self._reader.read(source, [merged[number][0] for number in wanted])))
        images.update((number, sample.image(merged[number][1])) for number in batch if merged[number][1] >= 0)
        return {number: image for number in batch if (image := images[number]) is not None}

    def _boxes(
        self,
        sample: Sample,
        clip: _Clip,
        merged: Sequence[tuple[int, int]],
        batch: Sequence[int],
        others: Mapping[str, Rows],
    ) -> Iterator[tuple[int, tuple[Boxes, NDArray[np.float32], list[str]]]]:
        """Boxes, scores and labels of those frames of a batch of which there are any, by their places in `merged`."""
        if self._detect is not None:
            able = list(clip.images) if self._needs_pixels else list(batch)
            for number, found in zip(able, self._detect(clip, able) if able else [], strict=True):
                labels = [found.names[i] if found.names else str(i) for i in found.labels.tolist()]
                yield number, (found.boxes, found.scores, labels)
            return
        for number in batch:
            place = merged[number][1]
            if place < 0:
                continue
            if self._config.boxes == PROPOSALS:
                own = sample.record.frames[place].proposals
                boxes = np.array(own.boxes, np.float32).reshape(-1, 4)
                yield number, (boxes, np.array(own.scores, np.float32), [""] * len(boxes))
            else:
                yield number, _rows_of(self._config.boxes.removeprefix(SIDECAR), others, place)

    def _keep(
        self,
        sample: Sample,
        watched: LinkedFrames,
        which: tuple[int, int],
        found: tuple[Boxes, NDArray[np.float32], list[str]],
        counts: Counter[str],
    ) -> None:
        """Add a frame with those of its boxes that are linked; what is left out of stored frames is counted."""
        config, stored = self._config, sample.record.stored
        boxes, scores, labels = found
        boxes = clip_boxes(boxes, stored.height, stored.width)
        low = scores < np.float32(config.min_score)
        outside = ~low & ((boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1]))
        left = np.flatnonzero(~low & ~outside)
        unique = left[nms(boxes[left], scores[left], config.nms_iou)]
        kept = unique[: config.max_boxes]
        if which[1] >= 0:
            dropped = (low.sum(), outside.sum(), len(left) - len(unique), len(unique) - len(kept))
            for name, count in zip((LOW, OUTSIDE, DUPLICATE, BEYOND), dropped):
                counts[name] += int(count)
        watched.indices.append(which[0])
        watched.stored.append(which[1])
        watched.boxes.append(boxes[kept])
        watched.scores.append(scores[kept])
        watched.labels.append([labels[i] for i in kept.tolist()])
        watched.numbers.append(kept)


class _Clip(Sample):
    """A sample with the frames in between, as detectors are asked about it; `images` are those of the batch."""

    def __init__(self, sample: Sample, indices: Sequence[int]) -> None:
        # Nothing but the number of a frame in between is known.
        values: list[dict[str, Any]] = [{"index": index} for index in indices]
        frames = [FrameRecord.model_construct(**each) for each in values]
        record = sample.record.model_copy(update={"frames": frames})
        super().__init__(sample.shard, sample.offset, sample.size, record, [], None)
        self.images: dict[int, NDArray[np.uint8]] = {}

    def image(self, frame: int) -> NDArray[np.uint8]:
        """See `Sample.image`."""
        return self.images[frame]


def _rows_of(name: str, others: Mapping[str, Rows], place: int) -> tuple[Boxes, NDArray[np.float32], list[str]]:
    """Boxes, scores and labels of a frame in another sidecar.

    Raises:
        InputError: it has no boxes.
    """
    rows = others.get(name)
    if rows is None:  # of a forecast, which only wants the time
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32), []
    if "box" not in rows:
        raise InputError(f"sidecar {name}: has no column `box`, only {', '.join(rows)}")
    own = np.flatnonzero(rows["frame"] == place)
    scores = np.asarray(rows["score"][own], np.float32) if "score" in rows else np.ones(len(own), np.float32)
    order = np.argsort(-scores, kind="stable")
    labels = [str(rows["label"][i]) if "label" in rows else "" for i in own[order].tolist()]
    return np.asarray(rows["box"][own[order]], np.float32), scores[order], labels
