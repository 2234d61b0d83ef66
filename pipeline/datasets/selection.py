"""Which samples of a data set are wanted, told from the rows of its receipts alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trackmill.pipeline.datasets.groups import Grouping, Span, inside, places
from trackmill.pipeline.formats.text_spellings import utf8
from trackmill.pipeline.shards.totals import is_clip, sources_of
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import read_bytes
from trackmill.schemas.errors import InputError
from trackmill.schemas.keys import KEY_PATTERN, slug

Kind = Literal["picture", "clip"]
_MAX_KEY_FILE = 2 << 30


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Samples for which all of this holds; without anything, all samples.

    Args:
        sources: names of sources, as keys begin with them; empty: any.
        licenses: as receipts have them, in any case; empty: any.
        kind: only pictures, or only clips; None: both.
        least, most: by column of the receipts (`objects`, `mean_score`, ...): the least and the most, both included.
            A sample that has no mean score is left out where one is asked for.
        keys: only these; None: any.
        without: not these.
        span: only groups that a hash puts there; None: all.
        group: what a group is.
        seed: of the hash.
        every: of those that are left, the first and then every so manieth; over all inputs, in their order.
    """

    sources: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    kind: Kind | None = None
    least: Mapping[str, float] = field(default_factory=dict)
    most: Mapping[str, float] = field(default_factory=dict)
    keys: frozenset[str] | None = None
    without: frozenset[str] = frozenset()
    span: Span | None = None
    group: Grouping = "video"
    seed: int = 0
    every: int = 1

    def described(self) -> dict[str, Any]:
        """What was set, in plain values for `config.json`; lists of keys as their digest."""
        values: dict[str, Any] = {
            "sources": list(self.sources),
            "licenses": list(self.licenses),
            "kind": self.kind or "",
            "least": dict(self.least),
            "most": dict(self.most),
            "keys": "" if self.keys is None else _digest(self.keys),
            "without": _digest(self.without) if self.without else "",
            "every": self.every if self.every > 1 else 0,
        }
        if self.span is not None:  # beyond 64 bits, so as text
            low, high = self.span
            values |= {"places": f"{low:x}-{high:x}", "group": self.group, "seed": self.seed}
        return {name: value for name, value in values.items() if value or name == "seed"}


class Chooser:
    """Applies a selection to the rows of one block after the other."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self._sources = pa.array([slug(name) for name in selection.sources], pa.string())
        self._licenses = pa.array([name.casefold() for name in selection.licenses], pa.string())
        self._keys = None if selection.keys is None else pa.array(sorted(selection.keys), pa.string())
        self._without = pa.array(sorted(selection.without), pa.string())
        self._count = 0
        self.unscored = 0
        """Samples so far that were left out for nothing but that they have proposals and no mean score."""
        self.any_objects = False
        """Whether a sample so far has annotated objects."""

    def choose(self, rows: pa.Table) -> NDArray[np.bool_]:
        """(N,) which rows of the next block are wanted; only rows that are `ok` ever are.

        Args:
            rows: with all columns of receipts.
        """
        wanted = self.selection
        keep = _mask(pc.equal(rows["status"], "ok"))
        self.any_objects |= bool(rows["objects"].to_numpy().any())
        if wanted.sources:
            keep &= _mask(pc.is_in(sources_of(rows["key"]), value_set=self._sources))
        if wanted.licenses:
            spelt = pa.array([text.casefold() for text in rows["license"].to_pylist()], pa.string())
            keep &= _mask(pc.is_in(spelt, value_set=self._licenses))
        if wanted.kind is not None:
            keep &= is_clip(rows) == (wanted.kind == "clip")
        unknown = np.zeros(len(rows), np.bool_)
        if "mean_score" in wanted.least or "mean_score" in wanted.most:
            unknown = rows["mean_score"].to_numpy() == 0
        for name, bound in wanted.least.items():
            keep &= (rows[name].to_numpy() >= bound) | (unknown if name == "mean_score" else False)
        for name, bound in wanted.most.items():
            keep &= (rows[name].to_numpy() <= bound) | (unknown if name == "mean_score" else False)
        if self._keys is not None:
            keep &= _mask(pc.is_in(rows["key"], value_set=self._keys))
        if wanted.without:
            keep &= ~_mask(pc.is_in(rows["key"], value_set=self._without))
        if wanted.span is not None:
            keep &= inside(places(rows, wanted.group, wanted.seed), wanted.span)
        self.unscored += int(np.count_nonzero(keep & unknown & (rows["proposals"].to_numpy() > 0)))
        keep &= ~unknown
        if wanted.every > 1:
            number = self._count + np.cumsum(keep) - 1
            self._count += int(np.count_nonzero(keep))
            keep &= number % wanted.every == 0
        return keep


def read_keys(url: str) -> frozenset[str]:
    """Keys out of a text file, one a line; empty lines and what follows a `#` are left out.

    Raises:
        InputError: no text, or a line that cannot be a key; names it.
        OSError: could not be read.
    """
    found = set()
    text = utf8(read_bytes(url, max_bytes=_MAX_KEY_FILE), url).decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), 1):
        key = line.partition("#")[0].strip().removesuffix(".json")
        if not key:
            continue
        if not KEY_PATTERN.match(key):
            raise InputError(f"{redact(url)}: line {number}: {key[:60]!r} cannot be the key of a sample")
        found.add(key)
    return frozenset(found)


def _digest(keys: frozenset[str]) -> str:
    return f"{len(keys)} keys, {hashlib.sha256(chr(10).join(sorted(keys)).encode()).hexdigest()[:16]}"


def _mask(column: pa.ChunkedArray | pa.Array) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.array(column.to_numpy(zero_copy_only=False), np.bool_)
    return found
