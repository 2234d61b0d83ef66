"""The data sets that others are made from: opened, and what of them decides the result."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from trackmill.pipeline.shards.reader import Dataset, open_dataset
from trackmill.pipeline.shards.verify import MADE_FROM
from trackmill.pipeline.sidecars.about import Sidecars, find_sidecars
from trackmill.pipeline.storage.credentials import redact
from trackmill.schemas.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set that samples are taken from.

    Args:
        dataset: opened.
        config: its `config.json`.
        sidecars: beside it.
        fingerprint: of it.
        samples_from: fingerprints that its samples carry.
        shards_digest: of names, lengths and hashes of its shards: another one as soon as it has other samples.
    """

    dataset: Dataset
    config: dict[str, Any]
    sidecars: Sidecars
    fingerprint: str
    samples_from: tuple[str, ...]
    shards_digest: str

    @property
    def url(self) -> str:
        """Its root, fit to be shown."""
        return redact(self.dataset.url)


def open_source(url: str) -> Source:
    """Open a data set that samples are to be taken from.

    Raises:
        FileNotFoundError, BadReceipt: there is no data set, or a receipt is damaged.
        InputError: tars alone, or receipts of several runs.
    """
    dataset = open_dataset(url)
    if dataset.recorded is None or dataset.layout is None:
        raise InputError(
            f"{redact(url)}: tars without receipts or manifest, which say what their samples hold: give the root of a "
            "data set, the folder with shards/ and receipts/ in it"
        )
    config = dataset.config
    found = {receipt.fingerprint for receipt in dataset.receipts} or {str(config.get("fingerprint", ""))}
    if len(found) > 1:
        raise InputError(f"{redact(url)}: receipts of several runs; trackmill inspect --verify says which")
    fingerprint = found.pop()
    shards = [[shard.name, shard.num_bytes, shard.sha256] for shard in dataset.shards]
    return Source(
        dataset=dataset,
        config=config,
        sidecars=find_sidecars(dataset.layout),
        fingerprint=fingerprint,
        samples_from=tuple(str(each) for each in config.get(MADE_FROM, ())) or (fingerprint,),
        shards_digest=hashlib.sha256(orjson.dumps(shards)).hexdigest(),
    )


def common(values: Sequence[str]) -> str:
    """What several data sets agree on; `several` where they do not."""
    return values[0] if len(set(values)) == 1 else "several"
