"""Code that is no part of this project, named on the command line: models, detectors and proposers of somebody else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from tests.make_media import make_pictures  # noqa: E402
from tests.runs import TIMEOUT_S, job_environment, rows  # noqa: E402
from trackmill.jobs.mine_proposals import main as mine  # noqa: E402
from trackmill.models.registry import find_detector, proposer_class  # noqa: E402
from trackmill.pipeline.evaluation.association.model_embedding import asked_embedding  # noqa: E402
from trackmill.pipeline.mining.settings import mine_config, proposer_settings  # noqa: E402
from trackmill.pipeline.weights import build_detector, build_model  # noqa: E402
from trackmill.schemas.config import ConfigError  # noqa: E402
from trackmill.schemas.errors import InputError  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]

THEIRS = '''
from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field
from torch import nn

from trackmill.models.detectors.base import Detector
from trackmill.models.proposers.base import Proposer, WeightsSettings
from trackmill.schemas.config import Settings
from trackmill.schemas.detections import make_detections
from trackmill.schemas.masks import crop_mask
from trackmill.schemas.media import ProposalSet


class Plain(nn.Module):
    """A network as somebody has it: no Config, no build."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Linear(4, 8)

    def embed(self, images, boxes):
        return [self.scale(each) for each in boxes]


class Settled(Plain):
    """One that has settings."""

    class Config(Settings):
        factor: float = 1.0

    @classmethod
    def build(cls, config, tensors, device):
        network = cls()
        if tensors is not None:
            network.load_state_dict(tensors)
        network.factor = config.factor
        return network.to(device)

    @classmethod
    def recognise(cls, tensors):
        return None


class Middle(Detector):
    """One box in the middle."""

    names = ("thing",)
    category_ids = (1,)

    def detect(self, images, frames=None):
        return [make_detections([[10, 10, 20, 20]], [0.9]) for _ in images]


class CornerSettings(WeightsSettings):
    side: int = Field(8, ge=1)


class Corner(Proposer):
    """The upper left corner of every frame, as many pixels wide as a checkpoint says, else as the settings do."""

    name = "corner"
    version = 3
    Config = CornerSettings

    def __init__(self, config, tensors):
        self.side = config.side if tensors is None else int(tensors["side"])

    @classmethod
    def build(cls, config, tensors=None, device="cpu"):
        return cls(config, tensors)

    def propose(self, frames):
        found = []
        for frame in frames:
            mask = np.zeros(frame.image.shape[:2], bool)
            mask[: self.side, : self.side] = True
            boxes = np.array([[0, 0, self.side, self.side]], np.float32)
            found.append(ProposalSet(boxes=boxes, scores=np.ones(1, np.float32), masks=[crop_mask(mask)]))
        return found


class Nameless(Proposer):
    def propose(self, frames):
        return []


class Idle(Proposer):
    name, version = "idle", 1


class Undated(Nameless):
    name, version = "undated", "1.0"


class Unsettled(Nameless):
    name, version, Config = "unsettled", 1, dict


class Painter(Nameless):
    name, version = "painter", 1

    def propose(self, frames):
        frames[0].image[:] = 0
        return []


class Silent(Nameless):
    name, version = "silent", 1

    def propose(self, frames):
        return None
'''


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the folder where the command is typed."""
    name = f"theirs_{os.urandom(4).hex()}"
    (tmp_path / f"{name}.py").write_text(THEIRS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def test_a_model_that_offers_nothing_but_embed(theirs: str, tmp_path: Path) -> None:
    network = build_model(f"{theirs}:Plain")
    assert not network.training
    tensors = {f"module.{name}": each + 1 for name, each in network.state_dict().items()}
    torch.save({"ema": tensors}, tmp_path / "theirs.pth")
    loaded = build_model(f"{theirs}:Plain", str(tmp_path / "theirs.pth"))
    assert torch.equal(loaded.scale.bias, network.scale.bias + 1)
    with pytest.raises(InputError, match=r"does not fit .*:Plain: 1 missing: scale\.bias"):
        build_model(f"{theirs}:Plain", {"scale.weight": torch.zeros(8, 4)})


def test_a_model_with_settings(theirs: str) -> None:
    assert build_model(f"{theirs}:Settled", factor=2.5).factor == 2.5
    with pytest.raises(ConfigError, match="unknown key 'facter'; did you mean 'factor'"):
        build_model(f"{theirs}:Settled", facter=2.5)


def test_a_model_in_the_association_benchmark(theirs: str, tmp_path: Path) -> None:
    network = build_model(f"{theirs}:Plain")
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    embedding = asked_embedding(f"{theirs}:Plain", str(tmp_path / "theirs.pth"), long_side=64)
    assert embedding.of_pixels is not None
    boxes = np.array([[0, 0, 10, 10], [5, 5, 9, 9]], np.float32)
    vectors = embedding.of_pixels(np.zeros((32, 64, 3), np.uint8), boxes)
    with torch.inference_mode():
        assert np.allclose(vectors, network.scale(torch.from_numpy(boxes)).numpy())


def test_a_detector(theirs: str) -> None:
    (found,) = build_detector(f"{theirs}:Middle").detect([np.zeros((30, 30, 3), np.uint8)])
    assert found.boxes.tolist() == [[10, 10, 20, 20]]
    with pytest.raises(InputError, match="takes no weights"):
        find_detector(f"{theirs}:Middle").build({"a": torch.zeros(1)})


def test_a_proposer_in_the_settings_of_a_run(theirs: str) -> None:
    config = mine_config({"proposer": f"{theirs}:Corner", "proposer_settings": {"side": 5}}, "run.toml")
    assert proposer_settings(config).side == 5  # type: ignore[attr-defined]
    stored = mine_config({}, "run.toml").model_dump()
    assert "proposer_settings" not in stored, "what is stored with a data set stays as it was"
    with pytest.raises(ConfigError, match=r"\.sid'; did you mean 'proposer_settings\.side'"):
        mine_config({"proposer": f"{theirs}:Corner", "proposer_settings": {"sid": 5}}, "run.toml")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nameless", "needs an attribute 'name'"),
        ("Idle", r"the class lacks propose, see trackmill\.models\.proposers\.base\.Proposer"),
        ("Undated", "its version is '1.0', should be a whole number"),
        ("Unsettled", r"its Config is no class derived from trackmill\.schemas\.config\.Settings"),
    ],
)
def test_a_class_that_is_not_whole_says_what_it_lacks(theirs: str, name: str, message: str) -> None:
    with pytest.raises(InputError, match=f"proposer {theirs}:{name}: .*{message}"):
        proposer_class(f"{theirs}:{name}")


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("Painter", 3, r"read-only \(raised in theirs_\w+\.py:\d+\)\nmend the code that is named"),
        ("Silent", 1, "proposer silent: propose should return a list of ProposalSet"),
    ],
)
def test_a_proposer_that_does_what_it_may_not(
    theirs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, code: int, message: str
) -> None:
    make_pictures(tmp_path / "pictures", count=1)
    words = ["--input", "pictures", "--output", "out", "--proposer", f"{theirs}:{name}", "--executor", "inline"]
    assert mine(words) == code
    printed = capsys.readouterr()
    assert re.search(message, printed.out + printed.err)


@pytest.mark.parametrize("executor", ["inline", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])])
def test_mining_with_a_proposer_and_its_checkpoint(theirs: str, tmp_path: Path, executor: str) -> None:
    make_pictures(tmp_path / "pictures")
    torch.save({"state_dict": {"side": torch.tensor(6)}}, tmp_path / "corner.pth")
    settings = ["proposer_settings.weights=corner.pth", "run.actors=1"]
    command = [sys.executable, str(ROOT / "jobs" / "mine_proposals.py"), "--input", "pictures", "--output", "out"]
    command += ["--proposer", f"{theirs}:Corner", "--executor", executor]
    command += [word for each in settings for word in ("--set", each)]
    done = subprocess.run(
        command, cwd=tmp_path, env=job_environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((tmp_path / "out" / "config.json").read_text())["parts"]
    assert theirs not in json.dumps(parts), "a fingerprint holds no place of a module"
    assert parts["proposer"]["name"] == "corner" and parts["proposer"]["version"] == 3
    assert len(parts["proposer"]["implementation"]["weights_sha256"]) == 64
    found = rows(tmp_path / "out")
    assert found and {row.status for row in found} == {"ok"}
    assert {row.proposals for row in found} == {1} and {row.frames for row in found} == {1}
