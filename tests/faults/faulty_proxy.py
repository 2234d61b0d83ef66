"""An HTTP proxy in front of an S3 endpoint that fails on purpose: 500s, slow answers, connections cut in the middle."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("500", "slow", "reset", "cut")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client was killed, or cut off on purpose: no news."""


class FaultyProxy:
    """Forwards to `host:port`; about every `every`-th request goes wrong, in one of the ways of `FAULTS`.

    The sequence is random with a fixed seed; `hits` counts what was done.
    """

    def __init__(self, host: str, port: int, every: int = 4, seed: int = 0, faults: tuple[str, ...] = FAULTS) -> None:
        self.hits = dict.fromkeys(FAULTS, 0)
        self.requests = 0
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def _forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = proxy._draw(every, faults)
                if fault == "reset":
                    # Linger 0 turns the close into a TCP reset.
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    self.connection.close()
                    return
                if fault == "500":
                    self.send_response(500)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                upstream = http.client.HTTPConnection(host, port, timeout=60)
                upstream.request(self.command, self.path, body=body, headers=dict(self.headers))
                answer = upstream.getresponse()
                data = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                if fault == "slow":
                    time.sleep(0.5)
                if fault == "cut" and len(data) > 1:
                    self.wfile.write(data[: len(data) // 2])
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward

        self._server = _Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def _draw(self, every: int, faults: tuple[str, ...]) -> str | None:
        with self._lock:
            self.requests += 1
            if not every or self._random.randrange(every):
                return None
            fault = self._random.choice(faults)
            self.hits[fault] += 1
            return fault

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
