"""Requests for embeddings: their vectors, made here or by a helper."""

import base64
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from emulator.answers.ask import Ask
from emulator.answers.script import Told
from emulator.apis.embeddings.schema import EmbeddingRequest
from emulator.contract.errors import APIError
from emulator.embeddings.embedder import Embedded, Embedder, InputError
from emulator.embeddings.models import most_dimensions
from emulator.emulation.asked import Asked
from emulator.reading.counting import PromptCount
from emulator.rules.deciding import NOTHING, Decision, Undecided
from emulator.timing.plan import GenerationPlan
from tokenizer import count_tokens


@dataclass(slots=True)
class ReadyEmbeddings:
    """A request for embeddings that was read.

    Args:
        request: The body; from a helper without the texts of its inputs.
        ask: What was asked, in the words of all APIs.
        asked: The X-* headers.
        plan: When the answer is due: as the one token of a generation.
        count: The count of the inputs' tokens.
        embedded: The vectors, if a helper has made them.
        decision: What rules decide.
        undecided: What is known for another decision, if rules have to be counted first.
        plain: What was asked before rules decided something.
        told: What a rule tells in place of what is true.
    """

    request: EmbeddingRequest
    ask: Ask
    asked: Asked
    plan: GenerationPlan
    count: PromptCount
    embedded: Embedded | None = None
    token_limit: int | None = None
    planned_tokens: int = 0
    decision: Decision = NOTHING
    undecided: Undecided | None = None
    plain: Asked | None = None
    told: Told | None = None

    def give_up(self) -> None:
        """Give up a count that is under way."""
        self.count.cancel()


def count_inputs(request: EmbeddingRequest) -> int:
    """Return how many tokens the inputs have."""
    return sum(
        count_tokens(item, request.model) if isinstance(item, str) else len(item)
        for item in request.inputs
    )


def embed(embedder: Embedder, asked: EmbeddingRequest) -> Iterator[tuple[bytes, int]]:
    """Yield the vectors of a request, some at a time: a piece of JSON, and its inputs' tokens.

    Raises:
        APIError: There are too many tokens, or ones that do not exist.
    """
    try:
        yield from embedder.embed(
            asked.inputs, asked.model, dimensions_of(asked), as_base64=asked.wants_base64
        )
    except InputError as error:
        param = "input" if error.index is None else asked.param(error.index)
        raise APIError(str(error), param=param, code=error.code) from None


def embed_all(embedder: Embedder, asked: EmbeddingRequest) -> Embedded:
    """Return the vectors of a request.

    Raises:
        APIError: There are too many tokens, or ones that do not exist.
    """
    pieces, tokens = zip(*embed(embedder, asked), strict=True)
    return Embedded(pieces, sum(tokens))


def told_vectors(asked: EmbeddingRequest, told: Told) -> Sequence[bytes] | None:
    """Return the vectors that a rule tells, as JSON; None if it tells none.

    Raises:
        APIError: The request asks for vectors of another length.
    """
    numbers = told.embedding
    if numbers is None:
        return None
    if asked.dimensions is not None and asked.dimensions != len(numbers):
        raise APIError(
            f"Invalid 'dimensions': expected {len(numbers)}, as many as the vector of the rule for "
            f"this request has, but got {asked.dimensions} instead.",
            param="dimensions",
            code="invalid_value",
        )
    vector = json.dumps(list(numbers))
    if asked.wants_base64:
        packed = struct.pack(f"<{len(numbers)}f", *numbers)
        vector = f'"{base64.b64encode(packed).decode()}"'
    objects = (
        f'{{"object":"embedding","index":{index},"embedding":{vector}}}'
        for index in range(len(asked.inputs))
    )
    return [",".join(objects).encode()]


def dimensions_of(asked: EmbeddingRequest) -> int:
    """Return how many numbers each vector of a request has."""
    return asked.dimensions or most_dimensions(asked.model)
