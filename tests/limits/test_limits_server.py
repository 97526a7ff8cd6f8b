"""Keys and limits on real servers: what passes, what the headers say, and the words of refusals."""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from http.client import HTTPConnection
from pathlib import Path

import httpx
import openai
import pytest

from tests.serving.test_settings import failed_start
from tests.support.server import PLAIN, TLS, Server, args, eventually, running_server
from tests.support.servers.ahead import shared
from tests.support.wire import CHAT_PATH, Answer, Post, chat, headers, post_together

pytestmark = pytest.mark.usefixtures("local_only")

KEY = "sk-team-a-0123456789abcdef"
OTHER_KEY = "sk-team-b-0123456789abcdef"
PREFIX = "x-ratelimit-"

MANY = 110  # more than there may be series of

LIMITS = """
default: {rpd: 1000, tpd: 1000}
limits:
  - {model: gpt-4-32k, rpm: 2, tpm: null}
  - {model: gpt-4-0314, rpm: null, tpm: null}
  - {model: gpt-4-0613, key: team-a, tpd: 77}
"""
KEYS = f"""
keys:
  - {{name: team-a, key: {KEY}}}
  - {{name: team-b, sha256: {hashlib.sha256(OTHER_KEY.encode()).hexdigest()}, tpd: 5000}}
""" + "".join(f"  - {{name: one-of-many-{n}, key: sk-many-{n}}}\n" for n in range(MANY))


@shared("module")
def keyed(folder: Path) -> AbstractContextManager[Server]:
    """Yield a server with keys, and limits for a day, of which next to nothing refills."""
    (folder / "limits.yaml").write_text(LIMITS)
    (folder / "keys.yaml").write_text(KEYS)
    arguments = args(limits=folder / "limits.yaml", api_keys=folder / "keys.yaml", workers=1)
    return running_server(*arguments)


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    """Return a model that no other test uses, so that its bucket is full."""
    return f"model-of-{request.node.name}"


@pytest.fixture
def http(keyed: Server) -> Iterator[httpx.Client]:
    """Yield a client of team-a that wants answers at once."""
    sent = {**headers(), "Authorization": f"Bearer {KEY}"}
    with httpx.Client(
        base_url=keyed.url, headers=sent, timeout=300, trust_env=False, verify=TLS
    ) as client:
        yield client


def limits_told(answer: httpx.Response) -> dict[str, str]:
    """Return the x-ratelimit-* headers of an answer, without what they share."""
    return {
        name.removeprefix(PREFIX): value
        for name, value in answer.headers.items()
        if name.startswith(PREFIX)
    }


def error_of(answer: httpx.Response) -> dict[str, str]:
    """Return the error that an answer holds."""
    error: dict[str, str] = answer.json()["error"]
    return error


# --------------------------------------------------------------------------------------
# Several workers
# --------------------------------------------------------------------------------------


def passed_of(answers: list[Answer]) -> Counter[int]:
    """Return what was left after each request that passed; all others are 429."""
    assert {answer.status for answer in answers} <= {200, 429}
    return Counter(
        int(answer.headers[f"{PREFIX}remaining-requests"])
        for answer in answers
        if answer.status == 200
    )


def test_two_workers_share_a_limit_exactly(two_workers: Server) -> None:
    """Of 300 requests at once 100 pass, plus what refilled, and each remaining value is told."""
    posts = [Post(chat(model="gpt-3.5-turbo"), headers())] * 300
    start_s = time.monotonic()
    passed = passed_of(post_together(two_workers.address, posts))
    refilled = (time.monotonic() - start_s) * 100 / 60

    assert set(passed) == set(range(100))
    assert passed.total() <= 100 + refilled


def test_each_worker_takes_from_the_limit(two_workers: Server) -> None:
    """What one worker has let pass the other one knows."""
    posts = [Post(chat(model="gpt-3.5-turbo-0301"), headers())] * 60
    start_s = time.monotonic()
    passed: Counter[int] = Counter()
    for worker in two_workers.workers:
        with two_workers.alone(worker):
            passed += passed_of(post_together(two_workers.address, posts))
    refilled = (time.monotonic() - start_s) * 100 / 60

    assert set(passed) == set(range(100))
    assert passed.total() <= 100 + refilled


@pytest.mark.slow  # BentoML looks for dead workers every 10 s
def test_a_worker_that_is_replaced_finds_the_limits(local_only: None) -> None:  # noqa: ARG001
    """A worker that takes the place of a killed one goes on with the same buckets."""
    with running_server(*args(rpm=2, workers=1)) as server:
        [before] = post_together(server.address, [Post(chat(), headers())])
        [worker] = server.workers
        worker.kill()
        worker.wait()

        def is_back() -> bool:
            try:
                return PLAIN.get(f"{server.url}/readyz").status_code == 200
            except httpx.TransportError:
                return False

        assert eventually(is_back)
        [after] = post_together(server.address, [Post(chat(), headers())])
    left = [answer.headers[f"{PREFIX}remaining-requests"] for answer in (before, after)]
    assert left in (["1", "0"], ["1", "1"])  # 30 s refill one


@pytest.mark.parametrize("calls", [15, pytest.param(60, marks=pytest.mark.slow)])
def test_official_client_paces_itself(two_workers: Server, calls: int) -> None:
    """20 threads with 5 retries lose no call, and take the time that the limit says or more."""
    key = f"shared-by-{calls}"
    drain = Post(chat(model="gpt-4-32k"), {**headers(), "Authorization": f"Bearer {key}"})
    began_s = time.monotonic()
    drained = passed_of(post_together(two_workers.address, [drain] * 600))

    def call(_: int) -> str:
        answer = client.chat.completions.create(
            model="gpt-4-32k",
            messages=[{"role": "user", "content": "Hi"}],
            extra_headers=headers(),
        )
        return answer.id

    with (
        openai.OpenAI(base_url=f"{two_workers.url}/v1", api_key=key, max_retries=5) as client,
        ThreadPoolExecutor(20) as pool,
    ):
        ids = set(pool.map(call, range(calls)))
    assert len(ids) == calls
    # No more passed than the bucket held at the beginning, and what refilled from then on.
    assert drained.total() + calls - 600 <= (time.monotonic() - began_s) * 10


# --------------------------------------------------------------------------------------
# Tokens
# --------------------------------------------------------------------------------------


def test_tokens_pass_to_the_last(http: httpx.Client, model: str) -> None:
    """`max_tokens` counts whatever comes of it, and what is left passes to the exact token."""
    for asked, status, left in ((600, 200, 400), (401, 429, 400), (400, 200, 0), (1, 429, 0)):
        answer = http.post(CHAT_PATH, json=chat(model=model, max_tokens=asked))
        assert (answer.status_code, limits_told(answer)["remaining-tokens"]) == (status, str(left))


@pytest.mark.parametrize("parameters", [{}, {"n": 3}, {"reasoning_effort": "low"}])
def test_without_a_limit_prompt_and_plan_count(
    http: httpx.Client, model: str, parameters: dict[str, object]
) -> None:
    """Without a limit of its own a request is charged what its usage tells."""
    sent = {"X-REASONING-LENGTH": "9"} if "reasoning_effort" in parameters else {}
    answer = http.post(CHAT_PATH, json=chat("Count me!", model=model, **parameters), headers=sent)
    left = 1000 - answer.json()["usage"]["total_tokens"]
    assert limits_told(answer)["remaining-tokens"] == str(left)


def test_large_prompts_count(http: httpx.Client, model: str) -> None:
    """A prompt that is counted in a thread counts as any other."""
    answer = http.post(CHAT_PATH, json=chat("word " * 5000, model=model))
    error = error_of(answer)
    assert (answer.status_code, error["type"]) == (429, "tokens")
    assert error["message"].startswith(f"Request too large for {model} in organization org-x on ")
    assert "tokens per day (TPD): Limit 1000, Requested 50" in error["message"]
    assert not {"retry-after", "retry-after-ms"} & set(answer.headers)
    assert limits_told(answer)["remaining-requests"] == "1000"


def test_legacy_and_streamed_requests_count(http: httpx.Client, model: str) -> None:
    """Both endpoints and both modes take from one bucket, and tell it."""
    legacy = {"model": model, "prompt": "Hi", "max_tokens": 100}
    answers = [
        http.post("/v1/completions", json=legacy),
        http.post("/v1/completions", json={**legacy, "stream": True}),
        http.post(CHAT_PATH, json=chat(model=model, max_completion_tokens=100, stream=True)),
    ]
    left = [limits_told(answer)["remaining-tokens"] for answer in answers]
    assert left == ["900", "800", "700"]


# --------------------------------------------------------------------------------------
# Headers
# --------------------------------------------------------------------------------------


def test_headers_of_an_answer(http: httpx.Client, model: str) -> None:
    """An answer tells limit, rest and reset of requests and tokens, and no wait."""
    answer = http.post(CHAT_PATH, json=chat(model=model, max_tokens=500))
    assert limits_told(answer) == {
        "limit-requests": "1000",
        "remaining-requests": "999",
        "reset-requests": "1m26.4s",
        "limit-tokens": "1000",
        "remaining-tokens": "500",
        "reset-tokens": "12h0m0s",
    }
    assert not {"retry-after", "retry-after-ms"} & set(answer.headers)


def test_headers_of_a_refusal(http: httpx.Client) -> None:
    """A refusal tells in OpenAI's words and headers when to come again."""
    body = chat(model="gpt-4-32k")
    answers = [http.post(CHAT_PATH, json=body) for _ in range(3)]
    refused = answers[-1]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert error_of(refused) == {
        "message": "Rate limit reached for gpt-4-32k in organization org-x on requests per min "
        "(RPM): Limit 2, Used 2, Requested 1. Please try again in 30s. "
        "Visit https://platform.openai.com/account/rate-limits to learn more.",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert limits_told(refused) == {
        "limit-requests": "2",
        "remaining-requests": "0",
        "reset-requests": "1m0s",
    }
    assert 0 < int(refused.headers["retry-after-ms"]) <= 30_000
    assert 0 < int(refused.headers["retry-after"]) <= 30


@pytest.mark.parametrize(
    ("body", "sent", "status"),
    [
        ({"messages": []}, {}, 400),
        ({"temperature": 3}, {}, 400),
        ({}, {"X-TTFT-MS": "soon"}, 400),
        ({"max_tokens": 100, "min_tokens": 200}, {}, 400),
    ],
)
def test_errors_tell_limits_and_take_nothing(
    http: httpx.Client, model: str, body: dict[str, object], sent: dict[str, str], status: int
) -> None:
    """A request that is answered with an error takes nothing, and is told what is left."""
    before = http.post(CHAT_PATH, json=chat(model=model, max_tokens=300))
    answer = http.post(CHAT_PATH, json=chat(model=model, **body), headers=sent)
    assert answer.status_code == status
    assert limits_told(answer) == limits_told(before)


TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("extra", "parameters", "param"),
    [
        ({"X-ITL-JITTER": "wild"}, {}, "X-ITL-JITTER"),
        ({"X-FAULT-KIND": "gone"}, {}, "X-FAULT-KIND"),
        ({"X-FAULT-STATUS": "500", "X-FAULT-ATTEMPTS": "1"}, {}, "X-FAULT-ATTEMPTS"),
        ({"X-TTFT-MS": "600000"}, {}, "stream"),
        ({"X-TTFT-MS": "599999", "X-TTFT-JITTER": "uniform:0"}, {}, "stream"),
        (
            {},
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "tool_choice",
        ),
    ],
)
def test_what_is_refused_takes_nothing(
    http: httpx.Client, model: str, extra: dict[str, str], parameters: dict[str, object], param: str
) -> None:
    """Whatever is a 400 leaves the model's limits as they were, and its headers tell so."""
    refused = http.post(CHAT_PATH, json=chat(model=model, **parameters), headers=extra)
    assert (refused.status_code, error_of(refused)["param"]) == (400, param)
    told = limits_told(refused)
    assert (told["remaining-requests"], told["remaining-tokens"]) == ("1000", "1000")


def test_an_unknown_choice_of_tools_tells_its_model(http: httpx.Client) -> None:
    """A 400 for a tool that is not there tells the limits of the model that was asked for."""
    choice = {"type": "function", "function": {"name": "g"}}
    body = chat(model="gpt-4-32k", tools=[TOOL], tool_choice=choice)
    told = limits_told(http.post(CHAT_PATH, json=body))
    assert told["limit-requests"] == "2"


def test_counting_input_tells_limits_and_takes_nothing(http: httpx.Client, model: str) -> None:
    """The POST endpoint that counts an input tells what is left, and takes nothing of it."""
    body = {"model": model, "input": "Hi"}
    before = http.post("/v1/responses", json={**body, "max_output_tokens": 300})
    answer = http.post("/v1/responses/input_tokens", json=body)
    assert answer.status_code == 200
    assert limits_told(answer) == limits_told(before)
    assert limits_told(answer)["remaining-tokens"] == "700"


def test_a_body_that_names_no_model_tells_the_default(http: httpx.Client) -> None:
    """Where the model is unknown the headers are those of the default."""
    answer = http.post(CHAT_PATH, content=b"{")
    assert answer.status_code == 400
    assert limits_told(answer)["limit-requests"] == "1000"


def test_a_model_without_limits_has_no_headers(http: httpx.Client) -> None:
    """Where nothing is limited nothing is told."""
    answer = http.post(CHAT_PATH, json=chat(model="gpt-4-0314"))
    assert answer.status_code == 200
    assert limits_told(answer) == {}


def test_without_settings_there_are_no_limits(server: Server) -> None:
    """A server without these settings tells no limits and asks for no key."""
    answer = PLAIN.post(f"{server.url}{CHAT_PATH}", json=chat(), headers=headers())
    assert answer.status_code == 200
    assert limits_told(answer) == {}


# --------------------------------------------------------------------------------------
# Keys
# --------------------------------------------------------------------------------------

WRONG_KEY = "sk-wrong-0123456789wxyz"
WRONG = (
    "Incorrect API key provided: sk-wrong***********wxyz. "
    "You can find your API key at https://platform.openai.com/account/api-keys."
)
MISSING = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header "
    "using Bearer auth (i.e. Authorization: Bearer YOUR_KEY), or as the password field (with blank "
    "username) if you're accessing the API from your browser and are prompted for a username and "
    "password. You can obtain an API key from https://platform.openai.com/account/api-keys."
)


def test_a_wrong_key(keyed: Server) -> None:
    """The official client raises its AuthenticationError for an unknown key, in OpenAI's words."""
    with (
        openai.OpenAI(base_url=f"{keyed.url}/v1", api_key=WRONG_KEY) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "Hi"}])
    assert caught.value.status_code == 401
    assert caught.value.body == {
        "message": WRONG,
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }


def test_a_missing_key(keyed: Server) -> None:
    """The official client raises its AuthenticationError for a missing key, in OpenAI's words."""
    omitted = {"Authorization": openai.Omit()}
    with (
        openai.OpenAI(base_url=f"{keyed.url}/v1", api_key="none") as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.chat.completions.create(
            model="gpt-4",
            messages=[{"role": "user", "content": "Hi"}],
            extra_headers=omitted,
        )
    assert caught.value.body == {
        "message": MISSING,
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


def test_models_are_behind_the_keys(keyed: Server, http: httpx.Client) -> None:
    """The list of models takes a key, the health none."""
    without = httpx.Client(base_url=keyed.url, trust_env=False, verify=TLS)
    with without:
        statuses = [without.get(path).status_code for path in ("/v1/models", "/health", "/readyz")]
    assert statuses == [401, 200, 200]
    assert http.get("/v1/models").status_code == 200


def test_keys_have_limits_of_their_own(http: httpx.Client, model: str) -> None:
    """A key's own limits hold for it alone, and its bucket is its own."""
    http.post(CHAT_PATH, json=chat(model=model, max_tokens=999))
    other = {"Authorization": f"Bearer {OTHER_KEY}"}
    answer = http.post(CHAT_PATH, json=chat(model=model, max_tokens=3000), headers=other)
    assert answer.status_code == 200
    assert limits_told(answer)["remaining-tokens"] == "2000"


def test_a_line_for_one_key(http: httpx.Client) -> None:
    """A line that names a key and a model holds for the two."""
    answer = http.post(CHAT_PATH, json=chat(model="gpt-4-0613", max_tokens=7))
    assert limits_told(answer)["remaining-tokens"] == "70"


def test_what_is_left_is_told_by_name_and_no_key_is(keyed: Server, http: httpx.Client) -> None:
    """Metrics tell what is left to a name, of known models; log and metrics hold no key."""
    refused = keyed.metrics().total("openai_emulator_rate_limited_total", kind="tokens")
    http.post(CHAT_PATH, json=chat(model="gpt-3.5-turbo", max_tokens=400))
    http.post(CHAT_PATH, json=chat(model="gpt-3.5-turbo", max_tokens=601))
    http.post(CHAT_PATH, json=chat(model="unknown", max_tokens=10))
    http.post(CHAT_PATH, json=chat(), headers={"Authorization": f"Bearer {WRONG_KEY}"})

    told = keyed.metrics()
    name = "openai_emulator_rate_limit_remaining"
    known = {"key": "team-a", "model": "gpt-3.5-turbo"}
    assert told.total(name, **known, kind="tokens") == 600
    assert told.total(name, **known, kind="requests") == 999
    assert not [sample for sample in told.samples if sample.labels.get("model") == "unknown"]
    assert told.total("openai_emulator_rate_limited_total", kind="tokens") == refused + 1
    log, metrics = keyed.log(), PLAIN.get(f"{keyed.url}/metrics").text
    for key in (KEY, OTHER_KEY, WRONG_KEY):
        assert key not in log
        assert key not in metrics


def test_series_of_what_is_left_are_bounded(keyed: Server, http: httpx.Client) -> None:
    """However many keys with names ask for known models, 100 pairs have series, two each."""
    # The pair that another test looks at comes first; a request that is too large takes nothing.
    http.post(CHAT_PATH, json=chat(model="gpt-3.5-turbo", max_tokens=10_000))
    for n in range(MANY):
        bearer = {"Authorization": f"Bearer sk-many-{n}"}
        assert http.post(CHAT_PATH, json=chat(), headers=bearer).status_code == 200
    name = "openai_emulator_rate_limit_remaining"
    assert eventually(lambda: len(series_of(keyed, name)) >= 190)
    assert len(series_of(keyed, name)) <= 200


@pytest.mark.slow
def test_ten_thousand_keys_and_models_take_little_memory(local_only: None) -> None:  # noqa: ARG001
    """10,000 requests, each with a key and a model of its own, grow the worker by under 5 MB."""
    with running_server(*args(rpm=500, tpm=30_000, workers=1)) as server:
        [worker] = server.workers

        def ask(name: str, n: int) -> None:
            own = {"Authorization": f"Bearer sk-{name}-{n}", "Content-Type": "application/json"}
            sent = headers(output_length=1) | own
            client.request("POST", CHAT_PATH, json.dumps(chat(model=f"{name}-{n}")), sent)
            answer = client.getresponse()
            answer.read()
            assert answer.getheader(f"{PREFIX}remaining-requests") == "499"

        # Of 13,000 requests most of the time is the client's: httpx takes longer.
        with closing(HTTPConnection(*server.address)) as client:
            for n in range(3000):
                ask("warm", n)
            before = worker.memory_info().rss
            for n in range(10_000):
                ask("own", n)
        assert worker.memory_info().rss - before < 5_000_000


def series_of(server: Server, name: str) -> list[dict[str, str]]:
    """Return the labels of each series of a metric."""
    return [sample.labels for sample in server.metrics().samples if sample.name == name]


# --------------------------------------------------------------------------------------
# What stops the start
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "text", "words"),
    [
        ("rpm", None, "rpm"),
        ("limits", "default:\n  tpm: -3\n", "line 2: default.tpm: Input should be greater than"),
        ("limits", "limits:\n- model: gpt-9*\n", "line 2: limits.0.model: 'gpt-9*' matches no"),
        ("api_keys", "keys:\n- name: a\n", "line 2: keys.0: expected key or sha256"),
        ("store", None, "store"),
    ],
)
def test_bad_limits_stop_the_start(
    tmp_path: Path, setting: str, text: str | None, words: str
) -> None:
    """A bad setting or file ends `bentoml serve` at once, with the line and the reason."""
    path = tmp_path / "bad.yaml"
    if text is not None:
        path.write_text(text)
    message = failed_start("--arg", f"{setting}={path if text else '-1'}")
    assert words in message
    assert "Traceback" not in message
