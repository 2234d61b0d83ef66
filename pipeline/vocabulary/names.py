"""Names of classes: out of a text with commas, a list, or a text file with a name a line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from trackmill.models.detic.vocabulary import check_names
from trackmill.pipeline.formats.text_spellings import utf8
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.vocabulary.files import read_file
from trackmill.schemas.errors import InputError
from trackmill.schemas.names import shortened

MAX_NAMES_BYTES = 16 << 20
"""Of a text file of names. The 22,047 of ImageNet-21K and LVIS together have 0.5 MB."""

_COMMENT = re.compile(r"#+(\s|$)")
_SHOWN = 60


def names_of_list(given: Sequence[object], where: str = "classes") -> tuple[str, ...]:
    """Names, blanks around them taken off.

    Raises:
        InputError: none, one that is no text, or see `check_names`.
    """
    for number, name in enumerate(given, start=1):
        if not isinstance(name, str):
            raise InputError(f"{where}: name {number} should be a text, found {shortened(str(name), _SHOWN)!r}")
    names = tuple(str(name).strip() for name in given)
    if not names:
        raise InputError(f"{where}: should be names of classes, found none")
    check_names(names, where)
    return names


def names_of_text(text: str) -> tuple[str, ...]:
    """`person, traffic light` as two names. The official demo keeps the blanks, which CLIP's tokenizer takes off too.

    Raises:
        InputError: see `names_of_list`.
    """
    return names_of_list(text.split(","))


def names_of_file(url: str) -> tuple[str, ...]:
    """Names out of a text file, one a line; see `names_in`.

    Raises:
        InputError: the file is no such thing, or larger than `MAX_NAMES_BYTES`.
        OSError: it could not be found or read.
    """
    return names_in(read_file(url, MAX_NAMES_BYTES), redact(url))


def names_in(data: bytes, where: str) -> tuple[str, ...]:
    """Names out of the bytes of a text file, one a line, blanks around them taken off.

    Empty lines and lines that begin with `# ` are passed over. Byte order marks, the line ends of Windows, and the
    UTF-16 of its editors are understood.

    Raises:
        InputError: a line that is no UTF-8, that may be a comment or a name, or whose name was there; names the line.
    """
    if data.lstrip()[:1] == b"<" or data.startswith(b"version https://git-lfs"):
        raise InputError(
            f"{where}: a web page or a pointer of Git LFS, not a text file with the name of a class a line"
        )
    lines = list(_lines(utf8(data, where), where))
    if not lines:
        raise InputError(f"{where}: holds no name; it should have the name of a class a line")
    if len(lines) == 1 and "," in lines[0][1]:
        raise InputError(f"{where}: one line with commas; it should have the name of a class a line")
    first: dict[str, int] = {}
    for number, name in lines:
        if name in first:
            raise InputError(
                f"{where}: line {number:,}: the name {shortened(name, _SHOWN)!r} is in line {first[name]:,} already; "
                "leave one out or rename it"
            )
        first[name] = number
        check_names([name], f"{where}: line {number:,}")
    return tuple(first)


def _lines(data: bytes, where: str) -> Iterable[tuple[int, str]]:
    plain = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for number, line in enumerate(plain.split(b"\n"), start=1):
        try:
            name = line.decode().strip()
        except UnicodeDecodeError as error:
            wrong = line[error.start]
            raise InputError(
                f"{where}: line {number:,} is no UTF-8 (byte 0x{wrong:02x}); save the file as UTF-8"
            ) from None
        if name.startswith("#") and not _COMMENT.match(name):
            raise InputError(
                f"{where}: line {number:,}: {shortened(name, _SHOWN)!r} may be a comment or a name; a comment has a "
                "blank behind its #, and no name begins with one"
            )
        if name and not _COMMENT.match(name):
            yield number, name
