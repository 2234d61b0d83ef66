"""Names of files that a file system can hold and people never choose."""

from __future__ import annotations

import os
from random import Random

from tests.fuzz.target import Files

ODD = (
    os.fsdecode(b"caf\xe9"),
    *("line\nbreak", "\x1b[2Jclear", "tab\tname", "a b", "%41", "a%2Fb", "#1", "?x=1", "a;b", "a&b", "'q'", '"q"'),
    *("[1]", "{0..3}", "*", "-rf", "--output", "~", "é", "e\u0301", "\u202egpj", "\u2028", "\x7f", "..."),
    *("x" * 200, "a\\b", "\\xe9", "C:", "nul", " lead", "trail ", ".hidden", "ＦＵＬＬ", "\r", "a:b", "$HOME", "`id`"),
    os.fsdecode(b"\xff\xfe"),
    os.fsdecode(b"\xed\xa0\x80"),
    os.fsdecode(b"\xf0\x9f"),
)


def rename(rng: Random, files: Files, known: list[str]) -> Files:
    """A file, or a folder on its way, is called otherwise; its ending stays, mostly."""
    if not known:
        return files
    parts = rng.choice(known).split("/")
    place = rng.randrange(len(parts)) if rng.random() < 0.3 else len(parts) - 1
    before = "/".join(parts[: place + 1])
    stem, dot, suffix = parts[place].partition(".")
    odd = odd_name(rng)
    new = rng.choice((odd, f"{stem}{odd}", f"{odd}{stem}"))
    new = f"{new}{dot}{suffix}" if rng.random() < 0.9 else new
    while len(os.fsencode(new)) > 250:
        new = new[1:]
    after = "/".join([*parts[:place], new])
    renamed = {}
    for name, data in files.items():
        inside = name == before or name.startswith(f"{before}/")
        renamed[after + name[len(before) :] if inside else name] = data
    return renamed


def odd_name(rng: Random) -> str:
    """One of them, or any bytes that a name may have."""
    if rng.random() < 0.7:
        return rng.choice(ODD)
    raw = bytes(rng.choice([each for each in range(1, 256) if each != 0x2F]) for _ in range(rng.randint(1, 12)))
    name = os.fsdecode(raw)
    return f"{name}_" if set(name) <= {"."} else name
