"""Who has what in hand: several processes do the work of one output, each piece is done by one of them.

`OUTPUT/.claims/` holds one file for each piece in work, made only where none is, and one for each process at work,
which is written anew every `BEAT_S` seconds. A piece whose process shows no sign of life is taken over. What a claim
says is never trusted with more than this: at worst a piece is done twice, with the same bytes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson

from trackmill.pipeline.storage import create
from trackmill.pipeline.storage.claim_files import (
    FOLDER,
    PIECE_FILE,
    PROCESS_FILE,
    Claim,
    list_claims,
    parse_claim,
    read_claim_file,
)
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.owner import Owner, read_owner, this_process
from trackmill.pipeline.storage.publish import publish_bytes, remove
from trackmill.pipeline.storage.scratch import sweep_scratch
from trackmill.pipeline.storage.signs_of_life import Sign, SignsOfLife
from trackmill.pipeline.storage.urls import filesystem, is_local, join

log = logging.getLogger("trackmill")

BEAT_S = 15.0
DEATHS_OF_A_PIECE = 5
"""So many processes that died with a piece, and nothing else, in hand are no chance."""

_AT_ONCE = 16
_NAMED = 3
_CHANGES = ("ETag", "etag", "LastModified", "last_modified", "generation", "updated", "mtime", "created")
"""What stores say in a listing that is another for other bytes."""


class Claims:
    """The claims of this process on the pieces of one output.

    Args:
        output: root URL; the claims lie in a folder below it.
        job: what this process is called in them.
        expires_s: seconds without a sign of life after which another process counts as dead.
        alone: this process works on one piece at a time, itself.
    """

    def __init__(self, output: str, job: str, expires_s: float = 60.0, alone: bool = True) -> None:
        self._folder = join(output, FOLDER)
        self._owner = this_process(job)
        self._alone = alone
        self._beats = 0
        self._signs = SignsOfLife(expires_s)
        self._looks: dict[str, object] = {}
        self._read: dict[str, tuple[object, Claim]] = {}
        self._held: set[str] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._watching = False
        # Requests to a store take their time, and a piece that is given back is nobody's worry.
        self._behind = None if is_local(output) else ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="claims")

    @property
    def expires_s(self) -> float:
        """See the arguments."""
        return self._signs.expires_s

    @property
    def is_local(self) -> bool:
        """Whether a claim is a file of this machine, and not a request to a store."""
        return is_local(self._folder)

    @property
    def poll_s(self) -> float:
        """Seconds between two looks of who waits for signs of life."""
        return min(BEAT_S, self.expires_s / 6)

    @property
    def held(self) -> frozenset[str]:
        """The pieces that this process has in hand."""
        with self._lock:
            return frozenset(self._held)

    def join(self) -> None:
        """Be one of those at work from now on, and beat.

        Raises:
            InputError: nothing can be written there.
            OSError: the output cannot be written to.
        """
        if self._thread is not None:
            return
        for attempt in range(_AT_ONCE):
            try:
                create.create_bytes(self._own_url(), self._presence())
                break
            except FileNotFoundError:  # the last of the others removed the folder at this moment
                if attempt == _AT_ONCE - 1:
                    raise
        self._thread = threading.Thread(target=self._beat_on, name="claims", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Give back all that is in hand, and be at work no more. May be called twice."""
        if self._thread is None or self._ended.is_set():
            return
        for piece in self.held:
            self.release(piece, done=False)
        self._ended.set()
        self._thread.join()
        if self._behind is not None:
            self._behind.shutdown(wait=True)
        # What was made is whole, whatever becomes of these.
        with contextlib.suppress(OSError):
            remove(self._own_url())
        if is_local(self._folder):
            with contextlib.suppress(OSError):
                os.rmdir(filesystem(self._folder)[1])

    def watch(self) -> None:
        """Look at the others with every beat, so that the dead are known as such when it matters."""
        self._watching = True

    def others(self) -> tuple[int, list[str]]:
        """How many other processes are at work here, or died within the last moments; and the names of some.

        Those of this machine that are dead are swept away.
        """
        found = [name for name in self._list() if PROCESS_FILE.match(name) and name != self._own_name()]
        count = 0
        named: list[str] = []
        for number, name in enumerate(found):
            if number >= _AT_ONCE:
                count += len(found) - number
                break
            owner = read_owner(self._bytes(name))
            if owner is not None and owner.alive_here is False:
                with contextlib.suppress(OSError):
                    remove(join(self._folder, name))
                continue
            count += 1
            if len(named) < _NAMED:
                named.append(str(owner or "one that does not say who it is"))
        return count, named

    def living(self) -> list[str]:
        """The other processes that are at work here; it takes up to `expires_s` to see that none of them is."""
        while True:
            self.look()
            with self._lock:
                names = [name for name in self._looks if PROCESS_FILE.match(name) and name != self._own_name()]
                signs = {name: self._signs.of(name) for name in names}
            alive, unknown = [], False
            for name in names:
                owner = read_owner(self._bytes(name))
                here = owner.alive_here if owner is not None else None
                if here is False or signs[name] == "dead":
                    continue
                if here or signs[name] == "alive":
                    alive.append(str(owner or "one that does not say who it is"))
                else:
                    unknown = True
            if alive or not unknown:
                return alive
            time.sleep(self.poll_s)

    def pieces(self) -> set[str]:
        """The pieces that anybody has in hand, or had when it died."""
        return {match[1] for name in self._list() if (match := PIECE_FILE.match(name))}

    def claim(self, pieces: Iterable[str]) -> list[str]:
        """Take pieces in hand; returns those that nobody else has.

        Raises:
            OSError: the output cannot be written to.
        """
        return [piece for piece, taken in self._each(self._claim, pieces) if taken]

    def release(self, piece: str, done: bool = True) -> None:
        """Give a piece back; `done`: say so if somebody else did it too."""
        with self._lock:
            if piece not in self._held:
                return
            self._held.discard(piece)
        if self._behind is not None:
            self._behind.submit(self._release, piece, done)
        else:
            self._release(piece, done)

    def look(self) -> None:
        """Look at all claims and signs of life, as often as `poll_s` says for as long as it matters."""
        looks = self._look_at_all()
        names = [name for name in looks if PIECE_FILE.match(name)]
        with self._lock:
            known = {name: self._read[name] for name in names if name in self._read}
        fresh = [name for name in names if name not in known or known[name][0] != looks[name]]
        read = {name: (looks[name], self._parse(name, data)) for name, data in self._each(self._bytes, fresh)}
        for _, claim in [*known.values(), *read.values()]:
            if claim.owner is not None:
                looks.setdefault(_process_name(claim.owner), None)  # gone: it has a while to come back
        with self._lock:
            self._read = {**known, **read}
            self._looks = looks
            self._signs.look(looks)

    def sign(self, piece: str) -> Sign:
        """What the last looks say of who has a piece in hand; unknown if nobody has."""
        with self._lock:
            entry = self._read.get(f"{piece}.json")
            if entry is None:
                return "unknown"
            owner = entry[1].owner
            if owner is None:
                return self._signs.of(f"{piece}.json")
            if owner.token == self._owner.token:
                return "alive"
            sign = self._signs.of(_process_name(owner))
        here = owner.alive_here
        if here is None or sign == "dead":
            return sign
        return "alive" if here else "dead"

    def owner_of(self, piece: str) -> str:
        """Who has a piece in hand, for messages."""
        with self._lock:
            entry = self._read.get(f"{piece}.json")
        return str(entry[1].owner or "somebody whose name cannot be read") if entry else "nobody"

    def deaths(self, piece: str) -> int:
        """Processes that died while they had this piece, and nothing else, in hand; the last of them included."""
        with self._lock:
            entry = self._read.get(f"{piece}.json")
        return entry[1].deaths + entry[1].alone if entry else 0

    def take_over(self, pieces: Iterable[str]) -> list[str]:
        """Take pieces of the dead in hand; returns those that were taken."""
        taken = [piece for piece, wrote in self._each(self._write_over, pieces) if wrote]
        if not taken:
            return []
        time.sleep(create.SETTLE_S)  # of two who wrote at once, the last one has it
        ours = [piece for piece, holds in self._each(self._holds, taken) if holds]
        with self._lock:
            self._held.update(ours)
        for piece in ours:
            log.info("%s is taken over: no sign of life of who had it in hand (%s)", piece, self.owner_of(piece))
        return ours

    def sweep(self, done: Collection[str]) -> None:
        """Remove what the dead left: claims on pieces that are done, and their own files.

        Args:
            done: names of the pieces that are.
        """
        self.look()
        sweep_scratch(self._folder)
        with self._lock:
            names = list(self._looks)
        for name in names:
            piece, process = PIECE_FILE.match(name), PROCESS_FILE.match(name)
            if piece and piece[1] in done and piece[1] not in self.held:
                gone = self.sign(piece[1]) != "alive"
            elif process and name != self._own_name():
                owner = read_owner(self._bytes(name))
                with self._lock:
                    sign = self._signs.of(name)
                gone = sign == "dead" or (owner is not None and owner.alive_here is False)
            else:
                gone = False
            if gone:
                with contextlib.suppress(OSError):
                    remove(join(self._folder, name))

    def _claim(self, piece: str) -> bool:
        if not create.create_bytes(self._url(piece), self._document(0)):
            return False
        with self._lock:
            self._held.add(piece)
        return True

    def _release(self, piece: str, done: bool) -> None:
        with contextlib.suppress(OSError):  # a claim that stays expires
            owner = read_owner(self._bytes(f"{piece}.json"))
            if owner is not None and owner.token != self._owner.token:
                if done:
                    log.warning(
                        "%s was also done by another process, which took this one for dead (%s); the bytes are equal",
                        piece,
                        owner,
                    )
                return
            if owner is not None:
                remove(self._url(piece))

    def _write_over(self, piece: str) -> bool:
        with self._lock:
            entry = self._read.get(f"{piece}.json")
        now = self._parse(f"{piece}.json", self._bytes(f"{piece}.json"))
        if entry is None or now != entry[1]:
            return False
        try:
            publish_bytes(self._url(piece), self._document(now.deaths + now.alone))
        except OSError as error:
            log.warning("%s cannot be taken over: %s", piece, error)
            return False
        return True

    def _holds(self, piece: str) -> bool:
        owner = read_owner(self._bytes(f"{piece}.json"))
        return owner is not None and owner.token == self._owner.token

    def _document(self, deaths: int) -> bytes:
        return orjson.dumps({**self._owner.values(), "alone": self._alone, "deaths": deaths})

    def _presence(self) -> bytes:
        return orjson.dumps({**self._owner.values(), "beats": self._beats})

    def _beat_on(self) -> None:
        while not self._ended.wait(min(BEAT_S, self.expires_s / 4)):
            self._beats += 1
            try:
                publish_bytes(self._own_url(), self._presence())
                if self._watching:
                    self.look()
            except OSError as error:
                log.warning("%s: the sign of life could not be renewed: %s", redact(self._folder), error)

    def _own_name(self) -> str:
        return _process_name(self._owner)

    def _own_url(self) -> str:
        return join(self._folder, self._own_name())

    def _url(self, piece: str) -> str:
        return join(self._folder, f"{piece}.json")

    def _list(self) -> Mapping[str, Any]:
        return list_claims(self._folder)

    def _look_at_all(self) -> dict[str, object]:
        """How each file looks, by name; what is none of ours is left out."""
        ours = (PIECE_FILE, PROCESS_FILE)
        listed = {name: info for name, info in self._list().items() if any(each.match(name) for each in ours)}
        telling = {name: tuple(str(info[key]) for key in _CHANGES if key in info) for name, info in listed.items()}
        looks: dict[str, object] = {name: each for name, each in telling.items() if each}
        looks |= dict(self._each(self._bytes, [name for name in listed if name not in looks]))
        return looks

    def _bytes(self, name: str) -> bytes | None:
        return read_claim_file(join(self._folder, name))

    def _parse(self, name: str, data: bytes | None) -> Claim:
        return parse_claim(name, data)

    def _each(self, action: Any, names: Iterable[str]) -> list[tuple[str, Any]]:
        """Names with what an action gives for each; several at once where a store takes its time."""
        names = list(names)
        if self._behind is None or len(names) < 2:
            return [(name, action(name)) for name in names]
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="claims") as pool:
            return list(zip(names, pool.map(action, names)))


def _process_name(owner: Owner) -> str:
    return f"by-{owner.token}.json"
