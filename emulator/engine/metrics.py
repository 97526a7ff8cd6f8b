"""An engine's metrics, with the names, types, labels and buckets that vLLM 0.32 gives its own.

prometheus_client keeps them in files that all workers share; the label ``engine`` is the worker's.
"""

import asyncio
from collections import Counter as Count
from collections.abc import Iterable, Sequence
from typing import Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from emulator.engine.config import EngineConfig
from emulator.engine.runner import TimedSequence
from emulator.engine.scheduler import Scheduler, Step

PREFIX = "vllm:"
LABELS = ("model_name", "engine")

# Models that get a label of their own; a client could make up any number of names, of any length.
MAX_MODELS = 64
MAX_MODEL_NAME = 256
OTHER_MODELS = "other"

# What a gauge tells is at most this old.
GAUGES_EVERY_S = 0.05

# All that vLLM knows, each of which is there from the start; those of the last two never end so.
ALL_REASONS = ("stop", "length", "abort", "error", "repetition")
# vLLM's engine knows no tool calls: to it, those answers have stopped.
FINISHED_REASONS = {"length": "length", "abort": "abort"}

TTFT_BUCKETS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
ITL_BUCKETS_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0),
)
REQUEST_BUCKETS_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)


class Tally(Protocol):
    """Adds up, and hands the sums to prometheus_client a few times a second."""

    def add(self, target: Counter, amount: float = 1) -> None:
        """Add `amount` to a counter."""

    def observe(self, histogram: Histogram, value: float, times: int = 1) -> None:
        """Add `value` to a histogram that many times."""


class EngineMetrics:
    """Tells of each step of an engine.

    Args:
        scheduler: The engine.
        tally: What adds up.
        engine: The worker's number.
        models: Those whose series are there, at 0, before the first request.
        registry: Where the metrics are known.
    """

    def __init__(
        self,
        scheduler: Scheduler[TimedSequence],
        tally: Tally,
        engine: str,
        models: Iterable[str] = (),
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self._scheduler = scheduler
        self._tally = tally
        self._engine = engine
        self._metrics = Metrics(registry)
        self._models: dict[str, ModelMetrics] = {}
        self._gauges_due = False
        self._metrics.tell_cache(scheduler.config, engine)
        for model in models:
            self.of(model)

    def of(self, model: str) -> "ModelMetrics":
        """Return the metrics with a model's label: its own, or that of all others."""
        found = self._models.get(model)
        if found is None:
            if len(self._models) >= MAX_MODELS or len(model) > MAX_MODEL_NAME:
                model = OTHER_MODELS
            found = self._models.get(model) or ModelMetrics(self._metrics, model, self._engine)
            self._models[model] = found
        return found

    def see(self, step: Step[TimedSequence]) -> None:
        """Count what a step did, once its tokens have been handed out."""
        add = self._tally.add
        for sequence in step.preempted:
            add(self.of(sequence.model).preemptions)
        for sequence in step.admitted:
            if not sequence.preemptions and self._scheduler.config.prefix_caching:
                metrics = self.of(sequence.model)
                add(metrics.prefix_queries, sequence.prompt_tokens)
                add(metrics.prefix_hits, sequence.cached_tokens)
        for sequence in step.prefilled:
            self._see_prefilled(sequence, step.end_s)
        for model, count in self._count(step.advanced).items():
            add(self.of(model).generation_tokens, count)
        decoded = step.advanced[: len(step.advanced) - len(step.prefilled)]
        for model, count in self._count(decoded).items():
            # Those that decode had their last token when this step started.
            self._tally.observe(self.of(model).itl, step.end_s - step.start_s, count)
        for sequence in step.finished:
            metrics = self.of(sequence.model)
            add(metrics.finished(sequence.finish_reason))
            self._tally.observe(metrics.e2e, step.end_s - sequence.arrival_s)
            self._tally.observe(metrics.queue, (sequence.admitted_s or 0) - sequence.arrival_s)
        self.touch()

    def see_left(self, sequence: TimedSequence) -> None:
        """Count a sequence whose client has gone away."""
        self._tally.add(self.of(sequence.model).finished("abort"))
        self.touch()

    def touch(self) -> None:
        """Bring the gauges up to date soon: a request has come or gone."""
        if not self._gauges_due:
            self._gauges_due = True
            asyncio.get_running_loop().call_later(GAUGES_EVERY_S, self.set_gauges)

    def set_gauges(self) -> None:
        """Bring the gauges up to date."""
        self._gauges_due = False
        scheduler = self._scheduler
        running, waiting = self._count(scheduler.running), self._count(scheduler.waiting)
        usage = scheduler.pool.held / scheduler.pool.blocks
        for model, metrics in self._models.items():
            metrics.running.set(running[model])
            metrics.waiting.set(waiting[model])
            metrics.cache_usage.set(usage)

    def _see_prefilled(self, sequence: TimedSequence, end_s: float) -> None:
        metrics = self.of(sequence.model)
        if len(sequence.due_s) > 1:  # it was preempted between the two
            self._tally.observe(metrics.itl, end_s - sequence.due_s[-2])
            return
        self._tally.observe(metrics.ttft, end_s - sequence.arrival_s)
        if sequence.is_first_choice:
            self._tally.add(metrics.prompt_tokens, sequence.prompt_tokens)

    def _count(self, sequences: Iterable[TimedSequence]) -> Count[str]:
        """Return how many sequences there are of each model that has a label."""
        counts = Count(sequence.model for sequence in sequences)
        unlabelled = [model for model in counts if model not in self._models]
        for model in unlabelled:
            label = self.of(model).model
            if label != model:
                counts[label] += counts.pop(model)
        return counts


class Metrics:
    """The metrics themselves, without their labels' values."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.running = self._gauge(
            "num_requests_running", "Number of requests in model execution batches."
        )
        self.waiting = self._gauge(
            "num_requests_waiting", "Number of requests waiting to be processed."
        )
        self.cache_usage = self._gauge(
            "kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage."
        )
        self.preemptions = self._counter(
            "num_preemptions", "Cumulative number of preemption from the engine."
        )
        self.prompt_tokens = self._counter("prompt_tokens", "Number of prefill tokens processed.")
        self.generation_tokens = self._counter(
            "generation_tokens", "Number of generation tokens processed."
        )
        self.success = self._counter(
            "request_success", "Count of successfully processed requests.", "finished_reason"
        )
        self.prefix_queries = self._counter(
            "prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens."
        )
        self.prefix_hits = self._counter(
            "prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens."
        )
        self.ttft = self._histogram(
            "time_to_first_token_seconds",
            "Histogram of time to first token in seconds.",
            TTFT_BUCKETS_S,
        )
        self.itl = self._histogram(
            "inter_token_latency_seconds",
            "Histogram of inter-token latency in seconds.",
            ITL_BUCKETS_S,
        )
        self.e2e = self._histogram(
            "e2e_request_latency_seconds",
            "Histogram of e2e request latency in seconds.",
            REQUEST_BUCKETS_S,
        )
        self.queue = self._histogram(
            "request_queue_time_seconds",
            "Histogram of time spent in WAITING phase for request.",
            REQUEST_BUCKETS_S,
        )

    def tell_cache(self, config: EngineConfig, engine: str) -> None:
        """Set what describes the cache; as vLLM's, it has no model's name."""
        labels = {
            "block_size": str(config.block_size),
            "enable_prefix_caching": str(config.prefix_caching),
            "num_gpu_blocks": str(config.kv_blocks),
            "engine": engine,
        }
        Gauge(
            f"{PREFIX}cache_config_info",
            "Information of the LLMEngine CacheConfig",
            list(labels),
            registry=self._registry,
            multiprocess_mode="livesum",
        ).labels(**labels).set(1)

    def _gauge(self, name: str, documentation: str) -> Gauge:
        # Of a worker that was killed nothing is left in a "live" gauge, and no two have a label.
        return Gauge(
            PREFIX + name,
            documentation,
            LABELS,
            registry=self._registry,
            multiprocess_mode="livesum",
        )

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, documentation, [*LABELS, *labels], registry=self._registry)

    def _histogram(self, name: str, documentation: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(
            PREFIX + name, documentation, LABELS, registry=self._registry, buckets=buckets
        )


class ModelMetrics:
    """The metrics with the labels of one model and one engine."""

    def __init__(self, metrics: Metrics, model: str, engine: str) -> None:
        self.model = model
        labels = (model, engine)
        self._succeeded = {
            reason: metrics.success.labels(*labels, reason) for reason in ALL_REASONS
        }
        self.running = metrics.running.labels(*labels)
        self.waiting = metrics.waiting.labels(*labels)
        self.cache_usage = metrics.cache_usage.labels(*labels)
        self.preemptions = metrics.preemptions.labels(*labels)
        self.prompt_tokens = metrics.prompt_tokens.labels(*labels)
        self.generation_tokens = metrics.generation_tokens.labels(*labels)
        self.prefix_queries = metrics.prefix_queries.labels(*labels)
        self.prefix_hits = metrics.prefix_hits.labels(*labels)
        self.ttft = metrics.ttft.labels(*labels)
        self.itl = metrics.itl.labels(*labels)
        self.e2e = metrics.e2e.labels(*labels)
        self.queue = metrics.queue.labels(*labels)

    def finished(self, reason: str) -> Counter:
        """Return the counter of those that ended like this."""
        return self._succeeded[FINISHED_REASONS.get(reason, "stop")]
