"""The legacy completions, through the official client."""

from typing import Any

import httpx
import openai
import pytest
from openai.types import Completion

from tests.support.sdk import message_of, refused
from tests.support.server import Server
from tests.support.simulated.client import Simulated, Timed
from tests.support.wire import headers, token_count

MODEL = "text-davinci-003"
ENCODING = "p50k_base"
OFFSET_TOKENS = [31373, 995]  # "hello world"


def ask(
    client: openai.OpenAI, asked: dict[str, str] | None = None, /, **parameters: object
) -> Completion:
    """Return the whole answer to a legacy request."""
    create: Any = client.completions.create
    body = {"model": MODEL, "prompt": "hello world", **parameters}
    answer = create(**body, extra_headers=asked or headers())
    assert isinstance(answer, Completion)
    return answer


def streamed(
    client: openai.OpenAI, asked: dict[str, str] | None = None, /, **parameters: object
) -> list[Completion]:
    """Return the chunks of a streamed answer."""
    create: Any = client.completions.create
    body = {"model": MODEL, "prompt": "hello world", "stream": True, **parameters}
    return list(create(**body, extra_headers=asked or headers()))


def test_shape(client: openai.OpenAI) -> None:
    """A legacy answer has OpenAI's object name, an id of its own form, and exact text."""
    answer = ask(client)
    [choice] = answer.choices
    assert (answer.object, answer.model) == ("text_completion", MODEL)
    assert answer.id.startswith("cmpl-")
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert token_count(choice.text, ENCODING) == 5


@pytest.mark.parametrize(
    ("prompt", "choices", "tokens"),
    [
        ("hello world", 1, 2),
        (["hello world", "hello"], 2, 3),
        (OFFSET_TOKENS, 1, 2),
        ([OFFSET_TOKENS, [31373]], 2, 3),
        ("", 1, 0),
        (None, 1, 0),
    ],
)
def test_prompts(client: openai.OpenAI, prompt: object, choices: int, tokens: int) -> None:
    """A prompt is a text, texts, token ids, lists of them or null: each has a choice, counted."""
    answer = ask(client, prompt=prompt)
    assert [choice.index for choice in answer.choices] == list(range(choices))
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (tokens, 5 * choices)


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        (["hello", "bye"], ["hello", "hello", "bye", "bye"]),
        ([[31373], [995]], ["hello", "hello", " world", " world"]),
    ],
)
def test_echo(client: openai.OpenAI, prompt: object, texts: list[str]) -> None:
    """With echo each choice begins with its prompt, n choices for each prompt in turn."""
    answer = ask(client, prompt=prompt, echo=True, n=2, best_of=3)
    lengths = [
        token_count(choice.text.removeprefix(text), ENCODING)
        for choice, text in zip(answer.choices, texts, strict=True)
    ]
    assert all(c.text.startswith(text) for c, text in zip(answer.choices, texts, strict=True))
    assert lengths == [5] * 4


def test_streamed_echo(client: openai.OpenAI) -> None:
    """A stream with echo begins with the prompt, then goes on token by token."""
    first, *rest, last = [chunk.choices[0] for chunk in streamed(client, echo=True)]
    assert first.text == "hello world"
    assert [token_count(choice.text, ENCODING) for choice in rest] == [1] * 5
    assert (last.text, last.finish_reason) == ("", "stop")


def test_stream_is_whole(client: openai.OpenAI) -> None:
    """With a seed a stream says what the whole answer says, with the same usage."""
    whole = ask(client, seed=1, n=2)
    chunks = streamed(client, seed=1, n=2, stream_options={"include_usage": True})
    for index, choice in enumerate(whole.choices):
        parts = [c.text for chunk in chunks for c in chunk.choices if c.index == index]
        assert "".join(parts) == choice.text
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert {chunk.object for chunk in chunks} == {"text_completion"}
    assert len({chunk.id for chunk in chunks}) == 1


def test_logprobs(client: openai.OpenAI) -> None:
    """Log probabilities are lists of one length, and each offset is where its token begins."""
    [choice] = ask(client, headers(output_length=20), logprobs=3).choices
    logprobs = choice.logprobs
    assert logprobs is not None
    tokens, offsets = logprobs.tokens or [], logprobs.text_offset or []
    assert len(tokens) == len(offsets) == 20
    assert [choice.text[o : o + len(t)] for t, o in zip(tokens, offsets, strict=True)] == tokens
    assert offsets[0] == 0
    values = logprobs.token_logprobs or []
    for token, value, top in zip(tokens, values, logprobs.top_logprobs or [], strict=True):
        assert value <= 0
        assert len(top) == 3
        assert top[token] == value


@pytest.mark.parametrize("echo", [False, True])
def test_streamed_logprobs(client: openai.OpenAI, echo: bool) -> None:
    """The log probabilities of a stream's events are those of the whole answer."""
    parameters = {"seed": 2, "logprobs": 2, "echo": echo}
    whole = ask(client, **parameters).choices[0].logprobs
    parts = [chunk.choices[0].logprobs for chunk in streamed(client, **parameters)]
    assert whole is not None
    for field in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        joined = [value for part in parts if part for value in getattr(part, field)]
        assert joined == getattr(whole, field)


def test_stop(client: openai.OpenAI) -> None:
    """Stop sequences end legacy texts too."""
    text = ask(client, headers(output_length=30), seed=3).choices[0].text
    [choice] = ask(client, headers(output_length=30), seed=3, stop=text[20:26]).choices
    assert choice.text == text.partition(text[20:26])[0]


def test_limit(client: openai.OpenAI) -> None:
    """max_tokens cuts the text, with the reason length."""
    [choice] = ask(client, max_tokens=3).choices
    assert (token_count(choice.text, ENCODING), choice.finish_reason) == (3, "length")


NOTHING: list[dict[str, object]] = [{}, {"logprobs": 1}, {"stop": "e"}, {"n": 2, "best_of": 2}]


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("also", NOTHING, ids=", ".join)
def test_no_tokens(client: openai.OpenAI, also: dict[str, object], echo: bool) -> None:
    """With max_tokens 0 nothing is generated; with echo the answer is the prompt alone."""
    answer = ask(client, max_tokens=0, echo=echo, **also)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 0)
    for choice in answer.choices:
        assert (choice.text, choice.finish_reason) == ("hello world" if echo else "", "length")


@pytest.mark.parametrize("also", NOTHING, ids=", ".join)
def test_no_tokens_streamed(client: openai.OpenAI, also: dict[str, object]) -> None:
    """A stream of nothing but the prompt has its events, its end and its usage."""
    options = {"include_usage": True}
    *events, last = streamed(client, max_tokens=0, echo=True, stream_options=options, **also)
    choices = [event.choices[0] for event in events]
    prompts = [choice.index for choice in choices if choice.text == "hello world"]
    ends = [choice.index for choice in choices if choice.finish_reason == "length"]
    assert prompts == ends == list(range(2 if "n" in also else 1))
    assert len(events) == len(prompts) + len(ends)
    assert last.usage is not None
    assert last.usage.completion_tokens == 0


@pytest.mark.parametrize(
    ("extensions", "tokens"),
    [
        ({"ignore_eos": True, "max_tokens": 33}, 33),
        ({"min_tokens": 40}, 40),
        ({"min_tokens": 4, "max_tokens": 30}, 20),
    ],
)
def test_extensions_of_vllm(
    client: openai.OpenAI, extensions: dict[str, object], tokens: int
) -> None:
    """ignore_eos makes the answer as long as the limit, and min_tokens at least that long."""
    timing = {"X-TTFT-MS": "0", "X-ITL-MS": "0"}
    [choice] = ask(client, timing, extra_body=extensions).choices
    assert token_count(choice.text, ENCODING) == tokens


@pytest.mark.parametrize("stream", [False, True])
def test_same_clock(simulated: Simulated, stream: bool) -> None:
    """Legacy answers take ttft + (n - 1) * itl like the others, streamed and whole."""
    body = {"model": MODEL, "prompt": "x", "stream": stream}
    (answer,) = simulated.answers(Timed(body, headers(60, 30, 6), "/v1/completions"))
    assert answer.status == 200
    assert answer.blocks[-1].arrival_s == pytest.approx(0.060 + 5 * 0.030)


def test_suffix_is_accepted(client: openai.OpenAI) -> None:
    """A suffix and every other parameter of OpenAI's is accepted."""
    answer = ask(client, suffix="!", user="u", temperature=0, top_p=1, logit_bias={"5": 1})
    assert token_count(answer.choices[0].text, ENCODING) == 5


def test_best_of_is_compared_with_n(client: openai.OpenAI) -> None:
    """best_of is for each prompt, as n is."""
    assert len(ask(client, prompt=["a", "b", "c"], n=2, best_of=2).choices) == 6


CHOOSING: dict[str, object] = {"best_of": 3, "n": 2, "stream": True}
REFUSED: dict[str, tuple[dict[str, object], str | None, str | None, str]] = {
    "the best of a stream": (
        CHOOSING,
        "best_of",
        "invalid_value",
        "Results cannot be streamed when 'best_of' is greater than 'n'. Expected 2, or no "
        "'stream', but got 3.",
    ),
    "messages": (
        {"messages": []},
        None,
        None,
        "Unrecognized request argument supplied: messages. Did you mean POST /v1/chat/completions?",
    ),
    "a chat's limit": (
        {"max_completion_tokens": 5},
        None,
        None,
        "Unrecognized request argument supplied: max_completion_tokens. Did you mean 'max_tokens'?",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_as_by_openai(
    client: openai.OpenAI, lenient_server: Server, http: httpx.Client, case: str
) -> None:
    """What OpenAI refuses is refused in its words, and taken by a lenient server."""
    parameters, param, code, message = REFUSED[case]
    body = {"model": MODEL, "prompt": "x", "max_tokens": None, **parameters}
    error = refused(client, body, "/completions")
    assert (error.param, error.code, message_of(error)) == (param, code, message)
    url = f"{lenient_server.url}/v1/completions"
    assert http.post(url, json=body, headers=headers()).status_code == 200


@pytest.mark.parametrize(
    "also", [{"best_of": 2, "n": 2}, {"best_of": 1}, {"max_completion_tokens": 3, "max_tokens": 3}]
)
def test_what_looks_like_a_mistake_is_taken(client: openai.OpenAI, also: dict[str, Any]) -> None:
    """As many answers as are wanted can be streamed, and a limit may be said in two ways."""
    assert streamed(client, extra_body=also)


PROMPTS = "a string, or a non-empty array of strings, token ids or arrays of token ids"


@pytest.mark.parametrize(
    ("parameters", "param", "code", "message"),
    [
        ({"prompt": 5}, "prompt", "invalid_type", f"expected {PROMPTS}, but got an integer"),
        ({"prompt": []}, "prompt", "invalid_type", f"expected {PROMPTS}, but got an array"),
        ({"prompt": ["a", 5]}, "prompt", "invalid_type", f"expected {PROMPTS}, but got an array"),
        ({"max_tokens": -1}, "max_tokens", "integer_below_min_value", ">= 0, but got -1"),
        ({"logprobs": 6}, "logprobs", "integer_above_max_value", "<= 5, but got 6"),
        ({"best_of": 21}, "best_of", "integer_above_max_value", "<= 20, but got 21"),
        ({"best_of": 1, "n": 2}, "best_of", "integer_below_min_value", ">= 2 (n), but got 1"),
        ({"n": 129}, "n", "integer_above_max_value", "<= 128, but got 129"),
        ({"echo": "yes"}, "echo", "invalid_type", "expected a boolean, but got a string"),
        ({"prompt": [10**6], "echo": True}, "prompt", "invalid_value", "token ids of"),
    ],
)
def test_errors(
    client: openai.OpenAI, parameters: dict[str, object], param: str, code: str, message: str
) -> None:
    """A faulty legacy request is refused with parameter, code and what was expected."""
    error = refused(client, {"model": MODEL, "prompt": "x", **parameters}, "/completions")
    assert isinstance(error, openai.BadRequestError)
    assert (error.param, error.code) == (param, code)
    assert message in message_of(error)


@pytest.mark.parametrize(("body", "param"), [({"prompt": "x"}, None), ({"model": MODEL}, "prompt")])
def test_required_parameters(
    client: openai.OpenAI, body: dict[str, object], param: str | None
) -> None:
    """Model and prompt are required."""
    assert refused(client, body, "/completions").param == param
