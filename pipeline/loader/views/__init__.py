"""Makes two random views of one picture and its boxes: `pair.make_pair`, with `ViewSettings`.

Importing this package is cheap; `pair` and the transforms import albumentations.
"""

from trackmill.pipeline.loader.views.settings import ViewSettings
from trackmill.pipeline.loader.views.view import View

__all__ = ["View", "ViewSettings"]
