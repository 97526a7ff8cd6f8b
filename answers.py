"""What each choice says, token by token: text, JSON or tool calls, and when it may leave."""

import math
import random
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from schema_instances import SchemaError, dumps, instance
from schemas import (
    MAX_TOKENS_OF_ALL_CHOICES,
    AllowedToolsChoice,
    APIError,
    ChatCompletionRequest,
    CompletionRequest,
    CustomChoice,
    FinishReason,
    FunctionChoice,
    FunctionDefinition,
    FunctionTool,
    GenerationPlan,
    GenerationRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedTool,
    too_many_tokens,
)
from tokenizer import COMMON_WORDS, TokenGenerator, split_tokens

_JSON_OBJECT_SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "answer": {"type": "string"}},
    "required": ["title", "answer"],
}

# Texts are told apart by so many tokens; and 128 choices of two tokens take up to 700 redraws.
OPENING = 64
MAX_REDRAWS = 4096
MAX_INSTANCES_S = 10  # CPU time; the most tokens of all choices take about 2 s

CallKind = Literal["function", "custom", "function_call"]


@dataclass(slots=True)
class Call:
    """A tool call; ``index`` counts the calls of one answer, ``function_call`` is deprecated."""

    index: int
    id: str
    kind: CallKind
    name: str


@dataclass(slots=True)
class Segment:
    """A run of tokens that all go to one field: content, reasoning, or a call's arguments.

    ``is_json`` says that the tokens need escapes in an event, which plain English does not.
    """

    tokens: Sequence[str]
    call: Call | None = None
    reasoning: bool = False
    is_json: bool = False

    @property
    def text(self) -> str:
        """The tokens as one text."""
        return "".join(self.tokens)


class Likelihood(NamedTuple):
    """A token, the logarithm of its probability, and the likeliest tokens with theirs."""

    token: str
    logprob: float
    top: list[tuple[str, float]]


class Logprobs:
    """Plausible log probabilities of an answer's tokens, the same for the same seed.

    Each token's probability p is between 0.4 and 1, and alternative k, counted from 1, has
    (1 - p) / 2**k, so that the token comes first and all of them sum to less than 1.
    """

    def __init__(self, rng: random.Random, top: int) -> None:
        self._rng = rng
        self.top = top

    def entry(self, token: str) -> Likelihood:
        """Return the entry of the answer's next token."""
        rest = 0.6 * (1 - self._rng.random()) ** 2
        others = [word for word in self._rng.sample(COMMON_WORDS, self.top) if word != token]
        alternatives = [(other, math.log(rest / 2**k)) for k, other in enumerate(others, start=1)]
        itself = (token, math.log(1 - rest))
        return Likelihood(*itself, [itself, *alternatives][: self.top])


@dataclass(slots=True)
class Answer:
    """One choice.

    ``slots`` is the number of tokens that it takes on the clock. ``leaves[k]`` is the slot in which
    its token ``k`` leaves; None means token ``k`` leaves in slot ``k``.
    """

    index: int
    segments: list[Segment]
    finish_reason: FinishReason
    slots: int
    leaves: Sequence[int] | None = None
    logprobs: Logprobs | None = None

    @property
    def tokens(self) -> int:
        """How many tokens the client gets, reasoning aside."""
        return sum(len(segment.tokens) for segment in self.segments if not segment.reasoning)

    def left_after(self, slots: int) -> int:
        """Return how many tokens leave in the first `slots` slots."""
        return min(slots, self.slots) if self.leaves is None else bisect_left(self.leaves, slots)

    @property
    def is_plain(self) -> bool:
        """Whether it is nothing but plain English whose tokens leave one in each slot."""
        return (
            len(self.segments) == 1
            and not self.segments[0].is_json
            and self.segments[0].call is None
            and not self.segments[0].reasoning
            and self.leaves is None
            and self.logprobs is None
        )


class ComposingCancelledError(Exception):
    """Nobody waits for the answers any more."""


class Composer:
    """Decides what the choices of one request say.

    Composing may take seconds, in a thread; `cancel` ends it from another one.

    Args:
        request: A chat or a legacy completion request.
        plan: The length of a plain text and the client's limit.
        generator: Writes the texts.
        material: What beside the seed tells this request from others with the same seed.
    """

    def __init__(
        self,
        request: GenerationRequest,
        plan: GenerationPlan,
        generator: TokenGenerator,
        material: Sequence[str],
    ) -> None:
        self._request = request
        self._plan = plan
        self._generator = generator
        self._reasoning = plan.reasoning_tokens - plan.hidden_tokens
        self._tokens_left = MAX_TOKENS_OF_ALL_CHOICES - plan.reasoning_tokens * request.choices
        self._is_cancelled = False
        self._instances_s = 0.0
        self._openings: set[tuple[str, ...]] = set()
        self._redraws_left = MAX_REDRAWS
        self._seed: str | None = None
        if request.seed is not None:
            self._seed = "\0".join([str(request.seed), request.model, *material])

    def cancel(self) -> None:
        """Make composing in another thread raise `ComposingCancelledError` after its next text."""
        self._is_cancelled = True

    def _spend(self, tokens: int, source: str) -> None:
        """Count tokens of the answers; `source` is what asked for them.

        Raises:
            APIError: All choices together have too many.
            ComposingCancelledError: Nobody waits for the answers any more.
        """
        if self._is_cancelled:
            raise ComposingCancelledError
        self._tokens_left -= tokens
        if self._tokens_left < 0:
            raise too_many_tokens(self._request, source)

    def _rng(self, choice: int, purpose: str) -> random.Random:
        """Return the source of one choice's randomness: the seed's, else the generator's."""
        if self._seed is None:
            return self._generator.rng
        return random.Random(f"{purpose}\0{choice}\0{self._seed}")

    def legacy(self, request: CompletionRequest) -> list[Answer]:
        """Return the choices of a legacy completion: text, n for each prompt.

        Raises:
            ComposingCancelledError: Nobody waits for the answers any more.
        """
        top = request.logprobs
        return [
            self._text(index, None if top is None else Logprobs(self._rng(index, "logprobs"), top))
            for index in range(request.choices)
        ]

    def _text(self, index: int, logprobs: Logprobs | None) -> Answer:
        """Return an answer in plain English, of the planned length unless a stop ends it."""
        tokens = self._words(index)
        self._spend(len(tokens), "prompt")
        return self._content(index, tokens, self._plan.finish_reason, logprobs)

    def _words(self, index: int) -> list[str]:
        """Return a text that no other choice for the prompt has, unless there are too few."""
        length, rng = self._plan.output_tokens, self._rng(index, "text")
        tokens = self._generator.write(length, rng)
        n = self._request.n or 1
        if n == 1 or not tokens:
            return tokens
        if index % n == 0:
            self._openings.clear()
        while self._redraws_left and tuple(tokens[:OPENING]) in self._openings:
            self._redraws_left -= 1
            tokens = self._generator.write(length, rng)
        self._openings.add(tuple(tokens[:OPENING]))
        return tokens

    def chat(self, request: ChatCompletionRequest, asked_calls: int) -> list[Answer]:
        """Return the choices of a chat: tool calls, JSON or text, as the request asks.

        Raises:
            APIError: A named tool is not among the tools, nothing satisfies a schema, or all
                choices together have too many tokens.
            ComposingCancelledError: Nobody waits for the answers any more.
        """
        calls = tool_calls(request, asked_calls)
        schema = _response_schema(request)
        return [
            self._calls(index, calls)
            if calls
            else self._json(index, schema, self._logprobs(request, index))
            if schema is not None
            else self._text(index, self._logprobs(request, index))
            for index in range(request.choices)
        ]

    def _logprobs(self, request: ChatCompletionRequest, index: int) -> Logprobs | None:
        if not request.logprobs:
            return None
        return Logprobs(self._rng(index, "logprobs"), request.top_logprobs or 0)

    def _json(self, index: int, schema: dict[str, Any], logprobs: Logprobs | None) -> Answer:
        param = "response_format.json_schema.schema"
        made = self._instance(schema, self._rng(index, "json"), param)
        tokens, finish = _cut(made, "stop", self._plan.token_limit)
        self._spend(len(tokens), "response_format")
        answer = self._content(index, tokens, finish, logprobs)
        answer.segments[-1].is_json = True
        return answer

    def _calls(self, index: int, calls: Sequence["PlannedCall"]) -> Answer:
        left = self._plan.token_limit
        if left == 0:
            return self._content(index, [], "length", None)
        rng = self._rng(index, "tools")
        finish: FinishReason = "function_call" if calls[0].kind == "function_call" else "tool_calls"
        segments = self._reasoning_segments(index)
        for number, planned in enumerate(calls):
            if left == 0:
                finish = "length"
                break
            if planned.schema is None:
                tokens: list[str] = self._generator.write(self._plan.output_tokens, rng)
                # The plan has cut it already.
                finish = "length" if self._plan.finish_reason == "length" else finish
            else:
                tokens = self._instance(planned.schema, rng, planned.param)
            tokens, finish = _cut(tokens, finish, left)
            self._spend(len(tokens), "X-TOOL-CALLS")
            call = Call(number, call_id(rng), planned.kind, planned.name)
            segments.append(Segment(tokens, call))
            if finish == "length":
                break
            left = None if left is None else left - len(tokens)
        return Answer(index, segments, finish, sum(len(s.tokens) for s in segments))

    def _instance(self, schema: dict[str, Any], rng: random.Random, param: str) -> list[str]:
        started_s = time.thread_time()
        try:
            text = dumps(instance(schema, rng))
        except SchemaError as error:
            raise _invalid_schema(error, param) from None
        tokens = split_tokens(text, self._request.model)
        self._instances_s += time.thread_time() - started_s
        if self._instances_s > MAX_INSTANCES_S:
            slow = SchemaError(f"all its instances take over {MAX_INSTANCES_S} s")
            raise _invalid_schema(slow, param)
        return tokens

    def _reasoning_segments(self, index: int) -> list[Segment]:
        if not self._reasoning:
            return []
        thoughts = self._generator.write(self._reasoning, self._rng(index, "reasoning"))
        return [Segment(thoughts, reasoning=True)]

    def _content(
        self, index: int, tokens: Sequence[str], finish: FinishReason, logprobs: Logprobs | None
    ) -> Answer:
        """Return an answer of one text, which a stop sequence may end."""
        thoughts = self._reasoning_segments(index)
        offset = self._reasoning
        if not self._request.stops:
            segments = [*thoughts, Segment(tokens)]
            return Answer(index, segments, finish, offset + len(tokens), None, logprobs)
        held = hold_back(
            tokens, self._request.stops, lambda text: split_tokens(text, self._request.model)
        )
        return Answer(
            index,
            [*thoughts, Segment(held.tokens)],
            "stop" if held.stopped else finish,
            offset + held.slots,
            [*range(offset), *(offset + slot for slot in held.leaves)],
            logprobs,
        )


def _invalid_schema(error: SchemaError, param: str) -> APIError:
    where = f"{param}.{error.path}" if error.path else param
    return APIError(f"Invalid schema for '{where}': {error}", param=param, code="invalid_schema")


def _cut(
    tokens: list[str], finish: FinishReason, limit: int | None
) -> tuple[list[str], FinishReason]:
    """Return at most `limit` tokens, and "length" if that cut them."""
    if limit is None or len(tokens) <= limit:
        return tokens, finish
    return tokens[:limit], "length"


# --------------------------------------------------------------------------------------
# Stop sequences
# --------------------------------------------------------------------------------------


@dataclass(slots=True)
class HeldText:
    """What of a text leaves under the watch of its stop sequences.

    ``leaves[k]`` is the slot in which token ``k`` leaves, ``slots`` how many tokens were made.
    """

    tokens: list[str]
    leaves: list[int]
    slots: int
    stopped: bool


def hold_back(
    tokens: Sequence[str], stops: Sequence[str], split: Callable[[str], list[str]]
) -> HeldText:
    """End a text before the first complete stop sequence, and hold back what could become one.

    As on a real server, text that may be the start of a stop sequence leaves when it is known not
    to be, or with the end of the answer. What a stop leaves of a token is `split` anew, into no
    more tokens than were made.

    >>> hold_back(["a", "b", "c", "d"], ["bx"], list).leaves
    [0, 2, 2, 3]
    """
    text = "".join(tokens)
    slots, cut, safe = _watch(tokens, [stop[: len(text) + 1] for stop in stops])
    stopped = cut is not None
    kept: list[str] = []
    leaves: list[int] = []
    end = slot = 0
    for token in tokens[:slots]:
        whole = cut is None or end + len(token) <= cut
        if whole:
            kept.append(token)
        elif cut and end < cut:
            parts, most = split(token[: cut - end]), slots - len(kept)
            if len(parts) > most:
                parts = [*parts[: most - 1], "".join(parts[most - 1 :])]
            kept += parts
        end += len(token)
        while slot < slots - 1 and (safe[slot] < end or not whole):
            slot += 1
        leaves += [slot] * (len(kept) - len(leaves))
    return HeldText(kept, leaves, slots, stopped)


def _watch(tokens: Sequence[str], stops: Sequence[str]) -> tuple[int, int | None, list[int]]:
    """Look for stop sequences.

    Returns:
        How many tokens it took, where in the text the first complete stop sequence begins (None
        if there is none), and for each slot up to where the text is known to hold no part of one.
    """
    watches = [_Watch(stop) for stop in stops]
    safe: list[int] = []
    end = 0
    for slot, token in enumerate(tokens):
        for char in token:
            end += 1
            complete = [watch for watch in watches if watch.feed(char)]
            if complete:
                return slot + 1, end - max(len(watch.stop) for watch in complete), [*safe, 0]
        safe.append(end - max(watch.matched for watch in watches))
    return len(tokens), None, safe


class _Watch:
    """Knuth, Morris and Pratt's search for one stop sequence, a character at a time."""

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.matched = 0
        self._borders = [0] * len(stop)
        for i in range(1, len(stop)):
            self._borders[i] = self._extend(self._borders[i - 1], stop[i])

    def _extend(self, matched: int, char: str) -> int:
        while matched and self.stop[matched] != char:
            matched = self._borders[matched - 1]
        return matched + 1 if self.stop[matched] == char else 0

    def feed(self, char: str) -> bool:
        """Take the text's next character; return whether the stop sequence is complete."""
        self.matched = self._extend(self.matched, char)
        return self.matched == len(self.stop)


# --------------------------------------------------------------------------------------
# Tools and formats
# --------------------------------------------------------------------------------------


@dataclass(slots=True)
class PlannedCall:
    """A call to be made; ``schema`` is None for a tool that takes free text."""

    name: str
    kind: CallKind
    schema: dict[str, Any] | None
    param: str


def call_id(rng: random.Random) -> str:
    """Return a new id of a tool call."""
    return f"call_{''.join(rng.choices(_ALPHANUMERIC, k=24))}"


_ALPHANUMERIC = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def tool_calls(request: ChatCompletionRequest, asked: int) -> list[PlannedCall]:
    """Return the calls to make: none for a text.

    A required or named tool is called once, or `asked` times; with ``auto`` tools are called only
    if calls are asked for. Several calls go through the tools in turn. After the result of a tool
    comes text, whatever the request says, so that an agent's loop ends.

    Raises:
        APIError: The named tool, or every allowed one, is not among the tools.
    """
    offered, required = _offered_calls(request)
    if not offered or request.messages[-1].role in ("tool", "function"):
        return []
    count = max(asked, 1) if required else asked
    if request.parallel_tool_calls is False or offered[0].kind == "function_call":
        count = min(count, 1)
    return [offered[number % len(offered)] for number in range(count)]


def _offered_calls(request: ChatCompletionRequest) -> tuple[list[PlannedCall], bool]:
    """Return the calls that may be made, and whether one must be."""
    if request.tools is None:
        return _offered_functions(request)
    offered = [
        _planned(tool.function, "function", f"tools[{i}].function.parameters")
        if isinstance(tool, FunctionTool)
        else PlannedCall(tool.custom.name, "custom", None, f"tools[{i}].custom")
        for i, tool in enumerate(request.tools)
    ]
    match request.tool_choice:
        case FunctionChoice() | CustomChoice() as choice:
            return [_named(offered, choice.name, choice.type, "tool_choice")], True
        case AllowedToolsChoice(allowed_tools=allowed):
            names = {(tool.type, tool.name) for tool in allowed.tools}
            chosen = [call for call in offered if (call.kind, call.name) in names]
            if not chosen:
                raise APIError(
                    "Invalid value for 'tool_choice': none of the allowed tools was specified in "
                    "the 'tools' parameter.",
                    param="tool_choice",
                )
            return chosen, allowed.mode == "required"
        case "none":
            return [], False
        case mode:
            return offered, mode == "required"


def _offered_functions(request: ChatCompletionRequest) -> tuple[list[PlannedCall], bool]:
    offered = [
        _planned(function, "function_call", f"functions[{i}].parameters")
        for i, function in enumerate(request.functions or ())
    ]
    match request.function_call:
        case NamedTool(name=name):
            return [_named(offered, name, "function_call", "function_call")], True
        case "none":
            return [], False
        case _:
            return offered, False


def _planned(function: FunctionDefinition, kind: CallKind, param: str) -> PlannedCall:
    schema = {"type": "object", **(function.parameters or {})}
    return PlannedCall(function.name, kind, schema, param)


def _named(offered: Sequence[PlannedCall], name: str, kind: CallKind, param: str) -> PlannedCall:
    for call in offered:
        if (call.name, call.kind) == (name, kind):
            return call
    tools = "functions" if kind == "function_call" else "tools"
    raise APIError(
        f"Invalid value for '{param}': no {kind.replace('_call', '')} named '{name}' was "
        f"specified in the '{tools}' parameter.",
        param=param,
    )


def _response_schema(request: ChatCompletionRequest) -> dict[str, Any] | None:
    """Return the schema that the text must satisfy, None for plain text."""
    match request.response_format:
        case JsonObjectFormat():
            return _JSON_OBJECT_SCHEMA
        case JsonSchemaFormat(json_schema=named):
            return named.schema_ or _JSON_OBJECT_SCHEMA
        case _:
            return None
