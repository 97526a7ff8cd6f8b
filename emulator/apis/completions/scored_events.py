"""JSON and events of legacy completions that begin with their prompt and its log probabilities."""

from collections.abc import Iterable, Iterator, Sequence
from json.encoder import encode_basestring_ascii as quoted
from typing import NamedTuple, TypeAlias

from emulator.answers.answer import Answer, Segment
from emulator.answers.logprobs import Likelihood
from emulator.apis.completions.events import CompletionRenderer
from emulator.apis.completions.likelihoods import NAMES, lists, rows
from emulator.apis.completions.schema import CompletionChoice
from emulator.apis.completions.scores import LINES
from emulator.contract.usage import Usage
from emulator.rendering.renderer import NO_LOGPROBS, SLOT, Header
from emulator.rendering.token_ids import with_token_ids

# What is larger is rendered in a thread, and leaves in parts.
MAX_BYTES_AT_ONCE = 1 << 16

Pieces: TypeAlias = Sequence[bytes | memoryview]


class _Prompt(NamedTuple):
    """A prompt as JSON: its text, how many characters it has, and its log probabilities."""

    text: Pieces
    characters: int
    lists: Sequence[Pieces]


class ScoredRenderer(CompletionRenderer):
    """Writes legacy completions that begin with their prompt and its log probabilities.

    Args:
        header: What every chunk says.
        n: How many choices each prompt has.
        include_usage: Whether every chunk has a usage, which is null in all but the last.
        parts: The prompts, as `PromptScores.make` has them; cut anywhere.
    """

    def __init__(
        self,
        header: Header,
        n: int,
        *,
        include_usage: bool,
        parts: Sequence[bytes | bytearray],
        prompt_ids: Sequence[str] | None = None,
    ) -> None:
        super().__init__(header, (), include_usage=include_usage, prompt_ids=prompt_ids)
        self._n = n
        self._prompts = _prompts(parts)
        self._has_led = False
        self.is_large = sum(map(len, parts)) * n > MAX_BYTES_AT_ONCE

    def whole(self, answers: Sequence[Answer], usage: Usage) -> bytearray:
        """Return the whole answer as JSON."""
        head, key, tail = self._completion([], usage).model_dump_json().partition('"choices":[')
        body = bytearray(f"{head}{key}".encode())
        for number, answer in enumerate(answers):
            body += b"," if number else b""
            choice = CompletionChoice(
                text=SLOT, index=answer.index, finish_reason=answer.finish_reason
            )
            rendered = choice.model_dump_json()
            if self._prompt_ids is not None:
                ids = answer.segments[-1].ids or ()
                rendered = with_token_ids(rendered, ids, self._prompt_ids[answer.index // self._n])
            for piece in self._filled(rendered, answer, self._answered(answer)):
                body += piece
        body += tail.encode()
        return body

    def lead(self, answers: Sequence[Answer]) -> Sequence[bytes | memoryview]:
        """Return the events of large prompts, in parts; `preamble` is empty from then on."""
        if not self.is_large:
            return ()
        self._has_led = True
        return [piece for answer in answers for piece in self._echo(answer)]

    def preamble(self, answer: Answer, segment: Segment) -> str:  # noqa: ARG002
        """Return the event of the prompt, unless it has left ahead."""
        return "" if self._has_led else b"".join(self._echo(answer)).decode()

    def logprobs(self, answer: Answer, entries: Iterable[Likelihood], offset: int) -> Iterator[str]:
        """Yield the log probabilities of some tokens as JSON; `offset` counts the answer's."""
        return super().logprobs(answer, entries, self._prompt(answer).characters + offset)

    def _echo(self, answer: Answer) -> Iterator[bytes | memoryview]:
        """Yield the event of a choice's prompt."""
        chunk = self._chunk([CompletionChoice(text=SLOT, index=answer.index)])
        return self._filled(chunk, answer, ("", *[""] * len(NAMES)))

    def _answered(self, answer: Answer) -> Sequence[str]:
        """Return the text of an answer as JSON, and what its lists hold beside the prompt's."""
        segment, offset = answer.segments[-1], self._prompt(answer).characters
        return quoted(segment.text)[1:-1], *lists(rows(answer.likelihoods(segment), offset))

    def _prompt(self, answer: Answer) -> _Prompt:
        return self._prompts[answer.index // self._n]

    def _filled(
        self, rendered: str, answer: Answer, answered: Sequence[str]
    ) -> Iterator[bytes | memoryview]:
        """Yield a choice with its prompt: in the text and at the front of each list."""
        prompt = self._prompt(answer)
        head, _, tail = rendered.rpartition(SLOT)
        middle, _, end = tail.partition(NO_LOGPROBS)
        text, *more = answered
        yield head.encode()
        yield from prompt.text
        yield f'{text}{middle}"logprobs":'.encode()
        before = "{"
        for name, pieces, values in zip(NAMES, prompt.lists, more, strict=True):
            yield f'{before}"{name}":['.encode()
            yield from pieces
            yield f"{',' if pieces and values else ''}{values}]".encode()
            before = ","
        yield f"}}{end}".encode()


def _prompts(parts: Sequence[bytes | bytearray]) -> list[_Prompt]:
    """Return the prompts that lines of JSON hold."""
    lines: list[list[memoryview]] = [[]]
    for part in parts:
        view, at = memoryview(part), 0
        while (end := part.find(b"\n", at)) >= 0:
            lines[-1].append(view[at:end])
            lines.append([])
            at = end + 1
        lines[-1].append(view[at:])
    pieces = [[piece for piece in line if piece] for line in lines[:-1]]
    starts = range(0, len(pieces), LINES)
    return [
        _Prompt(pieces[at], int(b"".join(pieces[at + 1])), pieces[at + 2 : at + LINES])
        for at in starts
    ]
