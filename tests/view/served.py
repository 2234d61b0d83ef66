"""The viewer in a thread of the test, on a port of its own; and a client that asks it as a page would."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import urlencode

import pytest

uvicorn = pytest.importorskip("uvicorn", reason='needs pip install -e ".[view]"')

from trackmill.pipeline.view.app import make_app  # noqa: E402
from trackmill.pipeline.view.data_set import DataSetView  # noqa: E402
from trackmill.pipeline.view.guard import new_token  # noqa: E402
from trackmill.pipeline.view.serve import address_of, listen, serve  # noqa: E402

TIMEOUT_S = 120


@dataclass(frozen=True)
class Answer:
    """Status, headers and body of an answer."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        """The body as plain values."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """A viewer that runs.

    Args:
        url: its address, with the token.
        data: what it shows.
    """

    url: str
    data: Any = None

    def ask(self, path: str, /, headers: dict[str, str] | None = None, method: str = "GET", **values: Any) -> Answer:
        """One request; `path` behind the token, or a whole address."""
        address = path if path.startswith("http://") else self.url + path
        address += f"?{urlencode(values)}" if values else ""
        request = urllib.request.Request(address, headers=headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers, error.read())

    def get(self, name: str, /, **values: Any) -> Any:
        """Plain values of the API; AssertionError where it refuses."""
        answer = self.ask(f"api/{name}", **values)
        assert answer.status == 200, answer.body
        return answer.json

    def rows(self, **filters: Any) -> list[dict[str, Any]]:
        """All rows of one page."""
        found: list[dict[str, Any]] = self.get("rows", **filters)["rows"]
        return found


@contextlib.contextmanager
def served(url: str, **limits: int) -> Iterator[Served]:
    """A viewer of a data set, while the context lasts."""
    token, data = new_token(), DataSetView(url, **limits)
    with running(make_app(data, token), token) as address:
        yield Served(address, data)


@contextlib.contextmanager
def running(app: Any, token: str) -> Iterator[str]:
    """The address at which an application answers, while the context lasts."""
    servers: list[Any] = []
    with listen() as listening:
        address = address_of(listening, token)
        thread = threading.Thread(target=serve, args=(app, listening, servers.append))
        thread.start()
        try:
            yield address
        finally:
            servers[0].should_exit = True
            thread.join(TIMEOUT_S)
    assert not thread.is_alive()
