"""Both towers of a CLIP, frozen: what compares pictures with texts."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from trackmill.models.clip.image_tower import ImageTower, ImageTowerSizes, Resizing
from trackmill.models.clip.text_tower import TextTower, TextTowerSizes
from trackmill.models.clip.transformer import HEAD_WIDTH


@dataclass(frozen=True, kw_only=True)
class ClipSizes:
    """Sizes of both towers, which give vectors of one length.

    Raises:
        ValueError: they do not, or a size is none that a tower can have; names it.
    """

    text: TextTowerSizes = field(default_factory=TextTowerSizes)
    image: ImageTowerSizes = field(default_factory=ImageTowerSizes)

    def __post_init__(self) -> None:
        if self.text.embedding != self.image.embedding:
            raise ValueError(f"texts get {self.text.embedding} numbers and pictures {self.image.embedding}")
        for part in ("text", "image"):
            for name, value in vars(getattr(self, part)).items():
                if value < 1 or (name == "width" and value % HEAD_WIDTH):
                    asked = f"a multiple of {HEAD_WIDTH}" if name == "width" else "at least 1"
                    raise ValueError(f"{part}.{name} is {value}: {asked} is needed")


PUBLISHED = {
    "vit_b_32": ClipSizes(image=ImageTowerSizes(patch=32, grid=7)),
    "vit_b_16": ClipSizes(),
    "vit_l_14": ClipSizes(
        text=TextTowerSizes(width=768, embedding=768),
        image=ImageTowerSizes(patch=14, grid=16, width=1024, layers=24, embedding=768),
    ),
}
"""OpenAI's vision transformers by name, to build towers before a file is read."""


class ClipTowers(nn.Module):
    """The text tower and the image tower. They are never trained: no gradients, always in evaluation mode.

    Args:
        sizes: of both.
        resizing: how positions of the image tower are resized to other grids.
    """

    def __init__(self, sizes: ClipSizes, resizing: Resizing = "bilinear") -> None:
        super().__init__()
        self.sizes = sizes
        self.text = TextTower(sizes.text)
        self.image = ImageTower(sizes.image, resizing)
        self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> ClipTowers:
        """Evaluation mode, whatever is asked for: the module around it is trained, this is not."""
        return super().train(False)

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) pictures and (K, T) tokens -> (N, E) and (K, E), not normalised; see the towers."""
        return self.image(images), self.text(tokens)
