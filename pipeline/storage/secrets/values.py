"""The secrets that this process holds: in its environment, in fsspec's settings, in URLs that it was given.

Their values are taken out of every text that leaves the process, as they are and as they look when they are encoded for
a URL, escaped for JSON or HTML, wrapped over a line, or cut short by `repr`.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus, unquote

import fsspec.config

from trackmill.pipeline.storage.secrets.shapes import MARK, is_secret_name, looks_random

_SHORTEST = 6
"""Characters of a value that is looked for: a shorter one would be found in ordinary words."""

_CUT_LEAST = 8
"""Characters of a secret's beginning or end that are hidden where an ellipsis stands for the rest."""

_CUT_MOST = 80
"""Characters of either end that are looked for; what shortens leaves fewer."""

_NAME = re.compile(
    r"SECRET|TOKEN(?!S|IZ)|PASSWORD|PASSWD|PASSPHRASE|(?:^|_)PASS$|_PWD$|API_?KEY|ACCESS_?KEY|ACCOUNT_?KEY|PRIVATE_?KEY"
    r"|CONNECTION_?STRING|CONN_?STR|CREDENTIAL|(?:^|_)SAS(?:_|$)|AUTHORIZATION|SIGNATURE|COOKIE|WEBHOOK|_AUTH$",
    re.IGNORECASE,
)
_NAME_OF_A_KEY = re.compile(r"(?:^|_)KEY$", re.IGNORECASE)
_NAME_OF_ANOTHER_THING = re.compile(
    r"_(?:FILE|PATH|DIR|FOLDER|HOST|PORT|MODE|ENDPOINT|NAME|REGION|PROFILE|EXPIRATION|TYPE|SIZE|LIMIT|TIMEOUT|ENABLED|"
    r"VERSION|UR[IL])$",
    re.IGNORECASE,
)
_WORDS = {"default", "disabled", "enabled", "required", "optional", "anonymous", "public", "session", "account"}
_LOGIN = re.compile(r"://[^\s/@:]*:([^\s@]+)@")
_PART = re.compile(r"(?i)(?:AccountKey|SharedAccessSignature|SharedAccessKey|Password|Pwd|sig)=([^;&\s]+)")
_JSON = re.compile(r"\s*[\[{]")
_GAP = re.compile(r"[ \t]*\\?\r?\n[ \t│|>]*")

_given: set[str] = set()


def keep_secret(values: Iterable[str]) -> None:
    """Take these values out of every text from now on, such as the signature of a URL that somebody gave."""
    fresh = {value for value in values if len(value) >= _SHORTEST} - _given
    _given.update(fresh)


def hide_values(text: str) -> str:
    """The text with `***` for every secret that this process holds."""
    spellings = _spellings(_snapshot(), frozenset(_given))
    for spelling in spellings:
        if spelling in text:
            text = text.replace(spelling, MARK)
    if "\n" in text:
        text = _hide_wrapped(text, spellings)
    if "..." in text or "…" in text:
        for spelling in spellings:
            if len(spelling) > _CUT_LEAST:
                text = _hide_cut(text, spelling)
    return text


def _snapshot() -> tuple[tuple[str, str], ...]:
    """Variables of the environment that may hold a secret."""
    return tuple((name, value) for name, value in os.environ.items() if _may_hold_one(name, value))


def _may_hold_one(name: str, value: str) -> bool:
    return len(value) >= _SHORTEST and (is_secret_variable(name) or "@" in value or "=" in value or "{" in value)


@lru_cache(maxsize=4096)
def is_secret_variable(name: str) -> bool:
    """Whether a variable of the environment is called as those are that hold a secret."""
    if _NAME_OF_ANOTHER_THING.search(name):
        return False
    return bool(_NAME.search(name) or _NAME_OF_A_KEY.search(name))


@lru_cache(maxsize=4)
def _spellings(environment: tuple[tuple[str, str], ...], given: frozenset[str]) -> tuple[str, ...]:
    """Every way in which a secret may be written, the longest first."""
    values = set(given)
    for name, value in environment:
        values.update(_of_variable(name, value))
    for protocol in fsspec.config.conf.values():
        values.update(_inside(protocol))
    spellings: set[str] = set()
    for value in values:
        if len(value) < _SHORTEST or value.lower() in _WORDS or (value.isdigit() and len(value) < 8):
            continue
        spellings |= {value, quote(value, safe=""), quote(value), quote_plus(value), unquote(value), repr(value)[1:-1]}
        spellings |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], html.escape(value)}
    return tuple(sorted((each for each in spellings if len(each) >= _SHORTEST), key=lambda each: (-len(each), each)))


def _of_variable(name: str, value: str) -> Iterator[str]:
    yield from _LOGIN.findall(value)
    yield from _PART.findall(value)
    if _JSON.match(value):
        with contextlib.suppress(ValueError, RecursionError):
            yield from _inside(json.loads(value))
    # A path is where a secret lies, and none.
    if not is_secret_variable(name) or (
        value.startswith(("/", "~", ".")) and os.path.exists(os.path.expanduser(value))
    ):
        return
    if _NAME.search(name) or looks_random(value):
        yield value
        yield from (line.strip() for line in value.splitlines() if len(line.strip()) >= 16 and "-----" not in line)


def _inside(value: Any, name: str = "") -> Iterator[str]:
    """Secrets in nested settings of a storage client."""
    if isinstance(value, Mapping):
        for each, inner in value.items():
            yield from _inside(inner, str(each))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _inside(inner, name)
    elif isinstance(value, str) and (is_secret_name(name) or name.lower() in ("key", "sas_token", "account_key")):
        yield value


def _hide_wrapped(text: str, spellings: tuple[str, ...]) -> str:
    """Hide what stands on two lines, behind whatever a table or a terminal puts at the edge."""
    kept: list[int] = []
    position = 0
    for gap in _GAP.finditer(text):
        kept += range(position, gap.start())
        position = gap.end()
    kept += range(position, len(text))
    joined = "".join(text[place] for place in kept)
    spans = []
    for spelling in spellings:
        start = joined.find(spelling)
        while start >= 0:
            spans.append((kept[start], kept[start + len(spelling) - 1] + 1))
            start = joined.find(spelling, start + len(spelling))
    pieces, position = [], 0
    for begin, end in sorted(spans):
        if begin >= position:
            pieces += [text[position:begin], MARK]
        position = max(position, end)
    return "".join([*pieces, text[position:]])


def _hide_cut(text: str, spelling: str) -> str:
    """Hide a beginning and an end with an ellipsis between or beside them."""
    pattern = _cut(spelling)
    return pattern.sub(lambda match: re.sub(r"[^.…]+", MARK, match.group(0)), text)


@lru_cache(maxsize=512)
def _cut(spelling: str) -> re.Pattern[str]:
    longest = min(len(spelling) - 1, _CUT_MOST)
    starts = "|".join(re.escape(spelling[:n]) for n in range(longest, _CUT_LEAST - 1, -1))
    ends = "|".join(re.escape(spelling[-n:]) for n in range(longest, 3, -1))
    long_ends = "|".join(re.escape(spelling[-n:]) for n in range(longest, _CUT_LEAST - 1, -1))
    return re.compile(rf"(?:{starts})(?:\.\.\.|…)(?:{ends})?|(?:\.\.\.|…)(?:{long_ends})")
