"""Rules from fixtures: what is said, what is told that rules cannot say, and the command."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # ships no types
from hypothesis import given
from hypothesis import strategies as st

from emulator.rules.convert.files import Source, sources
from emulator.rules.convert.joining import Converted, convert
from emulator.rules.reading import read_rules
from emulator.settings import Settings
from tests.clients.parts import AIMOCK
from tests.rules.making import asked_of, decided, matched, rules_of, subject
from tests.support.server import REPOSITORY

Json = dict[str, Any]
HI: Json = {"content": "Hi."}


def fixtures(*data: Json) -> Converted:
    """Return what becomes of the fixtures of a file."""
    return convert(Source("a.json", index, each) for index, each in enumerate(data))


def one(match: Json, response: Json | None = None, **more: object) -> Json:
    """Return a fixture."""
    return {"match": match, "response": response or HI, **more}


def rule(match: Json, response: Json | None = None, **more: object) -> Json:
    """Return the first rule of a fixture, of which all is said."""
    converted = fixtures(one(match, response, **more))
    assert converted.unsaid == []
    return converted.rules[0]


# A fixture's match, and the conditions of its rule.
CONDITIONS: dict[str, tuple[Json, Json]] = {
    "nothing": ({}, {}),
    "a text": ({"userMessage": "hello"}, {"text": "*hello*"}),
    "a text of globs' letters": ({"userMessage": "[a]*?"}, {"text": "*[[]a][*][?]*"}),
    "a text of lines": ({"userMessage": "a\n  b"}, {"text": "*a b*"}),
    "system": ({"systemMessage": "pirate"}, {"system": "*pirate*"}),
    "system, of a list": ({"systemMessage": ["pirate"]}, {"system": "*pirate*"}),
    "any system": ({"systemMessage": ""}, {"system": "?*"}),
    "a tool": ({"toolName": "get_*"}, {"tools": "get_[*]"}),
    "a result": ({"toolResultContains": "ok"}, {"tool_result": "*ok*"}),
    "whether there is a result": ({"hasToolResult": False}, {"has_tool_result": False}),
    "a turn": ({"turnIndex": 2}, {"turn": 2}),
    "an endpoint": ({"endpoint": "chat"}, {"path": "/v1/[cr]*"}),
    "a context": ({"context": "blue"}, {"header": {"x-aimock-context": "blue"}}),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions(name: str) -> None:
    """Each condition of a fixture has its like in a rule."""
    match, expected = CONDITIONS[name]
    assert rule(match).get("match", {}) == expected


ANSWERS: dict[str, tuple[Json, Json]] = {
    "text": (HI, {"text": "Hi."}),
    "braces": ({"content": "{{ a }}"}, {"text": "{{ a }}", "template": False}),
    "JSON": ({"content": {"a": 1.0}}, {"json": {"a": 1}}),
    "reasoning": (
        {"content": "x", "reasoning": "Hm."},
        {"reasoning": "Hm.", "text": "x"},
    ),
    "calls": (
        {"toolCalls": [{"name": "f", "arguments": {"a": 1}, "id": "call_1"}]},
        {
            "tool_calls": [
                {"name": "f", "arguments": {"a": 1}, "offered": False, "id": "call_1"},
            ]
        },
    ),
    "blocks": (
        {
            "blocks": [
                {"type": "toolCall", "name": "f", "arguments": "{"},
                {"type": "text", "text": "x"},
            ]
        },
        {
            "parts": [
                {"tool_call": {"name": "f", "arguments": "{", "offered": False}},
                {"text": "x"},
            ]
        },
    ),
    "what stands around": (
        {**HI, "finishReason": "length", "id": "x", "systemFingerprint": "fp", "role": "assistant"},
        {"text": "Hi.", "id": "x", "system_fingerprint": "fp", "finish_reason": "length"},
    ),
    "usage": (
        {
            **HI,
            "usage": {
                "input_tokens": 3,
                "output_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 2},
            },
        },
        {
            "text": "Hi.",
            "usage": {"prompt_tokens": 3, "completion_tokens": 4, "cached_tokens": 2},
        },
    ),
    "embedding": ({"embedding": [0.5, 1]}, {"embedding": [0.5, 1]}),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(name: str) -> None:
    """Each kind of answer has its like in a rule."""
    response, expected = ANSWERS[name]
    assert rule({}, response)["answer"] == expected


TIMES: dict[str, tuple[Json, Json]] = {
    "latency": ({"latency": 5}, {"ttft_ms": 5, "itl_ms": 5}),
    "a profile": (
        {"streamingProfile": {"ttft": 200, "tps": 40, "jitter": 0.1}},
        {"ttft_ms": 200, "itl_ms": 25, "ttft_jitter": "uniform:0.1", "itl_jitter": "uniform:0.1"},
    ),
    "a recording": (
        {
            "recordedTimings": {
                "ttftMs": 90,
                "interChunkDelaysMs": [10, 20, 30],
                "totalDurationMs": 1,
            },
            "replaySpeed": 2,
        },
        {"ttft_ms": 45, "itl_ms": 10},
    ),
}


@pytest.mark.parametrize("name", TIMES)
def test_times(name: str) -> None:
    """Times of a fixture are those of its rule."""
    more, expected = TIMES[name]
    made = rule({}, **more)
    assert {field: made[field] for field in made if field.endswith(("_ms", "_jitter"))} == expected


def test_chance_and_breaks_come_before_the_answer() -> None:
    """What fails by chance or breaks off is a rule of its own, for the same requests."""
    chaos = {"dropRate": 0.1, "malformedRate": 0, "rateLimitRate": 0.2}
    converted = fixtures(one({"userMessage": "x"}, chaos=chaos, disconnectAfterMs=50))
    dropped, limited, reset, answer = converted.rules
    assert (dropped["probability"], dropped["fault"]) == (0.1, {"status": 500})
    assert (limited["probability"], limited["fault"]["status"]) == (0.2, 429)
    assert reset["fault"] == {"kind": "reset", "after_ms": 50}
    assert reset["match"] == {"text": "*x*", "stream": True}
    assert answer["match"] == dropped["match"] == {"text": "*x*"}


# A fixture of which rules cannot say all; what is told of it, and whether it has rules.
UNSAID: dict[str, tuple[Json, str, bool]] = {
    "id of a call": (one({"toolCallId": "c"}), "match.toolCallId: rules do not look at", False),
    "format": (one({"responseFormat": "json_object"}), "match.responseFormat: ", False),
    "several texts": (one({"systemMessage": ["a", "b"]}), "match.systemMessage: ", False),
    "another endpoint": (one({"endpoint": "image"}), "match.endpoint: ", False),
    "unknown condition": (one({"colour": "blue"}), "match.colour: it is not known", False),
    "unknown field": (one({}, colour="blue"), "colour: it is not known", True),
    "image": (one({}, {"image": {"url": "x"}}), "response.image: rules have no such", False),
    "no answer": (one({}, {}) | {"response": {}}, "response: rules have no such answer", False),
    "no match": ({"response": HI}, "match: expected an object", False),
    "a search": (one({}, {**HI, "webSearches": ["a"]}), "response.webSearches: ", True),
    "a reason": (one({}, {**HI, "finishReason": "bored"}), "response.finishReason: ", True),
    "a type of errors": (
        one({}, {"error": {"message": "x", "type": "odd"}, "status": 500}),
        "response.error.type: expected 'server_error', but got 'odd'",
        True,
    ),
    "a status that is none": (
        one({}, {"error": {"message": "x"}, "status": 200}),
        "as a rule, fault.status: ",
        False,
    ),
    "an id that is none": (one({}, {**HI, "id": "a b"}), "as a rule, answer[0].id: ", False),
    "half of a character": (one({}, {"content": "\ud800"}), "a text holds half", False),
    "chunks": (one({}, chunkSize=5), "chunkSize: texts leave token by token", True),
    "latency of chaos": (one({}, chaos={"latencyMs": 5}), "chaos.latencyMs: ", True),
    "a number for a text": (one({"userMessage": 5}), "match.userMessage: expected a text", False),
    "a text for a list": (one({}, {"blocks": [{"type": "x"}]}), "response.blocks[0].type", False),
    "a sequence that is none": (one({"sequenceIndex": -1}), "match.sequenceIndex: ", False),
    "profile of another type": (one({}, streamingProfile=[1]), "expected other types", False),
}


@pytest.mark.parametrize("name", UNSAID)
def test_what_rules_cannot_say_is_named(name: str) -> None:
    """File, fixture and field are told; without its match or its answer a fixture has no rule."""
    data, told, has_rules = UNSAID[name]
    converted = fixtures(one({"userMessage": "first"}), data)
    (line,) = converted.unsaid
    assert line.startswith("a.json: fixtures[1]")
    assert told in line
    assert len(converted.rules) == 1 + has_rules


def test_first_fixture_decides_all() -> None:
    """Of two fixtures that match, the second decides neither times nor failures, as in aimock."""
    error = {"error": {"message": "x"}, "status": 500}
    converted = fixtures(
        one({"userMessage": "hello"}), one({"userMessage": "h"}, latency=9), one({}, error)
    )
    rules = rules_of(*converted.rules)
    found = asked_of([{"role": "user", "content": "hello"}])
    assert matched(rules, found) == ["a:0", "a:1", "a:2"]
    decision = decided(rules, found)
    assert decision.rules == ("a:0",)
    assert float(decision.timing["itl_ms"]) == 0


def test_models_have_dates() -> None:
    """A model stands for those of its name with a date too, but for no other model."""
    rules = rules_of(*fixtures(one({"model": "gpt-4o"})).rules)
    models = ("gpt-4o", "gpt-4o-2024-08-06", "gpt-4o-mini", "gpt-4", "gpt-4o-1x")
    found = [bool(matched(rules, subject(model=model))) for model in models]
    assert found == [True, True, False, False, True]


def test_files_are_read_in_aimocks_order(tmp_path: Path) -> None:
    """In a folder come its files by name, then its folders; what is no fixture is named."""
    (tmp_path / "b").mkdir()
    for name in ("z.json", "a.json", "b/c.json"):
        (tmp_path / name).write_text(json.dumps({"$comment": "x", "fixtures": [one({})]}))
    (tmp_path / "b" / "no.json").write_text("{")
    (tmp_path / "b" / "other.json").write_text('{"mcp": {}}')
    (tmp_path / "notes.txt").write_text("nothing")
    converted = convert(sources(tmp_path))
    assert [rule["name"] for rule in converted.rules] == ["a:0", "z:0", "b/c:0"]
    assert [line.partition(":")[0] for line in converted.unsaid] == ["b/no.json", "b/other.json"]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_said_and_found(text: str) -> None:
    """A fixture's text comes through the file of rules as it is, and finds itself in a message."""
    converted = fixtures(one({"userMessage": text[:200]}, {"content": text}))
    assert converted.unsaid == []
    (said,) = yaml.safe_load(yaml.safe_dump(converted.rules, allow_unicode=True))
    assert said["answer"]["text"] == text
    rules = rules_of(said)
    message = [{"role": "user", "content": f"before {text} after"}]
    assert matched(rules, asked_of(message)) == ["a:0"]


def test_command(tmp_path: Path) -> None:
    """The command writes rules that a server reads, tells what is unsaid, and ends with 1 then."""
    command = [sys.executable, "-m", "emulator.rules.convert"]
    for path, code in ((AIMOCK.here / "fixtures", 0), (AIMOCK.here / "package.json", 1)):
        ended = subprocess.run(  # noqa: S603 - our own command line
            [*command, str(path)], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        assert ended.returncode == code, ended.stderr
        file = tmp_path / "rules.yaml"
        file.write_text(ended.stdout)
        rules = read_rules(file, Settings(), {})
        assert bool(rules.rules) == (code == 0)
        assert bool(ended.stderr) == (code == 1)
        assert rules.warnings == ()
