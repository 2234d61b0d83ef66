"""`--benchmark association`: measures how well an embedding alone links given boxes of MOT-style sequences."""

from __future__ import annotations

from typing import Any

from trackmill.pipeline.console.progress_line import ProgressLine
from trackmill.pipeline.evaluation.association.embeddings import embed, num_frames
from trackmill.pipeline.evaluation.association.intervals import Interval
from trackmill.pipeline.evaluation.association.measure import AssociationReport, fed_in_words, measure_association
from trackmill.pipeline.evaluation.association.model_embedding import asked_embedding
from trackmill.pipeline.evaluation.association.pictures import find_pictures
from trackmill.pipeline.evaluation.association.sequences import BoxSequence, box_sequence
from trackmill.pipeline.evaluation.association.settings import AssociationSettings
from trackmill.pipeline.evaluation.readers.mot_layout import choose_sequences, find_sequences
from trackmill.pipeline.evaluation.readers.mot_sequence_file import SequenceFile
from trackmill.pipeline.evaluation.report.report import Report
from trackmill.pipeline.storage.urls import dirname


def evaluate_association(gt: str, settings: AssociationSettings) -> Report:
    """Run the benchmark; shows progress on stderr if embedding takes more than a few seconds.

    Args:
        gt: URL of MOT-style ground truth, see `find_sequences`; rows with flag 0 are dropped.
        settings: see `AssociationSettings`.

    Returns:
        The first embedding's scores. With `against`, `settings["against"]` holds the threshold and scores of the second
        and the intervals, and notes give each interval in words.

    Raises:
        BadTracks: ground truth, embeddings or pictures cannot be used, or a sequence name is unknown.
        OSError: a file cannot be read.
    """
    scored, dev = association_sequences(gt, settings)
    specs = [settings.embeddings] + ([] if settings.against is None else [settings.against])
    embeddings = [
        asked_embedding(spec, weights, settings.seed, settings.long_side)
        for spec, weights in zip(specs, (settings.weights, settings.against_weights))
    ]
    both = list({sequence.name: sequence for sequence in (*scored, *(dev or ()))}.values())
    progress = ProgressLine(num_frames(both, embeddings), "embedded", things="frames")
    vectors = embed(both, embeddings, progress)
    progress.close()
    reports = [
        measure_association(
            embedding.name,
            found,
            scored,
            strides=settings.strides,
            gaps=settings.gaps,
            threshold=threshold,
            dev=dev,
            memory=settings.memory,
            ema=settings.ema,
            fed=fed_in_words(embedding, scored),
        )
        for embedding, found, threshold in zip(embeddings, vectors, (settings.threshold, settings.against_threshold))
    ]
    first = reports[0]
    report = Report(
        benchmark="association",
        iou="box",
        metrics=first.metrics,
        sequences=first.sequences,
        settings={
            "embeddings": first.embedding,
            "stride": list(settings.strides) if len(settings.strides) > 1 else settings.strides[0],
            "gaps": list(settings.gaps),
            "threshold": first.threshold,
            "threshold_chosen_on": list(first.chosen_on) or "given",
            "memory": settings.memory,
            "ema": settings.ema,
            "seed": settings.seed,
            **({"frames_fed": first.fed} if first.fed else {}),
        },
        notes=list(first.notes),
    )
    if len(reports) > 1:
        _compare(report, first, reports[1], settings)
    return report


def association_sequences(gt: str, settings: AssociationSettings) -> tuple[list[BoxSequence], list[BoxSequence] | None]:
    """The scored sequences, and those of the development set (None without one)."""
    files = find_sequences(gt)
    dev = None if settings.dev is None else choose_sequences(files, settings.dev, gt)
    rest = [name for name in files if name not in (dev or ())]
    scored = choose_sequences(files, settings.sequences, gt) if settings.sequences is not None else rest or list(files)
    read = {name: _read(files[name], settings.frames) for name in dict.fromkeys([*scored, *(dev or ())])}
    return [read[name] for name in scored], None if dev is None else [read[name] for name in dev]


def _read(file: SequenceFile, frames: str | None) -> BoxSequence:
    rows = file.read()
    kept = rows.confidence != 0
    root = frames
    if root is None and file.is_gt_layout:
        root = dirname(dirname(dirname(file.url)))
    pictures = None if root is None else find_pictures(root, file.name)
    return box_sequence(file.name, rows.frames[kept], rows.ids[kept], rows.boxes[kept], pictures)


def _compare(
    report: Report, first: AssociationReport, second: AssociationReport, settings: AssociationSettings
) -> None:
    intervals = first.intervals(second, settings.draws, settings.seed)
    report.settings["against"] = {
        "embeddings": second.embedding,
        "threshold": second.threshold,
        "threshold_chosen_on": list(second.chosen_on) or "given",
        "draws": settings.draws,
        "level": 95,
        "metrics": second.metrics,
        "sequences": second.sequences,
        "intervals": {name: _plain(interval) for name, interval in intervals.items()},
    }
    report.notes += [note for note in second.notes if note not in report.notes]
    for name, interval in intervals.items():
        report.notes.append(f"{name}: {_sentence(interval, first.embedding, second.embedding)}")
    report.notes.append(
        f"intervals: 95 %, paired bootstrap over people, {settings.draws:,} draws, seed {settings.seed}; AssA from "
        "each person's part, without linking again"
    )


def _plain(interval: Interval | None) -> dict[str, Any] | None:
    """Scores in percent, differences in percentage points."""
    if interval is None:
        return None
    return {key: 100 * getattr(interval, key) for key in ("first", "second", "difference", "low", "high")}


def _sentence(interval: Interval | None, first: str, second: str) -> str:
    record = _plain(interval)
    if record is None:
        return "nothing to compare"
    verdict = "" if record["low"] > 0 or record["high"] < 0 else ", no clear difference"
    return (
        f"{first} {record['first']:.1f}, {second} {record['second']:.1f}, difference {record['difference']:+.1f} "
        f"[{record['low']:+.1f}, {record['high']:+.1f}]{verdict}"
    )
