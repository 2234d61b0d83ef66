"""Who may talk to the viewer: this machine's browser, on pages of the viewer itself, by whoever knows the token.

Listening on loopback keeps other machines out, but neither other users of this one nor the web pages that its browser
has open. The first do not know the token, a path of 128 random bits. A page of another origin does not know it either;
it is refused by name as well, since a name of its own may be made to lead to loopback ("DNS rebinding").
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HOSTS = re.compile(r"^(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?$")
"""Any port: behind `ssh -L 8000:127.0.0.1:41234` the browser names the port at its own end."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}


def new_token() -> str:
    """22 characters that nobody guesses."""
    return secrets.token_urlsafe(16)


class Guard:
    """Lets a request through, with the token taken off its path, or refuses it.

    Args:
        app: what answers.
        token: the first part of every path.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                added = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                if b"cache-control" not in there:
                    added.append((b"cache-control", b"no-store"))
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        refusal = self._refusal(scope)
        if refusal:
            status, text = refusal
            await PlainTextResponse(f"{text}\n", status)(scope, receive, with_headers)
            return
        path = scope["path"][len(self._token) + 1 :]
        await self._app({**scope, "path": path, "root_path": "", "raw_path": path.encode()}, receive, with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        host = _header(scope["headers"], b"host")
        if not _HOSTS.match(host):
            return 421, "this server answers to 127.0.0.1 and localhost only"
        first, slash, _ = scope["path"].removeprefix("/").partition("/")
        # In bytes: the comparison takes no text beyond ASCII.
        if not hmac.compare_digest(first.encode("utf-8", "replace"), self._token.encode()) or not slash:
            return 403, "the address lacks the token that trackmill view printed"
        elsewhere = _header(scope["headers"], b"sec-fetch-site") in ("cross-site", "same-site")
        if elsewhere and _header(scope["headers"], b"sec-fetch-dest") != "document":  # a link that is clicked is one
            return 403, "pages of other origins are not answered"
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "nothing can be written here"
        return None


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    """The value of a header; "" where it is missing or there twice."""
    found = [value for each, value in headers if each.lower() == name]
    return found[0].decode("latin-1") if len(found) == 1 else ""
