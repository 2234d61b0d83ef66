"""An object store that errs: S3 behind a proxy that fails about one request in twenty and cuts some bodies."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from tests.faults.faulty_proxy import FaultyProxy
from tests.faults.test_s3 import credentials, s3
from tests.s3_server import s3_server

EVERY = 20
BUCKET = "chaos"


class FaultyStore:
    """A bucket to write to through the proxy, and to look into past it.

    Args:
        host, port: of the endpoint.
        seed: of the faults.
    """

    def __init__(self, host: str, port: int, seed: int) -> None:
        self._direct = s3(f"http://{host}:{port}")
        self._direct.mkdir(BUCKET)
        self.proxy = FaultyProxy(host, port, every=EVERY, seed=seed)
        self.environment = credentials(self.proxy.url)

    def url(self, name: str) -> str:
        """Of a data set."""
        return f"s3://{BUCKET}/{name}"

    def units(self, name: str) -> int:
        """Receipts that are there."""
        self._direct.invalidate_cache()
        try:
            return sum("/part-" in path for path in self._direct.ls(f"{BUCKET}/{name}/receipts", detail=False))
        except FileNotFoundError:
            return 0

    def fetch(self, name: str, target: Path) -> None:
        """Copy a data set to a local folder."""
        self._direct.invalidate_cache()
        self._direct.get(f"{BUCKET}/{name}/", f"{target}/", recursive=True)

    def remove(self, name: str) -> None:
        """A data set is done with; the endpoint keeps everything in memory."""
        self._direct.invalidate_cache()
        self._direct.rm(f"{BUCKET}/{name}", recursive=True)


@contextlib.contextmanager
def faulty_store(seed: int) -> Iterator[FaultyStore]:
    """Run one in this process."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would tell each request
    with s3_server() as (host, port):
        store = FaultyStore(host, port, seed)
        try:
            yield store
        finally:
            store.proxy.close()
