"""The engine's times in the service against those that its model has on paper, and refusals."""

import socket
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from operator import ge
from pathlib import Path

import httpx
import pytest

from emulator.engine.cache import prompt_keys
from emulator.engine.config import EngineConfig, load_engine
from emulator.engine.runner import TimedSequence
from emulator.engine.scheduler import Scheduler
from tests.serving.test_settings import failed_start
from tests.support.reference import least, watched_machine
from tests.support.server import PLAIN, TLS, Server, args, eventually, running_server
from tests.support.servers.ahead import shared
from tests.support.simulated.client import Simulated, Timed, running_simulation
from tests.support.wire import (
    CHAT_PATH,
    Answer,
    Post,
    chat,
    headers,
    post,
    post_together,
    stream,
    unread,
)

pytestmark = pytest.mark.usefixtures("local_only")

SMALL = """
source: round numbers, and little room
step_base_ms: 30
step_per_prefill_token_ms: 0.1
step_per_sequence_ms: 1
step_per_context_token_ms: 0.01
max_num_seqs: 4
max_num_batched_tokens: 250
kv_blocks: 44
block_size: 10
prefix_caching: true
max_waiting: 6
overload_status: 429
"""

# A chat of one message has its role, 3 tokens around it, and 3 of the answer's start.
BEFORE_WORDS, AROUND_WORDS = 3, 7


@dataclass(frozen=True)
class Load:
    """One request: when it is sent, its words, its length, and when its client goes away, in ms."""

    at_ms: float
    words: tuple[str, ...]
    output_tokens: int
    leaves_ms: float | None = None

    @property
    def request(self) -> Timed:
        """The request."""
        body = chat("".join(self.words), stream=True, stream_options={"include_usage": True})
        leaves_s = None if self.leaves_ms is None else self.leaves_ms / 1000
        length = {"X-OUTPUT-LENGTH": str(self.output_tokens)}
        return Timed(body, length, at_s=self.at_ms / 1000, leaves_s=leaves_s)

    def sequence(self, config: EngineConfig) -> TimedSequence:
        """Return what the engine is to make of it."""
        ids: list[object] = ["start", "user", "part", *self.words, "end", "start", "name", "part"]
        keys: Sequence[Hashable] = ()
        if config.prefix_caching:
            keys = prompt_keys([hash(token) for token in ids], config.block_size)
        return TimedSequence(len(ids), self.output_tokens, self.at_ms / 1000, keys)


def words(tokens: int, word: str = " a") -> tuple[str, ...]:
    """Return as many words, each of them a token, as make a prompt of so many tokens."""
    return (word,) * (tokens - AROUND_WORDS)


# --------------------------------------------------------------------------------------
# On paper and on the wire
# --------------------------------------------------------------------------------------


def on_paper(config: EngineConfig, loads: Sequence[Load]) -> list[TimedSequence]:
    """Return the requests with the times that their tokens are to have."""
    scheduler = Scheduler[TimedSequence](config)
    sequences = [load.sequence(config) for load in loads]
    coming = sorted(sequences, key=lambda sequence: sequence.arrival_s)
    while coming or scheduler.next_start_s is not None:
        start_s = scheduler.next_start_s
        if start_s is None:
            start_s = max(coming[0].arrival_s, scheduler.end_s)
        while coming and coming[0].arrival_s <= start_s:
            scheduler.submit([coming.pop(0)])
        for sequence, load in zip(sequences, loads, strict=True):
            if load.leaves_ms is not None and load.leaves_ms / 1000 <= start_s:
                scheduler.leave(sequence)
        step = scheduler.start_step(start_s)
        if step is not None:
            for sequence in scheduler.end_step().advanced:
                sequence.due_s.append(step.end_s)
    return sequences


def check(service: Simulated, config: EngineConfig, loads: Sequence[Load]) -> list[Answer]:
    """Send requests on simulated time; every token is to come when paper says.

    Requests that are alike are told apart by nothing but the order in which they are served.
    """
    answers = service.answers(*(load.request for load in loads))
    came: dict[Load, list[list[float]]] = defaultdict(list)
    due: dict[Load, list[list[float]]] = defaultdict(list)
    for load, answer, sequence in zip(loads, answers, on_paper(config, loads), strict=True):
        came[load].append([load.at_ms / 1000 + at_s for at_s in answer.times_s])
        due[load].append(sequence.due_s.tolist()[: len(answer.times_s)])
        assert len(answer.times_s) == load.output_tokens or load.leaves_ms is not None
    for load, times_s in came.items():
        for actual_s, due_s in zip(sorted(times_s), sorted(due[load]), strict=True):
            assert actual_s == pytest.approx(due_s)
    return answers


@shared("module")
def small(folder: Path) -> AbstractContextManager[Server]:
    """Yield a server with an engine that has little room."""
    (folder / "small.yaml").write_text(SMALL)
    return running_server(*args(engine=folder / "small.yaml", workers=1))


@shared("module")
@contextmanager
def simulated_small(folder: Path) -> Iterator[tuple[Simulated, EngineConfig]]:
    """Yield the same on simulated time, and its engine."""
    (folder / "small.yaml").write_text(SMALL)
    with running_simulation(engine=folder / "small.yaml") as service:
        yield service, load_engine(str(folder / "small.yaml"))


Small = tuple[Simulated, EngineConfig]


@pytest.mark.parametrize(("prompt", "output"), [(500, 12), (1000, 50)])
def test_sixty_four_at_once(simulated_paper: Simulated, prompt: int, output: int) -> None:
    """Of 64 long prompts at once every token comes as on paper."""
    config = load_engine("paper")
    check(simulated_paper, config, [Load(0, words(prompt), output) for _ in range(64)])


PREEMPTED = [Load(5 * at, words(100, word), 25) for at, word in enumerate((" b", " c", " d", " e"))]


def test_full_cache_and_preemptions(simulated_small: Small) -> None:
    """When the cache is full the last admitted is preempted, and all come as on paper."""
    service, config = simulated_small
    assert sum(sequence.preemptions for sequence in on_paper(config, PREEMPTED)) > 0
    check(service, config, PREEMPTED)


def test_preemptions_are_counted(small: Server) -> None:
    """The metrics of a real server tell of preemptions."""
    preempted = small.metrics().total("vllm:num_preemptions_total")
    posts = [Post(load.request.body, load.request.headers) for load in PREEMPTED]
    answers = post_together(small.address, posts)
    assert [len(answer.content) for answer in answers] == [25] * 4
    assert small.metrics().total("vllm:num_preemptions_total") > preempted


def test_shared_prefixes(simulated_small: Small) -> None:
    """What an earlier prompt has left in the cache is not prefilled, and told as cached."""
    service, config = simulated_small
    common = words(200, " f")
    loads = [Load(400 * at, (*common, *[end] * 30), 3) for at, end in enumerate((" x", " y"))]
    usages = [answer.chunks[-1]["usage"] for answer in check(service, config, loads)]
    assert [usage["prompt_tokens"] for usage in usages] == [230, 230]
    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages]
    assert cached == [0, (BEFORE_WORDS + 200 - AROUND_WORDS) // 10 * 10]


def test_arrivals_that_spread(simulated_small: Small) -> None:
    """Requests that come while others run, and after all are done, come as on paper."""
    at_ms = (0, 83, 170, 190, 260, 900, 960)
    check(*simulated_small, [Load(at, words(40 + i, " i"), 6) for i, at in enumerate(at_ms)])


def test_clients_that_leave(simulated_small: Small) -> None:
    """Who goes away makes room at the next step, in the batch as in the queue."""
    loads = [
        *(Load(4 * at, words(60, " j"), 40, leaves_ms=300) for at in range(4)),
        Load(20, words(60, " k"), 10, leaves_ms=150),
        Load(24, words(60, " l"), 10),
    ]
    check(*simulated_small, loads)


def test_no_token_is_early(small: Server, simulated_small: Small) -> None:
    """On a real server no token comes sooner after its request than an idle engine gives it."""
    load = Load(0, words(40, " m"), 6)
    (sequence,) = on_paper(simulated_small[1], [load])
    (answer,) = post_together(small.address, [Post(load.request.body, load.request.headers)])
    assert all(map(ge, answer.times_s, sequence.due_s))


# --------------------------------------------------------------------------------------
# What the engine does not time, and what it refuses
# --------------------------------------------------------------------------------------


def test_headers_take_no_place(simulated_small: Small) -> None:
    """While the engine is full a request with times of its own keeps them."""
    service, _ = simulated_small
    full = [Timed(chat("busy", stream=True), {"X-OUTPUT-LENGTH": "12"})] * 4
    own = Timed(chat(stream=True), headers(100, 20, output_length=5), at_s=0.04)
    *_, answer = service.answers(*full, own)
    assert answer.times_s == pytest.approx([0.100 + 0.020 * i for i in range(5)])


def test_one_header_is_enough(small: Server) -> None:
    """A request that sends X-ITL-MS alone is timed by it, with the server's TTFT."""
    answer = stream(
        small.address, {"X-ITL-MS": "5", "X-OUTPUT-LENGTH": "3", "X-TTFT-JITTER": "normal:0"}
    )
    assert answer.status == 200
    assert answer.content[0].arrival_s >= 0.1


@pytest.mark.parametrize("name", ["X-TTFT-JITTER", "X-ITL-JITTER"])
def test_jitter_is_refused(small: Server, name: str) -> None:
    """Jitter without times of its own is a 400 that names the header."""
    answer = stream(small.address, {name: "normal:5"})
    assert answer.status == 400
    assert f"Invalid '{name}': jitter needs" in answer.body.decode()


def test_too_many_waiting(simulated_small: Small) -> None:
    """With as many waiting as may the next gets a 429 and retry-after; the others are served."""
    service, _ = simulated_small
    asked = Timed(chat("hi", stream=True), {"X-OUTPUT-LENGTH": "8"})
    answers = service.answers(*[asked] * 4, *[replace(asked, at_s=0.05)] * 10)
    refused = [answer for answer in answers if answer.status != 200]
    assert Counter(answer.status for answer in answers) == {200: 10, 429: 4}
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    assert b'"code":"rate_limit_exceeded"' in refused[0].body
    assert all(len(answer.content) == 8 for answer in answers if answer.status == 200)


def test_too_long_for_the_cache(small: Server) -> None:
    """A request that would never fit is a 400 with the code that OpenAI has for it."""
    answer = stream(small.address, {"X-OUTPUT-LENGTH": "441"})
    assert answer.status == 400
    assert b'"code":"context_length_exceeded"' in answer.body
    assert b"maximum context length is 440 tokens" in answer.body


STARTUP_S = 4  # in which a busy machine can ask some questions


@dataclass(frozen=True)
class Loading:
    """What a server answers while its model loads, and then: statuses by path."""

    began: Mapping[str, int]
    refusal: httpx.Response
    ended: Mapping[str, int]
    uptime_s: float


def status(server: Server, path: str) -> int:
    """Return the status of a path, 0 if nobody listens."""
    try:
        if path.startswith("/v1"):
            return PLAIN.post(f"{server.url}{path}", json=chat()).status_code
        return PLAIN.get(f"{server.url}{path}").status_code
    except httpx.TransportError:
        return 0


def watch_loading(server: Server) -> Loading:
    """Ask a server that starts until it is ready."""
    paths = ("/readyz", "/ping", CHAT_PATH)
    assert eventually(lambda: status(server, "/livez") == 200)
    began = {path: status(server, path) for path in paths}
    refusal = PLAIN.post(f"{server.url}{CHAT_PATH}", json=chat())
    assert eventually(lambda: status(server, "/readyz") == 200)
    uptime_s = PLAIN.get(f"{server.url}/health").json()["uptime"]
    return Loading(began, refusal, {path: status(server, path) for path in paths}, uptime_s)


@shared("module")
@contextmanager
def loaded(folder: Path) -> Iterator[tuple[Server, Loading]]:
    """Yield a server whose model takes time to load, and what it said meanwhile.

    Its engine runs one at a time, and one more may wait.
    """
    text = SMALL.replace("overload_status: 429", "").replace("max_num_seqs: 4", "max_num_seqs: 1")
    (folder / "narrow.yaml").write_text(text.replace("max_waiting: 6", "max_waiting: 1"))
    settings = args(engine=folder / "narrow.yaml", workers=1, timeout_s=1, startup_s=STARTUP_S)
    with running_server(*settings, ready=False) as server:
        yield server, watch_loading(server)


@pytest.fixture(scope="module")
def narrow(loaded: tuple[Server, Loading]) -> Server:
    """Return a server whose engine runs one at a time, and in which one more may wait."""
    return loaded[0]


def test_startup_takes_time(loaded: tuple[Server, Loading]) -> None:
    """Until startup_s has passed nothing is ready and completions are refused; then all is well."""
    _, loading = loaded
    assert set(loading.began.values()) == {503}
    assert 1 <= int(loading.refusal.headers["retry-after"]) <= STARTUP_S
    assert loading.refusal.json()["error"]["code"] == "model_loading"
    # The uptime counts from a moment later than the loading does.
    assert loading.uptime_s >= STARTUP_S - 1
    assert set(loading.ended.values()) == {200}


LONG = Post(chat("hi", stream=True), {"X-OUTPUT-LENGTH": "400"})  # takes 12 s
TOKENS = "vllm:generation_tokens_total"


def gauges(server: Server) -> tuple[float, float]:
    """Return how many requests run and wait, by what gateways and autoscalers read."""
    metrics = server.metrics()
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    return metrics.total(names[0]), metrics.total(names[1])


def test_a_503_by_default(narrow: Server) -> None:
    """An engine that names no status refuses with 503, and says when to come back."""
    with unread(narrow.address, [LONG] * 2):
        assert eventually(lambda: gauges(narrow) == (1, 1))
        answer = post(narrow.address, chat("hi"), {"X-OUTPUT-LENGTH": "8"})
    assert answer.status == 503
    assert b'"code":"server_is_overloaded"' in answer.body
    assert answer.headers["retry-after"] == "1"
    assert eventually(lambda: gauges(narrow) == (0, 0))


def test_whole_answers_that_take_too_long(narrow: Server) -> None:
    """A whole answer that takes longer than timeout_s is a 504, and leaves the engine."""
    before = narrow.metrics().total(TOKENS)
    answer = post(narrow.address, chat("hi"), {"X-OUTPUT-LENGTH": "100"})
    assert answer.status == 504
    assert b'"code":"timeout_exceeded"' in answer.body
    assert answer.blocks[-1].arrival_s >= 1
    assert eventually(lambda: gauges(narrow) == (0, 0))
    assert narrow.metrics().total(TOKENS) < before + 100


def test_who_waits_for_a_whole_answer_leaves_too(narrow: Server) -> None:
    """A client that goes away while it waits for a whole answer takes no place any more."""
    aborted = "vllm:request_success_total"
    before = narrow.metrics().total(aborted, finished_reason="abort")
    request = Post(chat("hi"), {"X-OUTPUT-LENGTH": "60"}).encode("localhost")
    with socket.create_connection(narrow.address) as connection:
        connection.sendall(request)
        assert eventually(lambda: narrow.metrics().total("vllm:num_requests_running") == 1)
    assert eventually(lambda: narrow.metrics().total("vllm:num_requests_running") == 0)
    assert narrow.metrics().total(aborted, finished_reason="abort") == before + 1


def test_a_bad_engine_stops_the_start(tmp_path: Path) -> None:
    """An engine's file that is not valid stops the start with the file and the key."""
    file = tmp_path / "bad.yaml"
    file.write_text(SMALL.replace("block_size: 10", "block_size: 0"))
    message = failed_start("--arg", f"engine={file}")
    assert f"The setting 'engine': {file}, line 10: block_size: " in message
    assert "Traceback" not in message


# --------------------------------------------------------------------------------------
# Answers of every kind
# --------------------------------------------------------------------------------------


def test_whole_answers(simulated_small: Small) -> None:
    """A whole answer leaves when its last token has come."""
    extra = {"X-OUTPUT-LENGTH": "5", "X-EMULATION-REPORT": "true"}
    (answer,) = simulated_small[0].answers(Timed(chat("whole"), extra))
    # 8 tokens of prompt, then four steps of 31 ms and the context
    total_ms = 30 + 0.8 + 1 + 4 * 31 + 0.01 * (9 + 10 + 11 + 12)
    assert answer.blocks[-1].arrival_s * 1000 == pytest.approx(total_ms)
    assert answer.report["total_ms"]["asked"] == pytest.approx(total_ms, abs=0.001)


def test_choices_and_stops_and_reasoning(small: Server) -> None:
    """Choices, stop sequences and reasoning are as they are without an engine."""
    body = chat("kinds", n=3, max_tokens=40, stop=[" the"], seed=3)
    extra = {"X-REASONING-LENGTH": "4", "X-OUTPUT-LENGTH": "12"}
    timed = {**extra, "X-TTFT-MS": "0", "X-ITL-MS": "0"}
    answers = [
        PLAIN.post(f"{small.url}/v1/chat/completions", json=body, headers=h) for h in (extra, timed)
    ]
    ours, theirs = (answer.json() for answer in answers)
    assert [c["message"] for c in ours["choices"]] == [c["message"] for c in theirs["choices"]]
    assert ours["usage"] == theirs["usage"]


def test_reasoning_takes_time(simulated_small: Small) -> None:
    """Hidden reasoning tokens are tokens of the engine's before the first that is seen."""
    service, _ = simulated_small
    plain = service.stream({"X-OUTPUT-LENGTH": "8"})
    thought = service.stream({"X-OUTPUT-LENGTH": "3", "X-REASONING-LENGTH": "5"})
    assert thought.times_s == pytest.approx(plain.times_s[5:])


def test_legacy_prompts(small: Server) -> None:
    """Each prompt of a legacy completion is a sequence of its own, and all are counted."""
    body = {"model": "m", "prompt": [[1, 2, 3], [4, 5]], "n": 2, "max_tokens": 4}
    answer = PLAIN.post(f"{small.url}/v1/completions", json={**body, "ignore_eos": True}).json()
    assert len(answer["choices"]) == 4
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (5, 16)


# --------------------------------------------------------------------------------------
# Metrics
# --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_metrics_agree_with_the_clients() -> None:
    """After 400 requests over two workers the metrics are what the clients counted."""
    with running_server(
        "--arg", "engine=blis-llama-3.1-8b-h100-tp2", "--arg", "workers=2"
    ) as server:
        posts = [
            Post(
                chat(
                    "word " * (index % 50),
                    model="m",
                    stream=index % 2 == 0,
                    **({"stream_options": {"include_usage": True}} if index % 2 == 0 else {}),
                    max_tokens=4,
                ),
                {"X-OUTPUT-LENGTH": str(index % 7 + 1)},
            )
            for index in range(400)
        ]
        answers = []
        for first in range(0, 400, 100):
            answers += post_together(server.address, posts[first : first + 100])
        assert {answer.status for answer in answers} == {200}
        chunks = [
            answer.chunks
            if b"data: " in answer.body
            else [httpx.Response(200, content=answer.body).json()]
            for answer in answers
        ]
        usages = [chunk[-1]["usage"] for chunk in chunks]
        reasons = [
            reason
            for chunk in chunks
            for one in chunk
            for choice in one["choices"]
            if (reason := choice["finish_reason"])
        ]

        def total(name: str, **labels: str) -> float:
            return server.metrics().total(f"vllm:{name}", model_name="m", **labels)

        assert eventually(lambda: total("request_success_total") == 400)
        assert eventually(lambda: total("num_requests_running") == 0)
        assert total("prompt_tokens_total") == sum(u["prompt_tokens"] for u in usages)
        assert total("generation_tokens_total") == sum(u["completion_tokens"] for u in usages)
        for reason in ("stop", "length"):
            counted = total("request_success_total", finished_reason=reason)
            assert counted == reasons.count(reason) > 0
        cached = sum(u["prompt_tokens_details"]["cached_tokens"] for u in usages)
        assert total("prefix_cache_hits_total") == cached > 0
        assert total("prefix_cache_queries_total") == sum(u["prompt_tokens"] for u in usages)
        for name in ("time_to_first_token", "e2e_request_latency", "request_queue_time"):
            assert total(f"{name}_seconds_count") == 400
        tokens = sum(u["completion_tokens"] for u in usages)
        assert total("inter_token_latency_seconds_count") == tokens - 400

        def both_served() -> bool:
            """Tell whether each worker has served; on a busy machine one may accept them all."""
            post_together(server.address, posts[:50])
            return all(
                total("time_to_first_token_seconds_count", engine=engine) > 0 for engine in "01"
            )

        assert eventually(both_served)


def test_gauges_on_the_wire(small: Server) -> None:
    """While requests run and wait the gauges that gateways and autoscalers read say so."""
    with unread(small.address, [Post(LONG.body, {"X-OUTPUT-LENGTH": "40"})] * 6):
        assert eventually(lambda: gauges(small) == (4, 2))
    assert eventually(lambda: gauges(small) == (0, 0))


def test_no_engine_no_metrics(one_worker: Server) -> None:
    """Without an engine nothing tells of one, and vLLM's routes are there nevertheless."""
    stream(one_worker.address, headers())
    assert not [s for s in one_worker.metrics().samples if s.name.startswith("vllm:")]
    with httpx.Client(base_url=one_worker.url, trust_env=False, verify=TLS) as http:
        assert http.get("/version").json().keys() == {"version"}
        assert (http.get("/ping").status_code, http.get("/ping").content) == (200, b"")


# --------------------------------------------------------------------------------------
# What else vLLM has
# --------------------------------------------------------------------------------------


def test_tokenize_and_back(small: Server) -> None:
    """/tokenize gives as many ids as usage counts, and /detokenize their text."""
    with httpx.Client(base_url=small.url, trust_env=False, verify=TLS) as http:
        counted = http.post("/tokenize", json={"model": "gpt-4", "prompt": "Hello there!"}).json()
        assert counted == {
            "count": 3,
            "max_model_len": 440,
            "tokens": [9906, 1070, 0],
            "token_strs": None,
        }
        asked = {"model": "gpt-4", "tokens": counted["tokens"]}
        assert http.post("/detokenize", json=asked).json() == {"prompt": "Hello there!"}
        tools = [{"type": "function", "function": {"name": "look", "description": "Look."}}]
        body = chat("Hello there!", tools=tools)
        usage = http.post("/v1/chat/completions", json={**body, "tool_choice": "none"}).json()[
            "usage"
        ]
        of_chat = http.post("/tokenize", json={**body, "return_token_strs": True}).json()
        assert of_chat["count"] == len(of_chat["token_strs"]) == usage["prompt_tokens"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {"model": "m"}, "prompt"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"prompt": 3}, "prompt"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": [2**31 - 1]}, "tokens"),
    ],
)
def test_bad_tokenizing(small: Server, path: str, body: object, param: str) -> None:
    """A bad body is a 400 that names the field."""
    answer = PLAIN.post(f"{small.url}{path}", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.slow
def test_two_thousand_sequences(tmp_path: Path) -> None:
    """Beside 2,000 sequences a request with times of its own keeps them, but for the machine."""
    file = tmp_path / "large.yaml"
    large = SMALL.replace("step_base_ms: 30", "step_base_ms: 25").replace("44", "1000000")
    large = large.replace("step_per_sequence_ms: 1", "").replace("250", "200000")
    large = large.replace("step_per_context_token_ms: 0.01", "").replace("_seqs: 4", "_seqs: 2000")
    file.write_text(large.replace("step_per_prefill_token_ms: 0.1", "").replace("g: 6", "g: 3000"))

    def lag_ms() -> float:
        """Return the worst lag of a stream, beyond what the machine itself did."""
        asked = {**headers(100, 20, 50), "X-EMULATION-REPORT": "true"}
        with watched_machine() as machine:
            answer = stream(server.address, asked)
        assert answer.early(100, 20) == []
        return float(answer.report["worst_lag_ms"]) - machine.worst_s * 1000

    busy = [Post(chat("hi"), {"X-OUTPUT-LENGTH": "4000"})] * 2000
    with running_server(*args(engine=file, workers=1)) as server, unread(server.address, busy):
        assert eventually(lambda: gauges(server)[0] == 2000)
        assert least(lag_ms, below=20) < 20
