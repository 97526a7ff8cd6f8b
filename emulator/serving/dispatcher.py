"""Where requests are read: at once if that takes but a moment, or else by a helper."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request

from emulator.apis.chat.prompt_ids import EnginePrompt
from emulator.apis.embeddings.endpoint import Embeddings
from emulator.contract.error_words import PLACES, overloaded, server_error
from emulator.contract.errors import APIError
from emulator.embeddings.embedder import Embedded
from emulator.emulation.header_fields import given_headers
from emulator.helpers.pool import (
    BusyError,
    FailedError,
    HelperPool,
    Job,
    Lane,
    Pieces,
    TooMuchError,
)
from emulator.helpers.spool import Spool
from emulator.serving.bodies import MAX_BYTES_KEPT, Asked, BodyReader, is_light, named_model
from emulator.serving.counting import MAX_BYTES_COUNTED_INLINE, known
from emulator.serving.preparing import (
    DETOKENIZE,
    EMBEDDINGS,
    INPUT_TOKENS,
    TOKENIZE,
    Given,
    Order,
    Prepared,
    Preparer,
    Refused,
)
from emulator.transport.sending import ended_by_disconnect

T = TypeVar("T")

logger = logging.getLogger("bentoml.openai_emulator")


class Desk:
    """Takes requests, and returns what is left to do for them.

    Args:
        preparer: Reads them.
        reader: Takes their bodies.
        pool: The helpers.
        counts: Whether the tokens of prompts are wanted even if no usage tells them.
    """

    def __init__(
        self, preparer: Preparer, reader: BodyReader, pool: HelperPool, *, counts: bool
    ) -> None:
        self._preparer = preparer
        self._reader = reader
        self._pool = pool
        self._counts = counts
        self._answers: dict[str, Callable[[bytes | bytearray], Any]] = {
            INPUT_TOKENS: preparer.input_tokens,
            TOKENIZE: preparer.tokenize,
            DETOKENIZE: preparer.detokenize,
        }

    async def prepare(self, request: Request, path: str) -> Prepared:
        """Read, plan and compose a request for texts.

        Raises:
            APIError: It is refused, or takes too much, or there is no time for it.
            ClientDisconnect: The client went away.
        """
        body, given = await self._take(request)
        prepared = None
        if is_light(body):
            prepared = self._here(request, body, partial(self._preparer.read, path, given))
            if prepared.is_quick:
                self._preparer.compose(prepared)
                if len(body) > MAX_BYTES_COUNTED_INLINE:
                    prepared.leave_count(Order(path, given, only_counts=True), body)
            else:
                prepared = None
        if prepared is None:
            order = Order(path, given, self._counts, self._preparer.engine is not None)
            job, (prepared, _) = await self._ask(request, order, body)
            prepared.job = job
        _note(request, prepared.request.model, prepared.asked)
        return prepared

    async def _take(self, request: Request) -> tuple[bytes | bytearray | Spool, Given]:
        """Return the body of a request, and its X-* headers."""
        body = await self._reader.read(request)
        try:
            return body, given_headers(request.scope)
        except APIError:
            self._reader.give_up(request)
            raise

    def count(self, prepared: Prepared) -> asyncio.Future[int]:
        """Start to count the tokens of a prompt, or return the count that is under way.

        That of a long one has time, and is left to a helper that nothing else waits for.
        """
        if prepared.again is not None:
            order, body = prepared.again
            try:
                prepared.job = self._pool.submit(order, body, Lane.LATER)
            except BusyError:
                raise overloaded() from None
        elif prepared.count is not None:
            return known(prepared.count())
        return asyncio.ensure_future(_counted(prepared))

    async def prompts(self, request: Request, prepared: Prepared) -> Sequence[EnginePrompt]:
        """Return the prompts of a request as an engine sees them."""
        if prepared.job is None and request.scope["size"] > MAX_BYTES_COUNTED_INLINE:
            return await asyncio.to_thread(self._preparer.engine_prompts, prepared)
        return self._preparer.engine_prompts(prepared)

    async def embeddings(self, request: Request) -> Embeddings:
        """Read a request for embeddings; a helper makes the vectors of a large one.

        Raises:
            APIError: It is refused, or takes too much, or there is no time for it.
            ClientDisconnect: The client went away.
        """
        body, given = await self._take(request)
        if is_light(body):
            read = partial(self._preparer.embeddings, given)
            embedding, asked = self._here(request, body, read)
            found = Embeddings(embedding, asked)
        else:
            job, (result, vectors) = await self._ask(request, Order(EMBEDDINGS, given), body)
            pieces = [*vectors]
            while result is None:
                result, vectors = await _result(request, job)
                pieces += vectors
            embedding, asked, tokens = result
            found = Embeddings(embedding, asked, Embedded(pieces, tokens))
        _note(request, embedding.model, asked)
        return found

    async def answer(self, request: Request, path: str) -> Any:  # noqa: ANN401 - what the path has
        """Return the answer to a request of /tokenize and the like.

        Raises:
            APIError: It is refused, or takes too much, or there is no time for it.
            ClientDisconnect: The client went away.
        """
        body = await self._reader.read(request)
        if len(body) <= MAX_BYTES_COUNTED_INLINE and is_light(body):
            return self._here(request, body, self._answers[path])
        _, (result, _) = await self._ask(request, Order(path, {}), body)
        return result

    def _here(
        self, request: Request, body: bytes | bytearray, read: Callable[[bytes | bytearray], T]
    ) -> T:
        """Read a body at once."""
        self._reader.release(request)
        try:
            return read(body)
        except APIError:
            request.scope["model"] = named_model(body)
            raise

    async def _ask(
        self, request: Request, order: Order, body: bytes | bytearray | Spool
    ) -> tuple[Job, tuple[Any, Pieces]]:
        """Have a helper do it; return its first result."""
        try:
            job = self._pool.submit(
                order, body, Lane.LONG if len(body) > MAX_BYTES_KEPT else Lane.SHORT
            )
        except BusyError:
            self._reader.release(request)
            raise overloaded() from None
        del body
        try:
            return job, await _result(request, job)
        finally:
            self._reader.release(request)


async def _result(request: Request, job: Job) -> tuple[Any, Pieces]:
    """Return the next result of a request's job, which ends when the client goes away.

    Raises:
        APIError: The request is refused, or takes too much, or there is no time for it.
        ClientDisconnect: The client went away.
    """
    try:
        async with ended_by_disconnect(request.receive):
            result, blob = await _next(job)
    except BaseException:
        job.cancel()
        raise
    if isinstance(result, Refused):
        request.scope["model"] = result.model
        raise result.error()
    return result, blob


async def _counted(prepared: Prepared) -> int:
    """Return the tokens of a prompt that a helper counts."""
    if prepared.job is None:
        raise ValueError("no helper is at it")
    try:
        return int((await _next(prepared.job))[0])
    except asyncio.CancelledError:
        prepared.cancel()
        raise


def _note(request: Request, model: str, asked: Asked) -> None:
    """Leave in the request's scope what errors, limits and failures want to know."""
    scope = request.scope
    scope["model"] = model
    scope[PLACES] = asked.places
    if asked.faults is not None:
        scope["fault_headers"] = asked.faults


async def _next(job: Job) -> tuple[Any, Pieces]:
    """Return the next result of a job.

    Raises:
        APIError: It takes too much, or there is no time for it, or it failed.
    """
    try:
        return await job.next()
    except BusyError:
        raise overloaded() from None
    except TooMuchError:
        raise APIError(
            "This request takes more time or memory than the server allows one. "
            "Expected a smaller request or a simpler schema.",
            code="request_too_complex",
        ) from None
    except FailedError as error:
        logger.error("a helper failed\n%s", error)  # noqa: TRY400 - the traceback is the helper's
        raise server_error() from None
