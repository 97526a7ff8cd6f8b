"""Texts in many scripts on the wire, for clients that take bytes or tokens for characters."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from emulator.apis.chat.api import ChatAPI
from emulator.reading.reader import Reader
from emulator.settings import Settings
from emulator.state import read_state
from tests.support.wire import CHAT_PATH, chat, headers, token_count
from tokenizer import TokenGenerator

Json = dict[str, Any]
ASKED = {**headers(output_length=120), "X-TEXT": "unicode"}
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
MODELS = [("gpt-4", "cl100k_base"), ("gpt-4o", "o200k_base"), ("davinci-002", "cl100k_base")]


def post(http: httpx.Client, path: str, body: Json, **more: str) -> httpx.Response:
    """Return the answer to a request for texts in many scripts."""
    answer = http.post(path, json=body, headers={**ASKED, **more})
    assert answer.status_code == 200, answer.text
    assert REPLACEMENT not in answer.text
    return answer


def events(answer: httpx.Response) -> list[Json]:
    """Return the JSON of all events, each of which is UTF-8 by itself."""
    blocks = answer.content.split(b"\n\n")
    lines = [line for block in blocks for line in block.decode().split("\n")]
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [json.loads(one) for one in data if one != "[DONE]"]


def deltas(answer: httpx.Response, index: int = 0) -> Iterator[str]:
    """Yield the text of each event of one choice after its role."""
    for event in events(answer):
        for choice in event["choices"]:
            if choice["index"] == index and choice.get("delta", choice).keys() - {"role"}:
                yield choice["delta"].get("content", "")


@pytest.mark.parametrize(("model", "encoding"), MODELS)
def test_whole_answer_is_exact(http: httpx.Client, model: str, encoding: str) -> None:
    """A whole answer has as many tokens as asked, and says so."""
    answer = post(http, CHAT_PATH, chat(model=model)).json()
    text = answer["choices"][0]["message"]["content"]
    assert not text.isascii()
    assert token_count(text, encoding) == answer["usage"]["completion_tokens"] == 120


@pytest.mark.parametrize(("model", "encoding"), MODELS)
def test_stream_is_exact(http: httpx.Client, model: str, encoding: str) -> None:
    """A stream has an event for each token, in raw UTF-8, and no character is ever in part."""
    answer = post(http, CHAT_PATH, chat(model=model, stream=True))
    said = [event["choices"][0]["delta"] for event in events(answer)]
    texts = [delta["content"] for delta in said if "content" in delta and "role" not in delta]
    assert len(texts) == token_count("".join(texts), encoding) == 120
    assert not answer.content.isascii()


SHAPES: dict[str, Json] = {
    "choices": {"n": 3},
    "a stop": {"stop": ["é", "。", "и"]},
    "log probabilities": {"logprobs": True, "top_logprobs": 2},
    "a limit": {"max_tokens": 33},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_streams_and_whole_answers_agree(http: httpx.Client, shape: str) -> None:
    """With a seed a stream says what a whole answer does, whatever else is asked for."""
    body = chat(seed=5, **SHAPES[shape])
    whole = post(http, CHAT_PATH, body).json()
    again = post(http, CHAT_PATH, body).json()
    streamed = post(http, CHAT_PATH, {**body, "stream": True})
    for choice, other in zip(whole["choices"], again["choices"], strict=True):
        text = choice["message"]["content"]
        assert text == other["message"]["content"]
        assert text == "".join(deltas(streamed, choice["index"]))
    total = sum(token_count(c["message"]["content"], "cl100k_base") for c in whole["choices"])
    assert total == whole["usage"]["completion_tokens"]


def test_log_probabilities_tell_bytes(http: httpx.Client) -> None:
    """The bytes of all tokens are the text's; a part of a character is named by its bytes."""
    body = chat(logprobs=True, top_logprobs=2)
    answer = post(http, CHAT_PATH, body).json()["choices"][0]
    tokens = answer["logprobs"]["content"]
    assert bytes(b for t in tokens for b in t["bytes"]).decode() == answer["message"]["content"]
    parts = [t for t in tokens if "\\x" in t["token"]]
    assert parts
    for token in tokens:
        assert bytes(token["bytes"]).decode("utf-8", "backslashreplace") == token["token"]
        assert token["top_logprobs"][0] == {k: token[k] for k in ("token", "logprob", "bytes")}


def test_legacy_log_probabilities_tell_bytes(http: httpx.Client) -> None:
    """Legacy ones have ``bytes:`` before them, and offsets that count whole characters."""
    body = {"model": "davinci-002", "prompt": "a", "logprobs": 1, "max_tokens": 120}
    choice = post(http, "/v1/completions", body).json()["choices"][0]
    told, text = choice["logprobs"], choice["text"]
    ends = [*told["text_offset"][1:], len(text)]
    parts = [token for token in told["tokens"] if token.startswith("bytes:")]
    assert parts
    assert all("\\x" in part for part in parts)
    assert [next(iter(top)) for top in told["top_logprobs"]] == told["tokens"]
    for token, start, end in zip(told["tokens"], told["text_offset"], ends, strict=True):
        assert text[start:end] == token or token in parts


def test_responses_say_it_too(http: httpx.Client) -> None:
    """A response's deltas are its text, with tiktoken's count."""
    answer = post(http, "/v1/responses", {"model": "gpt-4o", "input": "hi", "stream": True})
    found = events(answer)
    text = "".join(e["delta"] for e in found if e["type"] == "response.output_text.delta")
    ended = found[-1]["response"]
    assert ended["output"][0]["content"][0]["text"] == text
    assert token_count(text, "o200k_base") == ended["usage"]["output_tokens"] == 120


def test_legacy_completions_say_it_too(http: httpx.Client) -> None:
    """A legacy stream has the text of the whole answer."""
    body = {"model": "davinci-002", "prompt": "a", "seed": 3, "max_tokens": 120}
    whole = post(http, "/v1/completions", body).json()
    streamed = events(post(http, "/v1/completions", {**body, "stream": True}))
    text = "".join(e["choices"][0]["text"] for e in streamed)
    assert text == whole["choices"][0]["text"]
    assert token_count(text, "cl100k_base") == whole["usage"]["completion_tokens"] == 120


NOTE: Json = {
    "type": "object",
    "properties": {"note": {"type": "string", "minLength": 40}, "kind": {"enum": ["über"]}},
    "required": ["note", "kind"],
}


def test_arguments_hold_many_scripts(http: httpx.Client) -> None:
    """The arguments of calls and JSON hold them as they are, whole in every event."""
    tool = {"type": "function", "function": {"name": "note", "parameters": NOTE}}
    body = chat(tools=[tool], tool_choice="required", seed=2)
    call = post(http, CHAT_PATH, body).json()["choices"][0]["message"]["tool_calls"][0]
    text = call["function"]["arguments"]
    assert not text.isascii()
    assert json.loads(text)["kind"] == "über"
    streamed = events(post(http, CHAT_PATH, {**body, "stream": True}))
    parts = [
        call["function"]["arguments"]
        for event in streamed
        for call in event["choices"][0]["delta"].get("tool_calls", ())
    ]
    assert "".join(parts) == text
    assert len(parts[1:]) == token_count(text, "cl100k_base")


def test_it_can_be_asked_for_in_the_body(http: httpx.Client) -> None:
    """What the header says can stand in the body, and an unknown kind is refused by name."""
    body = chat(emulation={"text": "unicode", "output_length": 60})
    text = http.post(CHAT_PATH, json=body).json()["choices"][0]["message"]["content"]
    assert not text.isascii()
    wrong = http.post(CHAT_PATH, json=chat(emulation={"text": "latin"}))
    assert wrong.status_code == 400
    assert wrong.json()["error"]["message"] == (
        "Invalid 'emulation.text': expected one of english, unicode, but got 'latin' instead."
    )


def composed(folder: Path, settings: Json, profiles: str) -> str:
    """Return the text of an answer by these settings and profiles, made in this process."""
    file = folder / "profiles.yaml"
    file.write_text(profiles)
    state = read_state(Settings(**settings, profiles=file if profiles else None))
    reader, api = Reader(), ChatAPI(TokenGenerator(), "fp_0")
    body = json.dumps(chat()).encode()
    return reader.compose(reader.read(api, {}, body, state)).answers[0].segments[0].text


def test_operator_chooses_the_texts(tmp_path: Path) -> None:
    """A setting decides what no request says, and a profile comes before it."""
    assert composed(tmp_path, {}, "").isascii()
    assert not composed(tmp_path, {"text": "unicode"}, "").isascii()
    assert composed(tmp_path, {"text": "unicode"}, "- {model: gpt-4, text: english}").isascii()
