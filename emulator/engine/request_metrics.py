"""What vLLM 0.32 tells of the requests that have ended, of each step, and of what is never here."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from emulator.engine.runner import TimedSequence
from emulator.metrics import Tally

_STEP_BUCKETS = tuple(float(2**power) for power in (0, *range(3, 15)))
_CHOICE_BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0)
_PREEMPTION_BUCKETS = (1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0)

# Counters of what this engine does not have, which vLLM shows at 0 from the start.
_ABSENT_COUNTERS = (
    ("external_prefix_cache_queries", "External prefix cache queries, in queried tokens."),
    ("external_prefix_cache_hits", "External prefix cache hits, in cached tokens."),
    ("mm_cache_queries", "Multi-modal cache queries, in queried items."),
    ("mm_cache_hits", "Multi-modal cache hits, in cached items."),
)
_SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")
_CACHE_SOURCES = ("device", "host", "p2p", "disk", "external_unspecified")
_WAITING_REASONS = ("capacity", "deferred")
_SLEEP_STATES = ("awake", "weights_offloaded", "discard_all")


def token_buckets(most: int) -> tuple[float, ...]:
    """Return 1, 2, 5, 10 and so on up to `most`, as vLLM does.

    >>> token_buckets(40)
    (1.0, 2.0, 5.0, 10.0, 20.0)
    """
    steps = (step * 10**power for power in range(len(str(most))) for step in (1, 2, 5))
    return tuple(float(step) for step in steps if step <= most)


class RequestMetrics:
    """The metrics, without values for their labels.

    Args:
        registry: The registry of the metrics.
        labels: The names of the labels that all have.
        seconds: The buckets of a request's times.
        gaps: The buckets of the time from token to token.
        max_model_len: The most tokens of a sequence.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        labels: tuple[str, ...],
        seconds: tuple[float, ...],
        gaps: tuple[float, ...],
        max_model_len: int,
    ) -> None:
        tokens = token_buckets(max_model_len)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"vllm:{name}", text, labels, registry=registry, buckets=buckets)

        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry, multiprocess_mode="livesum")
        self.prompt = histogram("request_prompt_tokens", "Number of prefill tokens.", tokens)
        self.generation = histogram(
            "request_generation_tokens", "Number of generation tokens.", tokens
        )
        self.longest = histogram(
            "request_max_num_generation_tokens",
            "Histogram of maximum number of requested generation tokens.",
            tokens,
        )
        self.computed = histogram(
            "request_prefill_kv_computed_tokens",
            "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
            tokens,
        )
        self.params_n = histogram(
            "request_params_n", "Histogram of the n request parameter.", _CHOICE_BUCKETS
        )
        self.params_max_tokens = histogram(
            "request_params_max_tokens", "Histogram of the max_tokens request parameter.", tokens
        )
        self.preemptions = histogram(
            "request_num_preemptions", "Number of preemptions per request.", _PREEMPTION_BUCKETS
        )
        self.per_token = histogram(
            "request_time_per_output_token_seconds",
            "Histogram of time_per_output_token_seconds per request.",
            gaps,
        )
        self.inference = histogram(
            "request_inference_time_seconds",
            "Histogram of time spent in RUNNING phase for request.",
            seconds,
        )
        self.prefill = histogram(
            "request_prefill_time_seconds",
            "Histogram of time spent in PREFILL phase for request.",
            seconds,
        )
        self.decode = histogram(
            "request_decode_time_seconds",
            "Histogram of time spent in DECODE phase for request.",
            seconds,
        )
        self.step = histogram(
            "iteration_tokens_total",
            "Number of tokens per engine_step.",
            _STEP_BUCKETS,
        )
        self.cached = counter(
            "vllm:prompt_tokens_cached", "Number of cached prompt tokens.", labels
        )
        self.by_source = counter(
            "vllm:prompt_tokens_by_source",
            "Number of prompt tokens by source.",
            (*labels, "source"),
        )
        self.cached_by_source = counter(
            "vllm:prompt_tokens_cached_by_source",
            "Number of cached prompt tokens by source.",
            (*labels, "source"),
        )
        self.waiting = gauge(
            "vllm:num_requests_waiting_by_reason",
            "Number of requests waiting to be processed, by reason.",
            (*labels, "reason"),
        )
        self.asleep = gauge(
            "vllm:engine_sleep_state", "Engine sleep state.", (*labels, "sleep_state")
        )
        self.absent = [counter(f"vllm:{name}", text, labels) for name, text in _ABSENT_COUNTERS]


class ModelRequests:
    """The metrics of the requests for one model, in one engine."""

    def __init__(self, metrics: RequestMetrics, model: str, engine: str) -> None:
        labels = (model, engine)
        self._prompt = metrics.prompt.labels(*labels)
        self._generation = metrics.generation.labels(*labels)
        self._longest = metrics.longest.labels(*labels)
        self._computed = metrics.computed.labels(*labels)
        self._params_n = metrics.params_n.labels(*labels)
        self._params_max_tokens = metrics.params_max_tokens.labels(*labels)
        self._preemptions = metrics.preemptions.labels(*labels)
        self._per_token = metrics.per_token.labels(*labels)
        self._inference = metrics.inference.labels(*labels)
        self._prefill = metrics.prefill.labels(*labels)
        self._decode = metrics.decode.labels(*labels)
        self._step = metrics.step.labels(*labels)
        self._cached = metrics.cached.labels(*labels)
        sources = {source: metrics.by_source.labels(*labels, source) for source in _SOURCES}
        self._from_compute = sources["local_compute"]
        self._from_cache = sources["local_cache_hit"]
        device, *_ = [metrics.cached_by_source.labels(*labels, name) for name in _CACHE_SOURCES]
        self._from_device = device
        self.waiting, _ = [metrics.waiting.labels(*labels, name) for name in _WAITING_REASONS]
        awake, *_ = [metrics.asleep.labels(*labels, name) for name in _SLEEP_STATES]
        awake.set(1)
        for absent in metrics.absent:
            absent.labels(*labels)

    def see_step(self, tally: Tally, tokens: int) -> None:
        """Count a step that has made so many tokens, or ended the prompts that had them."""
        tally.observe(self._step, tokens)

    def see_prompt(self, tally: Tally, sequence: TimedSequence) -> None:
        """Count a prompt that has been computed."""
        cached = sequence.cached_tokens
        tally.add(self._from_compute, sequence.prompt_tokens - cached)
        if cached:
            tally.add(self._from_cache, cached)
            tally.add(self._cached, cached)
            tally.add(self._from_device, cached)

    def see_finished(self, tally: Tally, sequence: TimedSequence, end_s: float) -> None:
        """Count a sequence that got its last token."""
        observe = tally.observe
        first_s = sequence.due_s[0]
        admitted_s = first_s if sequence.admitted_s is None else sequence.admitted_s
        tokens = sequence.output_tokens
        observe(self._prompt, sequence.prompt_tokens)
        observe(self._generation, tokens)
        observe(self._computed, sequence.prompt_tokens - sequence.cached_tokens)
        observe(self._preemptions, sequence.preemptions)
        observe(self._params_max_tokens, sequence.max_tokens)
        observe(self._inference, end_s - admitted_s)
        observe(self._prefill, first_s - admitted_s)
        observe(self._decode, end_s - first_s)
        observe(self._per_token, (end_s - first_s) / (tokens - 1) if tokens > 1 else 0.0)
        choices = sequence.choices
        choices.longest = max(choices.longest, tokens)
        choices.left -= 1
        if not choices.left:
            observe(self._params_n, choices.n)
            observe(self._longest, choices.longest)
