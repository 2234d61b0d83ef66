"""Multi-scale deformable attention: each query reads a few points of each map, and learns where they lie.

Zhu et al., "Deformable DETR", ICLR 2021, section 4.1. State-dict names and initialisation are those of the published
family (Deformable DETR, DAB-DETR, MeMOTR). Positions are x, y in 0..1, where 0 and 1 are the outer edges of a map;
what lies outside counts as zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shapes = Sequence[tuple[int, int]]
"""Height and width of each of the L maps."""


def deformable_attention(
    values: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor, owner: Tensor | None = None
) -> Tensor:
    """Weighted sums of maps, read at given points by bilinear interpolation.

    Args:
        values: (B, S, heads, C): the cells of all maps in row-major order, one map after the other.
        shapes: of the maps; the sum of their cells is S.
        locations: (B, Q, heads, L, points, 2), x and y in 0..1 of each map. Keep them in float32.
        weights: (B, Q, heads, L, points).
        owner: None, or (Q,) int64 in 0..B-1: queries have no common batch then. `locations` and `weights` come without
            the dimension B, and query q reads the maps of `owner[q]`.

    Returns:
        (B, Q, heads * C), or (Q, heads * C) with `owner`, of the values' dtype.
    """
    batch, _, heads, channels = values.shape
    precise = torch.promote_types(values.dtype, torch.float32)
    located, shares = locations.to(precise), weights.to(precise)
    # On a GPU one kernel samples a whole map. On a CPU sums of gathered rows take a fifth of its time.
    if owner is None and values.device.type != "cpu":
        return _sampled_maps(values.to(precise), shapes, located, shares).to(values.dtype)
    if owner is None:
        queries = locations.shape[1]
        owner = torch.arange(batch, device=values.device).repeat_interleave(queries)
        located, shares = located.flatten(0, 1), shares.flatten(0, 1)
        summed = _gathered(values.to(precise), shapes, located, shares, owner)
        return summed.view(batch, queries, heads * channels).to(values.dtype)
    return _gathered(values.to(precise), shapes, located, shares, owner).to(values.dtype)


def weighted_rows(rows: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Sums of rows: `sum_k weights[q, k] * rows[index[q, k]]`, with gradients for rows and weights.

    Args:
        rows: (R, C) float32 or float64.
        index: (Q, K) int32 or int64 in 0..R-1.
        weights: (Q, K) of the rows' dtype.

    Returns:
        (Q, C).
    """
    if rows.device.type == "cpu" and len(index):
        # It makes the sums without a copy of all gathered rows.
        summed: Tensor = F.embedding_bag(index, rows, per_sample_weights=weights, mode="sum")
        return summed
    taken = rows.index_select(0, index.flatten()).view(*index.shape, rows.shape[1])
    return (taken * weights[..., None]).sum(1)


def per_map(numbers: Sequence[int], like: Tensor) -> Tensor:
    """(L,) on the device of `like` and of its dtype, without a copy from the host, which CUDA graphs cannot hold."""
    if len(set(numbers)) == 1:
        return like.new_full((len(numbers),), numbers[0])
    return torch.cat([like.new_full((1,), number) for number in numbers])


def _gathered(values: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor, owner: Tensor) -> Tensor:
    """`deformable_attention` with owners: (Q, heads, L, points, 2) to (Q, heads * C)."""
    _, cells, heads, channels = values.shape
    device = locations.device
    height, width = (per_map([shape[axis] for shape in shapes], owner)[:, None] for axis in (0, 1))  # (L, 1)
    areas = [h * w for h, w in shapes]
    starts = per_map([sum(areas[:index]) for index in range(len(areas))], owner)[:, None]
    first = owner.view(-1, 1, 1, 1) * cells + starts  # (Q, 1, L, 1): the first cell of the query's map
    head = torch.arange(heads, device=device).view(1, -1, 1, 1)
    x = locations[..., 0] * width - 0.5  # (Q, heads, L, points), in cells from the centre of the first one
    y = locations[..., 1] * height - 0.5
    left, top = x.detach().floor(), y.detach().floor()
    columns, x_shares = _two_nearest(left, x - left, width)
    rows, y_shares = _two_nearest(top, y - top, height)
    columns = (columns[0] * heads + head, columns[1] * heads + head)
    indices, shares = [], []
    for row, y_share in zip(rows, y_shares):
        begin, share = (first + row * width) * heads, weights * y_share
        for column, x_share in zip(columns, x_shares):
            indices.append(begin + column)
            shares.append(share * x_share)
    index = torch.stack(indices, -1).flatten(0, 1).flatten(1)  # (Q heads, L points 4)
    share = torch.stack(shares, -1).flatten(0, 1).flatten(1)
    return weighted_rows(values.reshape(-1, channels), index, share).view(-1, heads * channels)


def _two_nearest(before: Tensor, share: Tensor, limit: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The two cells along an axis between whose centres a point lies, and how much of each it is.

    Args:
        before: the first of them, a whole number as a float; not finite where the point is not.
        share: how far the point is from its centre, 0..1.
        limit: (L, 1), cells along the axis.

    Returns:
        Both as int64 within the map, and their shares, which are zero for a cell that lies outside. They are made by a
        product, not a choice: what is not finite must stay so, for whoever looks at the loss.
    """
    most = (limit - 1).to(before)
    whole = before.nan_to_num(-2.0, -2.0, -2.0)
    after = whole + 1
    cells = [torch.minimum(each.clamp(min=0.0), most) for each in (whole, after)]
    inside = [(cell == each).to(before.dtype) for cell, each in zip(cells, (whole, after))]
    return (cells[0].long(), cells[1].long()), ((1 - share) * inside[0], share * inside[1])


def _sampled_maps(values: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """`deformable_attention` without owners, one map after the other."""
    batch, _, heads, channels = values.shape
    queries = locations.shape[1]
    grids = 2 * locations - 1
    parts = []
    for index, ((height, width), level) in enumerate(zip(shapes, values.split([h * w for h, w in shapes], dim=1))):
        maps = level.permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        grid = grids[:, :, :, index].transpose(1, 2).flatten(0, 1)  # (B heads, Q, points, 2)
        parts.append(F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    sampled = torch.cat(parts, dim=-1)  # (B heads, C, Q, L points)
    shares = weights.transpose(1, 2).reshape(batch * heads, 1, queries, -1)
    return (sampled * shares).sum(-1).view(batch, heads * channels, queries).transpose(1, 2)


class DeformableAttention(nn.Module):
    """The layer around `deformable_attention`: it predicts offsets and weights, and projects values and results.

    Args:
        channels: D, in and out.
        levels: L maps.
        heads: attention heads, which divide `channels`.
        points: sampling points of each head and level.
    """

    def __init__(self, channels: int = 256, levels: int = 4, heads: int = 8, points: int = 4) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"channels must be a multiple of heads: {channels} is none of {heads}")
        self.levels, self.heads, self.points = levels, heads, points
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.attention_weights = nn.Linear(channels, heads * levels * points)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self._reset()

    @torch.no_grad()
    def _reset(self) -> None:
        """The published initialisation: head h looks in its own direction, point p lies p + 1 steps away."""
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1)
        offsets = directions.view(-1, 1, 1, 2) * steps.view(1, 1, -1, 1)  # (heads, 1, points, 2)
        self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
        for zero in (
            self.sampling_offsets.weight,
            self.attention_weights.weight,
            self.attention_weights.bias,
            self.value_proj.bias,
            self.output_proj.bias,
        ):
            nn.init.zeros_(zero)

    def forward(
        self,
        query: Tensor,
        references: Tensor,
        source: Tensor,
        shapes: Shapes,
        padding_mask: Tensor | None = None,
        valid_ratios: Tensor | None = None,
        owner: Tensor | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            query: (B, Q, D), or (Q, D) with `owner`.
            references: (B, Q, L, 2), the points x, y in 0..1 of each map, or (B, Q, L, 4), boxes cx, cy, w, h; (B, Q,
                2 or 4) if they are the same on all maps. Without B if there is an `owner`. Offsets from a point are in
                cells; from the centre of a box they are in w and h over twice the number of points.
            source: (B, S, D), the cells of all maps.
            shapes: of the L maps.
            padding_mask: (B, S) bool, True where a cell is padding and counts as zero.
            valid_ratios: (B, L, 2), the share of each map's width and height that is no padding: references are in
                0..1 of this part then. None: of the whole map.
            owner: (Q,) int64 in 0..B-1, see `deformable_attention`.

        Returns:
            As `query`.

        Raises:
            ValueError: the references have another width, or the maps another number of cells.
        """
        if references.shape[-1] not in (2, 4):
            raise ValueError(f"references must be points (..., 2) or boxes (..., 4), not {tuple(references.shape)}")
        if len(shapes) != self.levels or sum(h * w for h, w in shapes) != source.shape[1]:
            raise ValueError(
                f"maps of {list(shapes)} do not fit a source of {source.shape[1]} cells on {self.levels} levels"
            )
        values = self.value_proj(source)
        if padding_mask is not None:
            values = values.masked_fill(padding_mask[..., None], 0.0)
        values = values.unflatten(-1, (self.heads, -1))
        # Positions stay float32 in half precision, which has steps of a quarter of a cell in the middle of large maps.
        precise = torch.promote_types(references.dtype, torch.float32)
        offsets = self.sampling_offsets(query).to(precise).unflatten(-1, (self.heads, self.levels, self.points, 2))
        weights = self.attention_weights(query).to(precise).unflatten(-1, (self.heads, self.levels * self.points))
        weights = weights.softmax(-1).unflatten(-1, (self.levels, self.points))
        locations = self._locations(self._on_maps(references.to(precise), valid_ratios, owner), offsets, shapes)
        attended: Tensor = self.output_proj(
            deformable_attention(values, shapes, locations, weights, owner).to(query.dtype)
        )
        return attended

    def _on_maps(self, references: Tensor, valid_ratios: Tensor | None, owner: Tensor | None) -> Tensor:
        """References (..., Q, L, 2 or 4) in 0..1 of whole maps."""
        if references.ndim == (3 if owner is None else 2):
            references = references.unsqueeze(-2)
        if valid_ratios is None:
            return references.expand(*references.shape[:-2], self.levels, -1)
        ratios = valid_ratios.to(references)
        ratios = ratios[:, None] if owner is None else ratios[owner]  # (B, 1, L, 2) or (Q, L, 2)
        return references * ratios.repeat(*(1,) * (ratios.ndim - 1), references.shape[-1] // 2)

    def _locations(self, references: Tensor, offsets: Tensor, shapes: Shapes) -> Tensor:
        """(..., Q, heads, L, points, 2)."""
        centres = references[..., None, :, None, :2]
        if references.shape[-1] == 4:
            return centres + offsets * (references[..., None, :, None, 2:] * (0.5 / self.points))
        cells = torch.stack([per_map([shape[axis] for shape in shapes], offsets) for axis in (1, 0)], dim=-1)  # (L, 2)
        return centres + offsets / cells[:, None]
