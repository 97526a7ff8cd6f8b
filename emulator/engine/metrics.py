"""An engine's metrics, with the names, types, labels and buckets of vLLM 0.32.

prometheus_client keeps them in files that all workers share; each engine of each worker has a
label ``engine`` of its own.
"""

import asyncio
from collections import Counter as Count
from collections.abc import Iterable
from functools import partial

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from emulator.engine.config import EngineConfig
from emulator.engine.request_metrics import ModelRequests, RequestMetrics
from emulator.engine.runner import TimedSequence
from emulator.engine.scheduler import Scheduler, Step
from emulator.metrics import Tally

LABELS = ("model_name", "engine")

# The most models with their own label, as clients can make up any number of long names.
MAX_MODELS = 64
MAX_MODEL_NAME = 256
OTHER_MODELS = "other"

# The most time for which a gauge is out of date.
GAUGES_EVERY_S = 0.05

# vLLM's reasons, whose series exist from the start; the last two never occur here.
ALL_REASONS = ("stop", "length", "abort", "error", "repetition")
# Other reasons are "stop": vLLM's engine knows no tool calls.
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


class EngineMetrics:
    """Counts the steps of an engine.

    ``queried`` and ``hit`` are the tokens that were looked up in its cache, and found.

    Args:
        scheduler: The engine.
        tally: Adds up the increments.
        engine: The label ``engine``.
        metrics: The metrics, which all engines of this worker share.
        models: Models whose series exist before the first request.
    """

    def __init__(
        self,
        scheduler: Scheduler[TimedSequence],
        tally: Tally,
        engine: str,
        metrics: "Metrics",
        models: Iterable[str] = (),
    ) -> None:
        self.scheduler = scheduler
        self.queried = self.hit = self.preempted = 0
        self._tally = tally
        self._engine = engine
        self._metrics = metrics
        self._models: dict[str, ModelMetrics] = {}
        self._gauges_due = False
        metrics.tell_cache(scheduler.config, engine)
        for model in models:
            self.of(model)

    def of(self, model: str) -> "ModelMetrics":
        """Return the metrics of a model, or those for all other models."""
        found = self._models.get(model)
        if found is None:
            if len(self._models) >= MAX_MODELS or len(model) > MAX_MODEL_NAME:
                model = OTHER_MODELS
            found = self._models.get(model) or ModelMetrics(self._metrics, model, self._engine)
            self._models[model] = found
        return found

    def see(self, step: Step[TimedSequence]) -> None:
        """Count a step, after its tokens have been handed out."""
        add = self._tally.add
        for sequence in step.preempted:
            self.preempted += 1
            add(self.of(sequence.model).preemptions)
        for sequence in step.admitted:
            if not sequence.preemptions and self.scheduler.config.prefix_caching:
                metrics = self.of(sequence.model)
                self.queried += sequence.prompt_tokens
                self.hit += sequence.cached_tokens
                add(metrics.prefix_queries, sequence.prompt_tokens)
                add(metrics.prefix_hits, sequence.cached_tokens)
        for sequence in step.prefilled:
            self._see_prefilled(sequence, step.end_s)
        for model, count in self._count(step.advanced).items():
            add(self.of(model).generation_tokens, count)
        decoded = step.advanced[: len(step.advanced) - len(step.prefilled)]
        for model, count in self._count(decoded).items():
            # Sequences that decode got their previous token at the start of this step.
            self._tally.observe(self.of(model).itl, step.end_s - step.start_s, count)
        self._see_step(step)
        for sequence in step.finished:
            metrics = self.of(sequence.model)
            metrics.requests.see_finished(self._tally, sequence, step.end_s)
            add(metrics.finished(sequence.finish_reason))
            self._tally.observe(metrics.e2e, step.end_s - sequence.arrival_s)
            self._tally.observe(metrics.queue, (sequence.admitted_s or 0) - sequence.queued_s)
        self.touch()

    def _see_step(self, step: Step[TimedSequence]) -> None:
        """Count the tokens of a step: of answers, and of prompts that are computed with it."""
        tokens = self._count(step.advanced)
        for sequence in step.prefilled:
            if len(sequence.due_s) == 1:
                tokens[self.of(sequence.model).model] += sequence.prompt_tokens
        for model, count in tokens.items():
            self.of(model).requests.see_step(self._tally, count)

    def see_left(self, sequence: TimedSequence) -> None:
        """Count a sequence whose client has left."""
        self._tally.add(self.of(sequence.model).finished("abort"))
        self.touch()

    def touch(self) -> None:
        """Update the gauges soon."""
        if not self._gauges_due:
            self._gauges_due = True
            asyncio.get_running_loop().call_later(GAUGES_EVERY_S, self.set_gauges)

    def set_gauges(self) -> None:
        """Update the gauges."""
        self._gauges_due = False
        scheduler = self.scheduler
        running, waiting = self._count(scheduler.running), self._count(scheduler.waiting)
        usage = scheduler.pool.held / scheduler.pool.blocks
        for model, metrics in self._models.items():
            metrics.running.set(running[model])
            metrics.waiting.set(waiting[model])
            metrics.requests.waiting.set(waiting[model])
            metrics.cache_usage.set(usage)

    def _see_prefilled(self, sequence: TimedSequence, end_s: float) -> None:
        metrics = self.of(sequence.model)
        if len(sequence.due_s) > 1:  # it was preempted in between
            self._tally.observe(metrics.itl, end_s - sequence.due_s[-2])
            return
        self._tally.observe(metrics.ttft, end_s - sequence.arrival_s)
        if sequence.is_first_choice:
            self._tally.add(metrics.prompt_tokens, sequence.prompt_tokens)
            metrics.requests.see_prompt(self._tally, sequence)

    def _count(self, sequences: Iterable[TimedSequence]) -> Count[str]:
        """Return the number of sequences by the label of their model."""
        counts = Count(sequence.model for sequence in sequences)
        unlabelled = [model for model in counts if model not in self._models]
        for model in unlabelled:
            label = self.of(model).model
            if label != model:
                counts[label] += counts.pop(model)
        return counts


class Metrics:
    """The metrics, without values for their labels; a registry has them once."""

    def __init__(self, max_model_len: int, registry: CollectorRegistry = REGISTRY) -> None:
        self.requests = RequestMetrics(
            registry, LABELS, REQUEST_BUCKETS_S, ITL_BUCKETS_S, max_model_len
        )
        # "livesum" leaves out killed workers; it adds nothing up, as each engine has its own label.
        gauge = partial(Gauge, registry=registry, multiprocess_mode="livesum")
        counter = partial(Counter, registry=registry)
        histogram = partial(Histogram, labelnames=LABELS, registry=registry)
        self.running = gauge(
            "vllm:num_requests_running", "Number of requests in model execution batches.", LABELS
        )
        self.waiting = gauge(
            "vllm:num_requests_waiting", "Number of requests waiting to be processed.", LABELS
        )
        self.cache_usage = gauge(
            "vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", LABELS
        )
        self.preemptions = counter(
            "vllm:num_preemptions", "Cumulative number of preemption from the engine.", LABELS
        )
        self.prompt_tokens = counter(
            "vllm:prompt_tokens", "Number of prefill tokens processed.", LABELS
        )
        self.generation_tokens = counter(
            "vllm:generation_tokens", "Number of generation tokens processed.", LABELS
        )
        self.success = counter(
            "vllm:request_success",
            "Count of successfully processed requests.",
            (*LABELS, "finished_reason"),
        )
        self.prefix_queries = counter(
            "vllm:prefix_cache_queries",
            "Prefix cache queries, in terms of number of queried tokens.",
            LABELS,
        )
        self.prefix_hits = counter(
            "vllm:prefix_cache_hits",
            "Prefix cache hits, in terms of number of cached tokens.",
            LABELS,
        )
        self.ttft = histogram(
            "vllm:time_to_first_token_seconds",
            "Histogram of time to first token in seconds.",
            buckets=TTFT_BUCKETS_S,
        )
        self.itl = histogram(
            "vllm:inter_token_latency_seconds",
            "Histogram of inter-token latency in seconds.",
            buckets=ITL_BUCKETS_S,
        )
        self.e2e = histogram(
            "vllm:e2e_request_latency_seconds",
            "Histogram of e2e request latency in seconds.",
            buckets=REQUEST_BUCKETS_S,
        )
        self.queue = histogram(
            "vllm:request_queue_time_seconds",
            "Histogram of time spent in WAITING phase for request.",
            buckets=REQUEST_BUCKETS_S,
        )
        # It has no label for a model in vLLM either.
        self._cache = gauge(
            "vllm:cache_config_info",
            "Information of the LLMEngine CacheConfig",
            ("block_size", "enable_prefix_caching", "num_gpu_blocks", "engine"),
        )

    def tell_cache(self, config: EngineConfig, engine: str) -> None:
        """Set the gauge that describes the cache of an engine."""
        self._cache.labels(
            block_size=str(config.block_size),
            enable_prefix_caching=str(config.prefix_caching),
            num_gpu_blocks=str(config.kv_blocks),
            engine=engine,
        ).set(1)


class ModelMetrics:
    """The metrics of one model and one engine."""

    def __init__(self, metrics: Metrics, model: str, engine: str) -> None:
        self.model = model
        labels = (model, engine)
        self._succeeded = {
            reason: metrics.success.labels(*labels, reason) for reason in ALL_REASONS
        }
        self.requests = ModelRequests(metrics.requests, *labels)
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
        """Return the counter of sequences that finished for a reason."""
        return self._succeeded[FINISHED_REASONS.get(reason, "stop")]
