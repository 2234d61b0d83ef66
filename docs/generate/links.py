"""Links of pages that are also read beside the code: what lies outside of `docs/` becomes a page, or plain text."""

from __future__ import annotations

import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

OUTSIDE = {
    "infra/README.md": "infra",
    "SECURITY.md": "security",
    "CONTRIBUTING.md": "contributing",
    "CHANGELOG.md": "changelog",
}
"""Documents that lie beside the code, and the generated page of each."""

_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def resolved(text: str, source: Path, page: Path) -> str:
    """Markdown whose links hold on the site.

    Args:
        text: of the document.
        source: the file that it stands in, which its links are relative to.
        page: the file that Sphinx reads it from.
    """

    def one(match: re.Match[str]) -> str:
        words, link = match.groups()
        if re.match(r"[a-z]+:|#", link):
            return match[0]
        path, _, heading = link.partition("#")
        target = (source.parent / path).resolve()
        name = target.relative_to(ROOT).as_posix()
        if name == "README.md":
            target, heading = DOCS / "index.md", ""
        elif name in OUTSIDE:
            target = DOCS / "reference" / "generated" / f"{OUTSIDE[name]}.md"
        elif not target.is_relative_to(DOCS):
            return words if "`" in words else f"{words} (`{name}`)"
        relative = os.path.relpath(target, page.parent)
        return f"[{words}]({relative}{'#' + heading if heading else ''})"

    return _LINK.sub(one, text)
