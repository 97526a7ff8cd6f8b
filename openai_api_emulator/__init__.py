"""An OpenAI endpoint with no model behind it, for tests: the server, and clients that control it.

>>> from openai_api_emulator import Emulator, Server
>>> with Server(ttft_ms=20) as server, Emulator(server.url) as emulator:
...     with emulator.scope() as scope:
...         scope.rules.put("busy", fault={"status": 503}, times=1)
...         models = scope.openai().models.list()
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openai_api_emulator.async_client import AsyncEmulator, AsyncScope
    from openai_api_emulator.calls import EmulatorError
    from openai_api_emulator.client import Emulator, Scope
    from openai_api_emulator.journal import JournalRow
    from openai_api_emulator.running.server import Server, ServerError

__all__ = [
    "AsyncEmulator",
    "AsyncScope",
    "Emulator",
    "EmulatorError",
    "JournalRow",
    "Scope",
    "Server",
    "ServerError",
]

_MODULES = {
    "AsyncEmulator": "async_client",
    "AsyncScope": "async_client",
    "Emulator": "client",
    "EmulatorError": "calls",
    "JournalRow": "journal",
    "Scope": "client",
    "Server": "running.server",
    "ServerError": "running.server",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever it is
    """Import a name when it is first asked for: pytest loads the plugin of every installed package.

    Raises:
        AttributeError: There is no such name.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
