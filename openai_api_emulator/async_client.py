"""The asynchronous client: `client` with ``await``."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self, Unpack

import httpx

from openai_api_emulator import calls, journal
from openai_api_emulator.calls import TIMEOUT_S, Answer, Call, Json
from openai_api_emulator.journal import Filters, JournalEntry, JournalRow, ScopeFilters
from openai_api_emulator.scoping import ScopeBase


class AsyncSettings:
    """The settings that can change while the server runs."""

    def __init__(self, emulator: "AsyncEmulator") -> None:
        self._emulator = emulator

    async def read(self) -> Json:
        """Return all that are in force."""
        return await self._emulator.send(calls.get_settings())

    async def changed(self) -> Json:
        """Return what differs from those of the start, as `patch` takes it."""
        return await self._emulator.send(calls.get_changed())

    async def patch(self, **settings: object) -> Json:
        """Change some, and return all that are then in force; None goes back to the start's.

        Raises:
            EmulatorError: One is wrong; then none has changed.
        """
        return await self._emulator.send(calls.patch_settings(settings))

    async def reset(self) -> Json:
        """Go back to those of the start."""
        return await self._emulator.send(calls.reset_settings())


class AsyncRules:
    """The rules of a server; of those that match the first decides."""

    def __init__(self, emulator: "AsyncEmulator") -> None:
        self._emulator = emulator

    async def list(self) -> Sequence[dict[str, Any]]:
        """Return all, in their order."""
        return await self._emulator.send(calls.list_rules())

    async def put(
        self, name: str, rule: Json | None = None, *, before: str | None = None, **fields: object
    ) -> dict[str, Any]:
        """Put one rule, as `client.Emulator.rules` does.

        Raises:
            EmulatorError: It is no good rule.
        """
        said = {**(rule or {}), **fields}
        return await self._emulator.send(calls.put_rule(name, said, before))

    async def delete(self, name: str) -> None:
        """Take one rule away.

        Raises:
            EmulatorError: There is none of this name.
        """
        await self._emulator.send(calls.delete_rule(name))

    async def replace(self, rules: Sequence[Json]) -> Sequence[dict[str, Any]]:
        """Put other rules in place of all, at once, and return them."""
        return await self._emulator.send(calls.replace_rules(rules))


class AsyncSchedule:
    """What changes by itself."""

    def __init__(self, emulator: "AsyncEmulator") -> None:
        self._emulator = emulator

    async def read(self) -> Json | None:
        """Return it, None if there is none."""
        return await self._emulator.send(calls.get_schedule())

    async def put(self, **schedule: object) -> Json | None:
        """Begin one: ``steps=[...]``, ``waves=[...]``, ``repeat=...``, ``length_s=...``."""
        return await self._emulator.send(calls.put_schedule(schedule))

    async def delete(self) -> None:
        """End it."""
        await self._emulator.send(calls.delete_schedule())


class AsyncEmulator:
    """Controls an emulator that runs; the methods are those of `client.Emulator`."""

    def __init__(
        self, url: str, *, control_key: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(**calls.client_options(self.url, control_key, timeout_s))
        self.settings = AsyncSettings(self)
        self.rules = AsyncRules(self)
        self.schedule = AsyncSchedule(self)

    @property
    def base_url(self) -> str:
        """The address that OpenAI's clients take, with ``/v1``."""
        return f"{self.url}/v1"

    async def send(self, call: Call[Answer], /) -> Answer:
        """Send a request for control, and return what its answer says.

        Raises:
            EmulatorError: It was refused.
        """
        return call.answer(await self._http.request(**call.arguments()))

    async def status(self) -> Json:
        """Return all that is in force, and how the server is."""
        return await self.send(calls.status())

    async def mark(self, text: str) -> None:
        """Write a text beside what is measured."""
        await self.send(calls.mark(text))

    async def reset(self, *what: str, scope: str | None = None) -> None:
        """Go back to how things were at the start, in all or what is named."""
        await self.send(calls.reset(what, scope))

    @asynccontextmanager
    async def override(self, **settings: object) -> AsyncIterator[Self]:
        """Change settings, for everybody, while the body runs."""
        before = await self.settings.changed()
        await self.settings.patch(**settings)
        try:
            yield self
        finally:
            await self.settings.patch(**calls.undoing(settings, before))

    @asynccontextmanager
    async def scope(self, name: str | None = None) -> AsyncIterator["AsyncScope"]:
        """Keep the requests of the body apart from all others; its rules go with it."""
        scope = AsyncScope(self, name)
        try:
            yield scope
        finally:
            await scope.close()

    async def requests(self, **filters: Unpack[Filters]) -> Sequence[JournalRow]:
        """Return the requests that have ended, of the last 4,096, the newest last."""
        found: list[JournalRow] = []
        after: str | None = journal.OLDEST
        while after is not None:
            page = await self.send(journal.page(filters, after))
            found += page.rows
            after = page.next
        return found

    async def request(self, request_id: str) -> JournalEntry:
        """Return one of them, with the instants of its tokens.

        Raises:
            EmulatorError: It is not there, or not any more.
        """
        return await self.send(journal.entry(request_id))

    async def assert_requests(
        self, count: int, *, within_s: float = journal.WITHIN_S, **filters: Unpack[Filters]
    ) -> Sequence[JournalRow]:
        """Check how many requests of the journal fit, and return them.

        Raises:
            AssertionError: There are others; the message shows what came.
        """
        rows: Sequence[JournalRow] = ()
        for pause_s in journal.pauses(within_s):
            await asyncio.sleep(pause_s)
            rows = await self.requests(**filters)
            if len(rows) >= count:
                break
        if len(rows) != count:
            came = await self.requests(**journal.of_scope(filters))
            raise AssertionError(journal.complaint(count, rows, came, filters))
        return rows

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncScopedRules:
    """The rules that one scope alone sees."""

    def __init__(self, scope: "AsyncScope") -> None:
        self._scope = scope
        self._rules = scope.emulator.rules

    async def list(self) -> Sequence[dict[str, Any]]:
        """Return all, in their order."""
        return self._scope.own(await self._rules.list())

    async def put(self, name: str, rule: Json | None = None, **fields: object) -> None:
        """Put one rule; a new one comes first, one of a known name takes its place.

        Raises:
            EmulatorError: It is no good rule.
        """
        said = self._scope.scoped({**(rule or {}), **fields})
        await self._rules.put(self._scope.named(name), said)
        self._scope.has_rules = True

    async def delete(self, name: str) -> None:
        """Take one rule away.

        Raises:
            EmulatorError: There is none of this name.
        """
        await self._rules.delete(self._scope.named(name))

    async def replace(self, rules: Sequence[Json]) -> None:
        """Put other rules, each with a ``name``, in place of all of this scope, one by one."""
        for rule in await self.list():
            await self.delete(rule["name"])
        for said in map(dict, reversed(rules)):
            await self.put(str(said.pop("name")), said)


class AsyncScope(ScopeBase):
    """The requests of one test, kept apart; the methods are those of `client.Scope`."""

    def __init__(self, emulator: AsyncEmulator, name: str | None = None) -> None:
        super().__init__(emulator.url, name)
        self.emulator = emulator
        self.rules = AsyncScopedRules(self)

    @asynccontextmanager
    async def override(self, **fields: object) -> AsyncIterator[Self]:
        """Have a rule for all requests of the scope while the body runs: ``ttft_ms=500``."""
        name = self.next_override()
        await self.rules.put(name, fields)
        try:
            yield self
        finally:
            await self.rules.delete(name)

    async def requests(self, **filters: Unpack[ScopeFilters]) -> Sequence[JournalRow]:
        """Return its requests of the journal, the newest last."""
        return await self.emulator.requests(**filters, scope=self.id)

    async def assert_requests(
        self, count: int, *, within_s: float = journal.WITHIN_S, **filters: Unpack[ScopeFilters]
    ) -> Sequence[JournalRow]:
        """Check how many of its requests fit, and return them.

        Raises:
            AssertionError: There are others; the message shows what came.
        """
        emulator = self.emulator
        return await emulator.assert_requests(count, within_s=within_s, **filters, scope=self.id)

    async def reset(self, *what: str) -> None:
        """Begin anew with its ``counts``, ``limits`` and ``journal``, or with those named."""
        await self.emulator.reset(*what, scope=self.id)

    async def close(self) -> None:
        """Take its rules away, and close its clients."""
        if self.has_rules:
            await self.rules.replace([])
        for client in self.clients:
            client.close()
        for each in self.async_clients:
            await each.close()
