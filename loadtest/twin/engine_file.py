"""A whole fit, and the engine file that it writes: YAML that says where its figures come from."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

from emulator.engine.config import EngineConfig
from loadtest.twin.bounds import budgets, check_events, find_bounds
from loadtest.twin.comparison import MAX_ERROR, MEASURES, Compared, over_points
from loadtest.twin.fitting import Fitted, Fitter, Say, Terms
from loadtest.twin.sweep import Sweep, TwinError

UNSURE = 0.10  # of a parameter: a wider interval does not determine it
WIDTH = 96
BUDGET = "max_num_batched_tokens"
OVERHEAD = "request_overhead_ms"
TIME_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Report:
    """A fit and all that is to be said of it."""

    sweep: Sweep
    fitted: Fitted
    config: EngineConfig
    compared: Sequence[Compared]  # at points that the fit has not seen
    notes: Sequence[str]


def fit_sweep(sweep: Sweep, say: Say) -> Report:
    """Fit an engine to a sweep.

    Raises:
        TwinError: The sweep is too small, or the fit errs so much that it means nothing.
    """
    notes = [*sweep.known.notes, *check_events(sweep.points)]
    found = find_bounds(sweep)
    notes += found.notes
    bounds, points = found.bounds, sweep.points
    if not found.budget_is_known:
        fits = [Fitter(bounds | {BUDGET: budget}, points) for budget in budgets(points)]
        losses = [fitter.fit(Terms(), range(len(points))).loss for fitter in fits]
        bounds = fits[losses.index(min(losses))].bounds
        notes.append(f"{BUDGET} is the power of two whose engine errs least")
    fitter = Fitter(bounds, points)
    held_out = fitter.choose(say)
    fitted = fitter.fit(held_out.terms, range(len(points)), held_out.fits[0])
    fitted = _without_doubtful_overhead(fitted, notes)
    step_cv = round(fitter.spread(fitted, range(len(points))), 4)
    compared = fitter.judge(held_out)
    middle = over_points(compared, 50)
    worst = max(middle[f"{name} p50"] for name in MEASURES if f"{name} p50" in middle)
    if worst > MAX_ERROR:
        raise TwinError(
            f"the error on held-out points is {worst:.0%}: more noise than signal, and no engine "
            "is written. Was the server used by others, or did it change?"
        )
    return Report(
        sweep, fitted, fitter.config(fitted.values, fitted.terms, step_cv), compared, notes
    )


def _without_doubtful_overhead(fitted: Fitted, notes: list[str]) -> Fitted:
    """Return a fit with an overhead of 0 if it may as well be that.

    The others were fitted beside it, and stay: what a busy client adds to TTFT is in none of them.
    """
    value, interval = fitted.values.get(OVERHEAD), fitted.sigmas.get(OVERHEAD)
    if value is None or (interval is not None and value > interval):
        return fitted
    notes.append(f"{OVERHEAD} was fitted as {value:.2g}, which cannot be told from 0, and is 0")
    terms = replace(
        fitted.terms, extra=tuple(name for name in fitted.terms.extra if name != OVERHEAD)
    )
    values = {name: each for name, each in fitted.values.items() if name != OVERHEAD}
    return replace(fitted, terms=terms, values=values)


def parameter(fitted: Fitted, name: str) -> str:
    """Return a parameter's interval in words."""
    value, interval = fitted.values[name], fitted.sigmas[name]
    if interval is None:
        return "not determined: no load shows it"
    if value <= interval:
        return f"not determined: from 0 to {value + interval:.4g}"
    if interval > UNSURE * value:
        return f"not determined: +- {interval:.2g}, {interval / value:.0%}"
    return f"+- {interval:.2g}, {interval / value:.1%}"


def ranges(report: Report) -> list[str]:
    """Return beyond what the fit is a guess."""
    points = report.sweep.points
    lengths = [request.prompt_tokens for point in points for request in point.requests]
    clients = max(min(point.load.clients, len(point.requests)) for point in points)
    return [
        f"no prompt was under {min(lengths)} or over {max(lengths)} tokens, and no load had more "
        f"than {clients} clients: beyond that the engine is a guess"
    ]


def engine_file(report: Report) -> str:
    """Return the text of the file."""
    known, fitted = report.sweep.known, report.fitted
    requests = sum(len(point.requests) for point in report.sweep.points)
    middle, high = over_points(report.compared, 50), over_points(report.compared, 90)
    told = [
        f"{name} {middle[name]:.1%} ({high[name]:.1%})"
        for name in ("TTFT p50", "ITL p50", "E2E p50")
        if name in middle
    ]
    about = [
        f"Fitted by `python -m twin fit` to {known.model or 'a server'} at "
        f"{known.url or 'an address that is not known'}, measured {known.measured or 'some time'}: "
        f"{requests} requests in {len(report.sweep.points)} loads.",
        "Error at loads that the fit has not seen, median (and p90): " + ", ".join(told) + ".",
        *(f"{note}." for note in (*report.notes, *ranges(report))),
    ]
    lines = [f"# {line}" for text in about for line in textwrap.wrap(text, WIDTH)]
    shown = report.config.model_dump(exclude_defaults=True)
    shown |= {name: getattr(report.config, name) for name in fitted.values}
    shown.pop("source")
    source = f"a fit to {known.model or 'a server'}, {known.measured or 'undated'}"
    lines.append(f"source: {_quoted(source)}")
    lines += [_line(name, value, fitted) for name, value in shown.items()]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return a text as YAML has it, whatever is in it."""
    return "'" + " ".join(text.split()).replace("'", "''") + "'"


def _line(name: str, value: object, fitted: Fitted) -> str:
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, float):
        shown = f"{value:.{TIME_DIGITS}g}"
        # YAML 1.1 reads 2e-05 as a text: a number there has a point.
        if "e" in shown and "." not in shown:
            shown = shown.replace("e", ".0e")
    comment = f"  # {parameter(fitted, name)}" if name in fitted.values else ""
    return f"{name}: {shown}{comment}"
