"""What became of the people in the real video: which identity each was given, frame by frame, beside who it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from trackmill.pipeline.formats.mot_text import MotRows, parse_mot_text
from trackmill.pipeline.media.drawing.palette import identity_colour
from trackmill.pipeline.storage.files import read_bytes
from trackmill.schemas.boxes import iou_matrix

MIN_IOU = 0.5
"""From which a tracked box is the person's, as HOTA and CLEAR count it at their usual threshold."""
MISSED = -1
_CELL = '<rect class="cell" x="{:.1f}" y="{}" width="{:.1f}" height="{}" fill="{}"><title>{}</title></rect>'
_WIDTH, _LANE, _GAP, _LEFT = 760, 20, 10, 110


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What one tracker gave the people.

    Args:
        identities: by person, (N,) int64: the identity of each of its boxes, in the order of `Seen.frames`; `MISSED`
            where no tracked box is there.
    """

    identities: Mapping[int, NDArray[np.int64]]

    @property
    def kept(self) -> int:
        """People whose boxes, as far as they were found, have one identity that nobody else has."""
        of = {person: set(found[found != MISSED].tolist()) for person, found in self.identities.items()}
        return sum(
            len(own) == 1 and not any(own & other for who, other in of.items() if who != person)
            for person, own in of.items()
        )

    @property
    def found(self) -> int:
        """Boxes of people that have an identity."""
        return sum(int((found != MISSED).sum()) for found in self.identities.values())

    @property
    def num_identities(self) -> int:
        """Different ones that the people were given."""
        return len({each for found in self.identities.values() for each in found.tolist()} - {MISSED})


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Where people are.

    Args:
        rows: annotated boxes.
    """

    rows: MotRows

    @property
    def people(self) -> list[int]:
        """Who is there, in the order of their numbers."""
        return sorted(set(self.rows.ids.tolist()))

    def frames(self, person: int) -> NDArray[np.int64]:
        """In which a person is, in their order."""
        return np.sort(self.rows.frames[self.rows.ids == person])


def read_seen(url: str) -> Seen:
    """The annotation, MOTChallenge's ground truth.

    Raises:
        OSError: could not be read.
        BadTracks: is no such file.
    """
    return Seen(parse_mot_text(read_bytes(url), url))


def read_given(seen: Seen, url: str) -> Given:
    """Compare a tracker's result, MOTChallenge text, with the annotation.

    Raises:
        OSError: could not be read.
        BadTracks: is no such file.
    """
    tracked = parse_mot_text(read_bytes(url), url)
    identities: dict[int, list[int]] = {person: [] for person in seen.people}
    for frame in np.unique(seen.rows.frames).tolist():
        true, found = seen.rows.frames == frame, tracked.frames == frame
        overlaps = iou_matrix(seen.rows.boxes[true].astype(np.float32), tracked.boxes[found].astype(np.float32))
        for person, overlap in zip(seen.rows.ids[true].tolist(), overlaps, strict=True):
            there = bool(len(overlap)) and float(overlap.max()) >= MIN_IOU
            identities[person].append(int(tracked.ids[found][overlap.argmax()]) if there else MISSED)
    return Given({person: np.array(given, np.int64) for person, given in identities.items()})


def lanes(seen: Seen, given: Sequence[tuple[str, Given]], num_frames: int) -> Markup:
    """A picture: a lane for the annotation and one for each tracker, over time; a colour is an identity.

    Args:
        seen: the annotation.
        given: name and what it gave, of each tracker.
        num_frames: of the video.
    """
    annotated = Given({person: np.full(len(seen.frames(person)), person, np.int64) for person in seen.people})
    all_lanes = [("by hand", annotated), *given]
    step = (_WIDTH - _LEFT) / max(1, num_frames)
    parts = []
    for number, (name, each) in enumerate(all_lanes):
        top = number * (_LANE + _GAP)
        parts.append(Markup('<text x="0" y="{:.1f}">{}</text>').format(top + 0.7 * _LANE, name))
        for person, identities in each.identities.items():
            for frame, identity in zip(seen.frames(person).tolist(), identities.tolist(), strict=True):
                if identity == MISSED:
                    colour, what = "transparent", "missed"
                else:
                    colour, what = "rgb({},{},{})".format(*identity_colour(identity)), f"identity {identity}"
                parts.append(
                    Markup(_CELL).format(
                        _LEFT + (frame - 1) * step, top, step, _LANE, colour, f"frame {frame}: person {person}, {what}"
                    )
                )
    height = len(all_lanes) * (_LANE + _GAP) - _GAP
    told = "; ".join(f"{name}: {each.num_identities} identities for {len(seen.people)} people" for name, each in given)
    return Markup('<svg class="plot lanes" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, height, f"Who was who over time. {told}", Markup("").join(parts)
    )
