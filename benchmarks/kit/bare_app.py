"""A bare ASGI app that writes the emulator's bytes: what the emulator is measured beside.

It parses nothing but three headers, makes no ids, counts no tokens, keeps no metrics and paces with
`asyncio.sleep`.
"""

import asyncio
from time import monotonic

from starlette.types import Receive, Scope, Send

EVENTS_PER_WRITE = 256  # without an ITL, when all tokens are due at once
_CHUNK = (
    b'data: {"id":"chatcmpl-ABCDEFGHIJKLMNOPQRSTUVWXYZabc","object":"chat.completion.chunk",'
    b'"created":1700000000,"model":"gpt-4o","service_tier":"default",'
    b'"system_fingerprint":"fp_0123456789","choices":[{"index":0,"delta":%s,"logprobs":null,'
    b'"finish_reason":%s}]}\n\n'
)
ROLE = _CHUNK % (b'{"role":"assistant","content":"","refusal":null}', b"null")
TOKEN = _CHUNK % (b'{"content":" token"}', b"null")
END = _CHUNK % (b"{}", b'"stop"') + b"data: [DONE]\n\n"
_ANSWER = (
    b'{"id":"chatcmpl-ABCDEFGHIJKLMNOPQRSTUVWXYZabc","object":"chat.completion",'
    b'"created":1700000000,"model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"%s","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":20,"total_tokens":30,'
    b'"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":'
    b'{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,'
    b'"rejected_prediction_tokens":0}},"service_tier":"default",'
    b'"system_fingerprint":"fp_0123456789"}'
)
_OPENAI_HEADERS = [
    (b"x-request-id", b"req_0123456789abcdef0123456789abcdef"),
    (b"openai-processing-ms", b"0"),
    (b"openai-version", b"2020-10-01"),
]
STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
    *_OPENAI_HEADERS,
]


def response_head() -> bytes:
    """Return the head of a streamed answer, for servers that write HTTP themselves."""
    lines = [b"%s: %s\r\n" % header for header in STREAM_HEADERS]
    return b"HTTP/1.1 200 OK\r\n%stransfer-encoding: chunked\r\n\r\n" % b"".join(lines)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer any request."""
    start_s = monotonic()
    if scope["type"] != "http":
        return
    headers = dict(scope["headers"])
    body = await read_body(receive)
    if b'"stream": true' in body:
        await stream(headers, start_s, send)
    else:
        await answer(headers, send)


async def read_body(receive: Receive) -> bytes:
    """Return the request's body."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body)
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def answer(headers: dict[bytes, bytes], send: Send) -> None:
    """Send a whole answer at once."""
    body = _ANSWER % (b" token" * int(headers.get(b"x-output-length", b"20")))
    length = (b"content-length", str(len(body)).encode())
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"application/json"), length, *_OPENAI_HEADERS],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def stream(headers: dict[bytes, bytes], start_s: float, send: Send) -> None:
    """Send each token when it is due, in a write of its own if there is an ITL."""
    tokens = int(headers[b"x-output-length"])
    first_s = start_s + float(headers[b"x-ttft-ms"]) / 1000
    itl_s = float(headers[b"x-itl-ms"]) / 1000
    together = 1 if itl_s else EVENTS_PER_WRITE
    await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
    lead = ROLE
    for sent in range(0, tokens, together):
        await asyncio.sleep(first_s + sent * itl_s - monotonic())
        body = lead + TOKEN * min(together, tokens - sent)
        await send({"type": "http.response.body", "body": body, "more_body": True})
        lead = b""
    await send({"type": "http.response.body", "body": END, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
