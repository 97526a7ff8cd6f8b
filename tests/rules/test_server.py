"""Rules on a server of two workers: counts, answers in all APIs, large requests, strict, scopes."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from tests.support.server import TLS, Server
from tests.support.wire import CHAT_PATH, chat, stream, token_count

RESPONSES = "/v1/responses"
COMPLETIONS = "/v1/completions"


def post(
    http: httpx.Client, body: Mapping[str, Any], path: str = CHAT_PATH, **headers: str
) -> httpx.Response:
    """Send a request with these headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return http.post(path, json=body, headers=named)


def said(response: httpx.Response) -> str:
    """Return the text of a chat's whole answer."""
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


async def at_once(server: Server, bodies: list[Mapping[str, Any]]) -> list[httpx.Response]:
    """Send requests all at once, each on a connection of its own, so that all workers get some."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(
        base_url=server.url, limits=limits, timeout=60, trust_env=False, verify=TLS
    ) as client:
        return await asyncio.gather(*(client.post(CHAT_PATH, json=body) for body in bodies))


# --------------------------------------------------------------------------------------
# Counts
# --------------------------------------------------------------------------------------


def test_exactly_fifty_of_two_hundred_fail(ruled: Server) -> None:
    """Of 200 requests at once over two workers exactly the first 50 get a rule of 50 times."""
    answers = asyncio.run(at_once(ruled, [chat(model="fifty")] * 200))
    assert Counter(answer.status_code for answer in answers) == {503: 50, 200: 150}


def test_each_answer_of_a_list_comes_once(ruled: Server) -> None:
    """Clients that ask at once get each of 20 answers once, and then what comes after."""
    answers = asyncio.run(at_once(ruled, [chat(model="twenty")] * 28))
    texts = Counter(said(answer) for answer in answers)
    assert texts == {**{f"t{number}": 1 for number in range(20)}, "over": 8}


def test_scopes_never_touch(ruled: Server) -> None:
    """Two scopes that go through a list at once each get all of it in order."""
    texts: dict[str, list[str]] = {"x": [], "y": []}
    with httpx.Client(base_url=ruled.url, timeout=30, trust_env=False, verify=TLS) as http:
        for _ in range(5):
            for scope, of_scope in texts.items():
                body = chat(model="gpt-turns")
                of_scope.append(said(post(http, body, X_EMULATION_SCOPE=f"never-{scope}")))
    expected = ["First.", "Second.", "That was 3.", "First.", "Second."]
    assert texts == {"x": expected, "y": expected}


def test_a_key_names_a_scope(http_ruled: httpx.Client) -> None:
    """A client that cannot send headers names its scope by its key; a header comes before."""
    body = chat(model="scoped")
    assert said(post(http_ruled, body, Authorization="Bearer sk-scope-mine")) == "mine alone"
    assert said(post(http_ruled, body, Authorization="Bearer sk-1")) != "mine alone"
    other = post(http_ruled, body, Authorization="Bearer sk-scope-mine", X_EMULATION_SCOPE="other")
    assert said(other) != "mine alone"
    in_body = chat(model="scoped", emulation={"emulation_scope": "mine"})
    assert said(post(http_ruled, in_body)) == "mine alone"


@pytest.mark.parametrize("scope", ["", "a b", "x" * 65])
def test_bad_scopes_are_refused(http_ruled: httpx.Client, scope: str) -> None:
    """A scope of a bad name is a 400 that names the header."""
    answer = post(http_ruled, chat(), X_EMULATION_SCOPE=scope)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "X-EMULATION-SCOPE"
    key = post(http_ruled, chat(), Authorization=f"Bearer sk-scope-{scope or '!'}")
    assert key.status_code == 400


def test_refused_requests_count_nothing(http_ruled: httpx.Client) -> None:
    """Requests that are refused, in whatever step, and look-ups leave counts alone."""
    refused: list[dict[str, Any]] = [
        {"messages": []},
        {"max_tokens": 0},
        {"emulation": {"ttft_ms": 599_000}},
        {"emulation": {"itl_jitter": "none"}},
        {"emulation": {"fault_kind": "explode"}},
        {"min_tokens": 9, "max_tokens": 3},
    ]
    for bad in refused:
        assert post(http_ruled, chat(model="rejected", **bad)).status_code == 400
    assert http_ruled.get("/v1/models/rejected").status_code in (200, 404)
    assert said(post(http_ruled, chat(model="rejected"))) == "counted"
    assert said(post(http_ruled, chat(model="rejected"))) != "counted"


def test_large_requests_are_counted_too(http_ruled: httpx.Client) -> None:
    """Rules that count decide of a request that a helper reads as of any other."""
    large = chat("word " * 400_000 + "needle", model="large")
    answers = [post(http_ruled, large) for _ in range(4)]
    assert [said(answer) for answer in answers[:3]] == ["found 1", "found 2", "found 3"]
    assert answers[0].json()["usage"]["prompt_tokens"] > 400_000
    assert said(answers[3]) != "found 4"
    assert said(post(http_ruled, chat("needle " * 20_000, model="verbatim"))).count("needle") > 9


# --------------------------------------------------------------------------------------
# Answers
# --------------------------------------------------------------------------------------


def test_rules_that_decided_are_named(http_ruled: httpx.Client) -> None:
    """Answers, whole, streamed and failed, name the rules that decided something of them."""
    named = {
        "gpt-slow-1": "slow",
        "verbatim": "verbatim",
        "nothing": None,
    }
    for model, rules in named.items():
        for streams in (False, True):
            answer = post(http_ruled, chat(model=model, stream=streams, emulation={"ttft_ms": 0}))
            assert answer.headers.get("x-emulation-rules") == rules
    flaky = post(http_ruled, chat(model="gpt-retry"), X_EMULATION_SCOPE="named")
    assert (flaky.status_code, flaky.headers["x-emulation-rules"]) == (429, "retry, fast")


def test_parts_come_in_their_order(http_ruled: httpx.Client) -> None:
    """Reasoning, texts and calls of a rule come as it orders them, and what stands around them."""
    answer = post(http_ruled, chat("all parts")).json()
    message = answer["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hm, hm.", "First last")
    (call,) = message["tool_calls"]
    assert (call["id"], call["function"]) == ("call_1", {"name": "note", "arguments": '{"a":1}'})
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    told = [answer[name] for name in ("id", "model", "system_fingerprint", "service_tier")]
    assert told == ["my-own-id", "another-model", "fp_own", "flex"]
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]) == (7, 3)
    assert usage["total_tokens"] == 7 + usage["completion_tokens"]


def test_parts_come_in_their_order_in_responses(http_ruled: httpx.Client) -> None:
    """Responses have an item for each part, whole and streamed."""
    body = {"model": "gpt-4", "input": "all parts"}
    answer = post(http_ruled, body, RESPONSES).json()
    kinds = ["reasoning", "message", "function_call", "message"]
    assert [item["type"] for item in answer["output"]] == kinds
    assert (answer["id"], answer["model"]) == ("my-own-id", "another-model")
    streamed = post(http_ruled, {**body, "stream": True}, RESPONSES).text
    events = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: ")]
    ends = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [item["type"] for item in ends] == kinds
    assert events[-1]["response"]["usage"]["output_tokens"] == answer["usage"]["output_tokens"]
    assert [event["sequence_number"] for event in events] == [*range(len(events))]


def test_refusal_in_each_api(http_ruled: httpx.Client) -> None:
    """A refusal has its place in chats and Responses, whole and streamed, and is text elsewhere."""
    text = "I can't help with that."
    body = chat("a secret", model="gpt-no")
    deltas = stream_chunks(http_ruled, body)
    assert "".join(delta.get("refusal") or "" for delta in deltas) == text
    assert not any(delta.get("content") for delta in deltas)
    asked = {"model": "gpt-no", "input": "a secret"}
    output = post(http_ruled, asked, RESPONSES).json()["output"]
    assert output[0]["content"] == [{"type": "refusal", "refusal": text}]
    streamed = post(http_ruled, {**asked, "stream": True}, RESPONSES).text
    assert "response.refusal.delta" in streamed
    assert f'"refusal":"{text}"' in streamed
    legacy = post(http_ruled, {"model": "gpt-no", "prompt": "a secret"}, COMPLETIONS).json()
    assert legacy["choices"][0]["text"] == text


def stream_chunks(http: httpx.Client, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the deltas of a streamed chat."""
    text = post(http, {**body, "stream": True}).text
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
    return [choice["delta"] for line in lines for choice in json.loads(line)["choices"]]


TEXT = 'One, "two" and\nthree. Four is 4; naïve 🌤 five.'


def test_texts_are_cut_as_any_other(http_ruled: httpx.Client) -> None:
    """A limit cuts a text (length), and so does an asked length; a stop sequence ends it."""
    body = chat(TEXT, model="verbatim")
    for extra in ({"max_tokens": 4}, {"emulation": {"output_length": 4}}):
        choice = post(http_ruled, {**body, **extra}).json()["choices"][0]
        assert choice["finish_reason"] == "length"
        assert token_count(choice["message"]["content"], "o200k_base") == 4
    stopped = post(http_ruled, {**body, "stop": [" Four"]}).json()
    assert stopped["choices"][0]["message"]["content"] == 'One, "two" and\nthree.'
    assert stopped["choices"][0]["finish_reason"] == "stop"
    streamed = stream_chunks(http_ruled, {**body, "stop": [" Four"]})
    assert "".join(delta.get("content") or "" for delta in streamed) == 'One, "two" and\nthree.'
    long = post(http_ruled, {**body, "max_tokens": 5000}).json()
    assert said_of(long) == TEXT
    assert long["usage"]["completion_tokens"] == token_count(TEXT, "o200k_base")


def said_of(answer: Mapping[str, Any]) -> str:
    """Return the text of the first choice."""
    return str(answer["choices"][0]["message"]["content"])


def test_choices_log_probabilities_and_batches_hold(http_ruled: httpx.Client) -> None:
    """Each of n choices says the text; its tokens have log probabilities, and share events."""
    body = chat(TEXT, model="verbatim", n=2, logprobs=True, top_logprobs=2)
    answer = post(http_ruled, body).json()
    tokens = token_count(TEXT, "o200k_base")
    for choice in answer["choices"]:
        assert choice["message"]["content"] == TEXT
        entries = choice["logprobs"]["content"]
        assert b"".join(bytes(entry["bytes"]) for entry in entries) == TEXT.encode()
        assert len(entries) == tokens
    assert answer["usage"]["completion_tokens"] == 2 * tokens
    batched = chat(TEXT, model="verbatim", emulation={"sse_batch_size": 4})
    deltas = [
        delta["content"] for delta in stream_chunks(http_ruled, batched) if "content" in delta
    ]
    texts = [text for text in deltas if text]
    assert "".join(texts) == TEXT
    assert len(texts) == -(-tokens // 4)


def test_calls_follow_the_choice_of_tools(http_ruled: httpx.Client) -> None:
    """A rule's call is made though none was asked for, but not under none or without the tool."""
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {}}}
    body = chat("Oslo", model="gpt-agent", tools=[tool])
    assert post(http_ruled, body).json()["choices"][0]["finish_reason"] == "tool_calls"
    for extra in ({"tool_choice": "none"}, {"tools": None}):
        choice = post(http_ruled, {**body, **extra}).json()["choices"][0]
        assert choice["finish_reason"] == "stop"
        assert "tool_calls" not in choice["message"]


def test_calls_in_responses(http_ruled: httpx.Client) -> None:
    """The same words make a call, and then an answer, in Responses."""
    tool = {"type": "function", "name": "get_weather", "parameters": {}}
    body: dict[str, Any] = {"model": "gpt-agent", "input": "Oslo", "tools": [tool]}
    (call,) = post(http_ruled, body, RESPONSES).json()["output"]
    assert (call["type"], call["arguments"]) == ("function_call", '{"city":"Oslo"}')
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "rainy"}
    given = [{"role": "user", "content": "Oslo"}, call, result]
    (message,) = post(http_ruled, {**body, "input": given}, RESPONSES).json()["output"]
    assert message["content"][0]["text"] == "There it is rainy."


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors_of_a_rule(http_ruled: httpx.Client, encoding: str) -> None:
    """Each input gets the vector of the rule; another length than is asked for is refused."""
    body = {"model": "text-embedding-3-small", "input": ["dog", "cat"], "encoding_format": encoding}
    answer = post(http_ruled, body, "/v1/embeddings")
    assert answer.headers["x-emulation-rules"] == "vector"
    vectors = [item["embedding"] for item in answer.json()["data"]]
    assert vectors == [[0.5, -1, 2] if encoding == "float" else "AAAAPwAAgL8AAABA"] * 2
    wrong = post(http_ruled, {**body, "dimensions": 4}, "/v1/embeddings")
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "dimensions")


@pytest.mark.parametrize(("text", "inputs"), [("once", 1), ("many", 100)])
def test_moderations_that_a_rule_flags(http_ruled: httpx.Client, text: str, inputs: int) -> None:
    """A rule that is counted flags, whoever makes the results."""
    body = {"input": [text] * inputs}
    answers = [post(http_ruled, body, "/v1/moderations").json()["results"] for _ in range(3)]
    flagged = [[result["categories"]["violence"] for result in results] for results in answers]
    assert flagged == [[True] * inputs, [False] * inputs, [False] * inputs]


# --------------------------------------------------------------------------------------
# Refusals
# --------------------------------------------------------------------------------------


def test_strict_by_header(http_ruled: httpx.Client) -> None:
    """A strict request that no rule has an answer for is a 400, with the nearest rules."""
    answer = post(http_ruled, chat("nothing of the kind"), X_EMULATION_STRICT="true")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "no_rule_matched")
    assert "The nearest: '" in error["message"]
    assert post(http_ruled, chat(), X_EMULATION_STRICT="false").status_code == 200
    strict = chat(TEXT, model="verbatim", emulation={"emulation_strict": True})
    assert said(post(http_ruled, strict)) == TEXT


def test_strict_without_rules_is_refused(base_url: str) -> None:
    """Where there are no rules, a strict request is refused as well."""
    strict = {"X-EMULATION-STRICT": "true"}
    answer = httpx.post(base_url + CHAT_PATH, json=chat(), headers=strict, verify=TLS)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_rule_matched")


def test_failing_template_is_our_fault(ruled: Server, http_ruled: httpx.Client) -> None:
    """A template that fails is a 500 that names the rule, and the log says why."""
    answer = post(http_ruled, chat("fails"))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (500, "rule_failed")
    assert "'fails'" in error["message"]
    assert "the rule 'fails' failed: answer.text: 'list object' has no" in ruled.log()


# --------------------------------------------------------------------------------------
# The clock
# --------------------------------------------------------------------------------------


def test_tokens_leave_on_the_clock(ruled: Server) -> None:
    """Each token of a rule's text leaves when it is due, and none before."""
    answer = stream(
        ruled.address,
        {"X-TTFT-MS": "100", "X-ITL-MS": "20", "X-EMULATION-REPORT": "true"},
        model="verbatim",
        messages=[{"role": "user", "content": TEXT}],
    )
    tokens = token_count(TEXT, "o200k_base")
    assert answer.report["ttft_ms"]["asked"] == 100
    assert answer.report["total_ms"]["asked"] == 100 + 20 * (tokens - 1)
    assert answer.report["total_ms"]["actual"] >= answer.report["total_ms"]["asked"]
