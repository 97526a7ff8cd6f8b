"""What clients of vLLM hit: a case for each row; answers have the shapes of a vLLM 0.32."""

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import jsonschema
import pytest

from tests.support.server import Server
from tests.support.wire import CHAT_PATH, chat, headers
from tokenizer import encode

Json = dict[str, Any]
COMPLETIONS = "/v1/completions"
SCHEMA: Json = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "minimum": 0, "maximum": 99},
        "b": {"type": "string", "enum": ["x", "y"]},
    },
    "required": ["a", "b"],
    "additionalProperties": False,
}
WORDS = ["red", "green", "dark blue", 'a "quoted" one', "zürich"]
REGEX = "[a-f]{4}-[0-9]{2}"


def fits_schema(text: str) -> bool:
    """Tell whether a text is an instance of the schema."""
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(json.loads(text))


def fits_words(text: str) -> bool:
    """Tell whether a text is one of the words, not as JSON."""
    return text in WORDS


def fits_regex(text: str) -> bool:
    """Tell whether the whole of a text matches."""
    return re.fullmatch(REGEX, text) is not None


def fits_object(text: str) -> bool:
    """Tell whether a text is a JSON object."""
    return isinstance(json.loads(text), dict)


GUIDED: dict[str, tuple[Json, Callable[[str], bool]]] = {
    "structured_outputs, json": ({"structured_outputs": {"json": SCHEMA}}, fits_schema),
    "json as a text": ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, fits_schema),
    "structured_outputs, choice": ({"structured_outputs": {"choice": WORDS}}, fits_words),
    "structured_outputs, regex": ({"structured_outputs": {"regex": REGEX}}, fits_regex),
    "structured_outputs, json_object": (
        {"structured_outputs": {"json_object": True}},
        fits_object,
    ),
    "what is off beside it": (
        {"structured_outputs": {"choice": WORDS, "json_object": False, "regex": None}},
        fits_words,
    ),
    "guided_json": ({"guided_json": SCHEMA}, fits_schema),
    "guided_json as a text": ({"guided_json": json.dumps(SCHEMA)}, fits_schema),
    "guided_choice": ({"guided_choice": WORDS}, fits_words),
    "guided_regex": ({"guided_regex": f"^{REGEX}$"}, fits_regex),
}


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("row", GUIDED)
def test_chats_are_guided(http: httpx.Client, row: str, seed: int) -> None:
    """The text of a chat is what was asked for, whole and streamed."""
    asked, fits = GUIDED[row]
    body = chat("json, please", seed=seed, **asked)
    whole = http.post(CHAT_PATH, json=body, headers=headers())
    assert whole.status_code == 200, whole.text
    text = whole.json()["choices"][0]["message"]["content"]
    assert fits(text), text
    streamed = http.post(CHAT_PATH, json={**body, "stream": True}, headers=headers())
    assert "".join(c["delta"].get("content") or "" for c in choices(streamed)) == text


@pytest.mark.parametrize("row", [*GUIDED, "response_format"])
def test_legacy_completions_are_guided(http: httpx.Client, row: str) -> None:
    """So is that of a legacy completion, which takes a response_format too."""
    formatted = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    asked, fits = GUIDED.get(row) or ({"response_format": formatted}, fits_schema)
    body = {"model": "davinci-002", "prompt": ["json", "more json"], "seed": 1, "n": 2, **asked}
    whole = http.post(COMPLETIONS, json=body, headers=headers())
    assert whole.status_code == 200, whole.text
    found = whole.json()["choices"]
    assert len(found) == 4
    assert all(fits(choice["text"]) for choice in found)
    streamed = http.post(COMPLETIONS, json={**body, "stream": True}, headers=headers())
    for choice in found:
        same = [c["text"] for c in choices(streamed) if c["index"] == choice["index"]]
        assert "".join(same) == choice["text"]


def choices(answer: httpx.Response) -> list[Json]:
    """Return the choices of all events of a stream."""
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n")]
    parsed = [json.loads(event) for event in events if event and event != "[DONE]"]
    return [choice for event in parsed for choice in event["choices"]]


def test_guided_text_is_stopped_and_cut(http: httpx.Client) -> None:
    """A limit cuts it, with finish_reason length, and a stop sequence ends it."""
    body = chat(seed=1, structured_outputs={"regex": "(ab){40}"}, max_tokens=5)
    cut = http.post(CHAT_PATH, json=body, headers=headers()).json()
    assert cut["choices"][0]["finish_reason"] == "length"
    assert cut["usage"]["completion_tokens"] == 5
    body = chat(structured_outputs={"choice": ["one-two"]}, stop="-", logprobs=True)
    ended = http.post(CHAT_PATH, json=body, headers=headers()).json()["choices"][0]
    assert (ended["message"]["content"], ended["finish_reason"]) == ("one", "stop")
    assert "".join(t["token"] for t in ended["logprobs"]["content"]) == "one"


ONE_KIND = (
    "You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice')."
)
TOOL = {"type": "function", "function": {"name": "f"}}
# What is asked, and the parameter and message of the error.
REFUSED: dict[str, tuple[Json, str, str]] = {
    "two kinds": (
        {"structured_outputs": {"json": SCHEMA, "regex": "a"}},
        "structured_outputs.regex",
        ONE_KIND,
    ),
    "two kinds by the older names": (
        {"guided_regex": "a", "guided_choice": ["a"]},
        "guided_choice",
        ONE_KIND,
    ),
    "beside a format": (
        {
            "guided_regex": "a",
            "response_format": {"type": "json_schema", "json_schema": {"name": "x"}},
        },
        "guided_regex",
        ONE_KIND,
    ),
    "no kind": (
        {"structured_outputs": {}},
        "structured_outputs",
        "You must use one kind of structured outputs constraint but none are specified.",
    ),
    "grammar": (
        {"structured_outputs": {"grammar": "root ::= 'a'"}},
        "structured_outputs.grammar",
        "Unsupported parameter: 'structured_outputs.grammar' is not supported by this emulator. "
        "Use 'json', 'json_object', 'regex' or 'choice' instead.",
    ),
    "guided_grammar": (
        {"guided_grammar": "root ::= 'a'"},
        "guided_grammar",
        "Unsupported parameter: 'guided_grammar' is not supported by this emulator. "
        "Use 'json', 'json_object', 'regex' or 'choice' instead.",
    ),
    "structural tag": (
        {"structured_outputs": {"structural_tag": "{}"}},
        "structured_outputs.structural_tag",
        "Unsupported parameter: 'structured_outputs.structural_tag' is not supported by this "
        "emulator. Use 'json', 'json_object', 'regex' or 'choice' instead.",
    ),
    "structural tag as a format": (
        {"response_format": {"type": "structural_tag", "format": {}}},
        "response_format.type",
        "Invalid value: 'structural_tag'. Supported values are: 'text', 'json_object', and "
        "'json_schema'.",
    ),
    "regex that is none": (
        {"structured_outputs": {"regex": "(a"}},
        "structured_outputs.regex",
        "Invalid 'structured_outputs.regex': the pattern is not understood: ",
    ),
    "json that is none": (
        {"guided_json": "{"},
        "guided_json",
        "Invalid 'guided_json': expected a JSON schema as an object or as a text.",
    ),
    "schema that nothing satisfies": (
        {"guided_json": {"type": "nonsense"}},
        "guided_json",
        "Invalid schema for 'guided_json.type': ",
    ),
    "empty choice": (
        {"structured_outputs": {"choice": []}},
        "structured_outputs.choice",
        "Invalid 'structured_outputs.choice': empty array. ",
    ),
    "log probabilities of the prompt": (
        {"prompt_logprobs": 1},
        "prompt_logprobs",
        "Unsupported parameter: 'prompt_logprobs' is not supported by this emulator.",
    ),
}


@pytest.mark.parametrize("path", [CHAT_PATH, COMPLETIONS])
@pytest.mark.parametrize("row", REFUSED)
def test_what_cannot_be_done_is_refused_by_name(http: httpx.Client, row: str, path: str) -> None:
    """The error names the parameter, and says what would do."""
    asked, param, message = REFUSED[row]
    prompt = chat("json") if path == CHAT_PATH else {"model": "davinci-002", "prompt": "json"}
    answer = http.post(path, json={**prompt, **asked}, headers=headers())
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["message"].startswith(message)
    assert error["param"] == param


def test_a_named_tool_leaves_no_text_to_guide(http: httpx.Client) -> None:
    """A constraint beside a tool that has to be called is refused in vLLM's words."""
    body = chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "f"}})
    answer = http.post(CHAT_PATH, json={**body, "guided_regex": "a"}, headers=headers())
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == (
        "You can only either use constraints for structured outputs or tools, not both."
    )


@pytest.mark.parametrize("path", [CHAT_PATH, COMPLETIONS])
@pytest.mark.parametrize(
    "asked",
    [{"structured_outputs": {"choice": ["a"]}}, {"guided_regex": "a"}, {"return_token_ids": True}],
)
def test_strict_servers_do_not_know_them(other_server: Server, path: str, asked: Json) -> None:
    """With strict_parameters they are vLLM's own, which OpenAI does not have."""
    prompt = chat() if path == CHAT_PATH else {"model": "davinci-002", "prompt": "a"}
    answer = httpx.post(f"{other_server.url}{path}", json={**prompt, **asked})
    [name] = asked
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == f"Unknown parameter: '{name}'."


# --------------------------------------------------------------------------------------
# Token ids
# --------------------------------------------------------------------------------------


def events(answer: httpx.Response) -> list[Json]:
    """Return the JSON of all events of a stream."""
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n")]
    return [json.loads(line) for line in lines if line and line != "[DONE]"]


TEXTS: dict[str, Json] = {
    "text": {},
    "many scripts": {"emulation": {"text": "unicode"}},
    "json": {"structured_outputs": {"json": SCHEMA}},
    "choices": {"n": 2},
    "log probabilities": {"logprobs": True},
}


@pytest.mark.parametrize("row", TEXTS)
def test_token_ids_of_a_chat(http: httpx.Client, row: str) -> None:
    """A chat tells the ids of its answers and of its prompt, as /tokenize does."""
    body = chat("Say hello.", seed=3, return_token_ids=True, **TEXTS[row])
    asked = headers(output_length=40)
    whole = http.post(CHAT_PATH, json=body, headers=asked).json()
    told = http.post("/tokenize", json={"model": "gpt-4", "messages": body["messages"]}).json()
    assert whole["prompt_token_ids"] == told["tokens"]
    assert len(told["tokens"]) == whole["usage"]["prompt_tokens"]
    streamed = events(http.post(CHAT_PATH, json={**body, "stream": True}, headers=asked))
    for choice in whole["choices"]:
        ids = choice["token_ids"]
        assert ids == encode(choice["message"]["content"], "gpt-4")
        own = [e for e in streamed if e["choices"][0]["index"] == choice["index"]]
        assert own[0]["prompt_token_ids"] == told["tokens"]
        assert not any("prompt_token_ids" in event for event in own[1:])
        parts = [event["choices"][0].get("token_ids") for event in own]
        assert parts[0] is None
        assert [token for part in parts[1:] for token in part or ()] == ids
        assert all(len(part) == 1 for part in parts[1:-1] if part is not None)


def test_token_ids_of_calls(http: httpx.Client) -> None:
    """The tokens of arguments have ids, and a batch of tokens several."""
    body = chat(tools=[TOOL], tool_choice="required", return_token_ids=True, stream=True)
    asked = {**headers(), "X-SSE-BATCH-SIZE": "2"}
    streamed = events(http.post(CHAT_PATH, json=body, headers=asked))
    ids = [token for e in streamed for token in e["choices"][0].get("token_ids") or ()]
    arguments = "".join(
        call["function"]["arguments"]
        for event in streamed
        for call in event["choices"][0]["delta"].get("tool_calls", ())
    )
    assert ids == encode(arguments, "gpt-4")


def test_token_ids_of_legacy_completions(http: httpx.Client) -> None:
    """Each choice tells the ids of its prompt and its text, in a stream with its first token."""
    prompts = ["Once upon a time", "hi"]
    body: Json = {"model": "davinci-002", "prompt": prompts, "seed": 1, "return_token_ids": True}
    whole = http.post(COMPLETIONS, json={**body, "n": 2}, headers=headers()).json()
    found = choices(
        http.post(COMPLETIONS, json={**body, "n": 2, "stream": True}, headers=headers())
    )
    for choice in whole["choices"]:
        prompt = encode(prompts[choice["index"] // 2], "davinci-002")
        assert choice["prompt_token_ids"] == prompt
        assert choice["token_ids"] == encode(choice["text"], "davinci-002")
        own = [c for c in found if c["index"] == choice["index"]]
        assert own[0]["prompt_token_ids"] == prompt
        assert [t for c in own for t in c.get("token_ids") or ()] == choice["token_ids"]


def test_token_ids_beside_an_echo_with_log_probabilities(http: httpx.Client) -> None:
    """They are told beside an echoed prompt and its log probabilities too."""
    body: Json = {"model": "davinci-002", "prompt": "Once upon a time", "return_token_ids": True}
    body |= {"echo": True, "logprobs": 1, "max_tokens": 2, "seed": 1}
    whole = http.post(COMPLETIONS, json=body, headers=headers()).json()["choices"][0]
    assert whole["prompt_token_ids"] == encode("Once upon a time", "davinci-002")
    assert len(whole["token_ids"]) == 2
    found = choices(http.post(COMPLETIONS, json={**body, "stream": True}, headers=headers()))
    assert [t for c in found for t in c.get("token_ids") or ()] == whole["token_ids"]


def test_many_prompt_ids_are_not_repeated(http: httpx.Client) -> None:
    """The ids of a long prompt in many choices are more than are told."""
    body = chat("hello " * 3000, n=128, max_tokens=1, return_token_ids=True)
    answer = http.post(CHAT_PATH, json=body, headers=headers())
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "return_token_ids"


def test_no_token_ids_without_asking(http: httpx.Client) -> None:
    """Nothing is told where nobody asks for it."""
    for body in (chat(), chat(return_token_ids=False), chat(return_token_ids=None)):
        assert "token_ids" not in http.post(CHAT_PATH, json=body, headers=headers()).text


# --------------------------------------------------------------------------------------
# With an engine
# --------------------------------------------------------------------------------------

CONTEXT = 40_000  # of the engine "paper"


def test_models_tell_the_context(paper: Server, http: httpx.Client) -> None:
    """With an engine each model tells how long its context is, without one none does."""
    listed = httpx.get(f"{paper.url}/v1/models").json()["data"]
    assert listed
    assert all(model["max_model_len"] == CONTEXT for model in listed)
    assert httpx.get(f"{paper.url}/v1/models/gpt-4").json()["max_model_len"] == CONTEXT
    assert "max_model_len" not in http.get("/v1/models").text


REASONS = ["abort", "error", "length", "repetition", "stop"]


def test_every_finished_reason_has_a_series_from_the_start(paper: Server) -> None:
    """Before anything has ended, each reason is there, so that rates are right from the first."""
    told = paper.metrics().samples
    reasons = [
        sample.labels["finished_reason"]
        for sample in told
        if sample.name == "vllm:request_success_total"
        and sample.labels["model_name"] == "gpt-3.5-turbo"
    ]
    assert sorted(reasons) == REASONS


LONG = "hello " * 39_990
TOO_LONG: dict[str, tuple[str, Json, str | None, str]] = {
    "chat with its limit": (
        CHAT_PATH,
        chat("hi", max_tokens=CONTEXT),
        "messages",
        f"This model's maximum context length is {CONTEXT} tokens. However, you requested "
        f"{CONTEXT + 8} tokens (8 in the messages, {CONTEXT} in the completion). Please reduce the "
        "length of the messages or completion.",
    ),
    "chat with a long prompt": (
        CHAT_PATH,
        chat(LONG + LONG),
        "messages",
        f"This model's maximum context length is {CONTEXT} tokens. However, your messages resulted "
        "in 79988 tokens. Please reduce the length of the messages.",
    ),
    "chat with its newer limit": (
        CHAT_PATH,
        chat("hi", max_completion_tokens=CONTEXT, stream=True),
        "messages",
        f"This model's maximum context length is {CONTEXT} tokens. However, you requested "
        f"{CONTEXT + 8} tokens (8 in the messages, {CONTEXT} in the completion). Please reduce the "
        "length of the messages or completion.",
    ),
    "completion with its limit": (
        COMPLETIONS,
        {"model": "davinci-002", "prompt": ["hi", "hi there"], "max_tokens": CONTEXT - 1},
        None,
        f"This model's maximum context length is {CONTEXT} tokens, however you requested "
        f"{CONTEXT + 1} tokens (2 in your prompt; {CONTEXT - 1} for the completion). Please reduce "
        "your prompt; or completion length.",
    ),
    "completion with a long prompt": (
        COMPLETIONS,
        {"model": "davinci-002", "prompt": LONG + LONG, "max_tokens": 7},
        None,
        f"This model's maximum context length is {CONTEXT} tokens, however you requested "
        f"79988 tokens (79981 in your prompt; 7 for the completion). Please reduce "
        "your prompt; or completion length.",
    ),
    "response with its limit": (
        "/v1/responses",
        {"model": "gpt-4", "input": "hi", "max_output_tokens": CONTEXT},
        "input",
        "Your input exceeds the context window of this model. Please adjust your input and try "
        "again.",
    ),
    "response with a long prompt": (
        "/v1/responses",
        {"model": "gpt-4", "input": LONG + LONG},
        "input",
        "Your input exceeds the context window of this model. Please adjust your input and try "
        "again.",
    ),
}


@pytest.mark.parametrize("row", TOO_LONG)
def test_what_is_beyond_the_context_is_refused(paper: Server, row: str) -> None:
    """Prompt and limit that do not fit are refused in the endpoint's words, whatever is planned."""
    path, body, param, message = TOO_LONG[row]
    answer = httpx.post(f"{paper.url}{path}", json=body, timeout=60)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["message"], error["param"]) == (message, param)
    assert error["code"] == (None if path == COMPLETIONS else "context_length_exceeded")


FITTING: dict[str, tuple[str, Json]] = {
    "chat": (CHAT_PATH, chat("hi", max_tokens=CONTEXT - 8)),
    "no limit": (CHAT_PATH, chat("hi")),
    "completion": (COMPLETIONS, {"model": "davinci-002", "prompt": "hi", "max_tokens": 39_999}),
}


@pytest.mark.parametrize("row", FITTING)
def test_what_just_fits_is_answered(paper: Server, row: str) -> None:
    """Up to the context's length a limit is taken."""
    path, body = FITTING[row]
    answer = httpx.post(f"{paper.url}{path}", json=body, headers={"X-OUTPUT-LENGTH": "2"})
    assert answer.status_code == 200, answer.text
