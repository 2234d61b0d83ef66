"""Samples in, shards out: one or more tars per unit, none larger than the limits, published when complete."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from pathlib import Path
from typing import IO

from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.tar import END, Checksum, TarWriter, member_size
from trackmill.pipeline.storage.files import exists
from trackmill.pipeline.storage.publish import publish_file, remove
from trackmill.pipeline.storage.scratch import naming, scratch_file
from trackmill.schemas.keys import shard_name
from trackmill.schemas.receipt import ShardInfo


class _Hashing:
    """A file handle that hashes what passes through it."""

    def __init__(self, handle: IO[bytes]) -> None:
        self.handle = handle
        self.sha256 = hashlib.sha256()
        self.sample = Checksum()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.sample.write(data)
        return self.handle.write(data)


class ShardWriter:
    """Writes the shards of one unit.

    A shard is built in a scratch file and appears under its name only when it is complete. Leaving the `with` block by
    an exception publishes nothing more.

    Args:
        layout: of the data set.
        unit, retry: see `trackmill.schemas.keys.shard_name`.
        max_bytes, max_samples: a shard is closed before the sample that would push it past either; a single sample
            larger than `max_bytes` gets a shard of its own.
        on_publish: called with the name of each shard just before it is published; for tests of faults.
        publisher: publishes shards while the next one is written, one at a time; None: it is waited for.
    """

    def __init__(
        self,
        layout: Layout,
        unit: int,
        max_bytes: int,
        max_samples: int,
        retry: int = 0,
        on_publish: Callable[[str], None] | None = None,
        publisher: Executor | None = None,
    ) -> None:
        self.shards: list[ShardInfo] = []
        self.checksum = 0
        """Of the sample that was written last, see `trackmill.schemas.receipt.ReceiptRow`."""
        self._layout = layout
        self._unit, self._retry = unit, retry
        self._max_bytes, self._max_samples = max_bytes, max_samples
        self._on_publish = on_publish
        self._publisher = publisher
        self._publishing: Future[None] | None = None
        self._scratch: Path | None = None
        self._open()

    def _open(self) -> None:
        self._name = shard_name(self._unit, roll=len(self.shards), retry=self._retry)
        self._scratch = None
        self._num_samples = 0

    def _start(self) -> None:
        # Only when the first sample comes: a unit whose items are all quarantined leaves no empty tar.
        self._scratch = scratch_file(self._layout.shard(self._name))
        self._handle = open(self._scratch, "wb", buffering=1 << 20)  # noqa: SIM115 - closed by _close
        self._hashing = _Hashing(self._handle)
        self._tar = TarWriter(self._hashing)  # type: ignore[arg-type]

    def write(self, members: list[tuple[str, bytes]]) -> tuple[str, int, int]:
        """Append one sample, its members side by side, and say where it lies: (shard, offset, size)."""
        size = sum(member_size(len(data)) for _, data in members)
        full = self._scratch is not None and (
            self._tar.position + size + len(END) > self._max_bytes or self._num_samples >= self._max_samples
        )
        if full:
            self._close()
        if self._scratch is None:
            self._start()
        assert self._scratch is not None
        offset = self._tar.position
        self._hashing.sample = Checksum()
        with naming(self._scratch.with_name(self._name)):
            for name, data in members:
                self._tar.add(name, data)
        self._num_samples += 1
        self.checksum = self._hashing.sample.value()
        return self._name, offset, size

    def _close(self) -> None:
        assert self._scratch is not None
        with naming(self._scratch.with_name(self._name)):
            self._tar.finish()
            self._handle.flush()
            self._handle.close()
        num_bytes = os.path.getsize(self._scratch)
        assert num_bytes == self._tar.position, "a shard lost bytes on its way to the disk"
        self._wait()  # there are scratch files of two shards at most
        if self._publisher is None:
            self._publish(self._scratch, self._name)
        else:
            self._publishing = self._publisher.submit(self._publish, self._scratch, self._name)
        self.shards.append(
            ShardInfo(
                name=self._name,
                num_bytes=num_bytes,
                sha256=self._hashing.sha256.hexdigest(),
                num_samples=self._num_samples,
            )
        )
        self._open()

    def _publish(self, scratch: Path, name: str) -> None:
        try:
            if self._on_publish:
                self._on_publish(name)
            publish_file(scratch, self._layout.shard(name))
        finally:
            scratch.unlink(missing_ok=True)

    def _wait(self) -> None:
        publishing, self._publishing = self._publishing, None
        if publishing is not None:
            publishing.result()

    def remove_leftovers(self) -> None:
        """Remove shards that a killed try at this unit left beyond those of this one.

        A try that must leave an item out can fill fewer shards than the one before it. Call it after the last shard and
        before the receipt.
        """
        roll = len(self.shards)
        while exists(leftover := self._layout.shard(shard_name(self._unit, roll=roll, retry=self._retry))):
            remove(leftover)
            roll += 1

    def finish(self) -> None:
        """Publish what is left, and wait until all shards are published."""
        if self._scratch is not None:
            self._close()
        self._wait()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            if self._publishing is not None:
                wait([self._publishing])
            if self._scratch is not None:
                with contextlib.suppress(OSError):
                    self._handle.close()  # of a full disk it tries once more to write what is left
                self._scratch.unlink(missing_ok=True)
