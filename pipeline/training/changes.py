"""What may differ when a run goes on: nothing that decides the result, unless somebody allows it and it is recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.tasks.outside_code import changed_code
from trackmill.pipeline.training.saved_checkpoint import SavedCheckpoint, other_surroundings
from trackmill.schemas.config import ConfigError, flatten
from trackmill.schemas.names import nearest

DATA = "data"
"""Stands for the data set in what may change."""
_NOT_SET = "not set"
_QUERY = "?..."
"""What `redact` leaves of a query."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A setting that was changed when a run went on, because somebody allowed it."""

    key: str
    before: Any
    now: Any

    def among(self, allowed: Sequence[str]) -> bool:
        """Whether it, or its section, is one of these keys."""
        return any(self.key == each or self.key.startswith(f"{each}.") for each in allowed)

    def __str__(self) -> str:
        return f"{self.key} was {self.before!r}, now {self.now!r}"


def check_fits(
    saved: SavedCheckpoint,
    recipe: Mapping[str, Any],
    digest: str,
    data: Mapping[str, Any],
    allowed: Sequence[str] = (),
) -> list[Change]:
    """Refuse to go on with other settings or other data, unless somebody says so: the result would be neither run's.

    Args:
        saved: the checkpoint.
        recipe: what changes results, of this run.
        digest: over that.
        data: fingerprint of the data set and what else identifies it.
        allowed: keys and sections that may differ, and `data` for the data set.

    Returns:
        What differs, all of it allowed.

    Raises:
        ConfigError: names each key that differs and is not allowed, with both values, or an allowed key that no recipe
            has.
    """
    where, document = redact(saved.url), saved.document
    before, now = flatten(document.recipe), flatten(dict(recipe))
    known = {*before, *now, *(key.partition(".")[0] for key in (*before, *now)), DATA}
    for key in allowed:
        if key not in known:
            advice = nearest(key, sorted(known)) or "it is a key or a section of the recipe that decides the result"
            raise ConfigError(f"--allow-changed {key}: {advice}, or {DATA!r} for another data set")
    changes = []
    if document.digest != digest:
        for key in sorted({*before, *now}):
            if before.get(key) != now.get(key) and not _is_same_signed(before.get(key), now.get(key)):
                changes.append(Change(key=key, before=before.get(key, _NOT_SET), now=now.get(key, _NOT_SET)))
        refused = [each for each in changes if not each.among(allowed)]
        if refused or (not changes and not any(_is_same_signed(before.get(key), now.get(key)) for key in now)):
            keys = " ".join(each.key for each in refused)
            shown = "; ".join(map(str, refused)) or "made by another version"
            way = f" (or add --allow-changed {keys}, which is recorded)" if refused else ""
            raise ConfigError(
                f"{where} was trained with another recipe: {shown}. "
                f"Give the same settings to go on{way}, or another --output to start anew"
            )
    if document.data != data:
        others = [
            Change(key=key, before=document.data.get(key, _NOT_SET), now=value)
            for key, value in data.items()
            if document.data.get(key) != value
        ]
        if DATA not in allowed:
            raise ConfigError(
                f"{where} was trained on other data: {'; '.join(map(str, others))}. Give the same data set to go on "
                f"(or add --allow-changed {DATA}, which is recorded), or another --output to start anew"
            )
        changes += others
    return changes


def _is_same_signed(before: Any, now: Any) -> bool:
    """Whether both are one signed URL, of which older runs tell that there was a query."""
    return isinstance(before, str) and before.endswith(_QUERY) and before.removesuffix(_QUERY) == now


def history_of(saved: SavedCheckpoint, changes: Sequence[Change]) -> list[dict[str, Any]]:
    """What was changed during a run, by step, for the checkpoints that follow: those of before, and these."""
    before: list[dict[str, Any]] = [each.model_dump() for each in saved.document.history]
    return before + [{"step": saved.step, "key": each.key, "before": each.before, "now": each.now} for each in changes]


def notes_of(
    saved: SavedCheckpoint, history: Sequence[Mapping[str, Any]], world: int, code: Mapping[str, str], output: str
) -> Iterator[str]:
    """What people should know when a run goes on: what it does otherwise than before.

    Args:
        saved: where it goes on.
        history: see `history_of`.
        world: number of ranks.
        code: see `trackmill.pipeline.tasks.outside_code.outside_code`.
        output: root of the run.
    """
    for change in history:
        if change["step"] == saved.step:
            yield f"allowed: {change['key']} was {change['before']!r}, is {change['now']!r} now"
    if others := other_surroundings(saved, world):
        yield f"saved with {others}: results may differ by rounding from those of one go"
    for name in changed_code(saved.document.code, code):
        anew = "; another --output starts anew" if saved.url.startswith(f"{output.rstrip('/')}/") else ""
        yield (
            f"the code of {name} has changed since step {saved.step} was saved: the steps from here on are learnt with "
            f"the new one{anew}"
        )


def check_frozen(saved: SavedCheckpoint, frozen: str) -> None:
    """Refuse other frozen weights than those that the trained ones were fitted to; they are not in the checkpoint.

    Raises:
        ConfigError: their digest is another one.
    """
    if saved.document.frozen != frozen:
        raise ConfigError(
            f"{redact(saved.url)} was trained on top of other frozen weights; give the file that it started from"
        )
