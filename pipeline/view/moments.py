"""The worst moments of one sequence, out of what `trackmill evaluate --output` wrote of one tracker or of several."""

from __future__ import annotations

from typing import Any

import orjson

from trackmill.pipeline.inspect.thumbnails import shown
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.documents import MAX_DOCUMENT_BYTES
from trackmill.pipeline.storage.files import read_bytes
from trackmill.schemas.errors import InputError

_MOST_MOMENTS = 50
_MOST_NAMES = 5
"""Sequences that are named where the right one is not there."""


def read_moments(url: str, sequence: str) -> tuple[list[dict[str, Any]], str]:
    """The moments of a sequence as the page shows them, the worst first; and where there are none, why.

    Of several trackers each text begins with the name.

    Raises:
        InputError: not the JSON of an evaluation.
        OSError: it cannot be read.
    """
    try:
        values = orjson.loads(read_bytes(url, max_bytes=MAX_DOCUMENT_BYTES))
        reports = values.get("trackers", {"": values})
        found = [
            (name, moment)
            for name, report in reports.items()
            for moment in report["moments"]
            if moment["sequence"] == sequence
        ]
        found.sort(key=lambda named: -len(named[1]["switches"]))  # as each report has them; of equal ones, by tracker
        moments = [_moment(*named) for named in found[:_MOST_MOMENTS]]
        others = dict.fromkeys(name for report in reports.values() for name in report.get("sequences", {}))
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{redact(url)}: not what trackmill evaluate --output writes ({type(error).__name__})"
        ) from None
    return moments, "" if moments else _why_none(sequence, list(others))


def _moment(tracker: str, values: dict[str, Any]) -> dict[str, Any]:
    switches = ", ".join(f"object {s['gt']}: {s['from']} becomes {s['to']}" for s in values["switches"])
    return {"frame": int(values["frame"]) + 1, "said": shown(f"{tracker}: {switches}" if tracker else switches)}


def _why_none(sequence: str, others: list[str]) -> str:
    if others and sequence not in others:
        named = ", ".join(others[:_MOST_NAMES]) + (", ..." if len(others) > _MOST_NAMES else "")
        return shown(f"The evaluation is of {named}, and not of {sequence}.")
    return shown(f"The evaluation lists no moment of {sequence} in which an identity switches.")
