"""Jitter: distributions of the gaps between tokens, with the mean that was asked for."""

import csv
import math
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.random import PCG64, RandomState
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Draw: TypeAlias = Callable[[RandomState, int], Floats]

EXPECTED = (
    "'normal:<cv>' with a cv of 0 to 0.75, 'lognormal:<cv>' with a cv of 0 to 10, "
    "'uniform:<fraction>' with a fraction of 0 to 1, 'exponential', or 'trace:<name>'"
)


def random_state(seed: int | None = None) -> RandomState:
    """Return a generator of random numbers, reproducible if there is a seed.

    NumPy has frozen RandomState's distributions and PCG64's stream (NEP 19): a seed gives the same
    numbers in every worker and with every version. The distributions of NumPy's Generator and of
    Python's random may change. RandomState's default, the Mersenne Twister, is slow to seed.
    """
    return RandomState(PCG64(None if seed is None else seed & (2**64 - 1)))


@dataclass(frozen=True, slots=True)
class Jitter:
    """A distribution of gaps, of which none is negative."""

    text: str
    draw: Draw

    @classmethod
    def parse(cls, text: str, traces: Mapping[str, Floats] | None = None) -> "Jitter":
        """Read a distribution.

        Args:
            text: As a client writes it, such as ``lognormal:0.5``.
            traces: The gaps of each trace, by name.

        Raises:
            ValueError: The text names none; the message says what was expected and what came.
        """
        kind, colon, parameter = text.strip().partition(":")
        if kind == "trace" and colon:
            known = traces or {}
            if parameter not in known:
                names = ", ".join(map(repr, sorted(known))) or "none"
                raise ValueError(f"expected a trace of this server ({names}), but got {text!r}")
            return cls(text, partial(_trace, known[parameter]))
        if kind == "exponential" and not colon:
            return cls(text, _exponential)
        if kind not in _SCATTERED or not colon:
            raise ValueError(f"expected {EXPECTED}, but got {text!r}")
        draw, most = _SCATTERED[kind]
        return cls(text, partial(draw, _number(text, parameter, most)))

    def gaps(self, mean_s: float, count: int, random: RandomState) -> Floats:
        """Return `count` gaps whose mean is `mean_s`, in seconds."""
        return mean_s * self.draw(random, count)


def due_offsets(
    tokens: int,
    ttft_s: float,
    itl_s: float,
    *,
    ttft_jitter: Jitter | None = None,
    itl_jitter: Jitter | None = None,
    seed: int | None = None,
) -> "array[float]":
    """Draw when each token of an answer is due, in seconds after the start.

    The first is due after a TTFT drawn from `ttft_jitter`, each other one a gap drawn from
    `itl_jitter` later; without a jitter these are constant.
    """
    random = random_state(seed)
    offsets = np.full(tokens, itl_s, dtype=np.float64)
    offsets[0] = ttft_s if ttft_jitter is None else ttft_jitter.gaps(ttft_s, 1, random)[0]
    if itl_jitter is not None:
        offsets[1:] = itl_jitter.gaps(itl_s, tokens - 1, random)
    return array("d", offsets.cumsum().tobytes())


def load_trace(path: Path) -> Floats:
    """Read a trace: gaps in ms, separated by commas or line ends; lines with '#' are comments.

    Raises:
        ValueError: A gap is not a number of 0 or more, or there is none above 0; the message names
            file and line.
        OSError: The file cannot be read.
    """
    gaps_ms: list[float] = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        for row in rows:
            if not row or row[0].lstrip().startswith("#"):
                continue
            gaps_ms += (_gap_ms(cell, path, rows.line_num) for cell in row)
    if not any(gaps_ms):
        raise ValueError(f"{path}: expected gaps in ms, at least one of them above 0, but got none")
    return np.array(gaps_ms)


def load_traces(folder: Path) -> dict[str, Floats]:
    """Read every ``<name>.csv`` of a folder.

    Raises:
        ValueError: One of them is not a trace.
        OSError: The folder or a file cannot be read.
    """
    return {path.stem: load_trace(path) for path in sorted(folder.iterdir()) if _is_csv(path)}


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _float(text: str) -> float:
    """Return the number that `text` is, NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _gap_ms(cell: str, path: Path, line: int) -> float:
    gap_ms = _float(cell)
    if not 0 <= gap_ms < math.inf:
        raise ValueError(f"{path}:{line}: expected a gap in ms, 0 or more, but got {cell!r}")
    return gap_ms


def _number(text: str, parameter: str, most: float) -> float:
    number = math.nan if "_" in parameter else _float(parameter)  # Python's own way to group digits
    if not 0 <= number <= most:
        raise ValueError(f"expected a number from 0 to {most:g} after the colon, but got {text!r}")
    return number


# --------------------------------------------------------------------------------------
# Draws: each returns numbers of mean 1
# --------------------------------------------------------------------------------------


def _uniform(fraction: float, random: RandomState, count: int) -> Floats:
    """Draw from 1 - fraction to 1 + fraction."""
    return 1 + fraction * (2 * random.random_sample(count) - 1)


def _exponential(random: RandomState, count: int) -> Floats:
    return random.standard_exponential(count)


def _lognormal(cv: float, random: RandomState, count: int) -> Floats:
    """Draw from a log-normal distribution.

    Its mean is ``exp(mu + sigma^2 / 2)`` and its cv is ``sqrt(exp(sigma^2) - 1)``: for a mean of 1,
    ``sigma^2 = ln(1 + cv^2)`` and ``mu = -sigma^2 / 2`` (Johnson, Kotz, Balakrishnan: Continuous
    Univariate Distributions, volume 1, chapter 14).
    """
    variance = math.log1p(cv * cv)
    return np.exp(math.sqrt(variance) * random.standard_normal(count) - variance / 2)


def _normal(cv: float, random: RandomState, count: int) -> Floats:
    """Draw from a normal distribution truncated at 0, whose mean is 1 and whose cv is `cv`.

    Negative numbers are drawn again, and `truncated_normal` compensates for that. At a cv of 0.7555
    half of all would be negative: hence the limit of 0.75.
    """
    mu, sigma = truncated_normal(cv)
    drawn = mu + sigma * random.standard_normal(count)
    while (below := np.flatnonzero(drawn < 0)).size:
        drawn[below] = mu + sigma * random.standard_normal(below.size)
    return drawn


@lru_cache(maxsize=256)
def truncated_normal(cv: float) -> tuple[float, float]:
    """Return mu and sigma of the normal whose part above 0 has the mean 1 and the given cv.

    With ``a = -mu / sigma`` and ``h = pdf(a) / (1 - cdf(a))`` of the standard normal, that part has
    the mean ``sigma * (h - a)`` and the variance ``sigma^2 * (1 + a * h - h^2)`` (Johnson, Kotz,
    Balakrishnan, volume 1, chapter 13, section 10.1). The cv grows with ``a``, which is found by
    bisection, and the mean then gives sigma.

    >>> [round(x, 4) for x in truncated_normal(0.5)]
    [0.9486, 0.549]
    """
    if cv < 0.1:
        return 1.0, cv  # 10 sigma are above 0
    low, high = -1 / cv - 1, 0.0
    for _ in range(60):
        a = (low + high) / 2
        h = _hazard(a)
        if math.sqrt(1 + a * h - h * h) < cv * (h - a):
            low = a
        else:
            high = a
    sigma = 1 / (_hazard(low) - low)
    return -low * sigma, sigma


def _hazard(a: float) -> float:
    """Return pdf(a) / (1 - cdf(a)) of the standard normal."""
    return math.sqrt(2 / math.pi) * math.exp(-a * a / 2) / math.erfc(a / math.sqrt(2))


def _trace(gaps: Floats, random: RandomState, count: int) -> Floats:
    """Repeat a trace, starting at a random gap."""
    start = int(random.random_sample() * gaps.size)
    cycled: Floats = np.resize(np.roll(gaps / gaps.mean(), -start), count)
    return cycled


_SCATTERED: dict[str, tuple[Callable[[float, RandomState, int], Floats], float]] = {
    "normal": (_normal, 0.75),
    "lognormal": (_lognormal, 10),
    "uniform": (_uniform, 1),
}
