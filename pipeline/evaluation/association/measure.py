"""The association benchmark for any embedding: AssA and IDF1 at some strides, rank-1 and mAP at some frame gaps.

In a training loop::

    sequence = box_sequence("TUD", frames, ids, boxes, pictures={1: image, ...})
    report = association_benchmark(model.embed, [sequence], threshold=0.4)
    report.metrics["AssA"], report.metrics["rank1@20"]

where `model.embed(image, boxes)` returns (N, D) vectors; or, with precomputed vectors,
`association_benchmark({"TUD": vectors}, [sequence])`. Select models by rank-1 and mAP, which need no threshold: the
threshold alone changes AssA by several points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.models.embedders.base import Embedder
from trackmill.pipeline.evaluation.association.embeddings import Embedding, PixelEmbedding, embed, given_embedding
from trackmill.pipeline.evaluation.association.intervals import (
    Interval,
    PersonSums,
    association_sums,
    paired_intervals,
    retrieval_sums,
)
from trackmill.pipeline.evaluation.association.linking import link
from trackmill.pipeline.evaluation.association.sequences import BoxSequence
from trackmill.pipeline.evaluation.association.threshold import choose_threshold
from trackmill.pipeline.evaluation.metrics.hota import hota
from trackmill.pipeline.evaluation.metrics.identity import identity
from trackmill.pipeline.evaluation.metrics.retrieval import retrieval
from trackmill.pipeline.evaluation.report.report import Row
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.schemas.errors import InputError

GAPS = (5, 20, 50)
"""Frames between query and gallery in the protocol."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AssociationReport:
    """The scores of one embedding.

    Args:
        embedding: its name.
        metrics: plain means over sequences, percent: `AssA`, `IDF1` (with several strides `AssA@10`, ...), `rank1@20`,
            `mAP@20`, ...; None where no sequence can be scored.
        sequences: the same by sequence.
        threshold: smallest cosine of a link; None where there were no boxes to choose it on.
        chosen_on: sequences that the threshold was chosen on; empty where it was given.
        notes: for the reader of the report.
        fed: by sequence, which frames an embedding got that remembers earlier ones; empty for others.
        sums: by score, one entry for each sequence with boxes; `intervals` resamples these.
    """

    embedding: str
    metrics: Row
    sequences: dict[str, Row]
    threshold: float | None
    chosen_on: tuple[str, ...]
    notes: list[str]
    fed: dict[str, str]
    sums: dict[str, list[PersonSums]] = field(repr=False)

    def intervals(self, other: AssociationReport, draws: int = 1000, seed: int = 0) -> dict[str, Interval | None]:
        """95 % intervals of this embedding minus another on the same sequences, see `intervals.py`; fractions.

        Raises:
            ValueError: the reports have different sequences, strides or gaps.
        """
        if list(self.sums) != list(other.sums) or list(self.sequences) != list(other.sequences):
            raise InputError("only reports of the same sequences, strides and gaps can be compared")
        return paired_intervals(self.sums, other.sums, draws=draws, seed=seed)


def association_benchmark(
    embeddings: PixelEmbedding | Mapping[str, Any] | Embedding | Embedder | str,
    sequences: Sequence[BoxSequence],
    *,
    strides: Sequence[int] = (10,),
    gaps: Sequence[int] = GAPS,
    threshold: float | None = None,
    dev: Sequence[BoxSequence] | None = None,
    memory: int = 10,
    ema: float = 0.5,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> AssociationReport:
    """Embed the boxes, link them, and score.

    Args:
        embeddings: a function (image (H, W, 3) uint8 RGB, boxes (N, 4) float32 `xyxy`) -> (N, D); an embedder, which
            may remember earlier frames: it is reset for each sequence and gets all of its frames in order; a table
            from sequence name to (N, D) vectors in the order of the sequence's boxes; or what `--embeddings` takes.
        sequences: to score; made by `box_sequence`, with different names.
        strides: frames from one linked frame to the next.
        gaps: frames between query and gallery of retrieval.
        threshold: smallest cosine of a link; None chooses it on `dev`.
        dev: sequences to choose it on; None takes the scored ones and adds a note.
        memory, ema: of the linking rule, see `link`.
        seed: seed of the built-in random embeddings.
        progress: called with 1 after each picture.

    Raises:
        BadTracks: see `embed`; or two sequences have the same name.
        ValueError: strides or gaps are not different whole numbers of at least 1.
    """
    for steps, what in ((strides, "strides"), (gaps, "gaps")):
        if len(set(steps)) < len(steps) or any(step != int(step) or step < 1 for step in steps):
            raise InputError(f"{what} should be different whole numbers of at least 1, found {list(steps)}")
    chosen = given_embedding(embeddings, seed)
    both = list(dict.fromkeys([*sequences, *(dev or ())]))
    names = [sequence.name for sequence in both]
    for name in names:
        if names.count(name) > 1:
            raise BadTracks(f"two sequences are called {name}; give each its own name")
    (vectors,) = embed(both, [chosen], progress)
    return measure_association(
        chosen.name,
        vectors,
        sequences,
        strides=strides,
        gaps=gaps,
        threshold=threshold,
        dev=dev,
        memory=memory,
        ema=ema,
        fed=fed_in_words(chosen, sequences),
    )


def fed_in_words(embedding: Embedding, sequences: Sequence[BoxSequence]) -> dict[str, str]:
    """By sequence, which frames an embedding gets that remembers earlier ones: "1 to 300, all 300"; {} for others."""
    if embedding.embedder is None:
        return {}
    words = {}
    for sequence in sequences:
        fed = embedding.fed(sequence)
        if fed:
            count = f"all {len(fed):,}" if len(fed) == fed[-1] - fed[0] + 1 else f"{len(fed):,} of them"
            words[sequence.name] = f"{fed[0]} to {fed[-1]}, {count}"
    return words


def measure_association(
    name: str,
    vectors: Mapping[str, NDArray[np.float32]],
    sequences: Sequence[BoxSequence],
    *,
    strides: Sequence[int],
    gaps: Sequence[int],
    threshold: float | None,
    dev: Sequence[BoxSequence] | None,
    memory: int,
    ema: float,
    fed: Mapping[str, str] | None = None,
) -> AssociationReport:
    """Score `vectors` of unit length, by sequence name; the other arguments are those of `association_benchmark`."""
    notes: list[str] = []
    filled = [sequence for sequence in sequences if len(sequence)]
    chosen_on: tuple[str, ...] = ()
    if threshold is None:
        usable = [sequence for sequence in (sequences if dev is None else dev) if len(sequence)]
        if usable:
            threshold, _ = choose_threshold(usable, vectors, memory=memory, ema=ema)
            chosen_on = tuple(sequence.name for sequence in usable)
        notes += _about_threshold(name, threshold, chosen_on, {sequence.name for sequence in filled})
    scores: dict[str, dict[str, float]] = {sequence.name: {} for sequence in sequences}
    sums: dict[str, list[PersonSums]] = {key: [] for key in _keys(strides, gaps)}
    for sequence in filled:
        known, sequence_scores = vectors[sequence.name], scores[sequence.name]
        for stride in strides:
            if threshold is None:
                break
            tracks = link(known, sequence.frames, threshold=threshold, stride=stride, memory=memory, ema=ema)
            linked = sequence.linked(tracks, stride)
            suffix = _suffix(strides, stride)
            sequence_scores[f"AssA{suffix}"] = hota(linked).scores()["AssA"]
            sequence_scores[f"IDF1{suffix}"] = identity(linked).scores()["IDF1"]
            people = len(sequence.overlaps.gt_names)
            sums[f"AssA{suffix}"].append(association_sums(linked, linked.gt_names // stride, people))
        for gap in gaps:
            counts = retrieval(known, sequence.frames, sequence.ids, gap)
            sequence_scores |= {f"{key}@{gap}": value for key, value in (counts.scores() or {}).items()}
            for key, entry in retrieval_sums(counts).items():
                sums[f"{key}@{gap}"].append(entry)
        blank = int((~known.any(axis=1)).sum())
        if blank:
            notes.append(f"{name}: {sequence.name}: {blank:,} boxes have an embedding of zeros, which matches nothing")
    notes += _about_gaps(sequences, scores, gaps)
    notes += [f"{name}: {each}: it remembers, and got the frames {words}" for each, words in (fed or {}).items()]
    names = _names(strides, gaps)
    return AssociationReport(
        embedding=name,
        metrics={key: _percent(_mean([row[key] for row in scores.values() if key in row])) for key in names},
        sequences={sequence: {key: _percent(row.get(key)) for key in names} for sequence, row in scores.items()},
        threshold=threshold,
        chosen_on=chosen_on,
        notes=notes,
        fed=dict(fed or {}),
        sums=sums,
    )


def _suffix(strides: Sequence[int], stride: int) -> str:
    return "" if len(strides) == 1 else f"@{stride}"


def _keys(strides: Sequence[int], gaps: Sequence[int]) -> list[str]:
    """Names of the scores that have intervals."""
    return [f"AssA{_suffix(strides, stride)}" for stride in strides] + [
        f"{key}@{gap}" for gap in gaps for key in ("rank1", "mAP")
    ]


def _names(strides: Sequence[int], gaps: Sequence[int]) -> list[str]:
    """Names of all scores, in the order of the report."""
    linked = [f"{key}{_suffix(strides, stride)}" for stride in strides for key in ("AssA", "IDF1")]
    return linked + [f"{key}@{gap}" for gap in gaps for key in ("rank1", "mAP")]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _about_threshold(name: str, threshold: float | None, chosen_on: Sequence[str], scored: set[str]) -> list[str]:
    if threshold is None:
        return ["no objects in the sequences that the threshold should be chosen on; AssA and IDF1 are undefined"]
    seen = [name for name in chosen_on if name in scored]
    if not seen:
        return []
    return [
        f"{name}: the threshold was chosen on scored sequences ({', '.join(seen)}), so AssA and IDF1 flatter the "
        "embedding; name others with --dev, or compare by rank-1 and mAP"
    ]


def _about_gaps(
    sequences: Sequence[BoxSequence], scores: Mapping[str, Mapping[str, float]], gaps: Sequence[int]
) -> list[str]:
    notes = []
    for sequence in sequences:
        if not len(sequence):
            notes.append(f"sequence {sequence.name}: no objects in the ground truth; not part of any mean")
            continue
        missing = [str(gap) for gap in gaps if f"rank1@{gap}" not in scores[sequence.name]]
        if missing:
            gone = " or ".join(missing)
            notes.append(
                f"sequence {sequence.name}: nobody is there both now and {gone} frames later; left out of those means"
            )
    return notes
