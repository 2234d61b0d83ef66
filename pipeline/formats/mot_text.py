"""MOTChallenge text, `gt.txt` and results alike: one row for each box.

Columns: frame (from 1), id, left, top, width, height, then in ground truth flag (0 = do not score), class and
visibility (MOT15 has world coordinates there), in results confidence and three more that say nothing. x and y are taken
as they are, as TrackEval does, although the specification counts pixels from 1.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.formats.frame_numbers import MAX_FRAME
from trackmill.pipeline.formats.text_spellings import each_piece, first_line, utf8, with_commas
from trackmill.pipeline.storage.credentials import redact
from trackmill.schemas.boxes import LARGEST_COORDINATE

NUM_COLUMNS_NEEDED = 7
_MAX_COLUMNS = 64

MAX_TEXT_BYTES = 128 << 20
"""Size limit of a text file of tracks or detections, also after unpacking. Its rows take up to 14 times as much in
memory. The longest of MOTChallenge has 30 MB."""

MAX_LINE_BYTES = 1 << 16
"""Size limit of a line."""

_USUAL_COLUMNS = 10
_NUMBER = re.compile(rb"\s*[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan|inf|infinity)\s*", re.IGNORECASE)
"""What the parser in C takes for a number; Python's `float` takes more, such as `1_0`."""
_MAX_NUMBER = 2**53
"""Largest frame number or id: whole numbers above it are no longer exact in float64."""

_COUNTABLE = 1 << 24
"""Up to so many (frame, id) are counted in a table to find duplicates; more are sorted."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MotRows:
    """Rows of one file, in its order.

    Args:
        url: the file, for errors.
        frames: (N,) int64, from 1.
        ids: (N,) int64.
        boxes: (N, 4) float64 `xyxy` in pixels.
        confidence: (N,) float64, column 7: the flag of ground truth, the confidence of results.
        classes: (N,) int64, column 8, or -1 where there is no such column or it holds no class.
        num_columns: in every row.
    """

    url: str
    frames: NDArray[np.int64]
    ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    confidence: NDArray[np.float64]
    classes: NDArray[np.int64]
    num_columns: int
    text: bytes = field(repr=False, default=b"")

    def __len__(self) -> int:
        return len(self.frames)

    def where(self, row: int) -> str:
        """File and line of a row, for errors."""
        return f"{redact(self.url)}: line {_line_of(self.text, row)}"


def parse_mot_text(data: bytes, url: str, *, identities: bool = True) -> MotRows:
    """Parse one file; an empty one has no rows.

    Args:
        data: the file's bytes, in any of the spellings of `text_spellings.py`.
        url: its name, for errors.
        identities: whether the second column is one; False for detections, whose column says nothing and becomes -1.

    Raises:
        BadTracks: names the line: too few columns or not as many as in the first line, a cell that is no number or not
            finite, a frame or id that is not whole, a frame below 1, a negative width or height, an id twice in a
            frame.
    """
    if len(data) > MAX_TEXT_BYTES:
        raise BadTracks(f"{redact(url)}: {len(data):,} bytes, more than the limit of {MAX_TEXT_BYTES:,}; split it")
    text = utf8(data, url)
    _refuse_long_lines(text, url)
    text = with_commas(text)
    first = first_line(text)
    if not first:
        return _no_rows(url)
    num_columns = first.rstrip(b" \t,").count(b",") + 1
    if not NUM_COLUMNS_NEEDED <= num_columns <= _MAX_COLUMNS:
        raise BadTracks(
            f"{redact(url)}: line {_line_of(text, 0)}: {num_columns} columns, at least {NUM_COLUMNS_NEEDED} are needed "
            "(frame, id, x, y, width, height, confidence or flag)"
        )
    if num_columns > _USUAL_COLUMNS and b"." not in text and _NUMBER.fullmatch(first.partition(b",")[0]):
        raise BadTracks(
            f"{redact(url)}: line {_line_of(text, 0)}: {num_columns} columns and no decimal point in the whole file: "
            f"these look like decimal commas; write 10.5, or part columns with semicolons: {_shown(first)}"
        )
    cells = _numbers(text, num_columns, url)
    with np.errstate(over="ignore"):  # refused below
        far_sides = cells[2] + cells[4], cells[3] + cells[5]
    rows = MotRows(
        url=url,
        frames=_whole(cells[0], "frame", text, url),
        ids=_whole(cells[1], "id", text, url) if identities else np.full(len(cells[1]), -1),
        boxes=np.column_stack([cells[2], cells[3], *far_sides]),
        confidence=cells[6],
        classes=_classes(cells),
        num_columns=num_columns,
        text=text,
    )
    _check(rows, cells[4], cells[5])
    if identities:
        _refuse_twice(rows)
    return rows


def _refuse_long_lines(text: bytes, url: str) -> None:
    begin = 0
    while len(text) - begin > MAX_LINE_BYTES:
        end = max(text.rfind(mark, begin, begin + MAX_LINE_BYTES) for mark in (b"\n", b"\r"))
        if end < 0:
            line = text.count(b"\n", 0, begin) + 1
            raise BadTracks(
                f"{redact(url)}: line {line} is longer than {MAX_LINE_BYTES:,} bytes; this is no track file"
            )
        begin = end + 1


def _numbers(text: bytes, num_columns: int, url: str) -> list[NDArray[np.float64]]:
    """All columns, by one call of a parser in C; only if it fails is the line looked for in Python."""
    try:
        cells = _parse(text, num_columns)
    except pa.ArrowInvalid:
        # A comma or blanks at the end of a line are harmless, but are a column, or a row, to the parser.
        text = each_piece(lambda piece: re.sub(rb"(?m),?[ \t]*$", b"", piece), text)
        try:
            cells = _parse(text, num_columns)
        except pa.ArrowInvalid as error:
            fault = _fault(text, num_columns, url) or BadTracks(f"{redact(url)}: {error}")
            raise fault from None
    for number, column in enumerate(cells[:NUM_COLUMNS_NEEDED], start=1):
        odd = np.flatnonzero(~np.isfinite(column))
        if odd.size:
            raise BadTracks(f"{redact(url)}: line {_line_of(text, int(odd[0]))}: column {number} is not finite")
    return cells


def _parse(text: bytes, num_columns: int) -> list[NDArray[np.float64]]:
    names = [str(number) for number in range(num_columns)]
    table = pyarrow.csv.read_csv(
        pa.BufferReader(text),
        read_options=pyarrow.csv.ReadOptions(use_threads=False, column_names=names),
        parse_options=pyarrow.csv.ParseOptions(quote_char=False),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={name: pa.float64() for name in names}, null_values=[], strings_can_be_null=False
        ),
    )
    return [column.to_numpy() for column in table.columns]


def _fault(text: bytes, num_columns: int, url: str) -> BadTracks | None:
    for number, line in enumerate(_lines(text), start=1):
        if not line.strip():
            continue
        where, shown = f"{redact(url)}: line {number}", _shown(line)
        columns = line.split(b",")
        if len(columns) != num_columns:
            fault = f"{where}: {len(columns)} columns where the first line has {num_columns}: {shown}"
            many = max(len(columns), num_columns) > _USUAL_COLUMNS
            return BadTracks(f"{fault}; if these are decimal commas, write 10.5" if many else fault)
        for place, cell in enumerate(columns, start=1):
            if _NUMBER.fullmatch(cell) is None:
                is_heading = not any(map(_NUMBER.fullmatch, columns))
                advice = "; a line of headings? take it out" if is_heading else ""
                advice = "; digits stand without underscores" if b"_" in cell and not is_heading else advice
                return BadTracks(f"{where}: column {place} is no number: {shown}{advice}")
    return None


def _shown(line: bytes) -> str:
    return repr(line[:80].decode("utf-8", "replace"))


def _whole(column: NDArray[np.float64], name: str, text: bytes, url: str) -> NDArray[np.int64]:
    odd = np.flatnonzero((column != np.floor(column)) | (np.abs(column) > _MAX_NUMBER))
    if odd.size:
        line = _line_of(text, int(odd[0]))
        fault = f"should be a whole number below 2^53, found {column[odd[0]]:.17g}"
        raise BadTracks(f"{redact(url)}: line {line}: the {name} {fault}")
    return column.astype(np.int64)


def _classes(cells: list[NDArray[np.float64]]) -> NDArray[np.int64]:
    if len(cells) < 8:
        return np.full(len(cells[0]), -1, np.int64)
    # MOT15 has coordinates in this column, and results of some tools have fractions: neither names a class.
    column = cells[7]
    known = np.isfinite(column) & (column == np.floor(column)) & (np.abs(column) < 1e9)
    return np.where(known, np.where(known, column, 0), -1).astype(np.int64)


def _check(rows: MotRows, width: NDArray[np.float64], height: NDArray[np.float64]) -> None:
    odd = np.flatnonzero((width < 0) | (height < 0))
    if odd.size:
        raise BadTracks(f"{rows.where(int(odd[0]))}: the box has a negative width or height")
    odd = np.flatnonzero((np.abs(rows.boxes) > LARGEST_COORDINATE).any(axis=1))
    if odd.size:
        fault = f"the box lies farther than {LARGEST_COORDINATE:g} pixels from the image's corner"
        raise BadTracks(f"{rows.where(int(odd[0]))}: {fault}")
    odd = np.flatnonzero(rows.frames > MAX_FRAME)
    if odd.size:
        raise BadTracks(f"{rows.where(int(odd[0]))}: frame {rows.frames[odd[0]]}, but the largest may be {MAX_FRAME}")
    odd = np.flatnonzero(rows.frames < 1)
    if odd.size:
        raise BadTracks(f"{rows.where(int(odd[0]))}: frame {rows.frames[odd[0]]}, but frames count from 1")


def _refuse_twice(rows: MotRows) -> None:
    if not _has_duplicates(rows.frames, rows.ids):
        return
    order = np.lexsort((rows.ids, rows.frames))
    frames, ids = rows.frames[order], rows.ids[order]
    row = int(order[np.flatnonzero((frames[1:] == frames[:-1]) & (ids[1:] == ids[:-1]))[0] + 1])
    advice = "; these are detections, which have no identities yet" if rows.ids[row] == -1 else ""
    raise BadTracks(f"{rows.where(row)}: id {rows.ids[row]} stands twice in frame {rows.frames[row]}{advice}")


def _has_duplicates(frames: NDArray[np.int64], ids: NDArray[np.int64]) -> bool:
    span = int(ids.max() - ids.min()) + 1
    size = (int(frames.max()) + 1) * span
    if size <= _COUNTABLE:
        return bool(np.bincount(frames * span + (ids - ids.min())).max() > 1)
    pairs = np.column_stack([frames, ids])
    return len(np.unique(pairs, axis=0)) < len(pairs)


def _line_of(text: bytes, row: int) -> int:
    """Line number, from 1, of a row, blank lines being none."""
    filled = (number for number, line in enumerate(_lines(text), start=1) if line.strip())
    return next(islice(filled, row, None))


def _lines(text: bytes) -> Iterator[bytes]:
    """The lines one by one: a list of a hundred million would take gigabytes."""
    return (line.removesuffix(b"\n") for line in io.BytesIO(text))


def _no_rows(url: str) -> MotRows:
    none, zero = np.zeros(0, np.int64), np.zeros(0)
    return MotRows(
        url=url,
        frames=none,
        ids=none,
        boxes=np.zeros((0, 4)),
        confidence=zero,
        classes=none,
        num_columns=0,
    )
