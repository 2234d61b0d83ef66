"""Mining to and from an S3 endpoint over HTTP, while the endpoint fails now and then."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests.faults.faulty_proxy import FaultyProxy
from tests.make_media import make_pictures, make_sa1b_tar, make_video
from tests.runs import ROOT, job_environment, mine, statuses, tars
from tests.s3_server import s3_server

SECRET = "w7Jq-not-to-be-seen-anywhere-8Zp"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[str, int]]:
    with s3_server() as address:
        yield address


def credentials(url: str) -> dict[str, str]:
    """Environment of a job that talks to an endpoint."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "AKIATESTNOTREAL00000",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        # Small, so that a cut connection is tried again soon.
        "AWS_RETRY_MODE": "standard",
    }


@pytest.fixture(scope="module")
def bucket(endpoint: tuple[str, int], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Media on S3 and the same media in a local folder."""
    folder = tmp_path_factory.mktemp("media")
    make_pictures(folder / "pictures", count=4)
    make_video(_made(folder / "videos") / "clip.mp4", 24, 24, (48, 64))
    make_sa1b_tar(folder / "sa_000000.tar", count=3)
    store = s3(f"http://{endpoint[0]}:{endpoint[1]}")
    store.mkdir("corpus")
    store.put(str(folder) + "/", "corpus/raw/", recursive=True)
    return "s3://corpus/raw", folder


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def s3(url: str):
    """A client of the endpoint that this test process uses."""
    return fsspec.filesystem(
        "s3",
        key="AKIATESTNOTREAL00000",
        secret=SECRET,
        client_kwargs={"endpoint_url": url},
        skip_instance_cache=True,
    )


def fetch(url: str, output: str, target: Path) -> Path:
    """Copy a data set from S3 to a local folder."""
    s3(url).get(output.removeprefix("s3://") + "/", str(target) + "/", recursive=True)
    return target


def secrets_in(folder: Path) -> list[str]:
    """Files that hold the secret key."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["inline", pytest.param("ray", marks=pytest.mark.ray)])
def test_mining_through_faults(
    executor: str, endpoint: tuple[str, int], bucket: tuple[str, Path], tmp_path: Path
) -> None:
    direct = f"http://{endpoint[0]}:{endpoint[1]}"
    calm = f"s3://corpus/calm-{executor}"
    options = ["--input", bucket[0], "--set", "shards.unit_frames=2", "--executor", executor, "--actors", 2]
    mine(*options, "--output", calm, **credentials(direct))
    proxy = FaultyProxy(*endpoint, every=6)
    try:
        stormy = f"s3://corpus/stormy-{executor}"
        printed = mine(*options, "--output", stormy, **credentials(proxy.url))
    finally:
        proxy.close()
    assert all(proxy.hits.values()), f"not every fault happened: {proxy.hits}"
    here, there = fetch(direct, calm, tmp_path / "calm"), fetch(direct, stormy, tmp_path / "stormy")
    assert set(statuses(here).values()) == {"ok"}
    assert statuses(here) == statuses(there)
    assert tars(here) == tars(there)
    assert SECRET not in printed
    assert not secrets_in(tmp_path)


def test_inspecting_on_s3(endpoint: tuple[str, int], bucket: tuple[str, Path], tmp_path: Path) -> None:
    direct = f"http://{endpoint[0]}:{endpoint[1]}"
    output = "s3://corpus/inspected"
    mine("--input", bucket[0] + "/pictures", "--output", output, "--executor", "inline", **credentials(direct))
    page = tmp_path / "sheet.html"
    command = [sys.executable, str(ROOT / "jobs" / "inspect_shards.py"), output, "--verify", "--html", str(page)]
    environment = job_environment(**credentials(direct))
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert page.stat().st_size > 1000
    assert SECRET not in done.stdout + done.stderr + page.read_text()


@pytest.mark.slow  # it waits between five attempts
def test_endpoint_that_is_down(tmp_path: Path) -> None:
    """Nothing listens there: one clear line, and no credentials in it."""
    environment = credentials("http://127.0.0.1:1")
    printed = mine("--input", "s3://corpus/raw", "--output", tmp_path, "--executor", "inline", expect=4, **environment)
    assert "error:" in printed
    assert "Traceback" not in printed
    assert SECRET not in printed


def test_credentials_stay_out_of_a_url(tmp_path: Path) -> None:
    url = f"http://me:{SECRET}@127.0.0.1:1/a.jpg"
    printed = mine("--input", url, "--output", tmp_path, "--executor", "inline", expect=2)
    assert "environment" in printed
    assert SECRET not in printed
    assert os.listdir(tmp_path) == []
