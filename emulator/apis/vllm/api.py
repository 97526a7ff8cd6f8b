"""What vLLM serves beside OpenAI's API: /version, /load, /ping, /tokenize and /detokenize."""

import json

from emulator.apis.computations import Computation
from emulator.apis.vllm.tokenizing import detokenize, tokenize
from emulator.reading.reader import Reader
from emulator.serving.engine_timing import EngineTiming, Startup
from emulator.state import State
from emulator.transport.exchange import Exchange
from emulator.transport.sending import Reply, empty_reply, whole_reply


class TokenizeAPI(Computation):
    """The tokens of a text or a chat."""

    path = "/tokenize"

    def compute(
        self,
        reader: Reader,  # noqa: ARG002
        body: bytes | bytearray,
        state: State,
    ) -> tuple[str, bytes]:
        """Return the answer as JSON; limits have no part in it, so that the model is empty."""
        return "", tokenize(body, state)


class DetokenizeAPI(Computation):
    """The text of tokens."""

    path = "/detokenize"

    def compute(
        self,
        reader: Reader,  # noqa: ARG002
        body: bytes | bytearray,
        state: State,
    ) -> tuple[str, bytes]:
        """Return the answer as JSON; limits have no part in it, so that the model is empty."""
        return "", detokenize(body, state)


def _version(version: str) -> bytes:
    return json.dumps({"version": version}).encode()


class VLLMProbes:
    """/version, /load and /ping, in vLLM's shapes of version 0.32.

    Args:
        version: The emulator's.
        startup: How long the model loads.
        engine: The engine, if there is one.
    """

    def __init__(self, version: str, startup: Startup, engine: EngineTiming | None) -> None:
        self._engine = engine
        self._body = _version(version)
        self._startup = startup

    async def version(self, exchange: Exchange) -> Reply:
        """Answer GET /version."""
        version = exchange.state.dialect.version
        return whole_reply(exchange, self._body if version is None else _version(version))

    async def load(self, exchange: Exchange) -> Reply:
        """Answer GET /load: the sequences of this worker's engine; without one there are none."""
        engine = self._engine
        load = 0 if engine is None else engine.load
        return whole_reply(exchange, json.dumps({"server_load": load}).encode())

    async def ping(self, exchange: Exchange) -> Reply:
        """Answer /ping: nothing, with 200, or 503 while the model loads."""
        is_ready = self._startup.is_over(exchange.state.settings)
        return empty_reply(exchange, 200 if is_ready else 503)
