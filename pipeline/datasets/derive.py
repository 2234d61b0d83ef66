"""A data set out of others: planned from receipts, copied unit by unit, receipts last, so that a kill costs a unit.

The same inputs and settings give the same bytes, with any number of threads and however often it was stopped.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import orjson

from trackmill.pipeline.datasets.begun import has_begun
from trackmill.pipeline.datasets.copying import copy_samples, taken_rows
from trackmill.pipeline.datasets.inputs import Source, common, open_source
from trackmill.pipeline.datasets.plan import PLAN_FILE, Duplicates, Limits, Plan, make_plan, store_plan
from trackmill.pipeline.datasets.selection import Selection
from trackmill.pipeline.datasets.sidecar_rows import Carried, PartCopier, begin_sidecars, carried_on, carried_sidecars
from trackmill.pipeline.shards.card import write_card
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.manifest import write_manifest
from trackmill.pipeline.shards.manifest_source import current_manifest
from trackmill.pipeline.shards.receipts import done_units, write_receipt
from trackmill.pipeline.shards.sweep import sweep_output
from trackmill.pipeline.shards.totals import Totals
from trackmill.pipeline.shards.unfinished import unfinished_units
from trackmill.pipeline.shards.verify import MADE_FROM
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.documents import publish_document
from trackmill.pipeline.storage.files import exists
from trackmill.pipeline.storage.output_lock import OutputLock, locked
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.urls import canonical, join
from trackmill.schemas.config import digest
from trackmill.schemas.errors import InputError
from trackmill.schemas.sample import SCHEMA_VERSION, json_schemas

Progress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be made.

    Args:
        by: `filter`, `merge` or `split`.
        inputs: roots of data sets, in the order of their samples.
        output: root of the new one.
        selection: which samples.
        limits: of units.
        duplicates: what becomes of a sample that two inputs have.
        sidecars: whether they come along.
        threads: that copy side by side.
    """

    by: str
    inputs: Sequence[str]
    output: str
    selection: Selection = field(default_factory=Selection)
    limits: Limits = field(default_factory=Limits)
    duplicates: Duplicates = "refuse"
    sidecars: bool = True
    threads: int = 4


@dataclass(frozen=True, kw_only=True)
class Derived:
    """What was made.

    Args:
        plan: all of it.
        totals: of the new data set.
        done_now: units that were copied now; the others were there.
        carried: sidecars; of an output that was begun before, those that it was begun with.
    """

    plan: Plan
    totals: Totals
    done_now: int
    carried: Carried


def open_sources(urls: Sequence[str], warn: Callable[[str], None]) -> list[Source]:
    """Open inputs; one that is still being mined is told of.

    Raises:
        InputError: the same one twice; and what `open_source` raises.
    """
    roots = [canonical(url) for url in urls]
    if twice := next((url for url in roots if roots.count(url) > 1), ""):
        raise InputError(f"{redact(twice)} is given twice")
    sources = [open_source(url) for url in roots]
    for source in sources:
        assert source.dataset.layout is not None
        left, of = unfinished_units(source.dataset.layout)
        if left:
            warn(f"{source.url}: {left:,} of its {of:,} units are not mined yet; what comes later will not be in here")
    return sources


def derive(request: Request, sources: Sequence[Source], progress: Callable[[int], Progress]) -> Derived:
    """Make a data set out of others, or go on with one that was begun.

    Args:
        request: what.
        sources: its inputs, opened.
        progress: called with the number of samples that are left; what it returns with each number that is done.

    Raises:
        InputError: nothing is left; the output was begun with other settings or from other inputs, or is no such data
            set.
        OutputLocked: another process makes it.
        BadShard: an input is damaged.
        OSError: storage failed for good.
    """
    layout = Layout(canonical(request.output))
    plan = make_plan(sources, request.selection, request.limits, request.duplicates)
    parts = _parts(request, sources)
    fingerprint = digest(parts)[:16]
    carried = carried_sidecars(sources, fingerprint) if request.sidecars else Carried(abouts=())
    # Other sidecars beside an input are other bytes beside the shards, not other shards.
    document = _document(request, sources, parts, fingerprint)
    with locked(layout.root, request.by) as lock:
        begun = has_begun(layout, document, lock)
        if begun:
            sweep_output(layout)
        else:
            options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
            publish_bytes(layout.json_schemas, orjson.dumps(json_schemas(), option=options))
            publish_document(layout.config, document)
        if not begun or not exists(join(layout.plan, PLAN_FILE)):
            store_plan(layout, plan, sources)
        done = done_units(layout)
        if done:
            carried = carried_on(layout, carried, done)
        todo = [number for number in range(len(plan.units)) if number not in done]
        if todo:
            begin_sidecars(layout, sources, carried.abouts)
        told = progress(sum(plan.units[number].samples for number in todo))
        _copy(layout, request, sources, plan, todo, carried, fingerprint, lock, told)
        current = current_manifest(layout)
        totals = current.totals if current else write_manifest(layout)
        write_card(layout, _card(request, document), totals)
    return Derived(plan=plan, totals=totals, done_now=len(todo), carried=carried)


def _copy(
    layout: Layout,
    request: Request,
    sources: Sequence[Source],
    plan: Plan,
    todo: Sequence[int],
    carried: Carried,
    fingerprint: str,
    lock: OutputLock,
    told: Progress,
) -> None:
    parts = PartCopier(layout, sources, carried.abouts)
    stopped = threading.Event()

    def one(number: int) -> int:
        if stopped.is_set():
            return 0
        taken = taken_rows(sources, plan.units[number])
        rows, shards = copy_samples(layout, number, request.limits, sources, taken)
        parts.write(number, taken, shards)
        lock.check()
        write_receipt(layout, number, rows, shards, fingerprint)
        return len(rows)

    with ThreadPoolExecutor(request.threads, "copying") as pool:
        try:
            for count in _in_turn(pool, one, todo, 2 * request.threads):
                told(count)
        finally:
            stopped.set()


def _in_turn(pool: ThreadPoolExecutor, do: Callable[[int], int], numbers: Iterable[int], most: int) -> Iterable[int]:
    waiting: deque[Future[int]] = deque()
    for number in numbers:
        waiting.append(pool.submit(do, number))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    for future in waiting:
        yield future.result()


def _parts(request: Request, sources: Sequence[Source]) -> dict[str, Any]:
    """What the fingerprint is made of: the samples that go in, which are kept, and where units end."""
    limits = request.limits
    return {
        "schema_version": SCHEMA_VERSION,
        "derived": {
            "by": request.by,
            "selection": request.selection.described(),
            "duplicates": request.duplicates,
            "from": [{"fingerprint": each.fingerprint, "shards": each.shards_digest} for each in sources],
        },
        "shards": {
            "max_bytes": limits.max_bytes,
            "max_samples": limits.max_samples,
            "unit_frames": limits.unit_frames,
        },
    }


def _document(request: Request, sources: Sequence[Source], parts: dict[str, Any], fingerprint: str) -> dict[str, Any]:
    settings = [dict(source.config.get("config") or {}) for source in sources]
    amodal = any(dict(each.get("read") or {}).get("amodal") for each in settings)
    return {
        "fingerprint": fingerprint,
        "parts": parts,
        "config": {
            "proposer": common([str(each.get("proposer", "unknown")) for each in settings]),
            "source": common([str(each.get("source", "unknown")) for each in settings]),
            **({"read": {"amodal": True}} if amodal else {}),
        },
        "inputs": [source.url for source in sources],
        MADE_FROM: sorted(set(itertools.chain.from_iterable(source.samples_from for source in sources))),
        "trackmill": version("trackmill"),
    }


def _card(request: Request, document: dict[str, Any]) -> dict[str, Any]:
    """What the card says of how it was made."""
    made = {"by": f"trackmill {request.by}", "from": ", ".join(document["inputs"])}
    return {**document["config"], "fingerprint": document["fingerprint"], "made": made | request.selection.described()}
