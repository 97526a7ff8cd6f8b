"""POST /v1/embeddings as one object."""

import asyncio
import base64
import json
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from emulator.answers.script import Told
from emulator.apis.embeddings.schema import EmbeddingRequest
from emulator.apis.whole import Made, Piece, WholeAPI
from emulator.contract.errors import APIError
from emulator.embeddings.embedder import Embedder, InputError
from emulator.embeddings.models import most_dimensions
from emulator.emulation.asked import Asked
from emulator.rules.subject import Conversation, TextConversation
from tokenizer import TokenGenerator, count_tokens


class EmbeddingsAPI(WholeAPI[EmbeddingRequest]):
    """Embeddings, after their time to first token."""

    path = "/v1/embeddings"
    body = EmbeddingRequest
    kind: ClassVar = "embeddings"

    def __init__(self, generator: TokenGenerator, fingerprint: str) -> None:
        super().__init__(generator, fingerprint)
        self._embedder = Embedder()
        self._thread = ThreadPoolExecutor(1, "embeddings")

    def conversation(self, request: EmbeddingRequest) -> Conversation:
        """Return a request in the words of rules."""
        texts = [each for each in request.inputs if isinstance(each, str)]
        return TextConversation(texts, answers="vectors")

    def told_items(self, request: EmbeddingRequest, told: Told) -> Sequence[Piece] | None:
        """Return the vectors that a rule tells; None if it tells none.

        Raises:
            APIError: The request asks for vectors of another length.
        """
        numbers = told.embedding
        if numbers is None:
            return None
        if request.dimensions is not None and request.dimensions != len(numbers):
            raise APIError(
                f"Invalid 'dimensions': expected {len(numbers)}, as many as the vector of the rule "
                f"for this request has, but got {request.dimensions} instead.",
                param="dimensions",
                code="invalid_value",
            )
        vector = json.dumps(list(numbers))
        if request.wants_base64:
            packed = struct.pack(f"<{len(numbers)}f", *numbers)
            vector = f'"{base64.b64encode(packed).decode()}"'
        objects = (
            f'{{"object":"embedding","index":{index},"embedding":{vector}}}'
            for index in range(len(request.inputs))
        )
        return [",".join(objects).encode()]

    def items(
        self,
        request: EmbeddingRequest,
        asked: Asked,  # noqa: ARG002
        *,
        counts: bool,  # noqa: ARG002 - the usage tells them
    ) -> Iterator[tuple[bytes, int]]:
        """Yield the vectors of a request, some at a time: a piece of JSON, and its inputs' tokens.

        Raises:
            APIError: There are too many tokens, or ones that do not exist.
        """
        try:
            yield from self._embedder.embed(
                request.inputs,
                request.model,
                dimensions_of(request),
                as_base64=request.wants_base64,
            )
        except InputError as error:
            param = "input" if error.index is None else request.param(error.index)
            raise APIError(str(error), param=param, code=error.code) from None

    def stays(self, request: EmbeddingRequest) -> bool:  # noqa: ARG002
        """Make the vectors of every small request here, in the thread."""
        return True

    async def make(self, request: EmbeddingRequest, asked: Asked) -> Made:
        """Return the vectors of a small request; the thread makes one after the other.

        Raises:
            APIError: There are too many tokens, or ones that do not exist.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self.all_items, request, asked)

    def count(self, request: EmbeddingRequest) -> int:
        """Return how many tokens the inputs have."""
        return sum(
            count_tokens(item, request.model) if isinstance(item, str) else len(item)
            for item in request.inputs
        )

    def light(self, request: EmbeddingRequest) -> EmbeddingRequest:
        """Return a request without what its inputs say."""
        return request.model_copy(update={"input": [""] * len(request.inputs), "emulation": None})

    def around(self, request: EmbeddingRequest, tokens: int, told: Told | None) -> tuple[str, str]:
        """Return what comes before the vectors, as JSON, and what after."""
        figures = (told.usage if told is not None else None) or {}
        prompt = figures.get("prompt_tokens", tokens)
        total = figures.get("total_tokens", prompt)
        usage = f'{{"prompt_tokens":{prompt},"total_tokens":{total}}}'
        model = json.dumps((told and told.model) or request.model)
        after = f'],"model":{model},"usage":{usage}'
        return '{"object":"list","data":[', after

    def note(self, request: EmbeddingRequest, tokens: int) -> str:
        """Return what the log line says of an answer."""
        return (
            f" inputs={len(request.inputs)} prompt_tokens={tokens} "
            f"dimensions={dimensions_of(request)}"
        )


def dimensions_of(request: EmbeddingRequest) -> int:
    """Return how many numbers each vector of a request has."""
    return request.dimensions or most_dimensions(request.model)
