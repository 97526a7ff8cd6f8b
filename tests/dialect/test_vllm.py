"""What a server that speaks as vLLM does says, beyond the structure of its answers."""

import json
import math
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from tests.support.server import Server
from tokenizer import decode_tokens, encode

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MODEL = "gpt-4o"
Json = dict[str, Any]


def chat(**more: object) -> Json:
    """Return the body of a chat."""
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], "seed": 7, **more}


def post(http: httpx.Client, path: str, body: Json, **headers: str) -> httpx.Response:
    """Send a body."""
    return http.post(path, json=body, headers=headers)


def chunks(answer: httpx.Response) -> list[Json]:
    """Return the chunks of a stream that has ended as it should."""
    *events, done, end = answer.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def text_of(stream: list[Json]) -> str:
    """Return what all chunks of a chat's one choice say."""
    return "".join(
        choice["delta"].get("content") or "" for chunk in stream for choice in chunk["choices"]
    )


@pytest.mark.parametrize("batch", [1, 3, 5, 8])
@pytest.mark.parametrize("more", [{}, {"stop": ["zzzz"]}, {"n": 2}], ids=["plain", "held", "two"])
def test_last_token_tells_the_end(vllm: httpx.Client, batch: int, more: Json) -> None:
    """The chunk of a choice's last token has the reason of its end, and none comes after it."""
    limited = chat(max_tokens=8, stream=True, **more)
    stream = chunks(post(vllm, CHAT, limited, **{"X-SSE-BATCH-SIZE": str(batch)}))
    for index in range(more.get("n", 1)):
        own = [
            choice for chunk in stream for choice in chunk["choices"] if choice["index"] == index
        ]
        assert own[-1]["delta"]["content"]
        assert [each["finish_reason"] for each in own] == [None] * (len(own) - 1) + ["length"]
        assert len(own) == 1 + -(-8 // batch)


def test_stream_says_what_a_whole_answer_says(vllm: httpx.Client) -> None:
    """With a seed a stream's text is that of the whole answer, however it ends."""
    for more in ({"max_tokens": 8}, {}, {"max_tokens": 8, "stop": ["e"]}):
        whole = post(vllm, CHAT, chat(**more)).json()["choices"][0]
        stream = chunks(post(vllm, CHAT, chat(stream=True, **more)))
        assert text_of(stream) == whole["message"]["content"]
        assert stream[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]
        assert stream[-1]["choices"][0]["stop_reason"] == whole["stop_reason"]


def test_answer_that_ends_by_itself_has_an_end_of_its_own(vllm: httpx.Client) -> None:
    """The end of an answer that no limit cuts is a chunk without text."""
    last = chunks(post(vllm, CHAT, chat(stream=True)))[-1]["choices"][0]
    assert (last["delta"], last["finish_reason"]) == ({}, "stop")


@pytest.mark.parametrize("keeps", [False, True])
def test_stop_reason_is_what_stopped(vllm: httpx.Client, keeps: bool) -> None:
    """A stop sequence or a token id that ends a text is told, and stays in it if asked to."""
    text = post(vllm, CHAT, chat(max_tokens=12)).json()["choices"][0]["message"]["content"]
    ids = encode(text, MODEL)
    stop = text[9:12]
    for more, reason, before in (
        ({"stop": [stop]}, stop, text[: text.index(stop)]),
        ({"stop_token_ids": [ids[4]]}, ids[4], text[: len_of(ids[: ids.index(ids[4])])]),
    ):
        wanted = chat(max_tokens=12, include_stop_str_in_output=keeps, **more)
        [choice] = post(vllm, CHAT, wanted).json()["choices"]
        after = (stop if isinstance(reason, str) else decoded([reason])) if keeps else ""
        assert choice["message"]["content"] == before + after
        assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", reason)
        stream = chunks(post(vllm, CHAT, {**wanted, "stream": True}))
        assert text_of(stream) == before + after
        assert stream[-1]["choices"][0]["stop_reason"] == reason


def decoded(ids: list[int]) -> str:
    """Return the text of token ids."""
    return decode_tokens(ids, MODEL)


def len_of(ids: list[int]) -> int:
    """Return how many characters tokens have."""
    return len(decoded(ids))


def test_min_tokens_come_before_a_stop_token(vllm: httpx.Client) -> None:
    """A token id ends no text before its least tokens."""
    text = post(vllm, CHAT, chat(max_tokens=12)).json()["choices"][0]["message"]["content"]
    ids = encode(text, MODEL)
    body = chat(max_tokens=12, min_tokens=6, stop_token_ids=sorted(set(ids)))
    [choice] = post(vllm, CHAT, body).json()["choices"]
    assert choice["message"]["content"] == decoded(ids[:6])
    assert choice["stop_reason"] == ids[6]


def test_token_ids_are_those_of_the_text(vllm: httpx.Client) -> None:
    """The ids of a stream's tokens are those of its text, and of the prompt those of /tokenize."""
    body = chat(max_tokens=8, stream=True, return_token_ids=True)
    stream = chunks(post(vllm, CHAT, body))
    told = [token for chunk in stream[1:] for token in chunk["choices"][0]["token_ids"]]
    prompt = post(vllm, "/tokenize", {"messages": body["messages"]}).json()["tokens"]
    assert told == encode(text_of(stream), MODEL)
    assert stream[0]["prompt_token_ids"] == prompt


def test_log_probabilities_of_prompts(vllm: httpx.Client) -> None:
    """Each token of a prompt but the first is told, with the likeliest at its place by rank."""
    asked = {"prompt": ["a red fox", "hi there, you"], "n": 2, "prompt_logprobs": 3}
    answer = post(vllm, COMPLETIONS, {"max_tokens": 2, **asked}).json()
    for index, prompt in enumerate(["a red fox"] * 2 + ["hi there, you"] * 2):
        first, *told = answer["choices"][index]["prompt_logprobs"]
        assert first is None
        for token, place in zip(encode(prompt, MODEL)[1:], told, strict=True):
            assert place[str(token)]["decoded_token"] == decoded([token])
            ranks = sorted(each["rank"] for each in place.values())
            assert ranks[:3] == [1, 2, 3]
            assert sum(math.exp(each["logprob"]) for each in place.values()) < 1
    streamed = post(vllm, CHAT, chat(prompt_logprobs=1, stream=True)).json()["error"]
    assert streamed["message"].startswith("`prompt_logprobs` are not available when `stream=True`")


def test_report_stands_alone_where_nothing_else_does(vllm: httpx.Client) -> None:
    """The report of a stream whose last token has ended it is a chunk without choices."""
    body = chat(max_tokens=3, stream=True)
    last = chunks(post(vllm, CHAT, body, **{"X-EMULATION-REPORT": "true"}))[-1]
    assert (last["choices"], "total_ms" in last["emulation"]) == ([], True)


def test_context_bounds_prompts(vllm: httpx.Client) -> None:
    """A prompt that leaves no room, or not as much as is asked for, is refused in vLLM's words."""
    long = post(vllm, COMPLETIONS, {"prompt": "hi " * 5000, "max_tokens": 1})
    both = post(vllm, COMPLETIONS, {"prompt": "hi " * 100, "max_tokens": 4090})
    for answer in (long, both):
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert (error["type"], error["param"]) == ("BadRequestError", "input_tokens")
        assert error["message"].startswith("This model's maximum context length is 4096 tokens.")


def test_failure_in_mid_stream_is_vllms(vllm: httpx.Client) -> None:
    """The event of a failure in mid-stream has a status for its code."""
    faults = {"X-FAULT-KIND": "error", "X-FAULT-AFTER-TOKENS": "2"}
    answer = post(vllm, CHAT, chat(max_tokens=8, stream=True), **faults)
    last = json.loads(answer.text.rstrip().split("\n\n")[-1].removeprefix("data: "))
    assert (last["error"]["type"], last["error"]["code"]) == ("InternalServerError", 500)


@pytest.mark.parametrize("after", [0, 2, 5, 7])
@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("more", [{}, {"n": 2}], ids=["plain", "two"])
def test_stream_that_is_cut_tells_no_end(
    vllm: httpx.Client, after: int, batch: int, more: Json
) -> None:
    """A stream that ends too early has all tokens before that, and no reason of an end."""
    faults = {"X-FAULT-KIND": "eof", "X-FAULT-AFTER-TOKENS": str(after)}
    body = chat(max_tokens=8, stream=True, **more)
    answer = post(vllm, CHAT, body, **faults, **{"X-SSE-BATCH-SIZE": str(batch)})
    told = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n")[:-1]]
    whole = post(vllm, CHAT, chat(max_tokens=8, **more)).json()["choices"]
    for choice in whole:
        own = [each for each in told if each["choices"][0]["index"] == choice["index"]]
        text = choice["message"]["content"]
        assert text_of(own) == decoded(encode(text, MODEL)[:after])
        assert all(each["choices"][0]["finish_reason"] is None for each in own)


@pytest.mark.parametrize("kind", ["slice", "no-done"])
def test_stream_that_goes_on_tells_its_end(vllm: httpx.Client, kind: str) -> None:
    """A stream that a failure does not cut has the reason of its end once."""
    faults = {"X-FAULT-KIND": kind}
    if kind == "slice":
        faults |= {"X-FAULT-AFTER-TOKENS": "3", "X-FAULT-SLICE-BYTES": "50"}
    text = post(vllm, CHAT, chat(max_tokens=8, stream=True), **faults).text
    assert text.count('"finish_reason":"length"') == 1


def test_dialect_changes_while_it_runs(vllm: httpx.Client, settings: Callable[..., None]) -> None:
    """The next request after a change is answered in the other dialect, and refused in it."""
    settings(dialect="openai")
    assert post(vllm, CHAT, chat()).json()["id"].startswith("chatcmpl-")
    assert post(vllm, CHAT, chat(n=0)).json()["error"]["code"] == "integer_below_min_value"
    settings(dialect="vllm")
    assert post(vllm, CHAT, chat(n=0)).json()["error"]["code"] == 400


def test_reasoning_is_shown_by_its_name(vllm: httpx.Client) -> None:
    """Reasoning is `reasoning` of messages and deltas, and counted in the usage."""
    thinking = {"X-REASONING-LENGTH": "3"}
    whole = post(vllm, CHAT, chat(max_tokens=8), **thinking).json()
    stream = chunks(post(vllm, CHAT, chat(max_tokens=8, stream=True), **thinking))
    told = "".join(chunk["choices"][0]["delta"].get("reasoning", "") for chunk in stream)
    assert told == whole["choices"][0]["message"]["reasoning"]
    assert whole["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}


def test_sdk_reads_it(vllm_server: Server) -> None:
    """OpenAI's own client reads models, answers, streams and errors of this dialect."""
    with openai.OpenAI(api_key="k", base_url=f"{vllm_server.url}/v1", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["m"]
        messages: Any = [{"role": "user", "content": "hi"}]
        whole = client.chat.completions.create(model="m", messages=messages, max_tokens=4)
        assert whole.choices[0].finish_reason == "length"
        with client.chat.completions.stream(model="m", messages=messages) as stream:
            stream.until_done()
            assert stream.get_final_completion().choices[0].finish_reason == "stop"
        with pytest.raises(openai.NotFoundError, match="Valid aliases: m"):
            client.chat.completions.create(model="nope", messages=messages)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/moderations"])
def test_what_a_server_of_texts_lacks_is_not_found(vllm: httpx.Client, path: str) -> None:
    """APIs that a vLLM of texts does not have are routes that are not there."""
    answer = post(vllm, path, {"model": "m", "input": "hi"})
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


def test_openai_dialect_honours_vllms_parameters(http: httpx.Client) -> None:
    """Without the dialect a token id ends a text too, and nothing tells which."""
    body = {**chat(max_tokens=12), "model": MODEL}
    text = post(http, CHAT, body).json()["choices"][0]["message"]["content"]
    ids = encode(text, MODEL)
    [choice] = post(http, CHAT, {**body, "stop_token_ids": ids[3:4]}).json()["choices"]
    assert choice["message"]["content"] == decoded(ids[: ids.index(ids[3])])
    assert (choice["finish_reason"], "stop_reason" in choice) == ("stop", False)
    assert http.get("/load").json() == {"server_load": 0}
