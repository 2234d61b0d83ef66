"""What the text after `--classes` stands for: names, a file of names, a file of vectors, or LVIS."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from trackmill.pipeline.storage.credentials import redact
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import shortened

LVIS = "lvis"
VECTOR_SUFFIXES = (".npy", ".npz")
_NAMES = (".txt", ".names")
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
        InputError: it is a class name, and the name of a file in the current folder too.
    """
    if text.strip().lower() == LVIS:
        return Kind.LVIS
    suffix = suffix_of(text)
    if suffix in VECTOR_SUFFIXES:
        return Kind.VECTOR_FILE
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


def suffix_of(url: str) -> str:
    """`.npy` and the like, in small letters; "" where there is none."""
    return PurePosixPath(urlsplit(url).path if "://" in url else url).suffix.lower()


def beside(url: str, suffix: str) -> str:
    """The URL with another suffix; "" for one that is signed, since its signature is good for one file."""
    if "://" in url and ("?" in url or "#" in url):
        return ""
    return url[: len(url) - len(suffix_of(url))] + suffix


def shown(url: str) -> str:
    """What messages call a file."""
    return redact(url)
