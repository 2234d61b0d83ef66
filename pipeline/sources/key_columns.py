"""Sample keys of many items at once; `trackmill.schemas.keys.sample_key` says what they are."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trackmill.schemas.keys import MAX_STEM, slug

_DIGITS = 16


def sample_keys(source: str, names: list[str], source_ids: list[str]) -> pa.Array:
    """The keys of items of one source, as `sample_key` gives them one by one.

    Args:
        source: name of the source.
        names: what people call each item.
        source_ids: identity of each.
    """
    digests = b"".join([sha256(each.encode()).digest()[: _DIGITS // 2] for each in source_ids]).hex()
    places = np.arange(0, len(digests) + 1, _DIGITS, dtype=np.int32)
    hashes = pa.StringArray.from_buffers(len(source_ids), pa.py_buffer(places), pa.py_buffer(digests.encode()))
    return pc.binary_join_element_wise(pa.scalar(slug(source)), slugs(names), hashes, "-")


def slugs(names: list[str]) -> pa.Array:
    """`trackmill.schemas.keys.slug` of each."""
    texts = pa.array(names, pa.string())
    # Small letters of other alphabets are a matter of tables, and Python's count.
    if not pc.all(pc.string_is_ascii(texts)).as_py():
        return pa.array([slug(name) for name in names], pa.string())
    cleaned = pc.replace_substring_regex(pc.ascii_lower(texts), "[^a-z0-9_-]+", "-")
    cut = pc.utf8_slice_codeunits(pc.ascii_trim(cleaned, characters="-"), 0, MAX_STEM)
    cut = pc.ascii_rtrim(cut, characters="-")
    return pc.if_else(pc.equal(cut, ""), pa.scalar("x"), cut)
