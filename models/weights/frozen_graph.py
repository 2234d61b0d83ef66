"""Constants of a frozen TensorFlow graph (`GraphDef`), by name. TensorFlow is not needed, and nothing of it is run.

A frozen graph holds its weights as nodes of the type `Const`. Parsing a graph makes an object of every node, so a file
is compared with the SHA-256 that it must have before it is parsed.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trackmill.models.weights.errors import BadWeights, MissingPackage
from trackmill.schemas.install import install_package

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_GRAPH_BYTES = 64 << 20
"""Of a graph's file; SSDLite on MobileNetV2 has 13 MB."""

_FLOAT = 1
"""Number of float32 among TensorFlow's types (`types.proto`, `DT_FLOAT`)."""


def read_float_constants(path: Path, sha256: str, advice: str) -> dict[str, NDArray[np.float32]]:
    """The float32 constants of a graph.

    Args:
        path: the file, on this machine.
        sha256: what it must have, as 64 hexadecimal digits.
        advice: how to get the right file, for errors.

    Returns:
        By name of the node, arrays in TensorFlow's order of axes: (height, width, in, out) for a convolution, (height,
        width, channels, multiplier) for a depthwise one.

    Raises:
        BadWeights: another file than was promised, or a tensor whose values do not fit its shape. A `ValueError`.
        FileNotFoundError: there is no such file.
        MissingPackage: tensorboard, which knows the format, is not installed.
    """
    try:
        from tensorboard.compat.proto.graph_pb2 import GraphDef
    except ImportError as error:
        raise MissingPackage(f"a frozen graph is read by tensorboard: {install_package('tensorboard')}") from error
    if not path.is_file():
        raise FileNotFoundError(f"no frozen graph at {path}: {advice}")
    if path.stat().st_size > MAX_GRAPH_BYTES:
        raise BadWeights(f"{path}: {path.stat().st_size:,} bytes, more than {MAX_GRAPH_BYTES:,}; {advice}")
    with open(path, "rb") as handle:
        content = handle.read(MAX_GRAPH_BYTES)
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise BadWeights(f"{path}: damaged or another version's: its SHA-256 is {found}, not {sha256}; {advice}")
    constants = {}
    for node in GraphDef.FromString(content).node:
        tensor = node.attr["value"].tensor if node.op == "Const" else None
        if tensor is None or tensor.dtype != _FLOAT:
            continue
        shape = tuple(axis.size for axis in tensor.tensor_shape.dim)
        # One value may stand for all: TensorFlow repeats the last of `float_val`.
        values = np.frombuffer(tensor.tensor_content, "<f4") if tensor.tensor_content else np.array(tensor.float_val)
        if len(values) == 1:
            values = np.broadcast_to(values, (math.prod(shape),))
        if len(values) != math.prod(shape):
            raise BadWeights(f"{path}: {node.name} holds {len(values)} values for the shape {shape}; {advice}")
        constants[node.name] = values.astype(np.float32).reshape(shape)
    return constants
