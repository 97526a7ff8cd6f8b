"""What a client controls: settings, rules, the schedule."""

from collections.abc import Sequence
from typing import Any, Protocol

from openai_api_emulator import calls
from openai_api_emulator.calls import Answer, Call, Json


class Sender(Protocol):
    """Sends requests for control."""

    def send(self, call: Call[Answer], /) -> Answer:
        """Send one, and return what its answer says."""


class Settings:
    """The settings that can change while the server runs."""

    def __init__(self, emulator: Sender) -> None:
        self._emulator = emulator

    def read(self) -> Json:
        """Return all that are in force."""
        return self._emulator.send(calls.get_settings())

    def changed(self) -> Json:
        """Return what differs from those of the start, as `patch` takes it."""
        return self._emulator.send(calls.get_changed())

    def patch(self, **settings: object) -> Json:
        """Change some, and return all that are then in force; None goes back to the start's.

        Raises:
            EmulatorError: One is wrong; then none has changed.
        """
        return self._emulator.send(calls.patch_settings(settings))

    def reset(self) -> Json:
        """Go back to those of the start."""
        return self._emulator.send(calls.reset_settings())


class Rules:
    """The rules of a server; of those that match the first decides."""

    def __init__(self, emulator: Sender) -> None:
        self._emulator = emulator

    def list(self) -> Sequence[dict[str, Any]]:
        """Return all, in their order."""
        return self._emulator.send(calls.list_rules())

    def put(
        self, name: str, rule: Json | None = None, *, before: str | None = None, **fields: object
    ) -> dict[str, Any]:
        """Put one rule and return it; a new one comes first, one of a known name takes its place.

        Args:
            name: Its name.
            rule: What it says, as in a file of rules.
            before: The name of the rule before which it comes.
            fields: More of what it says: ``match={...}``, ``fault={...}``, ``times=2``.

        Raises:
            EmulatorError: It is no good rule.
        """
        return self._emulator.send(calls.put_rule(name, {**(rule or {}), **fields}, before))

    def delete(self, name: str) -> None:
        """Take one rule away.

        Raises:
            EmulatorError: There is none of this name.
        """
        self._emulator.send(calls.delete_rule(name))

    def replace(self, rules: Sequence[Json]) -> Sequence[dict[str, Any]]:
        """Put other rules in place of all, at once, and return them."""
        return self._emulator.send(calls.replace_rules(rules))


class Schedule:
    """What changes by itself."""

    def __init__(self, emulator: Sender) -> None:
        self._emulator = emulator

    def read(self) -> Json | None:
        """Return it, None if there is none."""
        return self._emulator.send(calls.get_schedule())

    def put(self, **schedule: object) -> Json | None:
        """Begin one: ``steps=[...]``, ``waves=[...]``, ``repeat=...``, ``length_s=...``."""
        return self._emulator.send(calls.put_schedule(schedule))

    def delete(self) -> None:
        """End it."""
        self._emulator.send(calls.delete_schedule())
