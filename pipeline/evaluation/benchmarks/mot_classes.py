"""Classes of MOTChallenge text that are scored: the benchmark's own, or those that `--classes` names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.readers.mot_json import OTHER_CLASSES, SCORED
from trackmill.pipeline.evaluation.readers.mot_sequence_file import SequenceFile
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.storage.credentials import redact
from trackmill.schemas.names import nearest

NO_CLASS = -1
"""Class of a row that names none."""

NUM_CLASSES = 13
"""MOTChallenge's classes are 1 to this number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a benchmark treats its ground truth.

    Args:
        scored: name of the scored class.
        distractors: numbers of the classes whose matched predictions are removed.
        has_classes: whether column 8 of the ground truth is a class; in MOT15 it is a coordinate.
        may_lack_classes: whether a file may lack that column, or hold -1 in it; all its objects are then scored.
    """

    scored: str
    distractors: tuple[int, ...] = ()
    has_classes: bool = True
    may_lack_classes: bool = False


RULES = {
    "mot15": Rule(scored="pedestrian", has_classes=False),
    # Person on vehicle, static person, distractor, reflection; in MOT20 also non-motorised vehicle.
    "mot16": Rule(scored="pedestrian", distractors=(2, 7, 8, 12)),
    "mot17": Rule(scored="pedestrian", distractors=(2, 7, 8, 12)),
    "mot20": Rule(scored="pedestrian", distractors=(2, 6, 7, 8, 12)),
    # These annotate only the scored class, and are evaluated by MOT17's rule.
    "dancetrack": Rule(scored="dancer", distractors=(2, 7, 8, 12), may_lack_classes=True),
    "sportsmot": Rule(scored="athlete", distractors=(2, 7, 8, 12), may_lack_classes=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredClasses:
    """What is scored.

    Args:
        names: by number, as they are called in the report.
        asked: whether they were asked for; otherwise they are the benchmark's own.
        distractors: numbers of the classes whose matched predictions are removed.
        known: names of classes by number, for messages.
    """

    names: Mapping[int, str]
    asked: bool
    distractors: tuple[int, ...]
    known: Mapping[int, str]

    def in_words(self, number: int) -> str:
        """`3 (car)`, or `30` where the class has no name."""
        return f"{number} ({self.known[number]})" if number in self.known else str(number)


def benchmark_classes(rule: Rule, preprocess: bool) -> ScoredClasses:
    """The one class that the benchmark scores."""
    distractors = rule.distractors if preprocess else ()
    return ScoredClasses(names={SCORED: rule.scored}, asked=False, distractors=distractors, known=_known(rule))


def asked_classes(
    name: str, asked: Sequence[str], truths: Sequence[SequenceFile], rule: Rule, preprocess: bool
) -> ScoredClasses:
    """The classes that were asked for. Distractors stay distractors, except where the files name their own classes.

    Args:
        name: of the benchmark.
        asked: numbers and names.
        truths: ground truth of the sequences.
        rule: the benchmark's.
        preprocess: whether distractors are removed.

    Raises:
        BadTracks: an unknown name, a class twice, files that name their classes differently, or MOT15, which has none.
    """
    if not rule.has_classes:
        raise BadTracks(
            f"--classes: {name} has no classes, column 8 is a coordinate; --benchmark mot16 takes it for a class"
        )
    own = _names_in_files(truths)
    known = dict(enumerate(own, start=1)) or _known(rule)
    numbers = {_spelt(label): number for number, label in known.items()}
    numbers |= {} if own else {"person": SCORED, "pedestrian": SCORED}
    found: dict[int, str] = {}
    for word in asked:
        number = int(word) if word.isascii() and word.isdigit() else numbers.get(_spelt(word))
        if number is None:
            listed = ", ".join(f"{number} {label}" for number, label in known.items())
            advice = nearest(_spelt(word), numbers) or "classes of other files have a number"
            raise BadTracks(f"--classes {word}: no such class; {advice}; known: {listed}")
        if number in found:
            raise BadTracks(f"--classes: {found[number]} and {word} are one class; leave one out")
        found[number] = word
    if not found:
        raise BadTracks("--classes: name at least one class, such as --classes 1,3")
    distractors = () if own or not preprocess else tuple(n for n in rule.distractors if n not in found)
    return ScoredClasses(names=found, asked=True, distractors=distractors, known=known)


def what_was_not_scored(labels: NDArray[np.int64], classes: ScoredClasses) -> str:
    """Why no row of a ground truth is scored: `12 rows of class 3 (car), 2 of class 1 (pedestrian) with flag 0`.

    Args:
        labels: (N,) classes of all rows, N > 0.
        classes: what is scored.
    """
    numbers, counts = np.unique(labels, return_counts=True)
    parts = [
        f"{count:,} of class {classes.in_words(number)}"
        + (" with flag 0 (column 7)" if number in classes.names else "")
        for number, count in zip(numbers.tolist(), counts.tolist())
    ]
    others = [str(number) for number in numbers.tolist() if number not in classes.names]
    return ", ".join(parts) + (f"; --classes {','.join(others)} scores them" if others else "; scored rows have flag 1")


def _known(rule: Rule) -> dict[int, str]:
    return {SCORED: rule.scored} | {number: name for name, number in OTHER_CLASSES.items()}


def _spelt(name: str) -> str:
    return name.lower().replace("_", " ").replace("-", " ").strip()


def _names_in_files(truths: Sequence[SequenceFile]) -> tuple[str, ...]:
    first: tuple[SequenceFile, tuple[str, ...]] | None = None
    for truth in truths:
        names = truth.class_names()
        if names and first is not None and names != first[1]:
            raise BadTracks(
                f"{redact(truth.labels)}: names other classes than {redact(first[0].labels)}, so that a number means "
                "two things; evaluate these sequences apart"
            )
        first = (truth, names) if names and first is None else first
    return first[1] if first is not None else ()
