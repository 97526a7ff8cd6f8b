"""Ids tell what OpenAI would not have stored, though nothing is."""

from typing import Any

import openai
import pytest

from tests.apis.responses.client import asked, respond
from tests.support.sdk import message_of, refused
from tests.support.server import Server
from tests.support.wire import headers

THINKING = headers() | {"X-REASONING-LENGTH": "2"}
PATHS = ("/responses", "/responses/compact", "/responses/input_tokens")


def refers(kind: str, item: str | None) -> list[dict[str, Any]]:
    """Return an input that needs an item of an earlier answer."""
    if kind == "item_reference":
        return [{"type": kind, "id": item}, {"role": "user", "content": "?"}]
    return [{"type": kind, "id": item, "summary": []}, {"role": "user", "content": "?"}]


@pytest.mark.parametrize("path", PATHS)
def test_no_response_goes_on_from_one_that_was_not_stored(client: openai.OpenAI, path: str) -> None:
    """The id of a response with store: false is not found, in OpenAI's words."""
    lost = respond(client, store=False).id
    error = refused(client, asked(previous_response_id=lost), path)
    assert (error.status_code, error.param, error.code) == (
        400,
        "previous_response_id",
        "previous_response_not_found",
    )
    assert message_of(error) == f"Previous response with id '{lost}' not found."


@pytest.mark.parametrize("stored", [{}, {"store": True}, {"store": None}], ids=str)
def test_what_was_stored_is_known(client: openai.OpenAI, stored: dict[str, Any]) -> None:
    """A response that OpenAI would have stored can be gone on from, and its items referred to."""
    kept = respond(client, THINKING, **stored)
    assert respond(client, previous_response_id=kept.id).previous_response_id == kept.id
    for kind in ("item_reference", "reasoning"):
        assert respond(client, input=refers(kind, kept.output[0].id)).output_text


@pytest.mark.parametrize("kind", ["item_reference", "reasoning"])
def test_items_that_were_not_stored_are_not_found(client: openai.OpenAI, kind: str) -> None:
    """An item of a response with store: false that is needed is a 404 in OpenAI's words."""
    lost = respond(client, THINKING, store=False).output[0]
    error = refused(client, asked(input=refers(kind, lost.id)), "/responses")
    assert (error.status_code, error.param, error.code) == (404, "input", None)
    assert message_of(error) == (
        f"Item with id '{lost.id}' not found. Items are not persisted when `store` is set to "
        "false. Try again with `store` set to true, or remove this item from your input."
    )


def test_items_that_come_whole_need_no_store(client: openai.OpenAI) -> None:
    """What was not stored can be sent again, reasoning with its encrypted content."""
    include = ["reasoning.encrypted_content"]
    lost = respond(client, THINKING, store=False, include=include).model_dump()["output"]
    assert respond(client, input=[*lost, {"role": "user", "content": "?"}]).output_text


def test_what_compacting_leaves_is_not_stored(client: openai.OpenAI) -> None:
    """A compaction has no id to go on from."""
    left = client.responses.compact(model="gpt-4o", input="x").id
    assert refused(client, asked(previous_response_id=left), "/responses").status_code == 400


def test_lenient_server_knows_every_id(lenient_server: Server) -> None:
    """A lenient server goes on from what was not stored."""
    with openai.OpenAI(api_key="k", base_url=f"{lenient_server.url}/v1") as lenient:
        lost = respond(lenient, store=False).id
        assert respond(lenient, previous_response_id=lost).status == "completed"
