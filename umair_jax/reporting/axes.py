"""Axes with round ticks as inline SVG; colours and type come from the page's style sheet.

Charts are drawn as wide as a phone and stand side by side where there is room, so that their
letters keep the size of the text around them.
"""

from __future__ import annotations

import html
import itertools
import math

Number = float | int

WIDTH = 360
LEFT, RIGHT, TOP, BOTTOM = 46, 18, 12, 38


def ticks(low: Number, high: Number, most: int = 6) -> list[float]:
    """Round numbers within [low, high], two to `most`, 1, 2 or 5 times a power of ten apart.

    Raises:
        ValueError: An empty range.
    """
    if not low < high:
        raise ValueError(f"ticks: got the range {low} to {high}; expected low < high")
    size = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in itertools.cycle((1, 2, 5)):
        step = factor * size
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [k * step for k in range(first, last + 1)]
        size *= 10 if factor == 5 else 1
    raise AssertionError  # a cycle has no end


def label(value: Number, step: Number) -> str:
    """A tick in as many decimals as its neighbours need, thousands apart."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{decimals}f}"


class Axes:
    """A plot area with its axes; marks are added in the order in which they are painted."""

    def __init__(
        self,
        x: tuple[Number, Number],
        y: tuple[Number, Number],
        x_label: str,
        y_label: str,
        height: int = 240,
        bottom: int = BOTTOM,
    ) -> None:
        """Draws the grid.

        Args:
            x: Range of the values along x, low < high.
            y: Range of the values along y, low < high.
            x_label: What x is.
            y_label: What y is.
            height: Pixels from the upper edge to the lower end of the picture.
            bottom: Pixels of these below the plot area.
        """
        self.x, self.y = x, y
        self.floor = height - bottom
        self.height = height
        self.pieces: list[str] = []
        self._grid(x_label, y_label)

    def at(self, x: Number, y: Number) -> tuple[float, float]:
        """Pixels of a point."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 2),
            round(self.floor - up * (self.floor - TOP), 2),
        )

    def add(self, piece: str) -> None:
        """One more element."""
        self.pieces.append(piece)

    def line(self, points: list[tuple[Number, Number]], kind: str) -> None:
        """A line through points given as values; `kind` is its class."""
        pairs = " ".join(f"{x},{y}" for x, y in (self.at(*point) for point in points))
        self.add(f'<polyline class="line {kind}" points="{pairs}"/>')

    def dot(self, x: Number, y: Number, kind: str, said: str, radius: float = 3.5) -> None:
        """A point that tells its numbers when pointed at."""
        left, top = self.at(x, y)
        self.add(
            f'<circle class="dot {kind}" cx="{left}" cy="{top}" r="{radius}">'
            f"<title>{html.escape(said)}</title></circle>"
        )

    def svg(self, title: str, description: str, name: str) -> str:
        """The picture with its text for those who do not see it.

        Args:
            title: What it is.
            description: What it shows, in words.
            name: Prefix of its ids, unique in the page.
        """
        return (
            f'<svg class="chart" viewBox="0 0 {WIDTH} {self.height}" role="img" '
            f'aria-labelledby="{name}-title {name}-desc">'
            f'<title id="{name}-title">{html.escape(title)}</title>'
            f'<desc id="{name}-desc">{html.escape(description)}</desc>'
            f"{''.join(self.pieces)}</svg>"
        )

    def _grid(self, x_label: str, y_label: str) -> None:
        # Long numbers need room along x.
        longest = len(f"{self.x[1]:,.0f}")
        across, up = ticks(*self.x, most=5 if longest > 5 else 6), ticks(*self.y)
        for value in up:
            left, top = self.at(self.x[0], value)
            said = label(value, up[1] - up[0])
            self.add(f'<line class="grid" x1="{left}" x2="{WIDTH - RIGHT}" y1="{top}" y2="{top}"/>')
            self.add(
                f'<text class="tick" x="{left - 6}" y="{top + 4}" text-anchor="end">{said}</text>'
            )
        for value in across:
            left, top = self.at(value, self.y[0])
            said = label(value, across[1] - across[0])
            self.add(f'<line class="axis" x1="{left}" x2="{left}" y1="{top}" y2="{top + 4}"/>')
            self.add(
                f'<text class="tick" x="{left}" y="{top + 17}" text-anchor="middle">{said}</text>'
            )
        left, top = self.at(self.x[0], self.y[0])
        self.add(f'<line class="axis" x1="{left}" x2="{WIDTH - RIGHT}" y1="{top}" y2="{top}"/>')
        middle, side = (LEFT + WIDTH - RIGHT) / 2, (TOP + self.floor) / 2
        for place, said in (
            (f'x="{middle}" y="{self.floor + 34}"', x_label),
            (f'transform="translate(11 {side}) rotate(-90)"', y_label),
        ):
            text = html.escape(said)
            self.add(f'<text class="name" {place} text-anchor="middle">{text}</text>')
