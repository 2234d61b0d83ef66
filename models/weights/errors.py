"""What can be wrong before a model is there: a file that is not what it should be, a package that is not installed."""

from trackmill.schemas.errors import MissingPackage as MissingPackage
from trackmill.schemas.published import BadWeights as BadWeights

__all__ = ["BadWeights", "MissingPackage"]
