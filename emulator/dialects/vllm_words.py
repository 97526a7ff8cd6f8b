"""Errors in the words of vLLM 0.32: its own rules', and pydantic's as it tells them."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from emulator.contract.error_words import shown
from emulator.contract.errors import APIError, ErrorBody

MAX_ERRORS_TOLD = 16
RESPONSE_ID = "response_id"  # of which errors have OpenAI's type
BAD_REQUEST = "Bad Request"  # the type where pydantic refused
# The types of vLLM's own errors; what OpenAI alone has is told by the status.
_TYPES = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError"}
_OWN_TYPES = frozenset((*_TYPES.values(), BAD_REQUEST))


def bad_request(message: str, param: str | None = None, value: object = ...) -> APIError:
    """Refuse a parameter by one of vLLM's own rules.

    The parameter stands at the message's end, and its value if there is one to tell.
    """
    if param is not None:
        told = "" if value is ... else f", value={value}"
        message = f"{message} (parameter={param}{told})"
    return APIError(message, param=param, type="BadRequestError")


def unnamed(message: str) -> APIError:
    """Refuse a request by a rule that names no parameter."""
    return APIError(message, type="BadRequestError")


def unknown_model(name: str, models: Sequence[str]) -> APIError:
    """Refuse a model that is not served."""
    aliases = ", ".join(models)
    return APIError(
        f"The model `{shown(name)}` does not exist. Valid aliases: {aliases}.",
        status=404,
        param="model",
        type="NotFoundError",
    )


def no_response(wanted: str) -> APIError:
    """Tell that a response is not stored."""
    return APIError(f"Response with id '{shown(wanted)}' not found.", status=404, param=RESPONSE_ID)


def missing(name: str, data: dict[str, Any]) -> APIError:
    """Refuse a body without a field that it must have."""
    return _one("missing", f"body.{name}", "Field required", _told(data))


def invalid(details: Sequence[ErrorDetails], data: object) -> APIError:
    """Refuse a body that pydantic has refused, for these reasons."""
    faults = [_fault(each, data) for each in details[:MAX_ERRORS_TOLD]]
    noun = "error" if len(faults) == 1 else "errors"
    message = "\n  ".join((f"{len(faults)} validation {noun}:", *map(str, faults)))
    return APIError(message, param=faults[0]["loc"], type=BAD_REQUEST)


def refused_by(error: ValidationError, data: object) -> APIError:
    """Refuse a body as pydantic has, of which a rule of our own may be the reason."""
    details = error.errors(include_url=False)
    ours = next((each for each in details if each["type"] == "refused"), None)
    return invalid(details, data) if ours is None else unnamed(ours["msg"])


def unreadable(body: bytes | bytearray) -> APIError:
    """Refuse a body that is not JSON."""
    if not body:
        return _one("missing", "body", "Field required", "None")
    try:
        json.loads(body)
    except json.JSONDecodeError as error:
        fault = {"error": error.msg}
        place = f"body.{error.pos}"
        return _one("json_invalid", place, "JSON decode error", _told({}), fault)
    except (UnicodeDecodeError, RecursionError):
        pass
    return _one("json_invalid", "body.0", "JSON decode error", _told({}), {"error": "not JSON"})


def wrong_media_type() -> APIError:
    """Refuse a body that does not say that it is JSON."""
    message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
    return APIError(message, type=BAD_REQUEST)


def error_body(body: ErrorBody, status: int) -> dict[str, Any]:
    """Return an error in vLLM's envelope."""
    kind = body.type
    if kind not in _OWN_TYPES and body.param != RESPONSE_ID:
        kind = _TYPES.get(status) or HTTPStatus(status).phrase
    told = {"message": body.message, "type": kind, "param": body.param, "code": status}
    return {"error": told}


def _one(
    kind: str, place: str, message: str, got: str, context: Mapping[str, str] | None = None
) -> APIError:
    fault: dict[str, Any] = {"type": kind, "loc": place, "msg": message, "input": got}
    if context:
        fault["ctx"] = context
    return APIError(f"1 validation error:\n  {fault}", param=place, type=BAD_REQUEST)


def _fault(details: ErrorDetails, data: object) -> dict[str, Any]:
    """Return one fault as vLLM tells it: where it is in the body, and how large the value is."""
    steps = _steps(details, data)
    if details["type"] == "unknown_variant" and isinstance(details["input"], Mapping):
        steps.append(details["ctx"]["key"])
    fault: dict[str, Any] = {
        "type": details["type"],
        "loc": ".".join(("body", *steps)),
        "msg": details["msg"],
        "input": _told(details["input"]),
    }
    if context := details.get("ctx"):
        fault["ctx"] = {key: _told(value) for key, value in context.items()}
    return fault


def _steps(details: ErrorDetails, data: Any) -> list[str]:  # noqa: ANN401 - any JSON
    """Return the keys that lead to a fault, without the names of a union's members."""
    steps: list[str] = []
    *inner, last = details["loc"] or ("",)
    for step in (*inner, last):
        if _has(data, step):
            data = data[step]
        elif step is not last or details["type"] != "missing":
            continue
        steps.append(shown(str(step)))
    return steps


def _has(data: object, step: int | str) -> bool:
    if isinstance(data, Mapping):
        return step in data
    return isinstance(data, list) and isinstance(step, int) and step < len(data)


def _told(value: object) -> Any:  # noqa: ANN401 - a value of JSON
    match value:
        case dict() | list():
            return f"<{type(value).__name__} of {len(value)} items>"
        case None | bool():
            return str(value)
        case str():
            return shown(value)
        case _:
            return value
