"""What the files of a data set hold, out of the classes that write and check them."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator

from pydantic import BaseModel

from generate.markdown import cell, code, table
from generate.settings_pages import kind_of
from trackmill.pipeline.sidecars.producers import PRODUCERS
from trackmill.schemas.receipt import ReceiptRow, ShardInfo
from trackmill.schemas.sample import SCHEMA_VERSION, SampleMasks, SampleRecord


def record_lines(record: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[str]:
    """One heading a class, one row a field; classes that are fields of it follow."""
    if record in seen:
        return
    seen.add(record)
    yield f"### {record.__name__}"
    yield ""
    yield cell((record.__doc__ or "").strip().partition("\n\n")[0])
    yield ""
    rows = [
        [code(name), cell(kind_of(field)), cell(field.description or "")] for name, field in record.model_fields.items()
    ]
    yield from table(["field", "type", "what it says"], rows)
    yield ""
    for field in record.model_fields.values():
        for inner in _records_in(field.annotation):
            yield from record_lines(inner, seen)


def _records_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in getattr(annotation, "__args__", ()):
        yield from _records_in(each)


def dataclass_lines(cls: type) -> Iterator[str]:
    """One row a column of a table whose rows are such objects; what they say comes from `Args:` of the docstring."""
    said = dict(_arguments(inspect.cleandoc(cls.__doc__ or "")))
    rows = []
    for field in dataclasses.fields(cls):
        rows.append([code(field.name), cell(code(str(field.type))), cell(said.get(field.name, ""))])
    yield from table(["column", "type", "what it says"], rows)


def _arguments(docstring: str) -> Iterator[tuple[str, str]]:
    """Names and texts of `Args:`; several names may share a text."""
    _, _, arguments = docstring.partition("Args:\n")
    names: list[str] = []
    text: list[str] = []
    for line in [*arguments.splitlines(), "    end:"]:
        if match := re.match(r" {4}([\w, ]+): ?(.*)$", line):
            yield from ((name, " ".join(text)) for name in names)
            names, text = re.split(r", ?", match[1]), [match[2]]
        else:
            text.append(line.strip())


def schema_page() -> str:
    """The page about everything that mining writes."""
    seen: set[type[BaseModel]] = set()
    lines = [
        "# Files of a data set",
        "",
        "What each file holds, taken from the classes that write and check it. `schema.json` in every data set is the "
        "same as JSON Schema.",
        "",
        f"## A sample: `{{key}}.json`, version {SCHEMA_VERSION}",
        "",
        *record_lines(SampleRecord, seen),
        "## Masks: `{key}.masks.json`",
        "",
        *record_lines(SampleMasks, seen),
        "## Receipts and `manifest/items.parquet`",
        "",
        "One row an item.",
        "",
        *dataclass_lines(ReceiptRow),
        "",
        "## `manifest/shards.parquet`",
        "",
        "One row a shard.",
        "",
        *dataclass_lines(ShardInfo),
        "",
        "## Sidecars: `sidecars/NAME/part-*.parquet`",
        "",
        "Each row begins with `key` (of the sample) and `frame` (from 0). The other columns are the producer's.",
        "",
    ]
    for name, producer in PRODUCERS.items():
        rows = [[code(each.name), code(each.dtype), cell(each.description)] for each in producer.columns]
        lines += [f"### `{name}`", "", cell((producer.__doc__ or "").strip().partition("\n\n")[0]), ""]
        lines += [*table(["column", "type", "what it says"], rows), ""]
    return "\n".join(lines)
