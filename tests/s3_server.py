"""An S3 endpoint on this machine, over real HTTP."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import s3fs
from moto.server import ThreadedMotoServer


@contextmanager
def s3_server() -> Iterator[tuple[str, int]]:
    """Host and port of an empty S3 endpoint, as long as the context lasts.

    fsspec keeps file systems for the whole process and does not look at the environment again, so one that an earlier
    test opened would still talk to that test's endpoint: all are forgotten on the way in and on the way out.
    """
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    forget_connections()
    try:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
            yield host, port
    finally:
        forget_connections()
        # moto keeps its buckets for the whole process, also for the next server.
        urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", data=b"", timeout=60).close()
        server.stop()


def forget_connections() -> None:
    """The next file system for S3 is made from the environment as it is then."""
    s3fs.S3FileSystem.clear_instance_cache()
