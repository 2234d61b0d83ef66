"""Evaluates a frozen TensorFlow graph a node at a time, as TensorFlow's documentation defines each type of node.

It knows the types between the prepared image and the decoded boxes of the packaged person detector, and no loops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.util.tensor_util import make_ndarray

Array = NDArray[Any]


class Interpreter:
    """Values of a graph's nodes, each computed once.

    Args:
        graph: its nodes.
        given: values of nodes by name, instead of computing them.
    """

    def __init__(self, graph: GraphDef, given: Mapping[str, Array]) -> None:
        self.nodes = {node.name: node for node in graph.node}
        self._values: dict[str, Any] = dict(given)

    def value(self, name: str) -> Any:
        """Of a node, or of one of its outputs: `split:2`."""
        name, _, output = name.partition(":")
        if name not in self._values:
            node = self.nodes[name]
            inputs = [self.value(each) for each in node.input if not each.startswith("^")]
            self._values[name] = TYPES[node.op](node.attr, *inputs)
        value = self._values[name]
        return value[int(output or 0)] if isinstance(value, list) else value


def same_padding(image: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """`SAME`: ceil(size / stride) outputs, the odd pixel of padding behind (tf.nn, "Notes on padding")."""
    pads = []
    for size in (image.shape[3], image.shape[2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(image, pads)


def convolution(attr: Any, image: Array, weights: Array, groups: int = 1) -> Array:
    """`Conv2D`: image (B, H, W, C), weights (h, w, in, out)."""
    assert attr["padding"].s == b"SAME" and set(attr["dilations"].list.i) == {1}
    stride = attr["strides"].list.i[1]
    maps = same_padding(torch.from_numpy(image).permute(0, 3, 1, 2), weights.shape[0], stride)
    kernel = torch.from_numpy(np.ascontiguousarray(weights.transpose(3, 2, 0, 1)))
    return F.conv2d(maps, kernel, stride=stride, groups=groups).permute(0, 2, 3, 1).contiguous().numpy()


def depthwise(attr: Any, image: Array, weights: Array) -> Array:
    """`DepthwiseConv2dNative`: weights (h, w, channels, 1)."""
    return convolution(attr, image, weights.transpose(0, 1, 3, 2), groups=image.shape[3])


def batch_norm(attr: Any, values: Array, scale: Array, offset: Array, mean: Array, variance: Array) -> Array:
    """`FusedBatchNorm` that is not training."""
    assert not attr["is_training"].b
    return np.asarray((values - mean) / np.sqrt(variance + np.float32(attr["epsilon"].f)) * scale + offset, np.float32)


def strided_slice(attr: Any, values: Array, begin: Array, end: Array, strides: Array) -> Array:
    """`StridedSlice` of one number."""
    assert attr["shrink_axis_mask"].i == 1 and begin.size == 1 and strides.tolist() == [1]
    return np.asarray(values)[int(begin[0])]


def part(attr: Any, values: Array, begin: Array, size: Array) -> Array:
    """`Slice`; -1 is the rest."""
    ends = [None if n < 0 else b + n for b, n in zip(begin.tolist(), size.tolist())]
    return values[tuple(slice(b, e) for b, e in zip(begin.tolist(), ends))]


KINDS = {1: np.float32, 3: np.int32}

TYPES: dict[str, Callable[..., Any]] = {
    "Const": lambda attr: make_ndarray(attr["value"].tensor),
    "Identity": lambda attr, x: x,
    "Conv2D": convolution,
    "DepthwiseConv2dNative": depthwise,
    "FusedBatchNorm": batch_norm,
    "Relu6": lambda attr, x: np.clip(x, 0, 6),
    "BiasAdd": lambda attr, x, y: x + y,
    "Add": lambda attr, x, y: x + y,
    "Sub": lambda attr, x, y: x - y,
    "Mul": lambda attr, x, y: x * y,
    "RealDiv": lambda attr, x, y: x / y,
    "Minimum": lambda attr, x, y: np.minimum(x, y),
    "Maximum": lambda attr, x, y: np.maximum(x, y),
    "Sqrt": lambda attr, x: np.sqrt(x),
    "Exp": lambda attr, x: np.exp(x),
    "Sigmoid": lambda attr, x: 1 / (1 + np.exp(-x)),
    "Cast": lambda attr, x: np.asarray(x, KINDS[attr["DstT"].type]),
    "Shape": lambda attr, x: np.array(np.shape(x), np.int32),
    "Rank": lambda attr, x: np.int32(np.ndim(x)),
    "Range": lambda attr, x, y, z: np.arange(x, y, z, dtype=np.int32),
    "Fill": lambda attr, x, y: np.full(x, y),
    "Pack": lambda attr, *x: np.stack(x, attr["axis"].i),
    "Unpack": lambda attr, x: [np.take(x, i, attr["axis"].i) for i in range(attr["num"].i)],
    "ConcatV2": lambda attr, *x: np.concatenate(x[:-1], int(x[-1])),
    "ExpandDims": lambda attr, x, y: np.expand_dims(x, int(y)),
    "Squeeze": lambda attr, x: np.squeeze(x, tuple(attr["squeeze_dims"].list.i)),
    "Reshape": lambda attr, x, y: np.reshape(x, np.asarray(y).tolist()),
    "Tile": lambda attr, x, y: np.tile(x, y),
    "Transpose": lambda attr, x, y: np.transpose(x, y),
    "Slice": part,
    "StridedSlice": strided_slice,
}
