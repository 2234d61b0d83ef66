"""A target that does what its input says, so that the harness is seen to catch it; and what it should be taken for."""

from __future__ import annotations

import os
from pathlib import Path

from tests.fuzz.outcomes import Kind
from tests.fuzz.target import Files, Refused, Target
from trackmill.schemas.errors import InputError

EXPECTED = {
    b"right": Kind.SAME,
    b"clear error": Kind.ERROR,
    b"reasons": Kind.ERROR,
    b"bare KeyError": Kind.TRACEBACK,
    b"error of the system": Kind.TRACEBACK,
    b"exit": Kind.TRACEBACK,
    b"names nothing": Kind.UNCLEAR,
    b"control codes": Kind.UNCLEAR,
    b"endless text": Kind.UNCLEAR,
    b"other data": Kind.SILENT,
    b"memory": Kind.MEMORY,
    b"death": Kind.DEATH,
    b"loop": Kind.HANG,
    b"right again": Kind.SAME,
}
"""What each word does; the deadly ones come last but one, and the child after them is as good as the first."""


def _seeds() -> list[Files]:
    return [{"planted.txt": b"right"}]


def _run(folder: Path) -> object:
    word = (folder / "planted.txt").read_bytes()
    if word == b"clear error":
        raise InputError(f"{folder}/planted.txt: should say right")
    if word == b"reasons":
        raise Refused(["planted.txt: the first", "planted.txt: the second"])
    if word == b"bare KeyError":
        raise KeyError("planted.txt")
    if word == b"error of the system":
        open(folder / "nothing.txt")  # noqa: SIM115
    if word == b"exit":
        raise SystemExit(0)
    if word == b"names nothing":
        raise InputError("it cannot be read")
    if word == b"control codes":
        raise Refused(["planted.txt: \x1b[2J"])
    if word == b"endless text":
        raise Refused(["planted.txt: " + "x" * 5000])
    if word == b"other data":
        return [0]
    if word == b"memory":
        return bytearray(4 << 30)
    if word == b"death":
        os.abort()
    while word == b"loop":
        pass
    return [1]


TARGETS = {"planted": Target(name="planted", seeds=_seeds, run=_run, covered="all", most_cpu_s=2.0)}
