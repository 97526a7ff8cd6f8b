"""How a stream begins: X-HEAD and X-KEEPALIVE-MS."""

from dataclasses import dataclass

from emulator.contract.error_words import invalid_header
from emulator.contract.headers import EmulationHeaders
from emulator.settings import Settings


@dataclass(frozen=True, slots=True)
class Opening:
    """How one stream begins.

    Args:
        holds_head: Whether status and headers wait for the first token.
        keepalive_s: The time between two comments before the first token; 0 for none.
    """

    holds_head: bool
    keepalive_s: float

    @classmethod
    def of(cls, headers: EmulationHeaders, settings: Settings) -> "Opening | None":
        """Return what a request asks for; None for a head at once and no comments.

        Raises:
            APIError: It asks for comments, and for a head that leaves after them.
        """
        head, keepalive_ms = headers.head, headers.keepalive_ms
        if head is None and keepalive_ms is None:
            head, keepalive_ms = settings.head, settings.keepalive_ms
        elif head is None:
            head = settings.head
        elif keepalive_ms is None:
            keepalive_ms = 0 if head == "first-token" else settings.keepalive_ms
        if head == "first-token" and keepalive_ms:
            raise invalid_header(
                "X-KEEPALIVE-MS",
                "expected X-HEAD: accepted beside it, as no comment can leave before the head, "
                "but got first-token",
            )
        if head == "accepted" and not keepalive_ms:
            return None
        return cls(head == "first-token", (keepalive_ms or 0) / 1000)
