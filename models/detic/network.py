"""The network of Detic: backbone, pyramid, proposals, cascade. Names in its state dict are the official ones."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trackmill.models.detic.cascade import CascadeHeads, clip
from trackmill.models.detic.centernet import ProposalGenerator, ProposalSettings, proposals
from trackmill.models.detic.classifier import classifier_matrix, set_matrix
from trackmill.models.detic.pyramid import Pyramid
from trackmill.models.detic.selection import Candidates, find_candidates, select
from trackmill.models.detic.settings import OFFICIAL, Architecture, DetectionSettings, Flavour, Size
from trackmill.models.detic.vocabulary import Vocabulary


class Dense(NamedTuple):
    """What is computed for every cell: p3 to p7 (B, C, H_l, W_l), and of each its heatmap's logits and distances."""

    levels: list[Tensor]
    logits: list[Tensor]
    distances: list[Tensor]

    def first(self, count: int) -> Dense:
        """Of the first so many images."""
        return Dense(*([each[:count] for each in part] for part in self))


class Found(NamedTuple):
    """Detections of an image, on the CPU, best first.

    `boxes` (N, 4) float32 xyxy in pixels of the network's input, clipped to the image before padding; `scores` (N,)
    float32; `labels` (N,) int64.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class DeticNetwork(nn.Module):
    """From normalised, padded images to boxes with scores and labels.

    Inference only: nothing here gives losses. Results of an image depend on its batch by the rounding of sums alone, if
    it is padded to the same size: see `trackmill.models.detic.model.Detic`.

    Args:
        architecture: sizes; `VARIANTS["swinb"]` and `VARIANTS["r50"]` are the official ones.
        num_classes: C, of the classifier that `set_vocabulary` replaces.
        flavour: whose code computes the same results; see `Flavour`.
        bottom_up: whether it has a backbone. Without one it takes maps from elsewhere, see `detect_maps`.
    """

    def __init__(
        self, architecture: Architecture, num_classes: int = 1, *, flavour: Flavour = OFFICIAL, bottom_up: bool = True
    ) -> None:
        super().__init__()
        self.architecture, self.flavour = architecture, flavour
        self.backbone = Pyramid(architecture, bottom_up=bottom_up)
        self.proposal_generator = ProposalGenerator(architecture.channels)
        self.roi_heads = CascadeHeads(architecture, num_classes)
        self.requires_grad_(False).eval()

    @property
    def num_classes(self) -> int:
        """C, of the classifier."""
        return self.roi_heads.classifiers[0].zs_weight.shape[1] - 1

    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Give all stages other classes. Nothing else of the network changes.

        Raises:
            InputError: its vectors are of another length than the network's.
        """
        vocabulary.check_width(self.architecture.embedding, "Detic")
        set_matrix(self.roi_heads.classifiers, classifier_matrix(torch.tensor(vocabulary.embeddings)))

    def backbone_maps(self, batch: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised and padded to a multiple of 32, to the backbone's maps of strides 8, 16, 32."""
        return self.backbone.maps(batch)

    def dense(self, batch: Tensor) -> Dense:
        """All that is computed for every cell, of a batch as `backbone_maps` takes it."""
        return self.dense_of_maps(self.backbone.maps(batch))

    def dense_of_maps(self, maps: Sequence[Tensor]) -> Dense:
        """As `dense`, from the maps of `backbone_maps`."""
        levels = self.backbone.levels(maps)
        return Dense(levels, *self.proposal_generator(levels))

    def detect_maps(self, maps: Sequence[Tensor], sizes: Sequence[Size], settings: DetectionSettings) -> list[Found]:
        """Detections from maps that somebody has computed already, such as MASA on the same backbone.

        Args:
            maps: as `backbone_maps` gives them, for B images padded to one size.
            sizes: height and width of each of the B images before padding, in pixels.
            settings: which boxes become detections.
        """
        return self.detect_dense(self.dense_of_maps(maps), sizes, settings)

    @torch.no_grad()
    def detect_dense(self, dense: Dense, sizes: Sequence[Size], settings: DetectionSettings) -> list[Found]:
        """As `detect_maps`, from what `dense` gave."""
        proposed = proposals(dense.logits, dense.distances, ProposalSettings(ties=self.flavour.ties))
        counts = [len(scores) for _, scores in proposed]
        boxes, features = self.roi_heads(dense.levels, [each for each, _ in proposed], sizes, self.flavour)
        root_scores = torch.cat([each for _, each in proposed])
        candidates = find_candidates(self.roi_heads.classifiers, features, root_scores, boxes, settings)
        # Candidates come by row, and rows by image.
        last_rows = list(itertools.accumulate(counts, initial=0))
        borders = torch.searchsorted(candidates.rows, torch.tensor(last_rows, device=boxes.device)).tolist()
        found: list[Found] = []
        for image, (own, size) in enumerate(zip(boxes.split(counts), sizes, strict=True)):
            clipped = clip(own, size)
            rows, labels, scores = (each[borders[image] : borders[image + 1]] for each in candidates)
            chosen = select(Candidates(rows - last_rows[image], labels, scores), clipped, settings)
            found.append(Found(clipped.cpu()[chosen.rows], chosen.scores, chosen.labels))
        return found

    @torch.no_grad()
    def masks(self, dense: Dense, boxes: Sequence[Tensor]) -> list[Tensor]:
        """Probabilities (N_i, 28, 28) float32 within B tensors of boxes (N_i, 4) of `Found`, on the CPU."""
        here = [each.to(dense.levels[0].device) for each in boxes]
        return [each.cpu() for each in self.roi_heads.mask_head.of_boxes(dense.levels, here, self.flavour)]
