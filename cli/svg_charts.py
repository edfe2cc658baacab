"""Charts as inline SVG: pure text, no scripts, nothing loaded from anywhere.

Rule: what was not measured leaves a gap; an axis begins at zero; colours are said again in words, and every mark has a
title that tells its figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 180
LEFT, BOTTOM, TOP, RIGHT = 48, 24, 12, 8


@dataclass(frozen=True, slots=True)
class Series:
    """One kind of thing in a chart; None is no data."""

    name: str
    colour: str
    values: Sequence[float | None]


def bars(labels: Sequence[str], series: Sequence[Series], *, unit: str = "") -> str:
    """Stacked bars, one stack per label."""
    if not labels or not any(value for one in series for value in one.values):
        return no_data()
    top = max(sum(one.values[place] or 0.0 for one in series) for place in range(len(labels)))
    ceiling = _ceiling(top)
    step = (WIDTH - LEFT - RIGHT) / len(labels)
    shapes = []
    for place, label in enumerate(labels):
        below = 0.0
        for one in series:
            value = one.values[place] or 0.0
            if value:
                height = _span(value, ceiling)
                y = HEIGHT - BOTTOM - _span(below, ceiling) - height
                shapes.append(
                    f'<rect x="{LEFT + place * step + step * 0.1:.1f}" y="{y:.1f}" width="{step * 0.8:.1f}" '
                    f'height="{height:.1f}" fill="{one.colour}">'
                    f"<title>{escape(label)}: {value:g}{escape(unit)} {escape(one.name)}</title></rect>"
                )
            below += value
    return _frame(labels, ceiling, shapes, unit) + _legend(series)


def line(labels: Sequence[str], one: Series, *, unit: str = "", target: float | None = None) -> str:
    """A line that breaks where there is no data, with its target as a dashed one."""
    known = [value for value in one.values if value is not None]
    if not known:
        return no_data()
    ceiling = _ceiling(max([*known, target or 0.0]))
    step = (WIDTH - LEFT - RIGHT) / len(labels)
    shapes, path, in_line = [], [], False
    for place, value in enumerate(one.values):
        if value is None:
            in_line = False
            continue
        x, y = LEFT + (place + 0.5) * step, HEIGHT - BOTTOM - _span(value, ceiling)
        path.append(f"{'L' if in_line else 'M'}{x:.1f} {y:.1f}")
        in_line = True
        title = f"<title>{escape(labels[place])}: {value:.1f}{escape(unit)}</title>"
        shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{one.colour}">{title}</circle>')
    shapes.append(f'<path d="{"".join(path)}" fill="none" stroke="{one.colour}" stroke-width="2"/>')
    if target is not None:
        y = HEIGHT - BOTTOM - _span(target, ceiling)
        shapes.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#888" stroke-dasharray="6 4">'
            f"<title>target {target:g}{escape(unit)}</title></line>"
        )
    return _frame(labels, ceiling, shapes, unit) + _legend([one])


def calibration(points: Sequence[tuple[float, float, int]]) -> str:
    """Predicted against observed with how many tries; on the diagonal a decision is as right as it is sure."""
    if not points:
        return no_data()
    side = HEIGHT - BOTTOM - TOP
    most = max(count for _, _, count in points)
    shapes = [
        f'<line x1="{LEFT}" y1="{TOP + side}" x2="{LEFT + side}" y2="{TOP}" stroke="#888" stroke-dasharray="6 4"/>',
        f'<rect x="{LEFT}" y="{TOP}" width="{side}" height="{side}" fill="none" stroke="#bbb"/>',
    ]
    for predicted, observed, count in points:
        radius = 4 + 8 * (count / most) ** 0.5
        shapes.append(
            f'<circle cx="{LEFT + predicted * side:.1f}" cy="{TOP + (1 - observed) * side:.1f}" r="{radius:.1f}" '
            f'fill="#2a6f97" fill-opacity="0.7"><title>predicted {predicted:.2f}, observed {observed:.2f}, '
            f"{count} tries</title></circle>"
        )
    shapes.append(f'<text x="{LEFT + side / 2}" y="{HEIGHT - 6}" text-anchor="middle">predicted</text>')
    shapes.append(f'<text x="{LEFT - 8}" y="{TOP + side / 2}" text-anchor="end">observed</text>')
    return _svg(shapes, LEFT + side + 24)


def no_data() -> str:
    """Stands in place of a chart."""
    return '<p class="nothing">no data</p>'


def _span(value: float, ceiling: float) -> float:
    return (HEIGHT - BOTTOM - TOP) * value / ceiling


def _ceiling(top: float) -> float:
    """The next round figure: 1, 2 or 5 times a power of ten."""
    size = 1.0
    while size * 10 <= top:
        size *= 10
    while size > top and size > 1e-6:
        size /= 10
    return next((size * factor for factor in (1, 2, 5, 10) if size * factor >= top), top) or 1.0


def _frame(labels: Sequence[str], ceiling: float, shapes: Sequence[str], unit: str) -> str:
    floor = HEIGHT - BOTTOM
    parts = [
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}" stroke="#bbb"/>',
        f'<text x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{ceiling:g}{escape(unit)}</text>',
        f'<text x="{LEFT - 6}" y="{floor}" text-anchor="end">0</text>',
        f'<text x="{LEFT}" y="{HEIGHT - 6}">{escape(labels[0])}</text>',
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(labels[-1])}</text>',
    ]
    return _svg([*parts, *shapes], WIDTH)


def _svg(shapes: Sequence[str], width: float) -> str:
    return f'<svg viewBox="0 0 {width:.0f} {HEIGHT}" role="img">{"".join(shapes)}</svg>'


def _legend(series: Sequence[Series]) -> str:
    items = "".join(
        f'<span><i style="background:{one.colour}"></i>{escape(one.name)}</span>' for one in series if any(one.values)
    )
    return f'<p class="legend">{items}</p>'
