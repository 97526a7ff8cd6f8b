"""An engine's metrics beside those of a real vLLM 0.32, and what its dashboard asks for."""

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from emulator.engine.config import EngineConfig, load_engine
from emulator.engine.metrics import EngineMetrics, Metrics
from emulator.engine.request_metrics import token_buckets
from emulator.engine.runner import Choices, EngineRunner, TimedSequence
from emulator.engine.scheduler import Scheduler
from emulator.metrics import Tally
from tests.support.simulated.loop import run_simulated, wait_until

DATA = Path(__file__).parent / "data"
# What a real one tells and the emulator does not: why.
NOT_HERE = {
    "vllm:estimated_flops_per_gpu_total": "there is no GPU whose work could be estimated",
    "vllm:estimated_read_bytes_per_gpu_total": "as before",
    "vllm:estimated_write_bytes_per_gpu_total": "as before",
    "vllm:admission_rejections_total": "no flag bounds the queue; the engine's own bound is a 503",
    "vllm:tool_call_parser_invocations_total": "calls are not parsed out of a text",
    "vllm:cache_config_info": "tells the sizes alone, which gateways read",
}
# The panels of vLLM's own dashboard (examples/observability/prometheus_grafana/grafana.json in
# its repository), and the series that each of them asks for.
PANELS = {
    "E2E Request Latency": (
        "e2e_request_latency_seconds_bucket",
        "e2e_request_latency_seconds_sum",
        "e2e_request_latency_seconds_count",
    ),
    "Token Throughput": ("prompt_tokens_total", "generation_tokens_total"),
    "Inter Token Latency": (
        "inter_token_latency_seconds_bucket",
        "inter_token_latency_seconds_sum",
        "inter_token_latency_seconds_count",
    ),
    "Scheduler State": ("num_requests_running", "num_requests_waiting"),
    "Time To First Token Latency": (
        "time_to_first_token_seconds_bucket",
        "time_to_first_token_seconds_sum",
        "time_to_first_token_seconds_count",
    ),
    "Cache Utilization": ("kv_cache_usage_perc",),
    "Request Prompt Length": ("request_prompt_tokens_bucket",),
    "Request Generation Length": ("request_generation_tokens_bucket",),
    "Finish Reason": ("request_success_total",),
    "Queue Time": ("request_queue_time_seconds_sum",),
    "Requests Prefill and Decode Time": (
        "request_prefill_time_seconds_sum",
        "request_decode_time_seconds_sum",
    ),
    "Max Generation Token in Sequence Group": ("request_max_num_generation_tokens_sum",),
}


class Engine:
    """An engine of model m whose metrics are in a registry of their own."""

    def __init__(self, config: EngineConfig) -> None:
        self.registry, self.tally = CollectorRegistry(), Tally()
        scheduler = Scheduler[TimedSequence](config)
        metrics = EngineMetrics(
            scheduler, self.tally, "0", Metrics(config.max_model_len, self.registry), ["m"]
        )
        self.runner = EngineRunner(scheduler, wait_until, observe=metrics.see)

    def series(self) -> dict[str, list[dict[str, str]]]:
        """Return the labels of each series, by its name."""
        found: dict[str, list[dict[str, str]]] = {}
        for family in self.registry.collect():
            for sample in family.samples:
                found.setdefault(sample.name, []).append(sample.labels)
        return found

    def value(self, name: str, **labels: str) -> float | None:
        """Return a metric's value."""
        labels = {"model_name": "m", "engine": "0", **labels}
        return self.registry.get_sample_value(f"vllm:{name}", labels)


@pytest.fixture(scope="module")
def fresh() -> Engine:
    """Return an engine of vLLM's context that nobody has asked anything."""
    return Engine(load_engine(str(DATA / "engine.yaml")))


ROWS = [line.split("\t") for line in (DATA / "metrics.tsv").read_text().splitlines()[1:]]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_family_is_vllms(fresh: Engine, row: list[str]) -> None:
    """A family has vLLM's labels and buckets before the first request, or is known to be absent."""
    name, kind, labels, buckets = [*row, "", ""][:4]
    series = fresh.series()
    of_kind = f"{name}_bucket" if kind == "histogram" else name
    if name in NOT_HERE:
        assert of_kind not in series or name == "vllm:cache_config_info"
        return
    for label in labels.split():
        key, _, values = label.partition("=")
        assert {each[key] for each in series[of_kind]} == set(values.split("|"))
    if buckets:
        assert [each["le"] for each in series[of_kind]] == buckets.split()


@pytest.mark.parametrize("panel", PANELS)
def test_panel_of_vllms_dashboard_is_not_empty(fresh: Engine, panel: str) -> None:
    """Each series that a panel of vLLM's own dashboard asks for is there, with its model."""
    series = fresh.series()
    for name in PANELS[panel]:
        assert all(labels["model_name"] == "m" for labels in series[f"vllm:{name}"])


def test_requests_are_told_as_they_were() -> None:
    """What is told of ended requests is what they were: tokens, times, choices and limits."""
    config = load_engine("paper").model_copy(update={"prefix_caching": True})

    async def main() -> Engine:
        engine = Engine(config)
        keys = [("block", number) for number in range(10)]
        now_s = asyncio.get_running_loop().time()
        first = TimedSequence(105, 3, now_s, keys, model="m", max_tokens=50)
        await _ended(engine, [first])
        pair = Choices(2, 2)
        now_s = asyncio.get_running_loop().time()
        await _ended(
            engine,
            [
                TimedSequence(105, tokens, now_s, keys, model="m", max_tokens=50, choices=pair)
                for tokens in (2, 5)
            ],
        )
        engine.tally.flush()
        return engine

    engine = run_simulated(main())
    assert engine.value("request_prompt_tokens_sum") == 3 * 105
    assert engine.value("request_generation_tokens_sum") == 3 + 2 + 5
    assert engine.value("request_max_num_generation_tokens_sum") == 3 + 5
    assert engine.value("request_params_n_sum") == 1 + 2
    assert engine.value("request_params_max_tokens_sum") == 3 * 50
    assert engine.value("request_prefill_kv_computed_tokens_sum") == 105 + 5 + 5
    # 10 ms a step, 0.05 for each token of the prompt, 1 for each sequence
    assert engine.value("request_prefill_time_seconds_sum") == pytest.approx(
        (10 + 105 * 0.05 + 1) / 1000 + 2 * (10 + 2 * 5 * 0.05 + 2) / 1000
    )
    assert engine.value("request_decode_time_seconds_sum") == pytest.approx(
        2 * 0.011 + 0.012 + (0.012 + 3 * 0.011)
    )
    assert engine.value("iteration_tokens_total_sum") == 3 * 105 + 3 + 2 + 5
    assert engine.value("prompt_tokens_by_source_total", source="local_cache_hit") == 2 * 100


async def _ended(engine: Engine, sequences: list[TimedSequence]) -> None:
    """Run sequences to their ends, which are under a second away."""
    engine.runner.submit(sequences)
    await asyncio.sleep(1)
    assert all(len(each.due_s) == each.output_tokens for each in sequences)


@pytest.mark.parametrize(("most", "last"), [(1, 1.0), (4096, 2000.0), (5000, 5000.0)])
def test_buckets_of_tokens_end_at_the_context(most: int, last: float) -> None:
    """The buckets of token counts are 1, 2, 5 and so on, up to the context's length."""
    assert token_buckets(most)[-1] == last
