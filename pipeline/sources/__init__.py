"""Sources: what Trackmill can read, by name. Importing this is cheap: a source is imported when it is used.

A new one is a file with a class (`trackmill.pipeline.sources.base.Source`) and a line in `SOURCES`; one from outside
needs no line: `--source my_package.my_module:Class`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import create_model

from trackmill.models.choice import Entry
from trackmill.models.outside import choose, import_object, is_outside, require_class
from trackmill.schemas.config import Settings
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    from trackmill.pipeline.sources.base import ReadSettings, Source

AUTO = "auto"
"""What `--source` says for all of them, each taking the files that it understands."""

SOURCES: dict[str, Entry] = {
    "sa1b": Entry(target="trackmill.pipeline.sources.sa1b:Sa1b", summary="SA-1B, as folders or in its official tars"),
    "sav": Entry(target="trackmill.pipeline.sources.sav:Sav", summary="SA-V, as published for training or validation"),
    "mot": Entry(target="trackmill.pipeline.sources.mot:Mot", summary="sequences laid out like MOTChallenge"),
    "crowdhuman": Entry(
        target="trackmill.pipeline.sources.crowdhuman:CrowdHuman",
        summary="CrowdHuman: pictures with annotation_{train,val}.odgt",
    ),
    "coco": Entry(
        target="trackmill.pipeline.sources.coco:Coco",
        summary="pictures with boxes and masks in JSON files laid out like COCO's",
    ),
    "frames": Entry(
        target="trackmill.pipeline.sources.frames:Frames",
        summary="videos as folders of numbered pictures, with masks where the layout has them",
    ),
    "videos": Entry(target="trackmill.pipeline.sources.video_files:VideoFiles", summary="video files without labels"),
    "images": Entry(target="trackmill.pipeline.sources.images:Images", summary="picture files without labels"),
    "webdataset": Entry(
        target="trackmill.pipeline.sources.webdataset:WebDataset",
        summary="pictures inside tars, such as WebDataset shards, and zips; never taken by itself",
    ),
}
"""What `--source` may say, in the order in which `auto` asks them: data sets first, so that their frames are not taken
for pictures."""


def source_class(name: str) -> type[Source]:
    """The class that a key of `SOURCES`, or `my_package.my_module:Class`, stands for.

    Raises:
        InputError: no such name (says the nearest), no such module or class, or it is no source.
        Exception: whatever somebody else's module raises while it is imported.
    """
    from trackmill.pipeline.sources.base import Source

    if name in SOURCES or not is_outside(name):
        ours: type[Source] = import_object(SOURCES[choose("source", name, SOURCES)].target, "source")
        return ours
    attributes = {
        "name": "what its items are called by",
        "version": "a number, raised whenever it reads the same files otherwise",
        "annotated": "whether its items come with annotations",
    }
    base: Any = Source  # an abstract class, which mypy does not take for a type
    theirs: type[Source] = require_class(import_object(name, "source"), base, "source", name, attributes)
    if theirs.name in SOURCES:
        raise InputError(f"source {name}: its name {theirs.name!r} is that of a source of Trackmill's; choose another")
    return theirs


def sources_of(name: str) -> dict[str, type[Source]]:
    """The sources that `--source` stands for, by the name that their items bear.

    Raises:
        InputError: see `source_class`.
    """
    if name == AUTO:
        classes = {each: source_class(each) for each in SOURCES}
        return {each: cls for each, cls in classes.items() if not cls.by_name_only}
    chosen = source_class(name)
    return {chosen.name: chosen}


def settings_class(name: str) -> type[Settings]:
    """What the section `[source_settings]` may hold where `--source` says `name`; of `auto`, what all sources have.

    Raises:
        InputError: see `source_class`.
    """
    return _all_settings() if name == AUTO else source_class(name).Config


class _AllSettings(Settings):
    """What `auto` may set: the settings of every source that it asks."""


@cache
def _all_settings() -> type[Settings]:
    fields: dict[str, Any] = {}
    for cls in sources_of(AUTO).values():
        for name, field in cls.Config.model_fields.items():
            assert name not in fields, f"two sources have a setting {name}"
            fields[name] = (field.annotation, field)
    # A field has taken its limits (gt, le, ...) out of the annotation, and brings them along.
    return create_model("AllSettings", __base__=_AllSettings, **fields)


def open_source(name: str, settings: ReadSettings, config: Settings | Mapping[str, Any] | None = None) -> Source:
    """A source that is ready to claim or to read.

    Args:
        name: a key of `SOURCES`, or `my_package.my_module:Class`.
        settings: how pictures and videos are read.
        config: settings of its own, see `Source.Config`.

    Raises:
        InputError: see `source_class`.
    """
    source = source_class(name)(settings)
    if isinstance(config, Settings):
        # Of many sources in one run, the settings are those of one; of `auto`, those of all of them.
        source.config = config if isinstance(config, source.Config) else source.Config()
        if isinstance(config, _AllSettings):
            own = config.model_dump(include=set(source.Config.model_fields))
            source.config = source.Config.model_validate(own)
    else:
        source.config = source.Config.model_validate(config or {})
    return source
