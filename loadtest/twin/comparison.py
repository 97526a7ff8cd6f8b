"""Comparing points: what was measured beside what a twin did, with relative errors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.twin.simulated import all_gaps
from loadtest.twin.sweep import Point

PERCENTILES = (50, 90, 99)
MEASURES = ("TTFT", "ITL", "E2E")
TOKENS_PER_S = "tokens/s"
MAX_ERROR = 0.25  # beyond it a twin says nothing
GOOD_ERROR = 0.10

Figures = Mapping[str, float]


def figures(point: Point) -> Figures:
    """Return TTFT, ITL and end-to-end times (in ms; p50, p90 and p99) and tokens/s of a point."""
    values = {
        "TTFT": [request.ttft_ms for request in point.requests],
        "ITL": all_gaps(point),
        "E2E": [request.e2e_ms for request in point.requests],
    }
    found = {
        f"{name} p{percent}": float(np.percentile(values[name], percent))
        for name in MEASURES
        if values[name]
        for percent in PERCENTILES
    }
    tokens = sum(request.output_tokens for request in point.requests)
    start_ms = min(request.start_ms for request in point.requests)
    end_ms = max(request.start_ms + request.e2e_ms for request in point.requests)
    return found | {TOKENS_PER_S: 1000 * tokens / (end_ms - start_ms)}


@dataclass(frozen=True, slots=True)
class Compared:
    """One point: what was measured, and what the twin did."""

    name: str
    real: Figures
    twin: Figures

    def error(self, figure: str) -> float:
        """Return the twin's relative error."""
        return self.twin[figure] / self.real[figure] - 1

    @property
    def shared(self) -> list[str]:
        """The figures that both have: an answer of one token has no ITL."""
        return [name for name, value in self.real.items() if name in self.twin and value > 0]


def compare(real: Sequence[Point], twin: Sequence[Point]) -> list[Compared]:
    """Pair points with their twins, in order."""
    return [
        Compared(point.name, figures(point), figures(other))
        for point, other in zip(real, twin, strict=True)
    ]


def errors(compared: Sequence[Compared], figure: str) -> list[float]:
    """Return the sizes of a figure's relative errors at all points that have it."""
    return [abs(one.error(figure)) for one in compared if figure in one.shared]


def over_points(compared: Sequence[Compared], percent: float) -> dict[str, float]:
    """Return a percentile of each figure's errors over the points."""
    names = {name: None for one in compared for name in one.shared}
    return {name: float(np.percentile(errors(compared, name), percent)) for name in names}


def table(compared: Sequence[Compared], percentiles: Sequence[int] = (50, 90)) -> list[str]:
    """Return the lines of a Markdown table: real / twin and the error, a point each."""
    columns = [f"{name} p{percent}" for name in MEASURES for percent in percentiles]
    columns.append(TOKENS_PER_S)
    lines = ["| load | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for one in compared:
        cells = [_cell(one, name) if name in one.shared else "" for name in columns]
        lines.append(f"| {one.name} | " + " | ".join(cells) + " |")
    for title, percent in (("median error", 50), ("p90 of the errors", 90)):
        found = over_points(compared, percent)
        cells = [f"{found[name]:.1%}" if name in found else "" for name in columns]
        lines.append(f"| **{title}** | " + " | ".join(cells) + " |")
    return lines


def _cell(one: Compared, name: str) -> str:
    return f"{one.real[name]:.4g} / {one.twin[name]:.4g} ({one.error(name):+.0%})"


def verdict(compared: Sequence[Compared]) -> str:
    """Return what the errors mean, in one sentence."""
    middle = over_points(compared, 50)
    told = ", ".join(
        f"{name} {middle[key]:.1%}" for name in MEASURES if (key := f"{name} p50") in middle
    )
    worst = max(error for name, error in middle.items() if name.endswith("p50"))
    if worst <= GOOD_ERROR:
        judged = "The twin can stand in for the server"
    elif worst <= MAX_ERROR:
        judged = "The twin shows the server's trends, but not its figures"
    else:
        judged = "The twin must not stand in for the server"
    return f"{judged}: over {len(compared)} loads its median error at p50 is {told}."


Logger = Callable[[str], None]
