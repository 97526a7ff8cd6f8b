"""What the choices of a chat say and when: n, stop, seed, log probabilities, reasoning, usage."""

import math
from collections.abc import Sequence
from itertools import pairwise

import openai
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from emulator.answers.composing import Composer
from emulator.answers.corpus import Corpus
from emulator.answers.stops import hold_back
from emulator.apis.chat.asking import chat_ask
from emulator.reading.planning import plan_generation
from emulator.settings import Settings
from schemas import APIError, ChatCompletionRequest, EmulationHeaders
from tests.support.sdk import chunks, complete, text_of
from tests.support.simulated.client import Simulated
from tests.support.wire import Answer, chat, headers, stream, token_count

Address = tuple[str, int]


def tokens_used(answer: ChatCompletion) -> int:
    """Return the completion tokens that the usage states."""
    assert answer.usage is not None
    return answer.usage.completion_tokens


# --------------------------------------------------------------------------------------
# n
# --------------------------------------------------------------------------------------


def test_choices_are_exact_and_differ(client: openai.OpenAI) -> None:
    """N choices have indices 0 to n - 1, the asked length each, and texts of their own."""
    answer = complete(client, headers(output_length=40), n=5)
    texts = [text_of(answer, index) for index in range(5)]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3, 4]
    assert [token_count(text, "cl100k_base") for text in texts] == [40] * 5
    assert len(set(texts)) == 5


@pytest.mark.parametrize(("n", "length"), [(128, 5), (128, 2), (12, 1)])
@pytest.mark.parametrize("seed", [None, 1])
def test_short_choices_differ(client: openai.OpenAI, n: int, length: int, seed: int | None) -> None:
    """Many choices of few tokens have texts of their own too, where there are so many texts."""
    answer = complete(client, headers(output_length=length), n=n, seed=seed)
    assert len({text_of(answer, index) for index in range(n)}) == n


def test_more_choices_than_texts(client: openai.OpenAI) -> None:
    """Where there are fewer texts than choices some choices say the same."""
    answer = complete(client, headers(output_length=1), n=128)
    texts = [text_of(answer, index) for index in range(128)]
    assert [token_count(text, "cl100k_base") for text in texts] == [1] * 128
    assert len(set(texts)) == 15


def test_usage_counts_all_choices(client: openai.OpenAI) -> None:
    """Usage counts the prompt once and the tokens of every choice."""
    one, five = (complete(client, headers(output_length=40), n=n).usage for n in (1, 5))
    assert one is not None
    assert five is not None
    assert (one.prompt_tokens, one.completion_tokens) == (9, 40)
    assert (five.prompt_tokens, five.completion_tokens, five.total_tokens) == (9, 200, 209)


def test_choices_are_interleaved(address: Address) -> None:
    """In a stream the choices take turns, token by token."""
    answer = stream(address, headers(output_length=10), n=3)
    turns = [event.json["choices"][0]["index"] for event in answer.content]
    assert turns == [0, 1, 2] * 10


def test_choices_share_the_clock(simulated: Simulated) -> None:
    """Token k of every choice arrives when token k is due, no choice later than another."""
    answer = simulated.stream(headers(ttft_ms=50, itl_ms=50, output_length=6), n=4)
    assert answer.times_s == pytest.approx([0.050 + index // 4 * 0.050 for index in range(24)])


def test_each_choice_has_a_role_and_an_end(client: openai.OpenAI) -> None:
    """Each choice of a stream says its role once, first, and its finish reason once, last."""
    streamed = chunks(client, n=3)
    for index in range(3):
        mine = [choice for chunk in streamed for choice in chunk.choices if choice.index == index]
        assert [choice.delta.role for choice in mine] == ["assistant", *[None] * 6]
        assert [choice.finish_reason for choice in mine] == [*[None] * 6, "stop"]


def test_stream_of_choices_is_whole(client: openai.OpenAI) -> None:
    """With a seed the streamed choices say what the whole ones say, and use as many tokens."""
    whole = complete(client, seed=3, n=3)
    streamed = chunks(client, seed=3, n=3, stream_options={"include_usage": True})
    for index in range(3):
        assert text_of(streamed, index) == text_of(whole, index)
    assert streamed[-1].usage == whole.usage


SHOUT = {"type": "custom", "custom": {"name": "shout"}}
LONG = {
    "type": "object",
    "properties": {"a": {"type": "string", "minLength": 60_000}},
    "required": ["a"],
}
LONG_TOOL = {"type": "function", "function": {"name": "f", "parameters": LONG}}
LONG_FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": LONG}}


@pytest.mark.parametrize(
    ("asked", "parameters", "param"),
    [
        ({"X-OUTPUT-LENGTH": "131072"}, {"n": 3}, "n"),
        ({"X-OUTPUT-LENGTH": "1", "X-REASONING-LENGTH": "131071"}, {"n": 3}, "n"),
        ({"X-TOOL-CALLS": "128"}, {"tools": [LONG_TOOL]}, "X-TOOL-CALLS"),
        ({"X-TOOL-CALLS": "128"}, {"tools": [LONG_TOOL], "n": 2}, "n"),
        ({}, {"response_format": LONG_FORMAT, "n": 128}, "n"),
    ],
)
def test_too_many_tokens_in_all_choices(
    client: openai.OpenAI, asked: dict[str, str], parameters: dict[str, object], param: str
) -> None:
    """More than 262,144 tokens of text, reasoning, calls or JSON in all choices are refused."""
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, {"X-TTFT-MS": "0", "X-ITL-MS": "0", **asked}, **parameters)
    assert (caught.value.param, caught.value.code) == (param, "integer_above_max_value")


def test_slow_schemas_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls whose instances take longer than they may are refused."""
    monkeypatch.setattr("emulator.answers.instances.MAX_INSTANCES_S", 0)
    request = ChatCompletionRequest.model_validate(chat(tools=[LONG_TOOL]))
    ask = chat_ask(request)
    asked = EmulationHeaders.model_validate({"X-TOOL-CALLS": "1"})
    plan = plan_generation(ask, asked, Settings())
    with pytest.raises(APIError, match="all its instances") as caught:
        Composer(ask, plan, Corpus(), [], asked).compose()
    assert caught.value.body.code == "invalid_schema"


# --------------------------------------------------------------------------------------
# stop
# --------------------------------------------------------------------------------------

SEED = 11
LENGTH = 60


@pytest.fixture(scope="module")
def text(address: Address) -> str:
    """Return the text that the seed gives when nothing stops it."""
    return stream(address, headers(output_length=LENGTH), seed=SEED).text


def made_until(text: str, stop: str) -> int:
    """Return how many tokens it takes to make the stop sequence complete."""
    encoding = tiktoken.get_encoding("cl100k_base")
    tokens = [encoding.decode([token]) for token in encoding.encode(text)]
    end = text.index(stop) + len(stop)
    return next(n for n in range(len(tokens) + 1) if len("".join(tokens[:n])) >= end)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_stop_ends_the_text(address: Address, text: str, data: st.DataObject) -> None:
    """A stream ends before the first stop sequence, wherever in a token that is."""
    start = data.draw(st.integers(0, len(text) - 1))
    stop = text[start : start + data.draw(st.integers(1, 12))]
    answer = stream(
        address,
        headers(output_length=LENGTH),
        seed=SEED,
        stop=data.draw(st.sampled_from([stop, [stop], ["\0", stop, "#"]])),
        stream_options={"include_usage": True},
    )
    finish, last = answer.chunks[-2:]
    used = last["usage"]["completion_tokens"]
    assert answer.text == text.partition(stop)[0]
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert used == len(answer.content)
    assert used == min(token_count(answer.text, "cl100k_base"), made_until(text, stop))


def test_stop_of_a_whole_answer(client: openai.OpenAI, text: str) -> None:
    """A whole answer ends at the stop sequence too, and its usage counts what was sent."""
    stop = text[30:40]
    answer = complete(client, headers(output_length=LENGTH), seed=SEED, stop=stop)
    assert text_of(answer) == text.partition(stop)[0]
    assert answer.choices[0].finish_reason == "stop"
    assert tokens_used(answer) == token_count(text_of(answer), "cl100k_base")


def test_stop_within_a_token_keeps_the_limit(client: openai.OpenAI) -> None:
    """What a stop leaves of a token counts as one, though its letters alone would be more."""
    answer = complete(client, n=64, seed=1, stop=["e", "o"], max_tokens=1)
    texts = [text_of(answer, index) for index in range(64)]
    assert any(token_count(text, "cl100k_base") > 1 for text in texts)
    assert tokens_used(answer) == sum(map(bool, texts))


def test_earliest_of_several_stops(client: openai.OpenAI, text: str) -> None:
    """Of several stop sequences the first in the text ends it, not the first in the list."""
    stops = [text[80:90], text[30:40]]
    answer = complete(client, headers(output_length=LENGTH), seed=SEED, stop=stops)
    assert text_of(answer) == min((text.partition(stop)[0] for stop in stops), key=len)


def test_stop_that_does_not_occur(client: openai.OpenAI, text: str) -> None:
    """A stop sequence that does not occur changes nothing."""
    answer = complete(client, headers(output_length=LENGTH), seed=SEED, stop="no such thing")
    assert (text_of(answer), tokens_used(answer)) == (text, LENGTH)


def test_stop_after_the_limit(client: openai.OpenAI, text: str) -> None:
    """A limit that comes before the stop sequence cuts the text, with the reason length."""
    asked = headers(output_length=LENGTH)
    answer = complete(client, asked, seed=SEED, stop=text[-8:], max_completion_tokens=7)
    assert tokens_used(answer) == 7
    assert answer.choices[0].finish_reason == "length"


def test_stop_before_the_limit(client: openai.OpenAI, text: str) -> None:
    """A stop sequence that comes before the limit ends the text, with the reason stop."""
    asked = headers(output_length=LENGTH)
    answer = complete(client, asked, seed=SEED, stop=text[20:30], max_completion_tokens=50)
    assert answer.choices[0].finish_reason == "stop"


def test_what_could_become_a_stop_is_held_back(simulated: Simulated) -> None:
    """Tokens that begin a stop sequence leave when the next token shows that it is none."""
    free = simulated.stream(headers(output_length=8), seed=SEED)
    third, fourth = free.content[3].content, free.content[4].content
    asked = headers(ttft_ms=0, itl_ms=80, output_length=8)
    held = simulated.stream(asked, seed=SEED, stop=f"{third}{fourth}#")
    assert held.text == free.text
    slots = [0, 1, 2, 5, 5, 5, 6, 7]
    assert held.times_s == pytest.approx([0.080 * slot for slot in slots])


def test_stopped_answer_takes_no_longer(simulated: Simulated, text: str) -> None:
    """A stopped answer ends when the token that completes the stop sequence is due."""
    stop = text[40:50]
    answer = simulated.whole(headers(itl_ms=20, output_length=LENGTH), seed=SEED, stop=stop)
    assert answer.blocks[-1].arrival_s == pytest.approx((made_until(text, stop) - 1) * 0.020)


# A token is empty where it holds but a part of a character.
TEXTS = st.lists(st.text("ab", max_size=4), max_size=12)
STOPS = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=4)


def first_stop(text: str, stops: Sequence[str]) -> tuple[int, int] | None:
    """Return where the stop sequence that is complete first ends and begins."""
    found = [
        (end, begin)
        for end in range(1, len(text) + 1)
        for begin in range(end)
        if text[begin:end] in stops
    ]
    return min(found, default=None)


def certain(text: str, stops: Sequence[str]) -> int:
    """Return how much of a text cannot be the start of a stop sequence."""
    return min(
        (begin for begin in range(len(text)) if any(s.startswith(text[begin:]) for s in stops)),
        default=len(text),
    )


@given(tokens=TEXTS, stops=STOPS)
@settings(max_examples=150, deadline=None)
def test_hold_back_keeps_what_is_before_the_stop(tokens: list[str], stops: list[str]) -> None:
    """What is kept is the text before the first complete stop sequence, or all of it."""
    whole = "".join(tokens)
    stop = first_stop(whole, stops)
    held = hold_back(tokens, stops, list)
    assert "".join(held.tokens) == (whole if stop is None else whole[: stop[1]])
    assert held.stopped == (stop is not None)


@given(tokens=TEXTS, stops=STOPS)
@settings(max_examples=300, deadline=None)
def test_stop_sequence_may_stay(tokens: list[str], stops: list[str]) -> None:
    """Where it is to be kept, the text ends after the stop sequence that is told."""
    whole = "".join(tokens)
    stop = first_stop(whole, stops)
    held = hold_back(tokens, stops, list, keeps=True)
    end, begin = (len(whole), len(whole)) if stop is None else stop
    assert "".join(held.tokens) == whole[:end]
    assert (held.stop or "") == whole[begin:end]
    assert len(held.tokens) <= held.slots


@given(tokens=TEXTS, stops=STOPS)
@settings(max_examples=150, deadline=None)
def test_hold_back_makes_no_more_than_it_must(tokens: list[str], stops: list[str]) -> None:
    """No token is made after the one that completes a stop sequence."""
    stop = first_stop("".join(tokens), stops)
    ends = [len("".join(tokens[: slot + 1])) for slot in range(len(tokens))]
    slots = len(tokens) if stop is None else 1 + next(i for i, e in enumerate(ends) if e >= stop[0])
    assert hold_back(tokens, stops, list).slots == slots


@given(tokens=TEXTS, stops=STOPS)
@settings(max_examples=150, deadline=None)
def test_hold_back_keeps_no_more_tokens_than_were_made(tokens: list[str], stops: list[str]) -> None:
    """What a stop leaves of a token is not split into more tokens than there are slots."""
    held = hold_back(tokens, stops, list)
    assert len(held.tokens) <= held.slots


@given(tokens=TEXTS, stops=STOPS)
@settings(max_examples=150, deadline=None)
def test_hold_back_sends_nothing_too_early_or_too_late(tokens: list[str], stops: list[str]) -> None:
    """A token leaves with the first slot after which none of it can be of a stop, or at the end."""
    held = hold_back(tokens, stops, list)
    made = ["".join(tokens[: slot + 1]) for slot in range(held.slots)]
    last = held.slots - 1
    for k, leaves in enumerate(held.token_slots):
        sent = len("".join(held.tokens[: k + 1]))
        whole = held.tokens[: k + 1] == tokens[: k + 1]
        due = next((i for i in range(k, last) if certain(made[i], stops) >= sent), last)
        assert leaves == (due if whole else last)
    assert all(earlier <= later for earlier, later in pairwise(held.token_slots))


# --------------------------------------------------------------------------------------
# seed
# --------------------------------------------------------------------------------------

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}
SEEDED: dict[str, dict[str, object]] = {
    "text": {},
    "choices": {"n": 3},
    "short choices": {"n": 50, "max_tokens": 2},
    "stop": {"stop": "e "},
    "log probabilities": {"logprobs": True, "top_logprobs": 3},
    "calls": {"tools": [WEATHER], "tool_choice": "required"},
    "object": {
        "messages": [{"role": "user", "content": "Answer in JSON."}],
        "response_format": {"type": "json_object"},
    },
}


def said(answer: ChatCompletion) -> dict[str, object]:
    """Return an answer without what is new in each: its id, its time, the ids of its calls."""
    told = answer.model_dump(exclude={"id", "created"})
    for choice in told["choices"]:
        for call in choice["message"]["tool_calls"] or ():
            del call["id"]
    return told


@pytest.mark.parametrize("kind", SEEDED)
def test_seed_decides_what_is_said(
    client: openai.OpenAI, other_client: openai.OpenAI, kind: str
) -> None:
    """With one seed every worker says the same, and a server that was started anew too."""
    asked = headers(output_length=30)
    servers = [*[client] * 6, other_client]
    answers = [complete(server, asked, seed=42, **SEEDED[kind]) for server in servers]
    assert all(said(answer) == said(answers[0]) for answer in answers)
    assert len({answer.id for answer in answers}) == len(answers)


@pytest.mark.parametrize("kind", ["text", "calls", "object"])
def test_different_seeds_say_different_things(client: openai.OpenAI, kind: str) -> None:
    """With another seed another thing is said."""
    asked = headers(output_length=30)
    answers = [complete(client, asked, seed=seed, **SEEDED[kind]) for seed in (1, 2, -3, 0)]
    assert len({str(said(answer)["choices"]) for answer in answers}) == 4


def test_prompt_matters_beside_the_seed(client: openai.OpenAI) -> None:
    """With one seed two prompts get two texts."""
    asked = headers(output_length=30)
    prompts = [[{"role": "user", "content": content}] for content in ("a", "b")]
    first, second = (complete(client, asked, seed=1, messages=messages) for messages in prompts)
    assert text_of(first) != text_of(second)


def test_fingerprint_is_stable(client: openai.OpenAI, other_client: openai.OpenAI) -> None:
    """The system fingerprint is one for a version: in every answer, stream and server."""
    prints = {complete(server).system_fingerprint for server in (client, client, other_client)}
    prints |= {chunk.system_fingerprint for chunk in chunks(client)}
    assert len(prints) == 1


# --------------------------------------------------------------------------------------
# logprobs
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", [None, 0, 1, 5, 20])
def test_logprobs(client: openai.OpenAI, top: int | None) -> None:
    """Each token has one entry: itself, its bytes, its probability, and the likeliest tokens."""
    answer = complete(client, headers(output_length=200), logprobs=True, top_logprobs=top)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(entry.token for entry in logprobs.content) == text_of(answer)
    assert len(logprobs.content) == 200
    for entry in logprobs.content:
        assert token_count(entry.token, "cl100k_base") == 1
        assert entry.bytes == list(entry.token.encode())
        assert entry.logprob <= 0
        likely = entry.top_logprobs
        assert len(likely) == (top or 0)
        assert [t.logprob for t in likely] == sorted((t.logprob for t in likely), reverse=True)
        assert len({t.token for t in likely}) == len(likely)
        assert all(t.bytes == list(t.token.encode()) and t.logprob <= 0 for t in likely)
        assert sum(math.exp(t.logprob) for t in likely) <= 1
        if top:
            assert (entry.token, entry.logprob) in [(t.token, t.logprob) for t in likely]


def test_no_logprobs_unless_asked(client: openai.OpenAI) -> None:
    """Without logprobs the field is null, whole and streamed."""
    assert complete(client).choices[0].logprobs is None
    assert {chunk.choices[0].logprobs for chunk in chunks(client)} == {None}


@pytest.mark.parametrize("batch", [1, 4])
def test_streamed_logprobs_are_the_whole_ones(client: openai.OpenAI, batch: int) -> None:
    """With a seed the entries of a stream's events are those of the whole answer."""
    parameters = {"seed": 5, "logprobs": True, "top_logprobs": 2}
    asked = {**headers(output_length=10), "X-SSE-BATCH-SIZE": str(batch)}
    whole = complete(client, asked, **parameters).choices[0].logprobs
    choices = [chunk.choices[0] for chunk in chunks(client, asked, **parameters)]
    assert whole is not None
    streamed = [e for c in choices if c.logprobs for e in c.logprobs.content or ()]
    assert streamed == whole.content
    for choice in choices:
        if choice.logprobs:
            entries = choice.logprobs.content or ()
            assert "".join(entry.token for entry in entries) == choice.delta.content


# --------------------------------------------------------------------------------------
# Reasoning
# --------------------------------------------------------------------------------------


def reasoning_tokens(answer: ChatCompletion) -> int:
    """Return the reasoning tokens that the usage states."""
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    return answer.usage.completion_tokens_details.reasoning_tokens or 0


def thinking(tokens: int, **asked: float) -> dict[str, str]:
    """Return the headers that ask for hidden reasoning."""
    times = {"output_length": 5, **asked}
    return {
        "X-TTFT-MS": str(times.get("ttft_ms", 0)),
        "X-ITL-MS": str(times.get("itl_ms", 0)),
        "X-OUTPUT-LENGTH": str(int(times["output_length"])),
        "X-REASONING-LENGTH": str(tokens),
    }


def test_reasoning_delays_the_first_token(simulated: Simulated) -> None:
    """N reasoning tokens take n * itl before the first visible token, and no event."""
    answer = simulated.stream(thinking(8, ttft_ms=40, itl_ms=40))
    assert answer.times_s == pytest.approx([0.040 + slot * 0.040 for slot in range(8, 13)])
    assert answer.blocks[0].data.startswith(b'data: {"id"')
    assert answer.blocks[0].arrival_s == answer.times_s[0]


def test_reasoning_delays_whole_answers(simulated: Simulated) -> None:
    """A whole answer takes the time of its reasoning too."""
    answer = simulated.whole(thinking(8, ttft_ms=40, itl_ms=40))
    assert answer.blocks[-1].arrival_s == pytest.approx(0.040 + 12 * 0.040)


def test_reasoning_is_counted(client: openai.OpenAI) -> None:
    """Reasoning tokens count as completion tokens, and by themselves, in every choice."""
    answer = complete(client, thinking(30), n=2)
    assert (tokens_used(answer), reasoning_tokens(answer)) == (70, 60)
    assert token_count(text_of(answer), "cl100k_base") == 5


def test_streams_count_reasoning(client: openai.OpenAI) -> None:
    """The usage of a stream is that of the whole answer, reasoning included."""
    streamed = chunks(client, thinking(30), stream_options={"include_usage": True})
    assert streamed[-1].usage == complete(client, thinking(30)).usage


def test_no_reasoning_by_default(client: openai.OpenAI) -> None:
    """Without header and setting nothing is reasoned, whatever the effort."""
    assert reasoning_tokens(complete(client, reasoning_effort="high")) == 0


@pytest.mark.parametrize(("limit", "visible"), [(3, 0), (8, 0), (10, 2), (13, 5), (20, 5)])
def test_limit_counts_reasoning(client: openai.OpenAI, limit: int, visible: int) -> None:
    """max_completion_tokens limits reasoning and answer together, the reasoning first."""
    answer = complete(client, thinking(8), max_completion_tokens=limit)
    assert reasoning_tokens(answer) == min(8, limit)
    assert tokens_used(answer) == min(8, limit) + visible
    assert token_count(text_of(answer), "cl100k_base") == visible
    assert answer.choices[0].finish_reason == ("length" if visible < 5 else "stop")


def test_stream_of_nothing_but_reasoning(client: openai.OpenAI) -> None:
    """A stream whose limit leaves no visible token says its role and its end all the same."""
    streamed = chunks(client, thinking(8), max_completion_tokens=3)
    assert [chunk.choices[0].delta.role for chunk in streamed] == ["assistant", None]
    assert streamed[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize(("effort", "tokens"), [("low", 64), ("high", 512), ("medium", 0)])
def test_effort_decides_the_reasoning(
    other_client: openai.OpenAI, effort: str, tokens: int
) -> None:
    """With reasoning_lengths the effort decides how much is reasoned."""
    assert reasoning_tokens(complete(other_client, reasoning_effort=effort)) == tokens


def test_header_wins_over_effort(other_client: openai.OpenAI) -> None:
    """X-REASONING-LENGTH wins over the setting."""
    assert reasoning_tokens(complete(other_client, thinking(7), reasoning_effort="high")) == 7


def reasoning_events(answer: Answer) -> list[tuple[float, str]]:
    """Return when each piece of the reasoning arrived, and what it says."""
    deltas = [(event.arrival_s, event.json["choices"][0]["delta"]) for event in answer.events[:-1]]
    return [(at_s, d["reasoning_content"]) for at_s, d in deltas if "reasoning_content" in d]


def test_reasoning_is_shown(other_client: openai.OpenAI) -> None:
    """With reasoning_content the message holds the reasoning beside the answer."""
    answer = complete(other_client, thinking(30))
    extra = answer.choices[0].message.model_extra or {}
    assert token_count(str(extra["reasoning_content"]), "cl100k_base") == 30
    assert token_count(text_of(answer), "cl100k_base") == 5
    assert (tokens_used(answer), reasoning_tokens(answer)) == (35, 30)


def test_reasoning_is_streamed(other_client: openai.OpenAI) -> None:
    """With reasoning_content each reasoning token is an event, on the clock, before the answer."""
    url = other_client.base_url
    answer = stream((url.host, url.port or 80), thinking(6, ttft_ms=30, itl_ms=30))
    thoughts = reasoning_events(answer)
    assert [token_count(text, "cl100k_base") for _, text in thoughts] == [1] * 6
    assert all(at_s >= 0.030 + slot * 0.030 for slot, (at_s, _) in enumerate(thoughts))
    assert answer.content[0].arrival_s >= 0.030 + 6 * 0.030
    assert len(answer.content) == 5


# --------------------------------------------------------------------------------------
# Cached tokens
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "cached"), [(None, 0), (0, 0), (5, 5), (9, 9), (2**31 - 1, 9)])
def test_cached_tokens(client: openai.OpenAI, asked: int | None, cached: int) -> None:
    """X-CACHED-TOKENS is reported, at most as many as the prompt has."""
    extra = {} if asked is None else {"X-CACHED-TOKENS": str(asked)}
    usage = complete(client, {**headers(), **extra}).usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert (usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens) == (9, cached)


@pytest.mark.parametrize("name", ["X-REASONING-LENGTH", "X-TOOL-CALLS", "X-CACHED-TOKENS"])
@pytest.mark.parametrize("value", ["-1", "1.5", "x", ""])
def test_headers_are_checked(client: openai.OpenAI, name: str, value: str) -> None:
    """A header that is no whole number from 0 on is the client's BadRequestError that names it."""
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, {**headers(), name: value})
    assert (caught.value.param, caught.value.code) == (name, "invalid_value")
