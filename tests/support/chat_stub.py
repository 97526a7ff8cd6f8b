"""An OpenAI-compatible server that is not ours: other whitespace, other line ends, and faults."""

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# What the wire shows of a broken answer: its bytes are cut, or torn, or its connection ends badly.
CUT = ("close", "reset", "stall")
LINGER = (socket.SOL_SOCKET, socket.SO_LINGER)
RESET = struct.pack("ii", 1, 0)  # lingers for 0 s: close() sends RST in place of FIN


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
    arrivals_s: list[float] = field(default_factory=list)

    def next_fault(self) -> str:
        """Return the faults in turn."""
        return self.faults[(len(self.bodies) - 1) % len(self.faults)]


def content(text: str, **fields: object) -> bytes:
    """Return an event with text, with the whitespace that json.dumps puts in."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return event({"choices": [choice], **fields})


def finish() -> bytes:
    """Return the event that says why a stream ended."""
    return event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})


def ending(tokens: int) -> bytes:
    """Return the events that end a stream of so many tokens."""
    return ending_with({"completion_tokens": tokens})


def ending_with(usage: object) -> bytes:
    """Return the events that end a stream, the usage among them."""
    return finish() + event({"choices": [], "usage": usage}) + b"data: [DONE]\r\n\r\n"


def event(chunk: dict[str, Any]) -> bytes:
    """Return an event that holds a chunk."""
    return b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n"


def stream_of(fault: str) -> bytes:
    """Return a stream of four tokens, two in each event, with the named fault."""
    text = b": a comment\r\n\r\n" + content("") + content("two words ") + content("two more")
    limited = {"message": "Try again in 3.1s.", "code": "rate_limit_exceeded"}
    streams = {
        "short": content("one") + ending(1),
        "empty": b"",
        "hang": text,
        "eof": text,
        "no-done": text + finish(),
        "no-finish": text + b"data: [DONE]\r\n\r\n",
        "error": text + event({"error": {"message": "out of memory"}}),
        "rate-limited": text + event({"error": limited}),
        "malformed": text + content("three")[:-9] + b"\r\n\r\n" + ending(4),
        **dict.fromkeys(CUT, text + content("never whole")[:20]),
    }
    return streams.get(fault, text + ending(4))


def answer_of(fault: str) -> bytes:
    """Return a whole answer of one token, with the named fault."""
    message = {"role": "assistant", "content": "one"}
    answer = {"choices": [{"message": message, "finish_reason": "stop"}]}
    usage = {} if fault == "no-usage" else {"usage": {"completion_tokens": 1}}
    body = json.dumps(answer | usage).encode()
    match fault:
        case "empty":
            return b""
        case "malformed":
            return body.replace(b": ", b" ")
        case "eof" | "close" | "reset":
            return body[: len(body) // 2]
        case _:
            return body


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: Stub

    idle_since_s: float | None = None

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.was_idle():
            self.close_connection = True  # as if the request had crossed the close
            return
        self.stub.arrivals_s.append(time.perf_counter())
        self.stub.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.stub.bodies.append(request)
        fault = self.stub.next_fault()
        time.sleep(self.stub.delay_s)
        match fault:
            case "http":
                self.answer(503, "application/json", b'{"error": {"message": "overloaded"}}')
            case "no-answer":
                self.close_connection = True
            case "no-answer-reset":
                self.break_off("reset")
            case _ if request.get("stream"):
                self.stream(fault)
            case "stall":
                self.stub.closing.wait()
            case _:
                more = 1 if fault in CUT else 0
                self.answer(200, "application/json", answer_of(fault), more)
                self.break_off(fault)

    def stream(self, fault: str) -> None:
        """Send a stream: some that break in chunks, as most servers do, all others whole."""
        body = stream_of(fault)
        if fault in (*CUT, "slice"):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            size = 7 if fault == "slice" else len(body)
            for start in range(0, len(body), size):
                piece = body[start : start + size]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                time.sleep(0.0005)
            if fault == "slice":
                self.wfile.write(b"0\r\n\r\n")
            self.break_off(fault)
        else:
            is_open = fault in ("hang", "open-end")
            self.answer(200, "text/event-stream", body, more=is_open)
            if is_open:
                self.stub.closing.wait()

    def break_off(self, fault: str) -> None:
        """End the connection as the fault does, or not at all."""
        if fault == "stall":
            self.stub.closing.wait()
        if fault == "reset":
            self.connection.setsockopt(*LINGER, RESET)
        if fault in CUT:
            self.close_connection = True

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


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        """End a connection: with FIN, or at once where it is to be reset."""
        resets = isinstance(request, socket.socket) and request.getsockopt(*LINGER, 8) == RESET
        if resets:
            self.close_request(request)
        else:
            super().shutdown_request(request)


@contextmanager
def running_stub(
    *faults: str, delay_s: float = 0.0, idle_timeout_s: float = 60.0
) -> Iterator[Stub]:
    """Run the server on a free port; it goes through `faults` request by request.

    They are those of `stream_of` and, for whole answers, of `answer_of`, and ``http``: an error
    instead of an answer; ``no-answer`` and ``no-answer-reset``: a connection that ends before;
    ``hang``: a body that stays open without [DONE]; ``open-end``: one that does so after it;
    ``slice``: a good stream in pieces of 7 bytes. A request on a connection that was idle for
    longer than `idle_timeout_s` finds it closed.
    """
    stub = Stub(faults=faults or ("none",), delay_s=delay_s, idle_timeout_s=idle_timeout_s)
    handler = type("Handler", (_Handler,), {"stub": stub})
    server = _Server(("127.0.0.1", 0), handler)
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
