"""POST /v1/moderations as one object."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import ClassVar

from emulator.answers.script import Told
from emulator.apis.moderations.results import categories_of, result_json
from emulator.apis.moderations.schema import OLD_MODEL, OLD_MODELS, Moderated, ModerationRequest
from emulator.apis.whole import WholeAPI
from emulator.contract.error_words import invalid_header
from emulator.contract.moderation import listed
from emulator.emulation.asked import Asked
from emulator.rules.subject import Conversation, TextConversation
from emulator.serving.generation import random_id
from tokenizer import count_tokens

_AT_ONCE = 32  # results, which take about 0.5 ms


class ModerationsAPI(WholeAPI[ModerationRequest]):
    """Moderations, after their time to first token: nothing is flagged but what is asked for."""

    path = "/v1/moderations"
    body = ModerationRequest
    kind: ClassVar = "moderations"

    def check(self, request: ModerationRequest, asked: Asked) -> None:
        """Refuse to flag what the model knows nothing of.

        Raises:
            APIError: It has no such category.
        """
        unknown = listed(asked.emulation.flagged) - {*categories_of(is_old=request.is_old)}
        if unknown:
            raise invalid_header(
                "X-FLAGGED", f"expected categories of {request.model}, but got {min(unknown)}"
            )

    def conversation(self, request: ModerationRequest) -> Conversation:
        """Return a request in the words of rules, which can flag categories by `flagged`."""
        texts = [text for moderated in request.moderated for text in moderated.texts]
        return TextConversation(texts, answers="flags")

    def items(
        self, request: ModerationRequest, asked: Asked, *, counts: bool
    ) -> Iterator[tuple[bytes, int]]:
        """Yield the results, some at a time, with the tokens of their texts if those count."""
        flagged, moderated, comma = listed(asked.emulation.flagged), request.moderated, ""
        while some := list(islice(moderated, _AT_ONCE)):
            results = [result_json(request, each, flagged) for each in some]
            tokens = sum(_tokens(request.model, each) for each in some) if counts else 0
            yield f"{comma}{','.join(results)}".encode(), tokens
            comma = ","

    def stays(self, request: ModerationRequest) -> bool:
        """Tell whether there are few results to make."""
        return request.results <= _AT_ONCE

    def count(self, request: ModerationRequest) -> int:
        """Return how many tokens the texts have."""
        return sum(_tokens(request.model, moderated) for moderated in request.moderated)

    def light(self, request: ModerationRequest) -> ModerationRequest:
        """Return a request without what its inputs say."""
        inputs = [""] * request.results
        return request.model_copy(update={"input": inputs, "emulation": None})

    def around(
        self,
        request: ModerationRequest,
        tokens: int,  # noqa: ARG002
        told: Told | None,
    ) -> tuple[str, str]:
        """Return what comes before the results, as JSON, and what after."""
        model = OLD_MODEL if request.model in OLD_MODELS else request.model
        made_id = random_id("modr-", 32)
        if told is not None:
            made_id, model = told.id or made_id, told.model or model
        return f'{{"id":"{made_id}","model":{json.dumps(model)},"results":[', "]"

    def note(self, request: ModerationRequest, tokens: int) -> str:  # noqa: ARG002
        """Return what the log line says of an answer."""
        return f" inputs={request.results}"


def _tokens(model: str, moderated: Moderated) -> int:
    return sum(count_tokens(text, model) for text in moderated.texts)
