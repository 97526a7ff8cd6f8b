"""How many streamed tokens/s one core of the load generator takes, beside a plain `HttpUser`.

Run ``python -m benchmarks.kit.locust_client``: it starts the emulator and, one after the other, a
process for each way to read a stream, and prints tokens per second of that process's CPU time. Each
user decodes every stream to its end and logs TTFT and all gaps; the plain ones log their gaps in
bulk too, which is kind to them. Last comes the parser alone, beside httpx-sse.
"""

# ruff: noqa: E402 - gevent patches the standard library before anything else is imported
from gevent import monkey

monkey.patch_all()

import argparse
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
from httpx_sse._decoders import SSEDecoder, SSELineDecoder
from locust import FastHttpUser, HttpUser, User, constant, task
from locust.env import Environment

from loadtest.messages import question
from loadtest.report import log_stream, rows, use_fine_buckets
from loadtest.stream import ChatStream
from loadtest.user import CHAT_PATH, ChatUser, Timing

ROOT = Path(__file__).resolve().parents[2]
WARM_UP_S = 4.0

# users, and what each stream asks for
LOADS = {
    "paced": (200, Timing(ttft_ms=100, itl_ms=10, output_length=200)),
    "at once": (8, Timing(ttft_ms=0, itl_ms=0, output_length=2000)),
}


class KitUser(ChatUser):
    """The kit's own way."""

    wait_time = constant(0)
    timing: Timing

    @task
    def ask(self) -> None:
        """Stream one answer."""
        self.chat("bench", self.timing, question())


class _LineUser(User):
    """Reads lines, decodes each event's JSON and takes the time of each token."""

    abstract = True
    wait_time = constant(0)
    timing: Timing
    client: Any

    @task
    def ask(self) -> None:
        """Stream one answer."""
        body = {
            "model": "gpt-3.5-turbo",
            "messages": question(),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        start_s = time.perf_counter()
        arrivals_s: list[float] = []
        for line in self.lines(body):
            if line.startswith("data: ") and line != "data: [DONE]":
                choices = json.loads(line[6:])["choices"]
                if choices and choices[0]["delta"].get("content"):
                    arrivals_s.append(time.perf_counter())
        if len(arrivals_s) != self.timing.output_length:
            raise ValueError(f"{len(arrivals_s)} tokens")
        log_stream(self.environment.stats, "bench", start_s, arrivals_s)

    def lines(self, body: dict[str, Any]) -> Iterator[str]:
        """Yield the lines of the answer."""
        raise NotImplementedError


class PlainUser(HttpUser, _LineUser):
    """``HttpUser`` and requests' ``iter_lines``."""

    def lines(self, body: dict[str, Any]) -> Iterator[str]:
        """Yield the lines of the answer."""
        response = self.client.post(
            CHAT_PATH, json=body, headers=self.timing.headers(), stream=True
        )
        for line in response.iter_lines():
            yield line.decode()


class FastLinesUser(FastHttpUser, _LineUser):
    """``FastHttpUser`` and its ``iter_lines``, which waits for 1 KB and so sees no gaps."""

    def lines(self, body: dict[str, Any]) -> Iterator[str]:
        """Yield the lines of the answer."""
        headers = self.timing.headers()
        yield from self.client.iter_lines(CHAT_PATH, "POST", json=body, headers=headers)


USERS: dict[str, type[User]] = {
    "HttpUser, iter_lines": PlainUser,
    "FastHttpUser, iter_lines": FastLinesUser,
    "this kit": KitUser,
}


def measure(name: str, load: str, host: str, duration_s: float) -> dict[str, float]:
    """Run one kind of user in this process; return its tokens/s, alone and by CPU second."""
    use_fine_buckets()
    users, timing = LOADS[load]
    user_class = type("BenchUser", (USERS[name],), {"host": host, "timing": timing})
    environment = Environment(user_classes=[user_class])
    options = {"stream_ratio": 1.0}
    environment.parsed_options = argparse.Namespace(**options)
    runner = environment.create_local_runner()
    runner.start(users, spawn_rate=100)
    gevent.sleep(WARM_UP_S)
    environment.stats.clear_all()
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    gevent.sleep(duration_s)
    elapsed_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    # A stream that had begun before and one that has not ended make up for each other.
    tokens = sum(entry.num_requests for entry in rows(environment.stats, "TTFT"))
    tokens *= timing.output_length
    failures = environment.stats.num_failures
    runner.quit()
    return {
        "tokens_per_s": tokens / elapsed_s,
        "tokens_per_cpu_s": tokens / cpu_s,
        "failures": failures,
    }


def events_of_a_stream(tokens: int) -> list[bytes]:
    """Return the events of a stream as the emulator sends them."""
    head = (
        b'data: {"id":"chatcmpl-0123456789","object":"chat.completion.chunk","created":1700000000,'
        b'"model":"gpt-4","service_tier":"default","system_fingerprint":"fp_0123456789",'
    )
    choice = b'"choices":[{"index":0,"delta":{%s},"logprobs":null,"finish_reason":%s}],'
    return [
        *(head + choice % (b'"content":" word"', b"null") + b'"usage":null}\n\n',) * tokens,
        head + choice % (b"", b'"stop"') + b'"usage":null}\n\n',
        head + b'"choices":[],"usage":{"completion_tokens":%d}}\n\n' % tokens,
        b"data: [DONE]\n\n",
    ]


def read_with_kit(events: list[bytes]) -> int:
    """Return the tokens of a stream, read by the kit."""
    stream = ChatStream()
    for event in events:
        stream.feed(event, time.perf_counter())
    stream.finish(time.perf_counter())
    return stream.completion_tokens


def read_with_httpx_sse(events: list[bytes]) -> int:
    """Return the tokens of a stream, read by httpx-sse's decoders and json."""
    lines, decoder, arrivals_s = SSELineDecoder(), SSEDecoder(), []
    for event in events:
        for line in lines.decode(event.decode()):
            found = decoder.decode(line)
            if found and found.data != "[DONE]":
                choices = json.loads(found.data)["choices"]
                if choices and choices[0]["delta"].get("content"):
                    arrivals_s.append(time.perf_counter())
    return len(arrivals_s)


def parsed_per_s(
    read: Callable[[list[bytes]], int], tokens: int = 2000, repeats: int = 30
) -> float:
    """Return how many tokens/s a parser takes when each event comes in a read of its own."""
    events = events_of_a_stream(tokens)
    start_s = time.process_time()
    for _ in range(repeats):
        if read(events) != tokens:
            raise ValueError("a token was lost")
    return tokens * repeats / (time.process_time() - start_s)


@contextmanager
def running_emulator() -> Iterator[str]:
    """Start the emulator with one worker and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = ["serve", "service.py:OpenAIEmulator", "--port", str(port), "--arg", "workers=1"]
    server = subprocess.Popen(
        [sys.executable, "-m", "bentoml", *command],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(f"{url}/health")
        yield url
    finally:
        server.terminate()
        server.wait()


def wait_until_ready(url: str, timeout_s: float = 60) -> None:
    """Return once `url` answers.

    Raises:
        TimeoutError: It did not within `timeout_s` seconds.
    """
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        try:
            urllib.request.urlopen(url).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(f"{url} does not answer")


def compare(host: str, duration_s: float) -> None:
    """Print the table."""
    print(f"{'load':8} {'client':26} {'tokens/s':>10} {'tokens/s for each core':>24}")
    for load in LOADS:
        plain = 0.0
        for name in USERS:
            command = [
                sys.executable,
                "-m",
                "benchmarks.kit.locust_client",
                "--one",
                name,
                load,
                "--url",
                host,
            ]
            command += ["--seconds", str(duration_s)]
            result = json.loads(subprocess.check_output(command))
            plain = plain or result["tokens_per_cpu_s"]
            print(
                f"{load:8} {name:26} {result['tokens_per_s']:10,.0f} "
                f"{result['tokens_per_cpu_s']:16,.0f} ({result['tokens_per_cpu_s'] / plain:.1f} x)"
                + (f"  {result['failures']:.0f} failures!" if result["failures"] else "")
            )
    for name, read in (("httpx-sse + json", read_with_httpx_sse), ("ChatStream", read_with_kit)):
        print(f"{'parser':8} {name:26} {'':10} {parsed_per_s(read):16,.0f}")


def main() -> None:
    """Compare, or measure one client for the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a server that runs already, instead of a new one")
    parser.add_argument("--seconds", type=float, default=8.0, help="time for each measurement")
    parser.add_argument("--one", nargs=2, metavar=("CLIENT", "LOAD"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        client, load = arguments.one
        print(json.dumps(measure(client, load, arguments.url, arguments.seconds)))
    elif arguments.url:
        compare(arguments.url, arguments.seconds)
    else:
        with running_emulator() as url:
            compare(url, arguments.seconds)


if __name__ == "__main__":
    main()
