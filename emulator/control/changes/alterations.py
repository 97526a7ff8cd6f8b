"""Pure functions from the changes in force to the next ones, for each endpoint and the schedule."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

from pydantic_core import from_json, to_json

from emulator.contract.errors import APIError
from emulator.control.changes import rule_list
from emulator.control.changes.building import Builder, resets_of
from emulator.control.changes.document import NOTHING, Changes
from emulator.control.changes.merging import composed
from emulator.control.changes.refusals import refused_at
from emulator.control.changes.rule_list import Entry
from emulator.control.changes.schedule import Planned, Schedule, Step, patch_of

What = Literal["rules", "settings", "schedule", "counts", "limits", "journal", "engine"]
ALL: Final[tuple[What, ...]] = get_args(What)
# What is kept for each scope by itself.
SCOPED: Final[tuple[What, ...]] = ("counts", "limits", "journal")
_BY_REVISION = {"counts", "limits", "journal", "engine"}
_RULES = "rules."


def patch_settings(changes: Changes, patch: Mapping[str, Any]) -> Changes:
    """Lay a merge patch over the settings; null goes back to the start's."""
    return changes._replace(settings=to_json(composed(from_json(changes.settings), patch)))


def drop_settings(changes: Changes) -> Changes:
    """Go back to the settings of the start."""
    return changes._replace(settings=NOTHING.settings)


def put_rules(changes: Changes, entries: Sequence[Entry]) -> Changes:
    """Put other rules in place of all."""
    return changes._replace(rules=rule_list.packed(entries))


def put_schedule(changes: Changes, schedule: Schedule, now: float) -> Changes:
    """Begin a schedule, in place of the one that was there."""
    return changes._replace(schedule=Planned(schedule, now).packed(), progress=0)


def end_schedule(changes: Changes) -> Changes:
    """End the schedule; what it has changed stays."""
    return changes._replace(schedule=b"", progress=0)


def what_of(what: Sequence[What] | None, scope: str | None) -> Sequence[What]:
    """Return what is to be reset.

    Raises:
        APIError: It is not kept by scope, but one is named.
    """
    if what is None:
        return ALL if scope is None else SCOPED
    for index, each in enumerate(what):
        if scope is not None and each not in SCOPED:
            known = ", ".join(SCOPED)
            problem = f"expected one of {known} beside a scope, but got '{each}'"
            raise refused_at(("what", index), problem)
    return what


def reset(changes: Changes, what: Sequence[What], scope: str) -> Changes:
    """Set things back to how they are at the start, for one scope or, if it is empty, for all."""
    made = changes
    if "settings" in what:
        made = drop_settings(made)
    if "rules" in what:
        made = made._replace(rules=NOTHING.rules)
    if "schedule" in what:
        made = end_schedule(made)
    resets = from_json(made.resets)
    for each in what:
        if each in _BY_REVISION:
            found = resets_of(resets.get(each, {})).at(changes.revision + 1, scope)
            told = {"": found.everybody, **found.scopes}
            resets[each] = told
    return made._replace(resets=to_json(resets))


# --------------------------------------------------------------------------------------
# What changes by itself
# --------------------------------------------------------------------------------------


def next_due(changes: Changes, builder: Builder, now: float) -> float | None:
    """Return when something changes by itself, on ``time.time()``; None for never."""
    found = [entry.expires_at for entry in builder.entries(changes) if entry.expires_at is not None]
    plan = builder.planned(changes)
    if plan is not None:
        schedule, began_at = plan
        if (step := schedule.step(changes.progress)) is not None:
            found.append(began_at + step[0])
        if (wave_s := schedule.next_wave_s(now - began_at)) is not None:
            found.append(began_at + wave_s)
    return min(found, default=None)


def without_expired(changes: Changes, builder: Builder, now: float) -> Changes | None:
    """Take away the rules that have ended; None if none has."""
    entries = builder.entries(changes)
    left = rule_list.alive(entries, now)
    return None if len(left) == len(entries) else put_rules(changes, left)


def step_due(changes: Changes, builder: Builder, now: float) -> Step | None:
    """Return the step of the schedule that is due, if one is."""
    plan = builder.planned(changes)
    found = plan and plan.schedule.step(changes.progress)
    if plan is None or found is None or plan.began_at + found[0] > now:
        return None
    return found[1]


def stepped(changes: Changes, step: Step, now: float) -> Changes:
    """Take the next step of the schedule.

    Raises:
        APIError: Its rules are none.
    """
    made = changes._replace(progress=changes.progress + 1)
    if step.settings is not None:
        made = patch_settings(made, step.settings)
    if step.rules is not None:
        made = put_rules(made, rule_list.listed(step.rules, now))
    return made


def moved(changes: Changes, builder: Builder, now: float) -> Changes:
    """Give what moves by itself its number; the same changes if all have theirs.

    Raises:
        APIError: There is no such setting or rule any more, or it takes no such number.
    """
    plan = builder.planned(changes)
    if plan is None:
        return changes
    made = changes
    for path, value in plan.schedule.values(now - plan.began_at):
        made = with_number(made, builder, path, value)
    return made


def with_number(changes: Changes, builder: Builder, path: str, value: float) -> Changes:
    """Give one setting, or one field of a rule, a number: a whole one where it takes no other.

    Raises:
        APIError: There is none of this path, or it takes no such number.
    """
    exact = round(value, 3)
    if exact.is_integer():
        return _with_number(changes, builder, path, int(exact))
    try:
        return _with_number(changes, builder, path, exact)
    except APIError:
        return _with_number(changes, builder, path, round(value))


def _with_number(changes: Changes, builder: Builder, path: str, number: float) -> Changes:
    if path.startswith(_RULES):
        made = _with_number_of_rule(changes, builder, path, number)
    else:
        made = patch_settings(changes, patch_of(path, number))
    if made != changes:
        builder.build(made)
    return made


def _with_number_of_rule(changes: Changes, builder: Builder, path: str, number: float) -> Changes:
    entries = builder.entries(changes)
    for index, entry in enumerate(entries):
        start = f"{_RULES}{entry.data['name']}."
        if path.startswith(start):
            *outer, name = path.removeprefix(start).split(".")
            data = within = dict(entry.data)
            for each in outer:
                inner = within.get(each)
                within[each] = dict(inner) if isinstance(inner, Mapping) else {}
                within = within[each]
            if within.get(name) == number:
                return changes
            within[name] = number
            return put_rules(
                changes, [*entries[:index], entry._replace(data=data), *entries[index + 1 :]]
            )
    raise refused_at(("of",), f"expected the name of a rule after 'rules.', but got '{path:.128}'")
