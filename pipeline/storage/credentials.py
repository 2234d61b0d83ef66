"""What must never be written down, and which URLs are taken at all.

Credentials come from the environment (or from the machine's role), never from a URL. They travel to Ray's actors as
constructor arguments, which reach neither logs nor the dashboard, and every text that leaves the process in a log,
receipt or message goes through `scrub`.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsspec.registry import known_implementations

from trackmill.pipeline.storage.names import printable
from trackmill.pipeline.storage.secrets.shapes import MARK, hide_shapes, is_secret_name
from trackmill.pipeline.storage.secrets.signed_urls import adopt_signatures, signatures_for_all
from trackmill.pipeline.storage.secrets.values import hide_values
from trackmill.schemas.errors import InputError

_FORWARDED = re.compile(r"^(AWS_|FSSPEC_|GOOGLE_|GCS_|AZURE_|HF_TOKEN$|HF_ENDPOINT$)")
_SIGNED = "signed URLs"
"""Under which queries of signed URLs stand among the variables that workers get."""
_URL = re.compile(r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,30}://[^\s'\"<>`]+", re.IGNORECASE)
_LOCAL = {"file", "local"}
_SPELT_OUT = re.compile(r"^(/|\./|\.\./|~/)")
# `simplecache::s3://bucket/x`, `zip://x::https://host/a.zip`; `s3://bucket/a::b.jpg` is a name.
_CHAIN = re.compile(r"^[^/:]*::|::[A-Za-z][A-Za-z0-9+._-]*://")
# Protocols of fsspec that run commands or other code, or that wrap a second URL which would escape these checks.
_REFUSED = {
    "pipe",
    "reference",
    "generic",
    "jupyter",
    "jlab",
    "git",
    "ssh",
    "sftp",
    "smb",
    "data",
    "dask",
    "blockcache",
    "filecache",
    "simplecache",
    "cached",
    "dir",
    "asyncwrapper",
    "async_wrapper",
}
_INSIDE_FILES = {"zip", "tar", "libarchive"}


class UnsafeURL(InputError):
    """A URL that could run a command, hide another URL or leak a credential."""


def check_url(url: str) -> str:
    """Return `url` unchanged if Trackmill may open it.

    Raises:
        UnsafeURL: `pipe:` and other shell-like forms, chained URLs (`a::b`), unknown protocols, a user name or
            password inside the URL.
    """
    shown = redact(url)
    if not url.strip() or "\0" in url:
        raise UnsafeURL(f"not a URL: {shown!r}")
    if _SPELT_OUT.match(url):
        return url  # a path that cannot be taken for anything else, whatever its name holds
    if "\n" in url and "://" not in url:
        raise UnsafeURL(f"not a URL: {shown!r}; a local file with a line break in its name is given by its whole path")
    if re.match(r"^\s*([|!<>;&`]|\$\()", url) or re.match(r"^\s*pipe:", url, re.IGNORECASE):
        raise UnsafeURL(f"{shown!r} looks like a shell command; inputs are read, never run")
    if _CHAIN.search(url):
        raise UnsafeURL(
            f"{shown!r} is a chained URL; give the plain URL of the file or folder, a local one with '::' in its name "
            "by its whole path"
        )
    protocol = protocol_of(url)
    if protocol in _INSIDE_FILES:
        raise UnsafeURL(
            f"{shown!r} means something inside another file; give the file itself: evaluation reads zips, and mining "
            "tars and zips with --source webdataset"
        )
    if protocol in _REFUSED or (protocol not in _LOCAL and protocol not in known_implementations):
        raise UnsafeURL(
            f"protocol {protocol!r} of {shown!r} is not supported; use a path, file://, s3://, gs://, az:// or https://"
        )
    if protocol not in _LOCAL and not url.partition("://")[2].strip("/"):
        raise UnsafeURL(f"{shown!r} names no bucket and no server")
    if protocol not in _LOCAL and "@" in url.partition("://")[2].partition("/")[0]:
        raise UnsafeURL(
            f"{shown!r} holds a user name or password; put credentials into the environment (AWS_ACCESS_KEY_ID, ...)"
        )
    return url


def protocol_of(url: str) -> str:
    """`s3` of `s3://bucket/x`, `file` of a plain path."""
    match = re.match(r"^([A-Za-z][A-Za-z0-9+.-]*)://", url)
    return match.group(1).lower() if match else "file"


def redact(url: str) -> str:
    """The URL without user, password and query: fit to be shown and stored.

    What follows `#`, the member of a tar or the number of a clip, stays: it is a name. Over HTTP only one that holds no
    `=`, since tokens are passed on so.
    """
    if "://" not in url:
        return url
    scheme, _, rest = url.partition("://")
    place, mark, member = rest.partition("#")
    place, _, query = place.partition("?")
    host, slash, path = place.partition("/")
    over_http = protocol_of(url) in ("http", "https")
    shown = "?..." if query and over_http else ""
    if member and over_http and "=" in member:
        mark = member = ""
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}{shown}{mark}{member.partition('?')[0]}"


def scrub(text: str) -> str:
    """A text without secrets: those that this process holds, what looks like one or is called so, URLs' queries.

    See `secrets.values` and `secrets.shapes`. Names of files, sums, keys of samples and places in stores stay.
    """
    text = hide_values(text)
    if "://" in text:
        text = _URL.sub(_redacted, text)
    return hide_shapes(text)


def scrub_values(value: Any) -> Any:
    """Nested plain values without secrets, in texts and under names that say so."""
    if isinstance(value, Mapping):
        return {key: _scrub_named(str(key), each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [scrub_values(each) for each in value]
    return scrub(value) if isinstance(value, str) else value


def _scrub_named(name: str, value: Any) -> Any:
    if isinstance(value, str) and value and is_secret_name(name):
        return MARK
    return scrub_values(value)


def _redacted(match: re.Match[str]) -> str:
    """A URL in a sentence: the marks behind it are the sentence's."""
    text: str = match.group(0)
    url = text.rstrip(")]};:,")
    return redact(url) + text[len(url) :]


def error_text(error: Exception, limit: int = 500) -> str:
    """An error as one printable line that may be stored: no credentials, at most `limit` characters, never empty."""
    said = path_error(error) if isinstance(error, OSError) else ""
    text = printable(" ".join(scrub(said or str(error)).split())) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


_OF_THE_TARGET = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY)


def path_error(error: OSError) -> str:
    """What the operating system says of a path, as a sentence; "" for an error without number or path."""
    path = error.filename
    if error.errno in _OF_THE_TARGET and isinstance(error.filename2, str):
        path = error.filename2  # of a rename: what people know, and not the scratch file that was to become it
    if error.errno is None or not isinstance(path, str):
        return ""
    if error.errno == errno.ENOENT and (said := dangling_link(path)):
        return said
    known = {
        errno.ENOENT: "no such file or folder",
        errno.EEXIST: "exists already, and is no folder",
        errno.ENOTDIR: "is a file where a folder is needed",
        errno.EISDIR: "is a folder where a file is needed",
        errno.ELOOP: "a link that leads back to itself",
        errno.EACCES: "not allowed; see to its permissions",
        errno.ENOSPC: "no space is left on its disk",
    }
    return f"{path}: {known.get(error.errno) or os.strerror(error.errno).lower()}"


def dangling_link(path: str) -> str:
    """The link on the way to a path that leads to nothing, as a sentence; "" where there is none."""
    for each in (path, *map(str, Path(path).parents)):
        if os.path.lexists(each):
            if os.path.exists(each):
                return ""
            return f"{each}: a link to {os.readlink(each)}, where nothing is"
    return ""


def storage_environment() -> dict[str, str]:
    """What storage clients need, to be handed to workers on other machines: variables, and queries of signed URLs."""
    variables = {name: value for name, value in os.environ.items() if _FORWARDED.match(name)}
    signed = signatures_for_all()
    return variables | ({_SIGNED: json.dumps(signed)} if signed else {})


def adopt_environment(variables: Mapping[str, str], over: bool = False) -> None:
    """Take over what `storage_environment` gave; what the worker's own machine sets wins, unless `over` says else."""
    for name, value in variables.items():
        if name == _SIGNED:  # not into the environment, which every program that is started from here could read
            adopt_signatures(json.loads(value))
        elif over or name not in os.environ:
            os.environ[name] = value
