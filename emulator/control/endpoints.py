"""The endpoints below /emulator: the guard, the body, the change, and what holds after it."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from emulator.contract.error_words import invalid_type
from emulator.control.bodies import (
    Applied,
    ControlRules,
    ControlStatus,
    Reset,
    RulesInForce,
    ScheduleInForce,
    SettingsInForce,
    Workers,
)
from emulator.control.changes import alterations, rule_list
from emulator.control.changes.document import Changes
from emulator.control.changes.live_settings import LiveSettings
from emulator.control.changes.refusals import first_fault
from emulator.control.changes.schedule import Schedule
from emulator.control.changes.trying import try_schedule
from emulator.control.entrance import refuse_other_types, refuse_strangers
from emulator.control.operations import Call, Operation, Table, refuse_stale
from emulator.control.status import StatusReader
from emulator.control.truth import Truth
from emulator.reading.bodies import BodyReader, parse_json
from emulator.serving.backlog import BACKLOG
from emulator.transport.exchange import Exchange
from emulator.transport.sending import Reply, whole_reply

MAX_BODY_BYTES = 1_000_000
BODY_TIMEOUT_S = 30
_CHANGING = ("POST", "PUT", "PATCH", "DELETE")

Body = TypeVar("Body", bound=BaseModel)


class Control:
    """Answers requests for control.

    Args:
        truth: What is changed.
        status: Tells how this server is.
    """

    def __init__(self, truth: Truth, status: StatusReader) -> None:
        self._truth = truth
        self._status = status
        self._bodies = BodyReader(MAX_BODY_BYTES, BODY_TIMEOUT_S)
        self.table = Table(self._operations())

    def add(self, operations: Sequence[Operation]) -> None:
        """Answer operations of other rooms too."""
        self.table = Table([*self.table.operations, *operations])

    def _operations(self) -> list[Operation]:
        settings, rules, rule = "/emulator/settings", "/emulator/rules", "/emulator/rules/{name}"
        schedule, in_force, each = "/emulator/schedule", SettingsInForce, RulesInForce
        before = {"before": "the rule before which it comes"}
        return [
            Operation("GET", "/emulator", "Tell all that is in force", self.status, ControlStatus),
            Operation("GET", settings, "Tell the settings", self.get_settings, in_force),
            Operation(
                "PATCH", settings, "Change settings", self.patch_settings, in_force, LiveSettings
            ),
            Operation("DELETE", settings, "Back to the start's", self.drop_settings, in_force),
            Operation("GET", rules, "Tell all rules", self.get_rules, each),
            Operation("PUT", rules, "Swap all rules", self.put_rules, each, ControlRules),
            Operation("GET", rule, "Tell one rule", self.get_rule, each),
            Operation(
                "PUT", rule, "Put one rule first, or in place", self.put_rule, each, query=before
            ),
            Operation("DELETE", rule, "Take one rule away", self.drop_rule, each),
            Operation("GET", schedule, "Tell the schedule", self.get_schedule, ScheduleInForce),
            Operation(
                "PUT", schedule, "Begin a schedule", self.put_schedule, ScheduleInForce, Schedule
            ),
            Operation("DELETE", schedule, "End the schedule", self.drop_schedule, ScheduleInForce),
            Operation("POST", "/emulator/reset", "Back to the start's", self.reset, Applied, Reset),
        ]

    async def answer(self, exchange: Exchange) -> Reply:
        """Answer one request.

        Raises:
            APIError: It is refused.
            HTTPException: There is no such path, or it has no such method.
        """
        settings = exchange.state.settings
        if settings.control == "off":
            raise HTTPException(404)
        operation, name = self.table.find(exchange.method, exchange.path)
        if not operation.is_open:
            refuse_strangers(exchange)
        body = b""
        if exchange.method in _CHANGING:
            refuse_other_types(exchange)
            received = await self._bodies.read(exchange)
            body = bytes(received.content)  # type: ignore[arg-type]  # no spool is so small
            received.release()
        else:
            await BACKLOG.told()  # what is asked for may be in it
        return await operation.handle(Call(exchange, name, body))

    # ------------------------------------------------------------------------------
    # What is in force
    # ------------------------------------------------------------------------------

    async def status(self, call: Call) -> Reply:
        """Answer GET /emulator."""
        call.query()
        changes = self._latest()
        applied = self._truth.told(self._truth.live.seen)
        pids = [member.pid for member in self._truth.members.alive()]
        workers = Workers(count=len(pids), applied=applied, pids=pids)
        return self._reply(call, self._status.read(changes, workers))

    async def get_settings(self, call: Call) -> Reply:
        """Answer GET /emulator/settings."""
        call.query()
        return self._reply(call, self._status.settings(self._latest()))

    async def get_rules(self, call: Call) -> Reply:
        """Answer GET /emulator/rules."""
        call.query()
        return self._reply(call, self._status.rules(self._latest()))

    async def get_rule(self, call: Call) -> Reply:
        """Answer GET /emulator/rules/{name}."""
        call.query()
        return self._reply(call, self._status.rules(self._latest(), call.name))

    async def get_schedule(self, call: Call) -> Reply:
        """Answer GET /emulator/schedule."""
        call.query()
        return self._reply(call, self._status.schedule(self._latest()))

    # ------------------------------------------------------------------------------
    # What changes it
    # ------------------------------------------------------------------------------

    async def patch_settings(self, call: Call) -> Reply:
        """Answer PATCH /emulator/settings."""
        call.query()
        patch = _object(call.body)
        made = await self._change(call, lambda changes: alterations.patch_settings(changes, patch))
        return await self._changed(call, made, self._status.settings)

    async def drop_settings(self, call: Call) -> Reply:
        """Answer DELETE /emulator/settings."""
        call.query()
        made = await self._change(call, alterations.drop_settings)
        return await self._changed(call, made, self._status.settings)

    async def put_rules(self, call: Call) -> Reply:
        """Answer PUT /emulator/rules."""
        call.query()
        body = _checked(call.body, ControlRules)
        entries = rule_list.listed(body.rules, time.time())
        made = await self._change(call, lambda changes: alterations.put_rules(changes, entries))
        return await self._changed(call, made, self._status.rules)

    async def put_rule(self, call: Call) -> Reply:
        """Answer PUT /emulator/rules/{name}."""
        before = call.query("before").get("before")
        rule_list.check_name(call.name, ("name",))
        entry = rule_list.timed(_object(call.body), time.time(), ())
        rule_list.refuse_other_name(entry, call.name)
        state = self._truth.live.current
        rule_list.read([entry], state.settings, state.traces, lambda place: place[1:])
        entry = entry._replace(data={**entry.data, "name": call.name})
        made = await self._change(
            call, lambda changes: self._with_rules(changes, _placing(entry, before))
        )
        return await self._changed(call, made, lambda made: self._status.rules(made, call.name))

    async def drop_rule(self, call: Call) -> Reply:
        """Answer DELETE /emulator/rules/{name}."""
        call.query()

        def without(entries: Sequence[rule_list.Entry]) -> list[rule_list.Entry]:
            at = rule_list.index_of(entries, call.name)
            return [*entries[:at], *entries[at + 1 :]]

        made = await self._change(call, lambda changes: self._with_rules(changes, without))
        return await self._changed(call, made, self._status.rules)

    def _with_rules(
        self,
        changes: Changes,
        make: Callable[[Sequence[rule_list.Entry]], list[rule_list.Entry]],
    ) -> Changes:
        return alterations.put_rules(changes, make(self._truth.builder.entries(changes)))

    async def put_schedule(self, call: Call) -> Reply:
        """Answer PUT /emulator/schedule."""
        call.query()
        schedule = _checked(call.body, Schedule)
        await try_schedule(self._truth.changes, self._truth.builder, schedule, time.time())
        made = await self._change(
            call, lambda changes: alterations.put_schedule(changes, schedule, time.time())
        )
        return await self._changed(call, made, self._status.schedule)

    async def drop_schedule(self, call: Call) -> Reply:
        """Answer DELETE /emulator/schedule."""
        call.query()
        made = await self._change(call, alterations.end_schedule)
        return await self._changed(call, made, self._status.schedule)

    async def reset(self, call: Call) -> Reply:
        """Answer POST /emulator/reset."""
        call.query()
        body = _checked(call.body or b"{}", Reset)
        what = alterations.what_of(body.what, body.scope)
        scope = body.scope or ""
        made = await self._change(call, lambda changes: alterations.reset(changes, what, scope))
        return await self._changed(call, made, self._status.applied)

    def _latest(self) -> Changes:
        self._truth.look()
        return self._truth.changes

    async def _change(self, call: Call, alter: Callable[[Changes], Changes]) -> Changes:
        def altered(changes: Changes) -> Changes:
            refuse_stale(call.exchange, changes.revision)
            return alter(changes)

        return await self._truth.change(altered)

    async def _changed(
        self, call: Call, made: Changes, read: Callable[[Changes], BaseModel]
    ) -> Reply:
        """Answer with what a change has made, once all workers have it."""
        applied = await self._truth.applied()
        return self._reply(call, read(made).model_copy(update={"applied": applied}))

    def _reply(self, call: Call, answer: BaseModel) -> Reply:
        reply = whole_reply(call.exchange, answer)
        revision = b'"%d"' % getattr(answer, "revision", 0)
        reply.headers = [(b"etag", revision), (b"cache-control", b"no-store")]
        return reply


def _placing(
    entry: rule_list.Entry, before: str | None
) -> Callable[[Sequence[rule_list.Entry]], list[rule_list.Entry]]:
    return lambda entries: rule_list.placed(entries, entry, before)


def _object(body: bytes) -> Mapping[str, Any]:
    """Return the object that a body is.

    Raises:
        APIError: It is none.
    """
    data = parse_json(body)
    if not isinstance(data, dict):
        raise invalid_type(data, "an object", "")
    return data


def _checked(body: bytes, model: type[Body]) -> Body:
    """Return what a body says.

    Raises:
        APIError: It is not JSON, or not what the model takes.
    """
    _object(body)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise first_fault(error, model) from None
