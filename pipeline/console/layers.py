"""Settings in layers: defaults, then `--config FILE`, then each `--set KEY=VALUE`, then the options; the later wins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.secrets.signed_urls import without_signatures
from trackmill.schemas.config import (
    MAX_CONFIG_BYTES,
    MOST_LEVELS,
    ConfigError,
    ExcessiveToml,
    merge,
    parse_toml,
)
from trackmill.schemas.names import shortened


def layered(config: str | None, assignments: Iterable[str], changes: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Nested plain values of all that was given; URLs in them have lost their signatures, which storage knows.

    Args:
        config: path or URL of a TOML file.
        assignments: texts such as `read.longest_side=512`.
        changes: keys with dots and values; those that are None were not given.

    Raises:
        ConfigError: the file is not TOML, or an assignment has no `=`.
        OSError: the file cannot be read.
    """
    values = read_config(config) if config else {}
    for text in assignments:
        values = merge(values, assignment(text))
    for key, value in changes:
        if value is not None:
            values = merge(values, nested(key, value))
    signed_apart: dict[str, Any] = without_signatures(values)
    return signed_apart


def read_config(url: str) -> dict[str, Any]:
    """A TOML file as nested plain values."""
    try:
        text = read_bytes(url, max_bytes=MAX_CONFIG_BYTES).decode()
    except UnicodeDecodeError:
        raise ConfigError(f"--config {redact(url)}: not a text file; give settings as TOML") from None
    return parse_toml(text, redact(url))


def assignment(text: str) -> dict[str, Any]:
    """`optim.lr=0.02` as nested values; the value is TOML, and a word without quotes is text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {shortened(repr(text), 200)}: should be KEY=VALUE, such as section.key=3")
    where = f"--set {shortened(key.strip(), 100)}"
    try:
        parsed = parse_toml(f"value = {value.strip()}", where)["value"]
    except ExcessiveToml:
        raise
    except ConfigError:
        parsed = value.strip()
    if key.count(".") >= MOST_LEVELS:
        raise ConfigError(f"{where}: no setting lies in so many sections")
    return nested(key.strip(), parsed)


def nested(key: str, value: Any) -> dict[str, Any]:
    """`{"optim": {"lr": 0.02}}` of `optim.lr` and 0.02."""
    *sections, name = key.split(".")
    values: dict[str, Any] = {name: value}
    for section in reversed(sections):
        values = {section: values}
    return values
