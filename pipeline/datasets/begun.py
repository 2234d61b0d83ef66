"""Whether an output was begun with the same settings, and what an attempt left in it that finished nothing."""

from __future__ import annotations

from typing import Any

import orjson

from trackmill.pipeline.datasets.plan import PLAN_FILE
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import anything_done
from trackmill.pipeline.shards.sweep import sweep_output
from trackmill.pipeline.sidecars.about import find_sidecars
from trackmill.pipeline.sidecars.files import RESERVED
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.documents import DamagedDocument, read_document
from trackmill.pipeline.storage.files import exists
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.output_lock import OutputLock
from trackmill.pipeline.storage.publish import remove
from trackmill.pipeline.storage.urls import basename, join
from trackmill.schemas.config import setting_differences
from trackmill.schemas.errors import InputError
from trackmill.schemas.keys import shard_numbers


def has_begun(layout: Layout, document: dict[str, Any], lock: OutputLock) -> bool:
    """Whether units were finished with the same settings. What an attempt left that finished none is removed.

    Args:
        layout: of the output.
        document: `config.json` as it is to be.
        lock: of the output, held.

    Raises:
        InputError: it has units that were made with other settings, or is no such data set.
        LockLost: another process has taken the output over.
        OSError: storage failed.
    """
    where, done = redact(layout.root), anything_done(layout)
    try:
        before = read_document(layout.config) if exists(layout.config) else None
    except DamagedDocument as error:
        raise InputError(f"{error}; restore it or use another --output") from None
    if before is None:
        if done:
            raise InputError(f"{where} has units of a data set and no config.json: restore it, or use another --output")
        return False
    if done and before.get("fingerprint") == document["fingerprint"]:
        return True
    made = dict(before.get("parts") or {}).get("derived")
    if not made:
        raise InputError(f"{where} was not made by filter, merge or split: give the result an --output of its own")
    if not done:
        lock.check()
        _remove_leftovers(layout, str(before.get("fingerprint")))
        return False
    changed = setting_differences(before["parts"], orjson.loads(orjson.dumps(document["parts"])))
    if any("derived.from" in line for line in changed):
        changed = ["the inputs have other shards than then", *(line for line in changed if "derived.from" not in line)]
    raise InputError(f"{where} was begun with other settings ({'; '.join(changed)}): use another --output")


def _remove_leftovers(layout: Layout, fingerprint: str) -> None:
    """Remove the plan, the shards and the sidecars of an attempt that finished no unit, and nothing else.

    With other settings they would stay: a plan of more units than there will be, and shards that no receipt names.
    """
    sweep_output(layout)
    leftovers = [join(layout.plan, PLAN_FILE), *_shards(layout)]
    for sidecar in find_sidecars(layout).by_name.values():
        if sidecar.about.dataset == fingerprint:
            # What says whose they are goes last, as all of this may be killed too.
            leftovers += [join(sidecar.folder, name) for name in (*sidecar.parts, *sidecar.about.files, RESERVED)]
    for url in leftovers:
        remove(url)


def _shards(layout: Layout) -> list[str]:
    try:
        files = list_files(layout.shards)
    except FileNotFoundError:
        return []
    return [join(layout.shards, name) for name in (basename(file.uri) for file in files) if _is_shard(name)]


def _is_shard(name: str) -> bool:
    try:
        return bool(shard_numbers(name))
    except ValueError:
        return False
