"""An OpenAI-compatible server that is not ours: other whitespace, other line ends, and faults."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Stub:
    """What the server does with a request, and what it has seen."""

    url: str = ""
    closing: threading.Event = field(default_factory=threading.Event)
    faults: tuple[str, ...] = ("none",)
    delay_s: float = 0.0
    idle_timeout_s: float = 60.0
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def next_fault(self) -> str:
        """Return the faults in turn."""
        return self.faults[(len(self.bodies) - 1) % len(self.faults)]


def content(text: str, **fields: object) -> bytes:
    """Return an event with text, with the whitespace that json.dumps puts in."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return event({"choices": [choice], **fields})


def ending(tokens: int) -> bytes:
    """Return the events that end a stream of so many tokens."""
    return ending_with({"completion_tokens": tokens})


def ending_with(usage: object) -> bytes:
    """Return the events that end a stream, the usage among them."""
    finish = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return event(finish) + event({"choices": [], "usage": usage}) + b"data: [DONE]\r\n\r\n"


def event(chunk: dict[str, Any]) -> bytes:
    """Return an event that holds a chunk."""
    return b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n"


def stream_of(fault: str) -> bytes:
    """Return a stream of four tokens, two in each event, with the named fault."""
    text = b": a comment\r\n\r\n" + content("") + content("two words ") + content("two more")
    match fault:
        case "short":
            return content("one") + ending(1)
        case "no-done":
            return text
        case "error":
            return text + event({"error": {"message": "out of memory"}})
        case _:
            return text + ending(4)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: Stub

    idle_since_s: float | None = None

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.was_idle():
            self.close_connection = True  # as if the request had crossed the close
            return
        self.stub.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.stub.bodies.append(json.loads(body))
        fault = self.stub.next_fault()
        time.sleep(self.stub.delay_s)
        match fault:
            case "http":
                self.answer(503, "application/json", b'{"error": {"message": "overloaded"}}')
            case "no-usage" if not self.stub.bodies[-1].get("stream"):
                message = {"choices": [{"message": {"role": "assistant", "content": "one"}}]}
                self.answer(200, "application/json", json.dumps(message).encode())
            case "hang" | "open-end":
                stream = stream_of("no-done" if fault == "hang" else "none")
                self.answer(200, "text/event-stream", stream, more=1)
                self.stub.closing.wait()
            case _:
                self.answer(200, "text/event-stream", stream_of(fault))

    def answer(self, status: int, kind: str, body: bytes, more: int = 0) -> None:
        """Send an answer that lacks the last `more` bytes it has announced."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) + more))
        self.end_headers()
        self.wfile.write(body)

    def was_idle(self) -> bool:
        """Return whether the connection was idle for too long before this request."""
        before_s, self.idle_since_s = self.idle_since_s, time.monotonic()
        return before_s is not None and time.monotonic() - before_s > self.stub.idle_timeout_s

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def running_stub(
    *faults: str, delay_s: float = 0.0, idle_timeout_s: float = 60.0
) -> Iterator[Stub]:
    """Run the server on a free port; it goes through `faults` request by request.

    They are those of `stream_of`, and ``http``: an error instead of an answer; ``no-usage``: none
    in a whole answer; ``hang``: a body that stays open without [DONE]; ``open-end``: one that does
    so after it. A request on a connection that was idle for longer than `idle_timeout_s` finds it
    closed.
    """
    stub = Stub(faults=faults or ("none",), delay_s=delay_s, idle_timeout_s=idle_timeout_s)
    handler = type("Handler", (_Handler,), {"stub": stub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield stub
    finally:
        stub.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
