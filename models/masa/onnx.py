"""Exports MASA as one ONNX graph that takes pictures and any number of boxes, and returns embeddings."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torchvision.ops import roi_align

from trackmill.models.backbones.swin import shift_mask
from trackmill.models.masa.bands import BandHead
from trackmill.models.masa.heads import ROI_SIZE, NormedConvolution, roi_levels
from trackmill.models.masa.model import Masa
from trackmill.models.masa.variants import Variant
from trackmill.schemas.errors import InputError, MissingPackage
from trackmill.schemas.install import install

if TYPE_CHECKING:
    from onnx import ModelProto

INPUTS, OUTPUTS = ("images", "boxes", "box_images"), ("embeddings",)

OPSET = 20
"""DeformConv needs opset 19 or later; ONNX Runtime's RoiAlign supports up to 21."""

FIXED_ONLY = ("swin_b_window7", "swin_b_window12")
"""Backbones whose windows depend on the size of the picture: their graph serves one size only."""

_MAX_BYTES = (2 << 30) - (16 << 20)
"""Limit of the weights: an ONNX file is one protobuf message of at most 2 GiB, of which 16 MiB are for the graph."""

_NEEDED = f"ONNX needs more packages: {install('export')}"


class OnnxEmbedder(nn.Module):
    """The part of a model that embeds boxes, written so that one graph serves any number of boxes and any size.

    The embeddings equal those of `Masa.embed` up to rounding. Boxes are not checked.

    Args:
        model: the model; it is copied and not changed.
    """

    def __init__(self, model: Masa) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval()
        # These heads are not called, and they are two thirds of the weights of a small model.
        del self.model.rpn_head, self.model.roi_head
        _replace_layers(self.model)

    def forward(self, images: Tensor, boxes: Tensor, box_images: Tensor) -> Tensor:
        """Embed boxes.

        Args:
            images: (B, 3, H, W) float32, R, G, B in 0..255.
            boxes: (N, 4) float32, xyxy in pixels of the images; they may reach beyond the images.
            box_images: (N,) int64 in 0..B-1, the image of each box, in any order.

        Returns:
            (N, D) float32, in the order of the boxes.
        """
        maps = self.model.backbone_maps(self._prepare(images))
        # One box more, dropped at the end, because reshapes in the head fail for zero boxes.
        boxes = torch.cat([boxes, boxes.new_zeros(1, 4)])
        box_images = torch.cat([box_images, box_images.new_zeros(1)])
        regions = torch.cat([box_images[:, None].to(boxes), boxes], dim=1)  # (N + 1, 5): image, x0, y0, x1, y1
        if isinstance(self.model.track_head, BandHead):
            pooled = self.model.track_head.pool_regions(maps, regions)
        else:
            used = self.model.variant.num_roi_levels
            pooled = _pool_levels(self._levels(maps)[:used], self.model.variant.strides[:used], regions)
        embeddings: Tensor = self.model.track_head(pooled)
        return embeddings[:-1]

    def _prepare(self, images: Tensor) -> Tensor:
        """As `trackmill.models.masa.padding.normalise_and_pad`, for symbolic sizes."""
        variant = self.model.variant
        mean = images.new_tensor(variant.mean).view(3, 1, 1)
        std = images.new_tensor(variant.std).view(3, 1, 1)
        missing = []
        for side in images.shape[:-3:-1]:
            # Written as quotient times divisor, the exporter can prove in every layer that the side is even.
            whole = variant.input_side or (side + variant.pad_divisor - 1) // variant.pad_divisor * variant.pad_divisor
            missing += [0, whole - side]
        return F.pad((images - mean) / std, missing)

    def _levels(self, maps: Sequence[Tensor]) -> Sequence[Tensor]:
        adapter: Any = self.model.masa_adapter
        pyramid, fusion = adapter
        # The blocks are called without `Fusion.forward`, whose check of sizes would fix them in the graph.
        levels: Sequence[Tensor] = fusion.dyhead_blocks(pyramid(maps))
        return levels


def _pool_levels(levels: Sequence[Tensor], strides: Sequence[int], regions: Tensor) -> Tensor:
    """As `trackmill.models.masa.heads.roi_align_levels`, in a graph that does not depend on the boxes.

    Every level pools all regions. Regions of other levels are replaced by empty boxes there, which pool to zero, and
    the results are summed.
    """
    chosen = roi_levels(regions[:, 1:], len(levels))
    pooled: Tensor | int = 0
    for index, (level, stride) in enumerate(zip(levels, strides)):
        own = (chosen == index)[:, None]
        cells = roi_align(level, torch.where(own, regions, 0), ROI_SIZE, 1.0 / stride, sampling_ratio=0, aligned=True)
        pooled = pooled + cells
    assert isinstance(pooled, Tensor)
    return pooled


class EvenConv(nn.Module):
    """timm's convolution with TensorFlow's padding, for maps with an even number of rows and columns.

    For even sizes the padding is a constant. timm computes it from the size, in expressions that grow from layer to
    layer until the exporter fails.

    Args:
        same: a convolution of stride 2; timm pads all others when it builds the model.
    """

    def __init__(self, same: Conv2dSame) -> None:
        super().__init__()
        if tuple(same.stride) != (2, 2) or tuple(same.dilation) != (1, 1):
            raise InputError(f"only stride 2 without dilation can be exported, not {same}")
        self.conv = same
        height, width = ((size - 2) // 2 for size in same.kernel_size)
        # TensorFlow pads one more to the right and below than to the left and above.
        self.padding = (width, same.kernel_size[1] - 2 - width, height, same.kernel_size[0] - 2 - height)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H / 2, W / 2)."""
        padded = F.pad(maps, self.padding)
        return F.conv2d(padded, self.conv.weight, self.conv.bias, stride=2, groups=self.conv.groups)


def _replace_layers(module: nn.Module) -> None:
    """Replace layers that read the number of rows or boxes by layers that do not."""
    for name, child in list(module.named_children()):
        if isinstance(child, Conv2dSame):
            setattr(module, name, EvenConv(child))
        elif isinstance(child, NormedConvolution):
            setattr(module, name, nn.Sequential(*child.children(), nn.ReLU()))
        else:
            _replace_layers(child)


def to_onnx(model: Masa, size: tuple[int, int] | None = None) -> ModelProto:
    """Export the embedding of boxes.

    Inputs and output are those of `OnnxEmbedder.forward`. B and N are free; N may be 0. The same model gives the same
    graph, and no path of this machine is in it.

    Args:
        model: the model, float32, on the CPU.
        size: (H, W) in pixels for a graph of one size; None: a graph of any size, up to the variant's fixed input.

    Raises:
        ValueError: the backbone needs a size, the size does not fit the variant, or the weights exceed an ONNX file.
        ImportError: a package is missing; the text says what to type.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingPackage(_NEEDED) from error
    variant, limit = model.variant, model.variant.input_side
    if size is None and variant.backbone in FIXED_ONLY:
        raise InputError(f"{variant.name} can be exported for one size of pictures only: give height and width")
    if size is not None and (min(size) < 1 or (limit and max(size) > limit)):
        raise InputError(
            f"{size[0]} x {size[1]} pixels (height x width) do not fit {variant.name}, which takes 1 to "
            f"{limit or 'any number'} on each side"
        )
    embedder = OnnxEmbedder(model)
    num_bytes = sum(each.numel() * each.element_size() for each in _used(embedder))
    if num_bytes > _MAX_BYTES:
        raise InputError(f"{variant.name}: {num_bytes:,} bytes of weights do not fit into one ONNX file of 2 GiB")
    # The exporter takes a dimension of 1 for a constant: two pictures, three boxes, several coarsest cells.
    height, width = size or (min(7 * variant.pad_divisor, limit or 1 << 20) - 8, 5 * 32 - 4)
    images = torch.zeros(2, 3, height, width)
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [4.0, 4.0, 32.0, 32.0], [0.0, 8.0, 200.0, 200.0]])
    # With gradients, because `DeformConvNorm` without gradients on a CPU runs a Python loop over the pictures.
    try:
        with torch.enable_grad():
            exported = torch.export.export(
                embedder, (images, boxes, torch.tensor([0, 1, 1])), dynamic_shapes=_free(variant, size)
            )
        program = torch.onnx.export(
            exported, (), opset_version=OPSET, input_names=INPUTS, output_names=OUTPUTS, verbose=False
        )
    finally:
        # The cache now holds tensors of the tracer, which later calls must not use.
        shift_mask.cache_clear()
    assert program is not None
    return _tidied(program.model_proto)


def _free(variant: Variant, size: tuple[int, int] | None) -> dict[str, Any]:
    """The dimensions that stay symbolic."""
    dim = torch.export.Dim
    images = {0: dim("batch")}
    if size is None:
        # Without a fixed input, the minimum gives the coarsest level two rows. The graph also serves smaller pictures.
        bounds = {"min": 2, "max": variant.input_side} if variant.input_side else {"min": variant.strides[-1] + 1}
        images |= {2: dim("height", **bounds), 3: dim("width", **bounds)}
    boxes = {0: dim("num_boxes")}
    return {"images": images, "boxes": boxes, "box_images": dict(boxes)}


def _used(embedder: OnnxEmbedder) -> Iterator[Tensor]:
    for name, values in embedder.model.state_dict().items():
        if not (name.startswith("masa_adapter.") and isinstance(embedder.model.track_head, BandHead)):
            yield values


def _tidied(proto: ModelProto) -> ModelProto:
    """Name the free dimensions, and remove everything about the machine that exported."""
    graph = proto.graph
    names = {"images": ("batch", "", "height", "width"), "boxes": ("num_boxes", ""), "box_images": ("num_boxes",)}
    for value in (*graph.input, *graph.output):
        shape = value.type.tensor_type.shape.dim
        for dimension, name in zip(shape, names.get(value.name, ("num_boxes", "")), strict=True):
            if dimension.dim_param:
                dimension.dim_param = name
        del value.metadata_props[:]
    # Intermediate shapes still have the exporter's names for dimensions; they can be inferred again.
    del graph.value_info[:]
    for each in (proto, graph, *graph.node, *graph.initializer):
        del each.metadata_props[:]
        each.doc_string = ""
    proto.producer_name, proto.producer_version = "trackmill", ""
    return proto
