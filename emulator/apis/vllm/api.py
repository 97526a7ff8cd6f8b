"""What vLLM serves beside OpenAI's API: /version, /ping, /tokenize and /detokenize."""

import json

from emulator.apis.computations import Computation
from emulator.apis.vllm.tokenizing import detokenize, tokenize
from emulator.reading.reader import Reader
from emulator.serving.engine_timing import Startup
from emulator.state import State
from emulator.transport.exchange import Exchange
from emulator.transport.sending import Reply, whole_reply


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
        settings, engine = state.settings, state.engine
        longest = engine.max_model_len if engine else settings.max_output_length
        return "", tokenize(body, settings.models[0], longest)


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
        return "", detokenize(body, state.settings.models[0])


class VersionAndPing:
    """/version and /ping, in vLLM's shapes of version 0.32.

    Args:
        version: The emulator's.
        startup: How long the model loads.
    """

    def __init__(self, version: str, startup: Startup) -> None:
        self._body = json.dumps({"version": version}).encode()
        self._startup = startup

    async def version(self, exchange: Exchange) -> Reply:
        """Answer GET /version."""
        return whole_reply(exchange, self._body)

    async def ping(self, exchange: Exchange) -> Reply:
        """Answer /ping: nothing, with 200, or 503 while the model loads."""
        is_ready = self._startup.is_over(exchange.state.settings)
        return Reply(200 if is_ready else 503, [(b"content-length", b"0")])
