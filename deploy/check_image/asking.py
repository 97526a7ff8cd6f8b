"""What is asked of the emulator in the image."""

import json
import threading
import time
from http.client import HTTPConnection, HTTPResponse, IncompleteRead

LARGE_BODY_MB = 40


def is_ready(port: int) -> bool:
    """Tell whether the emulator answers requests."""
    try:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False


def ask(port: int, content: object = "Hi", **headers: str) -> HTTPResponse:
    """Return the answer to a chat of one message, of which only the status has been read."""
    asked = {"X-OUTPUT-LENGTH": "1", "Content-Type": "application/json"}
    asked |= {name.replace("_", "-"): value for name, value in headers.items()}
    message = {"role": "user", "content": content}
    body = {"model": "gpt-4o", "stream": "X_ITL_MS" in headers, "messages": [message]}
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), asked)
    return connection.getresponse()


def received(answer: HTTPResponse) -> str:
    """Return the body of an answer, as much as there is."""
    try:
        return answer.read().decode()
    except IncompleteRead as cut:
        return cut.partial.decode()


def timed(port: int) -> float:
    """Return how long the answer of one token takes, in seconds."""
    start_s = time.monotonic()
    ask(port).read()
    return time.monotonic() - start_s


def large_images(port: int, count: int) -> list[int]:
    """Return the statuses of requests with large images that are sent at once."""
    head = "iVBORw0KGgoAAAANSUhEUgAABAAAAAQACAIAAAAA"  # a PNG of 1024 x 1024
    url = "data:image/png;base64," + head.ljust(LARGE_BODY_MB * 1_000_000, "A")
    content = [{"type": "image_url", "image_url": {"url": url}}]
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(ask(port, content).status))
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses
