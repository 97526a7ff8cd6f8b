"""Serves requests that offer to change to HTTP/2, as Java's HttpClient does on a plain connection.

A server may ignore the offer (RFC 9110, 7.8), but uvicorn's parser takes what follows the headers
for another protocol and loses the body. So the offer is taken out before the parser sees it.
"""

import re

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_OFFER = re.compile(rb"\r\nupgrade:[ \t]*h2c[ \t]*(?=\r\n)", re.IGNORECASE)
_END_OF_HEADERS = b"\r\n\r\n"

_data_received = HttpToolsProtocol.data_received


def without_offer(data: bytes) -> bytes:
    """Return the beginning of a request without the offer to change to HTTP/2."""
    if b"h2c" not in data:
        return data
    head, end, rest = data.partition(_END_OF_HEADERS)
    return _OFFER.sub(b"", head + b"\r\n")[:-2] + end + rest


def ignore_offers() -> None:
    """Make uvicorn's connections of this process take requests without the offer."""

    def data_received(self: HttpToolsProtocol, data: bytes) -> None:
        if self.cycle is None or self.cycle.response_complete:
            data = without_offer(data)
        _data_received(self, data)

    HttpToolsProtocol.data_received = data_received  # type: ignore[method-assign]
