"""Rows of sidecars by sample and frame, read a part at a time when somebody asks for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from trackmill.pipeline.sidecars.about import About, NoSidecar, Sidecar, SidecarError, Sidecars, command
from trackmill.pipeline.sidecars.part import BadPart, PartAbout, SidecarPart, read_part
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.urls import join
from trackmill.schemas.keys import shard_numbers, sidecar_part_name
from trackmill.schemas.receipt import ShardInfo

HELD_BYTES = 256 << 20
"""Parts that are kept in memory by one process; the longest unused goes first, the newest always stays."""


class OtherShards(SidecarError):
    """A part describes other shards than the ones that lie beside it, or belongs to another sidecar."""


class SidecarTables:
    """The sidecars of a data set, for one process. Pickled without what it holds in memory.

    Args:
        sidecars: see `trackmill.pipeline.sidecars.about.find_sidecars`.
        shards: of the data set.
    """

    def __init__(self, sidecars: Sidecars, shards: Iterable[ShardInfo]) -> None:
        self.sidecars = sidecars
        self._shards = {shard.name: shard for shard in shards}
        self._held: OrderedDict[tuple[str, str], SidecarPart] = OrderedDict()
        self._bad: dict[tuple[str, str], str] = {}

    def rows(self, name: str, shard: str, key: str, frame: int) -> dict[str, NDArray[Any]]:
        """The rows of one frame, see `trackmill.pipeline.sidecars.part.SidecarPart.of_frame`.

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

    def part(self, name: str, shard: str) -> SidecarPart:
        """The part that describes a shard; raises what `rows` raises."""
        sidecar = self.sidecars[name]
        file_name = part_of_shard(shard, name)
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

    def _fetch(self, sidecar: Sidecar, file_name: str) -> SidecarPart:
        name, producer = sidecar.about.name, sidecar.about.parts["producer"]["name"]
        where = f"sidecars/{name}/{file_name}"
        if file_name not in sidecar.parts:
            root = self.sidecars.root
            makes = command(root, name, producer)
            raise NoSidecar(f"{redact(root)}: there is no {where}: {makes} makes what is missing")
        try:
            part = read_part(join(sidecar.folder, file_name), where, sidecar.about.columns)
        except BadPart as error:
            self._bad[name, file_name] = str(error)
            raise
        check_maker(part.about, sidecar, file_name, where)
        return part

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": OrderedDict()}


def part_of_shard(shard: str, name: str) -> str:
    """File name of the part that describes a shard.

    Raises:
        NoSidecar: mining did not name the shard, so it belongs to no unit.
    """
    try:
        return sidecar_part_name(*shard_numbers(shard)[:2])
    except ValueError as error:
        raise NoSidecar(f"sidecar {name}: {error}") from None


def check_maker(about: PartAbout, sidecar: Sidecar, file_name: str, where: str) -> None:
    """Refuse a part that belongs to another sidecar, another data set or another unit.

    Raises:
        OtherShards: names what differs.
    """
    check_part(about, sidecar.about.name, sidecar.about, file_name, where)


def check_part(about: PartAbout, name: str, own: About, file_name: str, where: str) -> None:
    """As `check_maker`, of a sidecar of which nothing but its description is known."""
    for how, found, expected in (
        ("for another sidecar", about.name, name),
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
