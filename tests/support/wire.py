"""Requests, and a client that notes when each block of an answer arrives.

The client speaks HTTP/1.1 on a bare transport. It shows what left the server in one write (each
write is one chunk of the transfer encoding), and keeps up with hundreds of streams.
"""

import asyncio
import gc
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any

import tiktoken

CHAT_PATH = "/v1/chat/completions"
DONE = "[DONE]"
ANSWER_TIMEOUT_S = 60.0

ENCODINGS = {
    "gpt-4": "cl100k_base",
    "gpt-4o": "o200k_base",
    "text-davinci-003": "p50k_base",
    "no-such-model": "o200k_base",
}


def chat(text: str = "Hello!", /, **parameters: object) -> dict[str, Any]:
    """Return the body of a request to gpt-4 with one message of the user, and `parameters`."""
    return {"model": "gpt-4", "messages": [{"role": "user", "content": text}], **parameters}


def headers(ttft_ms: float = 0, itl_ms: float = 0, output_length: int = 5) -> dict[str, str]:
    """Return the headers that ask for these times and this length."""
    return {
        "X-TTFT-MS": str(ttft_ms),
        "X-ITL-MS": str(itl_ms),
        "X-OUTPUT-LENGTH": str(output_length),
    }


def token_count(text: str, encoding: str) -> int:
    """Count tokens with tiktoken alone, without the emulator's code."""
    return len(tiktoken.get_encoding(encoding).encode_ordinary(text))


@dataclass(frozen=True)
class Block:
    """What the server wrote at once, and when it was here: seconds after the request left."""

    arrival_s: float
    data: bytes


@dataclass(frozen=True)
class Event:
    """The data of one server-sent event, and when it was here."""

    arrival_s: float
    data: str

    @cached_property
    def json(self) -> Any:  # noqa: ANN401 - JSON
        """The event's data, parsed."""
        return json.loads(self.data)

    @property
    def content(self) -> str:
        """The text that this event adds; empty if it adds none."""
        choices = self.json["choices"]
        return (choices[0]["delta"].get("content") or "") if choices else ""


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, block by block."""

    status: int
    headers: Mapping[str, str]
    blocks: Sequence[Block]

    @property
    def body(self) -> bytes:
        """All bytes of the body."""
        return b"".join(block.data for block in self.blocks)

    @cached_property
    def events(self) -> list[Event]:
        """Every event of a stream, ``[DONE]`` included."""
        return [
            Event(block.arrival_s, event.removeprefix("data: "))
            for block in self.blocks
            for event in block.data.decode().split("\n\n")[:-1]
        ]

    @cached_property
    def chunks(self) -> list[dict[str, Any]]:
        """The JSON of every event but ``[DONE]``."""
        return [event.json for event in self.events if event.data != DONE]

    @cached_property
    def content(self) -> list[Event]:
        """The events that add text."""
        return [event for event in self.events if event.data != DONE and event.content]

    @property
    def times_s(self) -> list[float]:
        """When each event that adds text was here."""
        return [event.arrival_s for event in self.content]

    @property
    def text(self) -> str:
        """The text of all events."""
        return "".join(event.content for event in self.content)

    def early(self, ttft_ms: float, itl_ms: float) -> list[tuple[int, float]]:
        """Return index and arrival of each token that was here before ttft + index * itl."""
        return [
            (index, event.arrival_s)
            for index, event in enumerate(self.content)
            if event.arrival_s < (ttft_ms + index * itl_ms) / 1000
        ]

    @property
    def report(self) -> dict[str, Any]:
        """The report that a stream's last chunk or a whole answer holds."""
        last = self.chunks[-1] if b"data: " in self.body else json.loads(self.body)
        report: dict[str, Any] = last["emulation"]
        return report

    @property
    def mean_itl_s(self) -> float:
        """The mean time between tokens, as this client saw it."""
        first, last = self.content[0], self.content[-1]
        return (last.arrival_s - first.arrival_s) / (len(self.content) - 1)


class _Recorder(asyncio.Protocol):
    """Keeps each piece that arrives with the time of its arrival."""

    def __init__(self) -> None:
        self.reads: list[tuple[float, bytes]] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.reads.append((time.monotonic(), data))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if not self.ended.done():
            self.ended.set_result(None)


@dataclass(frozen=True)
class Post:
    """One request of several that leave together."""

    body: Mapping[str, Any]
    headers: Mapping[str, str]

    def encode(self, host: str) -> bytes:
        """Return the HTTP request."""
        body = json.dumps(self.body).encode()
        lines = [
            f"POST {CHAT_PATH} HTTP/1.1",
            f"Host: {host}",
            "Connection: close",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def _post(address: tuple[str, int], post: Post, wait_s: float) -> list[tuple[float, bytes]]:
    """Return what arrived, and when: seconds after the moment before the request left."""
    await asyncio.sleep(wait_s)
    request = post.encode(address[0])
    transport, recorder = await asyncio.get_running_loop().create_connection(_Recorder, *address)
    try:
        sent_s = time.monotonic()
        transport.write(request)
        await asyncio.wait_for(recorder.ended, ANSWER_TIMEOUT_S)
    finally:
        transport.close()
    return [(at_s - sent_s, data) for at_s, data in recorder.reads]


def post_together(
    address: tuple[str, int],
    posts: Sequence[Post],
    apart_s: float = 0,
    meanwhile: Callable[[], None] = lambda: None,
) -> list[Answer]:
    """Send requests without waiting for answers, and return the answers in the same order.

    `meanwhile` runs in a thread, from the moment when the first request leaves.
    """

    async def gather() -> list[list[tuple[float, bytes]]]:
        waits_s = [apart_s * index for index in range(len(posts))]
        running = asyncio.create_task(asyncio.to_thread(meanwhile))
        answers = await asyncio.gather(*map(_post, repeat(address), posts, waits_s))
        await running
        return answers

    # A collection over the test run's objects would be measured as the server's delay.
    gc.disable()
    try:
        received = asyncio.run(gather())
    finally:
        gc.enable()
    # Not before all have ended: it would keep the others' tokens waiting to be read.
    return [_parse(reads) for reads in received]


def post(
    address: tuple[str, int], body: Mapping[str, Any], extra: Mapping[str, str] | None = None
) -> Answer:
    """Send one request and return its answer with its times."""
    return post_together(address, [Post(body, extra or {})])[0]


def stream(
    address: tuple[str, int],
    extra: Mapping[str, str] | None = None,
    **parameters: object,
) -> Answer:
    """Ask for a stream and return all of it with its times."""
    return post(address, {**chat(stream=True), **parameters}, extra)


@contextmanager
def unread(address: tuple[str, int], posts: Sequence[Post]) -> Iterator[list[socket.socket]]:
    """Send requests and leave their answers in the sockets; close these at the end."""
    with ExitStack() as stack:
        sockets = []
        for request in posts:
            connection = socket.create_connection(address, ANSWER_TIMEOUT_S)
            sockets.append(stack.enter_context(connection))
            connection.sendall(request.encode(address[0]))
        yield sockets


def local_ports(sockets: Sequence[socket.socket]) -> set[int]:
    """Return the ports by which a server knows whose connections these are."""
    return {connection.getsockname()[1] for connection in sockets}


def _parse(reads: Sequence[tuple[float, bytes]]) -> Answer:
    """Take an HTTP answer apart; each block gets the time at which its last byte was here."""
    raw = b"".join(data for _, data in reads)
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    named = {name.lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)}
    if named.get("transfer-encoding") == "chunked":
        spans = _chunk_spans(raw, len(raw) - len(body))
    else:
        spans = [(len(raw) - len(body), len(raw))]
    return Answer(int(status.split()[1]), named, _timed(raw, reads, spans))


def _chunk_spans(raw: bytes, start: int) -> list[tuple[int, int]]:
    """Return where the chunks of the transfer encoding begin and end."""
    spans: list[tuple[int, int]] = []
    while True:
        line_end = raw.index(b"\r\n", start)
        size = int(raw[start:line_end], 16)
        if not size:
            return spans
        spans.append((line_end + 2, line_end + 2 + size))
        start = line_end + 2 + size + 2


def _timed(
    raw: bytes, reads: Sequence[tuple[float, bytes]], spans: Sequence[tuple[int, int]]
) -> list[Block]:
    blocks: list[Block] = []
    pieces = iter(reads)
    arrival_s, received = 0.0, 0
    for start, end in spans:
        while received < end:
            arrival_s, data = next(pieces)
            received += len(data)
        blocks.append(Block(arrival_s, raw[start:end]))
    return blocks
