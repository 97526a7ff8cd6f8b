"""An answer's content as one request asks for it, independent of the API.

Each API makes an `Ask` from its own body. Planning, composing, limits and sending know nothing else
of a body.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from emulator.contract.bounds import MAX_LOGPROBS, MAX_TOKENS_OF_ALL_CHOICES, MAX_TOOL_CALLS
from emulator.contract.errors import APIError

if TYPE_CHECKING:
    from emulator.answers.script import Script

CallKind: TypeAlias = Literal["function", "custom", "function_call"]


@dataclass(frozen=True, slots=True)
class OfferedCall:
    """A tool that an answer may call.

    Args:
        name: The tool's name.
        kind: ``function_call`` is the deprecated form.
        schema: The JSON schema of the arguments; None for a tool that takes free text.
        param: The path of the schema in the body, for errors.
        strict: Whether every call has all properties of the schema.
        grammar: Syntax and definition of the grammar that a free text has to follow.
    """

    name: str
    kind: CallKind
    schema: dict[str, Any] | None
    param: str
    strict: bool = False
    grammar: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ContextWords:
    """The error's words for a prompt and an answer that do not fit into a model's context.

    The messages have places for ``most``, ``total``, ``prompt`` and ``answer``, in tokens.

    Args:
        together: Tells that both do not fit.
        alone: Tells that not even the prompt does.
        param: The parameter at fault.
        code: OpenAI's code.
    """

    together: str = (
        "This model's maximum context length is {most} tokens. However, you requested {total} "
        "tokens ({prompt} in the messages, {answer} in the completion). Please reduce the length "
        "of the messages or completion."
    )
    alone: str = (
        "This model's maximum context length is {most} tokens. However, your messages resulted in "
        "{prompt} tokens. Please reduce the length of the messages."
    )
    param: str | None = "messages"
    code: str | None = "context_length_exceeded"

    def error(self, most: int, prompt: int, answer: int) -> APIError:
        """Return the error."""
        message = self.alone if prompt > most else self.together
        told = message.format(most=most, total=prompt + answer, prompt=prompt, answer=answer)
        return APIError(told, param=self.param, code=self.code)


@dataclass(frozen=True, slots=True)
class ParamNames:
    """The names that a client knows parameters by, and an API's own words, for errors."""

    limit: str = "max_tokens"
    effort: str = "reasoning_effort"
    format: str = "response_format"
    schema: str = "response_format.json_schema.schema"
    context: ContextWords = ContextWords()


DEFAULT_NAMES = ParamNames()


NO_IDS: frozenset[int] = frozenset()


@dataclass(slots=True)  # to freeze it would take each request 1 us
class Ask:
    """What a request asks of its answers.

    Args:
        model: The model's name.
        stream: Whether the answer is a stream of events.
        n: Answers for each prompt.
        prompts: The number of prompts.
        seed: Makes the same answer again.
        user: The end user that the client names.
        token_limit: The most tokens of one answer, reasoning included.
        min_tokens: The fewest tokens of one answer.
        generates: Whether anything is generated; else the answer is empty, and there at once.
        ignore_eos: Whether an answer is as long as its limit; None leaves it to the settings.
        effort: How hard to think.
        stops: Stop sequences.
        stop_ids: Token ids that end an answer like them.
        keeps_stop: Whether what ends an answer stays in it.
        logprobs: Alternatives of each token's log probability; None for no log probabilities.
        offered: Tools that may be called, in the order in which they are; empty if none may be.
        must_call: Whether a tool has to be called.
        names_call: Whether the client names the tool to call.
        most_calls: The most calls of one answer.
        schema: The JSON schema that the text has to satisfy.
        schema_is_text: Whether the text is a string of that schema by itself, not as JSON.
        schema_texts: Texts that may hold a schema to prefer, the last first.
        token_ids: Whether the ids of tokens are told, of the prompt's too.
        include_usage: Whether a stream ends with its usage.
        continuous_usage: Whether each event of a stream holds the usage so far.
        wants_summary: Whether a summary of the reasoning is wanted.
        can_show_reasoning: Whether the API has a place for the text of a reasoning.
        says_failed: Whether the API has an answer that says that it failed.
        script: What a rule has written for its answers.
        id_end: The last digits of the answer's id.
        names: The names of parameters.
    """

    model: str
    stream: bool = False
    n: int = 1
    prompts: int = 1
    seed: int | None = None
    user: str | None = None
    token_limit: int | None = None
    min_tokens: int = 0
    generates: bool = True
    ignore_eos: bool | None = None
    effort: str | None = None
    stops: tuple[str, ...] = ()
    stop_ids: frozenset[int] = NO_IDS
    keeps_stop: bool = False
    logprobs: int | None = None
    offered: tuple[OfferedCall, ...] = ()
    must_call: bool = False
    names_call: bool = False
    most_calls: int = MAX_TOOL_CALLS
    schema: dict[str, Any] | None = None
    schema_is_text: bool = False
    schema_texts: Sequence[str] = ()
    token_ids: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    wants_summary: bool = False
    can_show_reasoning: bool = False
    says_failed: bool = False
    script: "Script | None" = None
    id_end: str = ""
    names: ParamNames = DEFAULT_NAMES

    @property
    def choices(self) -> int:
        """The number of answers: n for each prompt."""
        return self.n * self.prompts

    @property
    def wants_usage(self) -> bool:
        """Whether the answer tells how many tokens the prompt has."""
        return not self.stream or self.include_usage

    def calls(self, asked: int) -> list[OfferedCall]:
        """Return the calls to make; `asked` are asked for beside the body."""
        if not self.offered:
            return []
        count = min(max(asked, 1) if self.must_call else asked, self.most_calls)
        return [self.offered[number % len(self.offered)] for number in range(count)]

    def light(self) -> "Ask":
        """Return it without schemas and texts, which nobody needs once answers are composed."""
        if not (self.offered or self.stop_ids) and self.schema is None and self.script is None:
            return self
        light = replace(self, offered=(), schema=None, schema_texts=(), script=None)
        light.stop_ids = NO_IDS
        return light


def too_many_tokens(ask: Ask, source: str) -> APIError:
    """Refuse more tokens than all choices may have; `source` asked for them where ``n`` is 1."""
    param = "n" if ask.n > 1 else source
    return APIError(
        f"Invalid '{param}': expected at most {MAX_TOKENS_OF_ALL_CHOICES} tokens in all choices, "
        "but got more.",
        param=param,
        code="integer_above_max_value",
    )


def too_many_logprobs(top: int) -> APIError:
    """Refuse more log probabilities than all choices may have; `top` are those of alternatives."""
    return APIError(
        f"Invalid 'logprobs': expected at most {MAX_LOGPROBS} log probabilities in all choices, of "
        f"each token and its {top} alternatives, but got more.",
        param="logprobs",
        code="integer_above_max_value",
    )
