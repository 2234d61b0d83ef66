"""Two random views of one picture, their boxes following the pixels: `pair.make_pair`, with `ViewSettings`.

What is imported here is light; `pair` and the transforms import albumentations.
"""

from trackmill.pipeline.loader.views.settings import ViewSettings
from trackmill.pipeline.loader.views.view import View

__all__ = ["View", "ViewSettings"]
