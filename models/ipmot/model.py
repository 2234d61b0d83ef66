"""IP-MOT's network: a detector whose queries also carry tracks, an update of these, deduplication, and an embedding.

Of one picture at a time where tracks take part. `L` decoder layers, `Q` detect queries followed by track queries, `D`
hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trackmill.models.ipmot.deduplication import Deduplication
from trackmill.models.ipmot.detector import DeformableDetr, EncodedMaps
from trackmill.models.ipmot.losses.deduplication import tracking_score
from trackmill.models.ipmot.positions import inverse_sigmoid
from trackmill.models.ipmot.queries import Queries, TrackQueries
from trackmill.models.ipmot.query_update import Candidates, make_query_update
from trackmill.models.ipmot.variants import Variant


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameOutput:
    """What the network says of one frame; detect queries first, then track queries in their order.

    Args:
        hidden: (L, Q, D) outputs of the decoder's layers, O in the paper.
        logits: (L, Q) class confidence c.
        boxes: (L, Q, 4) cx, cy, w, h in 0..1 of the unpadded picture; a person may reach beyond it.
        duplicates: (Q,) deduplication confidence d as logits, high for queries that stay; None without the module.
        scores: (Q,) float32 tracking score s, without gradients: no loss is put on it.
        queries: what the decoder started from.
        num_detect: N_d, how many of the queries are detect queries.
    """

    hidden: Tensor
    logits: Tensor
    boxes: Tensor
    duplicates: Tensor | None
    scores: Tensor
    queries: Queries
    num_detect: int


class IpMot(nn.Module):
    """The tracker of a variant (paper, sections 3.1, 3.3 and 3.4).

    `detector` keeps the names of the published COCO file below its own; `query_update` has no parameters with
    `track_update="identity"`; `deduplication` and `embedding` are None where the variant has none.

    Args:
        variant: its parts and sizes.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        sizes = variant.detector
        self.variant = variant
        self.detector = DeformableDetr(sizes)
        self.query_update = make_query_update(variant)
        self.deduplication = (
            Deduplication(sizes.hidden, sizes.heads, residual=variant.dem_residual) if variant.deduplicates else None
        )
        self.embedding = nn.Linear(sizes.hidden, variant.embedding) if variant.embedding else None

    def encode(self, images: Tensor, masks: Tensor) -> EncodedMaps:
        """Maps of one frame.

        Args:
            images: (1, 3, H, W) normalised, sides are multiples of the backbone's divisor.
            masks: (1, H, W) bool, True where padded.
        """
        return self.detector.encode(images, masks)

    def step(self, maps: EncodedMaps, tracks: TrackQueries | None = None) -> FrameOutput:
        """Decode a frame with its detect queries and the tracks of the frame before.

        Args:
            maps: of `encode`.
            tracks: None, or none in it, at the beginning of a video.
        """
        queries = self.detector.detect_queries()
        num_detect = len(queries)
        if tracks is not None and len(tracks):
            queries = queries.followed_by(tracks)
        decoded = self.detector.decode(maps, queries.expanded(1), num_detect)
        hidden, logits, boxes = decoded.hidden[:, 0], decoded.logits[:, 0, :, 0], decoded.boxes[:, 0]
        duplicates = None if self.deduplication is None else self.deduplication(hidden[-1])
        with torch.no_grad():
            scores = tracking_score(logits[-1], duplicates)
        return FrameOutput(
            hidden=hidden,
            logits=logits,
            boxes=boxes,
            duplicates=duplicates,
            scores=scores,
            queries=queries,
            num_detect=num_detect,
        )

    def forward(self, images: Tensor, masks: Tensor, tracks: TrackQueries | None = None) -> FrameOutput:
        """One frame, from the picture on: `encode` and `step`."""
        return self.step(self.encode(images, masks), tracks)

    def next_tracks(
        self, output: FrameOutput, tracks: TrackQueries | None, keep: Tensor, ids: Tensor
    ) -> TrackQueries | None:
        """The track queries of the next frame (line 14 of the supplement's algorithm).

        A query whose score reaches `variant.keep_threshold` gets the content of the query update, and the last box as
        its anchor, without gradients. Below, it keeps both. A detect query has none to keep that are its own, since
        the learnt ones are those of every frame: what enters the last decoder layer stands for them [D], as in MeMOTR.

        Args:
            output: of `step`.
            tracks: that were given to `step`.
            keep: (K,) int64 on the output's device: places among its Q queries, in the order of the new track queries.
            ids: (K,) int64 on the CPU: their identities.

        Returns:
            K track queries; None for K = 0.
        """
        if not len(keep):
            return None
        candidates = self._candidates(output, tracks, keep)
        updated = self.query_update(candidates)
        return TrackQueries(
            content=updated.content,
            reference=updated.reference,
            position=updated.position,
            ids=ids,
            scores=candidates.scores,
            boxes=candidates.boxes,
            last_output=updated.last_output,
            long_memory=updated.long_memory,
        )

    def _candidates(self, output: FrameOutput, tracks: TrackQueries | None, keep: Tensor) -> Candidates:
        number, queries = output.num_detect, output.queries
        content, reference = queries.content[:number], queries.reference[:number].detach()
        if len(output.hidden) > 1:
            content = output.hidden[-2, :number]
            refined = inverse_sigmoid(output.boxes[-2, :number].detach(), self.variant.detector.clamp)
            reference = refined[:, : reference.shape[-1]].to(reference.dtype)
        first_output = last_output = output.hidden[-1, :number]
        long_memory = content.detach()
        if tracks is not None and len(tracks):
            content = torch.cat([content, tracks.content])
            reference = torch.cat([reference, tracks.reference])
            if tracks.last_output is not None and tracks.long_memory is not None:
                last_output = torch.cat([first_output, tracks.last_output])
                long_memory = torch.cat([long_memory, tracks.long_memory])
        remembers = self.variant.track_update == "memotr"
        boxes = output.boxes[-1].detach().index_select(0, keep)
        return Candidates(
            output=output.hidden[-1].index_select(0, keep),
            boxes=boxes,
            scores=output.scores.index_select(0, keep),
            content=content.index_select(0, keep),
            reference=reference.index_select(0, keep),
            position=None if queries.position is None else queries.position.index_select(0, keep),
            last_output=last_output.index_select(0, keep) if remembers else None,
            long_memory=long_memory.index_select(0, keep) if remembers else None,
        )
