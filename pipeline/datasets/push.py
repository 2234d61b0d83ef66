"""A data set onto Hugging Face's Hub: what others need of it, in as few commits as the client library makes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from trackmill.pipeline.shards.reader import Dataset
from trackmill.pipeline.shards.unfinished import unfinished_units
from trackmill.pipeline.storage.credentials import redact, scrub
from trackmill.pipeline.storage.files import exists
from trackmill.pipeline.storage.hub_errors import hub_error
from trackmill.pipeline.storage.urls import filesystem, is_local
from trackmill.schemas.errors import InputError, MissingPackage, StorageError
from trackmill.schemas.install import install

PUSHED = (
    "README.md",
    "config.json",
    "schema.json",
    "shards/*.tar",
    "shards/*.tar.idx",
    ".nv-meta/*",
    "receipts/*.parquet",
    "manifest/*.parquet",
    "sidecars/*",
)
"""Plans and listings stay here: they are for going on with mining, and may hold the queries of signed URLs."""
LEFT = (".tmp-*", "*/.tmp-*", ".held-by.json", "*/.held-by.json", "*/.claims/*")

_REPO = re.compile(r"^hf://datasets/(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?$")
_REFUSED = (401, 403)
_GOES_ON = "the same command goes on from here"
"""As the job says it too, which does not repeat what stands in an error."""


@dataclass(frozen=True, slots=True)
class HubPlace:
    """A data set on the Hub: `org/name`, and a branch (empty: main)."""

    repo: str
    revision: str = ""


def hub_place(url: str) -> HubPlace:
    """The data set that a URL names.

    Raises:
        InputError: it is not `hf://datasets/ORG/NAME`, with `@BRANCH` behind it or without.
    """
    match = _REPO.match(url.rstrip("/"))
    if match is None:
        raise InputError(f"{redact(url)}: a data set of the Hub is hf://datasets/ORG/NAME, or .../NAME@BRANCH")
    return HubPlace(match["repo"], match["revision"] or "")


def push(dataset: Dataset, place: HubPlace, *, public: bool, message: str = "") -> str:
    """Push a data set of this machine; what is there already is not sent again.

    Args:
        dataset: opened.
        place: where to; it is made if it is not there.
        public: whether everybody may see one that is made now.
        message: of the commit.

    Returns:
        Where people find it.

    Raises:
        InputError: it lies elsewhere, is not whole, or may not be written to; the Hub has no such names; or its client
            was told to stay offline.
        MissingPackage: huggingface-hub is missing.
        StorageError: the Hub could not be reached, or refused it.
    """
    folder = _checked(dataset)
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
    except ImportError as error:
        raise MissingPackage(f"the Hub needs an extra: {install('hf')} ({error})") from error
    api: Any = HfApi(library_name="trackmill")
    where = f"hf://datasets/{place.repo}"
    try:
        found = api.create_repo(place.repo, repo_type="dataset", private=not public, exist_ok=True)
        if place.revision:
            api.create_branch(place.repo, branch=place.revision, repo_type="dataset", exist_ok=True)
        api.upload_folder(
            repo_id=place.repo,
            repo_type="dataset",
            revision=place.revision or None,
            folder_path=folder,
            allow_patterns=list(PUSHED),
            ignore_patterns=list(LEFT),
            commit_message=message or "Push with trackmill",
        )
    except LocalTokenNotFoundError:
        raise InputError(f"{where}: log in first: hf auth login, or set HF_TOKEN") from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        if status in _REFUSED:
            raise InputError(
                f"{where}: the Hub refuses (HTTP {status}): log in as somebody who may write there "
                "(hf auth login, or HF_TOKEN)"
            ) from None
        said = scrub(" ".join(str(error).split()))[:300]
        raise StorageError(f"{where}: {said}; {_GOES_ON}") from error
    except Exception as error:
        told = hub_error(error, where)
        if told is None:
            raise
        raise (StorageError(f"{told}; {_GOES_ON}") if isinstance(told, StorageError) else told) from error
    return str(found)


def _checked(dataset: Dataset) -> str:
    """The folder, if it may be pushed as it is."""
    layout = dataset.layout
    if layout is None or dataset.recorded is None:
        raise InputError(f"{redact(dataset.url)}: tars without receipts or manifest: push the root of a data set")
    if not is_local(layout.root):
        raise InputError(
            f"{redact(layout.root)}: only what lies on this machine is pushed: copy it here first, or write what is "
            "wanted of it with trackmill filter --output FOLDER"
        )
    left, of = unfinished_units(layout)
    if left:
        raise InputError(
            f"{redact(layout.root)}: {left:,} of {of:,} units are missing; run the {dataset.made_by} command again, "
            "which finishes them"
        )
    if not exists(layout.card):
        raise InputError(f"{redact(layout.root)}: has no README.md; run the {dataset.made_by} command again first")
    return str(filesystem(layout.root)[1])
