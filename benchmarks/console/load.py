"""A load that shows something: several models, faults, a limit, with changes that marks name."""

import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any

MODELS = {"gpt-4": (300, 50), "gpt-4o-mini": (120, 12), "o3": (900, 30)}
CLIENTS = 24
SETTINGS: Mapping[str, Any] = {"ttft_jitter": "lognormal:0.3", "itl_jitter": "lognormal:0.25"}
RULES = [
    {"name": "mini-is-fast", "match": {"model": "gpt-4o-mini"}, "ttft_ms": 120, "itl_ms": 12},
    {"name": "flaky", "match": {"model": "o3"}, "every": 4, "fault": {"status": 503}},
    {"name": "cut", "match": {"model": "gpt-4"}, "every": 9, "fault": {"kind": "close"}},
]


def send(url: str, method: str, path: str, body: object) -> bytes:
    """Return what the server answers; an error's body too."""
    request = urllib.request.Request(
        f"{url}{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "X-EMULATION-SCOPE": "pictures"},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        return bytes(error.read())
    except (OSError, HTTPException):
        return b""  # cut on purpose


@contextmanager
def under_load(url: str) -> Iterator[None]:
    """Have clients ask for streams while the body runs."""
    ended = threading.Event()
    threads = [
        threading.Thread(target=_ask, args=(url, number, ended)) for number in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _ask(url: str, number: int, ended: threading.Event) -> None:
    draw = random.Random(number)
    while not ended.is_set():
        model = draw.choice([*MODELS])
        ttft_ms, itl_ms = MODELS[model]
        own = {} if model == "gpt-4o-mini" else {"ttft_ms": ttft_ms, "itl_ms": itl_ms}
        body = {
            "model": model,
            "stream": True,
            "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
            "emulation": {"output_length": draw.randint(10, 60), **own},
        }
        send(url, "POST", "/v1/chat/completions", body)
        time.sleep(draw.uniform(0.05, 0.8))
