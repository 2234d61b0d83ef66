"""What the text after `--classes` stands for: names, a file of names, a file of vectors, or LVIS."""

from __future__ import annotations

import os
from enum import Enum

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.vocabulary.files import suffix_of
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import shortened

LVIS = "lvis"
VECTOR_SUFFIXES = (".npy", ".npz")
_NAMES = (".txt", ".names")
_OTHERS = (".json", ".jsonl", ".yaml", ".yml", ".toml", ".csv", ".tsv", ".xml", ".pt", ".pth", ".pkl", ".safetensors")
"""Ends of files that hold classes in other forms: read as text, each of their lines would be a class."""

_PATHS = ("/", "./", "../", "~")


class Kind(Enum):
    """What a text stands for."""

    NAMES = "names with commas between"
    NAME_FILE = "a text file with a name a line"
    VECTOR_FILE = "an .npy or .npz file"
    LVIS = "the 1203 classes of LVIS v1"


def kind_of(text: str) -> Kind:
    """What a text after `--classes` stands for.

    A URL, a path that begins with `/`, `./`, `../` or `~`, and whatever ends in `.npy`, `.npz`, `.txt` or `.names` is a
    file. So is another path of a file that is there. `lvis` is LVIS. All else are names.

    Raises:
        InputError: it is a class name, and the name of a file in the current folder too; or a file of another kind.
    """
    if text.strip().lower() == LVIS:
        return Kind.LVIS
    suffix = suffix_of(text)
    if suffix in VECTOR_SUFFIXES:
        return Kind.VECTOR_FILE
    if suffix in _OTHERS:
        raise InputError(
            f"classes: {shortened(redact(text), 200)}: a file of classes is a text with a name a line (.txt), or .npy "
            f"or .npz with vectors, not {suffix}"
        )
    if "://" in text or suffix in _NAMES:
        return Kind.NAME_FILE
    if "," in text:
        return Kind.NAMES
    if text.startswith(_PATHS):
        return Kind.NAME_FILE
    if os.path.isfile(text):
        if "/" in text:
            return Kind.NAME_FILE
        raise InputError(
            f"classes: {shortened(text, 60)!r} may be a class, and a file here is called so: write ./ before it for "
            "the file, or put the class into a .txt file"
        )
    return Kind.NAMES
