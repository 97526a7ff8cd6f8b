"""From what a rule says to the answer of one request: templates filled, texts as tokens."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from emulator.answers.ask import CallKind
from emulator.answers.script import PartKind, Script, ScriptPart, Told, script_tokens
from emulator.contract.errors import APIError
from emulator.rules.globs import Budget
from emulator.rules.model import Scripted, ScriptedCall
from emulator.rules.subject import Subject
from emulator.rules.templates import TemplateError, compiled, fill, is_template


class ScriptError(APIError):
    """A rule's answer cannot be made; ``why`` is for the log."""

    def __init__(self, rule: str, why: str) -> None:
        super().__init__(
            f"The answer of the rule '{rule}' cannot be made.",
            status=500,
            type="server_error",
            code="rule_failed",
        )
        self.rule = rule
        self.why = why


class _Said(NamedTuple):
    """A text or a call, before its template is filled; JSON where it is no text."""

    kind: str
    content: Any
    call: ScriptedCall | None = None


def sources_of(answer: Scripted) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield where in an answer the texts stand that are templates, and they."""
    if not answer.template:
        return
    for place, said in _placed(answer):
        for at, text in _texts(said.content):
            if is_template(text):
                yield (*place, *at), text


def _texts(value: object) -> Iterator[tuple[tuple[str | int, ...], str]]:
    match value:
        case str():
            yield (), value
        case list():
            for index, item in enumerate(value):
                yield from (((index, *at), text) for at, text in _texts(item))
        case dict():
            for name, item in value.items():
                yield from (((name, *at), text) for at, text in _texts(item))


def _placed(answer: Scripted) -> Iterator[tuple[tuple[str | int, ...], _Said]]:
    """Yield all that an answer says in its order, and where in the rule that stands."""
    for index, part in enumerate(answer.parts or ()):
        (kind,) = part.model_fields_set
        place = ("parts", index, kind)
        if part.tool_call is not None:
            call = part.tool_call
            yield (*place, "arguments"), _Said("call", call.arguments, call)
        else:
            yield place, _Said(kind, getattr(part, kind) or "")
    for kind in ("reasoning", "text", "refusal"):
        if (text := getattr(answer, kind)) is not None:
            yield (kind,), _Said(kind, text)
    if "json_value" in answer.model_fields_set:
        yield ("json",), _Said("json", answer.json_value)
    for index, call in enumerate(answer.tool_calls or ()):
        yield ("tool_calls", index, "arguments"), _Said("call", call.arguments, call)


def script_of(
    answer: Scripted, rule: str, number: int, subject: Subject, budget: Budget
) -> Script | None:
    """Return the scripted texts of a request's choices; None if the script has none.

    Args:
        answer: What the rule says.
        rule: The rule's name.
        number: Which match of the rule this is.
        subject: The request.
        budget: The time that its templates may take.

    Raises:
        ScriptError: A template fails.
        OverBudgetError: It takes too long.
    """
    if not answer.has_content:
        return Script((), answer.finish_reason)
    values = _Values(subject, number)
    parts = []
    for place, said in _placed(answer):
        kind = _call_kind(said.call, subject) if said.call is not None else None
        if said.call is not None and kind is None:
            continue
        try:
            text = _text(said, values, budget, is_template=answer.template)
        except TemplateError as error:
            raise ScriptError(rule, f"answer.{'.'.join(map(str, place))}: {error}") from None
        tokens = script_tokens(text, subject.ask.model)
        if said.call is not None and kind is not None:
            parts.append(ScriptPart("call", tokens, said.call.name, kind, said.call.id or ""))
        else:
            parts.append(ScriptPart(_PLACES.get(said.kind, "text"), tokens))
    return Script(tuple(parts), answer.finish_reason) if parts else None


def _text(said: _Said, values: "_Values", budget: Budget, *, is_template: bool) -> str:
    content = said.content
    if is_template:
        content = fill(content, lambda text: _filled(text, values, budget))
    is_text = isinstance(content, str) and said.kind != "json"
    return content if is_text else json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _filled(text: str, values: "_Values", budget: Budget) -> str:
    if not is_template(text):
        return text
    template = compiled(text)
    return template.render(values.of(template.names), budget)


class _Values:
    """What templates read of a request."""

    def __init__(self, subject: Subject, number: int) -> None:
        self._subject = subject
        self._number = number

    def of(self, names: frozenset[str]) -> Mapping[str, Any]:
        """Return the values of some names."""
        subject = self._subject
        made: Mapping[str, Callable[[], Any]] = {
            "user": lambda: subject.raw_text,
            "messages": lambda: subject.conversation.messages,
            "tool_result": lambda: subject.conversation.tool_result,
            "model": lambda: subject.ask.model,
            "turn": lambda: subject.conversation.turn,
            "n": lambda: self._number,
        }
        values = {name: made[name]() for name in names}
        return {name: value for name, value in values.items() if value is not None}


def _call_kind(call: ScriptedCall, subject: Subject) -> CallKind | None:
    """Return the kind of a call; None if the request may not get it."""
    if not subject.conversation.may_call:
        return None
    return subject.tools.get(call.name, None if call.offered else "function")


def told_of(answer: Scripted) -> Told | None:
    """Return what stands around an answer; None if nothing does."""
    if answer.model_fields_set.isdisjoint(_TOLD):
        return None
    usage = None if answer.usage is None else answer.usage.model_dump(exclude_none=True)
    return Told(
        answer.id,
        answer.model,
        answer.system_fingerprint,
        answer.service_tier,
        usage,
        answer.embedding,
    )


_PLACES: Mapping[str, PartKind] = {"reasoning": "reasoning", "refusal": "refusal"}
_TOLD = {"id", "model", "system_fingerprint", "service_tier", "usage", "embedding"}
