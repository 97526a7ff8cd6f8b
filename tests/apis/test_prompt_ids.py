"""The token ids of prompts: as many as usage counts, and alike where prompts are."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.apis.chat.prompt import ChatPrompt, prompt_ids
from emulator.apis.completions.prompt import CompletionPrompt
from schemas import ChatCompletionRequest, CompletionRequest
from tests.support.wire import ENCODINGS

PICTURE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look up.",
        "parameters": {"type": "object", "properties": {"what": {"type": "string"}}},
    },
}
texts = st.text(max_size=40)
messages = st.one_of(
    st.fixed_dictionaries({"role": st.just("system"), "content": texts}),
    st.fixed_dictionaries(
        {"role": st.just("user"), "content": texts}, optional={"name": st.just("ann")}
    ),
    st.builds(
        lambda text: {"role": "user", "content": [{"type": "text", "text": text}, PICTURE]}, texts
    ),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": texts, "refusal": texts}),
)
models = st.sampled_from([*ENCODINGS, "gpt-3.5-turbo-0301"])


@settings(deadline=None)  # the first loads a vocabulary
@given(models, st.lists(messages, min_size=1, max_size=4), st.booleans())
def test_as_many_as_are_counted(model: str, chat: list[dict[str, object]], tools: bool) -> None:
    """A chat has as many ids as usage says it has tokens, functions and images included."""
    fields: dict[str, object] = {"model": model, "messages": chat}
    request = ChatCompletionRequest.model_validate(fields | ({"tools": [TOOL]} if tools else {}))
    assert len(prompt_ids(request)) == ChatPrompt(request).count()


@pytest.mark.parametrize("prompt", ["", "Hello!", ["a", "b c"], [1, 2, 3], [[1], [2, 3]], None])
def test_legacy_prompts(prompt: object) -> None:
    """Each prompt of a legacy completion has its own ids, as many as are counted."""
    request = CompletionRequest.model_validate({"model": "m", "prompt": prompt})
    prompts = CompletionPrompt(request)
    ids = prompts.ids()
    assert len(ids) == len(request.prompt)
    assert sum(map(len, ids)) == prompts.count()


def test_a_longer_conversation_begins_alike() -> None:
    """The ids of a conversation are the beginning of those of its continuation."""
    first = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi there"}]
    then = [*first, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Why?"}]
    one, other = (
        prompt_ids(ChatCompletionRequest.model_validate({"model": "m", "messages": turns}))
        for turns in (first, then)
    )
    assert other[: len(one)] == one
