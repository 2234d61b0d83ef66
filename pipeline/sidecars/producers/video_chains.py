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

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version

from trackmill.pipeline.shards.decode import Sample
from trackmill.pipeline.shots.cuts import cuts_identity, resolve_cuts
from trackmill.pipeline.sidecars.chains.counts import CLIPS, FRAMES, NO_MASKS, PICTURES
from trackmill.pipeline.sidecars.chains.frames import FrameCollector, LinkedFrames
from trackmill.pipeline.sidecars.chains.link import LinkRule, Links, Overlap, link_boxes
from trackmill.pipeline.sidecars.chains.overlap import box_overlap, mask_overlap
from trackmill.pipeline.sidecars.chains.purity import count_purity, objects_of
from trackmill.pipeline.sidecars.chains.rows import COLUMNS, chain_rows, wrong_chains
from trackmill.pipeline.sidecars.chains.settings import DETECTIONS, PROPOSALS, SIDECAR, VideoChainSettings, shown_boxes
from trackmill.pipeline.sidecars.chains.source_frames import check_moved
from trackmill.pipeline.sidecars.producer import CountedRows, Rows
from trackmill.pipeline.sidecars.producers import detector_choice
from trackmill.pipeline.sidecars.producers.detections import DetectionProducer, DetectionSettings
from trackmill.schemas.boxes import Boxes
from trackmill.schemas.errors import InputError


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
    columns = COLUMNS

    def __init__(self, config: VideoChainSettings, files: Mapping[str, bytes] | None = None) -> None:
        self._config: VideoChainSettings = config
        detects = config.boxes == DETECTIONS
        self._frames = FrameCollector(config, detector_choice.build(config, files or {}) if detects else None)
        self._source = f"{DETECTIONS}:{detector_choice.label(config)}" if detects else shown_boxes(config.boxes)
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
            return CountedRows(self._rows(LinkedFrames(), Links(chains=[], ious=[]), counts), counts)
        frames = self._frames.collect(sample, others, counts)
        links = link_boxes(
            [len(boxes) for boxes in frames.boxes], self._overlap(sample, frames, counts), frames.cuts, self._rule
        )
        rows = self._rows(frames, links, counts)
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
        found = super().implementation(config) if config.boxes == DETECTIONS else {"boxes": shown_boxes(config.boxes)}
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
        """See `Producer.wrong_rows`."""
        assert isinstance(config, VideoChainSettings)
        return wrong_chains(config, rows)

    def _rows(self, frames: LinkedFrames, links: Links, counts: Counter[str]) -> Rows:
        return chain_rows(frames, links, self._config, self._source, counts)

    def _overlap(self, sample: Sample, frames: LinkedFrames, counts: Counter[str]) -> Overlap:
        if self._config.overlap == "mask":
            masks = [sample.proposal_masks(place) for place in frames.stored]
            kept = [[every[i] for i in numbers.tolist()] for every, numbers in zip(masks, frames.numbers)]
            whole = [[mask for mask in frame if mask is not None] for frame in kept]
            if sample.record.has_masks and [len(frame) for frame in whole] == [len(frame) for frame in kept]:
                return mask_overlap(whole, sample.record.stored.height, sample.record.stored.width)
            counts[NO_MASKS] += 1
        return box_overlap(frames.boxes)
