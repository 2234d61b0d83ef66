"""From settings and inputs to a run that is ready: everything is checked and planned, nothing is mined yet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from trackmill.models.registry import proposer_class
from trackmill.pipeline.mining.changes import store_sizes
from trackmill.pipeline.mining.fingerprint import (
    fingerprint,
    store_config,
)
from trackmill.pipeline.mining.opening import open_output
from trackmill.pipeline.mining.plan import Plan, PlanError, extend, listing_digest, read_plan, store_plan
from trackmill.pipeline.mining.planning import claim_inputs, look_at_anew, plan_inputs
from trackmill.pipeline.mining.settings import MineConfig
from trackmill.pipeline.mining.signatures import keep_signatures, quarantined_positions
from trackmill.pipeline.mining.unit import MineJob
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import listed_receipts
from trackmill.pipeline.shards.sweep import sweep_output
from trackmill.pipeline.sidecars.about import SidecarJob, begin_sidecar, is_begun
from trackmill.pipeline.sidecars.requests import Request
from trackmill.pipeline.sources import SOURCES, source_class, sources_of
from trackmill.pipeline.sources.claiming import list_inputs
from trackmill.pipeline.sources.tar_store import stored_tar_indexes
from trackmill.pipeline.storage.credentials import redact, storage_environment
from trackmill.pipeline.storage.files import exists
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.pipeline.storage.publish import remove
from trackmill.pipeline.storage.urls import canonical
from trackmill.schemas.errors import InputError
from trackmill.schemas.media import WorkItem

log = logging.getLogger("trackmill")


@dataclass(slots=True)
class Run:
    """A run that has been checked and planned, before anything is done.

    Args:
        config: resolved: nothing in it depends on the machine any more.
        plan: all items, those of earlier runs included.
        unclaimed: files under the inputs that no source understands.
        retried: quarantined items as they are named now, by source id; for a retry.
        first_new_unit: for a retry, units from here on are new and are done too.
        sidecars: made in the same pass, see `add_sidecars`.
        moved: items that are read elsewhere than planned, because nothing is there any more; by source id.
    """

    config: MineConfig
    layout: Layout
    parts: dict[str, Any]
    plan: Plan
    unclaimed: Sequence[FileInfo] = ()
    retried: dict[str, WorkItem] = field(default_factory=dict)
    first_new_unit: int = 0
    sidecars: tuple[SidecarJob, ...] = ()
    moved: dict[str, WorkItem] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Of everything that changes the output."""
        return fingerprint(self.parts)

    @property
    def uses_gpu(self) -> bool:
        """Whether the proposer, or who makes a sidecar, gains from a GPU."""
        return proposer_class(self.config.proposer).uses_gpu or any(sidecar.uses_gpu for sidecar in self.sidecars)

    @property
    def libraries(self) -> dict[str, str]:
        """Versions that every worker must have too."""
        return {**self.parts["libraries"], **self.parts["proposer"]["implementation"]}

    def job(self) -> MineJob:
        """What the driver sends to its workers."""
        return MineJob(
            root=self.layout.root,
            config=self.config.model_dump(mode="json"),
            fingerprint=self.fingerprint,
            libraries=self.libraries,
            environment=storage_environment(),
            sidecars=self.sidecars,
        )


def prepare_mining(
    config: MineConfig,
    inputs: list[str],
    output: str,
    limit: int | None = None,
    store: bool = True,
    alone: Callable[[], None] = lambda: None,
) -> Run:
    """Check the settings, look at the inputs and make or extend the plan.

    Args:
        config: as the user gave it.
        inputs: URLs of files, folders or globs.
        output: root URL of the data set.
        limit: mine only the first so many items.
        store: write the configuration and the plan; without it nothing is written at all.
        alone: called before what was begun with other settings is removed; raises where others are at work on it.

    Raises:
        ValueError: a bad URL, a proposer that the source cannot serve, other settings than the output was begun with.
        FileNotFoundError: an input that does not exist.
    """
    inputs = list(dict.fromkeys(canonical(url) for url in inputs))
    opened = open_output(config, output)
    layout, config = opened.layout, opened.config
    with stored_tar_indexes(layout.tar_indexes if store else ""):
        planned = plan_inputs(opened, inputs, limit)
    plan = planned.plan
    _check_proposer(config, plan)
    if store:
        sweep_output(layout)
        if opened.stale:
            alone()
            remove(layout.plan)
            remove(layout.listing)
            remove(layout.shards)
            remove(layout.sidecars)
        if not opened.begun or not set(inputs) <= set(opened.inputs):
            store_config(layout, config, opened.parts, list(dict.fromkeys([*opened.inputs, *inputs])))
        if plan.new is not None and planned.sizes is not None:
            store_sizes(layout, planned.files, planned.sizes)
            store_plan(layout, plan)
        keep_signatures(layout, plan, planned.moved)
    return Run(config, layout, opened.parts, plan, planned.unclaimed, moved=planned.moved)


def ready_run(
    config: MineConfig, inputs: list[str], output: str, limit: int | None = None, as_planned: bool = False
) -> Run | None:
    """The run as it was planned already, if there is nothing to plan: same settings, same inputs, same listing.

    Nothing is written, and no file is looked into.

    Args:
        config, inputs, output, limit: as in `prepare_mining`.
        as_planned: the inputs are not even listed; whatever is planned is meant.

    Raises:
        ValueError, FileNotFoundError: see `prepare_mining`.
    """
    inputs = list(dict.fromkeys(canonical(url) for url in inputs))
    opened = open_output(config, output)
    stored = read_plan(opened.layout) if opened.begun else None
    if stored is None:
        return None
    if not as_planned:
        if not set(inputs) <= set(opened.inputs):
            return None
        files = list_inputs(inputs, opened.config.source, opened.layout.root)
        if listing_digest(files, opened.config.source, limit) not in stored.listings:
            return None
    _check_proposer(opened.config, stored)
    return Run(opened.config, opened.layout, opened.parts, stored)


def add_sidecars(
    run: Run, requests: Sequence[Request], store: bool = True, alone: Callable[[], None] = lambda: None
) -> bool:
    """Let a run make sidecars in the same pass as the shards.

    Args:
        run: see `prepare_mining` and `reopen`; what it stored is there already.
        requests: see `trackmill.pipeline.sidecars.requests.request_sidecars`.
        store: as in `prepare_mining`.
        alone: as in `prepare_mining`.

    Returns:
        Whether nothing is left to be stored.

    Raises:
        SidecarError: one was begun with other settings, or for another data set.
        InputError: one is made from another sidecar.
    """
    for request in requests:
        if others := request.kind.reads(request.settings):
            raise InputError(
                f"sidecar {request.name}: it is made from another sidecar, {others[0]}; make it once that is there, by "
                "a command of its own"
            )
    jobs = [begin_sidecar(run.layout, request, run.fingerprint, store=False) for request in requests]
    begun = all(is_begun(run.layout, job, run.fingerprint) for job in jobs)
    if store and not begun:
        if any(exists(run.layout.sidecar_about(job.name)) for job in jobs):
            alone()
        jobs = [begin_sidecar(run.layout, request, run.fingerprint) for request in requests]
    run.sidecars = tuple(jobs)
    return begun or store


def reopen(config: MineConfig, inputs: list[str], output: str) -> Run:
    """Go on with a data set in order to retry its quarantined items: for `--only-quarantined`.

    The inputs are looked at anew, because mending a file changes what there is to know of it: its byte range in a tar,
    whether it has annotations, how many clips it makes.

    Args:
        config: as in `prepare_mining`.
        inputs: where to look; those of the first run if empty.
        output: root URL of the data set.

    Raises:
        ValueError: nothing was mined there yet, or with other settings.
    """
    opened = open_output(config, output)
    layout, config = opened.layout, opened.config
    plan = read_plan(layout) if opened.begun else None
    if plan is None:
        raise PlanError(f"nothing was mined into {redact(layout.root)} yet: run without --only-quarantined first")
    inputs = [canonical(url) for url in inputs] or opened.inputs
    rows: dict[str, WorkItem] = {}
    for unit, positions in quarantined_positions(layout, listed_receipts(layout)):
        items = plan.unit(unit)
        rows.update((items[position].source_id, items[position]) for position in positions)
    try:
        files = list_inputs(inputs, config.source, layout.root)
        with stored_tar_indexes(layout.tar_indexes):
            claimed = claim_inputs(files, opened, inputs, plan)
        found = look_at_anew(claimed.items, plan, files, inputs, opened, rows)
    except (OSError, ValueError) as error:
        log.warning(
            "the inputs cannot be looked at anew, items are retried as they were planned: %s; if they lie elsewhere "
            "now, say so by --input",
            error,
        )
        found = []
    fresh = {item.source_id: item for item in found}
    retried = {name: fresh[name] for name in rows if name in fresh}
    # What looks otherwise now (a video that can be opened, a tar that is whole) may turn out to hold more items.
    changed = {item.uri for name, item in rows.items() if retried.get(name) != item}
    first_new = plan.num_units
    plan = extend(plan, [item for item in found if item.uri in changed], config.shards)
    store_plan(layout, plan)
    keep_signatures(layout, plan, retried)
    return Run(config, layout, opened.parts, plan, retried=retried, first_new_unit=first_new)


def _check_proposer(config: MineConfig, plan: Plan) -> None:
    if not proposer_class(config.proposer).needs_annotations:
        return
    sources = {name: source_class(name) for name in SOURCES} | sources_of(config.source)
    bare = [name for name in plan.sources() if name in sources and not sources[name].annotated]
    if bare:
        raise InputError(
            f"--proposer {config.proposer} needs annotations, which the source {', '.join(bare)} does not have; "
            "use another one, such as graph or sam, or name an annotated --source"
        )
