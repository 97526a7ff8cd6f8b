"""The clients of the package, which control a server with two workers."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import openai
import pytest

from openai_api_emulator import AsyncEmulator, Emulator, EmulatorError, Scope, calls
from tests.support.server import PLAIN, Server, eventually

KEY = "a-key-of-thirty-two-characters-x"
ASKED = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]}


def changed(emulator: Emulator) -> Mapping[str, Any]:
    """Return what differs from the settings of the start."""
    return emulator.settings.changed()


def asked_ttft_ms(scope: Scope, **headers: str) -> float:
    """Return the TTFT that a request of a scope is given."""
    answer = PLAIN.post(
        f"{scope.base_url}/chat/completions",
        json=ASKED,
        headers={**scope.headers, "X-EMULATION-REPORT": "true", **headers},
    )
    assert answer.status_code == 200, answer.text
    return float(answer.json()["emulation"]["ttft_ms"]["asked"])


# --------------------------------------------------------------------------------------
# Settings
# --------------------------------------------------------------------------------------


def test_settings_change_and_go_back(emulator: Emulator) -> None:
    """Settings are read and changed, and None or a reset goes back to the start's."""
    assert emulator.settings.patch(itl_ms=7, ttft_ms=9)["itl_ms"] == 7
    assert emulator.settings.read()["ttft_ms"] == 9
    emulator.settings.patch(ttft_ms=None)
    assert changed(emulator) == {"itl_ms": 7}
    emulator.settings.reset()
    assert changed(emulator) == {}


def test_override_ends_with_its_body(emulator: Emulator) -> None:
    """After an override settings are the start's again, also where the body has raised."""

    def fail() -> None:
        with emulator.override(ttft_ms=500, itl_ms=1):
            assert changed(emulator) == {"ttft_ms": 500, "itl_ms": 1}
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert changed(emulator) == {}


def test_overrides_nest(emulator: Emulator) -> None:
    """Each override goes back to what held before it, within objects too."""
    lengths = {"low": 1}
    emulator.settings.patch(reasoning_lengths=lengths, itl_ms=4)
    with emulator.override(ttft_ms=500, reasoning_lengths={"low": 2, "high": 9}):
        with emulator.override(ttft_ms=900, reasoning_lengths={"low": 3}):
            assert changed(emulator)["ttft_ms"] == 900
            assert changed(emulator)["reasoning_lengths"] == {"low": 3, "high": 9}
        assert changed(emulator)["ttft_ms"] == 500
        assert changed(emulator)["reasoning_lengths"] == {"low": 2, "high": 9}
    assert changed(emulator) == {"reasoning_lengths": lengths, "itl_ms": 4}


@pytest.mark.parametrize(
    ("before", "patch"),
    [
        ({}, {"a": 1, "b": {"c": 2}}),
        ({"a": 3, "b": {"d": 4}}, {"a": 1, "b": {"c": 2}}),
        ({"b": {"c": 5, "d": {"e": 6}}}, {"b": {"c": None, "d": {"e": 7, "f": 8}}}),
        ({"b": {"c": 5}}, {"b": None}),
        ({"b": 5}, {"b": {"c": 6}}),
    ],
)
def test_undoing_a_merge_patch(before: Mapping[str, Any], patch: Mapping[str, Any]) -> None:
    """What undoes a patch gives what was there before it, by the rules of RFC 7396."""
    patched = merged(before, patch)
    assert patched != before
    assert without_empty(merged(patched, calls.undoing(patch, before))) == without_empty(before)


def merged(target: object, patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return RFC 7396's MergePatch."""
    made = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        elif isinstance(value, Mapping):
            made[name] = merged(made.get(name), value)
        else:
            made[name] = value
    return made


def without_empty(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object without objects that say nothing."""
    kept = {n: without_empty(v) if isinstance(v, Mapping) else v for n, v in told.items()}
    return {name: value for name, value in kept.items() if value != {}}


def test_what_is_refused_is_an_error(emulator: Emulator) -> None:
    """What the emulator refuses is an error that names request, status, field and code."""
    with pytest.raises(EmulatorError, match=r"^PATCH /emulator/settings: 400: .*ttft_ms") as caught:
        emulator.settings.patch(ttft=3)
    error = caught.value
    assert (error.status, error.param, error.code) == (400, "ttft", "unknown_parameter")


def test_what_is_no_emulator_is_told(emulator: Emulator, packaged: Server) -> None:
    """An answer that is no error of an emulator's is told as it is."""
    with (
        Emulator(f"{packaged.url}/elsewhere") as other,
        pytest.raises(EmulatorError, match="GET /emulator: 404: ") as caught,
    ):
        other.status()
    assert caught.value.status == 404
    assert emulator.status()["workers"]["count"] == 2


def test_key_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is sent as it is given, or as the environment has it."""

    def sent(key: str | None) -> object:
        return calls.client_options("http://localhost", key, 1)["headers"].get("authorization")

    monkeypatch.delenv("EMULATOR_CONTROL_KEY", raising=False)
    assert sent(None) is None
    assert sent(KEY) == f"Bearer {KEY}"
    monkeypatch.setenv("EMULATOR_CONTROL_KEY", "other")
    assert sent(None) == "Bearer other"
    assert sent(KEY) == f"Bearer {KEY}"


# --------------------------------------------------------------------------------------
# Rules, schedule, reset
# --------------------------------------------------------------------------------------


def test_rules_come_and_go(emulator: Emulator) -> None:
    """Rules are put, placed, listed, swapped and deleted, whatever their names hold."""
    assert emulator.rules.put("a/b c", match={"model": "x"}, ttft_ms=1)["name"] == "a/b c"
    emulator.rules.put("second", {"ttft_ms": 2})
    emulator.rules.put("between", {"ttft_ms": 3}, before="a/b c")
    assert [rule["name"] for rule in emulator.rules.list()] == ["second", "between", "a/b c"]
    emulator.rules.delete("a/b c")
    assert len(emulator.rules.replace([{"name": "only", "itl_ms": 1}])) == 1
    assert [rule["name"] for rule in emulator.rules.list()] == ["only"]
    with pytest.raises(EmulatorError) as caught:
        emulator.rules.delete("a/b c")
    assert caught.value.status == 404


def test_schedule_changes_settings(emulator: Emulator) -> None:
    """A schedule that is put takes its steps, until it is deleted."""
    emulator.schedule.put(steps=[{"at_s": 0.1, "settings": {"itl_ms": 6}}])
    assert eventually(lambda: changed(emulator) == {"itl_ms": 6}, 30)
    assert emulator.schedule.put(waves=[WAVE]) is not None
    assert emulator.schedule.read() is not None
    emulator.schedule.delete()
    assert emulator.schedule.read() is None


WAVE = {"form": "sine", "of": "itl_ms", "low": 1, "high": 2, "period_s": 30, "for_s": 60}


def test_reset_goes_back_in_what_is_named(emulator: Emulator) -> None:
    """A reset goes back in what it names, and without names in all."""
    emulator.settings.patch(itl_ms=7)
    emulator.rules.put("one", ttft_ms=1)
    emulator.reset("rules")
    assert (emulator.rules.list(), changed(emulator)) == ([], {"itl_ms": 7})
    emulator.reset()
    assert changed(emulator) == {}


# --------------------------------------------------------------------------------------
# Scopes
# --------------------------------------------------------------------------------------


def test_rules_of_a_scope_are_its_own(emulator: Emulator) -> None:
    """A rule of a scope counts and decides for its requests alone."""
    with emulator.scope() as one, emulator.scope() as other:
        for scope in (one, other):
            scope.rules.put("busy", fault={"status": 503}, times=1)
        outcomes = [outcome(scope.openai(max_retries=0)) for scope in (one, one, other, other)]
    assert outcomes == [503, 200, 503, 200]


def outcome(client: openai.OpenAI) -> int:
    """Return the status of the answer to a client."""
    try:
        client.chat.completions.create(**ASKED)  # type: ignore[call-overload]
    except openai.APIStatusError as error:
        return error.status_code
    return 200


def test_rules_go_with_their_scope(emulator: Emulator) -> None:
    """When a scope ends its rules are gone, and those of others are not."""
    emulator.rules.put("others", ttft_ms=1)
    with emulator.scope() as scope:
        scope.rules.replace([{"name": "a", "ttft_ms": 1}, {"name": "b", "ttft_ms": 2}])
        assert [rule["name"] for rule in scope.rules.list()] == ["a", "b"]
        scope.rules.delete("a")
        assert [rule["name"] for rule in scope.rules.list()] == ["b"]
        assert len(emulator.rules.list()) == 2
    assert [rule["name"] for rule in emulator.rules.list()] == ["others"]


def test_override_of_a_scope_is_its_own(emulator: Emulator) -> None:
    """An override of a scope holds for its requests in its body, the innermost first."""
    with emulator.scope() as one, emulator.scope() as other:
        with one.override(ttft_ms=20):
            with one.override(ttft_ms=30):
                assert asked_ttft_ms(one) == 30
                assert asked_ttft_ms(other) == 0
                assert asked_ttft_ms(one, **{"X-TTFT-MS": "40"}) == 40
            assert asked_ttft_ms(one) == 20
        assert asked_ttft_ms(one) == 0


def test_key_of_a_scope_is_enough(emulator: Emulator) -> None:
    """A client that sends no header is of the scope by its key."""
    with emulator.scope("by-key") as scope, scope.override(ttft_ms=20):
        answer = PLAIN.post(
            f"{scope.base_url}/chat/completions",
            json=ASKED,
            headers={"Authorization": f"Bearer {scope.api_key}", "X-EMULATION-REPORT": "true"},
        )
    assert answer.json()["emulation"]["ttft_ms"]["asked"] == 20


def test_clients_end_with_their_scope(emulator: Emulator) -> None:
    """OpenAI's clients are closed with the scope, and take options and headers of one's own."""
    with emulator.scope("here") as scope:
        client = scope.openai(max_retries=7, default_headers={"X-A": "b"})
        assert client.max_retries == 7
        headers = client.default_headers
        assert (headers["X-A"], headers["X-EMULATION-SCOPE"]) == ("b", "here")
        assert client.models.list().data
    assert client.is_closed()


def test_missing_openai_is_told(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package openai the error says how to install it."""
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with emulator.scope() as scope:
        with pytest.raises(ImportError, match=re.escape("openai-api-emulator[openai]")):
            scope.openai()
        with pytest.raises(ImportError, match=re.escape("openai-api-emulator[openai]")):
            scope.async_openai()


# --------------------------------------------------------------------------------------
# Without waiting
# --------------------------------------------------------------------------------------


def test_asynchronous_client_does_the_same(emulator: Emulator) -> None:
    """With await settings, rules, schedule and reset are controlled as without."""

    async def control() -> None:
        async with AsyncEmulator(emulator.url) as client:
            await client.settings.patch(itl_ms=7)
            async with client.override(itl_ms=8, ttft_ms=9):
                assert await client.settings.changed() == {"itl_ms": 8, "ttft_ms": 9}
            assert await client.settings.changed() == {"itl_ms": 7}
            assert (await client.settings.read())["itl_ms"] == 7
            assert (await client.settings.reset())["itl_ms"] == 0
            await client.rules.put("one", ttft_ms=1)
            await client.rules.put("two", {"ttft_ms": 1}, before="one")
            assert [rule["name"] for rule in await client.rules.list()] == ["two", "one"]
            await client.rules.delete("one")
            assert await client.rules.replace([]) == []
            await client.schedule.put(waves=[WAVE])
            assert await client.schedule.read() is not None
            await client.schedule.delete()
            await client.reset()
            assert (await client.status())["schedule"]["schedule"] is None

    asyncio.run(control())


def test_asynchronous_scope_does_the_same(emulator: Emulator) -> None:
    """With await a scope has rules, overrides and clients of its own, which go with it."""

    async def control() -> openai.AsyncOpenAI:
        async with AsyncEmulator(emulator.url) as client, client.scope() as scope:
            await scope.rules.replace([{"name": "a", "ttft_ms": 1}, {"name": "b", "ttft_ms": 2}])
            await scope.rules.delete("b")
            async with scope.override(fault={"status": 503}, times=1):
                assert [rule["name"] for rule in await scope.rules.list()] == ["override-1", "a"]
                openai_client = scope.async_openai(max_retries=0)
                assert (await openai_client.models.list()).data
                with pytest.raises(openai.InternalServerError):
                    await openai_client.chat.completions.create(**ASKED)  # type: ignore[call-overload]
            await scope.reset("counts")
            assert outcome(scope.openai()) == 200
        return openai_client

    assert asyncio.run(control()).is_closed()
    assert emulator.rules.list() == []
