"""What the page may ask for, as an ASGI application: the page itself, and data as JSON and JPEG. Nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import orjson
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from trackmill.pipeline.inspect.thumbnails import shown
from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.view.data_set import DataSetView, NotThere
from trackmill.pipeline.view.guard import Guard
from trackmill.pipeline.view.matches import MAX_PAGE, Filters
from trackmill.pipeline.view.results import ResultsView
from trackmill.schemas.errors import InputError

_STATIC = {
    "view.html": "text/html; charset=utf-8",
    "view.css": "text/css; charset=utf-8",
    "view.js": "text/javascript; charset=utf-8",
    "results.html": "text/html; charset=utf-8",
    "results.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""Every file that may be served: there is no folder to walk in."""
_LARGEST = 1 << 53


class _BadRequest(ValueError):
    """A parameter that the page would not send."""


def make_app(data: DataSetView, token: str) -> ASGIApp:
    """The application.

    Args:
        data: what is shown.
        token: the first part of every path, see `Guard`.
    """

    def about(request: Request) -> Response:
        if _number(request, "again", 0):
            data.again()
        return _json(data.about())

    def rows(request: Request) -> Response:
        given = {name: value for name, value in request.query_params.items() if name in Filters.model_fields}
        begin, count = _number(request, "begin", 0), _number(request, "count", 24)
        return _json(data.rows(Filters.model_validate(given), begin, min(count, MAX_PAGE)))

    def sample(request: Request) -> Response:
        only = _number(request, "frame", -1)
        return _json(data.sample(*_place(request), None if only < 0 else only))

    def frame(request: Request) -> Response:
        jpeg = data.frame(*_place(request), _number(request, "frame", 0), _number(request, "width", 0))
        # A sample never changes under its key and fingerprint; the page adds the latter to the address.
        return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    def masks(request: Request) -> Response:
        return _json(data.masks(*_place(request), _number(request, "frame", 0)))

    def sidecar(request: Request) -> Response:
        return _json(data.sidecar(request.query_params.get("name", ""), *_place(request)))

    return _application("view", (about, rows, sample, frame, masks, sidecar), token)


def make_results_app(data: ResultsView, token: str) -> ASGIApp:
    """The same for tracking results; arguments as in `make_app`."""

    def about(request: Request) -> Response:
        return _json(data.about())

    def tracks(request: Request) -> Response:
        return _json(data.tracks(_number(request, "begin", 1), _number(request, "count", 1)))

    def frame(request: Request) -> Response:
        jpeg = data.picture(_number(request, "number", 1)).jpeg
        return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    def size(request: Request) -> Response:
        picture = data.picture(_number(request, "number", 1))
        return _json({"width": picture.width, "height": picture.height})

    return _application("results", (about, tracks, frame, size), token)


def _application(page: str, answers: Sequence[Callable[[Request], Response]], token: str) -> ASGIApp:
    # Plain functions: Starlette calls them in threads, so a slow store keeps nobody else waiting.
    served = {"": f"{page}.html"} | {name: name for name in ("view.css", f"{page}.js", "icon.svg")}
    routes = [Route(f"/{path}", _file(name)) for path, name in served.items()]
    routes += [Route(f"/api/{answer.__name__}", _safely(answer)) for answer in answers]
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False  # it would lead to an address without the token
    return Guard(app, token)


def _file(name: str) -> Callable[[Request], Response]:
    content = (files("trackmill.pipeline.view") / "static" / name).read_bytes()
    return lambda request: Response(content, media_type=_STATIC[name])


def _safely(answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """What cannot be shown is one line of JSON with the reason, and never a traceback."""

    def safe(request: Request) -> Response:
        try:
            return answer(request)
        except (ValidationError, _BadRequest) as error:
            what = str(error)
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            return _json({"error": shown(what)}, 400)
        except (NotThere, FileNotFoundError) as error:
            return _json({"error": shown(error)}, 404)
        except (BadShard, InputError, OSError, ValueError) as error:  # damaged, or storage failed
            return _json({"error": shown(error)}, 502)

    return safe


def _json(values: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(values), status, media_type="application/json")


def _place(request: Request) -> tuple[int, str]:
    return _number(request, "row", -1), request.query_params.get("key", "")


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    if not text:
        return default
    try:
        if len(text) > 20:  # the first digits alone would be another number
            raise ValueError
        number = int(text)
    except ValueError:
        raise _BadRequest(f"{name}: {text[:20]!r} is no whole number") from None
    if not -1 <= number <= _LARGEST:
        raise _BadRequest(f"{name}: {number} is out of range")
    return number
