"""An answer that a rule writes: its tokens, and the segments that are made of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, TypeAlias

from emulator.answers.answer import Call, Segment
from emulator.answers.ask import CallKind
from emulator.answers.stops import hold_back
from emulator.timing.plan import FinishReason
from tokenizer import split_tokens

PartKind: TypeAlias = Literal["text", "reasoning", "refusal", "call"]
MAX_LENGTH_REMEMBERED = 2048  # characters


@dataclass(frozen=True, slots=True)
class ScriptPart:
    """A run of tokens that go to one place.

    Args:
        kind: Where they go.
        tokens: The tokens of the scripted text.
        name: The name of a tool that is called.
        call_kind: The kind of the call.
        id: The id of the call; empty for one of its own.
    """

    kind: PartKind
    tokens: Sequence[str]
    name: str = ""
    call_kind: CallKind = "function"
    id: str = ""


@dataclass(frozen=True, slots=True)
class Script:
    """What every choice says; of no parts, it says nothing of the content.

    Args:
        parts: The parts, reasoning first.
        finish_reason: Why it ends, where it is not cut; None for the reason that is true.
    """

    parts: Sequence[ScriptPart] = ()
    finish_reason: FinishReason | None = None

    @property
    def reasoning(self) -> Sequence[str]:
        """The tokens of the reasoning."""
        return [t for part in self.parts if part.kind == "reasoning" for t in part.tokens]

    @property
    def visible_tokens(self) -> int:
        """How many tokens come after the reasoning."""
        return sum(len(part.tokens) for part in self.parts if part.kind != "reasoning")


@dataclass(frozen=True, slots=True)
class Told:
    """Metadata that a rule sets for an answer; None leaves the emulator's own value.

    Args:
        id: Its id.
        model: The model.
        system_fingerprint: The fingerprint.
        service_tier: The service tier.
        usage: Figures of the usage, by name.
        embedding: The vector of each input.
    """

    id: str | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    usage: Mapping[str, int] | None = None
    embedding: Sequence[float] | None = None


def script_tokens(text: str, model: str) -> Sequence[str]:
    """Return the tokens of a text; short texts are cached."""
    if len(text) <= MAX_LENGTH_REMEMBERED:
        return _remembered(text, model)
    return split_tokens(text, model)


@lru_cache(1024)
def _remembered(text: str, model: str) -> Sequence[str]:
    return tuple(split_tokens(text, model))


@dataclass(slots=True)
class ScriptedChoice:
    """The segments of one choice, which are made part by part.

    ``slots`` is how many tokens it takes on the clock, ``token_slots`` where each leaves if stop
    sequences are watched for, and ``end`` why it ended early, if it did.

    Args:
        segments: What comes before.
        slots: How many tokens that takes.
        left: How many tokens may follow.
    """

    segments: list[Segment]
    slots: int
    left: int
    token_slots: list[int] = field(default_factory=list)
    calls: int = 0
    end: FinishReason | None = None
    stop: str | int | None = None

    def write(
        self, script: Script, call_id: Callable[[], str], stops: Sequence[str], model: str
    ) -> None:
        """Write all parts, as far as they are not cut.

        Args:
            script: What is said.
            call_id: Returns the id of a call.
            stops: Stop sequences, which end a text.
            model: The model, whose encoding splits what a stop leaves of a token.
        """
        self.token_slots += range(self.slots)
        for part in script.parts:
            if part.kind == "reasoning":
                continue
            if part.call_kind == "function_call" and self.calls:
                continue  # of those an answer has one
            tokens = part.tokens[: self.left]
            is_cut = len(tokens) < len(part.tokens)
            if is_cut and not tokens:
                self.end = "length"
            elif part.kind == "call":
                self._call(part, tokens, call_id)
            else:
                self._text(part, tokens, stops, model)
            if is_cut and self.end is None:
                self.end = "length"
            if self.end is not None:
                return

    def _call(self, part: ScriptPart, tokens: Sequence[str], call_id: Callable[[], str]) -> None:
        call = Call(self.calls, part.id or call_id(), part.call_kind, part.name)
        self.calls += 1
        self._add(Segment(tokens, call))

    def _add(self, segment: Segment) -> None:
        size = len(segment.tokens)
        self.segments.append(segment)
        self.token_slots += range(self.slots, self.slots + size)
        self.slots += size
        self.left -= size

    def _text(
        self, part: ScriptPart, tokens: Sequence[str], stops: Sequence[str], model: str
    ) -> None:
        is_refusal = part.kind == "refusal"
        if not stops:
            self._add(Segment(tokens, is_json=True, refusal=is_refusal))
            return
        held = hold_back(tokens, stops, lambda text: split_tokens(text, model))
        self.segments.append(Segment(held.tokens, is_json=True, refusal=is_refusal))
        self.token_slots += [self.slots + slot for slot in held.token_slots]
        self.slots += held.slots
        self.left -= held.slots
        if held.stopped:
            self.end, self.stop = "stop", held.stop
