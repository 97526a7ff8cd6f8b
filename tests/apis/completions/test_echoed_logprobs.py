"""Legacy completions that echo their prompt with log probabilities, as scorers ask for them."""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from emulator.answers.logprobs import TextLogprobs
from emulator.apis.completions.scores import shown
from tests.support.cut_wire import exchange
from tests.support.reference import watched_machine
from tests.support.server import TLS, Server
from tests.support.wire import Post, chat, headers, post_together

MODEL = "davinci-002"
ENCODING = tiktoken.get_encoding("cl100k_base")
PATH = "/v1/completions"
ARRAYS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
FRANCE = "The capital of France is Paris."
LONG = 100_000  # tokens

Figures = dict[str, list[Any]]


def body(prompt: object, **parameters: object) -> dict[str, Any]:
    """Return a request that asks for a prompt's log probabilities and one token more."""
    asked = {"model": MODEL, "prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 1}
    return {**asked, **parameters}


def choices(url: str, prompt: object, **parameters: object) -> list[dict[str, Any]]:
    """Return the choices of a whole answer."""
    with httpx.Client(base_url=url, timeout=60, trust_env=False, verify=TLS) as http:
        answer = http.post(PATH, json=body(prompt, **parameters), headers=headers())
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["choices"]
    return found


def figures(url: str, prompt: object, **parameters: object) -> Figures:
    """Return the log probabilities of the first choice."""
    found: Figures = choices(url, prompt, **parameters)[0]["logprobs"]
    return found


def streamed(url: str, prompt: object, **parameters: object) -> list[dict[str, Any]]:
    """Return the chunks of a stream that have choices."""
    with httpx.Client(base_url=url, timeout=60, trust_env=False, verify=TLS) as http:
        asked = body(prompt, stream=True, **parameters)
        events = http.post(PATH, json=asked, headers=headers()).text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    return [chunk for chunk in chunks if chunk["choices"]]


def joined(chunks: Sequence[dict[str, Any]], index: int = 0) -> tuple[str, Figures]:
    """Return text and log probabilities of one choice of a stream."""
    parts = [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]
    told = [part["logprobs"] for part in parts if part["logprobs"]]
    lists = {name: list(itertools.chain(*(part[name] for part in told))) for name in ARRAYS}
    return "".join(part["text"] for part in parts), lists


def ids(text: str) -> list[int]:
    """Return the token ids of a text, special tokens among them."""
    return ENCODING.encode(text, allowed_special="all")


# --------------------------------------------------------------------------------------
# The lists
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", [0, 1, 5])
@pytest.mark.parametrize("answered", [0, 1, 4])
def test_lists_hold_prompt_and_answer(base_url: str, answered: int, top: int) -> None:
    """All lists hold the prompt's tokens and then the answer's, the first without a figure."""
    [choice] = choices(base_url, FRANCE, max_tokens=answered, logprobs=top)
    found = choice["logprobs"]
    assert {len(found[name]) for name in ARRAYS} == {len(ids(FRANCE)) + answered}
    assert choice["text"].startswith(FRANCE)
    assert "".join(found["tokens"]) == choice["text"]
    lengths = map(len, found["tokens"][:-1])
    assert found["text_offset"] == list(itertools.accumulate(lengths, initial=0))
    assert found["token_logprobs"][0] is found["top_logprobs"][0] is None
    for token, value, likely in zip(*(found[name][1:] for name in ARRAYS[:3]), strict=True):
        assert value < 0
        assert len(likely) in {top, top + (top > 0)}
        assert not top or likely[token] == value
        assert sum(map(math.exp, likely.values())) <= 1


def test_ends_and_usage(http: httpx.Client) -> None:
    """Tokens of prompt and answer are counted apart, and nothing more is a length of 0."""
    for tokens in (0, 1, 3):
        answer = http.post(PATH, json=body(FRANCE, max_tokens=tokens), headers=headers()).json()
        usage = answer["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (len(ids(FRANCE)), tokens)
        assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("prompt", ["", None])
def test_empty_prompt(base_url: str, prompt: str | None) -> None:
    """Without a prompt the lists hold the answer, each token with a figure."""
    found = figures(base_url, prompt, max_tokens=2)
    assert all(value < 0 for value in found["token_logprobs"])
    assert {len(found[name]) for name in ARRAYS} == {2}
    assert {len(values) for values in figures(base_url, prompt, max_tokens=0).values()} == {0}


def test_parts_of_characters(base_url: str) -> None:
    """A token that is a part of a character is told by its bytes, at the character's place."""
    prompt = "a\N{SNOWMAN}\N{GRINNING FACE}b"
    found = figures(base_url, prompt, max_tokens=0)
    tokens = [ENCODING.decode_single_token_bytes(token) for token in ids(prompt)]
    assert found["tokens"] == [shown(token) for token in tokens]
    assert any(token.startswith("bytes:\\x") for token in found["tokens"])
    before = [b"".join(tokens[:index]).decode("utf-8", "ignore") for index in range(len(tokens))]
    assert found["text_offset"] == [len(text) for text in before]


def test_ids_that_are_no_text(base_url: str) -> None:
    """Token ids whose bytes are no UTF-8 are echoed as what stands in for them."""
    part = ENCODING.encode("\N{SNOWMAN}")[0]
    [choice] = choices(base_url, [part, part, *ids(" x")], max_tokens=0)
    assert choice["text"].endswith("\N{REPLACEMENT CHARACTER} x")
    assert len(choice["logprobs"]["tokens"]) == 3


def test_special_tokens_are_tokens(http: httpx.Client) -> None:
    """A special token in a text is one token, as scorers count it, but only with figures."""
    text = f"<|endoftext|>{FRANCE}"
    answers = [
        http.post(PATH, json=body(text, logprobs=logprobs), headers=headers()).json()
        for logprobs in (1, None)
    ]
    assert answers[0]["choices"][0]["logprobs"]["tokens"][0] == "<|endoftext|>"
    counts = [answer["usage"]["prompt_tokens"] for answer in answers]
    assert counts == [len(ids(text)), len(ENCODING.encode_ordinary(text))]


def test_choices_of_several_prompts(base_url: str) -> None:
    """Each choice has the figures of its own prompt, n choices for each in turn."""
    prompts = [FRANCE, "", "Bread"]
    found = choices(base_url, prompts, n=2, best_of=2, max_tokens=3, stop="e")
    for index, choice in enumerate(found):
        alone = figures(base_url, prompts[index // 2], max_tokens=0)
        size = len(alone["tokens"])
        assert [choice["logprobs"][name][:size] for name in ARRAYS] == [*alone.values()]
        assert "".join(choice["logprobs"]["tokens"]) == choice["text"]


# --------------------------------------------------------------------------------------
# Streams
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("answered", [0, 3])
@pytest.mark.parametrize("also", [{}, {"n": 2}, {"stop": "e"}, {"prompt": [FRANCE, "Bread"]}])
def test_stream_is_whole(base_url: str, also: dict[str, object], answered: int) -> None:
    """The chunks together say what the whole answer says, and the first of each has the echo."""
    asked = {"prompt": FRANCE, "max_tokens": answered, "seed": 3, "logprobs": 2, **also}
    prompts = asked["prompt"] if isinstance(asked["prompt"], list) else [FRANCE]
    chunks = streamed(base_url, **asked)
    for choice in choices(base_url, **asked):
        index = choice["index"]
        assert joined(chunks, index) == (choice["text"], choice["logprobs"])
        first = next(c for chunk in chunks for c in chunk["choices"] if c["index"] == index)
        assert first["text"] == prompts[index // (2 if "n" in also else 1)]
        assert first["logprobs"]["token_logprobs"][0] is None


@pytest.mark.parametrize("answered", [0, 3])
@pytest.mark.parametrize("usage", [{}, {"continuous_usage_stats": True}])
def test_large_stream_is_whole(base_url: str, usage: dict[str, bool], answered: int) -> None:
    """A prompt that leaves in parts has its figures in the first chunk all the same."""
    prompt = f"{FRANCE} " * 2000
    more = {"max_tokens": answered, "seed": 3, "n": 2}
    chunks = streamed(base_url, prompt, stream_options={"include_usage": True, **usage}, **more)
    for choice in choices(base_url, prompt, **more):
        assert joined(chunks, choice["index"]) == (choice["text"], choice["logprobs"])
    assert chunks[0]["choices"][0]["text"] == prompt


@pytest.mark.parametrize("size", [1, 2000])
@pytest.mark.parametrize(
    ("kind", "tokens"), [("slice", 0), ("malformed", 0), ("eof", 1), ("error", 0), ("no-done", 0)]
)
def test_streams_fail_with_small_and_large_echoes(
    one_worker: Server, kind: str, tokens: int, size: int
) -> None:
    """A failure leaves the same of a stream whose prompt left in parts as of one in one event."""
    asked = headers(output_length=3) | {"X-FAULT-KIND": kind}
    if kind != "no-done":
        asked["X-FAULT-AFTER-TOKENS"] = str(tokens)
    if kind == "slice":
        asked["X-FAULT-SLICE-BYTES"] = "1024"
    prompt = f"{FRANCE} " * size
    sent = body(prompt, stream=True, max_tokens=3, seed=1)
    came = exchange(one_worker.address, PATH, sent, asked)
    events = came.events
    echoes = [FRANCE.encode() in event for event in events]
    whole = {"slice": 5, "malformed": 5, "eof": 2, "error": 1, "no-done": 5}[kind] + (
        kind in ("slice", "malformed")
    )
    assert len(events) == whole
    assert echoes == [kind != "error"] + [False] * (whole - 1)


# --------------------------------------------------------------------------------------
# The same everywhere
# --------------------------------------------------------------------------------------

FORMS: dict[str, Callable[[str], object]] = {
    "text": lambda text: text,
    "ids": ids,
    "a list of one": lambda text: [text],
    "the first of several": lambda text: [text, "Bread", "x"],
    "lists of ids": lambda text: [ids(text), ids("Bread")],
}
BESIDE: list[dict[str, object]] = [
    {},
    {"seed": 5, "temperature": 0},
    {"n": 3, "best_of": 4},
    {"max_tokens": 7, "stop": ["e"]},
    {"user": "someone", "logit_bias": {"5": 1}, "suffix": "!"},
    {"logprobs": 4},
]


@pytest.mark.parametrize("form", FORMS)
def test_figures_do_not_depend_on_the_form(base_url: str, form: str) -> None:
    """Texts, token ids and lists of them have the same figures."""
    expected = figures(base_url, FRANCE, max_tokens=0)
    assert figures(base_url, FORMS[form](FRANCE), max_tokens=0) == expected


@pytest.mark.parametrize("beside", BESIDE, ids=str)
def test_figures_do_not_depend_on_the_rest(base_url: str, beside: dict[str, object]) -> None:
    """Whatever else a request has, the prompt's tokens have the same figures."""
    expected = figures(base_url, FRANCE, max_tokens=0)
    for choice in choices(base_url, FRANCE, **beside):
        found = choice["logprobs"]["token_logprobs"]
        assert found[: len(ids(FRANCE))] == expected["token_logprobs"]


def test_figures_do_not_depend_on_the_process(
    base_url: str, one_worker: Server, two_workers: Server
) -> None:
    """Every worker of every server has the same figures, in the worker itself and in helpers."""
    for prompt in (FRANCE[:20], FRANCE * 20):
        expected = figures(base_url, prompt, max_tokens=0)
        for server in (one_worker, *[two_workers] * 8):
            assert figures(server.url, prompt, max_tokens=0) == expected


def test_figures_follow_from_the_text_before(base_url: str) -> None:
    """A longer text has the figures of a shorter one, and then others for other tokens."""
    short, paris, rome = (
        figures(base_url, FRANCE.replace(" Paris.", more), max_tokens=0)
        for more in ("", " Paris", " Rome")
    )
    size = len(short["tokens"])
    for longer in (paris, rome):
        assert {name: longer[name][:size] for name in ARRAYS} == short
    assert paris["token_logprobs"][size] != rome["token_logprobs"][size]
    other = figures(base_url, FRANCE.replace("France", "Italy"), max_tokens=0)
    assert other["token_logprobs"][-1] != paris["token_logprobs"][size]


def test_an_answer_has_the_figures_of_a_prompt(base_url: str) -> None:
    """The tokens of an answer have the figures that they have when they are sent as a prompt."""
    [choice] = choices(base_url, f"{FRANCE}\n", max_tokens=8, logprobs=3)
    assert figures(base_url, choice["text"], max_tokens=0, logprobs=3) == choice["logprobs"]


def test_figures_are_pinned() -> None:
    """The figures are the same in every version and on every machine."""
    scores = TextLogprobs(TextLogprobs.start(MODEL), 2)
    scores.follow(token.encode() for token in ("The", " capital", " of"))
    assert [scores.entry(token)[:3] for token in ("The", " capital", " of")] == PINNED


PINNED: list[tuple[str, float, list[tuple[str, float]]]] = [
    ("The", -5.494897, [(" empty", -0.697264), (" white", -1.390411), ("The", -5.494897)]),
    (" capital", -4.584981, [(" took", -0.703404), (" vast", -1.396551), (" capital", -4.584981)]),
    (" of", -1.133413, [(" remembered", -1.081657), (" of", -1.133413)]),
]


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=40), st.integers(0, 20))
def test_likelihoods_are_probabilities(tokens: list[bytes], top: int) -> None:
    """Entries are in order, hold their token, have no word twice, and sum to 1 at most."""
    scores = TextLogprobs(TextLogprobs.start(MODEL), top)
    scores.follow(tokens)
    for token in map(shown, tokens):
        entry = scores.entry(token)
        values = [value for _, value in entry.top]
        assert entry.logprob < 0
        assert values == sorted(values, reverse=True)
        assert sum(map(math.exp, values)) <= 1
        assert len(dict(entry.top)) == len(values) in {top, top + (top > 0)}
        assert not top or dict(entry.top)[token] == entry.logprob


# --------------------------------------------------------------------------------------
# As lm-eval reads them
# --------------------------------------------------------------------------------------

QUESTIONS = [
    ("Ice is frozen", [" water", " milk", " sand", " air"]),
    ("The sun rises in the", [" east", " west", " north", " south"]),
    ("Two and two are", [" four", " five", " three", " ten"]),
    ("Bread is made from", [" flour", " stones", " oil", " sugar"]),
    ("Cows eat", [" grass", " fish", " stones", " paper"]),
    ("A week has", [" seven days", " six days", " two days", " nine days"]),
    ("Fire is", [" hot", " cold", " wet", " green"]),
    ("The capital of France is", [" Paris", " Rome", " Madrid", " Berlin"]),
    ("Birds have", [" wings", " wheels", " horns", " keys"]),
    ("At night it is", [" dark", " bright", " noon", " loud"]),
]


def loglikelihood(choice: dict[str, Any], context: int) -> tuple[float, bool]:
    """Return what lm-eval 0.4.13 makes of a choice, and whether the continuation is greedy."""
    found = choice["logprobs"]
    values, tops = found["token_logprobs"], found["top_logprobs"]
    greedy = all(
        value == max(top.values())
        for value, top in zip(values[context:-1], tops[context:-1], strict=True)
    )
    return sum(values[context:-1]), greedy


def scored(url: str, batch: int, *, as_text: bool) -> list[tuple[float, bool]]:
    """Return the figures of all choices of all questions, asked in batches."""
    asked = [(question, question + choice) for question, all_ in QUESTIONS for choice in all_]
    found = []
    for at in range(0, len(asked), batch):
        part = asked[at : at + batch]
        prompts = [text if as_text else ids(text) for _, text in part]
        sent = {"temperature": 0, "seed": 1234, "max_tokens": 1}
        answer = sorted(choices(url, prompts, **sent), key=lambda choice: int(choice["index"]))
        contexts = [len(ids(question)) for question, _ in part]
        found += [loglikelihood(*pair) for pair in zip(answer, contexts, strict=True)]
    return found


def test_multiple_choice(base_url: str, two_workers: Server) -> None:
    """The choices of ten questions have figures that differ, and that repeat in every batch."""
    found = scored(base_url, 4, as_text=False)
    for other in (scored(base_url, 3, as_text=True), scored(two_workers.url, 1, as_text=False)):
        assert other == found
    for at in range(0, len(found), 4):
        assert len(set(found[at : at + 4])) == 4
    assert len(set(found)) == len(found) == 40
    assert all(value < 0 for value, _ in found)
    assert {greedy for _, greedy in found} == {True, False}
    answers = [max(range(4), key=lambda k: found[4 * n + k][0]) for n in range(10)]
    assert len(set(answers)) > 1


# --------------------------------------------------------------------------------------
# Long prompts
# --------------------------------------------------------------------------------------


def test_too_many_figures(http: httpx.Client) -> None:
    """Prompts count among the log probabilities of all choices, of which there is a bound."""
    answer = http.post(PATH, json=body([[5] * 60_000] * 9, max_tokens=0), headers=headers())
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "logprobs")
    assert error["code"] == "integer_above_max_value"


def test_unknown_token(http: httpx.Client) -> None:
    """A token id that the encoding does not have is refused by name."""
    error = http.post(PATH, json=body([5, 10**6]), headers=headers()).json()["error"]
    assert (error["param"], error["code"]) == ("prompt", "invalid_value")


@pytest.mark.parametrize("stream", [False, True])
def test_long_prompts_spare_a_paced_stream(one_worker: Server, stream: bool) -> None:
    """No prompt of 100,000 tokens keeps another stream's token waiting for 10 ms."""
    paced = Post(chat(stream=True), {**headers(0, 2, 600), "X-EMULATION-REPORT": "true"})
    long = body("word " * LONG, logprobs=5, stream=stream)

    def own_lag_ms() -> float:
        """Return the worst lag of the paced stream beyond what the machine itself did."""
        came: list[int] = []

        def score() -> None:
            with httpx.Client(base_url=one_worker.url, timeout=60, trust_env=False) as http:
                came.append(len(http.post(PATH, json=long, headers=headers()).content))

        with watched_machine() as machine:
            [answer] = post_together(one_worker.address, [paced], meanwhile=score)
        assert came[0] > 10_000_000
        return float(answer.report["worst_lag_ms"]) - machine.worst_s * 1000

    assert any(own_lag_ms() < 10 for _ in range(5))
