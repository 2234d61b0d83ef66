"""What Hugging Face's client raises is an error of ours: in reading, in open files, and in folders of models."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from trackmill.pipeline.storage import retries
from trackmill.pipeline.storage.hub_errors import hub_error, tell_of_reads
from trackmill.pipeline.storage.model_folders import fetch_model_folder
from trackmill.pipeline.storage.retries import retry
from trackmill.schemas.errors import InputError, StorageError

URL = "hf://datasets/org/name/shards"


def raised(name: str, module: str, text: str, *bases: type[Exception]) -> Exception:
    """An error of a class of another package."""
    error: Exception = type(name, bases or (Exception,), {"__module__": module})(text)
    return error


@pytest.mark.parametrize("client", ["httpx2", "httpx", "requests.exceptions"])
def test_a_client_that_reaches_nobody(client: str) -> None:
    base: Any = type("TransportError", (Exception,), {"__module__": client})
    told = hub_error(raised("ConnectError", client, "[Errno 111] to https://me:word@host/x?sig=1", base), URL)
    assert isinstance(told, StorageError)
    assert str(told) == f"{URL}: could not be reached (ConnectError: [Errno 111] to https://host/x?...)"
    told = hub_error(raised("ReadTimeout", client, "", base), URL)
    assert str(told) == f"{URL}: could not be reached (ReadTimeout)"


def test_answers_and_other_errors_say_it_themselves() -> None:
    answer: Any = type("HfHubHTTPError", (Exception,), {"__module__": "huggingface_hub.errors"})
    assert hub_error(raised("RepositoryNotFoundError", "huggingface_hub.errors", "404", answer), URL) is None
    assert hub_error(ValueError("a bug"), URL) is None and hub_error(FileNotFoundError("gone"), URL) is None


@pytest.mark.parametrize(
    ("error", "kind", "tries", "said"),
    [
        (raised("ConnectError", "httpx2", "refused"), StorageError, 5, "after 5 attempts: could not be reached"),
        (raised("OfflineModeIsEnabled", "huggingface_hub.errors", "x", ConnectionError), InputError, 1, "HF_HUB_OFF"),
        (raised("HFValidationError", "huggingface_hub.errors", "--", ValueError), InputError, 1, "no such names: --"),
    ],
)
def test_reading_tries_again_what_may_pass(
    error: Exception, kind: type[Exception], tries: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def read() -> None:
        tried.append(1)
        raise error

    monkeypatch.setattr(retries, "pause", lambda seconds: None)
    with pytest.raises(kind, match=said):
        retry(read, URL)
    assert len(tried) == tries


def test_an_open_file_that_breaks_off() -> None:
    class Cache:
        fetcher: Any = None

    class File(io.BytesIO):
        cache = Cache()

    def fetch(start: int, end: int) -> bytes:
        if start:
            raise raised("ReadError", "httpx", "broken")
        return b"x" * end

    handle = File()
    handle.cache.fetcher = fetch
    tell_of_reads(handle, URL)
    assert handle.cache.fetcher(0, 3) == b"xxx"
    with pytest.raises(StorageError, match="could not be reached"):
        handle.cache.fetcher(3, 6)


def test_a_folder_of_a_model_that_does_not_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub: Any = pytest.importorskip("huggingface_hub")
    said: list[Exception] = [raised("ProxyError", "httpx2", "no proxy"), RuntimeError("a bug")]

    def download(*words: object, **options: object) -> str:
        raise said[0]

    monkeypatch.setattr(hub, "snapshot_download", download)
    with pytest.raises(StorageError, match=r"^org/model: could not be reached"):
        fetch_model_folder("org/model")
    said.pop(0)
    with pytest.raises(RuntimeError, match="a bug"):
        fetch_model_folder("org/model")
