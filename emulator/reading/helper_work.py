"""What a helper does in a worker's place, and how its results travel."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol, overload

from emulator.contract.errors import APIError, ErrorBody
from emulator.engine.prompts import engine_prompts
from emulator.reading.bodies import named_model
from emulator.reading.encodings import decoded, too_large
from emulator.reading.judging import HELPER_S
from emulator.reading.reader import BodyOfTexts, Reader, Ready, Ruling
from emulator.rules.deciding import Decision
from emulator.rules.globs import OverBudgetError
from emulator.rules.scripting import ScriptError
from emulator.rules.subject import Seen
from emulator.state import State


class HelperOrder(NamedTuple):
    """What a worker asks of a helper, beside a body.

    Args:
        path: Which API the request is for.
        given: Its X-* headers.
        counts: Whether the prompt's tokens are wanted even if no usage tells them.
        only_counts: Whether nothing but the prompt's tokens is wanted.
        encoding: How the body is encoded, None for plain JSON.
        seen: What rules look at beside the body.
        decision: What rules decide, if that is known already.
    """

    path: str
    given: Mapping[str, str]
    counts: bool = False
    only_counts: bool = False
    encoding: str | None = None
    seen: Seen | None = None
    decision: Decision | None = None

    @property
    def ruling(self) -> Ruling:
        """What rules need beside the body."""
        return Ruling(self.seen, self.decision, HELPER_S)


class Works(Protocol):
    """What a helper can do for an API."""

    path: str

    def work(
        self, reader: Reader, order: HelperOrder, state: State, body: bytearray
    ) -> Iterator[tuple[object, bytes]]:
        """Yield the results of one order: small plain data, and bytes.

        Raises:
            APIError: The request is refused.
        """


class Refused(NamedTuple):
    """An `APIError` on its way to the worker, and the model that it was for.

    ``rule`` and ``why`` are those of a `ScriptError`.
    """

    status: int
    body: ErrorBody
    headers: Mapping[str, str]
    model: str
    rule: str = ""
    why: str = ""

    def error(self) -> APIError:
        """Return the error."""
        body = self.body
        if self.rule:
            return ScriptError(self.rule, self.why)
        return APIError(
            body.message,
            param=body.param,
            code=body.code,
            status=self.status,
            type=body.type,
            headers=self.headers,
        )


class HelperWork:
    """Does in a helper what would take long in a worker.

    Args:
        apis: What can be done.
        state: The snapshot that counts until `adopt`.
    """

    def __init__(self, apis: Sequence[Works], state: State) -> None:
        self._apis = {api.path: api for api in apis}
        self._state = state
        self.reader = Reader()

    def adopt(self, state: Any) -> None:  # noqa: ANN401 - the pool carries anything
        """Answer by another snapshot from now on."""
        self._state = state

    def __call__(self, order: HelperOrder, body: bytearray) -> Iterator[tuple[object, bytes]]:
        """Yield the results of one order; an error is one of them."""
        try:
            if order.encoding is not None:
                body = self._decoded(body, order.encoding)
            yield from self._apis[order.path].work(self.reader, order, self._state, body)
        except ScriptError as error:
            model = named_model(body)
            yield Refused(error.status, error.body, {}, model, error.rule, error.why), b""
        except APIError as error:
            yield Refused(error.status, error.body, error.headers, named_model(body)), b""
        except OverBudgetError:
            slow = too_slow_rules()
            yield Refused(slow.status, slow.body, slow.headers, named_model(body)), b""

    def _decoded(self, body: bytearray, encoding: str) -> bytearray:
        most = int(self._state.settings.max_body_mb * 1_000_000)
        plain = decoded(body, encoding, most)
        if plain is None:
            raise too_large(most, most + 1)
        return bytearray(plain)

    def fresh(self) -> None:
        """Seed this process's random numbers, so that no other process draws the same."""
        self.reader.corpora.rng.seed()


def texts(
    api: BodyOfTexts, reader: Reader, order: HelperOrder, state: State, body: bytearray
) -> Iterator[tuple[object, bytes]]:
    """Yield a request that is ready, and then the tokens of its prompt, or only those.

    Raises:
        APIError: It is refused.
    """
    read = reader.read(api, order.given, body, state, order.ruling)
    prompt = read.prompt
    if order.only_counts:
        yield prompt.count(), b""
        return
    wants_count = order.decision is None and (order.counts or read.ask.wants_usage)
    ready = reader.compose(read)
    del read
    if state.engine is not None and ready.asked.has_no_timing:
        ready.prompts = engine_prompts(prompt.ids(), state.engine)
    _pack(ready)
    parts, ready.parts = b"".join(ready.parts), ()
    yield ready, parts
    del ready, parts
    yield prompt.count() if wants_count else 0, b""


def too_slow_rules() -> APIError:
    """Refuse a request that rules take too long for."""
    return APIError(
        f"This server's rules take more than {HELPER_S:g} s to match this request, or to answer "
        "it. Expected a shorter request, or simpler rules.",
        code="rules_too_slow",
    )


def _pack(ready: Ready) -> None:
    """Make the answers quick to send, however many tokens they have."""
    for answer in ready.answers:
        if answer.token_slots is not None:
            answer.token_slots = array("Q", answer.token_slots)
        for segment in answer.segments:
            segment.tokens = PackedTokens(segment.tokens)


class PackedTokens(Sequence[str]):
    """Tokens as one text and where each ends."""

    __slots__ = ("_ends", "_text")

    def __init__(self, tokens: Sequence[str]) -> None:
        self._text = "".join(tokens)
        self._ends = array("Q", accumulate(map(len, tokens), initial=0))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._text[self._ends[index] : self._ends[index + 1]]
