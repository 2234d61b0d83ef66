"""What a sidecar is and what made it: `sidecar.json`, its fingerprint, and the refusal to mix what does not match."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.sidecars.columns import Column, check_columns
from trackmill.pipeline.sidecars.files import checked_names, publish_files, stored_files
from trackmill.pipeline.sidecars.producer import Producer
from trackmill.pipeline.sidecars.producers import PRODUCERS
from trackmill.pipeline.sidecars.requests import NAME, Request, check_sidecar_name
from trackmill.pipeline.storage.credentials import redact, scrub
from trackmill.pipeline.storage.documents import DamagedDocument, publish_document, read_document
from trackmill.pipeline.storage.files import exists
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.scratch import sweep_scratch
from trackmill.pipeline.storage.urls import basename, dirname
from trackmill.schemas.config import Settings, digest, setting_differences
from trackmill.schemas.errors import InputError
from trackmill.schemas.keys import unit_of_part

SIDECAR_VERSION = 1
_MAX_ABOUT_BYTES = 1 << 20
# What decodes a stored frame: another release may give other pixels, and so other rows.
_LIBRARIES = ("numpy", "pillow")


class SidecarError(InputError):
    """A sidecar that cannot be used as it is asked for; the text names it and says how to mend it."""


class NoSidecar(SidecarError):
    """There is no such sidecar, or it has no part for a unit; the text says which command makes it."""


class About(BaseModel):
    """`sidecar.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sidecar_version: Literal[1] = 1
    name: str = Field(pattern=NAME.pattern)
    fingerprint: str = Field(description="Of columns, producer, its settings, weights and libraries.")
    dataset: str = Field(description="Fingerprint of the data set whose shards it describes.")
    columns: tuple[Column, ...] = Field(description="Beside key and frame.")
    parts: dict[str, Any] = Field(description="What the fingerprint is made of, apart from the columns.")
    settings: dict[str, Any] = Field(description="All settings of the producer, also those that change no row.")
    trackmill: str = Field(description="Release that began it.")

    @property
    def files(self) -> dict[str, str]:
        """SHA-256 of the files beside the parts, by name; see `trackmill.pipeline.sidecars.files`."""
        files = self.parts.get("files", {})
        if not isinstance(files, dict):
            raise ValueError("parts.files is no object")
        return files


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarJob:
    """What a worker needs to make a sidecar, in plain values so that it travels.

    Args:
        name: of the sidecar.
        producer: as `trackmill.pipeline.sidecars.producers.producer_class` takes it.
        settings: resolved settings of the producer, dumped.
        libraries: versions and hashes that the worker must have too, by name.
        fingerprint: of what makes the sidecar.
        uses_gpu: whether the producer gains from a GPU.
        files: see `trackmill.pipeline.sidecars.producer.Producer.shared_files`.
        reads: fingerprint of each sidecar whose rows the producer needs, by name.
    """

    name: str
    producer: str
    settings: dict[str, Any]
    libraries: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    uses_gpu: bool = False
    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    reads: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """A sidecar as it lies beside its data set.

    Args:
        folder: URL.
        about: its `sidecar.json`.
        parts: length in bytes of each part that is there, by file name.
    """

    folder: str
    about: About
    parts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecars:
    """The sidecars of a data set; none where `by_name` is empty.

    Args:
        root: URL of the data set.
        by_name: those that can be read.
        damaged: what is wrong with each of the others.
    """

    root: str
    by_name: Mapping[str, Sidecar] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Sidecar:
        """A sidecar by its name.

        Raises:
            NoSidecar: it was never made; says which there are and what makes it.
            SidecarError: its `sidecar.json` is missing or damaged.
        """
        return self.get(name)

    def get(self, name: str, producer: str = "") -> Sidecar:
        """The same; where it was never made, `producer` says whose it would have to be (empty: its name tells)."""
        if name in self.damaged:
            raise SidecarError(self.damaged[name])
        if name in self.by_name:
            return self.by_name[name]
        there = f"there are {', '.join(self.by_name)}" if self.by_name else "there are none"
        makes = command(self.root, name, producer)
        raise NoSidecar(f"{redact(self.root)} has no sidecar {name!r} ({there}): {makes} makes it")


def fingerprint_parts(producer: type[Producer], settings: Settings) -> dict[str, Any]:
    """What decides the rows, apart from the columns.

    Args:
        producer: its class.
        settings: as `Producer.resolve` returned them.
    """
    kept = settings.model_dump(mode="json", exclude=set(producer.not_in_fingerprint) | _left_out(producer, settings))
    return {
        "producer": {
            "name": producer.name,
            "version": producer.version,
            "settings": kept,
            "implementation": producer.implementation(settings),
        },
        "libraries": libraries(),
    }


def _left_out(producer: type[Producer], settings: Settings) -> set[str]:
    """Settings that are written nowhere, so that sidecars are the same bytes as before there were these settings."""
    fields = type(settings).model_fields
    return {
        name
        for name in producer.left_out_at_default
        if getattr(settings, name) == fields[name].get_default(call_default_factory=True)
    }


def libraries() -> dict[str, str]:
    """Versions, on this machine, of the libraries that decode stored frames."""
    return {name: version(name) for name in _LIBRARIES}


def begin_sidecar(layout: Layout, request: Request, dataset: str, store: bool = True) -> SidecarJob:
    """Write `sidecar.json`, or check that the sidecar was begun with the same settings for the same data set.

    Args:
        layout: of the data set.
        request: what is to be made.
        dataset: fingerprint of the data set.
        store: without it nothing is written.

    Raises:
        InputError: a column that cannot be.
        SidecarError: it was begun with other settings (names each), or for another data set.
    """
    name, producer, settings = request.name, request.kind, request.settings
    columns = check_columns(producer.columns, f"producer {producer.name}")
    parts = orjson.loads(orjson.dumps(fingerprint_parts(producer, settings)))
    before = _begun(layout, name)
    there = stored_files(layout, name, before.files) if before else {}
    files = dict(producer.shared_files(settings, there))
    if files:
        parts["files"] = {file: hashlib.sha256(files[file]).hexdigest() for file in sorted(files)}
    reads = {other: _other(layout, other, name).fingerprint for other in producer.reads(settings)}
    if reads:
        parts["reads"] = reads
    plain = {"sidecar_version": SIDECAR_VERSION, "columns": [column.model_dump() for column in columns], **parts}
    about = About(
        name=name,
        fingerprint=digest(plain)[:16],
        dataset=dataset,
        columns=columns,
        parts=parts,
        settings=_without_credentials(settings.model_dump(mode="json", exclude=_left_out(producer, settings))),
        trackmill=version("trackmill"),
    )
    if before and _has_parts(layout, name):
        _check_same(layout, before, about)
        if store:
            publish_files(layout, name, files, there)
    elif store:
        publish_files(layout, name, files, there)
        document = about.model_dump(mode="json")
        publish_document(layout.sidecar_about(name), document)
    if store:
        sweep_scratch(layout.sidecar(name))
    return SidecarJob(
        name=name,
        producer=request.producer,
        settings=settings.model_dump(mode="json"),
        libraries={**parts["libraries"], **parts["producer"]["implementation"]},
        fingerprint=about.fingerprint,
        uses_gpu=producer.gains_from_gpu(settings),
        files=files,
        reads=reads,
    )


def is_begun(layout: Layout, job: SidecarJob, dataset: str) -> bool:
    """Whether `begin_sidecar`, which gave this job without storing it, has nothing to store: another process has."""
    before = _begun(layout, job.name)
    if before is None or (before.fingerprint, before.dataset) != (job.fingerprint, dataset):
        return False
    return stored_files(layout, job.name, before.files) == job.files


def _other(layout: Layout, other: str, name: str) -> About:
    """`sidecar.json` of a sidecar that another one, `name`, is made from."""
    if other == name:
        raise InputError(f"sidecar {name}: it cannot be made from itself; give it another name")
    try:
        return read_about(layout, other)
    except FileNotFoundError:
        raise NoSidecar(
            f"{redact(layout.root)} has no sidecar {other!r}, which {name} is to be made from: "
            f"{command(layout.root, other)} makes it"
        ) from None


def read_about(layout: Layout, name: str) -> About:
    """`sidecar.json` of one sidecar.

    Raises:
        FileNotFoundError: there is none.
        SidecarError: it is damaged, or of a later version.
    """
    url = layout.sidecar_about(check_sidecar_name(name))
    try:
        document = read_document(url, _MAX_ABOUT_BYTES)
        found = document.get("sidecar_version")
        if found != SIDECAR_VERSION:
            raise SidecarError(
                f"{redact(url)}: has sidecar version {str(found)[:40]}; this program reads {SIDECAR_VERSION}: update it"
            )
        about = About.model_validate(document)
        if about.name != name:
            raise ValueError(f"says its name is {about.name!r}")
        check_columns(about.columns, "columns")
        checked_names(about.files)
        return about
    except SidecarError:
        raise
    except DamagedDocument as error:
        raise SidecarError(f"{error}; restore it, or {_anew(name)}") from None
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    except (ValueError, AttributeError) as error:
        what = str(error)
    raise SidecarError(f"{redact(url)}: not a readable description of a sidecar ({what}); restore it, or {_anew(name)}")


def find_sidecars(layout: Layout) -> Sidecars:
    """The sidecars of a data set.

    Raises:
        OSError: they could not be listed.
    """
    try:
        files = list_files(layout.sidecars, sizes=True)
    except FileNotFoundError:
        return Sidecars(root=layout.root)
    sizes: dict[str, dict[str, int]] = {}
    for file in files:
        folder, name = basename(dirname(file.uri)), basename(file.uri)
        if NAME.match(folder):
            sizes.setdefault(folder, {})[name] = file.size
    sidecars, damaged = {}, {}
    for name, found in sorted(sizes.items()):
        try:
            about = read_about(layout, name)
        except FileNotFoundError:
            damaged[name] = f"sidecars/{name}: there is no sidecar.json; restore it, or {_anew(name)}"
        except SidecarError as error:
            damaged[name] = str(error)
        else:
            parts = {part: size for part, size in found.items() if unit_of_part(part)}
            sidecars[name] = Sidecar(folder=layout.sidecar(name), about=about, parts=parts)
    return Sidecars(root=layout.root, by_name=sidecars, damaged=damaged)


def command(root: str, name: str, producer: str = "") -> str:
    """What to type in order to make a sidecar, or the parts of it that are missing.

    Args:
        root: of the data set.
        name: of the sidecar.
        producer: what its producer calls itself, if it was begun; where it lies is not written down, as it may move.
    """
    # Two producers make chains; who has none yet wants those of the native rate.
    producer = producer or ("video-chains" if name == "chains" else name)
    if producer == "negatives":
        named = f" --name {name}" if name != producer else ""
        return f"trackmill negatives --data {redact(root)}{named} --detector ... --weights ..."
    if producer == "video-chains":
        named = "" if name == "chains" else f" --name {name}"
        return f"trackmill mine-chains --data {redact(root)}{named} ..."
    if producer not in PRODUCERS:
        producer = "my_package.my_module:Class"
    return f"trackmill sidecar {redact(root)} {name}" + (f" --producer {producer}" if producer != name else "")


def _begun(layout: Layout, name: str) -> About | None:
    """What is written of a sidecar that was begun; without a part yet, a damaged `sidecar.json` does not count."""
    if not exists(layout.sidecar_about(name)):
        return None
    try:
        return read_about(layout, name)
    except SidecarError:
        if _has_parts(layout, name):
            raise
        return None


def _has_parts(layout: Layout, name: str) -> bool:
    """Whether anything was finished; a sidecar that was only begun may begin anew with other settings."""
    return any(unit_of_part(basename(file.uri)) for file in list_files(layout.sidecar(name)))


def _check_same(layout: Layout, before: About, now: About) -> None:
    where = redact(layout.sidecar(now.name))
    if before.dataset != now.dataset:
        raise SidecarError(
            f"{where} describes the data set {before.dataset}, not this one, {now.dataset}; {_anew(now.name)}"
        )
    if before.fingerprint == now.fingerprint:
        return
    whose = [str(about.parts.get("producer", {}).get("name")) for about in (before, now)]
    if whose[0] != whose[1]:
        raise SidecarError(
            f"{where} was made by the producer {whose[0]!r}, and {whose[1]!r} makes other rows; give this sidecar "
            f"another name, or {_anew(now.name)}"
        )
    old, new = ({**about.parts, "columns": _by_name(about.columns)} for about in (before, now))
    places = [
        f"{key} was {scrub(str(before.settings.get(key, '')))!r}, now {scrub(str(now.settings.get(key, '')))!r}"
        for key in ("detector", "weights", "classes", "text_weights")
        if before.settings.get(key, "") != now.settings.get(key, "")
    ]
    shown = f" ({'; '.join(places)})" if places else ""
    raise SidecarError(
        f"{where} was begun with other settings, and its parts would not match: "
        f"{'; '.join(setting_differences(old, new))}{shown}. "
        "Use the old settings, or another name for the sidecar."
    )


def _by_name(columns: tuple[Column, ...]) -> dict[str, Any]:
    return {column.name: column.model_dump(exclude={"name"}) for column in columns}


def _anew(name: str) -> str:
    return f"delete the folder sidecars/{name} and make it again"


def _without_credentials(settings: dict[str, Any]) -> dict[str, Any]:
    plain = {key: scrub(value) if isinstance(value, str) else value for key, value in settings.items()}
    return {
        key: _without_credentials(value) if isinstance(value, dict) and key == "source" else value
        for key, value in plain.items()
    }
