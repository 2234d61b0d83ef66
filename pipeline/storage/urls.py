"""What a URL means: its one spelling, its file system, its parts."""

from __future__ import annotations

import os
import posixpath
from typing import Any

import fsspec

from trackmill.pipeline.storage.credentials import check_url, protocol_of, redact
from trackmill.pipeline.storage.names import escaped, existing_in_store, existing_path
from trackmill.pipeline.storage.secrets.signed_urls import with_signature, without_signature
from trackmill.schemas.errors import MissingPackage, StorageError
from trackmill.schemas.install import install

_INSTALL = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http", "hf": "hf"}

_SCHEMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}
"""Names of one store that other programs use, and ours for it."""


def canonical(url: str) -> str:
    """The one spelling of a URL: checked, local paths made absolute, no trailing slash, no signature.

    Raises:
        UnsafeURL: see `check_url`.
    """
    check_url(url)
    if protocol_of(url) in ("file", "local"):
        path = url.split("://", 1)[1] if "://" in url else url
        return escaped(os.path.abspath(os.path.expanduser(path)))
    return one_scheme(without_signature(url).rstrip("/"))


def one_scheme(url: str) -> str:
    """The URL with the usual name of its scheme, where a store has several: `s3://` for `s3a://`."""
    scheme, mark, rest = url.partition("://")
    return f"{_SCHEMES.get(scheme.lower(), scheme)}{mark}{rest}" if mark else url


def filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path inside it.

    The name is taken as it is: unlike fsspec's own, it never means a chain of file systems (`a::b`). The path of a
    signed URL has its query, see `trackmill.pipeline.storage.secrets.signed_urls`.

    Raises:
        UnsafeURL: see `check_url`.
        ImportError: the protocol's package is missing; says which extra brings it.
    """
    check_url(url)
    protocol = protocol_of(url)
    if is_local(url):
        return fsspec.filesystem("file"), existing_path(canonical(url))
    try:
        opened = _hugging_face(url) if protocol == "hf" else with_signature(url)
        if protocol in ("http", "https"):
            from trackmill.pipeline.storage.http_files import HttpFiles

            fs, path = HttpFiles(), opened
        else:
            fs, path = _as_it_is(protocol, opened) if "::" in opened else fsspec.core.url_to_fs(opened)
    except ImportError as error:
        extra = _INSTALL.get(protocol)
        advice = install(extra) if extra else str(error)
        raise MissingPackage(f"{redact(url)} needs another package: {advice}") from error
    except OSError as error:  # ftp:// and its like connect at once
        raise StorageError(f"{redact(url)}: its server cannot be reached ({error.strerror or error})") from error
    return fs, existing_in_store(str(path), fs.exists)


def _as_it_is(protocol: str, url: str) -> tuple[Any, Any]:
    cls = fsspec.get_filesystem_class(protocol)
    return fsspec.filesystem(protocol, **cls._get_kwargs_from_urls(url)), cls._strip_protocol(url)


def _hugging_face(url: str) -> str:
    """`hf://org/repo/file@revision` as the client library spells it: `hf://org/repo@revision/file`."""
    scheme, _, path = url.partition("://")
    before, at, revision = path.rpartition("@")
    kind = next((each for each in ("datasets/", "spaces/") if before.startswith(each)), "")
    before = before.removeprefix(kind)
    if not at or "/" in revision or before.count("/") < 2:
        return url
    owner, repo, *rest = before.split("/")
    return f"{scheme}://{kind}{owner}/{repo}@{revision}/{'/'.join(rest)}"


def is_local(url: str) -> bool:
    """Whether the URL is a path on this machine."""
    return protocol_of(url) in ("file", "local")


def join(root: str, *parts: str) -> str:
    """Append path parts to a URL."""
    return posixpath.join(root, *parts)


def basename(uri: str) -> str:
    """Last part of a URI's path."""
    return uri.rstrip("/").rsplit("/", 1)[-1]


def dirname(uri: str) -> str:
    """Everything before the last part of a URI's path."""
    return uri.rstrip("/").rsplit("/", 1)[0]


def has_magic(path: str) -> bool:
    """Whether a path may be a glob."""
    return any(mark in path for mark in "*?[")
