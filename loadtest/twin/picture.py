"""A picture of a comparison, in SVG: a panel for each measure, real beside twin."""

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10

from loadtest.twin.comparison import MEASURES, TOKENS_PER_S, Compared

COLUMNS = 2
PANEL_WIDTH, PANEL_HEIGHT, GAP = 480, 300, 60
LEFT, TOP, BOTTOM = 70, 60, 130
REAL, TWIN = "#1f5fa8", "#d9601a"
PERCENTILES = ("p50", "p90", "p99")
SHADES = {"p50": 1.0, "p90": 0.6, "p99": 0.3}

Series = list[tuple[str, str, str, list[float | None]]]  # label, colour, percentile, values


def picture(compared: Sequence[Compared], title: str) -> str:
    """Return an SVG: TTFT, ITL and end-to-end times in ms, and tokens/s, a load each column.

    Dots are what was measured, rings are the twin; the axes are logarithmic.
    """
    panels = [*MEASURES, TOKENS_PER_S]
    width = LEFT + COLUMNS * (PANEL_WIDTH + GAP)
    height = TOP + len(panels) // COLUMNS * (PANEL_HEIGHT + BOTTOM)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="16">{escape(title)}</text>',
        *_legend(),
    ]
    for number, name in enumerate(panels):
        row, column = divmod(number, COLUMNS)
        left, top = LEFT + column * (PANEL_WIDTH + GAP), TOP + row * (PANEL_HEIGHT + BOTTOM)
        parts += _panel(compared, name, left, top)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend() -> list[str]:
    parts = []
    for number, (label, colour) in enumerate((("real", REAL), ("twin", TWIN))):
        x = LEFT + 80 * number
        fill = colour if label == "real" else "none"
        parts += [
            f'<circle cx="{x + 6}" cy="38" r="4" fill="{fill}" stroke="{colour}"/>',
            f'<text x="{x + 16}" y="42">{label}</text>',
        ]
    note = "from dark to light: p50, p90, p99"
    return [*parts, f'<text x="{LEFT + 170}" y="42" fill="#555">{note}</text>']


def _panel(compared: Sequence[Compared], name: str, left: float, top: float) -> list[str]:
    series = _series(compared, name)
    values = [value for *_, line in series for value in line if value]
    if not values:
        return []
    low, high = (
        floor(log10(min(values))),
        max(ceil(log10(max(values))), floor(log10(min(values))) + 1),
    )

    def y(value: float) -> float:
        return top + PANEL_HEIGHT * (1 - (log10(value) - low) / (high - low))

    def x(column: int) -> float:
        return left + PANEL_WIDTH * (column + 0.5) / len(compared)

    unit = name if name == TOKENS_PER_S else f"{name}, ms"
    parts = [f'<text x="{left}" y="{top - 6}" font-weight="bold">{escape(unit)}</text>']
    for power in range(low, high + 1):
        at = y(10**power)
        parts += [
            f'<line x1="{left}" x2="{left + PANEL_WIDTH}" y1="{at:.1f}" y2="{at:.1f}" '
            'stroke="#ddd"/>',
            f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{10**power:g}</text>',
        ]
    for column, one in enumerate(compared):
        at, foot = x(column), top + PANEL_HEIGHT + 10
        parts.append(
            f'<text x="{at:.1f}" y="{foot}" font-size="9" text-anchor="end" '
            f'transform="rotate(-55 {at:.1f} {foot})">{escape(one.name)}</text>'
        )
    for label, colour, percentile, line in series:
        fill = colour if label == "real" else "none"
        radius, shade = (2.5 if label == "real" else 4), SHADES.get(percentile, 1)
        parts += [
            f'<circle cx="{x(i):.1f}" cy="{y(value):.1f}" r="{radius}" fill="{fill}" '
            f'stroke="{colour}" opacity="{shade}"><title>{escape(compared[i].name)}: {label} '
            f"{percentile} {value:.4g}</title></circle>"
            for i, value in enumerate(line)
            if value
        ]
    return parts


def _series(compared: Sequence[Compared], name: str) -> Series:
    keys = {"": name} if name == TOKENS_PER_S else {p: f"{name} {p}" for p in PERCENTILES}
    return [
        (label, colour, percentile, [getattr(one, label).get(key) for one in compared])
        for percentile, key in keys.items()
        for label, colour in (("real", REAL), ("twin", TWIN))
    ]
