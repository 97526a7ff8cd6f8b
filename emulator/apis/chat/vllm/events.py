"""JSON and server-sent events of chat completions, as vLLM 0.32 writes them."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic_core import to_json

from emulator.answers.answer import Answer, Call, Segment
from emulator.answers.logprobs import Likelihood
from emulator.contract.usage import Usage
from emulator.rendering.ending_streams import NO_PROMPT_IDS
from emulator.rendering.frames import with_logprobs
from emulator.rendering.likelihoods import likelihood_json
from emulator.rendering.renderer import SLOT
from emulator.rendering.vllm_parts import (
    FINGERPRINT,
    NO_PROMPT_LOGPROBS,
    VLLMRenderer,
    all_ids,
    whole_usage,
)

Json = dict[str, Any]


class VLLMChatRenderer(VLLMRenderer):
    """Writes chat completions as vLLM does."""

    object = "chat.completion.chunk"

    def whole(self, answers: Sequence[Answer], usage: Usage) -> bytes | bytearray:
        """Return the whole answer as JSON."""
        completion = {
            **self._start(),
            "object": "chat.completion",
            "choices": [_choice(answer) for answer in answers],
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": whole_usage(usage, details=self._details),
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "prompt_text": None,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }
        body = to_json(completion).decode()
        if self._prompt_ids is not None:
            start, null, end = body.rpartition('"prompt_token_ids":null')
            body = f"{start}{null.removesuffix('null')}{self._prompt_ids[0]}{end}"
        for told in self._prompt_logprobs:
            body = body.replace(NO_PROMPT_LOGPROBS, f'"prompt_logprobs":{told}')
        return with_logprobs(body, self, answers)

    def roles(self, answers: Sequence[Answer]) -> str:
        """Return the role of each choice."""
        return "".join(map(self._role, answers))

    def preamble(self, answer: Answer, segment: Segment) -> str:
        """Return the name in front of a call."""
        return self._delta(answer, _named(segment.call)) if segment.call else ""

    def token(self, answer: Answer, segment: Segment) -> str:
        """Return the event of one token, with `SLOT` for its text."""
        if segment.call:
            part = {
                "index": segment.call.index,
                _place(segment.call): _arguments(segment.call, SLOT),
            }
            return self._delta(answer, {"content": None, "tool_calls": [part]})
        return self._delta(answer, {"reasoning" if segment.reasoning else "content": SLOT})

    def logprobs(self, _: Answer, entries: Iterable[Likelihood], __: int) -> Iterator[str]:
        """Yield the log probabilities of some tokens as JSON."""
        yield '{"content":['
        comma = ""
        for entry in entries:
            yield comma + likelihood_json(entry)
            comma = ","
        yield "]}"

    def finish(self, answer: Answer) -> str:
        """Return the event that ends a choice by itself."""
        return self.ended(self._delta(answer, {}), answer)

    def _role(self, answer: Answer) -> str:
        choice = {
            "index": answer.index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        event = self._chunk(choice, prompt_token_ids=None, prompt_text=None)
        if self._prompt_ids is None:
            return event
        return event.replace(NO_PROMPT_IDS, f'"prompt_token_ids":{self._prompt_ids[0]}')

    def _delta(self, answer: Answer, delta: Json) -> str:
        return self._chunk(
            {
                "index": answer.index,
                "delta": delta,
                "logprobs": None,
                "finish_reason": None,
                "token_ids": None,
            }
        )


def _choice(answer: Answer) -> Json:
    return {
        "index": answer.index,
        "message": _message(answer),
        "logprobs": None,
        "finish_reason": answer.finish_reason,
        "stop_reason": answer.stop_reason,
        "token_ids": all_ids(answer),
        "routed_experts": None,
    }


def _message(answer: Answer) -> Json:
    thoughts = "".join(segment.text for segment in answer.segments if segment.reasoning)
    said = [each for each in answer.segments if not each.call and not each.reasoning]
    calls = [_whole_call(segment.call, segment.text) for segment in answer.segments if segment.call]
    content: str | None = "".join(segment.text for segment in said)
    if not content and thoughts and not calls:
        content = None
    return {
        "role": "assistant",
        "content": content,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        **({"tool_calls": calls} if calls else {}),
        "reasoning": thoughts or None,
    }


def _whole_call(call: Call, arguments: str) -> Json:
    return {
        "id": _call_id(call),
        "type": _place(call),
        _place(call): _arguments(call, arguments, named=True),
    }


def _named(call: Call) -> Json:
    """Return the delta that begins a call."""
    begun = {"id": _call_id(call), "type": _place(call), "index": call.index}
    return {"content": None, "tool_calls": [begun | {_place(call): {"name": call.name}}]}


def _arguments(call: Call, text: str, *, named: bool = False) -> Json:
    key = "input" if call.kind == "custom" else "arguments"
    return {**({"name": call.name} if named else {}), key: text}


def _place(call: Call) -> str:
    """Return the key of what is called; vLLM knows no other call of a function."""
    return "custom" if call.kind == "custom" else "function"


def _call_id(call: Call) -> str:
    """Return a call's id in vLLM's form, the same for the same seed."""
    return f"chatcmpl-tool-{hashlib.blake2b(call.id.encode(), digest_size=8).hexdigest()}"
