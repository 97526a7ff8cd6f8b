"""What BentoML puts around our routes: its errors in OpenAI's envelope, and none of its pages."""

import time

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from emulator.transport.error_answers import handle_error

# Its page at / loads a tracker from another host; the others are what that page shows.
_PAGES = {"index", "static_content", "assets", "openapi-spec"}


def adapt(outer: Starlette, exceptions: ExceptionMiddleware | None) -> None:
    """Adapt BentoML's application when the service starts.

    Args:
        outer: Its application.
        exceptions: Its middleware that answers errors.
    """
    outer.router.redirect_slashes = False
    outer.router.routes[:] = [
        route for route in outer.router.routes if getattr(route, "name", None) not in _PAGES
    ]
    if exceptions is not None:
        exceptions.add_exception_handler(HTTPException, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    """Answer for a route that is not there; leave what probes are told as it is."""
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code in (404, 405):
        request.scope.setdefault("start_s", time.monotonic())
        return await handle_error(request, error)
    return PlainTextResponse(error.detail, error.status_code, error.headers)
