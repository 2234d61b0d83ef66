"""What an output is, and how far it is."""

from __future__ import annotations

from typing import Any

from trackmill.pipeline.status.data_set import data_set_status
from trackmill.pipeline.status.sidecar import sidecar_status
from trackmill.pipeline.status.state import Status
from trackmill.pipeline.status.training_run import run_status
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.documents import DamagedDocument, read_document
from trackmill.pipeline.storage.urls import basename, canonical, dirname, join
from trackmill.schemas.errors import InputError


def look(url: str, everything: bool = False) -> Status:
    """How far the data set, sidecar or training run at a URL is. Nothing is written, and only small things are read.

    Args:
        url: root of a data set or of a run, or the folder of a sidecar.
        everything: read all receipts, or parts, for the reasons of quarantined items.

    Raises:
        InputError: there is nothing of the kind; or its description, or its plan, is damaged.
        OSError: storage failed.
    """
    root = canonical(url)
    config = _document(join(root, "config.json"))
    if config is not None and "parts" in config:
        return data_set_status(root, config, everything)
    if config is not None and "task" in config:
        return run_status(root, config)
    about = _document(join(root, "sidecar.json"))
    if about is not None and basename(dirname(root)) == "sidecars":
        return sidecar_status(dirname(dirname(root)), basename(root), about, everything)
    if config is not None or about is not None:
        raise InputError(f"{redact(root)}: what lies there was made by neither trackmill mine, sidecar nor train")
    raise InputError(
        f"{redact(root)}: no config.json and no sidecar.json there: give the --output of trackmill mine or train, or "
        "DATA/sidecars/NAME"
    )


def _document(url: str) -> dict[str, Any] | None:
    try:
        return read_document(url)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DamagedDocument as error:
        raise InputError(f"{error}; restore it") from None
