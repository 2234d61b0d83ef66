"""Signed URLs: the program uses the URL without its query everywhere, and adds the query again where bytes are fetched.

A query with a signature is a secret: anybody who reads it can fetch the file. It also changes with each signature. So
it is removed where a URL is given or listed, and kept in this process; it never reaches names, records, settings or
logs. Workers get the queries that they need from the driver, with the credentials of its environment.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from trackmill.pipeline.storage.secrets.shapes import is_secret_query
from trackmill.pipeline.storage.secrets.values import keep_secret
from trackmill.schemas.errors import InputError

_WITHIN = re.compile(r'https?://[^"]+', re.IGNORECASE)
_HTTP = re.compile(r"https?://", re.IGNORECASE)
_GOES_WITH_IT = re.compile(
    r"(?i)x-(?:amz|goog|oss|cos|ms|obs|id)\b.*|expires?|exp|response-.*|rsc[cdelt]|googleaccessid|ossaccesskeyid"
    r"|s[eiprtv]|spr|sk(?:oid|tid|[tesv])|sr|ss|srt|sdd|ske|download|alt|versionid|generation|userproject|date|nonce"
)
"""Parameters that come with signatures, or ask for the same bytes in another way."""
_OF_METAS_CDN = re.compile(r"oh|oe|ccb|_nc_\w+")
"""What stands in links to SA-1B: signature `oh`, expiry `oe`; only both together, since the names are so short."""

_queries: dict[str, str] = {}
_for_all: set[str] = set()


class SignaturesDiffer(InputError):
    """Two URLs differ in their queries, and not only in what signs them."""


def without_signature(url: str, for_all: bool = True) -> str:
    """The URL by which a signed one is called from here on; any other URL or text as it is.

    Args:
        url: what somebody gave, or a server listed.
        for_all: whether every worker gets the query. Those of long lists are sent with the work that needs them.

    Raises:
        SignaturesDiffer: a URL that differs otherwise is called by the same name.
    """
    if "?" not in url or not _HTTP.match(url):
        return url
    address, mark, member = url.partition("#")
    plain, _, query = address.partition("?")
    plain = plain.rstrip("/")
    values = parse_qsl(query, keep_blank_values=True)
    short = "oh" if _is_metas_cdn(values) else None
    secrets = [value for name, value in values if is_secret_query(name) or name == short]
    if not secrets:
        return url
    before = _queries.get(plain)
    if before is not None and _choice(before) != _choice(query):
        raise SignaturesDiffer(
            f"{plain}: given twice, with queries that differ in more than a signature; a signed URL is known by what "
            "stands before its ?, so give only one of them, or download the files"
        )
    _queries[plain] = query
    if for_all:
        _for_all.add(plain)
        keep_secret(value for value in secrets if len(value) >= 8)
    return plain + mark + member


def _is_metas_cdn(values: list[tuple[str, str]]) -> bool:
    return {"oh", "oe"} <= {name for name, _ in values}


def without_signatures(value: Any) -> Any:
    """Nested plain values, as settings have them, in which every URL is `without_signature`."""
    if isinstance(value, str):
        return without_signature(value)
    if isinstance(value, Mapping):
        return {key: without_signatures(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_signatures(each) for each in value]
    if isinstance(value, tuple):
        return tuple(without_signatures(each) for each in value)
    return value


def with_signature(url: str) -> str:
    """The URL that can be opened: with its query, where one is known."""
    if not _queries or not _HTTP.match(url):
        return url
    plain, mark, member = url.partition("#")
    query = _queries.get(plain)
    return f"{plain}?{query}{mark}{member}" if query else url


def is_signed(url: str) -> bool:
    """Whether a query is known that `with_signature` would put back."""
    return url.partition("#")[0] in _queries


def any_signed() -> bool:
    """Whether this process knows a signed URL at all."""
    return bool(_queries)


def signatures_in(value: Any) -> dict[str, str]:
    """Query of each signed URL, by the URL without it, that stands in texts, JSON, records and sequences of them."""
    if not _queries:
        return {}
    places = {url.partition("#")[0] for text in _texts(value) for url in _WITHIN.findall(text)}
    return {place: _queries[place] for place in sorted(places) if place in _queries}


def signatures_for_all() -> dict[str, str]:
    """What every worker gets."""
    return {place: _queries[place] for place in sorted(_for_all)}


def adopt_signatures(queries: Mapping[str, str], over: bool = True) -> None:
    """Take over queries from the driver or from a plan; with `over` they replace those that are known."""
    for place, query in queries.items():
        if over or place not in _queries:
            _queries[place] = query


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _texts(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(each)


def _choice(query: str) -> list[tuple[str, str]]:
    """What a query says besides who signed it, and until when."""
    values = parse_qsl(query, keep_blank_values=True)
    if _is_metas_cdn(values):
        values = [each for each in values if not _OF_METAS_CDN.fullmatch(each[0])]
    return sorted(each for each in values if not is_secret_query(each[0]) and not _GOES_WITH_IT.fullmatch(each[0]))
