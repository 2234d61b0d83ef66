"""TinyViT, the image encoder of MobileSAM; parameters have the names of the published checkpoint.

TinyViT (Wu et al. 2022) uses convolutions on the large maps and then attention inside windows, with a learned bias for
every distance. MobileSAM (Zhang et al. 2023) leaves out the last halving, so that 64 x 64 tokens result, and adds SAM's
neck.

Only for inference: there is no stochastic depth. Letters: B pictures, C channels, N tokens of a window, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 1000
"""Classes of the ImageNet head, which is not used but is in the checkpoint."""


class TinyVit(nn.Module):
    """Encodes a picture to an embedding with a sixteenth of its side; the defaults are MobileSAM's.

    Args:
        img_size: side in pixels of the square input; only stored, for code that prepares pictures.
        widths: channels of the four stages.
        depths: blocks of the four stages; the first stage is convolutional.
        heads: attention heads of the four stages; the first is not used.
        windows: side of a window in tokens, of the four stages; the first is not used.
        strides: strides of the three reductions between the stages.
        out_chans: channels of the embedding.
    """

    def __init__(
        self,
        img_size: int = 1024,
        widths: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (2, 4, 5, 10),
        windows: Sequence[int] = (7, 7, 14, 7),
        strides: Sequence[int] = (2, 2, 1),
        out_chans: int = 256,
    ) -> None:
        super().__init__()
        self.img_size = img_size
        self.patch_embed = PatchEmbed(widths[0])
        self.layers = nn.ModuleList()
        for i, width in enumerate(widths):
            blocks: list[nn.Module] = [
                ConvBlock(width) if i == 0 else WindowBlock(width, heads[i], windows[i]) for _ in range(depths[i])
            ]
            reduction = Reduction(width, widths[i + 1], strides[i]) if i + 1 < len(widths) else None
            self.layers.append(EncoderStage(blocks, reduction))
        self.norm_head = nn.LayerNorm(widths[-1])
        self.head = nn.Linear(widths[-1], CLASSES)
        self.neck = nn.Sequential(
            nn.Conv2d(widths[-1], out_chans, 1, bias=False),
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) normalised pictures to (B, out_chans, S / 16, S / 16) with MobileSAM's strides."""
        embedding: Tensor = self.neck(self.features(images))
        return embedding

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) normalised pictures to what the neck reads, (B, widths[-1], S / 16, S / 16)."""
        maps: Tensor = self.patch_embed(images)
        for layer in self.layers:
            maps = layer(maps)
        return maps


class ConvBatchNorm(nn.Sequential):
    """A convolution `c` without bias, then a batch norm `bn`. At stride 1 the padding keeps the side."""

    def __init__(self, channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out)


class PatchEmbed(nn.Module):
    """Two convolutions of stride 2: (B, 3, S, S) to (B, width, S / 4, S / 4)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvBatchNorm(3, width // 2, 3, 2), nn.GELU(), ConvBatchNorm(width // 2, width, 3, 2))

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.seq(images)
        return maps


class EncoderStage(nn.Module):
    """The blocks of one resolution, then the reduction to the next; maps (B, C, H, W) in and out."""

    def __init__(self, blocks: list[nn.Module], reduction: Reduction | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = reduction

    def forward(self, maps: Tensor) -> Tensor:
        for block in self.blocks:
            maps = block(maps)
        return maps if self.downsample is None else self.downsample(maps)


class ConvBlock(nn.Module):
    """The inverted residual of MobileNet: widen, depthwise 3 x 3 convolution, narrow, add."""

    def __init__(self, width: int, expand: int = 4) -> None:
        super().__init__()
        self.conv1 = ConvBatchNorm(width, expand * width)
        self.conv2 = ConvBatchNorm(expand * width, expand * width, 3, groups=expand * width)
        self.conv3 = ConvBatchNorm(expand * width, width)

    def forward(self, maps: Tensor) -> Tensor:
        wide = functional.gelu(self.conv2(functional.gelu(self.conv1(maps))))
        return functional.gelu(maps + self.conv3(wide))


class Reduction(nn.Module):
    """Changes the channels and, at stride 2, halves the sides (rounded up)."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvBatchNorm(width, out)
        self.conv2 = ConvBatchNorm(out, out, 3, stride, groups=out)
        self.conv3 = ConvBatchNorm(out, out)

    def forward(self, maps: Tensor) -> Tensor:
        reduced: Tensor = self.conv3(functional.gelu(self.conv2(functional.gelu(self.conv1(maps)))))
        return reduced


class WindowBlock(nn.Module):
    """Attention inside windows, a 3 x 3 convolution across their borders, then an MLP; maps (B, C, H, W)."""

    def __init__(self, width: int, heads: int, window: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(width, heads, window)
        self.local_conv = ConvBatchNorm(width, width, 3, groups=width)
        self.mlp = Mlp(width, mlp_ratio * width)

    def forward(self, maps: Tensor) -> Tensor:
        tokens = maps.permute(0, 2, 3, 1)  # (B, H, W, C)
        tokens = tokens + self._attend(tokens)
        mixed: Tensor = self.local_conv(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        mixed = mixed + self.mlp(mixed)
        return mixed.permute(0, 3, 1, 2)

    def _attend(self, tokens: Tensor) -> Tensor:
        batch, height, width, channels = tokens.shape
        side = self.window
        # The zeros go through the layer norm, and real tokens attend to the result. MobileSAM was trained that way, so
        # the padding must not be masked.
        padded = functional.pad(tokens, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = padded.shape[1] // side, padded.shape[2] // side
        cut = padded.view(batch, rows, side, columns, side, channels).transpose(2, 3)
        seen: Tensor = self.attn(cut.reshape(-1, side * side, channels))
        joined = seen.view(batch, rows, columns, side, side, channels).transpose(2, 3)
        return joined.reshape(batch, rows * side, columns * side, channels)[:, :height, :width]


class WindowAttention(nn.Module):
    """softmax(q k^T / sqrt(d) + b) v with b learned for every (|dy|, |dx|); tokens (windows, N, C), N = window ** 2."""

    attention_bias_idxs: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        # The indices follow from the window size, and no checkpoint holds them.
        self.register_buffer("attention_bias_idxs", bias_indices(window), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        windows, count, width = tokens.shape
        # One row of `qkv` is (head, q or k or v, d), in this order; SAM's own encoder has the first two swapped.
        qkv = self.qkv(self.norm(tokens)).view(windows, count, self.heads, 3, -1)
        query, key, value = qkv.permute(3, 0, 2, 1, 4).unbind(0)  # each (windows, H, N, d)
        bias = self.attention_biases[:, self.attention_bias_idxs]  # (H, N, N)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        attended: Tensor = self.proj(seen.transpose(1, 2).reshape(windows, count, width))
        return attended


def bias_indices(window: int) -> Tensor:
    """Index of the learned bias of each pair of tokens: (N, N) int64, |dy| * window + |dx|."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = y.flatten(), x.flatten()
    return (y[:, None] - y).abs() * window + (x[:, None] - x).abs()


class Mlp(nn.Module):
    """Layer norm and two linear layers on the last axis."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = functional.gelu(self.fc1(self.norm(tokens)))
        out: Tensor = self.fc2(hidden)
        return out
