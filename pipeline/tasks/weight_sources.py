"""Files of weights that a recipe names: there or not, before anything is built."""

from __future__ import annotations

from collections.abc import Collection

from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import exists
from trackmill.schemas.config import ConfigError


def require_weights(key: str, source: str, words: Collection[str] = ()) -> None:
    """See that a file of weights is where a recipe says it is.

    Args:
        key: of the recipe, such as `model.weights`.
        source: its value, a path or URL; empty: there is none to look for.
        words: values that name no file.

    Raises:
        ConfigError: there is no such file, or no such kind of URL; names the key.
    """
    if not source or source in words:
        return
    try:
        there = exists(source)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None
    if not there:
        raise ConfigError(f"{key}: no file at {redact(source)}")
