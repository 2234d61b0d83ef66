"""Rows of sidecars by sample and frame, read a part at a time when somebody asks for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.sidecars.about import Sidecar, SidecarError, command
from trackmill.pipeline.sidecars.part import MAX_PART_BYTES, BadPart, Part, PartAbout, parse_part
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import FileTooLarge, join, read_bytes
from trackmill.schemas.keys import shard_numbers, sidecar_part_name
from trackmill.schemas.receipt import ShardInfo

HELD_BYTES = 256 << 20
"""Parts that are kept in memory by one process; the longest unused goes first, the newest always stays."""

ReadPart = Callable[[Sidecar, str], bytes]
"""Bytes of the part of a sidecar that has this file name."""


class NoSidecar(SidecarError):
    """There is no such sidecar, or it has no part for a unit; the text says which command makes it."""


class OtherShards(SidecarError):
    """A part describes other shards than the ones that lie beside it, or belongs to another sidecar."""


class SidecarTables:
    """The sidecars of a data set, for one process. Pickled without what it holds in memory.

    Args:
        root: URL of the data set, for messages.
        sidecars: see `trackmill.pipeline.sidecars.about.find_sidecars`.
        shards: of the data set.
        read: gives the bytes of a part; None reads them where they lie.
    """

    def __init__(
        self, root: str, sidecars: Mapping[str, Sidecar], shards: Iterable[ShardInfo], read: ReadPart | None = None
    ) -> None:
        self._root, self._sidecars = root, dict(sidecars)
        self._shards = {shard.name: shard for shard in shards}
        self._read = read or read_in_place
        self._held: OrderedDict[tuple[str, str], Part] = OrderedDict()
        self._bad: dict[tuple[str, str], str] = {}

    def rows(self, name: str, shard: str, key: str, frame: int) -> dict[str, NDArray[Any]]:
        """The rows of one frame, see `trackmill.pipeline.sidecars.part.Part.of_frame`.

        Args:
            name: of the sidecar.
            shard: file name of the shard that holds the sample.
            key: of the sample.
            frame: position in the sample.

        Raises:
            NoSidecar: it was never made, or not for this shard's unit.
            OtherShards: it was made for other shards.
            BadPart: its part is damaged, or the sample is quarantined in it.
            OSError: storage failed for good.
        """
        return self.part(name, shard).of_frame(key, frame)

    def part(self, name: str, shard: str) -> Part:
        """The part that describes a shard; raises what `rows` raises."""
        sidecar = self.sidecar(name)
        file_name = part_of_shard(shard, self._root, name)
        place = (name, file_name)
        if place in self._bad:
            raise BadPart(self._bad[place])
        held = self._held.get(place)
        if held is None:
            held = self._fetch(sidecar, file_name)
            self._held[place] = held
        self._held.move_to_end(place)
        while len(self._held) > 1 and sum(part.table.nbytes for part in self._held.values()) > HELD_BYTES:
            self._held.popitem(last=False)
        check_shard(held.about, self._shards[shard], held.where)
        return held

    def sidecar(self, name: str) -> Sidecar:
        """A sidecar by its name.

        Raises:
            NoSidecar: it was never made.
        """
        return find(self._root, self._sidecars, name)

    def _fetch(self, sidecar: Sidecar, file_name: str) -> Part:
        name = sidecar.about.name
        where = f"sidecars/{name}/{file_name}"
        if file_name not in sidecar.parts:
            raise NoSidecar(
                f"{redact(self._root)}: there is no {where}: {command(self._root, name)} makes what is missing"
            )
        try:
            part = parse_part(self._read(sidecar, file_name), where, sidecar.about.columns)
        except BadShard as error:
            self._bad[name, file_name] = str(error)
            raise BadPart(str(error)) from None
        check_maker(part.about, sidecar, file_name, where)
        return part

    def __getstate__(self) -> dict[str, Any]:
        # How parts are read may hang on threads and open files of this process.
        return {**self.__dict__, "_read": read_in_place, "_held": OrderedDict()}


def find(root: str, sidecars: Mapping[str, Sidecar], name: str) -> Sidecar:
    """A sidecar by its name.

    Raises:
        NoSidecar: it was never made; says which there are and what makes it.
    """
    if name in sidecars:
        return sidecars[name]
    there = f"there are {', '.join(sidecars)}" if sidecars else "there are none"
    raise NoSidecar(f"{redact(root)} has no sidecar {name!r} ({there}): {command(root, name)} makes it")


def read_in_place(sidecar: Sidecar, file_name: str) -> bytes:
    """Bytes of a part, from where it lies."""
    try:
        return read_bytes(join(sidecar.folder, file_name), max_bytes=MAX_PART_BYTES)
    except FileTooLarge as error:
        raise BadPart(str(error)) from None


def part_of_shard(shard: str, root: str, name: str) -> str:
    """File name of the part that describes a shard.

    Raises:
        NoSidecar: mining did not name the shard, so it belongs to no unit.
    """
    try:
        return sidecar_part_name(*shard_numbers(shard)[:2])
    except ValueError as error:
        raise NoSidecar(f"{redact(root)}: sidecar {name}: {error}") from None


def check_maker(about: PartAbout, sidecar: Sidecar, file_name: str, where: str) -> None:
    """Refuse a part that belongs to another sidecar, another data set or another unit.

    Raises:
        OtherShards: names what differs.
    """
    own = sidecar.about
    for how, found, expected in (
        ("for another sidecar", about.name, own.name),
        ("for another data set", about.dataset, own.dataset),
        ("with other settings", about.fingerprint, own.fingerprint),
        ("for another unit", about.file_name, file_name),
    ):
        if found != expected:
            raise OtherShards(f"{where}: was made {how} ({found}, not {expected}); delete it and make it again")


def check_shard(about: PartAbout, shard: ShardInfo, where: str) -> None:
    """Refuse a part that was made for another shard of this name.

    Raises:
        OtherShards: names the shard.
    """
    described = {entry.name: entry for entry in about.shards}.get(shard.name)
    if described is None:
        raise OtherShards(f"{where}: does not describe {shard.name}; delete it and make it again")
    if (described.num_bytes, described.sha256) != (shard.num_bytes, shard.sha256):
        raise OtherShards(
            f"{where}: was made for another {shard.name} (SHA-256 {described.sha256[:12]}, "
            f"{described.num_bytes} bytes), not for this one ({shard.sha256[:12]}, {shard.num_bytes} bytes); "
            "delete it and make it again"
        )
