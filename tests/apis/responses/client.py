"""Responses asked for through the official client and on a plain one."""

import json
from collections.abc import Mapping
from typing import Any

import openai
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.support.server import PLAIN
from tests.support.wire import headers

PATH = "/v1/responses"
EVENTS: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)


def asked(**parameters: object) -> dict[str, Any]:
    """Return the body of a request."""
    return {"model": "gpt-4o", "input": "Hello!", **parameters}


def respond(
    client: openai.OpenAI, extra: Mapping[str, str] | None = None, /, **parameters: object
) -> Response:
    """Return a whole answer; the seed, which OpenAI does not have, goes into the body as it is."""
    create: Any = client.responses.create
    seed = {"seed": parameters.pop("seed")} if "seed" in parameters else {}
    answer = create(**asked(**parameters), extra_headers=extra or headers(), extra_body=seed)
    assert isinstance(answer, Response)
    return answer


def stream(
    url: str, extra: Mapping[str, str] | None = None, /, **parameters: object
) -> list[dict[str, Any]]:
    """Return the events of a stream as JSON, each checked to be written as OpenAI writes it."""
    body = asked(stream=True, **parameters)
    answer = PLAIN.post(f"{url}{PATH}", json=body, headers=extra or headers())
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *written, nothing = answer.text.split("\n\n")
    assert nothing == ""
    events = []
    for text in written:
        kind, data = text.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert kind == f"event: {event['type']}"
        events.append(event)
    return events


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """Return the types of events, each run of one type once, without what all have in front."""
    names = [event["type"].removeprefix("response.") for event in events]
    return [name for i, name in enumerate(names) if not i or names[i - 1] != name]


def without_ids(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return a response without what differs from one to the next."""
    output = [{k: v for k, v in item.items() if k != "id"} for item in response["output"]]
    ids_and_times = dict.fromkeys(("id", "created_at", "completed_at"))
    return {**response, "output": output, **ids_and_times}
