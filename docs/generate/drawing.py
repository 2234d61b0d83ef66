"""A few shapes of SVG, in one style: dark lines on a light plate, so that they can be read on any page."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

INK, SOFT, PLATE, STRONG = "#1f2933", "#5f6b7a", "#f7f9fb", "#b7791f"
BLUE, GREEN, AMBER, RED, WHITE = "#d6e6f7", "#d8efdd", "#fbeac8", "#f8d7d3", "#ffffff"


@dataclass
class Drawing:
    """A picture that is filled shape by shape.

    Args:
        title: what it shows, for those who do not see it.
        width, height: in pixels.
    """

    title: str
    width: int = 720
    height: int = 200
    parts: list[str] = field(default_factory=list)

    def box(
        self, x: float, y: float, w: float, h: float, text: str = "", fill: str = WHITE, dashed: bool = False
    ) -> None:
        """A rectangle with text in its middle, one line for each line of the text."""
        place = f'x="{x}" y="{y}" width="{w}" height="{h}" rx="5"'
        self.parts.append(f'<rect {place} fill="{fill}" stroke="{INK}" stroke-width="1.2"{_dash(dashed)}/>')
        lines = text.split("\n") if text else []
        for number, line in enumerate(lines):
            self.text(x + w / 2, y + h / 2 + 5 + 17 * (number - (len(lines) - 1) / 2), line)

    def frame(self, x: float, y: float, w: float, h: float) -> None:
        """A strong frame around other shapes."""
        place = f'x="{x}" y="{y}" width="{w}" height="{h}" rx="6"'
        self.parts.append(f'<rect {place} fill="none" stroke="{STRONG}" stroke-width="2.4"/>')

    def text(self, x: float, y: float, text: str, anchor: str = "middle", soft: bool = False, size: int = 14) -> None:
        """One line of text; `soft` for what only explains."""
        look = f'text-anchor="{anchor}" font-size="{size}" fill="{SOFT if soft else INK}"'
        self.parts.append(f'<text x="{x}" y="{y}" {look}>{escape(text)}</text>')

    def arrow(self, x0: float, y0: float, x1: float, y1: float, dashed: bool = False) -> None:
        """From the first point to the second."""
        ends = f'x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}"'
        look = f'stroke="{INK}" stroke-width="1.4" marker-end="url(#tip)"{_dash(dashed)}'
        self.parts.append(f"<line {ends} {look}/>")

    def svg(self) -> str:
        """The whole picture."""
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img"',
                f'     font-family="system-ui, sans-serif" aria-label="{escape(self.title)}">',
                f"<title>{escape(self.title)}</title>",
                '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4"',
                'markerWidth="7" markerHeight="7" orient="auto">',
                f'<path d="M0 0 L8 4 L0 8 z" fill="{INK}"/></marker></defs>',
                f'<rect width="{self.width}" height="{self.height}" rx="8" fill="{PLATE}"/>',
                *self.parts,
                "</svg>",
                "",
            ]
        )


def _dash(dashed: bool) -> str:
    return ' stroke-dasharray="5 4"' if dashed else ""
