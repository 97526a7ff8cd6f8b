"""The client that controls an emulator and asks what it saw."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, Unpack

import httpx

from openai_api_emulator import calls, journal
from openai_api_emulator.calls import TIMEOUT_S, Answer, Call, Json
from openai_api_emulator.journal import Filters, JournalEntry, JournalRow, ScopeFilters
from openai_api_emulator.parts import Rules, Schedule, Settings
from openai_api_emulator.scoping import ScopeBase


class Emulator:
    """Controls an emulator that runs.

    Args:
        url: Its address, without ``/v1``.
        control_key: The key of its setting ``control_key``; by default that of the variable
            ``EMULATOR_CONTROL_KEY``. From its own machine it needs none, unless ``control=key``.
        timeout_s: How long an answer may take, in s.
    """

    def __init__(
        self, url: str, *, control_key: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(**calls.client_options(self.url, control_key, timeout_s))
        self.settings = Settings(self)
        self.rules = Rules(self)
        self.schedule = Schedule(self)

    @property
    def base_url(self) -> str:
        """The address that OpenAI's clients take, with ``/v1``."""
        return f"{self.url}/v1"

    def send(self, call: Call[Answer], /) -> Answer:
        """Send a request for control, and return what its answer says.

        Raises:
            EmulatorError: It was refused.
        """
        return call.answer(self._http.request(**call.arguments()))

    def status(self) -> Json:
        """Return all that is in force, and how the server is."""
        return self.send(calls.status())

    def mark(self, text: str) -> None:
        """Write a text beside what is measured: "now the fault is on"."""
        self.send(calls.mark(text))

    def reset(self, *what: str, scope: str | None = None) -> None:
        """Go back to how things were at the start.

        Args:
            what: ``settings``, ``rules``, ``schedule``, ``counts``, ``limits``, ``engine`` or
                ``journal``; all if none is named.
            scope: For whom; for everybody if it is None.
        """
        self.send(calls.reset(what, scope))

    @contextmanager
    def override(self, **settings: object) -> Iterator[Self]:
        """Change settings, for everybody, while the body runs.

        After it each is what it was before: one that had not been changed is the start's again.
        """
        before = self.settings.changed()
        self.settings.patch(**settings)
        try:
            yield self
        finally:
            self.settings.patch(**calls.undoing(settings, before))

    @contextmanager
    def scope(self, name: str | None = None) -> Iterator["Scope"]:
        """Keep the requests of the body apart from all others; its rules go with it.

        Args:
            name: Its id, 1 to 64 letters, digits and ``._:-``; drawn if it is None.
        """
        scope = Scope(self, name)
        try:
            yield scope
        finally:
            scope.close()

    def requests(self, **filters: Unpack[Filters]) -> Sequence[JournalRow]:
        """Return the requests that have ended, of the last 4,096, the newest last.

        Args:
            filters: ``model``, ``status``, ``rule``, ``path`` and ``scope``, as `Filters` has them.
        """
        found: list[JournalRow] = []
        after: str | None = journal.OLDEST
        while after is not None:
            page = self.send(journal.page(filters, after))
            found += page.rows
            after = page.next
        return found

    def request(self, request_id: str) -> JournalEntry:
        """Return one of them, with the instants of its tokens.

        Args:
            request_id: Its ``x-request-id``, or the id of its answer.

        Raises:
            EmulatorError: It is not there, or not any more.
        """
        return self.send(journal.entry(request_id))

    def assert_requests(
        self, count: int, *, within_s: float = journal.WITHIN_S, **filters: Unpack[Filters]
    ) -> Sequence[JournalRow]:
        """Check how many requests of the journal fit, and return them.

        Args:
            count: How many there have to be.
            within_s: How long to wait for those that are not there yet, in s.
            filters: As for `requests`.

        Raises:
            AssertionError: There are others; the message shows what came.
        """
        rows: Sequence[JournalRow] = ()
        for pause_s in journal.pauses(within_s):
            time.sleep(pause_s)
            rows = self.requests(**filters)
            if len(rows) >= count:
                break
        if len(rows) != count:
            came = self.requests(**journal.of_scope(filters))
            raise AssertionError(journal.complaint(count, rows, came, filters))
        return rows

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ScopedRules:
    """The rules that one scope alone sees."""

    def __init__(self, scope: "Scope") -> None:
        self._scope = scope
        self._rules = scope.emulator.rules

    def list(self) -> Sequence[dict[str, Any]]:
        """Return all, in their order."""
        return self._scope.own(self._rules.list())

    def put(self, name: str, rule: Json | None = None, **fields: object) -> None:
        """Put one rule; a new one comes first, one of a known name takes its place.

        Args:
            name: Its name in this scope.
            rule: What it says, as in a file of rules.
            fields: More of what it says: ``match={...}``, ``fault={...}``, ``times=2``.

        Raises:
            EmulatorError: It is no good rule.
        """
        said = self._scope.scoped({**(rule or {}), **fields})
        self._rules.put(self._scope.named(name), said)
        self._scope.has_rules = True

    def delete(self, name: str) -> None:
        """Take one rule away.

        Raises:
            EmulatorError: There is none of this name.
        """
        self._rules.delete(self._scope.named(name))

    def replace(self, rules: Sequence[Json]) -> None:
        """Put other rules, each with a ``name``, in place of all of this scope, one by one."""
        for rule in self.list():
            self.delete(rule["name"])
        for said in map(dict, reversed(rules)):
            self.put(str(said.pop("name")), said)


class Scope(ScopeBase):
    """The requests of one test, whose counts, rules and journal are kept apart from all others.

    Args:
        emulator: Where it is.
        name: Its id; drawn if it is None.
    """

    def __init__(self, emulator: Emulator, name: str | None = None) -> None:
        super().__init__(emulator.url, name)
        self.emulator = emulator
        self.rules = ScopedRules(self)

    @contextmanager
    def override(self, **fields: object) -> Iterator[Self]:
        """Have a rule for all requests of the scope while the body runs: ``ttft_ms=500``.

        Args:
            fields: What a rule can say; headers and ``emulation`` in a body win over it.
        """
        name = self.next_override()
        self.rules.put(name, fields)
        try:
            yield self
        finally:
            self.rules.delete(name)

    def requests(self, **filters: Unpack[ScopeFilters]) -> Sequence[JournalRow]:
        """Return its requests of the journal, the newest last; filters as those of `Emulator`."""
        return self.emulator.requests(**filters, scope=self.id)

    def assert_requests(
        self, count: int, *, within_s: float = journal.WITHIN_S, **filters: Unpack[ScopeFilters]
    ) -> Sequence[JournalRow]:
        """Check how many of its requests fit, and return them, as `Emulator` does.

        Raises:
            AssertionError: There are others; the message shows what came.
        """
        return self.emulator.assert_requests(count, within_s=within_s, **filters, scope=self.id)

    def reset(self, *what: str) -> None:
        """Begin anew with its ``counts``, ``limits`` and ``journal``, or with those named."""
        self.emulator.reset(*what, scope=self.id)

    def close(self) -> None:
        """Take its rules away, and close its clients."""
        if self.has_rules:
            self.rules.replace([])
        for client in self.clients:
            client.close()
