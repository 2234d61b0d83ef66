"""Two random views of one picture, their boxes following the pixels: `pair.make_pair`, told how by `ViewSettings`.

What is imported here is light; `pair` and the transforms import albumentations.
"""

from pipeline.loader.views.settings import ViewSettings
from pipeline.loader.views.view import View

__all__ = ["View", "ViewSettings"]
