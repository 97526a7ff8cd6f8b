"""What changes by itself: steps, numbers that move and rules that end, in simulated time."""

import json
import math
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_core import from_json

from emulator.contract.errors import APIError
from emulator.control.changes import alterations, rule_list
from emulator.control.changes.building import Builder
from emulator.control.changes.document import NOTHING, Changes
from emulator.control.changes.schedule import Schedule
from emulator.control.changes.trying import try_schedule
from emulator.settings import Settings
from emulator.state import read_state
from tests.support.simulated.loop import run_simulated

BEGIN = 1_000_000.0


class Played:
    """A schedule that is played in simulated time, as the driver plays it.

    ``told`` has each change: when it was, in s after the beginning, and the settings then.
    """

    def __init__(self, body: dict[str, Any]) -> None:
        self.builder = Builder(read_state(Settings(engine="paper")))
        self.schedule = Schedule.model_validate_json(json.dumps(body))
        self.changes = alterations.put_schedule(NOTHING, self.schedule, BEGIN)
        self.told: list[tuple[float, dict[str, Any]]] = []

    def play(self, until_s: float) -> list[tuple[float, dict[str, Any]]]:
        """Make all changes until an instant; return them."""
        now = BEGIN
        while True:
            made = self._advanced(now)
            if made != self.changes:
                self.changes = made
                self.told.append((round(now - BEGIN, 3), from_json(made.settings)))
                continue
            due_at = alterations.next_due(self.changes, self.builder, now)
            if due_at is None or due_at > BEGIN + until_s:
                return self.told
            assert due_at > now
            now = due_at

    def _advanced(self, now: float) -> Changes:
        left = alterations.without_expired(self.changes, self.builder, now)
        if left is not None:
            return left
        step = alterations.step_due(self.changes, self.builder, now)
        if step is not None:
            return alterations.stepped(self.changes, step, now)
        return alterations.moved(self.changes, self.builder, now)


def itls(told: list[tuple[float, dict[str, Any]]]) -> list[tuple[float, float]]:
    """Return when the ITL was changed, and to what."""
    return [(at_s, settings["itl_ms"]) for at_s, settings in told]


def test_steps_come_in_their_time_and_once() -> None:
    """Each step is made at its time, and the rest of the settings stays."""
    played = Played(
        {
            "steps": [
                {"at_s": 0, "settings": {"itl_ms": 5}},
                {"at_s": 2.5, "settings": {"ttft_ms": 1}},
                {"at_s": 4, "settings": {"itl_ms": None}},
            ]
        }
    )
    assert played.play(100) == [
        (0, {"itl_ms": 5}),
        (2.5, {"itl_ms": 5, "ttft_ms": 1}),
        (4, {"ttft_ms": 1}),
    ]
    assert alterations.next_due(played.changes, played.builder, BEGIN + 100) is None


def test_rounds_repeat() -> None:
    """A schedule that repeats begins each round anew, as often as it says."""
    steps = [{"at_s": 0, "settings": {"itl_ms": 1}}, {"at_s": 1, "settings": {"itl_ms": 2}}]
    played = Played({"steps": steps, "repeat": 3, "length_s": 10})
    assert itls(played.play(100)) == [(0, 1), (1, 2), (10, 1), (11, 2), (20, 1), (21, 2)]
    forever = Played({"steps": steps, "repeat": "forever", "length_s": 10})
    assert len(forever.play(999)) == 200


def test_a_late_driver_makes_all_steps_in_order() -> None:
    """Who takes over late makes what was missed, one change for each step."""
    steps = [{"at_s": at_s, "settings": {"itl_ms": at_s}} for at_s in range(4)]
    played = Played({"steps": steps})
    late = BEGIN + 2
    for expected in (0, 1, 2):
        step = alterations.step_due(played.changes, played.builder, late)
        assert step is not None
        assert step.settings == {"itl_ms": expected}
        played.changes = alterations.stepped(played.changes, step, late)
    assert alterations.step_due(played.changes, played.builder, late) is None


def test_a_ramp_goes_evenly_and_stays() -> None:
    """A ramp moves once a second from one end to the other, and then leaves the number alone."""
    ramp = {"form": "ramp", "of": "itl_ms", "from": 10, "to": 50, "over_s": 4, "at_s": 1}
    told = Played({"waves": [ramp]}).play(100)
    assert itls(told) == [(1, 10), (2, 20), (3, 30), (4, 40), (5, 50)]


def test_a_square_wave_jumps_and_ends_low() -> None:
    """A square wave is high for its duty of each period, and low at the end."""
    square = {"form": "square", "of": "itl_ms", "low": 1, "high": 9, "period_s": 4, "for_s": 10}
    told = Played({"waves": [{**square, "duty": 0.25}]}).play(100)
    assert itls(told) == [(0, 9), (1, 1), (4, 9), (5, 1), (8, 9), (9, 1)]


def test_a_sine_swings_between_its_ends() -> None:
    """A sine begins in the middle, touches both ends and ends low; a number moves once a second."""
    sine = {"form": "sine", "of": "itl_ms", "low": 10, "high": 30, "period_s": 8, "for_s": 16}
    told = itls(Played({"waves": [sine]}).play(100))
    values = dict(told)
    assert (values[0], values[2], values[6], told[-1]) == (20, 30, 10, (16, 10))
    assert all(
        value == pytest.approx(20 + 10 * math.sin(at_s * math.pi / 4), abs=0.001)
        for at_s, value in told[:-1]
    )
    times = [at_s for at_s, _ in told]
    assert all(later - earlier >= 1 for earlier, later in pairwise(times))


def test_whole_numbers_stay_whole() -> None:
    """A setting that takes whole numbers gets the nearest."""
    ramp = {"form": "ramp", "of": "output_length", "from": 1, "to": 4, "over_s": 2}
    told = Played({"waves": [ramp]}).play(100)
    assert [settings["output_length"] for _, settings in told] == [1, 2, 4]


def test_what_is_nested_moves_too() -> None:
    """A path leads into the engine."""
    ramp = {"form": "ramp", "of": "engine.step_base_ms", "from": 5, "to": 6, "over_s": 1}
    told = Played({"waves": [ramp]}).play(100)
    assert [settings["engine"]["step_base_ms"] for _, settings in told] == [5, 6]


def test_a_number_of_a_rule_moves() -> None:
    """A rule's probability can move; the rest of the rule stays."""
    rule = {
        "name": "flaky.one",
        "match": {"model": "a"},
        "fault": {"status": 503},
        "probability": 1,
    }
    ramp = {"form": "ramp", "of": "rules.flaky.one.probability", "from": 0, "to": 1, "over_s": 4}
    played = Played({"steps": [{"at_s": 0, "rules": [rule]}], "waves": [ramp]})
    seen: list[float] = []
    while True:
        now = BEGIN + len(seen)
        while (made := played._advanced(now)) != played.changes:
            played.changes = made
        (entry,) = played.builder.entries(played.changes)
        seen.append(entry.data["probability"])
        assert entry.data["fault"]["status"] == 503
        if len(seen) == 5:
            break
    assert seen == [0, 0.25, 0.5, 0.75, 1]


def test_rules_end_by_themselves() -> None:
    """A rule with ttl_s is taken away when its time is over, and the others stay."""
    builder = Builder(read_state(Settings()))
    body = [
        {"name": "short", "fault": {"status": 500}, "ttl_s": 3},
        {"name": "long", "fault": {"status": 500}},
    ]
    changes = alterations.put_rules(NOTHING, rule_list.listed(body, BEGIN))
    assert alterations.next_due(changes, builder, BEGIN) == BEGIN + 3
    assert alterations.without_expired(changes, builder, BEGIN + 2.999) is None
    left = alterations.without_expired(changes, builder, BEGIN + 3)
    assert left is not None
    assert [entry.data["name"] for entry in builder.entries(left)] == ["long"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "expected one of steps and waves"),
        ({"steps": [{"at_s": 1}]}, "expected one of settings, rules and mark"),
        ({"steps": [{"at_s": 2, "mark": "a"}, {"at_s": 1, "mark": "b"}]}, "order of at_s"),
        ({"steps": [{"at_s": 9, "mark": "a"}], "length_s": 5}, "at least 9"),
        ({"steps": [{"at_s": 0, "mark": "a"}], "repeat": 2}, "rounds of a second"),
        ({"waves": [{"form": "saw", "of": "itl_ms"}]}, "ramp"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(body: dict[str, Any], words: str) -> None:
    """What cannot be meant is refused by name."""
    with pytest.raises(ValidationError, match=words):
        Schedule.model_validate(body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"steps": [{"at_s": 0, "settings": {"itl_ms": -1}}]}, "steps[0].settings.itl_ms"),
        (
            {
                "steps": [
                    {"at_s": 0, "settings": {"max_output_length": 50}},
                    {"at_s": 1, "settings": {"output_length": 51}},
                ]
            },
            "steps[1].settings.output_length",
        ),
        (
            {"steps": [{"at_s": 0, "rules": [{"fault": {"status": 5}}]}]},
            "steps[0].rules[0].fault.status",
        ),
        (
            {"waves": [{"form": "ramp", "of": "itl_m", "from": 0, "to": 1, "over_s": 5}]},
            "waves[0].of",
        ),
        (
            {"waves": [{"form": "ramp", "of": "itl_ms", "from": 0, "to": 1e9, "over_s": 5}]},
            "waves[0].of",
        ),
        (
            {"waves": [{"form": "ramp", "of": "models", "from": 0, "to": 1, "over_s": 5}]},
            "waves[0].of",
        ),
        (
            {"waves": [{"form": "ramp", "of": "rules.x.status", "from": 0, "to": 1, "over_s": 5}]},
            "waves[0].of",
        ),
    ],
)
def test_a_schedule_that_would_fail_later_is_refused(body: dict[str, Any], param: str) -> None:
    """All steps and both ends of each wave are tried before it begins."""
    schedule = Schedule.model_validate(body)
    builder = Builder(read_state(Settings()))
    with pytest.raises(APIError) as error:
        run_simulated(try_schedule(NOTHING, builder, schedule, BEGIN))
    assert error.value.body.param == param
