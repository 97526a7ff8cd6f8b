"""The ways of vLLM 0.32: its errors, headers, ids and models."""

import json
import random
import re
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import ValidationError
from pydantic_core import to_json

from emulator.contract.errors import APIError, ErrorBody
from emulator.dialects import vllm_words as words
from emulator.dialects.dialect import Dialect
from emulator.dialects.vllm_requests import SCHEMAS, as_openai, refuse, typed

# The flags of vLLM that change what it answers, without their ``enable-``.
PROMPT_DETAILS = "prompt-tokens-details"
REQUEST_IDS = "request-id-headers"
MAX_OWN_ID = 128  # characters of a client's request id
# The ids that end with it, if it is one that stands in JSON and in a log as it is.
_OWN_IDS = frozenset(("chatcmpl-", "cmpl-"))
_PLAIN_ID = re.compile(rb"[\w.:-]{1,%d}" % MAX_OWN_ID)
_VARY = b"vary: Origin\r\n"
_STARTED = int(time.time())


class VLLM(Dialect):
    """vLLM's ways.

    Args:
        models: The models that are served; the first is meant where a request names none.
        max_model_len: The most tokens of a prompt with its answer.
        flags: What it was started with.
    """

    name: ClassVar = "vllm"
    is_lenient: ClassVar = True
    scores_prompts: ClassVar = True
    version: ClassVar[str | None] = "0.32.0"
    _lacking: ClassVar[frozenset[str]] = frozenset(
        (
            "/v1/embeddings",
            "/v1/moderations",
            "/v1/models/{model}",
            "GET /v1/chat/completions",
            "a body of /health",
        )
    )

    stream_headers: ClassVar[Sequence[tuple[bytes, bytes]]] = ()

    def __init__(self, models: Sequence[str], max_model_len: int, flags: Collection[str]) -> None:
        self.rendering = {"details": PROMPT_DETAILS in flags}
        self._tells_request_ids = REQUEST_IDS in flags
        self._models = models
        self._max_model_len = max_model_len

    def lines(self, request_id: int, elapsed_ms: float, scope: Mapping[str, Any]) -> bytes:  # noqa: ARG002
        """Return what vLLM's middleware adds; the request's id is told by a flag alone."""
        if not self._tells_request_ids:
            return _VARY
        own = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        told = (own or b"%032x" % request_id)[:MAX_OWN_ID]
        return b"%bx-request-id: %b\r\n" % (_VARY, told)

    def lines_of_probes(self, scope: Mapping[str, Any]) -> bytes:
        """Return the headers of an answer without a body: the same."""
        return self.lines(random.getrandbits(128), 0, scope)

    def refuse_head(self, fields: Mapping[bytes, bytes]) -> None:
        """Refuse a body that does not say that it is JSON.

        Raises:
            APIError: It says another type, or none.
        """
        given = fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if given != b"application/json":
            raise words.wrong_media_type()

    def answer_id(self, prefix: str, fields: Mapping[bytes, bytes]) -> str | None:
        """Return an id of 16 digits, or the request's own id behind the prefix."""
        own = fields.get(b"x-request-id")
        if own is not None and prefix in _OWN_IDS and _PLAIN_ID.fullmatch(own):
            return prefix + own.decode()
        return f"{prefix}{random.getrandbits(64):016x}"

    def model_entry(self, name: str) -> dict[str, Any]:
        """Return a model's entry in the list."""
        permission = {
            "id": f"modelperm-{random.getrandbits(64):016x}",
            "object": "model_permission",
            "created": int(time.time()),
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        return {
            "id": name,
            "object": "model",
            "created": _STARTED,
            "owned_by": "vllm",
            "root": name,
            "parent": None,
            "max_model_len": self._max_model_len,
            "permission": [permission],
        }

    def unreadable(self, body: bytes | bytearray, error: APIError) -> APIError:
        """Return what refuses a body that is not JSON, or has too many values."""
        return error if error.body.code else words.unreadable(body)

    def prepared(self, path: str, data: object) -> object:
        """Return the body of a request to an API, as OpenAI would have it.

        Raises:
            APIError: vLLM refuses it.
        """
        if not isinstance(data, dict):
            return data  # the schema refuses it
        if path == "/v1/responses" and data.get("input") is None:
            raise words.missing("input", data)
        is_text = path in SCHEMAS
        if is_text:
            data = typed(path, data)
        name = data.get("model")
        if not name and (name is None or isinstance(name, str)):
            name = self._models[0]
            data = data | {"model": name}
        if isinstance(name, str) and name not in self._models:
            raise words.unknown_model(name, self._models)
        if path == "/v1/responses" and data.get("previous_response_id"):
            raise self.no_response(str(data["previous_response_id"]))
        if not is_text:
            return data
        refuse(path, data, self._max_model_len, data["model"])
        return as_openai(path, data)

    def invalid(self, error: ValidationError, data: object) -> APIError:
        """Return what refuses a body that the schema does not allow."""
        return words.refused_by(error, data)

    def no_response(self, wanted: str) -> APIError:
        """Return what tells that a response is not stored."""
        return words.no_response(wanted)

    def too_long(self, error: APIError, most: int, prompt: int, answer: int) -> APIError:  # noqa: ARG002
        """Return what refuses a prompt and an answer that the context has no room for."""
        start = f"This model's maximum context length is {most} tokens. However, "
        if prompt >= most:
            text = (
                f"your prompt contains at least {most + 1} input tokens, which exceeds this limit "
                "even without any output tokens. Please reduce the length of the input prompt."
            )
            return words.bad_request(start + text, "input_tokens", most + 1)
        text = (
            f"you requested {answer} output tokens and your prompt contains {prompt} input tokens, "
            f"for a total of {prompt + answer} tokens. Please reduce the length of the input "
            "prompt or the number of requested output tokens."
        )
        return words.bad_request(start + text, "input_tokens", prompt)

    def error(self, body: ErrorBody, status: int, *, is_of_route: bool) -> bytes:
        """Return an error as the body of an answer."""
        if is_of_route:
            return _dumped({"detail": "Not Found" if status == 404 else "Method Not Allowed"})
        if status == 401:
            return _dumped({"error": "Unauthorized"})
        return to_json(words.error_body(body, status))


def _dumped(answer: dict[str, str]) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode()
