"""Fitting an engine to a sweep: steps are regressed, then refined against the simulator.

Which terms the engine has is decided by points that the fit has not seen: each half of them is
held out in turn.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emulator.engine.config import EngineConfig
from loadtest.twin.comparison import Compared, compare
from loadtest.twin.regression import COLUMNS, Array, regress, rows
from loadtest.twin.simulated import all_gaps, simulate
from loadtest.twin.sweep import Point

ABOVE = "step_per_sequence_above_ms"
NAMES = (*COLUMNS, ABOVE)
BASE = NAMES[:4]
TOLERANCE = 0.08  # log errors beyond it weigh less (Huber)
PRECISE = 0.01  # a held-out error below which no term pays
PAYS = 0.95  # a term must bring the held-out error below this share of the one without it
SURE = 0.03  # a relative error of the middle of a load's requests that takes half its weight
SUMMED = 4  # gaps
ITERATIONS = 8
FEWEST_TO_BEND = 8  # sequences
STEP = 0.03  # of a parameter, for its derivative
REQUESTS_A_CLIENT = 4  # of a point, at most, that a fit looks at
FEWEST_REQUESTS = 24
CONVERGED = 0.995  # of the loss before: a step that brings less is the last

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Terms:
    """Which terms an engine has beside the four: those in `extra`, and a bend of its batch."""

    extra: tuple[str, ...] = ()
    bend: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that are fitted."""
        return (*BASE, *self.extra, *((ABOVE,) if self.bend else ()))

    def __str__(self) -> str:
        bend = f"a bend at {self.bend} sequences" if self.bend else ""
        return ", ".join(filter(None, (*self.extra, bend))) or "the four linear terms"


@dataclass(frozen=True, slots=True)
class Fitted:
    """An engine with the two sigma of its parameters, None where the data says nothing of one."""

    terms: Terms
    values: dict[str, float]
    sigmas: dict[str, float | None]
    loss: float


class Fitter:
    """Fits the times of an engine, whose bounds are known.

    Args:
        bounds: The engine's fields that are no times.
        points: What was measured.
    """

    def __init__(self, bounds: dict[str, int | bool | str], points: Sequence[Point]) -> None:
        self.bounds = bounds
        self.points = [shortened(point) for point in points]
        work, took = rows(self.points, int(bounds["max_num_batched_tokens"]))
        found = regress(work, took)
        step_ms = float(np.median(took / np.maximum(work[:, 0], 1)))
        # A parameter that was found to be 0 is moved by what would be 2 % of a step.
        usual = np.maximum(np.percentile(work / np.maximum(work[:, :1], 1), 95, axis=0), 1e-9)
        least = 0.02 * step_ms / np.maximum(usual, 1)
        scale = np.maximum(found, least)
        self._start = dict(zip(COLUMNS, found, strict=True))
        self._scale = dict(zip(COLUMNS, scale, strict=True))
        self._start[ABOVE] = self._start["step_per_sequence_ms"]
        self._scale[ABOVE] = self._scale["step_per_sequence_ms"]
        self._observed = [_features(point) for point in self.points]
        self._weights = [_weights(point) for point in self.points]

    def config(self, values: dict[str, float], terms: Terms, step_cv: float = 0) -> EngineConfig:
        """Return the engine with those times."""
        bend = {"batch_bend": terms.bend} if terms.bend else {}
        times = {name: float(values[name]) for name in terms.names}
        return EngineConfig.model_validate({**self.bounds, **times, **bend, "step_cv": step_cv})

    def fit(self, terms: Terms, chosen: Sequence[int], near: Fitted | None = None) -> Fitted:
        """Return the engine whose log errors at the chosen points are least, by Gauss-Newton.

        The errors are those of `_features`, robustly weighed; damped as Levenberg and Marquardt do.
        """
        start = self._start | (near.values if near else {})
        scale = np.array([self._scale[name] for name in terms.names])
        at = np.array([start[name] for name in terms.names]) / scale
        at[0] = max(at[0], 0.01)

        def residuals(x: Array) -> Array:
            return self._residuals(dict(zip(terms.names, x * scale, strict=True)), terms, chosen)

        found, errors, slopes = _descend(residuals, at)
        groups = np.repeat(np.arange(len(chosen)), [len(self._observed[i]) for i in chosen])
        sigmas = _jackknife(errors, slopes, groups)
        return Fitted(
            terms,
            dict(zip(terms.names, (found * scale).tolist(), strict=True)),
            {
                name: None if sigma is None else float(2 * sigma * size)
                for name, sigma, size in zip(terms.names, sigmas, scale, strict=True)
            },
            _huber(errors) / max(len(errors), 1),
        )

    def loss(self, fitted: Fitted, chosen: Sequence[int]) -> float:
        """Return the mean loss of an engine at the chosen points."""
        errors = self._residuals(fitted.values, fitted.terms, chosen)
        return _huber(errors) / len(errors)

    def _residuals(self, values: dict[str, float], terms: Terms, chosen: Sequence[int]) -> Array:
        config = self.config(values, terms)
        twins = [_features(simulate(config, self.points[i])) for i in chosen]
        return np.concatenate(
            [
                self._weights[i] * (twin - self._observed[i])
                for twin, i in zip(twins, chosen, strict=True)
            ]
        )

    # ------------------------------------------------------------------------------
    # Held-out points
    # ------------------------------------------------------------------------------

    def halves(self) -> list[list[int]]:
        """Return the numbers of every second point, and of the others."""
        count = len(self.points)
        return [list(range(0, count, 2)), list(range(1, count, 2))]

    def held_out(self, terms: Terms, near: Sequence[Fitted] | None = None) -> "HeldOut":
        """Fit each half, and judge it by the other."""
        halves = self.halves()
        starts = near or (None, None)
        fits = [self.fit(terms, half, start) for half, start in zip(halves, starts, strict=True)]
        losses = [self.loss(fit, other) for fit, other in zip(fits, reversed(halves), strict=True)]
        sizes = [len(half) for half in reversed(halves)]
        return HeldOut(terms, fits, float(np.average(losses, weights=sizes)))

    def choose(self, say: Say) -> "HeldOut":
        """Return the fits with the terms that pay: of all of them, those that do not are left out.

        Not the other way round: of two terms that belong together neither may pay alone.
        """
        best = self.held_out(Terms(COLUMNS[4:]))
        say(f"held-out error {best.error:.1%} with {best.terms}")
        for bend in self._bends():
            bent = self.held_out(replace(best.terms, bend=bend), best.fits)
            if bent.error < PAYS * best.error and best.error > PRECISE:
                best = bent
                say(f"held-out error {best.error:.1%} with {best.terms}")
        for name in best.terms.extra:
            fewer = tuple(other for other in best.terms.extra if other != name)
            without = self.held_out(replace(best.terms, extra=fewer), best.fits)
            if without.error < max(best.error / PAYS, PRECISE):
                best = without
                say(f"held-out error {best.error:.1%} with {best.terms}")
        return best

    def _bends(self) -> list[int]:
        """Return where a bend has points on both sides of it."""
        sizes = sorted({min(p.load.clients, len(p.requests)) for p in self.points})
        return [size for size in sizes if FEWEST_TO_BEND <= size < sizes[-1]]

    def spread(self, fitted: Fitted, chosen: Sequence[int]) -> float:
        """Return the coefficient of variation of steps that the twin lacks at the chosen points.

        That of the load's own, such as steps with a prefill, is what the twin has too.
        """
        config = self.config(fitted.values, fitted.terms)
        found = [
            _step_variance(point) - _step_variance(simulate(config, point))
            for point in (self.points[i] for i in chosen)
        ]
        return float(np.sqrt(max(np.median(found), 0)))

    def judge(self, held_out: "HeldOut") -> list[Compared]:
        """Compare each point with the engine that was fitted without it."""
        compared: dict[int, Compared] = {}
        halves = self.halves()
        for fitted, half, other in zip(held_out.fits, halves, reversed(halves), strict=True):
            step_cv = self.spread(fitted, half)
            config = self.config(fitted.values, fitted.terms, step_cv)
            real = [self.points[i] for i in other]
            pairs = compare(real, [simulate(config, point) for point in real])
            compared |= dict(zip(other, pairs, strict=True))
        return [compared[i] for i in sorted(compared)]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What two engines, each fitted to a half of the points, err by at the other half."""

    terms: Terms
    fits: list[Fitted]
    loss: float

    @property
    def error(self) -> float:
        """The relative error that has this loss."""
        loss = self.loss
        small = (2 * loss) ** 0.5
        return small if small <= TOLERANCE else loss / TOLERANCE + TOLERANCE / 2


def shortened(point: Point) -> Point:
    """Return a point with as many of its first requests as a fit looks at."""
    most = max(REQUESTS_A_CLIENT * point.load.clients, FEWEST_REQUESTS)
    ordered = sorted(point.requests, key=lambda request: request.start_ms)
    return point.model_copy(update={"requests": tuple(ordered[:most])})


def _features(point: Point) -> Array:
    """Return the logs of what a fit has to hit: TTFT, gaps and end-to-end times."""
    ttft = [request.ttft_ms for request in point.requests]
    e2e = [request.e2e_ms for request in point.requests]
    found = [np.mean(ttft), *np.percentile(ttft, (50, 90)), np.median(e2e)]
    if gaps := all_gaps(point):
        found += [np.mean(gaps), np.median(gaps)]
    return np.log(np.maximum(found, 1e-3))


def _weights(point: Point) -> Array:
    """Return what the features weigh: less where few and scattered requests tell of one."""
    ttft = _uncertainty([request.ttft_ms for request in point.requests])
    e2e = _uncertainty([request.e2e_ms for request in point.requests])
    found = [ttft, ttft, ttft, e2e]
    if gaps := all_gaps(point):
        found += [_uncertainty(gaps)] * 2
    return np.array([SURE / math.hypot(SURE, error) for error in found])


def _uncertainty(values: Sequence[float]) -> float:
    """Return the standard error of a middle, in logs."""
    logs = np.log(np.maximum(values, 1e-3))
    low, high = np.percentile(logs, (16, 84))
    return float((high - low) / 2 / math.sqrt(len(logs)))


def _step_variance(point: Point) -> float:
    """Return the variance of a step, as a share of its square, from gaps and sums of them.

    The sum of n gaps has n times a step's variance, and twice that of an event's instant, however
    large n is; spreads are read off percentiles, as late reads are outliers.
    """
    spreads = []
    for size in (1, SUMMED):
        sums = [
            sum(request.gaps_ms[i : i + size])
            for request in point.requests
            for i in range(0, len(request.gaps_ms) - size + 1, size)
        ]
        if not sums:
            return 0.0
        low, middle, high = np.percentile(sums, (16, 50, 84))
        spreads.append(((high - low) / 2 / max(middle / size, 1e-3)) ** 2)
    return float(spreads[1] - spreads[0]) / (SUMMED - 1)


def _huber(errors: Array) -> float:
    """Return the sum of Huber's loss."""
    sizes = np.abs(errors)
    far = TOLERANCE * (sizes - TOLERANCE / 2)
    return float(np.where(sizes < TOLERANCE, sizes**2 / 2, far).sum())


def _descend(residuals: Callable[[Array], Array], at: Array) -> tuple[Array, Array, Array]:
    """Return where Huber's loss is least for parameters of at least 0, the errors and slopes."""
    errors, damping = residuals(at), 0.01
    slopes = _slopes(residuals, at, errors)
    for _ in range(ITERATIONS):
        weights = np.minimum(1, TOLERANCE / np.maximum(np.abs(errors), 1e-12))
        normal = slopes.T @ (weights[:, None] * slopes)
        pull = slopes.T @ (weights * errors)
        before = _huber(errors)
        for _ in range(6):
            damped = normal + damping * np.diag(np.diag(normal) + 1e-6)
            nearer = np.maximum(at - np.linalg.solve(damped, pull), 0)
            nearer[0] = max(nearer[0], 0.01)  # a step takes time
            tried = residuals(nearer)
            if _huber(tried) < before:
                break
            damping *= 5
        else:
            break
        at, errors, damping = nearer, tried, max(damping / 5, 1e-6)
        slopes = _slopes(residuals, at, errors)
        if _huber(errors) > before * CONVERGED:
            break
    return at, errors, slopes


def _slopes(residuals: Callable[[Array], Array], at: Array, errors: Array) -> Array:
    slopes = np.zeros((len(errors), len(at)))
    for i in range(len(at)):
        further = at.copy()
        further[i] += max(STEP * at[i], STEP)
        slopes[:, i] = (residuals(further) - errors) / (further[i] - at[i])
    return slopes


def _jackknife(errors: Array, slopes: Array, groups: NDArray[np.intp]) -> list[float | None]:
    """Return the standard errors of the parameters: how they move as each point is left out.

    One step of Gauss-Newton stands for each fit without a point. None is of a parameter without
    which, by 1 in 10,000, the errors would be the same.
    """
    weights = np.minimum(1, TOLERANCE / np.maximum(np.abs(errors), 1e-12))
    normal = slopes.T @ (weights[:, None] * slopes)
    size = np.sqrt(np.maximum(np.diag(normal), 1e-300))
    known = size > 1e-4
    moved = []
    for group in np.unique(groups):
        kept = groups != group
        part = slopes[kept]
        left = part.T @ (weights[kept, None] * part) + np.diag(1e-9 * size**2 + 1e-12)
        moved.append(np.linalg.solve(left, part.T @ (weights[kept] * errors[kept])))
    count = len(moved)
    variance = (count - 1) / count * ((np.array(moved) - np.mean(moved, axis=0)) ** 2).sum(axis=0)
    return [float(s) if k else None for s, k in zip(np.sqrt(variance), known, strict=True)]
