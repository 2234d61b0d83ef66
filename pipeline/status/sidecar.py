"""How far a sidecar is: names of its parts against those that its data set's shards ask for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.status.holders import age_of, holders_of
from trackmill.pipeline.status.pace import pace_of
from trackmill.pipeline.status.quarantined import TOP, chosen
from trackmill.pipeline.status.state import Quarantine, Reason, Sign, Status
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.file_times import list_times, store_time
from trackmill.schemas.keys import shard_numbers, sidecar_part_name, unit_of_part

_EXAMPLES = 3
_THREADS = 16


def sidecar_status(root: str, name: str, about: dict[str, Any], every_part: bool = False) -> Status:
    """How far a sidecar is.

    Args:
        root: URL of its data set, spelt in full.
        name: of the sidecar.
        about: what its `sidecar.json` says.
        every_part: read what all parts say of quarantined samples, not only some.

    Raises:
        OSError: storage failed.
    """
    layout = Layout(root)
    folder = layout.sidecar(name)
    clock = store_time(folder)
    files = list_times(folder)
    parts = sorted((file for file in files if unit_of_part(file.name)), key=lambda file: (file.modified, file.name))
    done = {unit_of_part(file.name) for file in list_times(layout.receipts)}
    wanted = set()
    for shard in list_times(layout.shards):
        try:
            unit, retry, _ = shard_numbers(shard.name)
        except ValueError:
            continue
        if (unit, 0) in done:  # without a receipt it is not there yet
            wanted.add(sidecar_part_name(unit, retry))
    made = {file.name for file in parts} & wanted if wanted else {file.name for file in parts}
    holders, signs = holders_of(folder, files, clock.now)
    if parts:
        signs.append(Sign(what=f"part {parts[-1].name}", age_s=age_of(parts[-1].modified, clock.now)))
    names = [file.name for file in parts]
    going = any(each.alive for each in holders)
    whole = bool(wanted) and made >= wanted
    status = Status(
        kind="sidecar",
        url=redact(folder),
        title=f"sidecar {name}, fingerprint {str(about.get('fingerprint', '?'))[:16]}",
        state="going" if going else "done" if whole else "stopped",
        things="parts",
        done=len(made),
        total=len(wanted) or len(made),
        pace=pace_of([file.modified for file in parts]),
        quarantine=_look_at(layout, name, names if every_part else chosen(names), len(names)) if names else None,
        holders=holders,
        signs=sorted(signs, key=lambda sign: sign.age_s),
        clock=clock.whose,
    )
    if not wanted:
        status.notes.append("its data set has no shards here, so what is left is not known")
    if len(names) > len(made):
        status.notes.append(f"{len(names) - len(made)} parts belong to no shard that is here")
    _conclude(status, redact(root), name, about)
    return status


def _look_at(layout: Layout, name: str, parts: list[str], of: int) -> Quarantine:
    """Counts of samples from the ends of some parts."""
    from trackmill.pipeline.sidecars.part import BadPart, PartAbout, read_part_about

    def read(part: str) -> PartAbout | str:
        try:
            return read_part_about(layout.sidecar_part(name, part), f"sidecars/{name}/{part}")
        except BadPart as error:
            return str(error)

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="parts") as pool:
        found = list(pool.map(read, parts))
    reasons: dict[str, list[tuple[str, str]]] = {}
    whole = [each for each in found if not isinstance(each, str)]
    for part in whole:
        for sample in part.quarantined:
            reasons.setdefault(sample.error_class, []).append((sample.key, sample.reason))
    samples, bad = sum(part.samples for part in whole), sum(len(each) for each in reasons.values())
    top = sorted(reasons, key=lambda error: -len(reasons[error]))[:TOP]
    return Quarantine(
        receipts=len(parts),
        of=of,
        items=samples,
        statuses={"ok": samples - bad} | ({"quarantined": bad} if bad else {}),
        quarantined=bad,
        reasons=[
            Reason(error_class=error, count=len(reasons[error]), examples=reasons[error][:_EXAMPLES]) for error in top
        ],
        damaged=[each for each in found if isinstance(each, str)],
    )


def _conclude(status: Status, root: str, name: str, about: dict[str, Any]) -> None:
    from trackmill.pipeline.sidecars.about import command

    if status.quarantine is not None and status.quarantine.damaged:
        status.notes.append(
            f"{len(status.quarantine.damaged)} parts are damaged, such as {status.quarantine.damaged[0]}"
        )
    parts = about.get("parts", {})
    producer = parts.get("producer", {}) if isinstance(parts, dict) else {}
    makes = command(root, name, str(producer.get("name", "")) if isinstance(producer, dict) else "")
    if status.state == "going":
        status.next = f"wait, or look again: trackmill status {status.url} --watch 30"
    elif status.state == "stopped":
        status.next = makes
    elif status.quarantine is not None and status.quarantine.quarantined:
        status.next = f"{makes} --only-quarantined"
    else:
        status.next = f"trackmill inspect {root} --stats"
