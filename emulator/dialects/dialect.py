"""What differs between servers that speak OpenAI's API: OpenAI's own ways, and what may differ."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import ValidationError

from emulator.contract.error_words import request_error
from emulator.contract.errors import APIError, ErrorBody

_LINES = b"x-request-id: req_%032x\r\nopenai-processing-ms: %d\r\nopenai-version: 2020-10-01\r\n"


class Dialect:
    """OpenAI's ways; another dialect overrides what it does in another way.

    ``name`` is the setting's value and chooses the renderers of an API. With ``is_lenient``
    requests are taken that OpenAI refuses though each parameter is valid. With ``scores_prompts``
    log probabilities of prompts are told. ``version`` is what
    GET /version tells, None for the emulator's own. ``rendering`` are arguments of the renderers,
    ``stream_headers`` the headers that streams alone have.
    """

    name: ClassVar = "openai"
    is_lenient: ClassVar = False
    scores_prompts: ClassVar = False
    rendering: Mapping[str, Any] = {}
    version: ClassVar[str | None] = None
    stream_headers: ClassVar[Sequence[tuple[bytes, bytes]]] = (
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
    )
    _lacking: ClassVar[frozenset[str]] = frozenset(("/v1/messages",))

    def lines(
        self,
        request_id: int,
        elapsed_ms: float,
        scope: Mapping[str, Any],  # noqa: ARG002
    ) -> bytes:
        """Return the headers of every answer to a request, as ready lines."""
        return _LINES % (request_id, elapsed_ms)

    def lines_of_probes(self, scope: Mapping[str, Any]) -> bytes:  # noqa: ARG002
        """Return the headers of an answer without a body, as ready lines."""
        return b""

    def refuse_head(self, fields: Mapping[bytes, bytes]) -> None:
        """Refuse a request by its headers.

        Raises:
            APIError: It is refused.
        """

    def answer_id(self, prefix: str, fields: Mapping[bytes, bytes]) -> str | None:  # noqa: ARG002
        """Return the id of an answer; None for one of the API's own form."""
        return None

    def lacks(self, what: str) -> bool:
        """Tell whether the server does not have something that OpenAI or the emulator has."""
        return what in self._lacking

    def model_entry(self, name: str) -> dict[str, Any] | None:  # noqa: ARG002
        """Return a model's entry in the list; None for OpenAI's."""
        return None

    # ----------------------------------------------------------------------------------
    # Bodies
    # ----------------------------------------------------------------------------------

    def unreadable(self, body: bytes | bytearray, error: APIError) -> APIError:  # noqa: ARG002
        """Return what refuses a body that is not JSON."""
        return error

    def prepared(self, path: str, data: object) -> object:  # noqa: ARG002
        """Return the body of a request to an API, as OpenAI would have it.

        Raises:
            APIError: The server refuses it, by a rule that OpenAI does not have.
        """
        return data

    def invalid(self, error: ValidationError, data: object) -> APIError:  # noqa: ARG002
        """Return what refuses a body that the schema does not allow."""
        return request_error(error)

    # ----------------------------------------------------------------------------------
    # Errors
    # ----------------------------------------------------------------------------------

    def no_response(self, wanted: str) -> APIError:
        """Return what tells that a response is not stored."""
        return APIError(f"Response with id '{wanted}' not found.", status=404)

    def too_long(self, error: APIError, most: int, prompt: int, answer: int) -> APIError:  # noqa: ARG002
        """Return what refuses a prompt and an answer that the context has no room for."""
        return error

    def error(self, body: ErrorBody, status: int, *, is_of_route: bool) -> bytes | None:  # noqa: ARG002
        """Return an error as the body of an answer; None for the API's own envelope."""
        return None


OPENAI = Dialect()
