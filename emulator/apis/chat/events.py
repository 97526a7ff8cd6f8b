"""JSON and server-sent events of chat completions."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from json.encoder import encode_basestring_ascii as quoted

from emulator.answers.answer import Answer, Call, Segment
from emulator.answers.logprobs import Likelihood
from emulator.apis.chat.answer import (
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    Delta,
    ResponseMessage,
    ToolCallDelta,
)
from emulator.contract.usage import CompletionTokensDetails, PromptTokensDetails, Usage
from emulator.rendering.chunks import ChunkRenderer
from emulator.rendering.frames import Frame, with_logprobs
from emulator.rendering.likelihoods import likelihood_json
from emulator.rendering.renderer import SLOT, Header
from emulator.rendering.token_ids import with_all_token_ids, with_prompt_ids
from emulator.timing.plan import FinishReason


class ChatRenderer(ChunkRenderer):
    """Writes chat completions."""

    def whole(self, answers: Sequence[Answer], usage: Usage) -> bytes | bytearray:
        """Return the whole answer as JSON."""
        header = self._header
        if len(answers) == 1 and answers[0].is_plain:
            return _plain_whole(header, answers[0], usage)
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
        body = with_logprobs(completion.model_dump_json(), self, answers)
        if self._prompt_ids is None:
            return body
        told = f',"prompt_token_ids":{self._prompt_ids[0]}}}'
        return with_all_token_ids(body, answers)[:-1] + told.encode()

    def preamble(self, answer: Answer, segment: Segment) -> str:
        """Return the role in front of a choice's first token, and the name in front of a call."""
        delta: Delta = {}
        if segment is answer.segments[0]:
            content = None if segment.call else ""
            delta = {"role": "assistant", "content": content, "refusal": None}
        if segment.call:
            delta |= _call_delta(segment.call, named=True, arguments="")
        event = self._event(answer.index, delta) if delta else ""
        if self._prompt_ids is not None and segment is answer.segments[0]:
            return with_prompt_ids(event, self._prompt_ids[0])
        return event

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
        for entry in entries:
            yield comma + likelihood_json(entry)
            comma = ","
        yield '],"refusal":null}'

    def finish(self, answer: Answer) -> str:
        """Return the event that ends a choice."""
        return self._event(answer.index, {}, answer.finish_reason)

    def usage_chunk(self, usage: Usage) -> str:
        """Return the chunk without choices that tells the usage."""
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


def _plain_whole(header: Header, answer: Answer, usage: Usage) -> bytes:
    """Return a whole answer of one plain text, in a third of the time that a model takes."""
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    return (
        _whole_frame(header.system_fingerprint)
        .filled(
            header.id,
            str(header.created),
            quoted(header.model)[1:-1],
            answer.segments[0].text,
            answer.finish_reason,
            str(usage.prompt_tokens),
            str(usage.completion_tokens),
            str(usage.total_tokens),
            str(prompt.cached_tokens),
            str(completion.reasoning_tokens),
        )
        .encode()
    )


@cache
def _whole_frame(system_fingerprint: str) -> Frame:
    numbers = [-1, -2, -3, -4, -5, -6]
    answer = Answer(0, [Segment([SLOT])], "stop", 1)
    completion = ChatCompletion(
        id="<id>",
        created=numbers[0],
        model="<model>",
        choices=[Choice(index=0, message=_message(answer), finish_reason="stop")],
        usage=Usage(
            prompt_tokens=numbers[1],
            completion_tokens=numbers[2],
            total_tokens=numbers[3],
            prompt_tokens_details=PromptTokensDetails(cached_tokens=numbers[4]),
            completion_tokens_details=CompletionTokensDetails(reasoning_tokens=numbers[5]),
        ),
        system_fingerprint=system_fingerprint,
    )
    texts = ("<id>", "-1", "<model>", SLOT, "stop")
    return Frame(completion.model_dump_json(), *texts, *map(str, numbers[1:]))


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
