"""Patterns that name some shards and not others, as short as can be: `shards/part-0000006[0-3]*.tar`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from trackmill.schemas.keys import shard_numbers

_DIGITS = 8


def patterns(wanted: Collection[str], others: Collection[str]) -> list[str]:
    """Globs, with `*` and `[0-9]`, that match all wanted shards and none of the others.

    Args:
        wanted, others: file names of shards, none in both.

    Returns:
        In order; names where no pattern can tell them apart.
    """
    if not wanted:
        return []
    if not others:
        return ["*.tar"]
    try:
        units = {name: f"{shard_numbers(name)[0]:0{_DIGITS}d}" for name in (*wanted, *others)}
    except ValueError:
        return sorted(wanted)  # not named by mining
    if any(len(unit) > _DIGITS for unit in units.values()):
        return sorted(wanted)
    own, foreign = {units[name] for name in wanted}, {units[name] for name in others}
    shared = own & foreign
    found = [f"part-{each}*.tar" for each in _cover("", sorted(own - shared), sorted(foreign))]
    return sorted(found + [name for name in wanted if units[name] in shared])


def _cover(prefix: str, own: Sequence[str], foreign: Sequence[str]) -> Iterator[str]:
    """Beginnings of all own numbers that no foreign number has."""
    if not own:
        return
    if not foreign:
        yield prefix
        return
    place = len(prefix)
    whole = ""
    for digit in "0123456789":
        inside = [number for number in own if number[place] == digit]
        alien = [number for number in foreign if number[place] == digit]
        if inside and not alien:
            whole += digit
        else:
            yield from _cover(prefix + digit, inside, alien)
    if whole:
        yield prefix + _one_of(whole)


def _one_of(digits: str) -> str:
    """`3`, `[0-4]`, `[0-2]` and the like; digits that are missing in between are named one by one."""
    if len(digits) == 1:
        return digits
    together = ord(digits[-1]) - ord(digits[0]) + 1 == len(digits)
    return f"[{digits[0]}-{digits[-1]}]" if together else f"[{digits}]"
