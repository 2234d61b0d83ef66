"""From a command to a run that other processes may work on at the same moment: one plans, the others read its plan."""

from __future__ import annotations

from collections.abc import Sequence

from trackmill.pipeline.mining.fingerprint import SettingsChanged
from trackmill.pipeline.mining.plan import PlanError
from trackmill.pipeline.mining.prepare import Run, add_sidecars, prepare_mining, ready_run, reopen
from trackmill.pipeline.mining.run import JOB
from trackmill.pipeline.mining.settings import MineConfig
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.sidecars.requests import Request
from trackmill.pipeline.storage.claims import Claims
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import exists
from trackmill.pipeline.storage.urls import canonical
from trackmill.pipeline.workers.joining import join_work


def join_mining(
    claims: Claims,
    config: MineConfig,
    inputs: list[str],
    output: str,
    *,
    limit: int | None = None,
    sidecars: Sequence[Request] = (),
    only_quarantined: bool = False,
    as_planned: bool = False,
) -> Run:
    """Plan, or take over the plan that is there, and be one of those who work on it.

    The output is locked as long as something is planned and stored, so that several jobs with several inputs extend one
    plan. Where nothing is to be stored nothing is locked: a thousand parts read the plan at the same moment.

    Args:
        claims: of this process on `output`; joined on return.
        config, inputs, output, limit: see `prepare_mining`.
        sidecars: see `add_sidecars`.
        only_quarantined: see `reopen`.
        as_planned: see `ready_run`.

    Raises:
        ValueError, FileNotFoundError: see `prepare_mining`.
        SettingsChanged: others are at work on it with other settings.
        PlanError: `as_planned`, and nothing is.
        OutputLocked: another job holds the output.
    """
    root = canonical(output)
    layout = Layout(root)

    def ready() -> Run | None:
        if only_quarantined:
            return None
        run = ready_run(config, inputs, output, limit, as_planned)
        return run if run is not None and add_sidecars(run, sidecars, store=False) else None

    def alone() -> None:
        if others := claims.living():
            raise SettingsChanged(
                f"{redact(root)} was begun with other settings, and others are at work on it: {', '.join(others)}. "
                "Use their settings, or another --output, or wait for them."
            )

    def plan() -> Run:
        if as_planned:
            if (planned := ready()) is None:
                raise PlanError(
                    f"nothing was planned for {redact(root)} yet, or without these sidecars: run once without "
                    "--as-planned, and with --stop-after-plan if that is only to plan"
                )
            return planned
        run = (
            reopen(config, inputs, output)
            if only_quarantined
            else prepare_mining(config, inputs, output, limit, alone=alone)
        )
        add_sidecars(run, sidecars, alone=alone)
        return run

    begun = not only_quarantined and exists(layout.config)
    return join_work(claims, root, JOB, "planning", begun=begun, ready=ready, begin=plan)
