"""A schedule tried before it begins, so that nothing of it can fail later."""

import asyncio

from emulator.contract.error_words import path_of
from emulator.contract.errors import APIError
from emulator.control.changes import alterations
from emulator.control.changes.building import Builder
from emulator.control.changes.document import Changes
from emulator.control.changes.schedule import Schedule


async def try_schedule(changes: Changes, builder: Builder, schedule: Schedule, now: float) -> None:
    """Take all steps of a schedule, and give each number both of its ends, with no effect.

    Args:
        changes: What the schedule begins with.
        builder: Checks what each step makes.
        schedule: The schedule.
        now: When it begins, on ``time.time()``.

    Raises:
        APIError: A step is not good, or a number is none of a setting or a rule.
    """
    states = [changes]
    for index, step in enumerate(schedule.steps):
        try:
            changes = alterations.stepped(changes, step, now)
            builder.build(changes)
        except APIError as error:
            raise _in(error, ("steps", index), step.rules is not None) from None
        states.append(changes)
        await asyncio.sleep(0)
    for index, wave in enumerate(schedule.waves):
        for value in (wave.low, wave.high):
            for state in (states[0], states[-1]):
                try:
                    alterations.with_number(state, builder, wave.of, value)
                    break
                except APIError as error:
                    failure = error
            else:
                raise _in(failure, ("waves", index), is_rules=True)
            await asyncio.sleep(0)


def _in(error: APIError, place: tuple[int | str, ...], is_rules: bool) -> APIError:
    """Return an error with its field's place in the schedule."""
    param = error.body.param or ""
    inner = param if is_rules and param.startswith("rules") else f"settings.{param}".rstrip(".")
    if place[0] == "waves":
        inner = "of"
    path = f"{path_of(place)}.{inner}"
    message = error.body.message
    if param and f"'{param}'" in message:
        message = message.replace(f"'{param}'", f"'{path}'", 1)
    return APIError(message, param=path, code=error.body.code, status=error.status)
