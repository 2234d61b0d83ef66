"""From a request to a sidecar that others may make at the same moment: one begins it, the others look at it."""

from __future__ import annotations

from trackmill.pipeline.sidecars.about import SidecarError, begin_sidecar, is_begun
from trackmill.pipeline.sidecars.prepare import Making, look_at_parts, open_mined
from trackmill.pipeline.sidecars.requests import Request
from trackmill.pipeline.sidecars.settings import SidecarRunSettings
from trackmill.pipeline.storage.claims import Claims
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import exists
from trackmill.pipeline.storage.scratch import sweep_scratch
from trackmill.pipeline.workers.joining import join_work

JOB = "sidecar"
"""What a process that makes a sidecar is called in locks and claims."""


def join_sidecar(
    claims: Claims, root: str, request: Request, settings: SidecarRunSettings, *, only_quarantined: bool = False
) -> Making:
    """Begin a sidecar, or look at what is there of it, and be one of those who make it.

    Args:
        claims: of this process on the folder of the sidecar; joined on return, unless nothing is left to be made.
        root, request, settings, only_quarantined: see `trackmill.pipeline.sidecars.prepare.prepare_sidecar`.

    Raises:
        SidecarError: others are at work on it with other settings.
        OutputLocked: another job, or an older version of this one, holds the sidecar.
        Exception: see `prepare_sidecar`.
    """
    mined = open_mined(root)
    layout, dataset = mined.layout, mined.fingerprint
    folder = layout.sidecar(request.name)
    found: Making | None = None

    def ready() -> Making | None:
        nonlocal found
        if found is not None and is_begun(layout, found.work.job, dataset):
            return found
        job = begin_sidecar(layout, request, dataset, store=False)
        found = look_at_parts(mined, job, settings, only_quarantined) if is_begun(layout, job, dataset) else None
        return found

    def begin() -> Making:
        if (run := ready()) is not None:
            return run
        if exists(layout.sidecar_about(request.name)) and (others := claims.living()):
            raise SidecarError(
                f"{redact(folder)} was begun with other settings, and others are at work on it: {', '.join(others)}. "
                "Use their settings, or another name for the sidecar, or wait for them."
            )
        job = begin_sidecar(layout, request, dataset)
        return look_at_parts(mined, job, settings, only_quarantined)

    begun = ready() is not None
    if begun:
        sweep_scratch(folder)
    if found is not None and not found.todo:
        if claims.pieces():  # of who died between the last part and the end
            claims.join()
            claims.sweep({task.claim for task in found.tasks})
        return found
    return join_work(claims, folder, JOB, "beginning", begun=begun, ready=ready, begin=begin)
