"""An audit in sentences: what was found, and hints for who decides about thresholds and classes.

The hints are rules of thumb. No training stands behind their numbers, so each says what to look at, not what is true.
"""

from __future__ import annotations

from trackmill.pipeline.audit.rows import PROPOSAL_CLASS
from trackmill.pipeline.audit.run import Audit
from trackmill.pipeline.audit.totals import SCORE_BINS, PerFrame, Tally, Totals
from trackmill.schemas.names import shortened

_ENOUGH = 10
"""Negatives of a class below which a share of them says nothing."""
_NAMED = 5


def facts(audit: Audit) -> list[tuple[str, str]]:
    """What was counted: (label, sentence)."""
    totals, settings = audit.totals, audit.totals.settings
    looked = f"{totals.samples:,}" + (f" of {audit.samples_stored:,}" if audit.samples_stored > totals.samples else "")
    found = [
        ("looked at", f"{looked} samples, {totals.clips:,} of them clips; {totals.frames:,} frames can have negatives"),
        ("negatives", f"{totals.rows:,} of {len(totals.classes):,} classes"),
        ("a frame", _per_frame(totals.rows_per_frame)),
        (
            "kept",
            f"{totals.kept:,} ({share(totals.kept, totals.rows)}) by the trainer: NMS at {settings.nms_iou:g} removes "
            f"{totals.suppressed:,} ({totals.suppressed_by_other:,} for a better one of another class), the limit of "
            f"{settings.max_boxes} removes {totals.beyond:,}",
        ),
        ("kept a frame", _per_frame(totals.kept_per_frame)),
        ("proposals", f"{_count(totals, 'on_proposal')} overlap a stored proposal by IoU >= {settings.min_iou:g}"),
        (
            "objects",
            f"{totals.near_object:,} overlap an annotated object of their frame by IoU >= {settings.min_iou:g}; of "
            f"those kept, {totals.close:,} overlap one by {settings.near_iou:g} or more, {totals.inside:,} lie inside "
            f"one (80 % of their area or more), {totals.lapsed:,} lie where a neighbouring frame has one that this "
            "frame does not list",
        ),
        ("persistence", _persistence(totals)),
    ]
    if not totals.rows:
        del found[2:]
    if set(totals.classes) == {PROPOSAL_CLASS}:  # they are proposals themselves
        found = [(label, text) for label, text in found if label != "proposals"]
    if totals.frames_unannotated:
        text = f"{totals.frames_unannotated:,} frames, with {totals.rows_unannotated:,} negatives"
        found.insert(1, ("not annotated", text))
    if audit.quarantined:
        named = "; ".join(audit.quarantined[:_NAMED])
        found.append(("quarantined", f"the detector failed on {totals.quarantined:,} samples: {named}"))
    if audit.dropped:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in audit.dropped.most_common(20))
        found.append(("dropped", f"{reasons} (detections that are no negatives, in the parts that were read)"))
    if totals.pairs:
        pairs = totals.pairs.most_common(_NAMED)
        found.append(("NMS prefers", ", ".join(f"{_name(b)} to {_name(a)} {count:,}" for (a, b), count in pairs)))
    return found


def advice(audit: Audit) -> list[str]:
    """Hints, the most serious first; empty where there is nothing to say."""
    totals, settings = audit.totals, audit.totals.settings
    hints = []
    if not totals.rows:
        return [_why_none(audit)]
    if totals.near_object:
        why = "they were made for other annotations, or by something that does not compare"
        if audit.max_iou > settings.min_iou:
            why = f"they were made with max_iou {audit.max_iou:g}"
        hints.append(
            f"{totals.near_object:,} rows overlap an annotated object by IoU >= {settings.min_iou:g}, which ScaleTrack "
            f"leaves out: {why}."
        )
    if totals.rows_unannotated:
        hints.append(
            f"{totals.rows_unannotated:,} lie in frames without annotations, where any of them may be an object that a "
            "clip follows: a trainer should not use them beside positives of that frame."
        )
    if totals.frames and 2 * totals.rows_per_frame.counts[0] >= totals.frames:
        hints.append(
            "At least half of the frames have none, so they add little there: a lower score threshold gives more, "
            "and so do the proposals (--proposals audits them)."
        )
    near = int(totals.everything.near.sum())
    if near and 20 * near >= totals.kept:
        hints.append(
            f"{near:,} of those kept ({share(near, totals.kept)}) may show an annotated object: a loose box of it, a "
            "part of it, or the object where its frame does not list it. These are the worst negatives, because they "
            f"push an object away from itself; a lower max_iou than {settings.min_iou:g} when the negatives are made "
            "leaves out the loose boxes."
        )
    if named := _classes(totals, "near", "kept", 0.3):
        hints.append(f"Often a loose box or a part of an annotated object: {named}; the first classes to leave out.")
    for part, what in (("moving", "Persist and move"), ("persistent", "Persist")):
        if named := _classes(totals, part, "in_clips", 0.5):
            hints.append(
                f"{what}: {named}. Perhaps unlabelled objects. That is fair where they are contrasted with other "
                "objects; leave them out where unmatched boxes are trained to be background."
            )
            break
    if not totals.clips:
        hints.append("No clips: whether a negative persists cannot be told from single pictures.")
    if totals.beyond:
        hints.append(
            f"The limit of {settings.max_boxes} a frame removes {totals.beyond:,} that NMS leaves; they cost mining "
            "time only."
        )
    if half := _halving(totals):
        hints.append(half)
    return hints


def share(part: int, all_: int) -> str:
    """`41 %`; a dash where there is nothing to share."""
    return f"{100 * part / all_:.0f} %" if all_ else "–"


def _per_frame(counts: PerFrame) -> str:
    values, frames = counts.as_dict(), counts.counts.total()
    none = values["frames_without"]
    return (
        f"mean {values['mean']:.1f}, median {values['median']}, p95 {values['p95']}, most {values['most']}; "
        f"{none:,} frames ({share(none, frames)}) without any"
    )


def _count(totals: Totals, name: str) -> str:
    count = int(getattr(totals.everything, name).sum())
    return f"{count:,} ({share(count, totals.rows)})"


def _persistence(totals: Totals) -> str:
    in_clips = int(totals.everything.in_clips.sum())
    if not in_clips:
        return "not known: no negative lies in a clip"
    return (
        f"{totals.persistent:,} of {in_clips:,} kept ones in clips ({share(totals.persistent, in_clips)}) are in "
        f"chains of {totals.settings.persistent_frames} or more frames; the longest chain has {max(totals.chains)}; "
        f"{totals.moving:,} ({share(totals.moving, in_clips)}) move (so does everything under a moving camera)"
    )


def _classes(totals: Totals, part: str, of: str, least: float) -> str:
    """The classes in which the share `part` of `of` is largest and at least `least`."""

    def fraction(tally: Tally) -> float:
        return float(getattr(tally, part).sum()) / max(1, int(getattr(tally, of).sum()))

    named = [
        (label, tally)
        for label, tally in totals.by_number()
        if label != PROPOSAL_CLASS and getattr(tally, of).sum() >= _ENOUGH and fraction(tally) >= least
    ]
    named.sort(key=lambda entry: -fraction(entry[1]))
    return ", ".join(f"{_name(label)} ({100 * fraction(tally):.0f} %)" for label, tally in named[:_NAMED])


def _name(label: str) -> str:
    return shortened(label, 40)


def _halving(totals: Totals) -> str:
    """The threshold that leaves about half of what is kept."""
    if totals.kept < _ENOUGH:
        return ""
    number = next((n for n in range(1, SCORE_BINS) if 2 * totals.at_least(n)["kept"] <= totals.kept), 0)
    left = totals.at_least(number)["kept"] if number else 0
    if not left:
        return ""
    return (
        f"A threshold of {number / SCORE_BINS:.2f} would leave {left:,} of the {totals.kept:,} that are kept "
        f"({left / totals.frames:.1f} a frame)."
    )


def _why_none(audit: Audit) -> str:
    totals = audit.totals
    if totals.frames_unannotated and not totals.frames:
        return (
            "No frame is annotated, so nothing is known to be no object: negatives need a source with annotations, "
            "such as sav, mot, or frames with masks."
        )
    return f"There are no negatives at all ({audit.name}); a lower score threshold of the detector gives some."
