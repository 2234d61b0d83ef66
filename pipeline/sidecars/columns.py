"""The columns of a sidecar: their types, units and meaning, declared once and stored with the data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from trackmill.schemas.errors import InputError

Dtype = Literal["bool", "int32", "int64", "float32", "float64", "string", "box"]

_NAME = re.compile(r"^[a-z][a-z0-9_]{0,39}$")
_BOX = pa.list_(pa.field("element", pa.float32(), nullable=False), 4)
_ARROW: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "box": _BOX,
}


class Column(BaseModel):
    """One column. Every row has a value in it; numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=_NAME.pattern)
    dtype: Dtype = Field(
        description="`box` is (4,) float32, `x0, y0, x1, y1` in pixels of the stored frame, inside it."
    )
    unit: str = Field("", description="Unit of the numbers, such as px; empty where there is none.")
    description: str = Field(min_length=1, description="What a value says, in a sentence.")

    @property
    def arrow(self) -> pa.Field:
        """The column in Arrow, with unit and description as metadata."""
        about = {"unit": self.unit, "description": self.description}
        return pa.field(self.name, _ARROW[self.dtype], nullable=False, metadata=about)


KEY = Column(name="key", dtype="string", description="Key of the sample that the row is about.")
FRAME = Column(name="frame", dtype="int32", description="Position of the frame in the sample, from 0.")
REQUIRED = (KEY, FRAME)
"""The columns that every sidecar begins with."""


def check_columns(columns: Sequence[Column], whose: str) -> tuple[Column, ...]:
    """The own columns of a sidecar, if they can stand beside the required ones.

    Raises:
        InputError: there is none, a name occurs twice, or is `key` or `frame`; names `whose`.
    """
    names = [column.name for column in columns]
    if not names:
        raise InputError(f"{whose}: a sidecar has at least one column beside key and frame")
    for name in names:
        if names.count(name) > 1 or name in ("key", "frame"):
            raise InputError(f"{whose}: column {name!r} is declared twice; key and frame are there by themselves")
    return tuple(columns)


def arrow_schema(columns: Sequence[Column]) -> pa.Schema:
    """Schema of a part: key and frame, then the own columns."""
    return pa.schema([column.arrow for column in (*REQUIRED, *columns)])
