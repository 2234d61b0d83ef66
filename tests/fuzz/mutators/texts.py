"""Changes of text files: TOML, INI, tables of numbers, listings in HTML, run lengths."""

from __future__ import annotations

from random import Random

from tests.fuzz.mutators.documents import HUGE, TEXTS
from tests.fuzz.target import Mutator

_NUMBERS = [str(each).encode() for each in HUGE if str(each) != str(10**400)]
_CELLS = (*_NUMBERS, b"", b" ", b"abc", b"0x10", b"1_000", b"1e400", b"9" * 400, b'"1"', b"1,5", b"-0", b"\xff", b"1;2")


def lines(rng: Random, data: bytes) -> bytes:
    """Lines are doubled, missing, in another order, joined, or very many."""
    rows = data.split(b"\n")
    place = rng.randrange(len(rows))
    kind = rng.randrange(6)
    if kind == 0:
        del rows[place]
    elif kind == 1:
        rows.insert(place, rows[place])
    elif kind == 2:
        rng.shuffle(rows)
    elif kind == 3:
        rows[place : place + 2] = [b" ".join(rows[place : place + 2])]
    elif kind == 4:
        rows[place:place] = [rows[place]] * 50_000
    else:
        rows[place] = rows[place] * 3000
    return b"\n".join(rows)


def encoding(rng: Random, data: bytes) -> bytes:
    """As other programs would write it: UTF-16, a byte order mark, other ends of lines, zeros."""
    text = data.decode("latin-1")
    return rng.choice(
        (
            lambda: text.encode("utf-16"),
            lambda: text.encode("utf-16-be"),
            lambda: b"\xef\xbb\xbf" + data,
            lambda: data.replace(b"\n", b"\r\n"),
            lambda: data.replace(b"\n", b"\r"),
            lambda: data.replace(b" ", b"\0"),
            lambda: data.replace(b",", rng.choice((b";", b"\t", b", ", b" ,"))),
        )
    )()


def cell(rng: Random, data: bytes) -> bytes:
    """A column of one row, or of all rows, holds something else."""
    rows = [row.split(b",") for row in data.split(b"\n")]
    filled = [i for i, row in enumerate(rows) if len(row) > 1]
    if not filled:
        return data
    column = rng.randrange(len(rows[filled[0]]))
    value = rng.choice(_CELLS)
    for i in filled if rng.random() < 0.2 else [rng.choice(filled)]:
        if column < len(rows[i]):
            rows[i][column] = value
    return b"\n".join(b",".join(row) for row in rows)


def columns(rng: Random, data: bytes) -> bytes:
    """Some row, or every row, has a column more or less."""
    rows = data.split(b"\n")
    chosen = range(len(rows)) if rng.random() < 0.5 else [rng.randrange(len(rows))]
    more = rng.random() < 0.5
    for i in chosen:
        if rows[i]:
            rows[i] = rows[i] + b"," + rng.choice(_CELLS) if more else rows[i].rpartition(b",")[0]
    return b"\n".join(rows)


TABLE: tuple[Mutator, ...] = (*(cell,) * 4, columns, lines, encoding)


def toml_value(rng: Random, data: bytes) -> bytes:
    """The value of a key is another, of any type."""
    rows = data.split(b"\n")
    places = [i for i, row in enumerate(rows) if b"=" in row]
    if not places:
        return data
    place = rng.choice(places)
    value = rng.choice(
        (
            *_CELLS,
            *(b"true", b"[]", b"{}", b"inf", b"nan", b"-inf", b'""', b"1979-05-27T07:32:00Z", b'"""', b"[1, [2, [3]]]"),
            *(
                b"[" * 5000,
                b"[" * 5000 + b"]" * 5000,
                b"{a=" * 2000,
                b"9" * 5000,
                b"99999999999999999999",
                b"0xffffffffffffffffff",
            ),
            *(
                b'"' + text.encode("utf-8", "replace").replace(b'"', b"").replace(b"\n", b"\\n") + b'"'
                for text in TEXTS
            ),
        )
    )
    rows[place] = rows[place].partition(b"=")[0] + b"= " + value
    return b"\n".join(rows)


def toml_key(rng: Random, data: bytes) -> bytes:
    """A key or section is spelt otherwise, doubled, dotted, or new."""
    rows = data.split(b"\n")
    place = rng.randrange(len(rows))
    key = rows[place].partition(b"=")[0].strip()
    rows[place] = rng.choice(
        (
            rows[place][1:],
            rows[place] + b"\n" + rows[place],
            b"a." * 3000 + rows[place],
            b"unknown = 1\n" + rows[place],
            b"[" + (key or b"x") + b"]",
            b"[[" + (key.strip(b"[]") or b"x") + b"]]",
            key + b".x = 1",
            b'"' + key + b'\\u0000" = 1',
        )
    )
    return b"\n".join(rows)


TOML: tuple[Mutator, ...] = (*(toml_value,) * 4, toml_key, toml_key, lines, encoding)


def ini_line(rng: Random, data: bytes) -> bytes:
    """A value or a section of an INI file."""
    rows = data.split(b"\n")
    place = rng.randrange(len(rows))
    key = rows[place].partition(b"=")[0]
    texts = [text.encode("utf-8", "replace") for text in TEXTS]
    rows[place] = rng.choice(
        (
            key + b"=" + rng.choice((*_CELLS, *texts, b"%(x)s", b"%")),
            b"[" + key + b"]",
            key,
            b" " + rows[place],
            b"[Sequence]",
        )
    )
    return b"\n".join(rows)


INI: tuple[Mutator, ...] = (ini_line, ini_line, ini_line, lines, encoding)


def html_link(rng: Random, data: bytes) -> bytes:
    """A link leads elsewhere: up, in a circle, to another host, to itself, to a name that is none."""
    places = [at for at in range(len(data)) if data.startswith(b'href="', at)]
    if not places:
        return data
    begin = rng.choice(places) + 6
    end = data.find(b'"', begin)
    links = (
        *(
            b"../",
            b"./",
            b"/",
            b"//other.example/x.jpg",
            b"?C=M;O=A",
            b"#top",
            b"javascript:alert(1)",
            b"a/b/../../x.jpg",
        ),
        *(
            b"%2e%2e/%2e%2e/x.jpg",
            b"%00.jpg",
            b"caf%E9.jpg",
            b"a%0Ab.jpg",
            b"a&amp;b.jpg",
            b"x" * 5000,
            b"http://[::1",
            b"",
        ),
        *(
            b"file:///etc/passwd",
            b"sub/",
            b"%1b[31m.jpg",
            b"data:text/html,x",
            b"a b.jpg",
            b"..%2f..%2fx.jpg",
            b"\xff.jpg",
        ),
    )
    return data[:begin] + rng.choice(links) + data[end:]


def many_links(rng: Random, data: bytes) -> bytes:
    """Very many links, or tags in tags in tags."""
    at = data.find(b"<a ")
    return (
        data[:at]
        + rng.choice((b'<a href="x%d/">x</a>' % rng.randrange(9), b"<div>", b"<a href=", b"<!--")) * 20_000
        + data[at:]
    )


HTML: tuple[Mutator, ...] = (*(html_link,) * 5, many_links, lines, encoding)


def counts(rng: Random, data: bytes) -> bytes:
    """Run lengths in COCO's alphabet: a run of billions, a difference below zero, millions of short runs."""
    at = rng.randrange(len(data) + 1)
    piece = rng.choice(
        (b"0oooooo3", b"oooooooo", b"P", b"0", b"o", b"1" * rng.choice((10, 1_000_000)), b"OOOO", b"\xc3\xa9")
    )
    return data[:at] + piece + data[at + rng.choice((0, len(piece))) :]


COUNTS: tuple[Mutator, ...] = (counts,)
