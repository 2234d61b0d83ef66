"""Evaluates the results of several trackers against one ground truth."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence

from trackmill.pipeline.evaluation.report.comparison import Comparison
from trackmill.pipeline.evaluation.report.report import Progress
from trackmill.pipeline.evaluation.request import Options
from trackmill.pipeline.evaluation.run import evaluate
from trackmill.pipeline.storage.credentials import redact
from trackmill.schemas.errors import InputError, StorageError


def named_results(words: Sequence[str]) -> dict[str, str] | str:
    """What `--results` says: one path, or a path for each tracker's name.

    `NAME=PATH` gives a tracker a name, unless something is called that as a whole; of several plain paths the last
    part is the name.

    Raises:
        InputError: two trackers of one name, or a name without a path.
    """
    if len(words) == 1 and not _name_of(words[0]):
        return words[0]
    found: dict[str, str] = {}
    for word in words:
        name = _name_of(word)
        path = word[len(name) + 1 :] if name else word
        name = name or posixpath.basename(path.rstrip("/"))
        if not path:
            raise InputError(f"--results {word}: a path should follow {name}=")
        if name in found:
            both = f"{redact(found[name])} and {redact(path)}"
            raise InputError(f"--results: two trackers are called {name!r}, {both}; name them, as in A=DIR B=DIR")
        found[name] = path
    return found


def compare(
    benchmark: str,
    gt: str,
    results: Mapping[str, str],
    options: Options | None = None,
    progress: Progress | None = None,
    workers: int | None = 1,
) -> Comparison:
    """Evaluate each tracker as `evaluate` does.

    Args:
        benchmark, gt, options: see `evaluate`.
        results: URL by name of the tracker; one or more.
        progress: called with (videos done, videos in all), over all trackers.
        workers: see `evaluate`.

    Raises:
        InputError: see `evaluate`; the text begins with the tracker's name.
        OSError: a file that cannot be read; likewise.
    """
    if not results:
        raise InputError("results: name at least one tracker")
    reports = {}
    for place, (name, path) in enumerate(results.items()):
        try:
            reports[name] = evaluate(benchmark, gt, path, options, _over_all(progress, place, len(results)), workers)
        except (InputError, OSError) as error:
            if _is_about(gt, error) and not _is_about(path, error):
                raise
            raise _of_tracker(name, error) from error
    return Comparison(benchmark=benchmark, trackers=reports)


def _over_all(progress: Progress | None, place: int, num_trackers: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total: progress(place * total + done, num_trackers * total)


def _is_about(url: str, error: Exception) -> bool:
    return redact(url) in str(error)


def _of_tracker(name: str, error: InputError | OSError) -> InputError | OSError:
    """The same mistake, with the name of the tracker in front."""
    if isinstance(error, FileNotFoundError):
        text = str(error) if error.filename is None else f"{error.filename}: no such file or folder"
        return InputError(f"tracker {name}: {text}")
    if isinstance(error, InputError):
        return InputError(f"tracker {name}: {error}")
    return StorageError(f"tracker {name}: {error}")


def _name_of(word: str) -> str:
    """`A` of `A=results/`; empty where there is no name."""
    name, equals, _ = word.partition("=")
    is_name = bool(equals and name) and not set(name) & set("/\\:?")
    return name if is_name and not os.path.lexists(word) else ""
