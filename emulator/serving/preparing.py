"""From a request's bytes to what is left to send: read, checked, planned and composed.

Nothing here waits, or knows of a connection or of the clock. What takes but a moment is done in the
process that keeps the clock, and anything else by a helper, which does the same (`Work`).
"""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import NamedTuple, overload

from emulator.answers.answer import Answer
from emulator.answers.composing import Composer, is_quick
from emulator.answers.corpus import Corpus
from emulator.apis.chat.events import ChatRenderer
from emulator.apis.chat.prompt_ids import (
    EnginePrompt,
    chat_prompt_ids,
    engine_prompts,
    legacy_prompt_ids,
)
from emulator.apis.chat.prompt_tokens import count_chat_prompt, count_legacy_prompt, echoes
from emulator.apis.chat.refusals import refuse_chat, refuse_response
from emulator.apis.chat.request import ChatCompletionRequest
from emulator.apis.completions.events import CompletionRenderer
from emulator.apis.completions.schema import CompletionRequest
from emulator.apis.embeddings.endpoint import embed
from emulator.apis.embeddings.schema import EmbeddingRequest
from emulator.apis.responses.as_chat import to_chat
from emulator.apis.responses.events import Echoed, ResponsesRenderer
from emulator.apis.responses.schema import InputTokensRequest, ResponsesRequest
from emulator.apis.vllm.tokenizing import detokenize, tokenize
from emulator.contract.bodies import GenerationRequest, StreamOptions
from emulator.contract.error_words import placed
from emulator.contract.errors import APIError, ErrorBody
from emulator.embeddings.embedder import Embedder
from emulator.emulation.profiles import Profiles
from emulator.engine.config import EngineConfig
from emulator.helpers.pool import Job
from emulator.serving.bodies import AnyRequest, Asked, named_model, parse_any_body, parse_headers
from emulator.serving.events import Header, Renderer
from emulator.serving.planning import plan_generation
from emulator.settings import Settings
from emulator.timing.plan import GenerationPlan

CHAT = "/v1/chat/completions"
LEGACY = "/v1/completions"
RESPONSES = "/v1/responses"
INPUT_TOKENS = "/v1/responses/input_tokens"
EMBEDDINGS = "/v1/embeddings"
TOKENIZE = "/tokenize"
DETOKENIZE = "/detokenize"

Given = Mapping[str, str]

MAX_TEXT_KEPT = 1024


@dataclass(slots=True)
class Prepared:
    """A request that was read, and what is left of it to send once its answers are composed.

    Args:
        request: Its body, in the words of a chat or a legacy completion; from a helper without
            what was large in it.
        asked: What it asks for beside that.
        plan: How long the answers are, and when they are due.
        renderer: Makes what writes the answers.
        texts: Those of its prompt, which tell it from others with the same seed.
        count: Counts the tokens of its prompt; None where a helper does.
        ids: Makes the token ids of each of its prompts.
        compose: Decides what the choices say.
        answers: What the choices say.
        note: What the log says of how they came about.
        prompts: The prompts as an engine sees them, if the helper has made them.
        again: What has a helper count the tokens of its prompt, where they are many.
        job: The helper's, if one is at it.
    """

    request: GenerationRequest
    asked: Asked
    plan: GenerationPlan
    renderer: Callable[[Header], Renderer]
    texts: Sequence[str]
    count: Callable[[], int] | None
    ids: Callable[[], Sequence[Sequence[int]]] | None
    compose: Callable[[Composer], list[Answer]] | None
    answers: Sequence[Answer] = ()
    note: str = ""
    prompts: Sequence[EnginePrompt] = ()
    again: "tuple[Order, bytes | bytearray] | None" = None
    job: Job | None = None

    @property
    def is_quick(self) -> bool:
        """Whether to compose the answers takes but a moment."""
        return is_quick(self.request, self.plan, self.asked.emulation.tool_calls)

    def leave_count(self, order: "Order", body: bytes | bytearray) -> None:
        """Leave it to a helper to count the tokens of the prompt, and let go of its text."""
        self.again = order, body
        self.count = None
        self.lighten()

    def lighten(self) -> None:
        """Let go of what is large and done with, once the answers are composed.

        ``ids`` stay, for an engine.
        """
        self.request = lightened(self.request)
        self.texts, self.compose = (), None

    def cancel(self) -> None:
        """Give up what a helper is still at."""
        if self.job is not None:
            self.job.cancel()


class Preparer:
    """Reads requests, and composes their answers; the same in a worker and in its helpers."""

    def __init__(
        self, settings: Settings, profiles: Profiles | None, engine: EngineConfig | None
    ) -> None:
        self._settings = settings
        self._profiles = profiles
        self.engine = engine
        self.corpus = Corpus()
        self._readers = {CHAT: self._chat, LEGACY: self._legacy, RESPONSES: self._response}

    def parse(self, body: bytes | bytearray, model: type[AnyRequest]) -> AnyRequest:
        """Read and check a body.

        Raises:
            APIError: Not JSON, not what the schema asks for, or for a model that does not exist.
        """
        settings = self._settings
        parsed = parse_any_body(body, model, strict=settings.strict_parameters)
        served = parsed.served_model
        if settings.strict_models and served is not None and served not in settings.models:
            raise APIError(
                f"The model `{served}` does not exist or you do not have access to it.",
                status=404,
                code="model_not_found",
            )
        return parsed

    def read(self, path: str, given: Given, body: bytes | bytearray) -> Prepared:
        """Read a request for texts, and plan its answers.

        Args:
            path: Which API it is for.
            given: Its X-* headers.
            body: Its body.

        Raises:
            APIError: It is refused.
        """
        prepared = self._readers[path](given, body)
        if self.engine is None:
            prepared.ids = None
        return prepared

    def compose(self, prepared: Prepared) -> None:
        """Compose the answers of a request that was read.

        Raises:
            APIError: Nothing satisfies a schema, or all choices together have too many tokens.
        """
        if prepared.compose is None:
            raise ValueError("the answers are composed")
        composer = Composer(prepared.request, prepared.plan, self.corpus, prepared.texts)
        answers = prepared.answers = prepared.compose(composer)
        prepared.note = composer.note
        prepared.plan = prepared.plan.timed_as(max([answer.slots for answer in answers]))

    def engine_prompts(self, prepared: Prepared) -> Sequence[EnginePrompt]:
        """Return the prompts of a request as the engine sees them."""
        if self.engine is None or prepared.ids is None:
            return prepared.prompts
        return engine_prompts(prepared.ids(), self.engine)

    def embeddings(self, given: Given, body: bytes | bytearray) -> tuple[EmbeddingRequest, Asked]:
        """Read a request for embeddings.

        Raises:
            APIError: It is refused.
        """
        embedding = self.parse(body, EmbeddingRequest)
        return embedding, parse_headers(given, embedding, self._profiles)

    def input_tokens(self, body: bytes | bytearray) -> tuple[str, int]:
        """Return the model of a Responses request, and how many tokens its prompt has.

        Raises:
            APIError: It is refused.
        """
        chat = to_chat(self.parse(body, InputTokensRequest))
        return chat.model, count_chat_prompt(chat, chat.prompt())

    def tokenize(self, body: bytes | bytearray) -> bytes:
        """Return what vLLM's /tokenize answers, as JSON.

        Raises:
            APIError: It is refused.
        """
        longest = self.engine.max_model_len if self.engine else self._settings.max_output_length
        return tokenize(body, self._settings.models[0], longest)

    def detokenize(self, body: bytes | bytearray) -> bytes:
        """Return what vLLM's /detokenize answers, as JSON.

        Raises:
            APIError: It is refused.
        """
        return detokenize(body, self._settings.models[0])

    def _plan(self, request: GenerationRequest, asked: Asked) -> GenerationPlan:
        try:
            return plan_generation(request, asked.emulation, self._settings)
        except APIError as error:
            raise placed(error, asked.places) from None

    def _chat(self, given: Given, body: bytes | bytearray) -> Prepared:
        chat = self.parse(body, ChatCompletionRequest)
        asked = parse_headers(given, chat, self._profiles)
        prompt = chat.prompt()
        if not self._settings.lenient:
            refuse_chat(chat, prompt)
        return Prepared(
            chat,
            asked,
            self._plan(chat, asked),
            partial(ChatRenderer, include_usage=chat.include_usage),
            prompt.texts,
            partial(count_chat_prompt, chat, prompt),
            lambda: [chat_prompt_ids(chat)],
            lambda composer: composer.chat(chat, asked.emulation.tool_calls),
        )

    def _legacy(self, given: Given, body: bytes | bytearray) -> Prepared:
        legacy = self.parse(body, CompletionRequest)
        asked = parse_headers(given, legacy, self._profiles)
        return Prepared(
            legacy,
            asked,
            self._plan(legacy, asked),
            partial(CompletionRenderer, echoes=echoes(legacy), include_usage=legacy.include_usage),
            legacy.texts,
            partial(count_legacy_prompt, legacy),
            partial(legacy_prompt_ids, legacy),
            lambda composer: composer.legacy(legacy),
        )

    def _response(self, given: Given, body: bytes | bytearray) -> Prepared:
        """Read a Responses request as the chat that asks for the same, in other words."""
        request = self.parse(body, ResponsesRequest)
        asked = parse_headers(given, request, self._profiles)
        chat = to_chat(request)
        if not self._settings.lenient:
            refuse_response(request, chat)
        prompt = chat.prompt()
        return Prepared(
            chat,
            asked,
            self._plan(chat, asked),
            partial(ResponsesRenderer, echo=Echoed.of(request)),
            prompt.texts,
            partial(count_chat_prompt, chat, prompt),
            lambda: [chat_prompt_ids(chat)],
            lambda composer: composer.chat(chat, asked.emulation.tool_calls),
        )


# --------------------------------------------------------------------------------------
# In a helper
# --------------------------------------------------------------------------------------


class Order(NamedTuple):
    """What a worker asks of a helper, beside a body.

    Args:
        path: Which API the request is for.
        given: Its X-* headers.
        counts: Whether the prompt's tokens are wanted even if no usage tells them.
        times: Whether an engine makes the times of requests that say nothing of them.
        only_counts: Whether nothing but the prompt's tokens is wanted.
    """

    path: str
    given: Given
    counts: bool = False
    times: bool = False
    only_counts: bool = False


class Refused(NamedTuple):
    """An `APIError` on its way to the worker, and the model that it was for."""

    status: int
    body: ErrorBody
    headers: Mapping[str, str]
    model: str

    def error(self) -> APIError:
        """Return the error."""
        body = self.body
        return APIError(
            body.message,
            param=body.param,
            code=body.code,
            status=self.status,
            type=body.type,
            headers=self.headers,
        )


class PackedTokens(Sequence[str]):
    """Tokens as one text and where each ends: quick to send, however many there are."""

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


class Work:
    """Does in a helper what would take long in a worker."""

    def __init__(self, preparer: Preparer) -> None:
        self._preparer = preparer
        self._embedder = Embedder()
        self._simple: dict[str, Callable[[bytearray], object]] = {
            INPUT_TOKENS: preparer.input_tokens,
            TOKENIZE: preparer.tokenize,
            DETOKENIZE: preparer.detokenize,
        }

    def __call__(self, order: Order, body: bytearray) -> Iterator[tuple[object, bytes]]:
        """Yield the results of one order; an error is one of them."""
        try:
            if order.path in self._simple:
                yield self._simple[order.path](body), b""
            elif order.path == EMBEDDINGS:
                yield from self._embed(order, body)
            else:
                yield from self._generation(order, body)
        except APIError as error:
            yield Refused(error.status, error.body, error.headers, named_model(body)), b""

    def fresh(self) -> None:
        """Make what is random in this process unlike that in any other."""
        self._preparer.corpus.rng.seed()

    def _generation(self, order: Order, body: bytearray) -> Iterator[tuple[object, bytes]]:
        """Yield what is left to send, and then the tokens of the prompt, or only those."""
        prepared = self._preparer.read(order.path, order.given, body)
        if order.only_counts and prepared.count is not None:
            yield prepared.count(), b""
            return
        self._preparer.compose(prepared)
        if order.times and prepared.asked.says_no_time:
            prepared.prompts = self._preparer.engine_prompts(prepared)
        wanted = order.counts or prepared.request.wants_usage
        count = prepared.count if wanted else None
        _pack(prepared)
        yield prepared, b""
        yield 0 if count is None else count(), b""

    def _embed(self, order: Order, body: bytearray) -> Iterator[tuple[object, bytes]]:
        """Yield the vectors piece by piece, which together are large, and then what they are of."""
        embedding, asked = self._preparer.embeddings(order.given, body)
        tokens = 0
        for piece, counted in embed(self._embedder, embedding):
            tokens += counted
            yield None, piece
        light = lightened(embedding).model_copy(update={"input": [""] * len(embedding.inputs)})
        yield (light, asked, tokens), b""


def _pack(prepared: Prepared) -> None:
    """Leave out of it what is large and done with, and make the rest quick to send."""
    prepared.lighten()
    prepared.count, prepared.ids = None, None
    for answer in prepared.answers:
        if answer.leaves is not None:
            answer.leaves = array("Q", answer.leaves)
        for segment in answer.segments:
            segment.tokens = PackedTokens(segment.tokens)


_LIGHT = (type(None), bool, int, float)


def lightened(request: AnyRequest) -> AnyRequest:
    """Return a request of which only the numbers, the options and short texts are left."""
    heavy = {
        name: _emptied(value)
        for name, value in request
        if not isinstance(value, (*_LIGHT, StreamOptions))
        and not (isinstance(value, str) and len(value) <= MAX_TEXT_KEPT)
    }
    return request.model_copy(update=heavy)


def _emptied(value: object) -> object:
    """Return a value without its content; a sequence keeps its length, which tells of choices."""
    return ("",) * len(value) if isinstance(value, tuple) else None
