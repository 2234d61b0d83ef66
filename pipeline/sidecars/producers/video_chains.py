"""Chains of a clip, linked at the native rate of its video: pseudo-masklets out of video that nobody annotated.

Mining stores every few frames of a video. From one stored frame to the next a person may have walked out of the own
box, and what overlaps it there is somebody else. So the frames in between are read again from the source, a detector
looks at all of them, boxes are linked from frame to frame (`trackmill.pipeline.sidecars.chains.link`), and what is
stored are the boxes of the stored frames, which are linked through those in between. No link leads over a cut
(`trackmill.pipeline.shots`).

Where there is no frame in between to look at, stored frames are linked as they are, and the counts say of how many
clips and why: the source is gone, is another file now, or cannot be read; or boxes are asked for that only stored
frames have (proposals, another sidecar). `native=required` quarantines such a sample instead. What a chain is numbered
by counts inside its sample: the clips of a long video have chains of their own.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.shots.cuts import Cuts, cut_finder, cuts_identity, resolve_cuts
from trackmill.pipeline.shots.small_frames import small_frame
from trackmill.pipeline.sidecars.chains.link import LinkRule, Links, Overlap, link_boxes
from trackmill.pipeline.sidecars.chains.overlap import box_overlap, mask_overlap
from trackmill.pipeline.sidecars.chains.purity import count_purity, objects_of
from trackmill.pipeline.sidecars.chains.source_frames import (
    CHANGED,
    GONE,
    UNREADABLE,
    NotAtHand,
    SourceReader,
    SourceSettings,
    check_moved,
    indices_between,
    source_of,
)
from trackmill.pipeline.sidecars.columns import Column
from trackmill.pipeline.sidecars.producer import CountedRows, Rows
from trackmill.pipeline.sidecars.producers import detector_choice
from trackmill.pipeline.sidecars.producers.detections import DetectionProducer, DetectionSettings
from trackmill.schemas.boxes import Boxes, clip_boxes, nms
from trackmill.schemas.errors import InputError
from trackmill.schemas.sample import FrameRecord

log = logging.getLogger("trackmill")

PROPOSALS, DETECTIONS, SIDECAR = "proposals", "detections", "sidecar:"
"""What `boxes` may say, the last one before the name of a sidecar whose name is one of the others."""

FRAMES, KEPT, CHAINS = "frames", "kept", "chains"
LOW, OUTSIDE, DUPLICATE, BEYOND = "below the score", "outside the frame", "duplicates", "beyond max_boxes"
SHORT = "in chains that are too short"
PICTURES, CLIPS = "pictures", "clips"
NATIVE = "clips linked at the native rate"
AS_STORED = {
    "boxes": "clips linked from stored frame to stored frame: boxes of these alone",
    "none": "clips linked from stored frame to stored frame: no frame in between can be read",
    "never": "clips linked from stored frame to stored frame: as asked for",
    GONE: "clips linked from stored frame to stored frame: source gone",
    CHANGED: "clips linked from stored frame to stored frame: source changed",
    UNREADABLE: "clips linked from stored frame to stored frame: source cannot be read",
}
"""Counts of clips that have frames in between which were not looked at, by the reason."""
HOLES = "clips with frames in between that cannot be read"
BETWEEN = "frames in between"
CUTS_AS_STORED = "clips whose cuts were sought in stored frames alone"
NO_MASKS = "clips without masks, linked by boxes"


class VideoChainSettings(DetectionSettings):
    """Whose boxes are linked, by which rule, and what is looked at for it."""

    boxes: str = Field(
        DETECTIONS,
        min_length=1,
        description="detections: what `detector` finds now, in the frames in between too; proposals: those that are "
        "stored with the sample; or the name of another sidecar that has a column `box` (sidecar:NAME for any name).",
    )
    detector: str = Field(
        "ssdlite-person",
        description="What `trackmill track --detections` takes: ssdlite-person, detic, torchvision:NAME, hf:FOLDER, "
        "file:URL, my_package.my_module:Class.",
    )
    min_score: float = Field(0.3, ge=0, le=1, description="Boxes below it are left out before anything is linked.")
    max_boxes: int = Field(300, ge=1, description="Most boxes of a frame that are linked, best first.")
    nms_iou: float = Field(
        0.6,
        gt=0,
        le=1,
        description="Of boxes of a frame that overlap more, of whatever class, the best one is linked: a second box of "
        "one object would be a second best match, and end its chain; 1: all.",
    )
    overlap: Literal["box", "mask"] = Field(
        "box", description="What IoU is taken of; masks only of proposals that are stored with them."
    )
    min_iou: float = Field(
        0.5, gt=0, le=1, description="Least IoU of a link; lower follows faster objects and makes more false links."
    )
    margin: float = Field(
        0.2,
        ge=0,
        le=1,
        description="By how much the best match must be better than the second best, for both boxes; higher ends more "
        "chains where objects meet, and confuses fewer.",
    )
    bridge: int = Field(0, ge=0, le=5, description="Frames in which the box of a chain may be missing.")
    min_length: int = Field(2, ge=1, description="Chains in fewer stored frames are left out.")
    cuts: Cuts = Field(
        "auto",
        description="How cuts between shots are found: transnet (extra `shots`), histogram, none; auto: transnet where "
        "it is installed.",
    )
    native: Literal["auto", "required", "never"] = Field(
        "auto",
        description="Frames between the stored ones: auto looks at them where the source is at hand, required "
        "quarantines a sample whose source is not, never links stored frames alone.",
    )
    link_fps: float = Field(
        0, ge=0, description="Frames a second that are enough: of a faster video not every frame is looked at; 0: all."
    )
    source: SourceSettings = SourceSettings()


@dataclass
class _Watched:
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


class VideoChainProducer(DetectionProducer):
    """Links boxes of clips; see the top of this file.

    Args:
        config: see `VideoChainSettings`.
    """

    name = "video-chains"
    version = 1
    not_in_fingerprint = DetectionProducer.not_in_fingerprint | {"source"}
    left_out_at_default = frozenset()
    Config = VideoChainSettings
    columns: tuple[Column, ...] = (
        Column(name="chain", dtype="int32", description="Number of the chain in its sample, from 0, by first frame."),
        Column(name="box", dtype="box", unit="px", description="The box, cut at the border of the frame."),
        Column(name="score", dtype="float32", description="Its confidence, 0..1."),
        Column(
            name="iou",
            dtype="float32",
            description="Least IoU of the links from the chain's box a stored frame earlier; 0 where it begins.",
        ),
        Column(name="links", dtype="int32", description="Number of these links; more than 1: through frames between."),
        Column(name="shot", dtype="int32", description="Number of the shot that the frame is in, from 0."),
        Column(name="label", dtype="string", description="Name of the class; empty where there is none."),
        Column(name="proposal", dtype="int32", description="Index among the frame's stored proposals; -1: none."),
        Column(
            name="source",
            dtype="string",
            description="Whose box it is: detections:DETECTOR, proposals, or sidecar:NAME.",
        ),
    )

    def __init__(self, config: VideoChainSettings, files: Mapping[str, bytes] | None = None) -> None:
        self._config: VideoChainSettings = config
        self._detects = config.boxes == DETECTIONS
        self._needs_pixels = self._detects and not config.detector.startswith(detector_choice.FILE)
        if self._detects:
            self._detect = detector_choice.build(config, files or {})
        self._find_cuts = cut_finder(config.cuts, config.device)
        self._reader = SourceReader(config.source)
        self._source = f"{DETECTIONS}:{detector_choice.label(config)}" if self._detects else _shown(config.boxes)
        self._rule = LinkRule(min_iou=config.min_iou, margin=config.margin, bridge=config.bridge)

    def rows(self, sample: Sample) -> Rows:
        """See `Producer.rows`; a row for each box of a stored frame that is in a chain, by chain inside a frame."""
        return self.rows_beside(sample, {})

    def rows_beside(self, sample: Sample, others: Mapping[str, Rows]) -> Rows:
        """See `Producer.rows_beside`.

        Raises:
            NotAtHand: frames in between are required, and cannot be had.
            LimitReached, OSError: reading the source takes too much, or storage failed for good.
        """
        num_frames = len(sample.record.frames)
        counts = Counter({FRAMES: num_frames, PICTURES: int(num_frames < 2), CLIPS: int(num_frames > 1)})
        if num_frames < 2 and self._config.min_length > 1:
            return CountedRows(self._rows(sample, _Watched(), Links(chains=[], ious=[]), counts), counts)
        watched = self._watch(sample, others, counts)
        links = link_boxes(
            [len(boxes) for boxes in watched.boxes], self._overlap(sample, watched, counts), watched.cuts, self._rule
        )
        rows = self._rows(sample, watched, links, counts)
        if (objects := objects_of(sample)) is not None:
            counts.update(count_purity(rows["frame"], rows["chain"], rows["box"], objects))
        return CountedRows(rows, counts)

    @classmethod
    def gains_from_gpu(cls, config: DetectionSettings) -> bool:
        """See `Producer.gains_from_gpu`."""
        assert isinstance(config, VideoChainSettings)
        return config.boxes == DETECTIONS or config.cuts == "transnet"

    @classmethod
    def resolve(cls, config: DetectionSettings) -> DetectionSettings:
        """See `Producer.resolve`; also which way cuts are found."""
        assert isinstance(config, VideoChainSettings)
        check_moved(config.source.moved)
        config = config.model_copy(update={"cuts": resolve_cuts(config.cuts)})
        if config.overlap == "mask" and config.boxes != PROPOSALS:
            raise InputError(
                f"video-chains: masks are stored with proposals alone: overlap=mask needs boxes={PROPOSALS}"
            )
        if config.boxes == DETECTIONS:
            return super().resolve(config)
        if config.native == "required":
            raise InputError(f"video-chains: only a detector finds boxes in frames between: boxes={DETECTIONS}")
        for key in ("weights", "classes", "text_weights", "options"):
            if getattr(config, key):
                raise InputError(
                    f"video-chains: {key} is a detector's, and boxes={config.boxes} asks for none; leave it out"
                )
        return config

    @classmethod
    def implementation(cls, config: DetectionSettings) -> dict[str, str]:
        """See `Producer.implementation`."""
        assert isinstance(config, VideoChainSettings)
        found = super().implementation(config) if config.boxes == DETECTIONS else {"boxes": _shown(config.boxes)}
        if config.native != "never":
            found["av"] = version("av")
        return {**found, **cuts_identity(config.cuts)}

    @classmethod
    def shared_files(cls, config: DetectionSettings, stored: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """See `Producer.shared_files`."""
        assert isinstance(config, VideoChainSettings)
        return super().shared_files(config, stored) if config.boxes == DETECTIONS else {}

    @classmethod
    def reads(cls, config: DetectionSettings) -> tuple[str, ...]:
        """See `Producer.reads`."""
        assert isinstance(config, VideoChainSettings)
        return () if config.boxes in (DETECTIONS, PROPOSALS) else (config.boxes.removeprefix(SIDECAR),)

    @classmethod
    def build(cls, config: DetectionSettings, files: Mapping[str, bytes]) -> VideoChainProducer:
        """See `Producer.build`."""
        assert isinstance(config, VideoChainSettings)
        return cls(config, files)

    @classmethod
    def wrong_rows(cls, config: DetectionSettings, rows: Rows, objects: Sequence[Boxes | None]) -> Iterator[str]:
        """See `Producer.wrong_rows`: once in a frame, in one shot, and linked as the settings say."""
        assert isinstance(config, VideoChainSettings)
        frames, chains, shots = rows["frame"], rows["chain"], rows["shot"]
        order = np.lexsort((frames, chains))
        frames, chains, shots = frames[order], chains[order], shots[order]
        ious, links = rows["iou"][order], rows["links"][order]
        same = np.diff(chains) == 0
        begins = np.append(True, ~same)[: len(chains)]
        for row in np.flatnonzero(same & (np.diff(frames) == 0))[:1]:
            yield f"chain {chains[row]} occurs twice in frame {frames[row]}"
        for row in np.flatnonzero(same & (np.diff(shots) != 0))[:1]:
            yield f"chain {chains[row]} leads from shot {shots[row]} into shot {shots[row + 1]}"
        for row in np.flatnonzero(same & (np.diff(frames) > config.bridge + 1))[:1]:
            yield f"chain {chains[row]} misses more frames behind {frames[row]} than bridge={config.bridge} allows"
        low = np.where(begins, ious != 0, (ious < np.float32(config.min_iou)) | (ious > 1))
        for row in np.flatnonzero(low)[:1]:
            yield f"iou {ious[row]:g} of chain {chains[row]} in frame {frames[row]} cannot be"
        for row in np.flatnonzero(begins != (links == 0))[:1]:
            yield f"chain {chains[row]} has {links[row]} links in frame {frames[row]}, which cannot be"
        for row in np.flatnonzero(rows["score"] < np.float32(config.min_score))[:1]:
            yield f"a score of frame {rows['frame'][row]}, {rows['score'][row]:g}, is below {config.min_score}"
        first = rows["frame"][np.unique(rows["chain"], return_index=True)[1]]
        lengths = np.bincount(chains) if len(chains) and chains.min() >= 0 else np.zeros(0, np.int64)
        if len(chains) and (not len(lengths) or (lengths < config.min_length).any() or (np.diff(first) < 0).any()):
            yield "its chains are not numbered from 0 by their first frames, or one is too short"

    def _watch(self, sample: Sample, others: Mapping[str, Rows], counts: Counter[str]) -> _Watched:
        """Look at the clip: at the native rate if that can be, else at the stored frames."""
        config, record = self._config, sample.record
        indices = [frame.index for frame in record.frames]
        step_by_step = all(a < b for a, b in pairwise(indices))
        between = indices_between(indices, record.origin.fps, config.link_fps) if step_by_step else []
        needed = bool(between) and (self._detects or self._find_cuts is not None)
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
                return self._counted(watched, between, "" if self._detects else "boxes", counts)
        if between and self._find_cuts is not None:
            counts[CUTS_AS_STORED] += 1
        if self._detects and not self._needs_pixels and reason != "never":
            # Files tell what is in the frames in between, whoever has their pixels.
            return self._counted(self._look(sample, between, others, counts, read=False), between, "", counts)
        watched = self._look(sample, [], others, counts)
        return self._counted(watched, between, reason or ("boxes" if between else ""), counts)

    def _counted(self, watched: _Watched, between: Sequence[int], reason: str, counts: Counter[str]) -> _Watched:
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
    ) -> _Watched:
        """Boxes and cuts of the stored frames and of those `between`, the latter without pixels if not to be `read`.

        Raises:
            NotAtHand, LimitReached, OSError: see `SourceReader.read`.
        """
        frames = list(enumerate(sample.record.frames))
        merged = sorted([(frame.index, place) for place, frame in frames] + [(index, -1) for index in between])
        if not between:  # their numbers may be anything
            merged = [(frame.index, place) for place, frame in frames]
        clip = _Clip(sample, [index for index, _ in merged])
        watched, own = _Watched(), Counter[str]()
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
        counts[HOLES] += self._detects and len(frames) < len(linked) < len(merged)
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
        if self._detects:
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
        watched: _Watched,
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

    def _overlap(self, sample: Sample, watched: _Watched, counts: Counter[str]) -> Overlap:
        if self._config.overlap == "mask":
            masks = [sample.proposal_masks(place) for place in watched.stored]
            kept = [[every[i] for i in numbers.tolist()] for every, numbers in zip(masks, watched.numbers)]
            whole = [[mask for mask in frame if mask is not None] for frame in kept]
            if sample.record.has_masks and [len(frame) for frame in whole] == [len(frame) for frame in kept]:
                return mask_overlap(whole, sample.record.stored.height, sample.record.stored.width)
            counts[NO_MASKS] += 1
        return box_overlap(watched.boxes)

    def _rows(self, sample: Sample, watched: _Watched, links: Links, counts: Counter[str]) -> dict[str, Any]:
        """Rows of the boxes of stored frames whose chains are long enough."""
        num_chains = 1 + max((int(own.max()) for own in links.chains if len(own)), default=-1)
        lengths = np.zeros(num_chains, np.int64)
        for place, own in zip(watched.stored, links.chains):
            lengths[own] += place >= 0
        # Numbered anew by the first stored frame, which is where a trainer meets them.
        number = np.full(num_chains, -1, np.int64)
        least, steps = np.ones(num_chains, np.float32), np.zeros(num_chains, np.int64)
        shots = np.cumsum(np.append(0, watched.cuts))
        first_shots: dict[int, int] = {}
        found: dict[str, list[Any]] = {name: [] for name in ("frame", *(column.name for column in self.columns))}
        begun = 0
        for t, place in enumerate(watched.stored):
            own, iou = links.chains[t], links.ious[t]
            least[own] = np.minimum(least[own], np.where(iou > 0, iou, 1))
            steps[own] += iou > 0
            if place < 0:
                continue
            shot = first_shots.setdefault(int(shots[t]), len(first_shots))
            for i in np.flatnonzero(lengths[own] >= self._config.min_length).tolist():
                chain = own[i]
                begins = number[chain] < 0
                if begins:
                    number[chain], begun = begun, begun + 1
                proposal = int(watched.numbers[t][i]) if self._config.boxes == PROPOSALS else -1
                link = (0.0, 0) if begins else (float(least[chain]), int(steps[chain]))
                row = (place, number[chain], watched.boxes[t][i], watched.scores[t][i], *link, shot)
                for name, value in zip(found, (*row, watched.labels[t][i], proposal, self._source)):
                    found[name].append(value)
            counts[SHORT] += int((lengths[own] < self._config.min_length).sum())
            least[own], steps[own] = 1, 0
        counts[KEPT], counts[CHAINS] = len(found["frame"]), begun
        return _ordered(found)


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


def _ordered(found: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Rows as arrays, by frame and by chain inside it."""
    frames, chains = np.array(found["frame"], np.int32), np.array(found["chain"], np.int32)
    order = np.lexsort((chains, frames))
    rows: dict[str, Any] = {}
    for name, values in found.items():
        if name in ("label", "source"):
            rows[name] = [values[i] for i in order.tolist()]
        else:
            dtype = np.float32 if name in ("box", "score", "iou") else np.int32
            rows[name] = np.array(values, dtype).reshape(-1, *([4] if name == "box" else []))[order]
    return rows


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


def _shown(boxes: str) -> str:
    return boxes if boxes == PROPOSALS or boxes.startswith(SIDECAR) else f"{SIDECAR}{boxes}"
