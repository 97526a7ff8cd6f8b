"""What each choice says, token by token: text, JSON or tool calls, and when it may leave."""

import random
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

from emulator.answers.answer import Answer, Call, Segment
from emulator.answers.ask import Ask, OfferedCall, too_many_logprobs, too_many_tokens
from emulator.answers.corpora import Texts
from emulator.answers.grammar_texts import GrammarTexts
from emulator.answers.instances import Instances, invalid_schema, schema_in_texts
from emulator.answers.logprobs import (
    Likelihoods,
    Logprobs,
    ScoredPrompts,
    TextLogprobs,
    bytes_of_parts,
)
from emulator.answers.script import Script, ScriptedChoice
from emulator.answers.stops import end_at, hold_back
from emulator.contract.bounds import MAX_LOGPROBS, MAX_TOKENS_OF_ALL_CHOICES
from emulator.contract.errors import APIError
from emulator.contract.headers import EmulationHeaders
from emulator.schema_instances import SchemaError, least_values
from emulator.timing.plan import FinishReason, GenerationPlan
from tokenizer import split_tokens, token_ids

# What satisfies "any JSON object" where no schema is given.
JSON_OBJECT_SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "answer": {"type": "string"}},
    "required": ["title", "answer"],
}

# Texts are told apart by so many tokens; and 128 choices of two tokens take up to 700 redraws.
OPENING = 64
MAX_REDRAWS = 4096
SUMMARY = 24  # tokens of a summary of the reasoning, at the most
MAX_VALUES_OF_ALL_CHOICES = 2**16  # in JSON; they take about 2 s
MAX_CALLS_OF_ALL_CHOICES = 1024

MAX_TOKENS_PLAIN = 16_384
MAX_TOKENS_QUICK = 2048


def call_id(rng: random.Random) -> str:
    """Return a new id of a tool call."""
    return f"call_{''.join(rng.choices(_ALPHANUMERIC, k=24))}"


_ALPHANUMERIC = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

NO_THOUGHT = Segment([], reasoning=True)  # what an empty answer has in place of an empty text


class Composer:
    """Decides what the choices of one request say.

    ``note`` is what the log says of how they came about, if anything.

    Args:
        ask: What the choices have to say.
        plan: The length of a plain text and the client's limit.
        corpus: Holds the texts.
        material: The texts that tell this request from others with the same seed.
        asked: What was asked beside the body.
        scored: The prompts with log probabilities, which those of the answers go on from.
    """

    def __init__(
        self,
        ask: Ask,
        plan: GenerationPlan,
        corpus: Texts,
        material: Sequence[str],
        asked: EmulationHeaders,
        *,
        scored: ScoredPrompts | None = None,
    ) -> None:
        self._ask = ask
        self._plan = plan
        self._corpus = corpus
        self._asked = asked
        self._reasoning = plan.reasoning_tokens - plan.hidden_tokens
        self._tokens_left = MAX_TOKENS_OF_ALL_CHOICES - plan.reasoning_tokens * ask.choices
        self._scored = scored
        self._logprobs_left = MAX_LOGPROBS - (scored.figures if scored is not None else 0)
        self._grammar_texts = GrammarTexts(ask.model)
        self._openings: set[tuple[str, ...]] = set()
        self._redraws_left = MAX_REDRAWS
        self._seed: str | None = None
        self._found: dict[str, Any] | None = None
        self.note = ""
        if ask.seed is not None:
            self._seed = "\0".join([str(ask.seed), ask.model, *material])

    @cached_property
    def _instances(self) -> Instances:
        """What makes the instances of schemas, for those who need one."""
        return Instances(self._ask.model, self._asked, is_ascii=self._corpus.is_ascii)

    def _spend(self, tokens: int, source: str) -> None:
        """Count tokens of the answers; `source` is what asked for them.

        Raises:
            APIError: All choices together have too many.
        """
        self._tokens_left -= tokens
        if self._tokens_left < 0:
            raise too_many_tokens(self._ask, source)

    def _rng(self, choice: int, purpose: str) -> random.Random:
        """Return the source of one choice's randomness: the seed's, else the corpus's."""
        if self._seed is None:
            return self._corpus.rng
        return random.Random(f"{purpose}\0{choice}\0{self._seed}")

    def compose(self) -> list[Answer]:
        """Return the choices: tool calls, JSON or text, as the request asks.

        Raises:
            APIError: Nothing satisfies a schema, or all choices together have too many tokens.
        """
        ask, script = self._ask, self._ask.script
        if not ask.generates:
            return [Answer(0, [NO_THOUGHT], "stop", 0)]
        if script is not None and script.parts:
            answers = [self._scripted(index, script) for index in range(ask.choices)]
        else:
            answers = self._made()
        if script is not None:
            answers = [_ended(answer, script.finish_reason) for answer in answers]
        if ask.token_ids:
            for segment in (segment for answer in answers for segment in answer.segments):
                segment.ids = token_ids(segment.tokens, ask.model)
        return answers

    def _made(self) -> list[Answer]:
        """Return the choices that no rule has written.

        Raises:
            APIError: Nothing satisfies a schema, or all choices together have too many tokens.
        """
        ask = self._ask
        calls = ask.calls(self._asked.tool_calls)
        if ask.schema_texts and not calls:
            self._found = schema_in_texts(ask.schema_texts)
        if calls or ask.schema is not None:
            self._refuse_many_values(calls, ask.schema)
        return [
            self._calls(index, calls)
            if calls
            else self._json(index, ask.schema)
            if ask.schema is not None
            else self._text(index)
            for index in range(ask.choices)
        ]

    def _text(self, index: int) -> Answer:
        """Return an answer in plain English, of the planned length unless a stop ends it."""
        tokens = self._words(index)
        self._spend(len(tokens), "prompt")
        return self._content(index, tokens, self._plan.finish_reason, self._logprobs(index))

    def _words(self, index: int) -> list[str]:
        """Return a text that no other choice for the prompt has, unless there are too few."""
        length, rng = self._plan.output_tokens, self._rng(index, "text")
        tokens = self._corpus.write(length, rng)
        n = self._ask.n
        if n == 1 or not tokens:
            return tokens
        if index % n == 0:
            self._openings.clear()
        while self._redraws_left and tuple(tokens[:OPENING]) in self._openings:
            self._redraws_left -= 1
            tokens = self._corpus.write(length, rng)
        self._openings.add(tuple(tokens[:OPENING]))
        return tokens

    def _refuse_many_values(
        self, calls: Sequence[OfferedCall], schema: dict[str, Any] | None
    ) -> None:
        """Refuse what all choices would take too long to hold, before any of them is made.

        Raises:
            APIError: There are more calls than ``MAX_CALLS_OF_ALL_CHOICES``, or the instances have
                more values than ``MAX_VALUES_OF_ALL_CHOICES``.
        """
        n = self._ask.choices
        if n * len(calls) > MAX_CALLS_OF_ALL_CHOICES:
            raise APIError(
                f"Invalid 'n': expected at most {MAX_CALLS_OF_ALL_CHOICES} tool calls in all "
                f"choices, but got {n * len(calls)}.",
                param="n",
                code="integer_above_max_value",
            )
        most = MAX_VALUES_OF_ALL_CHOICES // n
        if n * max(len(calls), 1) == 1:
            return  # one instance has a limit of its own
        if self._found is not None and least_values(self._found) > most:
            self._drop_found()
        schemas = [call.schema for call in calls] if calls else [schema]
        known: dict[int, int] = {id(s): least_values(s) for s in schemas if s is not None}
        if sum(known.get(id(s), 0) for s in schemas) > most:
            param = "n" if n > 1 else "X-TOOL-CALLS"
            raise APIError(
                f"Invalid '{param}': expected at most {MAX_VALUES_OF_ALL_CHOICES} JSON values in "
                "all choices, but got more.",
                param=param,
                code="integer_above_max_value",
            )

    def _drop_found(self) -> None:
        self._found = None
        self.note = " schema_in_message=unused"

    def _logprobs(self, index: int) -> Likelihoods | None:
        top = self._ask.logprobs
        if top is None:
            return None
        if self._scored is not None:
            return TextLogprobs(self._scored.ends[index // self._ask.n], top)
        return Logprobs(self._rng(index, "logprobs"), top)

    def _text_segment(self, tokens: Sequence[str], logprobs: Likelihoods | None) -> Segment:
        """Return some text, with the bytes that its log probabilities tell."""
        if logprobs is None:
            return Segment(tokens)
        return Segment(tokens, utf8=bytes_of_parts(tokens, self._ask.model))

    def _json(self, index: int, schema: dict[str, Any]) -> Answer:
        rng = self._rng(index, "json")
        made = self._instance_of_found(rng)
        if not made:
            is_text = self._ask.schema_is_text
            try:
                made = self._instances.tokens(schema, rng, fills=True, is_text=is_text)
            except SchemaError as error:
                raise invalid_schema(error, self._ask.names.schema, is_text=is_text) from None
        tokens, finish = _cut(made, "stop", self._plan.token_limit)
        self._spend(len(tokens), self._ask.names.format)
        answer = self._content(index, tokens, finish, self._logprobs(index))
        answer.segments[-1].is_json = True
        return answer

    def _calls(self, index: int, calls: Sequence[OfferedCall]) -> Answer:
        left = self._plan.token_limit
        if left == 0:
            return self._content(index, [], "length", None)
        rng = self._rng(index, "tools")
        finish: FinishReason = "function_call" if calls[0].kind == "function_call" else "tool_calls"
        if self._ask.names_call:
            finish = "stop"
        segments = self._reasoning_segments(index)
        for number, offered in enumerate(calls):
            if left == 0:
                finish = "length"
                break
            by_grammar = self._grammar_texts.tokens(offered, rng)
            tokens: list[str]
            if by_grammar is not None:
                tokens = by_grammar
            elif offered.schema is None:
                tokens = self._corpus.write(self._plan.output_tokens, rng)
                # The plan has cut it already.
                finish = "length" if self._plan.finish_reason == "length" else finish
            else:
                try:
                    tokens = self._instances.tokens(offered.schema, rng, fills=offered.strict)
                except SchemaError as error:
                    raise invalid_schema(error, offered.param) from None
            tokens, finish = _cut(tokens, finish, left)
            self._spend(len(tokens), "X-TOOL-CALLS")
            call = Call(number, call_id(rng), offered.kind, offered.name)
            segments.append(Segment(tokens, call))
            if finish == "length":
                break
            left = None if left is None else left - len(tokens)
        slots = sum(len(segment.tokens) for segment in segments)
        return self._thoughtful(Answer(index, segments, finish, slots))

    def _instance_of_found(self, rng: random.Random) -> list[str]:
        """Return an instance of the schema in the messages, nothing if there is no use in it."""
        if self._found is None:
            return []
        try:
            return self._instances.tokens(self._found, rng, fills=True)
        except SchemaError:
            self._drop_found()
            self._instances.spent_s = 0.0
            return []

    def _scripted(self, index: int, script: Script) -> Answer:
        """Return an answer that says what a rule has written."""
        ask, plan = self._ask, self._plan
        rng = self._rng(index, "tools")
        thoughts = self._reasoning_segments(index)
        choice = ScriptedChoice(thoughts, self._reasoning, plan.output_tokens)
        choice.write(script, partial(call_id, rng), ask.stops, ask.model)
        self._spend(choice.slots - self._reasoning, "prompt")
        visible = [segment for segment in choice.segments if not segment.reasoning]
        if not visible:
            choice.segments.append(Segment([], is_json=True))
        calls = [segment.call for segment in visible if segment.call is not None]
        finish: FinishReason = "stop"
        if calls and not ask.names_call:
            finish = "function_call" if calls[0].kind == "function_call" else "tool_calls"
        logprobs = None
        if len(visible) == 1 and not calls and not visible[0].refusal:
            logprobs = self._logprobs(index)
            self._spend_logprobs(logprobs, len(visible[0].tokens))
            visible[0].utf8 = self._text_segment(visible[0].tokens, logprobs).utf8
        answer = Answer(
            index,
            choice.segments,
            choice.end or finish,
            choice.slots,
            choice.token_slots if ask.stops else None,
            logprobs,
            stop_reason=choice.stop,
        )
        return self._thoughtful(answer)

    def _spend_logprobs(self, logprobs: Likelihoods | None, tokens: int) -> None:
        """Count the log probabilities of some tokens.

        Raises:
            APIError: All choices together have too many.
        """
        if logprobs is not None:
            self._logprobs_left -= tokens * (1 + logprobs.top)
            if self._logprobs_left < 0:
                raise too_many_logprobs(logprobs.top)

    def _reasoning_segments(self, index: int) -> list[Segment]:
        if not self._reasoning:
            return []
        if self._ask.script is not None and (thoughts := self._ask.script.reasoning):
            return [Segment(thoughts[: self._reasoning], reasoning=True)]
        thoughts = self._corpus.write(self._reasoning, self._rng(index, "reasoning"))
        return [Segment(thoughts, reasoning=True)]

    def _content(
        self, index: int, tokens: Sequence[str], finish: FinishReason, logprobs: Likelihoods | None
    ) -> Answer:
        """Return an answer of one text, which a stop sequence may end.

        Raises:
            APIError: All choices together have too many log probabilities.
        """
        self._spend_logprobs(logprobs, len(tokens))
        thoughts = self._reasoning_segments(index)
        offset = self._reasoning
        ask, stop_id = self._ask, None
        if ask.stop_ids:
            tokens, stop_id = self._ended_by_id(tokens)
        if not ask.stops and stop_id is None:
            segments = [*thoughts, self._text_segment(tokens, logprobs)]
            plain = Answer(index, segments, finish, offset + len(tokens), None, logprobs)
            return self._thoughtful(plain)
        split = partial(split_tokens, model=ask.model)
        held = hold_back(tokens, ask.stops, split, keeps=ask.keeps_stop)
        if held.stop is None and stop_id is not None:
            held.stop = stop_id
            held.slots += not ask.keeps_stop  # the token that is left out
        stopping = Answer(
            index,
            [*thoughts, self._text_segment(held.tokens, logprobs)],
            "stop" if held.stopped else finish,
            offset + held.slots,
            [*range(offset), *(offset + slot for slot in held.token_slots)],
            logprobs,
            stop_reason=held.stop,
        )
        return self._thoughtful(stopping)

    def _ended_by_id(self, tokens: Sequence[str]) -> tuple[Sequence[str], int | None]:
        """Return the tokens up to the first with an id that ends a text, and that id."""
        ask = self._ask
        ids = token_ids(tokens, ask.model)
        end = end_at(ids, ask.stop_ids, ask.min_tokens)
        if end is None:
            return tokens, None
        kept = tokens[: end + 1] if ask.keeps_stop else tokens[:end]
        return kept, next(each for each in ids[end] if each in ask.stop_ids)

    def _thoughtful(self, answer: Answer) -> Answer:
        """Note how much was thought before an answer, and sum it up if that was asked for."""
        answer.reasoning_tokens = self._plan.reasoning_tokens
        if isinstance(answer.logprobs, TextLogprobs):
            answer.logprobs.follow(answer.segments[-1].told_bytes())
        if answer.reasoning_tokens and self._ask.wants_summary:
            length = min(answer.reasoning_tokens, SUMMARY)
            summary = self._corpus.write(length, self._rng(answer.index, "summary"))
            answer.summary = "".join(summary)
        return answer


def is_quick(ask: Ask, plan: GenerationPlan, asked_calls: int) -> bool:
    """Tell whether to compose the answers takes under 0.5 ms.

    Texts do that are no longer than `MAX_TOKENS_QUICK`, or `MAX_TOKENS_PLAIN` if nothing more is
    to be done with them. JSON and tool calls never do: the time that a schema takes is not known.
    """
    if ask.token_ids or ask.stop_ids:
        return False  # the prompt's take as long as it is, and so may those that end a text
    tokens = (plan.output_tokens + plan.reasoning_tokens) * ask.choices
    if ask.script is not None and ask.script.parts:
        return tokens <= (MAX_TOKENS_QUICK if ask.stops else MAX_TOKENS_PLAIN)
    if ask.choices == 1 and not ask.stops and ask.schema is None and not ask.offered:
        return tokens <= MAX_TOKENS_PLAIN
    if tokens > MAX_TOKENS_QUICK:
        return False
    return ask.schema is None and not ask.calls(asked_calls)


def _ended(answer: Answer, finish: FinishReason | None) -> Answer:
    """Return an answer with another reason for its end, if nothing cut it."""
    if finish is not None and answer.finish_reason != "length":
        answer.finish_reason = finish
    return answer


def _cut(
    tokens: list[str], finish: FinishReason, limit: int | None
) -> tuple[list[str], FinishReason]:
    """Return at most `limit` tokens, and "length" if that cut them."""
    if limit is None or len(tokens) <= limit:
        return tokens, finish
    return tokens[:limit], "length"
