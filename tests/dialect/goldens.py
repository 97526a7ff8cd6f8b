"""Answers of a real vLLM 0.32, the requests that got them, and the shapes of answers."""

import gzip
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import httpx

DATA = Path(__file__).parent / "data" / "goldens.json.gz"
Json = dict[str, Any]
# Whose server sent it, how long it is, and how it was cut into pieces say nothing of a dialect.
NOT_COMPARED = {"date", "server", "content-length", "transfer-encoding", "connection"}
# What is compared by its value, beside its type.
EXACT = {"object", "type", "param", "code", "role", "finish_reason", "status", "detail", "error"}
# Objects whose keys are data.
MAPS = {"properties", "logit_bias"}


class Golden(NamedTuple):
    """One request, and what vLLM answered."""

    name: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: str
    status: int
    answered: frozenset[str]
    content: Any


class Seen(NamedTuple):
    """What an answer looks like: its status, its headers' names, and the shape of its content."""

    status: int
    headers: frozenset[str]
    shape: Any


def goldens() -> list[Golden]:
    """Return all of them."""
    told = json.loads(gzip.decompress(DATA.read_bytes()))
    return [
        Golden(
            each["name"],
            each["method"],
            each["path"],
            each["headers"],
            each["body"],
            each["status"],
            frozenset(each["answered"]),
            _content(each),
        )
        for each in told
    ]


def _content(told: Json) -> Any:  # noqa: ANN401 - any JSON, or events
    if "events" in told:
        return events_shape(told["events"])
    return shape(told["json"]) if "json" in told else told["text"]


def seen_by_vllm(golden: Golden) -> Seen:
    """Return what vLLM's answer looks like."""
    return Seen(golden.status, golden.answered - NOT_COMPARED, golden.content)


def ask(http: httpx.Client, golden: Golden) -> Seen:
    """Send a golden's request to our server, and return what its answer looks like."""
    answer = http.request(
        golden.method, golden.path, headers=dict(golden.headers), content=golden.body
    )
    kind = answer.headers.get("content-type", "")
    content: Any = answer.text
    if kind.startswith("text/event-stream"):
        content = events_shape(list(_events(answer.text)))
    elif kind.startswith("application/json"):
        content = shape(answer.json())
    headers = frozenset(name.lower() for name in answer.headers) - NOT_COMPARED
    return Seen(answer.status_code, headers, content)


def _events(text: str) -> Any:  # noqa: ANN401 - pairs of names and data
    for block in text.strip().split("\n\n"):
        name, data = None, ""
        for line in block.split("\n"):
            key, _, value = line.partition(": ")
            name, data = (value, data) if key == "event" else (name, value)
        yield name, data if data == "[DONE]" else json.loads(data)


def events_shape(events: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the shapes of events in order, of which a run of equal ones is one."""
    shapes = [(name, data if data == "[DONE]" else shape(data)) for name, data in events]
    return [key for key, _ in groupby(shapes)]


def shape(value: object, key: str = "") -> Any:  # noqa: ANN401 - any JSON
    """Return keys and types of some JSON; equal items of an array count once."""
    if isinstance(value, dict):
        is_map = key in MAPS or (key == "top_logprobs" and "token" not in value)
        is_map = is_map or (bool(value) and all(name.isdecimal() for name in value))
        return "a map" if is_map else _object(value)
    if isinstance(value, list):
        return [item for item, _ in groupby(shape(item, key) for item in value)]
    if value is None or isinstance(value, bool):
        return value
    if key in EXACT:
        return f"={value}"
    return "a text" if isinstance(value, str) else "a number"


def _object(value: Mapping[str, Any]) -> Json:
    return {name: shape(item, name) for name, item in sorted(value.items())}


def differences(theirs: object, ours: object, place: str = "") -> list[str]:
    """Return in words what differs between two shapes."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        missing = [f"{place}.{key} is missing" for key in theirs.keys() - ours.keys()]
        more = [f"{place}.{key} is ours alone" for key in ours.keys() - theirs.keys()]
        both = sorted(theirs.keys() & ours.keys())
        deeper = [differences(theirs[key], ours[key], f"{place}.{key}") for key in both]
        return sorted([*missing, *more, *(each for found in deeper for each in found)])
    if isinstance(theirs, list | tuple) and isinstance(ours, list | tuple):
        if len(theirs) != len(ours):
            return [f"{place} has {len(theirs)} kinds of items there, {len(ours)} here"]
        pairs = enumerate(zip(theirs, ours, strict=True))
        return [each for at, pair in pairs for each in differences(*pair, f"{place}[{at}]")]
    return [] if theirs == ours else [f"{place}: {theirs!r} there, {ours!r} here"]


def compare(golden: Golden, ours: Seen) -> list[str]:
    """Return in words what of our answer differs from vLLM's."""
    theirs = seen_by_vllm(golden)
    if theirs.status != ours.status:
        return [f"status {theirs.status} there, {ours.status} here"]
    missing = [f"header {name} is missing" for name in sorted(theirs.headers - ours.headers)]
    more = [f"header {name} is ours alone" for name in sorted(ours.headers - theirs.headers)]
    return [*missing, *more, *differences(theirs.shape, ours.shape)]
