"""JSON and server-sent events of the Responses API."""

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from emulator.answers.answer import Answer, Segment
from emulator.answers.logprobs import Likelihood
from emulator.apis.responses.compaction import compacted
from emulator.apis.responses.echo import Echoed
from emulator.apis.responses.ids import item_id
from emulator.apis.responses.output import (
    NO_LOGPROBS,
    NUMBER,
    OutputItem,
    dumps,
    event,
    output_items,
    raw_event,
)
from emulator.apis.responses.schema.answer import (
    InputTokensDetails,
    OutputTokensDetails,
    ResponseUsage,
)
from emulator.contract.errors import ErrorBody
from emulator.contract.usage import Usage
from emulator.rendering.likelihoods import likelihood_json
from emulator.rendering.renderer import AnswerStream, CountUsage, Header
from emulator.rendering.streams import stream_events

# Log probabilities stand in the deltas and in the last event. Up to so many characters they stand
# in the three events that end the text too.
MAX_LOGPROBS_REPEATED = 1 << 20

# It stands in front of all that is long: a whole answer is written before it is due.
COMPLETED_AT = b'"completed_at":'
BEFORE_COMPLETED_AT = 256


class ResponsesRenderer:
    """Writes one response.

    Args:
        header: Its id, its time and its model.
        echo: What it repeats.
    """

    no_logprobs = NO_LOGPROBS

    def __init__(self, header: Header, echo: Echoed) -> None:
        self._header = header
        self._digits = header.id.partition("_")[2]
        self._encrypted = echo.encrypted
        self._compacts = echo.compacts
        self._echo = echo.json
        self._number = 0
        self._was_cut = False
        self._items: Sequence[OutputItem] = ()
        self._begun = 0  # items; all but the last of them have ended
        self._logprobs: list[str] = []

    def whole(self, answers: Sequence[Answer], usage: Usage) -> bytes | bytearray:
        """Return the whole answer as JSON."""
        answer = self._take(answers)
        if answer.logprobs is not None:
            entries = answer.likelihoods(answer.segments[-1])
            self._logprobs += map(likelihood_json, entries)
        return bytearray(self._ended(usage, ""), "utf-8")

    def opening(self, answers: Sequence[Answer]) -> str:  # noqa: ARG002 - nothing of them
        """Return the events that announce the response: clients take it for accepted by them."""
        fields = f'"response":{self._response("in_progress")}'
        return self.number(
            raw_event("response.created", fields) + raw_event("response.in_progress", fields)
        )

    def stream(
        self,
        answers: Sequence[Answer],
        tokens_per_event: int,
        count_usage: CountUsage | None,  # noqa: ARG002 - the last event alone has a usage
    ) -> AnswerStream:
        """Return what renders the events as their tokens are due."""
        answer = self._take(answers)
        return NumberedStream(stream_events(self, [answer], tokens_per_event), self)

    def number(self, events: str) -> str:
        """Give each event its number; they are numbered in the order in which they leave."""
        parts = events.split(NUMBER)
        first, self._number = self._number, self._number + len(parts) - 1
        if len(parts) == 2:
            return f"{parts[0]}{first}{parts[1]}"
        numbered = zip(parts, map(str, range(first, self._number)), strict=False)
        return "".join(chain.from_iterable(numbered)) + parts[-1]

    def preamble(self, _: Answer, segment: Segment) -> str:
        """Return the events that leave together with a segment's first token."""
        begun = (i for i, item in enumerate(self._items) if item.segment is segment)
        return "".join(map(self._begin, begun))

    def token(self, _: Answer, segment: Segment) -> str:
        """Return the event of one token, with `SLOT` for its text."""
        return next((item.token() for item in self._items if item.segment is segment), "")

    def logprobs(self, _: Answer, entries: Iterable[Likelihood], __: int) -> Iterator[str]:
        """Yield the log probabilities of some tokens as JSON, and keep them for the end."""
        written = list(map(likelihood_json, entries))
        self._logprobs += written
        yield f"[{','.join(written)}]"

    def finish(self, _: Answer) -> str:
        """Return the events that end the items; what generates nothing has none."""
        if not self._items:
            return ""
        last = len(self._items) - 1
        return self._begin(last) + self._items[last].end(self._repeated_logprobs())

    def end(self, finish: str, usage: Usage | None, report: str) -> str:
        """Return what follows the last token: `finish`, the usage and the report if asked for."""
        if usage is None:
            raise ValueError("a response ends with its usage")
        kind = "incomplete" if self._was_cut else "completed"
        fields = f'"response":{self._ended(usage, report)}'
        return self.number(finish + raw_event(f"response.{kind}", fields))

    def error(self, error: ErrorBody, report: str) -> str:
        """Return the events of a failure in mid-stream.

        The fields of the first are flat, as OpenAI documents them, and nested, as it sends them.
        """
        flat = {"code": error.code or error.type, "message": error.message, "param": error.param}
        told = self.number(event("error", **flat, error=error.model_dump()))
        return told + self.failed_event(error, report)

    def failed(self, error: ErrorBody, report: str) -> str:
        """Return the response that says that it failed."""
        told = dumps({"code": error.code or error.type, "message": error.message})
        return _reported(self._response("failed", error=told), report)

    def failed_event(self, error: ErrorBody, report: str) -> str:
        """Return the event that ends a stream with the response that says that it failed."""
        fields = f'"response":{self.failed(error, report)}'
        return self.number(raw_event("response.failed", fields))

    def _take(self, answers: Sequence[Answer]) -> Answer:
        """Make the items of the one answer, and return what the events show of it."""
        [answer] = answers
        self._was_cut = answer.finish_reason == "length"
        if self._compacts:
            answer, item = compacted(answer, self._digits)
            self._items = [item]
            return answer
        self._items = output_items(answer, self._digits, encrypted=self._encrypted)
        return answer

    def _begin(self, upto: int) -> str:
        """Return the events that end the items before `upto` and begin the next."""
        events = ""
        while self._begun <= upto:
            if self._begun:
                events += self._items[self._begun - 1].end("[]")
            events += self._items[self._begun].begin()
            self._begun += 1
        return events

    def _repeated_logprobs(self) -> str:
        """Return the log probabilities for the events that end the text."""
        if sum(map(len, self._logprobs)) > MAX_LOGPROBS_REPEATED:
            return "[]"
        return f"[{','.join(self._logprobs)}]"

    def _ended(self, usage: Usage, report: str) -> str:
        """Return the whole response as JSON."""
        logprobs = f"[{','.join(self._logprobs)}]"
        output = ",".join(item.json(logprobs) for item in self._items)
        details = '{"reason":"max_output_tokens"}' if self._was_cut else "null"
        status = "incomplete" if self._was_cut else "completed"
        spent = _usage(usage).model_dump_json()
        completed = "null" if self._was_cut else str(int(time.time()))
        response = self._response(status, details, output, spent, completed=completed)
        return _reported(response, report)

    def _response(
        self,
        status: str,
        details: str = "null",
        output: str = "",
        usage: str = "null",
        error: str = "null",
        completed: str = "null",
    ) -> str:
        header = self._header
        return (
            f'{{"id":"{header.id}","object":"response","created_at":{header.created},'
            f'"status":"{status}","background":false,"completed_at":{completed},"error":{error},'
            f'"incomplete_details":{details},"output":[{output}],"usage":{usage},{self._echo}'
        )


class CompactedRenderer(ResponsesRenderer):
    """Writes what is left of a conversation, which is never streamed.

    Args:
        header: Its id and its time.
        kept: The content of each message of the user, as JSON.
    """

    def __init__(self, header: Header, kept: Sequence[str]) -> None:
        super().__init__(header, Echoed("", compacts=True))
        self._kept = kept

    def whole(self, answers: Sequence[Answer], usage: Usage) -> bytes | bytearray:
        """Return the whole answer as JSON."""
        self._take(answers)
        header, [item] = self._header, self._items
        messages = (
            f'{{"id":"{item_id("msg_", self._digits, index)}","type":"message",'
            f'"status":"completed","role":"user","content":{content}}}'
            for index, content in enumerate(self._kept, 1)
        )
        return (
            f'{{"id":"{header.id}","object":"response.compaction","created_at":{header.created},'
            f'"output":[{",".join([*messages, item.json("")])}],'
            f'"usage":{_usage(usage).model_dump_json()}}}'
        ).encode()


def stamp_completion(body: bytearray | memoryview) -> None:
    """Set the time at which a whole answer is complete to this moment, if it is complete."""
    start = bytes(body[:BEFORE_COMPLETED_AT]).find(COMPLETED_AT) + len(COMPLETED_AT)
    if bytes(body[start : start + 4]) != b"null":
        body[start : start + 10] = b"%d" % time.time()


class NumberedStream:
    """A stream whose events are numbered in the order in which they leave."""

    def __init__(self, stream: AnswerStream, renderer: ResponsesRenderer) -> None:
        self._render = stream.render
        self._ahead = stream.ahead
        self._number = renderer.number
        self.end = stream.end
        self.stop_before = stream.stop_before
        self.go_on = stream.go_on
        self.departing = stream.departing
        self.may_hold_back = stream.may_hold_back
        self.events = stream.events
        self.tokens_per_event = stream.tokens_per_event
        self.events_per_write = stream.events_per_write
        self.is_quick = stream.is_quick
        self.shares = stream.shares

    def render(self, first: int, upto: int, share: Any) -> str:  # noqa: ANN401 - the stream's own
        """Return a share of the events from `first` to before `upto`."""
        return self._number(self._render(first, upto, share))

    def ahead(self, first: int) -> list[bytes]:
        """Return some events from `first` on, each ready to leave."""
        return [self._number(block.decode()).encode() for block in self._ahead(first)]


def _reported(response: str, report: str) -> str:
    """Put the report, if there is one, into a response."""
    return f'{response[:-1]},"emulation":{report}}}' if report else response


def _usage(usage: Usage) -> ResponseUsage:
    """Return a usage by the names that responses have for it."""
    cached = usage.prompt_tokens_details.cached_tokens
    thoughts = usage.completion_tokens_details.reasoning_tokens
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputTokensDetails(cached_tokens=cached),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=thoughts),
        total_tokens=usage.total_tokens,
    )
