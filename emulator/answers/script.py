"""An answer that a rule says word by word, in words that belong to no API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from emulator.answers.ask import CallKind
from emulator.timing.plan import FinishReason
from tokenizer import split_tokens

PartKind: TypeAlias = Literal["text", "reasoning", "refusal", "call"]
MAX_LENGTH_REMEMBERED = 2048  # characters


@dataclass(frozen=True, slots=True)
class ScriptPart:
    """A run of tokens that go to one place.

    Args:
        kind: Where they go.
        tokens: They.
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
    """What stands around an answer in place of what is true; None where nothing does.

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
    """Return the tokens of a text; those of short ones are remembered."""
    if len(text) <= MAX_LENGTH_REMEMBERED:
        return _remembered(text, model)
    return split_tokens(text, model)


@lru_cache(1024)
def _remembered(text: str, model: str) -> Sequence[str]:
    return tuple(split_tokens(text, model))
