"""Who and what is let in: the guard's verdict as an answer, and the type of a body."""

from emulator.contract.errors import APIError
from emulator.control.guard import Verdict, judge
from emulator.transport.exchange import Exchange


def refuse_strangers(exchange: Exchange) -> None:
    """Refuse who may not control this server.

    Raises:
        APIError: 403, or 401 where a key would open.
    """
    client = exchange.scope.get("client")
    peer = client[0] if client else None
    verdict = judge(peer, exchange.scope["headers"], exchange.state.settings)
    if verdict is Verdict.KEYLESS:
        raise APIError(
            "Control asks for the key of this server's setting 'control_key', as "
            "'Authorization: Bearer KEY'.",
            status=401,
            code="invalid_control_key",
            headers={"www-authenticate": "Bearer"},
        )
    if verdict is not Verdict.PASSES:
        raise APIError(
            "Control is for this machine alone: expected a connection and a Host of loopback, no "
            "header of a proxy and no page of another origin. The setting 'control_key' lets in "
            "who has the key.",
            status=403,
            type="permission_error",
            code="control_is_local",
        )


def refuse_other_types(exchange: Exchange) -> None:
    """Refuse what is not said to be JSON: a form of another page's cannot say so.

    Raises:
        APIError: 415.
    """
    given = exchange.header(b"content-type") or ""
    if given.partition(";")[0].strip().lower() != "application/json":
        shown = f"'{given:.128}'" if given else "none"
        raise APIError(
            f"Expected the content type 'application/json', but got {shown}.",
            status=415,
            param="Content-Type",
            code="unsupported_content_type",
        )
    if exchange.header(b"content-encoding") not in (None, "", "identity"):
        raise APIError(
            "Expected a body that is not encoded.",
            status=415,
            param="Content-Encoding",
            code="unsupported_content_encoding",
        )
