"""CORS: what a browser has to be told before it lets a page of another origin read an answer."""

from collections.abc import Callable, Sequence

from starlette.types import Message, Scope, Send

from emulator.transport.sending import Reply

ANY = "*"
# Pages of other origins have nothing to do with what is for operators.
OPERATORS_PATHS = frozenset({"/", "/docs", "/metrics", "/livez", "/readyz", "/healthz"})
CONTROL_PATHS = "/emulator"
EXPOSED = (
    "x-request-id",
    "openai-processing-ms",
    "openai-version",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-fault-injected",
    "x-emulation-rules",
    "x-emulation-revision",
)
MAX_AGE_S = 7_200  # browsers remember a preflight's answer no longer

_VARY = (b"vary", b"Origin")


class Cors:
    """Lets pages of some origins, or of any, read answers. Without credentials, as OpenAI.

    Args:
        origins: Returns those that count now, as browsers write them, such as
            ``https://chat.example``; ``*`` for any.
    """

    def __init__(self, origins: Callable[[], Sequence[str]]) -> None:
        self._origins = origins

    def allowed(self, scope: Scope) -> bytes | None:
        """Return the origin to name in the answer; None where there is nothing to say."""
        for name, value in scope["headers"]:
            if name == b"origin":
                if scope["path"] in OPERATORS_PATHS or scope["path"].startswith(CONTROL_PATHS):
                    return None
                origins = self._origins()
                if ANY in origins:
                    return ANY.encode()
                return value if value.decode("latin-1") in origins else None
        return None

    def preflight(self, scope: Scope, origin: bytes) -> Reply | None:
        """Return the answer to a browser's question before the request; None if it is none."""
        asked = dict(scope["headers"])
        if scope["method"] != "OPTIONS" or b"access-control-request-method" not in asked:
            return None
        return Reply(
            204,
            [
                (b"access-control-allow-origin", origin),
                (b"access-control-allow-methods", b"GET, POST, DELETE, OPTIONS"),
                # A star would not stand for Authorization.
                (
                    b"access-control-allow-headers",
                    asked.get(b"access-control-request-headers", b"*"),
                ),
                (b"access-control-max-age", b"%d" % MAX_AGE_S),
                (b"vary", b"Origin, Access-Control-Request-Headers"),
            ],
        )

    def telling(self, send: Send, origin: bytes) -> Send:
        """Return a `send` that adds the headers by which pages of `origin` may read the answer."""
        told = [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", ", ".join(EXPOSED).encode()),
            *([] if origin == ANY.encode() else [_VARY]),
        ]

        async def send_told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *told]}
            await send(message)

        return send_told
