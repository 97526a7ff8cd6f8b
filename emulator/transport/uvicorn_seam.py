"""uvicorn's undocumented parts: the one place that imports them, and looks whether they are there.

`bounded_protocol.py` and `direct_write.py` build on them. Where this version of uvicorn lacks one,
the server starts all the same, on plain ASGI.
"""

import asyncio
import dis
import inspect
import sys
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import uvicorn

try:
    from uvicorn.protocols.http import auto, httptools_impl
    from uvicorn.protocols.http.httptools_impl import (
        STATUS_LINE,
        HttpToolsProtocol,
        RequestResponseCycle,
    )
except ImportError as error:
    IMPORT_ERROR = str(error)
    auto = httptools_impl = None  # type: ignore[assignment]
    STATUS_LINE: Mapping[int, bytes] = {}  # type: ignore[no-redef]

    class HttpToolsProtocol(asyncio.Protocol):  # type: ignore[no-redef]
        """Stands where uvicorn's would."""

    class RequestResponseCycle:  # type: ignore[no-redef]
        """Stands where uvicorn's would."""
else:
    IMPORT_ERROR = ""

__all__ = ["STATUS_LINE", "HttpToolsProtocol", "RequestResponseCycle", "install", "lacking"]

COST = (
    "Answers go through uvicorn's own send, which costs about 30 us more each and half as much "
    "again for each token, and connections have uvicorn's bounds alone."
)

MAX_FRAME_BYTES = 2_000_000  # to unmask and to decode one takes a few ms

# BentoML's own option, which a worker's command line has if the operator has given it.
KEEP_ALIVE_OPTION = "--timeout-keep-alive"

_PROTOCOL = """
    access_log access_logger app connection_lost connection_made connections cycle data_received
    eof_received flow headers loop on_body on_headers_complete on_message_begin on_response_complete
    parser pipeline scope server_state timeout_keep_alive timeout_keep_alive_handler
    timeout_keep_alive_task transport url handle_websocket_upgrade _should_upgrade
    _unset_keepalive_if_required
"""
_CYCLE = """
    access_log body default_headers disconnected flow keep_alive message_event more_body on_response
    receive response_complete response_started scope send transport waiting_for_100_continue
"""


def lacking() -> list[str]:
    """Return the names that are used and that this version of uvicorn does not have."""
    if IMPORT_ERROR:
        return [IMPORT_ERROR]
    used = {HttpToolsProtocol: _PROTOCOL, RequestResponseCycle: _CYCLE}
    return [
        f"{cls.__name__}.{name}"
        for cls, names in used.items()
        for name in sorted(set(names.split()) - _names(cls))
    ]


def _names(cls: type) -> set[str]:
    """Return the names that a class has, or that its methods set."""
    methods = [part for part in vars(cls).values() if isinstance(part, FunctionType)]
    return {
        *dir(cls),
        *(
            step.argval
            for method in methods
            for step in dis.get_instructions(method)
            if step.opname == "STORE_ATTR"
        ),
    }


def install(protocol: type[Any], new_cycle: Callable[..., Any]) -> None:
    """Make the server that is about to start use these in place of uvicorn's own."""
    httptools_impl.RequestResponseCycle = new_cycle  # type: ignore[misc, assignment]
    auto.AutoHTTPProtocol = protocol


def configure(idle_s: float) -> list[str]:
    """Set the bounds of connections in a worker's uvicorn configuration.

    It makes it with BentoML's 5 s after it has imported the service. BentoML's own option wins.

    Args:
        idle_s: How long a connection may be idle between two requests.

    Returns:
        What this version of uvicorn lacks for that.
    """
    bounds: dict[str, object] = {
        "ws_max_size": MAX_FRAME_BYTES,
        "ws_max_queue": 1,
        # What is small as it comes may be large once it is inflated, which takes its time.
        "ws_per_message_deflate": False,
    }
    if not any(word.startswith(KEEP_ALIVE_OPTION) for word in sys.argv):
        bounds["timeout_keep_alive"] = idle_s
    original = getattr(uvicorn, "Config", None)
    has = inspect.signature(original).parameters if original is not None else {}
    known = {name: bound for name, bound in bounds.items() if name in has}

    if original is not None and known:

        class Config(original):  # type: ignore[misc, valid-type]
            def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's own
                super().__init__(*args, **{**kwargs, **known})

        uvicorn.Config = Config  # type: ignore[misc]
    return [f"Config({name}=...)" for name in bounds if name not in has]
