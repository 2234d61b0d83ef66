"""Who is answered: no other user, no other origin, no other host, nothing that writes, no file but the page's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.make_dataset import make_dataset
from tests.view.served import Served, served
from trackmill.pipeline.view.guard import POLICY, new_token
from trackmill.pipeline.view.serve import listen
from trackmill.schemas.errors import InputError


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(make_dataset(str(tmp_path_factory.mktemp("guard")), num_images=1).root) as running:
        yield running


def origin_of(view: Served) -> str:
    parts = urlsplit(view.url)
    return f"{parts.scheme}://{parts.netloc}"


def test_without_the_token_nothing_is_answered(view: Served) -> None:
    origin, token = origin_of(view), urlsplit(view.url).path.strip("/")
    wrong = ("", "/", "/api/about", f"/{token}", f"/{token[:-1]}/", f"/x{token}/api/about", f"//{token}/", "/é/")
    for path in wrong:
        answer = view.ask(origin + path.encode().decode("latin-1").replace("Ã©", "%C3%A9"))
        assert answer.status == 403, path
        assert b"samples" not in answer.body
    assert view.ask("").status == 200
    assert len({new_token() for _ in range(100)}) == 100 and len(token) == 22


@pytest.mark.parametrize("host", ["attacker.example", "127.0.0.1.attacker.example", "localhost.", "127.0.0.2", "", "["])
def test_a_name_that_leads_here_is_not_answered(view: Served, host: str) -> None:
    assert view.ask("api/about", {"Host": host}).status in (400, 421)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "[::1]:9"])
def test_names_of_this_machine_are(view: Served, host: str) -> None:
    """Also with the port at the other end of `ssh -L`."""
    assert view.ask("api/about", {"Host": host}).status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_of_other_origins_are_not_answered(view: Served, site: str) -> None:
    assert view.ask("api/about", {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": "empty"}).status == 403
    assert view.ask("view.js", {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": "script"}).status == 403
    assert view.ask("", {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": "document"}).status == 200, "a link was clicked"
    assert view.ask("api/about", {"Sec-Fetch-Site": "same-origin"}).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_written(view: Served, method: str) -> None:
    assert view.ask("api/about", method=method).status == 405


def test_every_answer_has_the_headers(view: Served) -> None:
    for path in ("", "view.js", "view.css", "icon.svg", "api/about", "api/none", "api/rows?begin=x"):
        headers = view.ask(path).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin" and headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers and "server" not in headers
    assert "unsafe" not in POLICY and "*" not in POLICY and "http" not in POLICY
    assert view.ask(origin_of(view)).headers["content-security-policy"] == POLICY


@pytest.mark.parametrize(
    "path",
    [
        "../view.py",
        "..%2fguard.py",
        "static/view.js",
        "view.js/",
        "api/../guard.py",
        "%2e%2e/config.json",
        "api/",
        "api",
    ],
)
def test_there_is_no_path_to_a_file(view: Served, path: str) -> None:
    assert view.ask(path).status in (403, 404)


@pytest.mark.parametrize("key", ["../../etc/passwd", "/etc/passwd", "..", "a\0b", "x" * 5000])
def test_a_key_is_no_path(view: Served, key: str) -> None:
    for name in ("sample", "frame", "masks"):
        assert view.ask(f"api/{name}", key=key).status == 404
    key = view.rows()[0]["key"]
    assert view.ask("api/sidecar", key=key, name="../shards").status == 502


def test_the_page_names_nothing_outside(view: Served) -> None:
    html = view.ask("").body.decode()
    assert "//" not in html and "<style" not in html and not re.search(r"<[^>]+ (style|on[a-z]+)=", html)
    assert re.findall(r"<script([^>]*)>(.*?)</script>", html) == [(' src="view.js" defer', "")]
    script = view.ask("view.js").body.decode()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http://", "https://"):
        assert word not in script.replace("http://www.w3.org/2000/svg", ""), word


def test_it_listens_on_loopback_alone(view: Served) -> None:
    with listen() as listening:
        host, port = listening.getsockname()
        assert host == "127.0.0.1" and port > 0
        with pytest.raises(InputError, match=f"--port {port}: .*in use"):
            listen(port)
