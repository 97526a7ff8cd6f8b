"""The chat completions and models APIs over the wire, on a real server.

Run with pytest, or as a script: ``python test_api.py``.
"""

import json
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from itertools import chain, pairwise
from typing import Any

import httpx
import openai
import pytest

from conftest import sdk_client
from tests.support.reference import least, watched_machine
from tests.support.server import TLS, Server, eventually
from tests.support.simulated.client import Simulated, Timed
from tests.support.wire import (
    CHAT_PATH,
    DONE,
    ENCODINGS,
    Answer,
    Post,
    chat,
    headers,
    post_together,
    stream,
    token_count,
)

Address = tuple[str, int]

MODELS = [
    "gpt-3.5-turbo",
    "gpt-3.5-turbo-0301",
    "gpt-3.5-turbo-0613",
    "gpt-3.5-turbo-16k",
    "gpt-4",
    "gpt-4-0314",
    "gpt-4-0613",
    "gpt-4-32k",
    "text-davinci-003",
    "text-davinci-002",
]
USAGE_KEYS = ["prompt_tokens", "completion_tokens", "total_tokens"]
NO_PROMPT_DETAILS = {"cached_tokens": 0, "audio_tokens": 0}
NO_COMPLETION_DETAILS = {
    "reasoning_tokens": 0,
    "audio_tokens": 0,
    "accepted_prediction_tokens": 0,
    "rejected_prediction_tokens": 0,
}


def ask(
    http: httpx.Client, extra: dict[str, str] | None = None, **parameters: object
) -> dict[str, Any]:
    """Return the answer to a chat that is not streamed, which must succeed."""
    body = {**chat(), **parameters}
    response = http.post(CHAT_PATH, json=body, headers=extra or headers())
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def content_of(answer: dict[str, Any]) -> str:
    """Return the text of an answer that is not streamed."""
    return str(answer["choices"][0]["message"]["content"])


def assert_error(
    response: httpx.Response, status: int, message: str, param: str | None, code: str | None
) -> None:
    """Check an answer against OpenAI's envelope, key by key."""
    error = {
        "message": message,
        "type": "invalid_request_error",
        "param": param,
        "code": code,
    }
    assert (response.status_code, response.json()) == (status, {"error": error})
    assert response.headers["content-type"] == "application/json"


# --------------------------------------------------------------------------------------
# The specification's examples
# --------------------------------------------------------------------------------------


def curl_whole(http: httpx.Client) -> tuple[dict[str, Any], float]:
    """Return the answer to the specification's first curl line, and how long it took, in s."""
    started_s = time.monotonic()
    response = http.post(
        CHAT_PATH,
        headers={
            "Content-Type": "application/json",
            "X-TTFT-MS": "200",
            "X-ITL-MS": "50",
            "X-OUTPUT-LENGTH": "25",
        },
        content=b"""{
    "model": "gpt-3.5-turbo",
    "messages": [
      {"role": "user", "content": "Hello, how are you?"}
    ],
    "stream": false
  }""",
    )
    return response.json(), time.monotonic() - started_s


STORY = {"messages": [{"role": "user", "content": "Tell me a story"}]}
STORY_TIMES = headers(ttft_ms=150, itl_ms=75, output_length=30)


def client_whole(client: openai.OpenAI) -> str:
    """Return the text of the specification's client example without a stream."""
    response = client.chat.completions.create(
        model="gpt-3.5-turbo",
        messages=[{"role": "user", "content": "Hello!"}],
        extra_headers={"X-TTFT-MS": "200", "X-OUTPUT-LENGTH": "25"},
    )
    return response.choices[0].message.content or ""


def client_stream(client: openai.OpenAI) -> list[str]:
    """Return the pieces of text of the specification's client example with a stream."""
    chunks = client.chat.completions.create(
        model="gpt-4",
        messages=[{"role": "user", "content": "Tell me a joke"}],
        stream=True,
        extra_headers={"X-TTFT-MS": "150", "X-ITL-MS": "75", "X-OUTPUT-LENGTH": "30"},
    )
    texts = [chunk.choices[0].delta.content for chunk in chunks]
    return [text for text in texts if text]


Examples = Mapping[str, "Future[Any]"]


@pytest.fixture(scope="module")
def examples(base_url: str, http: httpx.Client, address: Address) -> Iterator[Examples]:
    """Run the specification's examples side by side, as each of them takes seconds."""
    with ThreadPoolExecutor(4) as pool, sdk_client(base_url) as client:
        yield {
            "curl whole": pool.submit(curl_whole, http),
            "curl stream": pool.submit(stream, address, STORY_TIMES, **STORY),
            "client whole": pool.submit(client_whole, client),
            "client stream": pool.submit(client_stream, client),
        }


def test_curl_example_whole(examples: Examples) -> None:
    """The specification's first curl line gives 25 tokens, not before 200 + 24 * 50 ms."""
    answer, took_s = examples["curl whole"].result()
    assert answer["usage"]["completion_tokens"] == 25
    assert token_count(content_of(answer), "cl100k_base") == 25
    assert took_s >= 1.4


def test_curl_example_stream(examples: Examples) -> None:
    """The specification's second curl line streams 30 tokens, one each 75 ms, none early."""
    answer = examples["curl stream"].result()
    assert len(answer.content) == 30
    assert answer.early(150, 75) == []


def test_client_example_whole(examples: Examples) -> None:
    """The specification's client example without a stream gets 25 tokens."""
    assert token_count(examples["client whole"].result(), "cl100k_base") == 25


def test_client_example_stream(examples: Examples) -> None:
    """The specification's client example with a stream gets 30 pieces of text, 30 tokens."""
    texts = examples["client stream"].result()
    assert len(texts) == 30
    assert token_count("".join(texts), "cl100k_base") == 30


def test_examples_keep_their_times(simulated: Simulated) -> None:
    """The curl lines' answers come at the very times that they ask for."""
    whole, streamed = simulated.answers(
        Timed(chat(), headers(200, 50, 25)), Timed({**chat(stream=True), **STORY}, STORY_TIMES)
    )
    assert whole.blocks[-1].arrival_s == pytest.approx(1.4)
    assert streamed.times_s == pytest.approx([0.150 + 0.075 * i for i in range(30)])


@pytest.mark.anyio
async def test_async_client_whole(async_client: openai.AsyncOpenAI) -> None:
    """The asynchronous client gets the length that it asked for."""
    response = await async_client.chat.completions.create(
        model="gpt-4",
        messages=[{"role": "user", "content": "Hello!"}],
        extra_headers=headers(output_length=25),
    )
    assert token_count(response.choices[0].message.content or "", "cl100k_base") == 25


@pytest.mark.anyio
async def test_async_client_stream(async_client: openai.AsyncOpenAI) -> None:
    """The asynchronous client streams one token a chunk."""
    chunks = await async_client.chat.completions.create(
        model="gpt-4",
        messages=[{"role": "user", "content": "Hello!"}],
        stream=True,
        extra_headers=headers(output_length=30),
    )
    texts = [chunk.choices[0].delta.content async for chunk in chunks]
    assert len([text for text in texts if text]) == 30


def test_client_stream_helper(client: openai.OpenAI) -> None:
    """The official client's stream helper puts the chunks together to one completion."""
    with client.chat.completions.stream(
        model="gpt-4",
        messages=[{"role": "user", "content": "Hello!"}],
        stream_options={"include_usage": True},
        extra_headers=headers(output_length=12),
    ) as events:
        completion = events.get_final_completion()
    assert token_count(completion.choices[0].message.content or "", "cl100k_base") == 12
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 12


def test_client_error(client: openai.OpenAI) -> None:
    """The official client raises its own error class, with param and code, on a 400."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="gpt-4", messages=[])
    assert (caught.value.param, caught.value.code) == ("messages", "empty_array")


def test_client_lists_models(client: openai.OpenAI) -> None:
    """The official client lists the ten models."""
    assert [model.id for model in client.models.list()] == MODELS


def test_client_unlisted_model(client: openai.OpenAI) -> None:
    """The official client finds any model that a chat would take."""
    assert client.models.retrieve("no/such-model").id == "no/such-model"


# --------------------------------------------------------------------------------------
# Shapes
# --------------------------------------------------------------------------------------


def test_whole_answer_shape(http: httpx.Client) -> None:
    """A whole answer has exactly the keys and the constants of OpenAI's."""
    answer = ask(http, headers(output_length=4))
    assert answer == {
        "id": answer["id"],
        "object": "chat.completion",
        "created": answer["created"],
        "model": "gpt-4",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": content_of(answer),
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 4,
            "total_tokens": 13,
            "prompt_tokens_details": NO_PROMPT_DETAILS,
            "completion_tokens_details": NO_COMPLETION_DETAILS,
        },
        "service_tier": "default",
        "system_fingerprint": answer["system_fingerprint"],
    }


def test_identifiers(http: httpx.Client) -> None:
    """An answer's id and fingerprint have OpenAI's form, and ``created`` is now."""
    answer = ask(http)
    assert re.fullmatch(r"chatcmpl-[A-Za-z0-9]{29}", answer["id"])
    assert re.fullmatch(r"fp_[0-9a-f]{10}", answer["system_fingerprint"])
    assert type(answer["created"]) is int
    assert abs(answer["created"] - time.time()) < 60


def test_ids_differ(http: httpx.Client) -> None:
    """No two answers have one id."""
    assert len({ask(http)["id"] for _ in range(20)}) == 20


def stream_shape(answer: Answer, *, with_usage: bool) -> list[dict[str, Any]]:
    """Return the chunks that a stream of this text must consist of."""
    first = answer.chunks[0]
    start: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
    deltas = [start, *({"content": event.content} for event in answer.content), {}]
    reasons = [None] * (len(deltas) - 1) + ["stop"]
    frame = {
        "id": first["id"],
        "object": "chat.completion.chunk",
        "created": first["created"],
        "model": "gpt-4",
        "service_tier": "default",
        "system_fingerprint": first["system_fingerprint"],
    }
    unused = {"usage": None} if with_usage else {}
    return [
        {
            **frame,
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}],
            **unused,
        }
        for delta, reason in zip(deltas, reasons, strict=True)
    ]


def test_stream_shape(address: Address) -> None:
    """A stream is the role, the tokens and the finish reason, under one id and one created."""
    answer = stream(address, headers(output_length=6))
    assert len(answer.content) == 6
    assert answer.chunks == stream_shape(answer, with_usage=False)


def test_stream_with_usage_shape(address: Address) -> None:
    """With include_usage the last chunk has no choices, and all before it ``usage: null``."""
    answer = stream(address, headers(output_length=6), stream_options={"include_usage": True})
    *chunks, last = answer.chunks
    assert chunks == stream_shape(answer, with_usage=True)
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 6,
        "total_tokens": 15,
        "prompt_tokens_details": NO_PROMPT_DETAILS,
        "completion_tokens_details": NO_COMPLETION_DETAILS,
    }
    frame = {key: value for key, value in chunks[0].items() if key not in ("choices", "usage")}
    assert last == {**frame, "choices": [], "usage": usage}


def test_include_usage_false(address: Address) -> None:
    """With ``include_usage: false`` no chunk has a usage, and none is without choices."""
    answer = stream(address, headers(), stream_options={"include_usage": False})
    assert all("usage" not in chunk and chunk["choices"] for chunk in answer.chunks)


def test_stream_bytes(address: Address) -> None:
    """A stream's bytes are events of one ``data:`` line each, and nothing else."""
    answer = stream(address, headers(), stream_options={"include_usage": True})
    assert re.fullmatch(rb"(data: \{[^\n]+\}\n\n)+data: \[DONE\]\n\n", answer.body)


def test_role_leaves_with_first_token(address: Address) -> None:
    """The role chunk and the first token are written at once."""
    answer = stream(address, headers(ttft_ms=50, itl_ms=50, output_length=3))
    events = answer.blocks[0].data.decode().split("\n\n")
    assert '"role":"assistant"' in events[0]
    assert f'"content":{json.dumps(answer.content[0].content)}' in events[1]
    assert events[2:] == [""]


def test_due_tokens_leave_in_one_write(address: Address) -> None:
    """Tokens that are due together leave in one write, each in an event of its own."""
    answer = stream(address, headers(itl_ms=0, output_length=100))
    assert answer.blocks[0].data.count(b"\n\n") >= 101
    assert len(answer.content) == 100


def test_stream_headers(address: Address) -> None:
    """A stream has the headers of OpenAI's streams, and none that lets proxies hold it back."""
    answer = stream(address, headers())
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["openai-version"] == "2020-10-01"
    assert int(answer.headers["openai-processing-ms"]) >= 0
    assert answer.headers["x-request-id"]


def test_whole_answer_headers(http: httpx.Client) -> None:
    """A whole answer is JSON and says how long it took."""
    started_s = time.monotonic()
    response = http.post(CHAT_PATH, json=chat(), headers=headers(ttft_ms=30, output_length=1))
    took_ms = (time.monotonic() - started_s) * 1000
    assert response.headers["content-type"] == "application/json"
    assert response.headers["openai-version"] == "2020-10-01"
    assert 30 <= int(response.headers["openai-processing-ms"]) <= took_ms


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/x", "/health", "/v1/x"])
def test_request_ids_differ(http: httpx.Client, path: str) -> None:
    """Every answer, an error too, has a request id of its own."""
    assert http.get(path).headers["x-request-id"] != http.get(path).headers["x-request-id"]


def test_model_name_is_echoed_in_streams(address: Address) -> None:
    """A model's name comes back as it was sent, whatever is in it."""
    name = 'a/"b"\\ <content> {content} 模型\n'
    answer = stream(address, headers(), model=name)
    assert {chunk["model"] for chunk in answer.chunks} == {name}
    assert len(answer.content) == 5


def test_model_name_is_echoed(http: httpx.Client) -> None:
    """A model that is not listed is accepted, and echoed."""
    assert ask(http, model="gpt-4-vision-preview")["model"] == "gpt-4-vision-preview"


# --------------------------------------------------------------------------------------
# Exact tokens and lengths
# --------------------------------------------------------------------------------------

LENGTHS = [1, 2, 13, 257, 4096]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("model", ENCODINGS)
def test_whole_answer_is_exact(http: httpx.Client, model: str, length: int) -> None:
    """A whole answer re-encodes to the tokens that were asked for and that usage states."""
    answer = ask(http, headers(output_length=length), model=model)
    assert token_count(content_of(answer), ENCODINGS[model]) == length
    assert answer["usage"]["completion_tokens"] == length


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("model", ENCODINGS)
def test_stream_is_exact(address: Address, model: str, length: int) -> None:
    """A stream of n tokens is n content events whose text re-encodes to n tokens."""
    answer = stream(address, headers(output_length=length), model=model)
    assert len(answer.content) == length
    assert token_count(answer.text, ENCODINGS[model]) == length


def test_each_event_is_one_token(address: Address) -> None:
    """Each content event is one token of its own."""
    answer = stream(address, headers(output_length=300))
    assert {token_count(event.content, "cl100k_base") for event in answer.content} == {1}


def test_longest_answer_is_exact(address: Address) -> None:
    """131,072 tokens, the most there are, arrive as that many exact events."""
    body = stream(address, headers(output_length=131_072)).body
    # To parse each of them as JSON would take seconds.
    texts = re.findall(rb'^data: \{.*"delta":\{"content":"([^"\\]+)"\}.*\}$', body, re.MULTILINE)
    assert len(texts) == 131_072
    assert token_count(b"".join(texts).decode(), "cl100k_base") == 131_072


def test_different_requests_get_different_texts(http: httpx.Client) -> None:
    """Equal requests get texts that differ, but by a rare chance."""
    texts = {content_of(ask(http, headers(output_length=60))) for _ in range(10)}
    assert len(texts) >= 8


def test_defaults(simulated: Simulated) -> None:
    """Without headers there are 20 tokens from 100 ms on, one each 50 ms."""
    answer = simulated.stream()
    assert answer.times_s == pytest.approx([0.100 + 0.050 * i for i in range(20)])


def test_batches(address: Address) -> None:
    """X-SSE-BATCH-SIZE puts that many tokens in each event, and the rest in the last."""
    answer = stream(address, {**headers(output_length=10), "X-SSE-BATCH-SIZE": "4"})
    assert [token_count(event.content, "cl100k_base") for event in answer.content] == [4, 4, 2]
    assert token_count(answer.text, "cl100k_base") == 10


def test_batch_leaves_with_its_first_token(simulated: Simulated) -> None:
    """An event of several tokens leaves when its first token is due, not its last."""
    asked = {**headers(ttft_ms=50, itl_ms=40, output_length=10), "X-SSE-BATCH-SIZE": "5"}
    assert simulated.stream(asked).times_s == pytest.approx([0.050, 0.250])


def test_fractions_of_milliseconds(simulated: Simulated) -> None:
    """Times may have fractions: 200 tokens at 2.5 ms take 497.5 ms after the first."""
    answer = simulated.stream(headers(ttft_ms=10.25, itl_ms=2.5, output_length=200))
    assert answer.times_s[-1] == pytest.approx(0.50775)


@pytest.mark.parametrize(
    ("asked", "parameters", "tokens", "reason"),
    [
        (20, {"max_tokens": 5}, 5, "length"),
        (20, {"max_completion_tokens": 5}, 5, "length"),
        (20, {"max_completion_tokens": 5, "max_tokens": 9}, 5, "length"),
        (20, {"max_completion_tokens": 9, "max_tokens": 5}, 9, "length"),
        (5, {"max_tokens": 5}, 5, "stop"),
        (5, {"max_tokens": 10**30}, 5, "stop"),
        (5, {"max_tokens": None, "min_tokens": None}, 5, "stop"),
        (5, {"min_tokens": 8}, 8, "stop"),
        (8, {"min_tokens": 5}, 8, "stop"),
        (5, {"min_tokens": 8, "max_tokens": 9}, 8, "stop"),
        (5, {"ignore_eos": True, "max_tokens": 9}, 5, "stop"),
        (None, {"ignore_eos": True, "max_tokens": 33}, 33, "length"),
        (None, {"ignore_eos": True, "max_completion_tokens": 33}, 33, "length"),
        (None, {"ignore_eos": True}, 20, "stop"),
        (None, {"ignore_eos": False, "max_tokens": 33}, 20, "stop"),
        (None, {"min_tokens": 33}, 33, "stop"),
    ],
)
def test_length_rules(
    http: httpx.Client,
    asked: int | None,
    parameters: dict[str, object],
    tokens: int,
    reason: str,
) -> None:
    """The header, the client's limit, min_tokens and ignore_eos decide length and reason."""
    extra = headers()
    extra.pop("X-OUTPUT-LENGTH")
    if asked is not None:
        extra["X-OUTPUT-LENGTH"] = str(asked)
    answer = ask(http, extra, **parameters)
    assert token_count(content_of(answer), "cl100k_base") == tokens
    assert answer["choices"][0]["finish_reason"] == reason


def test_stream_cut_by_limit(address: Address) -> None:
    """A stream that the limit cut ends with the finish reason ``length``, once."""
    answer = stream(address, headers(output_length=9), max_tokens=4)
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in answer.chunks]
    assert len(answer.content) == 4
    assert [reason for reason in reasons if reason] == ["length"]
    assert reasons[-1] == "length"


# --------------------------------------------------------------------------------------
# Usage
# --------------------------------------------------------------------------------------

# The example of OpenAI's cookbook, "How to count tokens with tiktoken", with the counts that
# OpenAI's own API gave for it.
JARGON = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates corporate "
        "jargon into plain English.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "New synergies will help drive top-line growth.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Things working well together will increase revenue.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on opportunities "
        "for deeper leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client "
        "deliverable.",
    },
]


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("gpt-3.5-turbo", 129),
        ("gpt-4-0613", 129),
        ("gpt-4o", 124),
        ("gpt-3.5-turbo-0301", 127),
    ],
)
def test_prompt_tokens_of_the_cookbook(http: httpx.Client, model: str, tokens: int) -> None:
    """The cookbook's chat counts what OpenAI's API counted."""
    assert ask(http, model=model, messages=JARGON)["usage"]["prompt_tokens"] == tokens


@pytest.mark.parametrize("model", ENCODINGS)
def test_prompt_tokens_by_encoding(http: httpx.Client, model: str) -> None:
    """A prompt is counted in its model's own encoding."""
    text = "Ein längerer Satz, 一个句子, and 12345678 numbers.\n\n\tdef f(): pass"
    expected = 3 + 3 + token_count("user", ENCODINGS[model]) + token_count(text, ENCODINGS[model])
    answer = ask(http, **chat(text, model=model))
    assert answer["usage"]["prompt_tokens"] == expected


def test_special_tokens_in_prompts(http: httpx.Client) -> None:
    """A special token's name in a user's text is ordinary text."""
    text = "<|endoftext|><|im_start|>"
    expected = 7 + token_count(text, "cl100k_base")
    assert ask(http, **chat(text))["usage"]["prompt_tokens"] == expected


def test_long_prompt_is_counted(http: httpx.Client) -> None:
    """A prompt of many thousand tokens is counted as exactly as a short one."""
    text = "The quick brown fox. " * 20_000
    expected = 7 + token_count(text, "cl100k_base")
    assert ask(http, **chat(text))["usage"]["prompt_tokens"] == expected


def test_total_is_the_sum(http: httpx.Client) -> None:
    """The total is prompt and completion together."""
    usage = ask(http, headers(output_length=77))["usage"]
    assert [usage[key] for key in USAGE_KEYS] == [9, 77, 86]


def test_stream_and_whole_usage_agree(http: httpx.Client, address: Address) -> None:
    """Both modes state the same usage."""
    streamed = stream(address, headers(), messages=JARGON, stream_options={"include_usage": True})
    assert streamed.chunks[-1]["usage"] == ask(http, messages=JARGON)["usage"]


# --------------------------------------------------------------------------------------
# What is accepted
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "Bearer dummy-key", "Bearer", "any thing"])
def test_any_api_key_works(http: httpx.Client, key: str | None) -> None:
    """Any API key is accepted, and none too."""
    extra = {**headers(), **({"Authorization": key} if key is not None else {})}
    assert len(content_of(ask(http, extra))) > 0


def test_load_generators_parameters_are_accepted(http: httpx.Client) -> None:
    """Parameters that load generators send beside OpenAI's are accepted."""
    answer = ask(
        http,
        top_k=5,
        repetition_penalty=1.1,
        chat_template_kwargs={"enable_thinking": False},
        temperature=0,
        stop=None,
        user="u",
        store=False,
    )
    assert answer["usage"]["completion_tokens"] == 5


def test_every_role_is_accepted(http: httpx.Client) -> None:
    """A conversation may hold every role of OpenAI's, with tool calls and parts of text."""
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": "Hi", "name": ""},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "42", "tool_call_id": "call_1"},
        {"role": "assistant", "content": "ok", "refusal": None},
        {"role": "function", "content": None, "name": "f"},
    ]
    assert ask(http, messages=messages)["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize("continuous", [False, True])
def test_continuous_usage_stats(address: Address, continuous: bool) -> None:
    """With continuous_usage_stats each chunk tells the usage so far, else the last one alone."""
    options = {
        "include_usage": True,
        "continuous_usage_stats": continuous,
        "include_obfuscation": False,
    }
    chunks = stream(address, headers(), stream_options=options).chunks
    counts = [chunk["usage"] and chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == ([0, 1, 2, 3, 4, 5, 5, 5] if continuous else [*[None] * 7, 5])
    assert chunks[-1]["usage"] == chunks[-1]["usage"] | {"prompt_tokens": 9, "total_tokens": 14}


def test_no_stored_completions(http: httpx.Client) -> None:
    """The list of stored completions is there, and empty."""
    assert http.get(CHAT_PATH).json() == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


def test_connection_is_kept(http: httpx.Client) -> None:
    """A connection serves another request after a stream was read to its end."""
    with httpx.Client(base_url=http.base_url, trust_env=False, verify=TLS) as client:
        streams = [
            client.post(CHAT_PATH, json=chat(stream=True), headers=headers()).extensions[
                "network_stream"
            ]
            for _ in range(2)
        ]
        addresses = {s.get_extra_info("client_addr") for s in streams}
    assert len(addresses) == 1


# --------------------------------------------------------------------------------------
# Models, health, BentoML's own routes
# --------------------------------------------------------------------------------------


def test_models(http: httpx.Client) -> None:
    """The model list is the specification's, in its order and OpenAI's shape."""
    answer = http.get("/v1/models").json()
    assert list(answer) == ["object", "data"]
    assert answer["object"] == "list"
    assert [model["id"] for model in answer["data"]] == MODELS
    assert {tuple(model) for model in answer["data"]} == {("id", "object", "created", "owned_by")}
    assert {model["object"] for model in answer["data"]} == {"model"}


def test_created_of_models_is_constant(http: httpx.Client) -> None:
    """A model's ``created`` is one integer, the same in every answer."""
    answers = [http.get("/v1/models").json() for _ in range(5)]
    created = {model["created"] for answer in answers for model in answer["data"]}
    assert {type(instant) for instant in created} == {int}
    assert answers[0] == answers[-1]


@pytest.mark.parametrize("model", MODELS)
def test_model(http: httpx.Client, model: str) -> None:
    """Each listed model can be asked for, and is what the list says."""
    listed = {entry["id"]: entry for entry in http.get("/v1/models").json()["data"]}
    assert http.get(f"/v1/models/{model}").json() == listed[model]


@pytest.mark.parametrize("model", ["nope", "org/nope", "org/sub/nope", "gpt-4/", "a%20b"])
def test_unlisted_model(http: httpx.Client, model: str) -> None:
    """A model that a chat would take can be asked for too; a slash belongs to its id."""
    [listed, *_] = http.get("/v1/models").json()["data"]
    assert http.get(f"/v1/models/{model}").json() == {**listed, "id": model.replace("%20", " ")}


def test_health(http: httpx.Client) -> None:
    """The health check gives status, version and the seconds since the start."""
    answer = http.get("/health")
    assert answer.status_code == 200
    assert list(answer.json()) == ["status", "version", "uptime"]
    assert answer.json()["status"] == "ok"
    assert re.fullmatch(r"\d+\.\d+\.\d+", answer.json()["version"])
    assert 0 < answer.json()["uptime"] < 1e6


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes(http: httpx.Client, path: str) -> None:
    """BentoML's own probes answer 200."""
    assert http.get(path).status_code == 200


def test_metrics(http: httpx.Client) -> None:
    """BentoML's metrics count the completions."""
    ask(http)
    metrics = http.get("/metrics").text
    assert re.search(r'bentoml_service_request_total\{endpoint="/v1/chat/completions"', metrics)


# --------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------

NOT_JSON = "We could not parse the JSON body of your request."
ROLES = "'system', 'assistant', 'user', 'function', 'tool', and 'developer'"
ERRORS: dict[str, tuple[dict[str, Any], str, str | None, str | None]] = {
    "no model": (
        {"messages": [{"role": "user", "content": "x"}]},
        "you must provide a model parameter",
        None,
        None,
    ),
    "no messages": (
        {"model": "gpt-4"},
        "Missing required parameter: 'messages'.",
        "messages",
        "missing_required_parameter",
    ),
    "empty messages": (
        chat(messages=[]),
        "Invalid 'messages': empty array. Expected an array with minimum length 1, "
        "but got an empty array instead.",
        "messages",
        "empty_array",
    ),
    "bad role": (
        chat(messages=[{"role": "x", "content": "y"}]),
        f"Invalid value: 'x'. Supported values are: {ROLES}.",
        "messages[0].role",
        "invalid_value",
    ),
    "no role": (
        chat(messages=[{"role": "user", "content": "y"}, {"content": "y"}]),
        "Missing required parameter: 'messages[1].role'.",
        "messages[1].role",
        "missing_required_parameter",
    ),
    "no tool_call_id": (
        chat(messages=[{"role": "tool", "content": "y"}]),
        "Missing required parameter: 'messages[0].tool_call_id'.",
        "messages[0].tool_call_id",
        "missing_required_parameter",
    ),
    "bad part type": (
        chat(messages=[{"role": "user", "content": [{"type": "x"}]}]),
        "Invalid value: 'x'. Supported values are: 'text', 'image_url', 'input_audio', and 'file'.",
        "messages[0].content[0].type",
        "invalid_value",
    ),
    "messages of wrong type": (
        chat(messages="hello"),
        "Invalid type for 'messages': expected an array, but got a string instead.",
        "messages",
        "invalid_type",
    ),
    "model of wrong type": (
        chat(model=5),
        "Invalid type for 'model': expected a string, but got an integer instead.",
        "model",
        "invalid_type",
    ),
    "integer of wrong type": (
        chat(max_tokens="5"),
        "Invalid type for 'max_tokens': expected an integer, but got a string instead.",
        "max_tokens",
        "invalid_type",
    ),
    "boolean of wrong type": (
        chat(stream="yes"),
        "Invalid type for 'stream': expected a boolean, but got a string instead.",
        "stream",
        "invalid_type",
    ),
    "number too small": (
        chat(max_tokens=0),
        "Invalid 'max_tokens': integer below minimum value. "
        "Expected a value >= 1, but got 0 instead.",
        "max_tokens",
        "integer_below_min_value",
    ),
    "stream_options without stream": (
        chat(stream_options={"include_usage": True}),
        "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
        "stream_options",
        None,
    ),
}


@pytest.mark.parametrize("fault", ERRORS)
def test_request_errors(http: httpx.Client, fault: str) -> None:
    """A faulty request gets OpenAI's words, param and code."""
    body, message, param, code = ERRORS[fault]
    assert_error(http.post(CHAT_PATH, json=body), 400, message, param, code)


def test_errors_of_streams(address: Address) -> None:
    """A faulty request for a stream is answered with a status and JSON, not with a stream."""
    answer = stream(address, {"X-TTFT-MS": "soon"})
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body)["error"]["param"] == "X-TTFT-MS"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"hello",
        b'{"model": "gpt-4",}',
        b'{"model": NaN}',
        b"\xff\xfe",
        b"[" * 100_000,
        pytest.param(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="deep"),
        pytest.param(rb'{"model": "gpt-4", "messages": ["\ud800"]}', id="lone surrogate"),
        pytest.param(b'{"model": "\x00"}', id="control character"),
    ],
)
def test_body_that_is_not_json(http: httpx.Client, body: bytes) -> None:
    """A body that cannot be read as JSON is a 400, never a 500."""
    assert_error(http.post(CHAT_PATH, content=body), 400, NOT_JSON, None, None)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("[]", "an array"),
        ("5", "an integer"),
        ('"x"', "a string"),
        ("null", "null"),
        ("true", "a boolean"),
    ],
)
def test_body_that_is_no_object(http: httpx.Client, body: str, kind: str) -> None:
    """JSON that is no object is a 400 that says what came."""
    message = f"Invalid type: expected an object, but got {kind} instead."
    assert_error(http.post(CHAT_PATH, content=body), 400, message, None, "invalid_type")


NOT_IN_RANGE = {
    "X-TTFT-MS": (
        ("0", "600000"),
        ["", "abc", "nan", "inf", "-inf", "-1", "-0.001", "600000.1", "1e9", "1_0", "0x10", "1,5"],
    ),
    "X-ITL-MS": (
        ("0", "60000"),
        ["", "abc", "NaN", "Infinity", "-1", "60000.5", "1_0", "1 000"],
    ),
    "X-OUTPUT-LENGTH": (
        ("1", "131072"),
        ["", "abc", "nan", "inf", "0", "-5", "1.5", "131073", "1_0", "9" * 60],
    ),
    "X-SSE-BATCH-SIZE": (("1", "1024"), ["", "abc", "nan", "0", "-1", "1.5", "1025"]),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, (_, values) in NOT_IN_RANGE.items() for value in values],
)
def test_header_errors(http: httpx.Client, name: str, value: str) -> None:
    """A header that is no number in its range is a 400 that names header, range and value."""
    response = http.post(CHAT_PATH, json=chat(), headers={**headers(), name: value})
    error = response.json()["error"]
    lowest, highest = NOT_IN_RANGE[name][0]
    assert response.status_code == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", name)
    assert all(part in error["message"] for part in (name, lowest, highest, f"'{value}'"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-TTFT-MS", "0"),
        ("X-TTFT-MS", "0.5"),
        ("X-TTFT-MS", "1e1"),
        ("X-ITL-MS", "0"),
        ("X-ITL-MS", "1e-300"),
        ("X-ITL-MS", "1e-310"),
        ("X-OUTPUT-LENGTH", "1"),
        ("X-SSE-BATCH-SIZE", "1"),
        ("X-SSE-BATCH-SIZE", "1024"),
        ("x-sse-batch-size", "2"),
    ],
)
def test_headers_at_the_edge(address: Address, name: str, value: str) -> None:
    """Values at the edge of their range are accepted, and give a whole stream."""
    answer = stream(address, {**headers(), name: value})
    assert answer.status == 200
    assert answer.events[-1].data == DONE


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/x"), ("GET", "/v1/x"), ("GET", "/v1/chat"), ("POST", "/v1/chat/completions/")],
)
def test_unknown_url(http: httpx.Client, method: str, path: str) -> None:
    """An URL below /v1 that is not there is a 404 that names it."""
    assert_error(http.request(method, path), 404, f"Invalid URL ({method} {path})", None, None)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", CHAT_PATH),
        ("DELETE", CHAT_PATH),
        ("POST", "/v1/models"),
        ("DELETE", "/v1/models/gpt-4"),
        ("POST", "/health"),
    ],
)
def test_wrong_method(http: httpx.Client, method: str, path: str) -> None:
    """A method that an URL does not know is a 405 that names both."""
    message = f"Not allowed to {method} on {path}."
    assert_error(http.request(method, path), 405, message, None, "method_not_supported")


def test_declared_body_over_the_limit(address: Address) -> None:
    """A body that says it is over 50 MB is refused before it is sent."""
    with closing(HTTPConnection(*address, timeout=10)) as connection:
        connection.putrequest("POST", CHAT_PATH)
        connection.putheader("Content-Length", "50000001")
        connection.endheaders()
        response = connection.getresponse()
        error = json.load(response)["error"]
    assert (response.status, error["type"]) == (413, "invalid_request_error")


def test_chunked_body_over_the_limit(http: httpx.Client) -> None:
    """A body of unknown length is refused when it is over 50 MB."""
    body = chain([b" " * 1_000_000] * 50, [json.dumps(chat()).encode()])
    response = http.post(CHAT_PATH, content=body)
    assert response.status_code == 413
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_serves_after_errors(http: httpx.Client) -> None:
    """A server that has refused many requests answers the next one."""
    for body in (b"{", b"[]", b"{}") * 5:
        assert http.post(CHAT_PATH, content=body).status_code == 400
    assert len(content_of(ask(http))) > 0


# --------------------------------------------------------------------------------------
# Other clients
# --------------------------------------------------------------------------------------


SENTENCE = "The quick brown fox jumps over the lazy dog. "
LINK = {"type": "image_url", "image_url": {"url": "https://x/y"}}
LONG: dict[str, dict[str, Any]] = {
    "prompt": chat(SENTENCE * 100_000),
    "tool": chat(
        tools=[{"type": "function", "function": {"name": "f", "description": SENTENCE * 100_000}}]
    ),
    "images": chat(messages=[{"role": "user", "content": [LINK] * 2048}]),
}


@pytest.mark.parametrize("kind", LONG)
def test_long_prompts_do_not_delay_streams(address: Address, kind: str) -> None:
    """While megabytes are read and counted, which takes a second, running streams go on.

    No token waits for longer than 0.2 s, but for what the machine itself did.
    """
    running = Post(chat(stream=True), headers(itl_ms=10, output_length=60))
    long = Post(LONG[kind], headers(output_length=1))

    def gap_s() -> float:
        with watched_machine() as machine:
            answers = post_together(address, [*[running] * 6, long, long])
        assert [answer.status for answer in answers] == [200] * 8
        return max(largest_gap_s(answer) for answer in answers[:6]) - machine.worst_s

    assert least(gap_s, below=0.2) < 0.2


def largest_gap_s(answer: Answer) -> float:
    """Return the longest that a stream kept its client waiting after the first token."""
    times = [event.arrival_s for event in answer.content]
    return max(later - earlier for earlier, later in pairwise(times))


def drop_mid_stream(http: httpx.Client, model: str) -> None:
    """Go away after the first bytes of a stream of ten minutes."""
    body = chat(model=model, stream=True)
    extra = headers(itl_ms=60_000, output_length=11)
    with http.stream("POST", CHAT_PATH, json=body, headers=extra) as response:
        next(response.iter_raw())


def drop_before_first_token(http: httpx.Client, model: str) -> None:
    """Go away from a stream that has said nothing but its headers."""
    body = chat(model=model, stream=True)
    with http.stream("POST", CHAT_PATH, json=body, headers=headers(ttft_ms=600_000)):
        pass


def drop_while_waiting(http: httpx.Client, model: str) -> None:
    """Go away from a whole answer that is due in minutes."""
    extra = headers(ttft_ms=200_000)
    with pytest.raises(httpx.ReadTimeout):
        http.post(CHAT_PATH, json=chat(model=model), headers=extra, timeout=0.2)


@pytest.mark.parametrize("drop", [drop_mid_stream, drop_before_first_token, drop_while_waiting])
def test_disconnects(
    logged_server: Server, http: httpx.Client, drop: Callable[[httpx.Client, str], None]
) -> None:
    """When a client goes away its generation ends at once, with status 499 in the log."""
    model = f"drop-{uuid.uuid4()}"
    drop(http, model)
    assert eventually(lambda: model in logged_server.log())
    assert completion_fields(logged_server, model)["status"] == "499"


def test_serves_after_disconnects(http: httpx.Client) -> None:
    """A server whose clients went away answers the next one."""
    for _ in range(10):
        drop_mid_stream(http, "gpt-4")
    assert len(content_of(ask(http))) > 0


# --------------------------------------------------------------------------------------
# Logs
# --------------------------------------------------------------------------------------


def completion_fields(server: Server, mark: str) -> dict[str, str]:
    """Return the fields of the one log line that holds `mark`."""
    (line,) = [line for line in server.log().splitlines() if mark in line]
    return dict(re.findall(r'(\w+)=("[^"]*"|\S+)', line))


def logged(server: Server, id_: str) -> dict[str, str]:
    """Wait for the log line of the completion with this id and return its fields."""
    assert eventually(lambda: id_ in server.log())
    return completion_fields(server, id_)


def test_log_line_of_stream(logged_server: Server, address: Address) -> None:
    """A stream has one log line, with its length, its status and its times asked and actual."""
    answer = stream(address, headers(ttft_ms=30, itl_ms=12.5, output_length=7))
    fields = logged(logged_server, answer.chunks[0]["id"])
    assert (fields["model"], fields["mode"], fields["status"]) == ('"gpt-4"', "stream", "200")
    assert fields["tokens"] == "7/7"
    assert (fields["ttft_ms"], fields["itl_ms"]) == ("30.00", "12.50")
    first_ms, last_ms = (answer.times_s[index] * 1000 for index in (0, -1))
    assert 30 <= float(fields["ttft_actual_ms"]) <= first_ms
    assert 0 < 6 * float(fields["itl_actual_ms"]) <= last_ms - 30
    assert float(fields["itl_max_actual_ms"]) >= float(fields["itl_actual_ms"])


def test_log_line_of_whole_answer(logged_server: Server, http: httpx.Client) -> None:
    """A whole answer has one log line too."""
    started_s = time.monotonic()
    answer = ask(http, headers(ttft_ms=30, output_length=3))
    took_ms = (time.monotonic() - started_s) * 1000
    fields = logged(logged_server, answer["id"])
    assert (fields["mode"], fields["status"], fields["tokens"]) == ("whole", "200", "3/3")
    assert 30 <= float(fields["total_actual_ms"]) <= took_ms


def test_log_is_in_place_of_access_log(logged_server: Server, http: httpx.Client) -> None:
    """A completion adds one line to the log, and no line of an access log."""
    logged(logged_server, ask(http)["id"])
    assert f"path={CHAT_PATH}" not in logged_server.log()


def test_log_holds_no_secrets(logged_server: Server, http: httpx.Client) -> None:
    """Neither prompts, nor answers, nor API keys are in the log, of good and of bad requests."""
    secret = uuid.uuid4().hex
    extra = {**headers(output_length=30), "Authorization": f"Bearer {secret}"}
    answer = ask(http, extra, **chat(f"My secret is {secret}"))
    http.post(CHAT_PATH, content=f'{{"{secret}'.encode(), headers=extra)
    http.post(CHAT_PATH, json=chat(messages=[{"role": secret}]), headers=extra)
    logged(logged_server, answer["id"])
    assert secret not in logged_server.log()
    assert content_of(answer) not in logged_server.log()


# --------------------------------------------------------------------------------------
# Times
# --------------------------------------------------------------------------------------

TTFT_MS, ITL_MS, TOKENS, STREAMS = 100, 20, 40, 20


@pytest.fixture(scope="module")
def twenty_streams(address: Address) -> list[Answer]:
    """Run 20 streams side by side; they begin 7 ms apart, as the requests of many clients do."""
    post = Post(chat(stream=True), headers(TTFT_MS, ITL_MS, TOKENS))
    return post_together(address, [post] * STREAMS, apart_s=0.007)


def test_no_token_is_early(twenty_streams: list[Answer]) -> None:
    """No token arrives sooner after its request left than it is due: ttft + i * itl."""
    assert [early for answer in twenty_streams for early in answer.early(TTFT_MS, ITL_MS)] == []


def test_no_stream_ends_early(twenty_streams: list[Answer]) -> None:
    """No stream ends before its last token is due."""
    due_s = (TTFT_MS + (TOKENS - 1) * ITL_MS) / 1000
    assert min(answer.events[-1].arrival_s for answer in twenty_streams) >= due_s


@pytest.mark.parametrize(("ttft_ms", "itl_ms", "tokens"), [(80, 40, 6), (150, 0, 9), (0, 150, 2)])
def test_whole_answer_takes_as_long_as_the_stream(
    simulated: Simulated, ttft_ms: float, itl_ms: float, tokens: int
) -> None:
    """Both modes take ttft + (n - 1) * itl."""
    extra = headers(ttft_ms, itl_ms, tokens)
    both = simulated.answers(*(Timed(chat(stream=flag), extra) for flag in (True, False)))
    due_s = (ttft_ms + (tokens - 1) * itl_ms) / 1000
    assert [answer.blocks[-1].arrival_s for answer in both] == pytest.approx([due_s, due_s])


def test_batched_stream_takes_as_long(simulated: Simulated) -> None:
    """A stream in batches ends when its last token is due, like any other."""
    answer = simulated.stream({**headers(50, 50, 5), "X-SSE-BATCH-SIZE": "5"})
    assert answer.events[-1].arrival_s == pytest.approx(0.250)


def test_clock_starts_with_the_headers(simulated: Simulated) -> None:
    """The time to read the body is part of the TTFT, not added to it."""
    (answer,) = simulated.answers(Timed(chat(), headers(400, 0, 1), body_after_s=0.3))
    assert answer.blocks[-1].arrival_s == pytest.approx(0.4)


if __name__ == "__main__":
    # httpx has imported anyio, so that pytest cannot rewrite the asserts of its plugin.
    unwarned = "ignore::pytest.PytestAssertRewriteWarning"
    sys.exit(pytest.main([__file__, "-W", unwarned, *sys.argv[1:]]))
