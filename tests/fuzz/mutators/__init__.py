"""How an input is changed: one to four changes of its bytes, of its structure, or of the names of its files."""

from __future__ import annotations

from enum import Enum
from fnmatch import fnmatch
from random import Random

from tests.fuzz.mutators import archives, documents, media, names, raw, tables, tensors, texts
from tests.fuzz.target import Files, Mutator

BY_SUFFIX: dict[str, tuple[Mutator, ...]] = {
    ".json": documents.JSON,
    ".json.gz": documents.GZIP,
    ".odgt": documents.JSON,  # of files of one line; those of several are changed by bytes
    ".tar": archives.TAR,
    ".zip": archives.ZIP,
    ".jpg": media.JPEG,
    ".png": media.PNG,
    ".gif": media.CHUNKED,
    ".webp": media.RIFF,
    ".avi": media.RIFF,
    ".mp4": media.BOXES,
    ".mov": media.BOXES,
    ".avif": media.BOXES,
    ".jp2": media.BOXES,
    ".mkv": media.EBML,
    ".webm": media.EBML,
    ".ts": media.PACKETS,
    ".parquet": tables.PARQUET,
    ".npy": tensors.NPY,
    ".npz": tensors.NPZ,
    ".safetensors": tensors.SAFETENSORS,
    ".pt": tensors.PICKLES,
    ".pth": tensors.PICKLES,
    ".toml": texts.TOML,
    ".ini": texts.INI,
    ".txt": texts.TABLE,
    ".csv": texts.TABLE,
    ".html": texts.HTML,
    ".rle": texts.COUNTS,
}
"""Changes of structure, by the end of a file's name; of the ends that fit, the longest counts."""

MOST_BYTES = 8 << 20
"""Of one file: several changes that each make it larger would only test how long good data takes."""


class Change(Enum):
    """What was changed: bytes as disks and networks damage them, or structure, written anew with its checksums."""

    BYTES = "bytes"
    STRUCTURE = "structure"
    NAME = "name"


def mutate(rng: Random, files: Files, patterns: tuple[str, ...], rename: float = 0.0) -> tuple[Files, Change]:
    """A copy of the files, changed; which change is the strongest of those made.

    Args:
        rng: draws everything.
        files: the seed.
        patterns: of the files that may be changed.
        rename: how often a name is changed, 0 to 1.
    """
    mutated, change = dict(files), Change.BYTES
    known = sorted(name for name in files if any(fnmatch(name, pattern) for pattern in patterns))
    if rng.random() < rename:
        mutated = names.rename(rng, mutated, known)
        if rng.random() < 0.8:
            return mutated, Change.NAME
        change = Change.NAME
    known = [name for name in known if name in mutated]
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4)) if known else 0):
        name = rng.choice(known)
        structural = structure_of(name)
        if structural and rng.random() < 0.65:
            changed = change_structure(rng, mutated[name], structural)
            if len(changed) <= MOST_BYTES:
                mutated[name], change = changed, Change.STRUCTURE
        elif len(known) > 1 and rng.random() < 0.06:
            mutated.pop(name)
            known.remove(name)
            change = Change.STRUCTURE
        else:
            changed = rng.choice(raw.BYTES)(rng, mutated[name])
            mutated[name] = changed if len(changed) <= MOST_BYTES else mutated[name]
    return mutated, change


def structure_of(name: str) -> tuple[Mutator, ...]:
    """The changes of structure for a file of this name."""
    ends = [end for end in BY_SUFFIX if name.lower().endswith(end)]
    return BY_SUFFIX[max(ends, key=len)] if ends else ()


def change_structure(rng: Random, data: bytes, mutators: tuple[Mutator, ...]) -> bytes:
    """One change of structure; of bytes, where an earlier change left no structure to change."""
    try:
        return rng.choice(mutators)(rng, data)
    except Exception:
        return rng.choice(raw.BYTES)(rng, data)
