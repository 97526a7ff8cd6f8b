"""JSON and server-sent events of chat completions."""

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from answers.answer import Answer, Call, Segment
from answers.logprobs import Likelihood
from http_api.events import SLOT, Header, with_logprobs
from schemas import (
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    Delta,
    ResponseMessage,
    ToolCallDelta,
    Usage,
)
from timing.plan import FinishReason


class ChatRenderer:
    """Writes chat completions.

    Args:
        header: What every chunk says.
        include_usage: Whether every chunk has a usage, which is null in all but the last.
    """

    def __init__(self, header: Header, *, include_usage: bool) -> None:
        self._header = header
        self._omitted = None if include_usage else {"usage"}

    def whole(self, answers: Sequence[Answer], usage: Usage) -> bytes | bytearray:
        """Return the whole answer as JSON."""
        header = self._header
        completion = ChatCompletion(
            id=header.id,
            created=header.created,
            model=header.model,
            choices=[
                Choice(
                    index=answer.index,
                    message=_message(answer),
                    finish_reason=answer.finish_reason,
                )
                for answer in answers
            ],
            usage=usage,
            system_fingerprint=header.system_fingerprint,
        )
        return with_logprobs(completion.model_dump_json(), self, answers)

    def lead(self, answer: Answer, segment: Segment) -> str:
        """Return the role in front of a choice's first token, and the name in front of a call."""
        delta: Delta = {}
        if segment is answer.segments[0]:
            content = None if segment.call else ""
            delta = {"role": "assistant", "content": content, "refusal": None}
        if segment.call:
            delta |= _call_delta(segment.call, named=True, arguments="")
        return self._event(answer.index, delta) if delta else ""

    def token(self, answer: Answer, segment: Segment) -> str:
        """Return the event of one token, with `SLOT` for its text."""
        if segment.call:
            delta = _call_delta(segment.call, named=False, arguments=SLOT)
        elif segment.reasoning:
            delta = Delta(reasoning_content=SLOT)
        else:
            delta = Delta(content=SLOT)
        return self._event(answer.index, delta)

    def logprobs(self, _: Answer, entries: Iterable[Likelihood], __: int) -> Iterator[str]:
        """Yield the log probabilities of some tokens as JSON."""
        yield '{"content":['
        comma = ""
        for token, logprob, top in entries:
            likely = ",".join([_likely(*other) + "}" for other in top])
            yield f'{comma}{_likely(token, logprob)},"top_logprobs":[{likely}]}}'
            comma = ","
        yield '],"refusal":null}'

    def finish(self, answer: Answer) -> str:
        """Return the event that ends a choice."""
        return self._event(answer.index, {}, answer.finish_reason)

    def usage(self, usage: Usage) -> str:
        """Return the event that holds the usage, and no choice."""
        return self._chunk([], usage)

    def _event(self, index: int, delta: Delta, finish_reason: FinishReason | None = None) -> str:
        return self._chunk([ChunkChoice(index=index, delta=delta, finish_reason=finish_reason)])

    def _chunk(self, choices: list[ChunkChoice], usage: Usage | None = None) -> str:
        header = self._header
        chunk = ChatCompletionChunk(
            id=header.id,
            created=header.created,
            model=header.model,
            system_fingerprint=header.system_fingerprint,
            choices=choices,
            usage=usage,
        )
        return f"data: {chunk.model_dump_json(exclude=self._omitted)}\n\n"


def _message(answer: Answer) -> ResponseMessage:
    content = "".join(s.text for s in answer.segments if not s.call and not s.reasoning)
    calls = [segment for segment in answer.segments if segment.call]
    message: ResponseMessage = {
        "role": "assistant",
        "content": None if calls else content,
        "refusal": None,
        "annotations": [],
    }
    if answer.segments[0].reasoning:
        message["reasoning_content"] = answer.segments[0].text
    for segment in calls:
        if segment.call:
            call = _call_delta(segment.call, named=True, arguments=segment.text)
            if "function_call" in call:
                message["function_call"] = call["function_call"]
            for delta in call.get("tool_calls", ()):
                del delta["index"]
                message.setdefault("tool_calls", []).append(delta)
    return message


def _call_delta(call: Call, *, named: bool, arguments: str) -> Delta:
    """Return a call, or without its name a part of its arguments."""
    if call.kind == "function_call":
        return {"function_call": {**({"name": call.name} if named else {}), "arguments": arguments}}
    delta: ToolCallDelta = {"index": call.index}
    if named:
        delta |= {"id": call.id, "type": call.kind}
    if call.kind == "function":
        delta["function"] = {**({"name": call.name} if named else {}), "arguments": arguments}
    else:
        delta["custom"] = {**({"name": call.name} if named else {}), "input": arguments}
    return {"tool_calls": [delta]}


def _likely(token: str, logprob: float) -> str:
    """Return a TopLogprob as JSON, without its last brace."""
    start, end = _around_logprob(token)
    return f"{start}{logprob}{end}"


@lru_cache(4096)
def _around_logprob(token: str) -> tuple[str, str]:
    utf8 = ",".join(map(str, token.encode()))
    return f'{{"token":{json.dumps(token)},"logprob":', f',"bytes":[{utf8}]'
