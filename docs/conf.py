"""How Sphinx builds the documentation: `make docs`. Pages that follow from the code are written first."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from generate.links import resolved  # noqa: E402
from generate.pages import write_all  # noqa: E402

import trackmill  # noqa: E402

project = "Trackmill"
author = "the Trackmill contributors"
copyright = "the Trackmill contributors, Apache-2.0"
version = release = trackmill.__version__

extensions = ["myst_parser"]
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
exclude_patterns = ["generate/**"]
suppress_warnings = ["myst.strikethrough"]
# A reference that leads nowhere is a warning, and `make docs` treats warnings as errors.
nitpicky = True

html_theme = "furo"
html_title = f"Trackmill {version}"
html_static_path = ["pictures"]
html_css_files = ["site.css"]
html_extra_path = ["generated/extra"]
html_theme_options = {"source_repository": "", "navigation_with_keys": True}
html_show_sourcelink = False
html_copy_source = False


def setup(app: Sphinx) -> None:
    """Sphinx calls it once, before it reads a page."""
    write_all(HERE)
    app.connect("source-read", resolve_links)


def resolve_links(app: Sphinx, page: str, source: list[str]) -> None:
    """Pages are read beside the code as well, where their links point at files of it."""
    path = HERE / f"{page}.md"
    source[0] = resolved(source[0], path, path)
