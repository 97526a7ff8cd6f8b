"""What a fit makes of sweeps whose engine is known, and of a real vLLM's."""

from pathlib import Path

import pytest

from emulator.engine.config import EngineConfig, load_engine
from loadtest.twin.comparison import over_points
from loadtest.twin.engine_file import Report, engine_file, fit_sweep, parameter
from loadtest.twin.fitting import BASE, Fitter, Terms
from loadtest.twin.simulated import simulate
from loadtest.twin.sweep import Known, Point, Request, Sweep, TwinError, read_sweep
from tests.twin.making import burst, config, measured, usual_loads

VLLM = Path(__file__).parent / "data" / "vllm.jsonl"
LATE_MS = 0.3  # of a client's reads
BOUNDS = ("max_num_seqs", "max_num_batched_tokens", "kv_blocks", "block_size", "prefix_caching")


def told(engine: EngineConfig, sweep: Sweep) -> Sweep:
    """Return a sweep of a server that told its bounds."""
    bounds = {name: getattr(engine, name) for name in BOUNDS}
    return sweep.model_copy(update={"known": Known(model="m", **bounds)})


def quiet(_: str) -> None:
    """Say nothing."""


def fitted(engine: EngineConfig, late_ms: float = LATE_MS) -> Report:
    """Return the fit to an engine whose bounds are known."""
    return fit_sweep(told(engine, measured(engine, usual_loads(), late_ms)), quiet)


@pytest.mark.parametrize("name", ["paper", "blis-llama-3.1-8b-h100-tp2"])
def test_fit_recovers_an_engine(name: str) -> None:
    """Each of the four terms is found within 3 %, or said to be not determined."""
    engine = load_engine(name)
    report = fitted(engine)
    for term in BASE:
        if "not determined" not in parameter(report.fitted, term):
            assert report.fitted.values[term] == pytest.approx(getattr(engine, term), rel=0.03)
    assert "not determined" not in parameter(report.fitted, "step_base_ms")
    assert "not determined" not in parameter(report.fitted, "step_per_prefill_token_ms")


def test_fit_finds_the_terms_that_pay() -> None:
    """A quadratic prefill and an overhead are found, with the error that is said, and no others."""
    engine = config(
        step_per_prefill_token_ms=0.02,
        step_per_prefill_token_squared_ms=3e-5,
        request_overhead_ms=8.0,
        max_num_seqs=64,
    )
    report = fitted(engine)
    assert set(report.fitted.terms.extra) == {
        "step_per_prefill_token_squared_ms",
        "request_overhead_ms",
    }
    for term in (*report.fitted.terms.extra, "step_per_prefill_token_ms"):
        assert report.fitted.values[term] == pytest.approx(getattr(engine, term), rel=0.05)


def test_fit_finds_the_spread_of_steps() -> None:
    """The spread of a step is found beside late reads, which have none."""
    engine = config(step_cv=0.1, max_num_seqs=64)
    assert fitted(engine).config.step_cv == pytest.approx(0.1, abs=0.03)
    assert fitted(config(max_num_seqs=64)).config.step_cv < 0.01


def test_fit_finds_the_bounds() -> None:
    """The most sequences and tokens of a step are read off the loads, and said to be."""
    engine = config(max_num_seqs=12, max_num_batched_tokens=1024, kv_blocks=100_000)
    report = fit_sweep(measured(engine, usual_loads(), LATE_MS), quiet)
    assert report.config.max_num_seqs == 12
    assert report.config.max_num_batched_tokens == 1024
    notes = " ".join(report.notes)
    assert "max_num_seqs is the most answers that ran at once, of 32 clients" in notes
    assert "kv_blocks is a guess" in notes


def test_fit_is_robust() -> None:
    """One load in twelve that was disturbed by others moves no term by more than 3 %."""
    engine = config(max_num_seqs=64)
    sweep = told(engine, measured(engine, usual_loads(), LATE_MS))
    slow = [disturbed(p, 2) if i == 5 else p for i, p in enumerate(sweep.points)]
    report = fit_sweep(sweep.model_copy(update={"points": tuple(slow)}), quiet)
    for term in BASE[:3]:
        assert report.fitted.values[term] == pytest.approx(getattr(engine, term), rel=0.03)


def disturbed(point: Point, factor: float) -> Point:
    """Return a point with all times longer."""
    requests = [
        Request(
            start_ms=request.start_ms * factor,
            prompt_tokens=request.prompt_tokens,
            output_tokens=request.output_tokens,
            ttft_ms=request.ttft_ms * factor,
            gaps_ms=tuple(gap * factor for gap in request.gaps_ms),
        )
        for request in point.requests
    ]
    return point.model_copy(update={"requests": tuple(requests)})


def test_noise_is_refused() -> None:
    """Loads that have nothing to do with each other are no engine, in words that say so."""
    engine = config(max_num_seqs=64)
    sweep = told(engine, measured(engine, usual_loads(), LATE_MS))
    noisy = [disturbed(p, (0.3, 1, 3)[i % 3]) for i, p in enumerate(sweep.points)]
    with pytest.raises(TwinError, match="more noise than signal, and no engine"):
        fit_sweep(sweep.model_copy(update={"points": tuple(noisy)}), quiet)


def test_too_few_loads_are_refused() -> None:
    """Three loads are no sweep."""
    sweep = measured(config(), [burst(size) for size in (2, 4, 8)], LATE_MS)
    with pytest.raises(TwinError, match="expected at least 4 loads in the sweep, but got 3"):
        fit_sweep(sweep, quiet)


def test_events_of_several_tokens_are_refused() -> None:
    """Where an event has two tokens no step can be seen, and the message says how many it has."""
    sweep = measured(config(), usual_loads(), LATE_MS)
    doubled = tuple(
        point.model_copy(
            update={
                "requests": tuple(
                    r.model_copy(update={"output_tokens": 2 * r.output_tokens})
                    for r in point.requests
                )
            }
        )
        for point in sweep.points
    )
    with pytest.raises(TwinError, match=r"2\.00 tokens an event"):
        fit_sweep(sweep.model_copy(update={"points": doubled}), quiet)


def test_a_fit_is_an_engine_file(tmp_path: Path) -> None:
    """The file that a fit writes is read as an engine, and says where it comes from."""
    report = fitted(config(max_num_seqs=64))
    path = tmp_path / "mine.yaml"
    path.write_text(engine_file(report))
    engine = load_engine(str(path))
    for name in BASE:
        assert getattr(engine, name) == pytest.approx(getattr(report.config, name), rel=1e-4)
    text = " ".join(path.read_text().replace("#", " ").split())
    assert f"{len(report.sweep.points)} loads" in text
    assert "no prompt was under 50 or over 2000 tokens, and no load had more than 32" in text


def test_a_real_vllm() -> None:
    """A real vLLM's loads are foretold by fits to the other half of them.

    The medians are over the 21 loads of the sweep; the terms are those that `choose` finds, which
    the slow test runs in whole.
    """
    sweep = read_sweep(VLLM)
    bounds = {name: getattr(sweep.known, name) for name in BOUNDS} | {"source": "a fit"}
    fitter = Fitter(bounds, sweep.points)
    terms = Terms(("step_per_prefill_token_squared_ms", "request_overhead_ms"), bend=32)
    compared = fitter.judge(fitter.held_out(terms))
    loads = [one for one, p in zip(compared, sweep.points, strict=True) if p.load.output_tokens > 4]
    middle, high = over_points(loads, 50), over_points(loads, 90)
    assert len(loads) == 21
    assert middle["ITL p50"] < 0.05
    assert middle["TTFT p50"] < 0.07
    assert middle["E2E p50"] < 0.05
    assert high["ITL p50"] < 0.12
    assert high["TTFT p50"] < 0.25
    assert high["E2E p50"] < 0.12


@pytest.mark.slow
def test_a_real_vllm_has_three_more_terms() -> None:
    """Held-out loads choose a quadratic prefill, an overhead and a bend at 32 sequences."""
    report = fit_sweep(read_sweep(VLLM), quiet)
    assert set(report.fitted.terms.extra) == {
        "step_per_prefill_token_squared_ms",
        "request_overhead_ms",
    }
    assert report.fitted.terms.bend == 32


def test_simulation_repeats_what_it_was_given() -> None:
    """An engine's own sweep, simulated again, has the same times for closed loads and bursts."""
    engine = config(max_num_seqs=64)
    sweep = measured(engine, [*usual_loads(), burst(20)], late_ms=0)
    for point in sweep.points:
        again = simulate(engine, point)
        for one, other in zip(point.requests, again.requests, strict=True):
            assert other.ttft_ms == pytest.approx(one.ttft_ms)
            assert other.gaps_ms == pytest.approx(one.gaps_ms)
