"""The zero-shot classifier: a box's feature is compared with CLIP's text vector of each class (Detic, sec. 3.1 and 4).

`logit = 50 * cos(feature, vector)`, no bias; the sigmoid of each is its own probability, so classes do not compete.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEMPERATURE = 50.0
"""By which cosines are multiplied (the configurations' NORM_TEMP)."""


class ZeroShotClassifier(nn.Module):
    """Logits of C classes and of the background, which comes last and is always 0.

    Args:
        channels: of the feature.
        embedding: D, numbers of a class's vector.
        num_classes: C.
    """

    zs_weight: Tensor

    def __init__(self, channels: int, embedding: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, embedding)
        self.register_buffer("zs_weight", torch.zeros(embedding, num_classes + 1))  # (D, C + 1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, channels) to logits (N, C + 1) float32.

        Also under autocast: in half precision a logit of 50 has steps of a quarter.
        """
        with torch.autocast(features.device.type, enabled=False):
            projected = F.normalize(self.linear(features.to(self.zs_weight.dtype)), dim=1)
            return torch.mm(TEMPERATURE * projected, self.zs_weight)


def classifier_matrix(embeddings: Tensor) -> Tensor:
    """Vectors of classes as the classifier's matrix: of length 1, and a column of zeros for the background.

    Args:
        embeddings: (C, D) of any length; none is zero.

    Returns:
        (D, C + 1) float32.
    """
    # In float64: squares of very long or short vectors are no numbers of float32.
    vectors = embeddings.double()
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    return F.pad(vectors.float(), (0, 0, 0, 1)).t().contiguous()


def set_matrix(classifiers: Sequence[ZeroShotClassifier], matrix: Tensor) -> None:
    """Give all stages one matrix (D, C + 1); they share its memory."""
    shared = matrix.to(classifiers[0].zs_weight.device)
    for each in classifiers:
        each.zs_weight = shared
