"""The schedule: steps at given times, and numbers that move over time. Pure."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import from_json, to_json

MAX_STEPS = 256
MAX_WAVES = 16
MAX_SCHEDULE_S = 30 * 86_400
MAX_REPEATS = 1_000_000
MAX_MARK_LENGTH = 256
# A number moves at most so often, and its last value is set so long after its end at most.
WAVE_EVERY_S = 1
_WAVE_GRACE_S = 5

_Seconds = Annotated[float, Field(ge=0, le=MAX_SCHEDULE_S)]
_Duration = Annotated[float, Field(ge=1, le=MAX_SCHEDULE_S)]
Mark = Annotated[str, Field(min_length=1, max_length=MAX_MARK_LENGTH)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Step(_Part):
    """What changes at one instant."""

    at_s: _Seconds = Field(description="seconds after the beginning of each round")
    settings: dict[str, Any] | None = Field(None, description="a merge patch, as for PATCH")
    rules: list[Any] | None = Field(None, description="all rules from then on, as for PUT")
    mark: Mark | None = Field(None, description="a text for journal and charts")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.settings is None and self.rules is None and self.mark is None:
            raise ValueError("expected one of settings, rules and mark")
        return self


class _Wave(_Part):
    of: str = Field(
        min_length=1,
        max_length=256,
        description="a setting's path, or rules.<name>.<path> for a number of a rule",
    )
    at_s: _Seconds = Field(0, description="seconds after the beginning of each round")


class Ramp(_Wave):
    """A number that goes evenly from one value to another, and stays there."""

    form: Literal["ramp"]
    low: float = Field(alias="from")
    high: float = Field(alias="to")
    over_s: _Duration

    @property
    def end_s(self) -> float:
        """When it ends, in the round."""
        return self.at_s + self.over_s

    def value(self, elapsed_s: float) -> float:
        """Return the number so long after its beginning."""
        return self.low + (self.high - self.low) * min(elapsed_s / self.over_s, 1)


class _Periodic(_Wave):
    low: float
    high: float
    period_s: Annotated[float, Field(ge=2, le=MAX_SCHEDULE_S)]
    for_s: _Duration = Field(description="how long it goes on; it ends at low")

    @property
    def end_s(self) -> float:
        """When it ends, in the round."""
        return self.at_s + self.for_s


class Square(_Periodic):
    """A number that is high for a part of each period, from its beginning, and else low."""

    form: Literal["square"]
    duty: float = Field(0.5, gt=0, lt=1, description="the part of a period that is high")

    def value(self, elapsed_s: float) -> float:
        """Return the number so long after its beginning."""
        if elapsed_s >= self.for_s:
            return self.low
        return self.high if elapsed_s % self.period_s < self.duty * self.period_s else self.low


class Sine(_Periodic):
    """A number that swings between low and high; it begins in the middle, and rises."""

    form: Literal["sine"]

    def value(self, elapsed_s: float) -> float:
        """Return the number so long after its beginning."""
        if elapsed_s >= self.for_s:
            return self.low
        share = (1 + math.sin(2 * math.pi * elapsed_s / self.period_s)) / 2
        return self.low + (self.high - self.low) * share


Wave: TypeAlias = Annotated[Ramp | Square | Sine, Field(discriminator="form")]


class Schedule(_Part):
    """The body of PUT /emulator/schedule."""

    steps: list[Step] = Field([], max_length=MAX_STEPS)
    waves: list[Wave] = Field([], max_length=MAX_WAVES)
    repeat: Annotated[int, Field(ge=1, le=MAX_REPEATS)] | Literal["forever"] = Field(
        1, description="how many rounds, or forever"
    )
    length_s: Annotated[float, Field(ge=1, le=MAX_SCHEDULE_S)] | None = Field(
        None, description="how long a round takes; by default until its last step or wave"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.steps and not self.waves:
            raise ValueError("expected one of steps and waves")
        times = [step.at_s for step in self.steps]
        if times != sorted(times):
            raise ValueError("steps: expected them in the order of at_s")
        if self.length_s is not None and self.length_s < self._last_s:
            raise ValueError(
                f"length_s: expected at least {self._last_s:g}, when the last of it is, "
                f"but got {self.length_s:g}"
            )
        if self.repeat != 1 and self.round_s < 1:
            raise ValueError("repeat: expected rounds of a second at least, or length_s")
        return self

    @property
    def _last_s(self) -> float:
        return max(
            (*(step.at_s for step in self.steps), *(wave.end_s for wave in self.waves)), default=0
        )

    @property
    def round_s(self) -> float:
        """How long a round takes."""
        return self._last_s if self.length_s is None else self.length_s

    @property
    def rounds(self) -> float:
        """How many rounds there are; infinite for those that never end."""
        return math.inf if self.repeat == "forever" else self.repeat

    def step(self, number: int) -> tuple[float, Step] | None:
        """Return a step by its number over all rounds, and when it is due; None after the last.

        The time is in seconds after the beginning of the schedule.
        """
        if not self.steps or number >= len(self.steps) * self.rounds:
            return None
        round_, index = divmod(number, len(self.steps))
        step = self.steps[index]
        return round_ * self.round_s + step.at_s, step

    def values(self, elapsed_s: float) -> Iterator[tuple[str, float]]:
        """Yield what moves now, and its number: the same at any instant of a second."""
        at_s = math.floor(elapsed_s / WAVE_EVERY_S) * WAVE_EVERY_S
        for wave in self.waves:
            since_s = self._in_round(at_s) - wave.at_s
            length_s = wave.end_s - wave.at_s
            if 0 <= since_s <= length_s + _WAVE_GRACE_S:
                yield wave.of, wave.value(since_s)

    def _in_round(self, elapsed_s: float) -> float:
        """Return the time in the round; after the last round it goes on."""
        if self.round_s <= 0:
            return elapsed_s
        round_ = min(elapsed_s // self.round_s, self.rounds - 1)
        return elapsed_s - round_ * self.round_s

    def next_wave_s(self, elapsed_s: float) -> float | None:
        """Return when a number moves next, in seconds after the beginning; None for never."""
        if not self.waves:
            return None
        end_s = max(wave.end_s for wave in self.waves) + (self.rounds - 1) * self.round_s
        if elapsed_s > end_s + _WAVE_GRACE_S:
            return None
        return (math.floor(elapsed_s / WAVE_EVERY_S) + 1) * WAVE_EVERY_S

    @property
    def end_s(self) -> float:
        """When all of it is over; infinite for never."""
        return self._last_s + (self.rounds - 1) * self.round_s


class Planned(NamedTuple):
    """A schedule, and when it began, on ``time.time()``."""

    schedule: Schedule
    began_at: float

    def packed(self) -> bytes:
        """Return it as the document of changes holds it."""
        return to_json([self.spec, self.began_at])

    @property
    def spec(self) -> dict[str, Any]:
        """The schedule as its body had it."""
        return self.schedule.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @classmethod
    def unpacked(cls, text: bytes) -> "Planned":
        """Return the schedule that a document of changes holds."""
        spec, began_at = from_json(text)
        return cls(Schedule.model_validate_json(to_json(spec)), began_at)


def patch_of(path: str, value: float) -> Mapping[str, Any]:
    """Return the merge patch that gives the setting of a path a number.

    >>> patch_of("engine.step_base_ms", 5)
    {'engine': {'step_base_ms': 5}}
    """
    *outer, name = path.split(".")
    patch: dict[str, Any] = {name: value}
    for each in reversed(outer):
        patch = {each: patch}
    return patch
