"""Endpoints that answer at once with what they compute of a body."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from emulator.reading.dispatcher import Dispatcher
from emulator.reading.helper_work import HelperOrder
from emulator.reading.reader import Reader
from emulator.serving.limiting import Limiter
from emulator.state import State
from emulator.transport.exchange import Exchange
from emulator.transport.sending import Reply, whole_reply


class Computation(ABC):
    """One such endpoint, of POST requests."""

    path: str

    @abstractmethod
    def compute(self, reader: Reader, body: bytes | bytearray, state: State) -> tuple[str, bytes]:
        """Return the model that a body is for, and the answer as JSON.

        Raises:
            APIError: The request is refused.
        """

    def work(
        self,
        reader: Reader,
        order: HelperOrder,  # noqa: ARG002 - nothing of it counts
        state: State,
        body: bytearray,
    ) -> Iterator[tuple[object, bytes]]:
        """Do it in a helper."""
        yield self.compute(reader, body, state), b""

    async def answer(self, exchange: Exchange, dispatcher: Dispatcher, limiter: Limiter) -> Reply:
        """Answer one request; it takes nothing from limits, and tells what they leave to a model.

        Raises:
            APIError: It is refused, or takes too much, or there is no time for it.
            ClientDisconnect: The client went away.
        """
        exchange.model, body = await dispatcher.compute(exchange, self)
        if exchange.model:
            await limiter.look(exchange)
        return whole_reply(exchange, body)
