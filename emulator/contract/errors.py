"""What went wrong, in OpenAI's envelope."""

from collections.abc import Mapping

from pydantic import BaseModel
from pydantic_core import PydanticCustomError


class ErrorBody(BaseModel):
    """What went wrong, in OpenAI's words."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorBody


class APIError(Exception):
    """A failure that the client is told about, as OpenAI would tell it.

    Args:
        message: What was expected and what came.
        param: The path of the faulty field, such as ``messages[0].role``, or a header's name.
        code: OpenAI's machine-readable code.
        status: The HTTP status.
        type: OpenAI's error class.
        headers: Headers of the answer.
    """

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        type: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.body = ErrorBody(message=message, type=type, param=param, code=code)


def refusal(message: str, code: str = "", param: str = "") -> PydanticCustomError:
    """Reject a value with a message of our own; `param` is appended to the value's path."""
    context = {"message": message, "code": code, "param": param}
    return PydanticCustomError("refused", "{message}", context)
