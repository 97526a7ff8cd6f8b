"""The requests that a real vLLM 0.32 was sent, and answers of the same structure."""

import re
from collections.abc import Callable
from typing import NamedTuple

import httpx
import pytest

from tests.dialect.goldens import Golden, ask, compare, goldens
from tests.support.server import Server


class Reason(NamedTuple):
    """Why something still differs, and how each difference of it reads."""

    words: str
    pattern: str


ENDS = Reason(
    "the emulator's JSON and calls end, random weights write on until the limit",
    r"finish_reason|\.delta\.(content|tool_calls)|message\.tool_calls|kinds of items"
    r"|incomplete_details|\.status",
)
TEXTS = Reason(
    "the texts, and with them the stop sequences, are others",
    r"kinds of items|finish_reason|stop_reason|message\.content|status",
)
CALLS = Reason("random weights write no call that a parser finds: theirs is a text", ".")
ORDER = Reason("choices of a real engine are a step apart now and then", "kinds of items")
SCORED = Reason("log probabilities of prompts are OpenAI's, with echo alone", ".")
PICTURES = Reason("the emulator sees pictures, whatever its model", "status 400 there, 200 here")
BOUNDS = Reason("what a client can make large has OpenAI's bound", "status 200 there, 400 here")
NO_TOKEN = Reason("a token that no vocabulary has is refused", "status 200 there, 400 here")
SCHEMA = Reason("the emulator names the parameter at fault", r"^\.error\.param: None there")
BROWSER = Reason("pages of other origins may read answers", "header access-control-")
THOUGHTS = Reason(
    "a usage tells of reasoning where there was some, and log probabilities leave it out",
    r"completion_tokens_details|logprobs",
)
EMPTY = Reason("vLLM's parser has an empty text beside reasoning that was cut", "message.content")
LAYER = Reason("vLLM's keys are checked before the layer that varies", "header vary is ours")
ROLE = Reason("vLLM's flag makes the template's role that of the answer", "message.role")

STILL = {
    "default/chat-echo": SCORED,
    "default/chat-guided-choice": ENDS,
    "default/chat-json-bad-schema": SCHEMA,
    "default/chat-json-object": ENDS,
    "default/chat-json-schema": ENDS,
    "default/chat-json-schema-stream": ENDS,
    "default/chat-n2-stream": ORDER,
    "default/chat-stop-stream": TEXTS,
    "default/chat-structured-json": ENDS,
    "default/chat-tool-named": ENDS,
    "default/chat-tool-named-stream": ENDS,
    "default/chat-tool-required": ENDS,
    "default/chat-tool-required-stream": ENDS,
    "default/chat-tool-required-two": ENDS,
    "default/comp-default-max": ENDS,
    "default/comp-echo-logprobs": SCORED,
    "default/comp-list-stream": ORDER,
    "default/comp-logprobs-6": BOUNDS,
    "default/detokenize-out": NO_TOKEN,
    "default/err-image": PICTURES,
    "default/err-n-big": BOUNDS,
    "default/origin": BROWSER,
    "default/resp-json": ENDS,
    "default/resp-tool": CALLS,
    "default/resp-tool-stream": CALLS,
    "flags/chat-echo": SCORED,
    "flags/chat-json-bad-schema": SCHEMA,
    "flags/chat-logprobs": THOUGHTS,
    "flags/chat-n2-stream": ORDER,
    "flags/chat-no-max": TEXTS,
    "flags/chat-stop": TEXTS,
    "flags/chat-stop-included": TEXTS,
    "flags/chat-stop-stream": TEXTS,
    "flags/chat-stream-continuous": THOUGHTS,
    "flags/chat-tool-named": EMPTY,
    "flags/chat-tool-required": EMPTY,
    "flags/chat-tool-required-two": EMPTY,
    "flags/chat-top-logprobs": THOUGHTS,
    "flags/chat-top-logprobs-stream": THOUGHTS,
    "flags/x-echo-roles": ROLE,
    "flags/x-thinking": THOUGHTS,
    "flags/x-tool-strict-named": EMPTY,
    "flags/x-tool-strict-required": EMPTY,
    "key/auth": LAYER,
    "key/comp-max1": LAYER,
    "key/models": LAYER,
    "key/models-one": LAYER,
    "whole-json/chat-json-bad-schema": SCHEMA,
    "whole-json/chat-json-object": ENDS,
}
# What the vLLM of each group was started with.
FLAGS = {
    "default": [],
    "flags": ["prompt-tokens-details", "request-id-headers"],
    "whole-json": ["prompt-tokens-details"],
}
ALL = goldens()
KEYED = [golden for golden in ALL if golden.name.startswith("key/")]
OPEN = [golden for golden in ALL if golden not in KEYED]


def check(http: httpx.Client, golden: Golden) -> None:
    """Find no difference, or those that are known to be left."""
    found = compare(golden, ask(http, golden))
    reason = STILL.get(golden.name)
    if reason is None:
        assert found == []
    else:
        assert found, f"nothing differs any more ({reason.words})"
        assert [each for each in found if not re.search(reason.pattern, each)] == []


@pytest.mark.parametrize("group", FLAGS)
def test_answers_have_vllms_structure(
    vllm: httpx.Client,
    settings: Callable[..., None],
    subtests: pytest.Subtests,
    group: str,
) -> None:
    """Status, headers, keys, types and events are vLLM's, but for what is listed."""
    settings(vllm_flags=FLAGS[group])
    for golden in OPEN:
        if golden.name.startswith(f"{group}/"):
            with subtests.test(golden.name):
                check(vllm, _thinking(golden))


def _thinking(golden: Golden) -> Golden:
    """Ask for what the reasoning parser makes of random weights: all tokens are reasoning."""
    if not golden.name.startswith("flags/") or "enable_thinking" in golden.body:
        return golden
    return golden._replace(headers={**golden.headers, "X-REASONING-LENGTH": "4000"})


@pytest.mark.parametrize("golden", KEYED, ids=lambda golden: golden.name)
def test_without_a_key_it_is_vllms_401(keyed_server: Server, golden: Golden) -> None:
    """A request without a key gets vLLM's 401, and what needs none its answer."""
    with httpx.Client(base_url=keyed_server.url) as http:
        check(http, golden)


def test_list_of_differences_has_no_strangers() -> None:
    """Each difference that is listed is one of an answer that is compared."""
    assert STILL.keys() <= {golden.name for golden in ALL}
