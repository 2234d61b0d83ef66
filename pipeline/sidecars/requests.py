"""Which sidecar is asked for: its name, who makes it, and with which settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trackmill.models.outside import is_outside
from trackmill.pipeline.sidecars.producer import Producer
from trackmill.pipeline.sidecars.producers import producer_class
from trackmill.schemas.config import Settings, build
from trackmill.schemas.errors import InputError

NAME = re.compile(r"^[a-z][a-z0-9_-]{0,39}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A sidecar that is to be made.

    Args:
        name: of its folder.
        producer: as the user named the producer.
        kind: the producer's class.
        settings: of the producer, resolved.
    """

    name: str
    producer: str
    kind: type[Producer]
    settings: Settings


def check_sidecar_name(name: str) -> str:
    """`name`, if a sidecar can be called so.

    Raises:
        InputError: it cannot.
    """
    if is_outside(name):
        raise InputError(f"{name} is a producer, and its sidecar needs a name: NAME={name}, such as sizes={name}")
    if not NAME.match(name):
        raise InputError(f"{name!r} cannot be the name of a sidecar: small letters, digits, _ and -, at most 40")
    return name


def request_sidecar(name: str, producer: str, settings: Mapping[str, Any]) -> Request:
    """Check what is asked for, and decide everything that could come out differently on another machine.

    Args:
        name: of the sidecar.
        producer: a name in `PRODUCERS` or `my_package.my_module:Class`; empty: it is called like the sidecar.
        settings: of the producer, as plain values.

    Raises:
        InputError: a name that cannot be, an unknown producer or setting.
        OSError, MissingPackage: see `Producer.resolve`.
    """
    kind = producer_class(producer or check_sidecar_name(name))
    resolved: Settings = kind.resolve(build(kind.Config, dict(settings), f"sidecars.{name}"))
    return Request(name=check_sidecar_name(name), producer=producer or name, kind=kind, settings=resolved)


def request_sidecars(names: list[str], sections: Mapping[str, Any]) -> list[Request]:
    """The sidecars that a mining command asks for.

    Args:
        names: `NAME` or `NAME=PRODUCER` each.
        sections: settings by name of the sidecar, as in `[sidecars.NAME]`; the key `producer` names its producer. A
            section asks for its sidecar even where `names` does not.

    Raises:
        InputError, OSError, MissingPackage: see `request_sidecar`; also two producers for one sidecar.
    """
    producers: dict[str, str] = {}
    settings: dict[str, dict[str, Any]] = {}
    for name, section in sections.items():
        if not isinstance(section, Mapping):
            raise InputError(f"sidecars.{name}: should be a section of settings, such as [sidecars.{name}]")
        settings[name] = {key: value for key, value in section.items() if key != "producer"}
        producers[name] = str(section.get("producer", ""))
    for text in names:
        name, _, producer = text.partition("=")
        if producer and producers.get(name, "") not in ("", producer):
            raise InputError(f"sidecar {name}: two producers are named, {producers[name]} and {producer}")
        producers[name] = producer or producers.get(name, "")
    return [request_sidecar(name, producer, settings.get(name, {})) for name, producer in producers.items()]
