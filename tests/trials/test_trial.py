"""What is told of rules that are tried against one request."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from emulator.apis.chat.api import ChatAPI
from emulator.contract.errors import APIError
from emulator.settings import Settings
from emulator.trials.trial import TriedRule, of_request, of_row, tried
from tests.rules.making import SAYS, rules_of
from tests.support.wire import CHAT_PATH, chat
from tokenizer import TokenGenerator

APIS = {CHAT_PATH: ChatAPI(TokenGenerator(), "fp")}
FAILS: Mapping[str, Any] = {"fault": {"status": 503}}


def of_chat(
    *entries: Mapping[str, Any], headers: Mapping[str, str] | None = None, **body: object
) -> list[TriedRule]:
    """Return what these rules make of a chat."""
    rules = rules_of(*entries)
    content = json.dumps({**chat(), **body}).encode()
    request = of_request(APIS, (CHAT_PATH, headers or {}, content), rules, Settings())
    return tried(rules.rules, request)


def test_first_condition_that_fails() -> None:
    """A rule that does not match tells its first condition that fails, and what came."""
    (one,) = of_chat({"match": {"model": "gpt-4", "text": "*weather*"}, **SAYS}, model="gpt-4")
    assert (one.matches, one.condition, one.expected) == (False, "text", "'*weather*'")
    assert one.came != ""


def test_rule_matches_by_header_and_key() -> None:
    """Headers and keys of a request are looked at as those of a real one, whatever their case."""
    rule = {"match": {"header": {"X-Team": "blue*"}}, **SAYS}
    assert of_chat(rule, headers={"x-TEAM": "blue-1"})[0].matches
    assert not of_chat(rule)[0].matches


def test_what_was_decided_before() -> None:
    """A rule that matches tells what it decides, and by whom the rest is decided already."""
    first, second = of_chat(
        {"name": "a", "ttft_ms": 5, **FAILS},
        {"name": "b", "ttft_ms": 6, "itl_ms": 7, **FAILS},
        headers={"X-ITL-MS": "1"},
    )
    assert (first.decides, first.decided_before) == (["fault", "ttft_ms"], {})
    assert second.decides == []
    assert second.decided_before == {"fault": "a", "itl_ms": "the header", "ttft_ms": "a"}


def test_what_is_counted_is_not_sure() -> None:
    """A rule that counts or is left to chance takes nothing from later ones for sure."""
    one, other, last = of_chat(
        {"name": "a", "times": 1, **FAILS},
        {"name": "b", "probability": 0.5, **FAILS},
        {"name": "c", **FAILS},
    )
    assert [each.decides for each in (one, other, last)] == [["fault"]] * 3
    assert other.chance == 0.5


def test_row_answers_what_it_holds() -> None:
    """A row of the journal decides model and path, and says of a text that it cannot be told."""
    rules = rules_of(
        {"name": "model", "match": {"model": "gpt-3*"}, **SAYS},
        {"name": "text", "match": {"model": "gpt-4*", "text": "*a*"}, **SAYS},
        {"name": "both", "match": {"text": "*a*", "stream": True}, **SAYS},
        {"name": "all", "match": {"path": CHAT_PATH}, "scope": "s", **SAYS},
    )
    results = tried(rules.rules, of_row(CHAT_PATH, "gpt-4", "s", stream=False))
    assert [(each.name, each.matches, each.condition) for each in results] == [
        ("model", False, "model"),
        ("text", None, "text"),
        ("both", False, "stream"),
        ("all", True, ""),
    ]


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (("/nowhere", {}, b"{}"), "request.path"),
        ((CHAT_PATH, {}, b" " * 70_000), "request.body"),
        ((CHAT_PATH, {}, b'{"model": "a"}'), "messages"),
        ((CHAT_PATH, {"X-TTFT-MS": "soon"}, json.dumps(chat()).encode()), "X-TTFT-MS"),
    ],
)
def test_bad_request_names_the_field(
    request_: tuple[str, Mapping[str, str], bytes], param: str
) -> None:
    """What no API takes is refused, with the field that is wrong."""
    with pytest.raises(APIError) as refused:
        of_request(APIS, request_, rules_of(), Settings())
    assert refused.value.status == 400
    assert refused.value.body.param == param
