"""Any text that a rule says comes back whole, in all three APIs, streamed and whole."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.wire import CHAT_PATH, ENCODINGS, chat, token_count

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5000)
MODELS = {"verbatim": ENCODINGS["no-such-model"], "gpt-4-verbatim": ENCODINGS["gpt-4"]}


def streamed(http: httpx.Client, path: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the events of a stream, each of which is JSON on one line."""
    with http.stream("POST", path, json={**body, "stream": True}) as answer:
        assert answer.status_code == 200
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
    return [json.loads(line[6:]) for line in lines if line != "data: [DONE]"]


def whole(http: httpx.Client, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a whole answer."""
    answer: dict[str, Any] = http.post(path, json=body).raise_for_status().json()
    return answer


@pytest.mark.parametrize("model", MODELS)
@settings(derandomize=True, max_examples=40)
@given(text=TEXTS)
def test_any_text_comes_back_whole(http_ruled: httpx.Client, model: str, text: str) -> None:
    """A text of all of Unicode comes as it is, with tiktoken's count, in each API and form."""
    tokens = token_count(text, MODELS[model])
    usage = {"stream_options": {"include_usage": True}}
    asked = chat(text, model=model)

    answer = whole(http_ruled, CHAT_PATH, asked)
    assert answer["choices"][0]["message"]["content"] == text
    assert answer["usage"]["completion_tokens"] == tokens
    *chunks, last = streamed(http_ruled, CHAT_PATH, {**asked, **usage})
    deltas = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    assert "".join(deltas) == text
    assert last["usage"]["completion_tokens"] == tokens

    legacy = {"model": model, "prompt": text}
    answer = whole(http_ruled, "/v1/completions", legacy)
    assert answer["choices"][0]["text"] == text
    *chunks, last = streamed(http_ruled, "/v1/completions", {**legacy, **usage})
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == text
    assert last["usage"]["completion_tokens"] == tokens

    response = {"model": model, "input": text}
    answer = whole(http_ruled, "/v1/responses", response)
    assert answer["output"][0]["content"][0]["text"] == text
    assert answer["usage"]["output_tokens"] == tokens
    events = streamed(http_ruled, "/v1/responses", response)
    kind = "response.output_text.delta"
    assert "".join(event["delta"] for event in events if event["type"] == kind) == text
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == text
