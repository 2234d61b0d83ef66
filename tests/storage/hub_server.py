"""A Hugging Face Hub on this machine with one data set in it, which is a folder: listings, ranges, commits."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_SHA = "a" * 40
"""Of the one commit that everything is of."""


@dataclass
class Hub:
    """A running hub.

    Args:
        url: of the server, for `HF_ENDPOINT`.
        repo: of the data set, such as `org/name`.
        folder: what lies in it.
        requests: those that came, as `GET /path`.
        created: what was asked for when repositories were made.
        cards: texts that it was asked to look at the YAML of.
        commits: how many there were.
        refuses: whether nobody may make anything.
    """

    url: str
    repo: str
    folder: Path
    requests: list[str] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)
    cards: list[str] = field(default_factory=list)
    commits: int = 0
    refuses: bool = False


@contextlib.contextmanager
def hub(folder: Path, repo: str = "org/name") -> Iterator[Hub]:
    """Serve a folder as the data set `hf://datasets/{repo}` as long as the block runs."""
    state = Hub("", repo, folder)
    handler = type("Handler", (_Handler,), {"hub": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *values: Any) -> None:
        """Nothing is said."""

    def do_GET(self) -> None:
        """The data set, a listing, or a file."""
        path = self._begin()
        if path in (self._api, f"{self._api}/revision/main", f"{self._api}/revision/{_SHA}"):
            self._json({"id": self.hub.repo, "sha": _SHA, "private": True, "siblings": [], "tags": [], "downloads": 0})
        elif match := re.match(rf"{self._api}/tree/[^/]+/?(.*)$", path):
            self._tree(match[1])
        else:
            self._file(path)

    def do_HEAD(self) -> None:
        """A file without its bytes."""
        self._file(self._begin())

    def do_POST(self) -> None:
        """Facts about paths; a new data set; where files go; a commit."""
        path = self._begin()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.hub.refuses:
            self._json({"error": "no rights"}, 403)
        elif path == "/api/repos/create":
            self.hub.created.append(json.loads(body))
            self._json({"url": f"{self.hub.url}/datasets/{self.hub.repo}", "name": self.hub.repo})
        elif path == "/api/validate-yaml":
            self.hub.cards.append(json.loads(body)["content"])
            self._json({"errors": [], "warnings": []})
        elif path.startswith(f"{self._api}/paths-info/"):
            wanted = parse_qs(body.decode()).get("paths") or json.loads(body or b"{}").get("paths", [])
            self._json([self._entry(name) for name in wanted if (self.hub.folder / name).exists()])
        elif path.startswith(f"{self._api}/preupload/"):
            files = json.loads(body)["files"]
            mode = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            self._json({"files": [{"path": each["path"], **mode} for each in files]})
        elif path.startswith(f"{self._api}/commit/"):
            self._commit([json.loads(line) for line in body.splitlines()])
        else:
            self._json({"error": "not here"}, 404)

    @property
    def _api(self) -> str:
        return f"/api/datasets/{self.hub.repo}"

    def _begin(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        return path

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        self.hub.commits += 1
        for line in lines:
            if line["key"] == "file":
                target = self.hub.folder / line["value"]["path"]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(base64.b64decode(line["value"]["content"]))
        url = f"{self.hub.url}/datasets/{self.hub.repo}/commit/{_SHA}"
        self._json({"commitUrl": url, "commitOid": _SHA, "success": True})

    def _tree(self, below: str) -> None:
        folder = self.hub.folder / below
        if not folder.is_dir():
            self._json({"error": "no such entry"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
        found = sorted(folder.rglob("*") if recursive else folder.iterdir())
        self._json([self._entry(str(path.relative_to(self.hub.folder))) for path in found])

    def _entry(self, name: str) -> dict[str, Any]:
        path = self.hub.folder / name
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": _SHA}
        oid = hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
        return {"type": "file", "path": name, "size": path.stat().st_size, "oid": oid}

    def _file(self, path: str) -> None:
        match = re.match(rf"/datasets/{self.hub.repo}/resolve/[^/]+/(.+)$", path)
        file = self.hub.folder / match[1] if match else None
        if file is None or not file.is_file():
            self._json({"error": "no such entry"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        data = file.read_bytes()
        whole, headers = len(data), {"ETag": f'"{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"'}
        headers |= {"X-Repo-Commit": _SHA, "Accept-Ranges": "bytes"}
        status = 200
        if span := re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range", "")):
            begin, end = int(span[1]), int(span[2] or whole - 1)
            data = data[begin : end + 1]
            status = 206
            headers["Content-Range"] = f"bytes {begin}-{begin + len(data) - 1}/{whole}"
        self._send(data, status, headers, "application/octet-stream")

    def _json(self, values: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(values).encode(), status, headers or {}, "application/json")

    def _send(self, data: bytes, status: int, headers: dict[str, str], kind: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Type": kind, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
