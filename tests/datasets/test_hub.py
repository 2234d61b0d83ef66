"""Data sets on Hugging Face's Hub: read in place by ranges, and pushed, against a hub of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.datasets.test_derive import files, samples, with_sidecar
from tests.make_dataset import CONFIG, make_dataset
from tests.storage.hub_server import Hub, hub
from trackmill.jobs.main import main
from trackmill.pipeline.datasets.push import HubPlace, hub_place
from trackmill.pipeline.shards.card import write_card
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.manifest import write_manifest
from trackmill.schemas.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 300
pytest.importorskip("huggingface_hub", reason='needs pip install -e ".[hf]"')


def trackmill(server: Hub, home: Path, *words: str) -> tuple[int, str, str]:
    """A command in a process of its own, since the client library reads its settings when it is imported."""
    code = "import sys\nfrom trackmill.jobs.main import main\nsys.exit(main(sys.argv[1:]))"
    settings = {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_TOKEN": "hf_" + "x" * 34}
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = make_dataset(str(tmp_path / "set"))
    with_sidecar(layout)
    write_card(layout, CONFIG, write_manifest(layout))
    return layout


def test_it_is_read_in_place(layout: Layout, tmp_path: Path) -> None:
    with hub(Path(layout.root)) as server:
        code, out, err = trackmill(server, tmp_path, "inspect", "hf://datasets/org/name", "--verify")
        assert code == 0 and "5 samples verified, sidecars boxes" in out, err
        output = str(tmp_path / "new")
        code, out, err = trackmill(server, tmp_path, "filter", "hf://datasets/org/name@main", "--output", output)
        assert code == 0, err
    assert samples(output) == samples(layout.root)


def test_it_is_pushed_and_is_the_same_there(layout: Layout, tmp_path: Path) -> None:
    (Path(layout.plan) / "signatures.arrow").write_bytes(b"secret")
    (Path(layout.shards) / ".tmp-1-2-part-00000009.tar").write_bytes(b"half")
    (tmp_path / "hub").mkdir()
    with hub(tmp_path / "hub") as server:
        code, out, err = trackmill(server, tmp_path, "push", layout.root, "hf://datasets/org/name")
        assert code == 0 and "read it as hf://datasets/org/name" in out, err
        assert "/raw/images/pic0.jpg" in err, "what goes out with it is said"
        assert server.created[0]["type"] == "dataset" and server.commits == 1
        assert {"private": True}.items() <= server.created[0].items() or server.created[0]["visibility"] == "private"
        assert server.cards and server.cards[0].startswith("---\nlicense:")
        code, out, err = trackmill(server, tmp_path, "inspect", "hf://datasets/org/name", "--verify")
        assert code == 0 and "5 samples verified, sidecars boxes" in out, err
    there, here = files(tmp_path / "hub"), files(Path(layout.root))
    assert there.items() <= here.items()
    left = {name.split("/")[0] for name in here.keys() - there.keys() if "/.tmp-" not in name}
    assert left == {"plan"}


def test_what_is_not_pushed(layout: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["memory://set", "hf://datasets/org/name"], "no data set here"),
        ([layout.root, "hf://org/name"], "is hf://datasets/ORG/NAME"),
        ([layout.shards, "hf://datasets/org/name"], "push the root of a data set"),
    ):
        assert main(["push", *words]) == 2
        assert told in capsys.readouterr().err
    make_dataset("memory://push-set")
    assert main(["push", "memory://push-set", "hf://datasets/org/name"]) == 2
    assert "only what lies on this machine" in capsys.readouterr().err
    next(Path(layout.receipts).iterdir()).unlink()
    assert main(["push", layout.root, "hf://datasets/org/name"]) == 2
    assert "1 of 2 units are missing; run the mining command again" in capsys.readouterr().err


def test_a_hub_that_refuses(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    with hub(tmp_path / "hub") as server:
        server.refuses = True
        code, _, err = trackmill(server, tmp_path, "push", layout.root, "hf://datasets/org/name")
    assert code == 2 and "the Hub refuses (HTTP 403)" in err and "hf_xxx" not in err


def test_a_hub_that_cannot_be_reached(layout: Layout, tmp_path: Path) -> None:
    nobody = Hub("http://127.0.0.1:1", "org/name", tmp_path)
    code, _, err = trackmill(nobody, tmp_path, "push", layout.root, "hf://datasets/org/name")
    assert code == 4, err
    assert "hf://datasets/org/name: could not be reached (" in err and "hf_xxx" not in err and "traceback" not in err
    assert err.count("the same command goes on") == 1
    code, _, err = trackmill(nobody, tmp_path, "inspect", "hf://datasets/org/name")
    assert code == 4, err
    assert "could not be reached (" in err and "traceback" not in err


def test_what_the_hub_is_not_asked(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = Hub("http://127.0.0.1:1", "org/name", tmp_path)
    code, _, err = trackmill(nobody, tmp_path, "push", layout.root, "hf://datasets/org/a--b")
    assert code == 2, err
    assert "hf://datasets/org/a--b: the Hub has no such names" in err
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for words in (["push", layout.root, "hf://datasets/org/name"], ["inspect", "hf://datasets/org/name"]):
        code, _, err = trackmill(nobody, tmp_path, *words)
        assert code == 2, err
        assert "unset HF_HUB_OFFLINE" in err


def test_it_is_no_output(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file would be a commit, and the lock's beat as well."""
    assert main(["filter", layout.root, "--output", "hf://datasets/org/name"]) == 2
    assert "trackmill push FOLDER hf://datasets/org/name" in capsys.readouterr().err


def test_places_on_the_hub() -> None:
    assert hub_place("hf://datasets/org/na.me/") == HubPlace("org/na.me")
    assert hub_place("hf://datasets/org/name@v1/x") == HubPlace("org/name", "v1/x")
    with pytest.raises(InputError):
        hub_place("hf://datasets/org/name/shards")
