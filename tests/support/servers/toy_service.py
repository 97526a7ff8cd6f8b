"""The service with one more API, whose path answers with the tokens as plain lines."""

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from emulator.answers.answer import Answer, Segment
from emulator.answers.ask import Ask
from emulator.answers.logprobs import Likelihood
from emulator.apis import table
from emulator.apis.api import TextAPI
from emulator.contract.bodies import ModelRequest
from emulator.contract.bounds import Text
from emulator.contract.errors import ErrorBody
from emulator.contract.usage import Usage
from emulator.dialects.dialect import OPENAI, Dialect
from emulator.reading.reader import Reading
from emulator.rendering.renderer import SLOT, AnswerStream, CountUsage, Header, Renderer
from emulator.rendering.streams import stream_events
from emulator.rules.subject import Conversation, TextConversation
from tokenizer import count_tokens, encode


class LinesRequest(ModelRequest):
    """The body: a text, and whether the lines are wanted one by one."""

    prompt: Text
    stream: bool | None = None


class LinesRenderer(Renderer):
    """Writes a token on each line."""

    no_logprobs = "none"

    def whole(self, answers: Sequence[Answer], _: Usage) -> bytes:
        """Return all lines."""
        return "".join(f"{token}\n" for token in answers[0].segments[0].tokens).encode()

    def opening(self, _: Sequence[Answer]) -> str:
        """Announce nothing."""
        return ""

    def stream(self, answers: Sequence[Answer], size: int, _: CountUsage | None) -> AnswerStream:
        """Return what renders the lines as their tokens are due."""
        return stream_events(self, answers, size)

    def preamble(self, _: Answer, __: Segment) -> str:
        """Begin with nothing."""
        return ""

    def token(self, _: Answer, __: Segment) -> str:
        """Return a line."""
        return f"{SLOT}\n"

    def logprobs(self, _: Answer, __: Iterable[Likelihood], ___: int) -> Iterator[str]:
        """Yield nothing: nobody can ask for them."""
        yield from ()

    def finish(self, _: Answer) -> str:
        """End with nothing."""
        return ""

    def end(self, finish: str, _: Usage | None, __: str) -> str:
        """Return the last line."""
        return f"{finish}.\n"

    def error(self, error: ErrorBody, _: str) -> str:
        """Return a line that tells of a failure."""
        return f"! {error.message}\n"


class LinesPrompt:
    """The prompt of one request."""

    def __init__(self, request: LinesRequest) -> None:
        self._request = request
        self.texts = (request.prompt,)

    def count(self) -> int:
        """Return its tokens."""
        return count_tokens(self._request.prompt, self._request.model)

    def ids(self) -> Sequence[Sequence[int]]:
        """Return its token ids."""
        return [encode(self._request.prompt, self._request.model)]


class LinesAPI(TextAPI[LinesRequest]):
    """Tokens as lines."""

    path = "/v1/lines"
    body = LinesRequest
    stream_type: ClassVar = "text/plain"
    whole_type: ClassVar = b"text/plain"

    def read(self, request: LinesRequest, *, lenient: bool, dialect: Dialect = OPENAI) -> Reading:  # noqa: ARG002
        """Return what a request asks."""
        ask = Ask(request.model, stream=bool(request.stream))
        return Reading(ask, LinesPrompt(request), _renderer)

    def conversation(self, request: LinesRequest) -> Conversation:
        """Return a request in the words of rules."""
        return TextConversation([request.prompt])

    def envelope(self, error: ErrorBody) -> bytes:
        """Return an error as a line."""
        return f"! {error.message}\n".encode()


def _renderer(_: Header) -> Renderer:
    return LinesRenderer()


table.APIS.append(LinesAPI)

from service import OpenAIEmulator  # noqa: E402 - it takes the table as it is

__all__ = ["OpenAIEmulator"]
